"""`--keep-general`: general text decides along, its loss is bounded, and the bound is a gate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from minigpt import assets, pipeline
from minigpt.errors import ConfigError
from minigpt.healing import Bound, bits_per_byte
from minigpt.pipeline import BuildOptions, healing
from minigpt.pipeline.build import context_for
from minigpt.pipeline.context import Context
from minigpt.pipeline.text import in_turns, token_text
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT
from minigpt.report.figures import metric_of
from minigpt.types import BuildReport, Document, PrunePlan
from tests.support.building import FAST, build, folder_of
from tests.support.commands import run
from tests.support.reports import make_report
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


def context_of(world: World, folder: str, **overrides: str) -> Context:
    options = world.options(folder, overrides=overrides)
    return context_for(str(world.domain), options, Workspace(root=folder_of(options)), SILENT)


def documents(*sizes: int, source: str) -> list[Document]:
    return [Document(text=source * size, source=f"{source}{place}") for place, size in enumerate(sizes)]


def test_texts_are_read_in_turns_by_size() -> None:
    long, short = documents(10, 10, 10, source="a"), documents(4, 4, 4, 4, 4, 4, source="b")
    taken = [each.source for each in in_turns(long, short)]
    assert taken == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "a2", "b5"]
    assert [each.source for each in in_turns(documents(1, 1, source="a"), documents(9, source="b"))] == [
        "a0",
        "b0",
        "a1",
    ]
    assert in_turns([], short) == [] and in_turns(long, []) == long


def test_general_text_decides_along(world: World) -> None:
    plain, kept = context_of(world, "kg-plain"), context_of(world, "kg-kept", keep_general="1.2")
    assert kept.general is not None
    tokenizer = assets.load_tokenizer(kept.parent.path)
    general = {document.text for document in (*kept.general.calibration, *kept.general.train)}
    assert sum(kept.token_counts(tokenizer).values()) > sum(plain.token_counts(tokenizer).values())
    for own, shared in (
        (plain.probe_documents(4000), kept.probe_documents(4000)),
        (plain.read_documents(), kept.read_documents()),
    ):
        assert not general & {document.text for document in own}
        assert {document.text for document in shared} - {document.text for document in own}
    own, shared = (each.calibration(tokenizer, 1024) for each in (plain, kept))
    assert [batch.input_ids.tolist() for batch in own] != [batch.input_ids.tolist() for batch in shared]
    assert plain.plan_text_key != kept.plan_text_key and plain.text_key != kept.text_key


@pytest.mark.parametrize(
    ("overrides", "said"),
    [({"keep_general": "0.9"}, "above 1"), ({"keep_general": "1.1", "evaluation.general": "false"}, "control")],
)
def test_a_bound_that_cannot_be_kept_is_refused(world: World, overrides: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        context_of(world, "kg-refused", **overrides)


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
    made = build(options)
    assert any("General text was to cost at most 1.01 times" in note for note in made.notes)
    assert any("General training text was mixed" in note for note in made.notes)
    assert {each.name for each in made.attributions} == {"texts", "plain"}
    assert made.stages[-1].training is not None


def test_healing_is_told_the_bound_and_made_again_for_another(
    world: World, made: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is a multiple of what the parent pays on the control's dev text, all of it."""
    told: list[Bound | None] = []
    real = healing.train

    def watched(*arguments: Any, bound: Bound | None, **options: Any) -> Any:
        told.append(bound)
        return real(*arguments, bound=bound, **options)

    monkeypatch.setattr(healing, "train", watched)
    for kept in ("1.1", "1.3", "1.3", "null"):
        context = context_of(world, "kg-healing", **{"heal.steps": "1", "keep_general": kept})
        source = context.parent.path
        plan = PrunePlan(base_model="", method="", seed=0, layers=(), ffn=(), kv_groups=())
        healing.heal(context, source, "pruned", plan, source)
    assert made["healed"] == 3 and told[2] is None and context.general is not None
    windows = token_text(assets.load_tokenizer(source), context.general.dev, 64)
    cost = bits_per_byte(context.load(source), windows)
    for bound, kept in zip(told[:2], (1.1, 1.3), strict=True):
        assert bound is not None and bound.text == windows
        assert bound.limit == pytest.approx(kept * cost)


@pytest.mark.parametrize(("bound", "code"), [("5", 0), ("1.0001", 3)])
def test_the_bound_is_a_gate(monkeypatch: pytest.MonkeyPatch, bound: str, code: int) -> None:
    asked: list[BuildOptions] = []

    def fake(options: BuildOptions, _reporter: Any) -> tuple[BuildReport, ...]:
        asked.append(options)
        return (make_report("medical"),)

    monkeypatch.setattr(pipeline, "build", fake)
    made = make_report("medical")
    parent, healed = (metric_of(stage, "general", "bits_per_byte") for stage in (made.stages[0], made.stages[-1]))
    assert parent is not None and healed is not None and 1.0001 < healed.value / parent.value < 5
    done = run("build", "--domain", "medical", "--keep-general", bound, "--set", "heal.steps=3")
    assert done.exit_code == code, done.output
    assert asked[0].overrides.keys() == {"heal.steps", "keep_general"}
    assert asked[0].overrides["heal.steps"] == "3" and float(asked[0].overrides["keep_general"]) == float(bound)
    assert run("build", "--domain", "medical", "--set", f"keep_general={bound}").exit_code == code
    assert run("build", "--domain", "medical", "--set", "keep_general=null").exit_code == 0
    assert "parent" in done.stdout
    assert ("general" in done.stderr) is (code == 3)
    assert run("build", "--domain", "medical", "--keep-general", "1").exit_code == 2
