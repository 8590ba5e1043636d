"""`--keep-general`: general text decides along, its loss is bounded, and the bound is a gate."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

import minigpt
from minigpt import report
from minigpt.corpus.selection import interleave
from minigpt.errors import ConfigError, GateFailed
from minigpt.evaluation import choose_opening
from minigpt.healing import Bound, TokenText, bits_per_byte
from minigpt.healing.tokenized import behind, token_text
from minigpt.pipeline import BuildOptions, healing
from minigpt.pipeline import build as build_module
from minigpt.pipeline.run import SavedModel
from minigpt.pipeline.text import calibration, probe_documents
from minigpt.report.figures import metric_of
from minigpt.results import BuildReport
from minigpt.transformer.calibration import token_counts
from minigpt.types import Document, PrunePlan
from tests.support.building import FAST, Start, build, folder_of, start
from tests.support.commands import run
from tests.support.reports import make_report
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


def start_of(world: World, folder: str, **overrides: str) -> Start:
    return start(world.options(folder, overrides=overrides))


def documents(*sizes: int, source: str) -> list[Document]:
    return [Document(text=source * size, source=f"{source}{place}") for place, size in enumerate(sizes)]


def test_texts_are_read_in_turns_by_size() -> None:
    long, short = documents(10, 10, 10, source="a"), documents(4, 4, 4, 4, 4, 4, source="b")
    taken = [each.source for each in interleave(long, short)]
    assert taken == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "a2", "b5"]
    assert [each.source for each in interleave(documents(1, 1, source="a"), documents(9, source="b"))] == [
        "a0",
        "b0",
        "a1",
    ]
    assert interleave([], short) == [] and interleave(long, []) == long


def test_general_text_decides_along(world: World) -> None:
    plain, kept = start_of(world, "kg-plain"), start_of(world, "kg-kept", keep_general="1.2")
    assert kept.corpora.general is not None
    tokenizer = kept.tokenizer
    general = {document.text for document in (*kept.corpora.general.calibration, *kept.corpora.general.train)}
    counts = [sum(token_counts(tokenizer, each.planning.counted).values()) for each in (plain, kept)]
    assert counts[1] > counts[0]
    for own, shared in (
        (probe_documents(plain.planning, 4000), probe_documents(kept.planning, 4000)),
        (plain.real.real, kept.real.real),
    ):
        assert not general & {document.text for document in own}
        assert {document.text for document in shared} - {document.text for document in own}
    own_batches, shared_batches = (calibration(each.planning, tokenizer, 1024) for each in (plain, kept))
    ids = [[batch.input_ids.tolist() for batch in batches] for batches in (own_batches, shared_batches)]
    assert ids[0] != ids[1]
    assert plain.planning.key != kept.planning.key and plain.real.key != kept.real.key


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"keep_general": "0.9"}, "above 1"),
        ({"keep_general": "1.1", "evaluation.general": "false"}, "needs general text"),
    ],
)
def test_a_bound_that_cannot_be_kept_is_refused(world: World, overrides: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start_of(world, "kg-refused", **overrides)


def test_a_build_keeps_the_bound_among_its_steps_and_says_so(world: World) -> None:
    options: BuildOptions = world.options(
        "kg-build",
        overrides={
            **FAST,
            "evaluation.general": "true",
            "heal.steps": "4",
            "heal.evaluate_every": "1",
            "keep_general": "1.01",
        },
    )
    with pytest.raises(GateFailed, match="of general is"):
        build(options)
    made = build(replace(options, keep_general=9.0, output_dir=folder_of(options).parent / "kg-loose"))
    assert any("General text was to cost at most 9 times" in note for note in made.notes)
    made = report.load(folder_of(options))
    assert any("General text was to cost at most 1.01 times" in note for note in made.notes)
    assert any("General training text was mixed into" in note for note in made.notes)
    assert made.general_share == 1.0
    assert made.overrides["heal.steps"] == "4"
    assert {each.name for each in made.attributions} == {"texts", "plain"}
    assert made.stages[-1].training is not None


def test_healing_is_told_the_bound_and_made_again_for_another(
    world: World, made: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is a multiple of what the parent pays on the general dev text, all of it, behind its best opening."""
    told: list[Bound | None] = []
    real = healing.train

    def watched(*arguments: Any, bound: Bound | None, **options: Any) -> Any:
        told.append(bound)
        return real(*arguments, bound=bound, **options)

    monkeypatch.setattr(healing, "train", watched)
    for kept in ("1.1", "1.3", "1.3", "null"):
        begun = start_of(world, "kg-healing", **{"heal.steps": "1", "keep_general": kept})
        source = SavedModel(path=begun.parent.path, key="pruned")
        plan = PrunePlan(base_model="", method="", seed=0, layers=(), ffn=(), kv_groups=())
        healing.heal(begun.run, begun.corpora, begun.parent, begun.text(), source, plan, source)
    assert made["healed"] == 3 and told[2] is None and begun.corpora.general is not None
    model, general = begun.load(source.path), token_text(begun.tokenizer, begun.corpora.general.dev, 64)
    opening = choose_opening(model, begun.tokenizer, begun.corpora.domain.dev).token
    assert opening != begun.tokenizer.bos_token_id, "another opening must be best for this test to mean anything"
    windows = behind(general, opening)
    assert windows == TokenText(windows=tuple((opening, *ids[1:]) for ids in general.windows), bytes=general.bytes)
    cost = bits_per_byte(model, windows)
    assert cost != bits_per_byte(model, general)
    for bound, kept in zip(told[:2], (1.1, 1.3), strict=True):
        assert bound is not None and bound.text == windows
        assert bound.limit == pytest.approx(kept * cost)


@pytest.mark.parametrize(("bound", "code"), [("5", 0), ("1.0001", 3)])
def test_the_bound_is_a_gate_of_the_library_and_of_the_command(
    monkeypatch: pytest.MonkeyPatch, bound: str, code: int
) -> None:
    asked: list[BuildOptions] = []
    made = make_report("medical")

    def fake(_name: str, options: BuildOptions, _reporter: Any) -> BuildReport:
        asked.append(options)
        return made

    monkeypatch.setattr(build_module, "build_domain", fake)
    parent, healed = (metric_of(stage, "general", "bits_per_byte") for stage in (made.stages[0], made.stages[-1]))
    assert parent is not None and healed is not None and 1.0001 < healed.value / parent.value < 5
    done = run("build", "--domain", "medical", "--keep-general", bound, "--set", "heal.steps=3")
    assert done.exit_code == code, done.output
    assert asked[0].overrides == {"heal.steps": "3"} and asked[0].keep_general == float(bound)
    assert run("build", "--domain", "medical", "--set", f"keep_general={bound}").exit_code == code
    assert run("build", "--domain", "medical", "--set", "keep_general=null").exit_code == 0
    assert "parent" in done.stdout
    assert ("general" in done.stderr) is (code == 3)
    assert run("build", "--domain", "medical", "--keep-general", "1").exit_code == 2
    if code == 0:
        assert minigpt.build("medical", keep_general=float(bound)) == made
    else:
        with pytest.raises(GateFailed) as failed:
            minigpt.build("medical", keep_general=float(bound))
        assert failed.value.reports == (made,)
