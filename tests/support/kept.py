"""Every kind of thing that is kept outside of a build's stages: how it is made, and what its reader makes of it.

A reader returns everything that a user would get, in one hash. After damage it returns the same, or says one sentence.
The stages of builds are damaged in :mod:`tests.support.strikes`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from minigpt import assets, pipeline, report, runtimes
from minigpt.assets import wheels
from minigpt.conditional.folder import load_model as load_conditional
from minigpt.domain.config import load_domain
from minigpt.errors import MiniGPTError
from minigpt.evaluation.kept import evaluate_kept
from minigpt.exporting import export
from minigpt.files import to_plain
from minigpt.healing import Teacher, run, search, train
from minigpt.healing.answers import likeliest
from minigpt.healing.checkpoint import BackOff
from minigpt.healing.data import pad_pieces, pieces_of
from minigpt.healing.ledger import Ledger
from minigpt.healing.planes import Layout
from minigpt.healing.stored import Store, StoredTeacher, write_answers
from minigpt.integrity import read_kept, write_kept
from minigpt.methods.searches import Removal, Searches
from minigpt.models import catalog
from minigpt.models.find import find_config, find_report
from minigpt.pipeline import conditional_layers
from minigpt.pipeline.lottery import find_ticket, restore_ticket
from minigpt.pipeline.recipe import read_recipe
from minigpt.sweep import SweepOptions, sweep
from minigpt.tickets.delta_store import materialize, put_in, read, write
from tests.assets.test_gguf import metadata, write_gguf
from tests.assets.test_wheels import CONTENT, FakePip, make_wheel
from tests.evaluation.test_kept import CONDITIONS, SUITE, Measure
from tests.healing.test_rates import settings_of
from tests.healing.test_train import DEV, TEXT, essence, fresh, weights
from tests.pipeline.test_conditional import SMALL as CONDITIONAL
from tests.pipeline.test_conditional import faster
from tests.support.building import FAST, build
from tests.support.deltas import saved_parent, tiny_ticket
from tests.support.exports import make_shop
from tests.support.healing import VOCABULARY, Killed, Killer, recipe
from tests.support.tiny import tiny_model
from tests.support.worlds import SMALL, World, make_world
from tests.tickets.test_rounds import Doubling, rounds

# The folder that is damaged, below the root, and the one of everything that it is made from.
KEPT, GIVEN = "kept", "given"
MEMBER = "pypi:tiny-asset==1.0/tiny/data/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of kept things.

    Attributes:
        make: writes it into `KEPT` below a root, from what it writes into `GIVEN`.
        read: what a user gets of it.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]


def value_of(model: Any) -> str:
    """Hash the weights of a model."""
    hasher = hashlib.sha256()
    for name, weight in sorted(dict(model.named_parameters()).items()):
        hasher.update(name.encode() + weight.detach().float().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def text_of(folder: Path) -> str:
    """Say how a tokenizer reads and writes."""
    tokenizer: Any = assets.load_tokenizer(folder)
    ids = tokenizer.encode("The heart beats 20 times; der Arzt sagt: ruhig!")
    return f"{ids} {tokenizer.decode(ids)} {tokenizer.all_special_tokens} {tokenizer.chat_template}"


def make_conversion(root: Path) -> None:
    write_gguf(root / GIVEN / "parent.gguf", tiny_model(), metadata())
    assets.parent(str(root / GIVEN / "parent.gguf"))


def read_conversion(root: Path) -> object:
    parent = assets.parent(str(root / GIVEN / "parent.gguf"))
    return value_of(assets.load_model(parent.path)), text_of(parent.path), parent.precision, parent.fingerprint


def make_member(root: Path) -> None:
    make_wheel(root / GIVEN, CONTENT)
    read_member(root)


def read_member(root: Path) -> object:
    wheel = next((root / GIVEN).glob("*.whl"))
    pins = {"tiny-asset==1.0": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}}
    with mock.patch.object(wheels.subprocess, "run", FakePip(wheel)), mock.patch.object(wheels, "_pins", lambda: pins):
        folder = wheels.fetch_member(MEMBER)
    return sorted((path.name, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def make_delta(root: Path) -> None:
    _, _, ticket = tiny_ticket(saved_parent(root / GIVEN / "parent"))
    write(ticket, root / KEPT / "delta")


def read_delta(root: Path) -> object:
    ticket = read(root / KEPT / "delta")
    model = tiny_model().to(torch.bfloat16)
    put_in(model, ticket)
    return value_of(model), str(ticket.record)


def make_materialized(root: Path) -> None:
    _, _, ticket = tiny_ticket(saved_parent(root / GIVEN / "parent"))
    write(ticket, root / GIVEN / "delta")
    materialize(root / GIVEN / "delta")


def read_materialized(root: Path) -> object:
    folder = materialize(root / GIVEN / "delta").path
    return value_of(assets.load_model(folder)), text_of(folder), str(find_config(str(folder)).to_dict())


def make_export(root: Path) -> None:
    shop = make_shop(root / GIVEN)
    export(replace(shop.request("torch-4bit", "unused"), output_dir=root / KEPT / "export"))


def read_export(root: Path) -> object:
    folder = root / KEPT / "export"
    runtime: Any = runtimes.load(folder)
    ids = torch.arange(3, 40)[None]
    logits = runtime.logits(ids.numpy(), torch.ones_like(ids).numpy())
    return logits.tolist(), text_of(folder), str(find_report(str(folder)))


def make_rounds(root: Path) -> None:
    rounds(root / KEPT, Doubling())


def read_rounds(root: Path) -> object:
    ticket = rounds(root / KEPT, Doubling())
    records = [replace(record, seconds=0.0) for record in ticket.records]
    return str(ticket.weights), str(ticket.masks), str(records)


class Constant(Measure):
    """A measurement that always gives the same."""

    def __call__(self, part: Any) -> Any:
        self.bits = 1.0 / 3
        return super().__call__(part)


def read_scores(_root: Path) -> object:
    return str(evaluate_kept(SUITE, Constant(), CONDITIONS))


def make_checkpoint(root: Path) -> None:
    with mock.patch.object(run, "CHECKPOINT_SECONDS", 0.0), suppress(Killed):
        train(fresh(), TEXT, DEV, recipe(), checkpoint=root / KEPT / "run.safetensors", reporter=Killer(5))


def read_checkpoint(root: Path) -> object:
    model = fresh()
    training = train(model, TEXT, DEV, recipe(), checkpoint=root / KEPT / "run.safetensors")
    return str(essence(training)), str(weights(model))


LEDGER = settings_of(recipe(steps=2, average=0.0, learning_rate=3e-3), rates=(0.1, 1.0), shorter=())


def read_ledger(root: Path) -> object:
    result = search(fresh, TEXT, DEV, LEDGER, seed=3, ledger=Ledger(folder=root / KEPT / "runs", key="k"))
    return value_of(result.model), str([essence(one.training) for one in result.attempts])


STEPS = tuple(Removal(part=(number, "layer"), loss=0.1 * number) for number in range(4))


def read_searches(root: Path) -> object:
    store = Searches(folder=root / KEPT)
    store.remember("depth", STEPS)
    return str(store.known("depth"))


def make_record(root: Path) -> None:
    write_kept(root / KEPT / "record.json", BackOff(fingerprint="k", times=2, seconds=0.3))


def read_record(root: Path) -> object:
    return str(read_kept(root / KEPT / "record.json", BackOff))


PIECES = pieces_of(TEXT.windows[:12])


def read_answers(root: Path) -> object:
    teacher = Teacher(model=tiny_model(vocab_size=VOCABULARY, seed=5))
    store = Store.planned(root / KEPT / "answers", "k", Layout(count=7, vocab=VOCABULARY), PIECES, 96)
    write_answers(store, lambda batch: likeliest(teacher.logits(batch.ids, batch.places), 7))
    answers = StoredTeacher(store.folder, "k").answers(pad_pieces(PIECES))
    return str((answers.tokens.tolist(), answers.logs.tolist(), answers.rest.tolist()))


def make_build(root: Path) -> None:
    world = make_world(root / GIVEN / "world")
    options = conditional_options(world, root)
    with mock.patch.object(conditional_layers, "times_of", faster):
        build(options)


def conditional_options(world: World, root: Path) -> pipeline.BuildOptions:
    """A build with a conditional form."""
    return world.options("unused", overrides=CONDITIONAL, conditional="trees", output_dir=root / KEPT / "out")


def read_build(root: Path) -> object:
    folder = root / KEPT / "out"
    (entry,) = catalog.list()
    if wrong := {name: state for name, state in catalog.verify()[entry.id].items() if state != "ok"}:
        raise MiniGPTError(f"The catalog says: {wrong}.")
    return (
        str(report.load(folder)),
        value_of(assets.load_model(folder)),
        value_of(load_conditional(folder / "conditional")),
        str(find_report(str(folder / "conditional"))),
        text_of(folder / "model"),
        str(read_recipe(folder / "recipe.yaml")),
        str(load_domain(str(folder))),
        str(entry),
    )


def read_parts(root: Path) -> object:
    """Results of a user who opens single files and never uses the catalog."""
    folder = root / KEPT / "out"
    parts: list[str] = []
    for part in (
        lambda: str(report.load(folder)),
        lambda: value_of(assets.load_model(folder)),
        lambda: value_of(load_conditional(folder / "conditional")),
        lambda: str(read_recipe(folder / "recipe.yaml")),
        lambda: str(load_domain(str(folder))),
        lambda: str(find_config(str(folder)).to_dict()),
        lambda: str(catalog.list()),
    ):
        try:
            parts.append(part())
        except MiniGPTError as error:
            refusal = str(error)
            parts.append("refused")
    if "refused" in parts:
        raise MiniGPTError(refusal)
    return parts


def make_lottery(root: Path) -> None:
    world = make_world(root / GIVEN / "world")
    find_ticket(world.options("unused", overrides=SMALL, output_dir=root / KEPT / "ticket"), "global", 0.3)


def read_lottery(root: Path) -> object:
    shutil.rmtree(root / "dense", ignore_errors=True)
    restore_ticket(root / KEPT / "ticket", root / "dense")
    return value_of(assets.load_model(root / "dense")), text_of(root / "dense")


def without_times(value: Any) -> Any:
    """Leave out how long things took: a point that is made again takes another time."""
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if "seconds" not in name}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def make_sweep(root: Path) -> object:
    make_world(root / GIVEN / "world")
    return read_sweep(root)


def read_sweep(root: Path) -> object:
    world = World(root=root, domain=root / GIVEN / "world" / "words.yaml", base=root / GIVEN / "world" / "parent")
    options = SweepOptions(
        domains=(str(world.domain),),
        methods=("random",),
        sizes=(0.9,),
        base=str(world.base),
        device="cpu",
        output_dir=root / KEPT / "sweep",
        overrides={**SMALL, **FAST},
        pictures=False,
        healing="none",
    )
    result = sweep(options)
    return without_times(to_plain(result.domains))


KINDS: Mapping[str, Kind] = {
    "converted parent": Kind(make=make_conversion, read=read_conversion),
    "member of a package": Kind(make=make_member, read=read_member),
    "delta ticket": Kind(make=make_delta, read=read_delta),
    "model of a delta ticket": Kind(make=make_materialized, read=read_materialized),
    "export": Kind(make=make_export, read=read_export),
    "rounds of a lottery": Kind(make=make_rounds, read=read_rounds),
    "parent's scores": Kind(make=read_scores, read=read_scores),
    "checkpoint": Kind(make=make_checkpoint, read=read_checkpoint),
    "ledger": Kind(make=read_ledger, read=read_ledger),
    "teacher's answers": Kind(make=read_answers, read=read_answers),
    "searches": Kind(make=read_searches, read=read_searches),
    "small record": Kind(make=make_record, read=read_record),
    "build and catalog": Kind(make=make_build, read=read_build),
    "files of a build": Kind(make=make_build, read=read_parts),
    "lottery ticket": Kind(make=make_lottery, read=read_lottery),
    "sweep": Kind(make=make_sweep, read=read_sweep),
}
