"""A streamed parent has the weights of the loaded one, layer by layer, and refuses what it cannot stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minigpt.errors import AssetError, UnsupportedModel
from minigpt.streaming.parent import StreamedParent, refusal
from minigpt.transformer.arch import arch_of
from tests.support.streamed import STORED_APART, STREAMED, saved, streamed, whole


@pytest.mark.parametrize("family", STREAMED)
def test_every_tensor_is_that_of_the_loaded_model(tmp_path: Path, family: str) -> None:
    parent = streamed(saved(tmp_path, family, tied=family in {"llama", "gemma", "phi3"}))
    expected = whole(tmp_path)
    state, buffers = expected.state_dict(), dict(expected.named_buffers())
    for name, buffer in parent.model.named_buffers():
        assert torch.equal(buffer, buffers[name])
    seen = set()
    for index, _ in enumerate(parent.sweep(title="")):
        inside = {name for name, value in parent.model.state_dict().items() if not value.is_meta}
        layers = {name for name in inside if name.startswith(arch_of(expected).layers)}
        assert layers
        assert all(name.startswith(f"{arch_of(expected).layers}.{index}.") for name in layers)
        seen |= inside
        assert all(torch.equal(parent.model.state_dict()[name], state[name]) for name in inside)
    assert seen == set(state)


def test_only_one_layer_has_weights(tmp_path: Path) -> None:
    parent = streamed(saved(tmp_path, "llama"))
    for index, _ in enumerate(parent.sweep(3, title="")):
        full = [any(not value.is_meta for value in layer.parameters()) for layer in parent.layers]
        assert full == [place == index for place in range(4)]
    assert all(value.is_meta for layer in parent.layers for value in layer.parameters())
    assert index == 2


def test_shards_and_bare_decoders_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path, "gpt2", shard=60_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    for path in files:
        bare = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
        save_file(bare, path, metadata={"format": "pt"})
    parent, state = streamed(tmp_path), whole(tmp_path).state_dict()
    for _ in parent.sweep(title=""):
        for name, value in parent.model.state_dict().items():
            assert value.is_meta or torch.equal(value, state[name])


@pytest.mark.parametrize("family", STORED_APART)
def test_experts_are_stacked_from_files_that_are_in_another_order(tmp_path: Path, family: str) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path, family)
    path = tmp_path / "model.safetensors"
    state = whole(tmp_path).state_dict()
    stored = load_file(path)
    path.unlink()
    for number, name in enumerate(sorted(stored, key=lambda name: name[::-1])):
        save_file({name: stored[name]}, tmp_path / f"part-{number:05d}.safetensors")
    parent = streamed(tmp_path)
    seen = set()
    for _ in parent.sweep(title=""):
        for name, value in parent.model.state_dict().items():
            if not value.is_meta:
                seen.add(name)
                assert torch.equal(value, state[name])
    assert seen == set(state)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path, "qwen3_moe")
    path = tmp_path / "model.safetensors"
    stored = load_file(path)
    save_file({name.replace("experts.3.up_proj", "experts.3.w3"): value for name, value in stored.items()}, path)
    with pytest.raises(UnsupportedModel, match=r"cannot be streamed; use --set memory\.streaming=never"):
        streamed(tmp_path)
    assert "cannot be streamed" in str(refusal(tmp_path))


def test_what_can_be_streamed_is_not_refused(tmp_path: Path) -> None:
    assert refusal(saved(tmp_path, "qwen2")) is None


def test_a_file_that_goes_away_is_an_error_of_ours(tmp_path: Path) -> None:
    parent = streamed(saved(tmp_path, "llama"))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(AssetError, match=r"cannot be read.*Fetch or save it again"):
        list(parent.sweep(title=""))


def test_damaged_files_are_an_error_of_ours(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AssetError, match="damaged"):
        streamed(tmp_path)


def test_arithmetic_may_be_in_the_stored_type(tmp_path: Path) -> None:
    parent = StreamedParent(saved(tmp_path, "llama"), dtype=torch.bfloat16)
    assert {value.dtype for layer in parent.sweep(title="") for value in layer.parameters()} == {torch.bfloat16}
