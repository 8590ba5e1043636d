"""Folders of conditional layers: what is written is read again, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt.conditional import store
from minigpt.errors import MiniGPTError
from tests.support.conditional import CASES, layer_of, tokens


def saved(folder: Path, *cases: str) -> Path:
    layers = {index: layer_of(case, dtype=torch.float32) for index, case in enumerate(cases)}
    store.save(folder / "conditional", layers)
    return folder / "conditional"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    layers = {2 * index: layer_of(case, dtype=dtype).train() for index, case in enumerate(CASES)}
    store.save(tmp_path / "conditional", layers)
    again, x = store.load(tmp_path / "conditional"), tokens(9, dtype=dtype)
    assert list(again) == sorted(layers)
    for index, layer in layers.items():
        assert not again[index].training
        assert again[index].settings == layer.settings
        torch.testing.assert_close(again[index](x), layer.hard_forward(x), rtol=0, atol=0)
    threshold = again[2 * list(CASES).index("gated threshold")]
    assert threshold.w_in.T.is_contiguous()
    assert sorted(path.name for path in (tmp_path / "conditional").iterdir()) == [store.RECORD, store.WEIGHTS]


def test_another_type_on_request(tmp_path: Path) -> None:
    layer = store.load(saved(tmp_path, "trees"), dtype=torch.bfloat16)[0]
    assert {value.dtype for value in layer.parameters()} == {torch.bfloat16}


def test_the_record_has_the_visited_share(tmp_path: Path) -> None:
    layers = {3: layer_of("trees"), 1: layer_of("relu"), 2: layer_of("relu")}
    store.save(tmp_path / "c", layers, visited_shares={1: 0.25}, notes={"parent": "tiny"})
    record = store.read_record(tmp_path / "c")
    assert [entry.layer for entry in record.layers] == [1, 2, 3]
    assert [entry.visited_share for entry in record.layers] == [0.25, None, pytest.approx(8 / 30)]
    assert [entry.neurons for entry in record.layers] == [9, 9, 30]
    assert record.layers[2].settings.depth == 3
    assert record.notes == {"parent": "tiny"}


def test_a_failed_save_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, "trees")

    def fail(*_args: object) -> None:
        raise RuntimeError("stopped")

    monkeypatch.setattr(store, "write_json", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        store.save(folder, {7: layer_of("relu")})
    assert list(store.load(folder)) == [0]


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / store.RECORD
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


EDITS = {
    "format": (lambda r: r.update(format=2), "format 2; this minigpt reads format 1"),
    "no layers": (lambda r: r.pop("layers"), "not a valid ConditionalRecord: layers: Field required"),
    "unknown kind": (lambda r: r["layers"][0]["settings"].update(kind="maze"), "kind.*'maze'|'maze'.*kind"),
    "no depth": (lambda r: r["layers"][0]["settings"].pop("depth"), "settings.trees.depth: Field required"),
    "depth": (lambda r: r["layers"][0]["settings"].update(depth=-1), "describes a layer that cannot be: depth=-1"),
    "huge": (lambda r: r["layers"][0]["settings"].update(hidden_size=10**12), "layer 0: the shape of w_in"),
    "activation": (lambda r: r["layers"][0]["settings"].update(activation="os.system"), "activation='os.system'"),
    "shape": (lambda r: r["layers"][0]["shapes"].update(w_out=[1, 2, 3]), "the shape of w_out does not follow"),
    "extra weight": (lambda r: r["layers"][0]["shapes"].update(w_odd=[1]), "the shape of w_odd does not follow"),
    "neurons": (lambda r: r["layers"][0].update(neurons=31), "the settings give 30 neurons, not 31"),
    "share": (lambda r: r["layers"][0].update(visited_share=1.5), "visited_share=1.5 must be from 0 to 1"),
    "negative": (lambda r: r["layers"][0].update(layer=-1), "layer -1: the number of a layer is 0 or more"),
    "twice": (lambda r: r["layers"].append(r["layers"][0]), "names layer 0 more than once"),
    "another layer": (
        lambda r: r["layers"][0].update(layer=5),
        "0.b_in is of shape .*json says absent",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_record_that_cannot_be_true_is_refused(tmp_path: Path, name: str) -> None:
    folder, (edit, message) = saved(tmp_path, "trees"), EDITS[name]
    change(folder, edit)
    with pytest.raises(MiniGPTError, match=message):
        store.load(folder)


def test_weights_that_do_not_belong_to_the_record_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "trees")
    weights = load_file(folder / store.WEIGHTS)
    w_in = weights.pop("0.w_in")
    save_file(weights, folder / store.WEIGHTS)
    with pytest.raises(MiniGPTError, match=r"weight 0.w_in is absent, but .* says of shape \[2, 15, 6\]"):
        store.load(folder)
    save_file({**weights, "0.w_in": w_in[:1].contiguous()}, folder / store.WEIGHTS)
    with pytest.raises(MiniGPTError, match=r"weight 0.w_in is of shape \[1, 15, 6\]"):
        store.load(folder)
    (folder / store.WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(MiniGPTError, match="not a readable safetensors file"):
        store.load(folder)
    (folder / store.WEIGHTS).unlink()
    with pytest.raises(MiniGPTError, match=r"No such file: .*safetensors"):
        store.load(folder)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(MiniGPTError, match=r"No such file: .*conditional.json"):
        store.load(tmp_path)
