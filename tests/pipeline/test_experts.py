"""Builds of parents with experts: half of them go, and plan, report, page and saved model say so."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from minigpt import pipeline
from minigpt.cli.build import outline
from minigpt.files import read_json
from minigpt.report.pictures import removed_picture
from minigpt.transformer.arch import shape_of
from minigpt.types import PrunePlan
from tests.support.tiny import tiny_config
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def mixture(world: World) -> Path:
    """A random Mixtral of 4 experts with the tokenizer of the world's parent."""
    folder = world.root / "mixture"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("mixtral", vocab_size=2048)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(world.base).save_pretrained(folder)
    return folder


def text_of(renderable: object) -> str:
    """What a terminal of 100 columns shows."""
    output = StringIO()
    Console(file=output, width=100).print(renderable)
    return output.getvalue()


def test_a_build_removes_experts_and_says_so(world: World, mixture: Path) -> None:
    """REAP keeps two of four experts in every layer; the routers are healed only where the setting lets them be."""
    options = world.options(
        "experts",
        base=str(mixture),
        method="reap",
        target_size=0.7,
        overrides={"plan.experts": "2", "heal.router": "frozen", "evaluation.general": "false"},
    )
    (summary,) = pipeline.plan_specialists(options)
    assert summary.experts == 2 and summary.tokens is None and summary.removed_layers == ()
    assert "experts" in text_of(outline(summary))
    (report,) = pipeline.build_specialists(options)
    plan = read_json(world.root / "experts" / "plan.json", PrunePlan)
    removed = plan.parameters_before - plan.parameters_after
    assert report.kept_per_layer["experts"] == (2, 2, 2, 2) and report.removed_parameters["experts"] == removed
    assert (report.shape_before.experts, report.shape_after.experts) == (4, 2)
    assert "2 of 4" in text_of(removed_picture(report, 100))
    assert "experts kept in each layer" in (world.root / "experts" / "report.html").read_text("utf-8")
    child = AutoModelForCausalLM.from_pretrained(world.root / "experts" / "model", dtype=torch.float32)
    parent = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
    assert shape_of(child).experts == 2
    for layer, kept in enumerate(plan.experts):
        expected = parent.model.layers[layer].mlp.gate.weight[list(kept)]
        torch.testing.assert_close(child.model.layers[layer].mlp.gate.weight, expected, rtol=1e-2, atol=1e-3)
