"""Encoders of the BERT type: their feed-forward layers are converted, saved and loaded, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.assets.parents import is_conditional
from minigpt.conditional import folder
from minigpt.conditional.convert import to_relu, to_trees
from minigpt.conditional.distill import DistillOptions, distill
from minigpt.conditional.swap import ENCODERS, dense_weights, put
from minigpt.errors import AssetError, UnsupportedModel
from minigpt.transformer.arch import arch_of
from minigpt.transformer.families import UNDESCRIBED
from tests.conditional.test_swap import other_model, output
from tests.support.tiny import tiny_tokenizer


def converted(name: str) -> Any:
    """Return an encoder whose first two layers are trees and the largest values."""
    model = other_model(name)
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    trees = to_trees(dense_weights(model, 0), x, depth=3, trees=2)
    put(model, {0: trees, 1: to_relu(dense_weights(model, 1), top_k=6)})
    return model.eval()


@pytest.mark.parametrize("name", ["bert", "bert classifier", "roberta"])
def test_a_converted_encoder_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    """The class that it was saved from, the same layers and the same output."""
    model = converted(name)
    folder.save_model(model, tiny_tokenizer(), tmp_path / "out")
    assert is_conditional(tmp_path / "out")
    loaded = folder.load_model(tmp_path / "out")
    assert type(loaded) is type(model) and list(folder.layers_in(loaded)) == [0, 1]
    assert torch.equal(output(loaded), output(model))


def test_conversion_and_distillation_come_near_the_dense_layer() -> None:
    """Half of the neurons by value; training on the layer's inputs lowers the error."""
    weights = dense_weights(other_model("bert"), 1)
    x = torch.randn(256, 32, generator=torch.Generator().manual_seed(1))
    layer = to_relu(weights, top_k=24)
    report = distill(layer, weights, x[64:], unseen=x[:64], options=DistillOptions(steps=30, batch_tokens=64))
    assert 0 < report.after < report.before


def test_a_folder_that_names_no_stock_class_is_refused(tmp_path: Path) -> None:
    folder.save_model(converted("bert"), tiny_tokenizer(), str(tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"architectures": ["softmax"]}))
    with pytest.raises(AssetError):
        folder.load_model(tmp_path / "out")


@pytest.mark.parametrize("kind", ENCODERS)
def test_pruning_an_encoder_is_refused_with_what_can_be_done(kind: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"an encoder does not continue text.*made conditional from Python"):
        arch_of(SimpleNamespace(model_type=kind))
    assert kind in UNDESCRIBED
