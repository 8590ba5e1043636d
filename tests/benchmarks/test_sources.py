"""The benchmark of other sources: its variants, its averages, and one variant from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.files import read_jsonl
from tests.support.scripts import BENCHMARKS, script
from tests.support.worlds import World


@pytest.fixture(scope="module")
def sources() -> Any:
    """The script as a module."""
    with script("sources") as module:
        yield module


def test_the_published_variants_can_be_read(sources: Any) -> None:
    variants = sources.variants_of(read_jsonl(BENCHMARKS / "sources.jsonl"))
    assert len({variant.tag for variant in variants}) == len(variants) >= 20
    published = {row["tag"] for row in read_jsonl(BENCHMARKS.parent / "docs" / "results" / "sources.jsonl")}
    assert {variant.tag for variant in variants} <= published


def test_a_row_takes_over_what_it_does_not_change(sources: Any) -> None:
    first = {"tag": "a", "vocab_size": 64, "layers": 2, "blend": 0.25}
    _, second = sources.variants_of([first, {"tag": "b", "like": "a", "layers": 3}])
    assert (second.tag, second.layers, second.blend, second.vocab_size) == ("b", 3, 0.25, 64)
    with pytest.raises(SystemExit, match="no such field: layer"):
        sources.variants_of([{**first, "layer": 2}])


@pytest.mark.parametrize("kept", [8, 20])
def test_elimination_beats_a_ranking_that_sees_no_correlation(sources: Any, kept: int) -> None:
    """Of pairs of equal inputs one is superfluous: elimination drops one of each pair first, magnitudes cannot."""
    from elimination import elimination_order

    generator = torch.Generator().manual_seed(0)
    half = torch.randn(500, 16, generator=generator, dtype=torch.double)
    inputs = torch.cat([half, half], 1) + 1e-3 * torch.randn(500, 32, generator=generator, dtype=torch.double)
    weight = torch.randn(5, 32, generator=generator, dtype=torch.double)
    gram = inputs.T @ inputs
    order = elimination_order(weight, torch.linalg.inv(gram + 1e-6 * torch.eye(32)))
    assert sorted(order.tolist()) == order.sort().values.tolist() and len(set(order.tolist())) == 32

    def error(columns: Any) -> float:
        part = inputs[:, columns]
        refit = torch.linalg.lstsq(part, inputs @ weight.T).solution
        return float((inputs @ weight.T - part @ refit).square().sum())

    by_size = weight.norm(dim=0).topk(kept).indices
    assert error(order.topk(kept).indices) < error(by_size)
    first_out = order.argsort()[:16].tolist()
    assert len({place % 16 for place in first_out}) >= 12


def test_a_variant_is_cut_healed_and_read_on_other_sources(
    sources: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    other = [
        {"text": row["text"], "source": "elsewhere"} for row in read_jsonl(world.root / "docs" / "texts.jsonl")[:2]
    ]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    heal = {"steps": "1", "tokens_per_step": "256", "window": "64", "evaluate_every": "1"}
    variant = {"tag": "small", "vocab_size": 1984, "layers": 4, "kept": 0.7795, "blend": 0.5, "heal": heal}
    variant |= {"averages": [0.5], "calibrate": "mixed", "counts": "mixed", "method": "elimination"}
    fresh = {**variant, "tag": "fresh", "fresh": True, "method": "random"}
    (tmp_path / "v.jsonl").write_text(json.dumps(variant) + "\n" + json.dumps(fresh) + "\n")
    command = ["--domain", str(world.domain), "--base", str(world.base), "--device", "cpu", "--tokens", "512"]
    command += ["--other", str(tmp_path / "other.jsonl"), "--variants", str(tmp_path / "v.jsonl"), "--blends", "[0.5]"]
    command += ["--widths", "[8, 2]"]
    command += ["--results", str(tmp_path / "r.jsonl"), "--tuned", str(tmp_path / "t.safetensors")]
    command += ["--tune", json.dumps({"steps": "1", "tokens_per_step": "256", "window": "64", "evaluate_every": "1"})]
    monkeypatch.setattr(sys, "argv", ["sources.py", *command])
    sources.main()
    sources.main()
    rows = read_jsonl(tmp_path / "r.jsonl")
    tags = ["parent", "tuned", "blend-0.5", "tuned-int8", "tuned-int2", "small", "fresh"]
    assert [row["tag"] for row in rows] == tags, "nothing is made twice"
    assert set(rows[5]["healed"]["parent"]) == {"dev", "heldout", "general", "other"}
    assert rows[0]["healed"]["parent"]["other"] == 1.0 and rows[5]["averages"].keys() == {"0.5"}
    to_tuned = [row["healed"]["tuned"]["heldout"] for row in rows]
    assert abs(to_tuned[3] - 1) <= abs(to_tuned[4] - 1), "eight bits change less than two"
    assert to_tuned[6] != to_tuned[5] and rows[5]["shape"] == rows[6]["shape"], "other weights of the same shape"


def test_rounding_keeps_a_part_in_half_a_step_of_its_blocks_scale(sources: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 3))
    coarse = sources.rounded(model, 4)
    before, after = model[0].weight.detach(), coarse[0].weight.detach()
    scale = before.view(3, 2, 32).abs().amax(-1, keepdim=True) / 7
    assert ((before - after).view(3, 2, 32).abs() <= scale / 2 + 1e-6).all() and not torch.equal(before, after)
    assert torch.equal(model[0].bias, coarse[0].bias)
