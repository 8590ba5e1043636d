"""Runtime in PyTorch through stock transformers: the reference for every other runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minigpt import assets
from minigpt.assets.parents import model_folder
from minigpt.assets.quiet import quiet_transformers
from minigpt.conditional.folder import load_model
from minigpt.errors import AssetError, first_line
from minigpt.runtimes.base import Floats, Ints, is_export
from minigpt.runtimes.record import read_record
from minigpt.transformer.arch import cache_name, decodes_batches
from minigpt.transformer.nf4 import fix_cpu_layers

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


class TorchRuntime:
    """A transformers model as a runtime; `model` is the model itself."""

    def __init__(self, model: Any, tokenizer: Any, *, folder: Path) -> None:
        record = read_record(folder) if is_export(folder) else None
        self.name = f"{record.format} {record.precision}" if record else f"pytorch {DTYPES[model.dtype]}"
        self.model = model
        self.tokenizer = tokenizer
        self.config = model.config
        self.bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        self.parameters = (
            record.source.parameters if record else sum(parameter.numel() for parameter in model.parameters())
        )
        self._cache: Any = None
        self._memory = cache_name(model.config)

    def logits(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Compute the logits of a batch (:meth:`minigpt.runtimes.Runtime.logits`)."""
        if not decodes_batches(self.config) and not attention_mask.all():
            return self._one_by_one(input_ids, attention_mask)
        mask = self._tensor(attention_mask)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            out = self.model(
                input_ids=self._tensor(input_ids), attention_mask=mask, position_ids=positions, use_cache=False
            )
        logits: Floats = out.logits.float().cpu().numpy()
        return logits

    def _one_by_one(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Compute the logits of every row without its padding, which this model would read as text."""
        logits = np.zeros((*input_ids.shape, self.config.vocab_size), dtype=np.float32)
        for index, (row, mask) in enumerate(zip(input_ids, attention_mask.astype(bool), strict=True)):
            logits[index, mask] = self.logits(row[mask][None], np.ones((1, int(mask.sum())), dtype=np.int64))[0]
        return logits

    def begin(self, tokens: Sequence[int]) -> Floats:
        """Start a new sequence (:meth:`minigpt.runtimes.Runtime.begin`)."""
        self._cache = None
        return self._feed(tokens)

    def step(self, token: int) -> Floats:
        """Append one token (:meth:`minigpt.runtimes.Runtime.step`)."""
        return self._feed([token])

    def _feed(self, tokens: Sequence[int]) -> Floats:
        """Append tokens to the sequence, and return the logits [vocabulary] of the token after them."""
        with torch.inference_mode():
            out = self.model(
                input_ids=self._tensor(np.array([tokens])),
                use_cache=True,
                logits_to_keep=1,
                **{self._memory: self._cache},
            )
        self._cache = getattr(out, self._memory)
        last: Floats = out.logits[0, -1].float().cpu().numpy()
        return last

    def _tensor(self, values: Ints) -> torch.Tensor:
        """Move an array to the model's device."""
        return torch.as_tensor(values, dtype=torch.long, device=self.model.device)


def load(folder: Path, device: str, *, dtype: torch.dtype | None = None) -> TorchRuntime:
    """Open a plain model folder, or one with conditional layers; without `dtype` PyTorch computes in fp32."""
    model = load_model(folder, dtype=dtype or torch.float32, device=device)
    return TorchRuntime(model, assets.load_tokenizer(folder), folder=model_folder(folder))


def load_quantized(folder: Path, device: str) -> TorchRuntime:
    """Open a folder whose weights were packed by a transformers quantizer, whose package must be installed.

    Raises:
        AssetError: The folder is damaged or the package is missing.
    """
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    try:
        with quiet_transformers():
            model = loader.from_pretrained(folder, local_files_only=True, device_map={"": device}).eval()
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise AssetError(f"Cannot load the 4-bit model in {folder}: {first_line(error)}") from error
    fix_cpu_layers(model)
    return TorchRuntime(model, assets.load_tokenizer(folder), folder=folder)
