"""A tiny model to export, a domain to measure it on, and a format whose runtime can be made to lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from minigpt.assets import parent
from minigpt.errors import AssetError
from minigpt.exporting import ExportRequest, Written
from minigpt.exporting.common import copy_tokenizer
from minigpt.pruning.vocab.closure import closure
from minigpt.pruning.vocab.model import trim_model
from minigpt.pruning.vocab.tokenizer import trim_tokenizer
from minigpt.report import save
from minigpt.runtimes.pytorch import TorchRuntime, load
from tests.support import tiny
from tests.support.reports import make_report


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Where the model and the domain lie."""

    root: Path
    model: Path
    domain: str

    def request(self, kind: str, name: str, **changes: Any) -> ExportRequest:
        """An export of the model into a folder called `name`."""
        values: dict[str, Any] = {"quality_bytes": 600, **changes}
        return ExportRequest(
            source=parent(str(self.model)), format=kind, output_dir=self.root / name, domain=self.domain, **values
        )


def make_shop(root: Path) -> Shop:
    """A llama of two layers with heads of 16, as ONNX Runtime's fused attention wants them, and a domain of texts."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny.tiny_config("llama", layers=2)
    config.head_dim = 16
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(root / "model")
    tiny.tiny_tokenizer().save_pretrained(root / "model")
    (root / "texts").mkdir()
    for number in range(24):
        text = (
            " ".join(tiny.SENTENCES[(number + shift) % 5][shift:] for shift in range(4)) + f" Number {number * 7919}."
        )
        (root / "texts" / f"{number}.txt").write_text(text)
    domain = {"name": "mixed", "general_text": True, "corpus": [{"name": "texts", "file": "texts", "license": "CC0"}]}
    (root / "mixed.yaml").write_text(yaml.safe_dump(domain))
    return Shop(root=root, model=root / "model", domain=str(root / "mixed.yaml"))


def trimmed_build(shop: Shop) -> Path:
    """A build with its report whose specialist is the shop's model with a smaller vocabulary."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(shop.model), AutoTokenizer.from_pretrained(shop.model)
    kept = closure(tokenizer, {*range(259), *range(259, len(tokenizer), 8)})
    assert len(kept) < len(tokenizer)
    trimmed = trim_tokenizer(tokenizer, kept)
    return _build_of(shop, "build", trim_model(model, trimmed), trimmed.tokenizer)


def uncut_build(shop: Shop) -> Path:
    """A build with its report whose specialist is the shop's model with other weights and the same vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(shop.model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= 0.5
    return _build_of(shop, "uncut", model, AutoTokenizer.from_pretrained(shop.model))


def _build_of(shop: Shop, name: str, model: Any, tokenizer: Any) -> Path:
    """A build with its report and this specialist."""
    build = shop.root / name
    model.save_pretrained(build / "model")
    tokenizer.save_pretrained(build / "model")
    save(replace(make_report(), base_model=str(shop.model)), build / "report.json")
    return build


def load_nothing(_folder: Path, _device: str) -> Any:
    """A loader whose package is not there."""
    raise AssetError("A package is missing.")


def write_copy(request: ExportRequest, folder: Path, _reporter: Any) -> Written:
    """The writer of the format `copy`: the model as it is."""
    copy_tokenizer(request.source.path, folder)
    name = "model.safetensors"
    (folder / name).write_bytes((request.source.path / name).read_bytes())
    return Written(weights=(name,))


class Lying(TorchRuntime):
    """PyTorch with one defect, named by `LIE`."""

    def logits(self, input_ids: Any, attention_mask: Any) -> Any:
        padded = bool((attention_mask == 0).any())
        if LIE["is"] == "mask" and padded:
            attention_mask = attention_mask * 0 + 1
        values = super().logits(input_ids, attention_mask)
        values[..., 3] += {"weights": 0.01, "infinite": float("inf")}.get(LIE["is"], 0.0)
        return values

    def step(self, token: int) -> Any:
        if LIE["is"] == "cache":
            self._cache.crop(-1)
        values = super().step(token)
        values[3] += {"rough": 1.5, "broken": 2.5}.get(LIE["is"], 0.0)
        return values


LIE = {"is": ""}


def load_lying(folder: Path, device: str) -> Any:
    """The loader of the format `copy`."""
    honest = load(folder, device)
    return Lying(honest.model, honest.tokenizer, folder=folder)
