"""A streamed parent: a stock model whose embedding, final norm and head are in memory and whose layers are on disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.assets.parents import is_conditional, load_outline, model_folder
from minigpt.errors import UnsupportedModel
from minigpt.machine import trim_heap
from minigpt.progress import SILENT, Reporter
from minigpt.pruning.waiting import PROCESSOR, Home
from minigpt.streaming.layout import Stored, as_written, under
from minigpt.streaming.weights import StoredWeights
from minigpt.transformer.arch import arch_of, decoder_layers, refuse_state


class StreamedParent:
    """A parent of which one decoder layer is in memory, and a second one while it is read.

    The weights are computed with in `dtype`, to which they are cast layer by layer; in memory they wait as stored.

    Args:
        folder: a model folder or a build folder.
        dtype: precision to compute in.
        device: device to compute on.
        home: where text waits while no layer reads it.

    Attributes:
        model: the model in stock classes; parameters of its layers have shapes but no numbers, except inside a sweep.
        layers: its decoder layers.

    Raises:
        AssetError: the folder is missing, incomplete or damaged.
        UnsupportedModel: the folder stores the layers in another form than the model has them.
    """

    def __init__(
        self, folder: Path | str, *, dtype: torch.dtype, device: torch.device | str = "cpu", home: Home = PROCESSOR
    ) -> None:
        self.folder, self.device, self.dtype = model_folder(folder), torch.device(device), dtype
        self.home = home
        self.weights = StoredWeights(self.folder)
        self.model = _skeleton(self.folder, dtype)
        self.layers: list[nn.Module] = list(decoder_layers(self.model))
        self._prefix = arch_of(self.model).layers + "."
        self._names = _stored_names(self.folder, self.model, self.weights)
        self._fill_ends()

    def sweep(self, count: int | None = None, *, title: str, reporter: Reporter = SILENT) -> Iterator[nn.Module]:
        """Yield the first `count` layers in order, each with its weights, which it loses when the next one follows.

        A layer may be cut meanwhile; its parameters keep their new shapes. The next layer is read by a thread while the
        present one computes.

        Args:
            count: number of layers (None: all).
            title: what the progress says.
            reporter: told about progress.
        """
        total = len(self.layers) if count is None else count
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="layers") as pool:
            following = pool.submit(self._read_layer, 0)
            for index in reporter.track(range(total), title=title, total=total):
                layer = self.layers[index]
                self._fill(layer, f"{self._prefix}{index}.", following.result())
                if index + 1 < total:
                    # Only now, so that one layer at most is in memory as stored: experts fill it in few large pieces.
                    following = pool.submit(self._read_layer, index + 1)
                try:
                    yield layer
                finally:
                    empty(layer)
                    trim_heap()

    def _read_layer(self, index: int) -> dict[str, Tensor]:
        """Read the weights of a layer, as stored."""
        prefix = f"{self._prefix}{index}."
        names = {name: stored for name, stored in self._names.items() if name.startswith(prefix)}
        return self.weights.read(names, pinned=self.device.type == "cuda")

    def _fill(self, module: nn.Module, prefix: str, weights: dict[str, Tensor]) -> None:
        """Put weights into the parameters and buffers of a module; `weights` is emptied on the way."""
        for name in list(weights):
            holder, _, own = name.removeprefix(prefix).rpartition(".")
            place = module.get_submodule(holder)
            shape: Any = getattr(place, own)
            value = weights.pop(name).to(self.device, non_blocking=True).to(shape.dtype)
            if isinstance(shape, nn.Parameter):
                setattr(place, own, nn.Parameter(value, requires_grad=False))
            else:
                place.register_buffer(own, value)

    def _fill_ends(self) -> None:
        """Load everything outside of the layers, and compute the buffers that no file holds."""
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, torch.empty_like(buffer, device="cpu"), persistent=_persists(module, name))
            if any(True for _ in module.buffers(recurse=False)):
                # What `from_pretrained` does with buffers that are not stored: rotary frequencies, scales.
                with torch.no_grad():
                    self.model._init_weights(module)
        ends = {name: stored for name, stored in self._names.items() if not name.startswith(self._prefix)}
        self._fill(self.model, "", self.weights.read(ends))
        self.model.tie_weights()
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(self.device), persistent=_persists(module, name))
        self.model.requires_grad_(False)


def empty(layer: nn.Module) -> None:
    """Take the numbers from the parameters of a layer; their shapes stay."""
    for module in layer.modules():
        for name, value in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(value, device="meta"), requires_grad=False))


def refusal(folder: Path | str) -> str | None:
    """Return why the layers of a model cannot be streamed, in one sentence; None if they can."""
    path = model_folder(folder)
    if is_conditional(path):
        return f"{path} has conditional layers, which are not streamed."
    try:
        _stored_names(path, _skeleton(path, torch.float32), StoredWeights(path))
    except UnsupportedModel as error:
        return str(error)
    return None


def _persists(module: nn.Module, name: str) -> bool:
    """Return whether a buffer is part of what is saved."""
    return name not in module._non_persistent_buffers_set


def _skeleton(folder: Path, dtype: torch.dtype) -> Any:
    """Make the model in stock classes, in evaluation mode, without a number in it.

    Raises:
        UnsupportedModel: the family is not in the architecture table, or its layers carry a state.
    """
    from transformers import GenerationConfig

    model: Any = load_outline(folder, dtype=dtype)
    refuse_state(model.config, "Streaming", advice="build on a machine that holds the whole model")
    model.config.name_or_path = str(folder)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _stored_names(folder: Path, model: Any, weights: StoredWeights) -> dict[str, Stored]:
    """Map the names of a model's parameters and persistent buffers to what its files hold.

    Raises:
        UnsupportedModel: a file lacks one, or has it in another shape.
    """
    shared = set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    names: dict[str, Stored] = {}
    for name, value in model.state_dict().items():
        shape = tuple(value.shape)
        # Checkpoints of the bare decoder leave its name out.
        bare = name.removeprefix(f"{model.base_model_prefix}.")
        for stored in (
            under(name, shape),
            under(bare, shape),
            *(as_written(model.config, n, shape) for n in (name, bare)),
        ):
            if all(weights.shapes.get(piece.stored) == piece.shape for piece in stored.pieces):
                names[name] = stored
                break
        else:
            if name not in shared:
                raise UnsupportedModel(
                    f"{folder} stores {name} under another name or in another shape, so its layers cannot be streamed; "
                    "use --set memory.streaming=never on a machine that holds all of it."
                )
    return names
