"""The bill from a config alone: the paper's arithmetic for Llama-2-70B, and counts of real modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

from minigpt.cli import cli
from minigpt.errors import AssetError, PlanError
from minigpt.models.find import find_config
from minigpt.transformer.arch import decoder_layers
from minigpt.transformer.estimate import estimate
from minigpt.transformer.fused import separate_projections
from tests.support.archsuite import FAMILIES, model_of

LLAMA_2_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_2_70B), encoding="utf-8")
    return path


def test_the_papers_arithmetic(llama: Path) -> None:
    """Gromov et al.: 140 GB and 3e10 FLOP a token become 17.5 GB and 1.5e10 with 4 bits and half of the layers."""
    config = find_config(str(llama))
    whole, pruned = estimate(config), estimate(config, layers=40, bits=4)
    assert whole.parameters == 68_976_648_192
    assert whole.weight_bytes / 1e9 == pytest.approx(140, rel=0.02)
    assert pruned.weight_bytes / 1e9 == pytest.approx(17.5, rel=0.02)
    assert whole.paper_flops_per_token == pytest.approx(3e10, rel=0.1)
    assert pruned.paper_flops_per_token == pytest.approx(1.5e10, rel=0.1)
    assert whole.flops_per_token == 2 * (68_976_648_192 - 32000 * 8192 - 161 * 8192)
    assert pruned.flops_per_token / whole.flops_per_token == pytest.approx(0.5, abs=0.005)
    assert whole.cache_bytes_per_token == 80 * 2 * 8 * 128 * 2


def read_by_a_token(layer: nn.Module, config: Any) -> int:
    """Weights of a layer's router, and of as many experts as a token goes to."""
    router = sum(
        p.numel() for name, p in layer.named_parameters() if "experts" not in name and p.shape[0] == 4 < p.numel()
    )
    experts = [p for name, p in layer.named_parameters() if ".experts." in name and p.ndim == 3]
    return router + sum(p.numel() // 4 * config.num_experts_per_tok for p in experts)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_the_modules(family: str) -> None:
    """Two FLOP for every weight of a linear layer, the head's included; a context costs its keys and values."""
    model = model_of(family)
    whole = estimate(model.config)
    with separate_projections(model):
        inside = sum(m.weight.numel() for m in decoder_layers(model).modules() if isinstance(m, nn.Linear))
        inside += sum(read_by_a_token(layer, model.config) for layer in decoder_layers(model))
    assert whole.parameters == sum(p.numel() for p in model.parameters())
    assert whole.flops_per_token == 2 * (inside + 512 * 32)
    assert whole.weight_bytes == whole.stored_bytes == 2 * whole.parameters
    far = estimate(model.config, context=100)
    assert far.flops_per_token - whole.flops_per_token == 2 * 2 * 4 * (4 * 8) * 100
    fewer = estimate(model.config, layers=1)
    assert 3 * (estimate(model.config, layers=2).parameters - fewer.parameters) == whole.parameters - fewer.parameters


def test_stored_bytes_are_what_bitsandbytes_stores() -> None:
    pytest.importorskip("bitsandbytes")
    from minigpt.transformer.nf4 import four_bit
    from tests.support.tiny import tiny_config

    config = tiny_config("llama", layers=2)
    config.hidden_size, config.intermediate_size, config.num_attention_heads, config.head_dim = 256, 1024, 8, 32
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(config)
    with four_bit(model) as size:
        tables = 14 * (16 * 4 + 256 * 4 + 200)
        assert 0 <= size.bytes - estimate(config, bits=4).stored_bytes < tables


def test_impossible_questions(llama: Path, tmp_path: Path) -> None:
    config = find_config(str(llama))
    for options in ({"layers": 81}, {"layers": 0}, {"bits": 3}):
        with pytest.raises(PlanError):
            estimate(config, **options)
    (tmp_path / "odd.json").write_text('{"model_type": "no-such-type"}')
    for name in (str(tmp_path / "odd.json"), "nobody/no-such-model"):
        with pytest.raises(AssetError, match=r"is not in the local cache|has no model of type"):
            find_config(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetError, match="holds neither"):
        find_config(str(tmp_path / "empty"))


def test_the_command(llama: Path) -> None:
    run = CliRunner().invoke(cli, ["estimate", str(llama), "--layers", "40", "--bits", "4", "--json"])
    assert run.exit_code == 0, run.output
    output = json.loads(run.stdout)
    assert (
        output["model"]["layers"] == 80
        and output["estimate"]["weight_bytes"] == (40 * (855_638_016 + 2 * 8192) + 2 * 32000 * 8192 + 8192) // 2
    )
    folder = CliRunner().invoke(cli, ["estimate", str(llama.parent), "--layers", "40", "--bits", "4"])
    assert folder.exit_code == 0 and "138.0 GB" in folder.stdout and "17.4 GB" in folder.stdout
    wrong = CliRunner().invoke(cli, ["estimate", str(llama), "--layers", "100"])
    assert wrong.exit_code == 1
