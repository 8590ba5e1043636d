"""The door as a whole: every public name exists and is documented; builds, reports, models."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import minigpt
from minigpt.errors import ConfigError
from tests.support.building import FAST
from tests.support.worlds import SMALL, World

pytestmark = pytest.mark.usefixtures("home")
FUNCTIONS = ("build", "evaluate", "export", "heal", "load", "load_report", "plan", "prune", "read_recipe")


@pytest.mark.parametrize("name", [name for name in minigpt.__all__ if name != "__version__"])
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(minigpt, name)
    assert value.__doc__ and value.__doc__.split("\n")[0].endswith((".", ":"))
    if name in FUNCTIONS:
        parameters = inspect.signature(value).parameters
        assert "Args:" in value.__doc__ or len(parameters) <= 1
        missing = [parameter for parameter in parameters if f"{parameter}:" not in value.__doc__]
        assert len(parameters) <= 1 or missing == []


def test_functions_are_not_hidden_by_packages_of_like_names() -> None:
    """A package called `minigpt.plan` would replace the function as soon as anything imported it."""
    names = {path.stem for path in Path(minigpt.__file__).parent.iterdir()}
    assert not names & set(minigpt.__all__)
    assert set(FUNCTIONS) <= set(dir(minigpt))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = minigpt.nothing


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(minigpt).failed == 0


def test_a_build_its_report_and_its_model(world: World, tmp_path: Path) -> None:
    settings = {**SMALL, **FAST}
    report = minigpt.build(
        world.domain, base=world.base, size=0.8, settings=settings, output_dir=tmp_path / "out", device="cpu"
    )
    assert report == minigpt.load_report(tmp_path / "out") == minigpt.load_report("words")
    model, tokenizer = minigpt.load(tmp_path / "out", device="cpu", dtype="bfloat16")
    assert sum(parameter.numel() for parameter in model.parameters()) == report.stages[-1].parameters
    assert len(tokenizer) == report.shape_after.vocab_size
    stage = minigpt.evaluate(tmp_path / "out", world.domain, device="cpu")
    assert stage.parameters == report.stages[-1].parameters


@pytest.mark.parametrize(
    ("model", "on", "said"),
    [("medical", ["a text"], "load it"), (object(), "medical", "list of texts"), (object(), ["a"], "its tokenizer")],
)
def test_what_does_not_belong_together_is_refused(model: object, on: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        minigpt.evaluate(model, on)


def test_a_dtype_that_is_none_and_no_domain_are_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="no torch dtype"):
        minigpt.load(world.base, dtype="float3")
    with pytest.raises(ConfigError, match="at least one domain"):
        minigpt.build([])
    assert minigpt.BuildOptions(domains="medical").domains == ("medical",)  # type: ignore[arg-type]
