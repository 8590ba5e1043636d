from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt import assets
from minigpt.errors import AssetError
from minigpt.integrity import DIGEST, SUMS, write_signed
from minigpt.tickets import delta_store
from minigpt.tickets.delta import in_dtype, parameters_of
from minigpt.tickets.delta_places import RECORD, WEIGHTS, ticket_folder
from minigpt.tickets.delta_settings import VALUES
from minigpt.tickets.delta_store import materialize, put_in, read, write
from tests.support.deltas import changed_copy, saved_parent, tiny_ticket
from tests.support.tiny import tiny_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("values", ["exact", "int8", "int4"])
@pytest.mark.parametrize("share", [0.003, 0.05, 0.4])
def test_what_is_read_is_what_was_written(tmp_path: Path, values: str, share: float) -> None:
    model, result, ticket = tiny_ticket(tmp_path, share=share, values=values)
    record = write(ticket, tmp_path / "delta")
    again = read(tmp_path / "delta")
    assert again.record == record
    assert again.record.fraction == pytest.approx(share, rel=0.3)
    undo = put_in(model, again)  # compares every hash
    if values == "exact":
        assert all(torch.equal(tensor, result[name]) for name, tensor in parameters_of(model).items())
    assert undo.keys() == ticket.changes.keys()


def test_five_percent_take_less_than_a_tenth_of_the_parent(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=4096).to(torch.bfloat16)
    parent = parameters_of(model)
    sizes = {}
    for values in VALUES:
        result = changed_copy(in_dtype(parent, torch.bfloat16), 0.05)
        ticket = delta_store.make_ticket(parent, result, base="b", domains=("d",), values=values)
        write(ticket, tmp_path / values)
        stored = load_file(tmp_path / values / WEIGHTS)
        sizes[values] = sum(t.numel() * t.element_size() for t in stored.values()) / sum(
            2 * t.numel() for t in parent.values()
        )
    assert sizes["exact"] == pytest.approx(0.075, rel=0.05)  # a byte and a half of two bytes, for a twentieth
    assert sizes["int8"] == pytest.approx(0.051, rel=0.05)
    assert 0.03 < sizes["int4"] < 0.038  # differences that are rounded to nothing are left out


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen2"])
def test_a_ticket_becomes_a_plain_folder_that_stock_classes_load(tmp_path: Path, home: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    base = saved_parent(tmp_path / "parent", family)
    _, result, ticket = tiny_ticket(base, family)
    write(ticket, tmp_path / "run" / "delta")
    folder = ticket_folder(tmp_path / "run")
    assert folder == tmp_path / "run" / "delta"
    parent = materialize(folder)
    assert parent.path.is_relative_to(home)
    model = AutoModelForCausalLM.from_pretrained(parent.path)
    assert all(torch.equal(tensor, result[name]) for name, tensor in parameters_of(model).items())
    assert assets.load_tokenizer(parent.path).encode("The heart") == assets.load_tokenizer(base).encode("The heart")


def test_a_made_model_is_used_again_and_made_again_where_it_was_changed(tmp_path: Path, home: Path) -> None:
    base = saved_parent(tmp_path / "parent")
    _, _, ticket = tiny_ticket(base)
    write(ticket, tmp_path / "delta")
    path = materialize(tmp_path / "delta").path / "model.safetensors"
    first = path.stat().st_mtime_ns
    materialize(tmp_path / "delta")
    assert path.stat().st_mtime_ns == first
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    materialize(tmp_path / "delta")
    content[-1] ^= 1
    assert path.read_bytes() == bytes(content)


def test_a_model_that_was_not_used_for_a_day_is_deleted(tmp_path: Path, home: Path) -> None:
    import os

    base = saved_parent(tmp_path / "parent")
    made = []
    for seed in (1, 2):
        _, _, ticket = tiny_ticket(base, seed=seed)
        write(ticket, tmp_path / f"delta{seed}")
        made.append(materialize(tmp_path / f"delta{seed}").path)
    os.utime(made[0] / SUMS, (0, 0))
    materialize(tmp_path / "delta2")
    assert not made[0].exists()
    assert made[1].exists()


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    _, _, ticket = tiny_ticket(tmp_path)
    write(ticket, tmp_path / "delta")
    path = tmp_path / "delta" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"missing or damaged.*Copy the ticket again"):
        read(tmp_path / "delta")


def test_a_truncated_file_whose_hash_was_mended_is_refused(tmp_path: Path) -> None:
    from minigpt.files import file_sha256

    _, _, ticket = tiny_ticket(tmp_path)
    write(ticket, tmp_path / "delta")
    path, record = tmp_path / "delta" / WEIGHTS, tmp_path / "delta" / RECORD
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith(".values"))
    save_file({**tensors, name: tensors[name][:-1].clone()}, path)
    write_signed(record, _plain(record) | {"sha256": file_sha256(path)})
    with pytest.raises(AssetError, match=r"damaged.*Copy the ticket again"):
        read(tmp_path / "delta")


def test_changed_values_whose_hash_was_mended_are_refused_and_the_parent_stays(tmp_path: Path) -> None:
    from minigpt.files import file_sha256
    from minigpt.tickets.delta import digests

    model, _, ticket = tiny_ticket(tmp_path)
    write(ticket, tmp_path / "delta")
    path, record = tmp_path / "delta" / WEIGHTS, tmp_path / "delta" / RECORD
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith(".values"))
    tensors[name][0] += 1
    save_file(tensors, path)
    # Whoever can write the files can mend this digest, too.
    write_signed(record, _plain(record) | {"sha256": file_sha256(path)})
    before = digests(parameters_of(model))
    with pytest.raises(AssetError, match="is not what was measured"):
        put_in(model, read(tmp_path / "delta"))
    assert digests(parameters_of(model)) == before


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1}', "[1]"])
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    _, _, ticket = tiny_ticket(tmp_path)
    write(ticket, tmp_path / "delta")
    (tmp_path / "delta" / RECORD).write_text(content, "utf-8")
    with pytest.raises(AssetError, match="is damaged"):
        read(tmp_path / "delta")


def test_another_version_is_refused(tmp_path: Path) -> None:
    _, _, ticket = tiny_ticket(tmp_path)
    write(ticket, tmp_path / "delta")
    record = tmp_path / "delta" / RECORD
    write_signed(record, _plain(record) | {"format": 2})
    with pytest.raises(AssetError, match="another version"):
        read(tmp_path / "delta")


def test_a_parent_that_changed_on_disk_is_refused(tmp_path: Path, home: Path) -> None:
    base = saved_parent(tmp_path / "parent")
    _, _, ticket = tiny_ticket(base)
    write(ticket, tmp_path / "delta")
    tiny_model(seed=5).to(torch.bfloat16).save_pretrained(base)
    with pytest.raises(AssetError, match="another parent"):
        materialize(tmp_path / "delta")
    assert not any((home / "tickets").glob("*/model.safetensors"))


def _plain(record: Path) -> dict[str, object]:
    """The fields of a record without its digest."""
    return {name: value for name, value in json.loads(record.read_text("utf-8")).items() if name != DIGEST}
