"""Pruned models that never were in memory: a streamed parent is cut, and every layer is written when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minigpt.assets.quiet import quiet_transformers
from minigpt.files import open_to_readers
from minigpt.methods.cut import check_size, trim_vocabulary
from minigpt.progress import SILENT, Reporter
from minigpt.pruning.fitting import RepairReport
from minigpt.pruning.settings import RepairSettings
from minigpt.pruning.slicing import keep_layers, narrow_config, update_config
from minigpt.streaming.cutting import LayerCut
from minigpt.streaming.layout import as_written
from minigpt.streaming.parent import StreamedParent
from minigpt.streaming.writer import SafetensorsWriter
from minigpt.transformer.arch import arch_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.older_readers import open_to_older_readers
from minigpt.types import PrunePlan

WEIGHTS = "model.safetensors"


def prune_to_folder(
    parent: StreamedParent,
    tokenizer: Any,
    plan: PrunePlan,
    folder: Path,
    *,
    dtype: torch.dtype,
    repair: RepairSettings | None = None,
    batches: Sequence[Batch] = (),
    reporter: Reporter = SILENT,
) -> RepairReport | None:
    """Cut a streamed parent to a plan, vocabulary included, and write a plain model folder.

    The folder holds what cutting the parent in memory and saving it would give, to the byte. The parent cannot be used
    afterwards: its outline is that of the pruned model.

    Args:
        parent: the streamed parent.
        tokenizer: its tokenizer.
        plan: the units to keep.
        folder: folder to write.
        dtype: type of the saved weights.
        repair: of :func:`minigpt.methods.cut.repair_of`.
        batches: calibration text that the repair fits on.
        reporter: told about progress.

    Returns:
        The record of the repair; None if there was none.

    Raises:
        PlanError: the plan does not fit the parent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cut = LayerCut(parent, plan, repair, batches)  # reads the text by the whole embedding, before tokens go
    model, tokenizer = trim_vocabulary(parent.model, tokenizer, plan)
    names = _stored_shapes(model, plan, cut)
    prefix = arch_of(model).layers + "."
    with SafetensorsWriter(folder / WEIGHTS, names, dtype) as writer:
        for index, layer in enumerate(parent.sweep(cut.last + 1, title="Pruning", reporter=reporter)):
            cut.cut(index, layer)
            if cut.keeps(index):
                _write(writer, model, layer, f"{prefix}{plan.layers.index(index)}.")
        keep_layers(model, plan.layers)
        update_config(model, plan, cut.shape)
        _write(writer, model, model, "")
    check_size(model, plan)
    _save_rest(model, tokenizer, folder, dtype)
    return cut.report()


def _stored_shapes(model: Any, plan: PrunePlan, cut: LayerCut) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of the pruned model by the names that they are saved under."""
    from transformers import AutoModelForCausalLM

    classes: Any = AutoModelForCausalLM
    config = deepcopy(model.config)
    narrow_config(config, plan.layers, cut.shape)
    with quiet_transformers(), torch.device("meta"):
        outline: Any = classes.from_config(config)
    outline.tie_weights()
    shared = set(getattr(outline, "_tied_weights_keys", None) or ()) if config.tie_word_embeddings else set()
    return {
        piece.stored: piece.shape
        for name, value in outline.state_dict().items()
        if name not in shared
        for piece in as_written(config, name, tuple(value.shape)).pieces
    }


def _write(writer: SafetensorsWriter, model: Any, module: nn.Module, prefix: str) -> None:
    """Write the tensors of a module that are in memory and not yet in the file."""
    for name, value in module.state_dict().items():
        for piece in () if value.is_meta else as_written(model.config, f"{prefix}{name}", tuple(value.shape)).pieces:
            if piece.stored in writer.missing:
                writer.write(piece.stored, value[piece.place] if piece.place else value)


def _save_rest(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Save configs and tokenizer beside the weights."""
    with quiet_transformers():
        # An empty state leaves the weights out: they are there already.
        model.to(dtype).save_pretrained(folder, state_dict={})
        tokenizer.save_pretrained(folder)
        open_to_older_readers(folder)
    open_to_readers(folder)
