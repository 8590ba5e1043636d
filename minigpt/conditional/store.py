"""Conditional layers in a folder: weights as safetensors, and a JSON record that says what they are.

Nothing in the folder is code, and the record is checked against the weights before memory is taken for a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator

from minigpt.assets.parents import CONDITIONAL_RECORD
from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.layers import AnySettings, build
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import atomic_path, read_json, write_json
from minigpt.types import Ints

if TYPE_CHECKING:
    import torch

RECORD = CONDITIONAL_RECORD
WEIGHTS = "conditional.safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """Record of one conditional layer.

    Attributes:
        layer: number of the layer of the model whose feed-forward layer it replaces.
        settings: kind, depth, trees, activation, gate and whatever else the kind has.
        shapes: shape of each weight by its name.
        neurons: number of neurons.
        visited_share: share of the neurons that a token visits; None if that depends on the text and was not measured.
    """

    layer: int
    settings: Annotated[AnySettings, Discriminator("kind")]
    shapes: Mapping[str, Ints]
    neurons: int
    visited_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalRecord:
    """Record of a folder of conditional layers.

    Attributes:
        format: version of the record.
        layers: records of the layers, by ascending number.
        notes: what else is to be known about them, such as the parent's name.
    """

    format: int
    layers: tuple[LayerRecord, ...]
    notes: Mapping[str, str] = field(default_factory=dict)


def save(
    folder: Path,
    layers: Mapping[int, ConditionalFFN],
    *,
    visited_shares: Mapping[int, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> ConditionalRecord:
    """Write conditional layers into a folder, whole or not at all.

    Args:
        folder: the folder; it is replaced.
        layers: conditional layers by number.
        visited_shares: measured shares of visited neurons by number, for kinds where they depend on the text.
        notes: what else is to be known about them.
    """
    from safetensors.torch import save_file

    shares = visited_shares or {}
    record = ConditionalRecord(
        format=FORMAT,
        layers=tuple(_record(index, layers[index], shares.get(index)) for index in sorted(layers)),
        notes=dict(notes or {}),
    )
    weights = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, layer in layers.items()
        for name, value in layer.named_parameters()
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / RECORD, record)
    return record


def _record(index: int, layer: ConditionalFFN, share: float | None) -> LayerRecord:
    """Return the record of a layer."""
    if share is None:
        try:
            share = layer.visited_neurons() / layer.total_neurons()
        except ConfigError:
            share = None
    return LayerRecord(
        layer=index,
        settings=layer.settings,  # type: ignore[arg-type]
        shapes=_shapes(layer),
        neurons=layer.total_neurons(),
        visited_share=share,
    )


def _shapes(layer: ConditionalFFN) -> dict[str, Ints]:
    """Return the shapes of a layer's weights."""
    return {name: tuple(value.shape) for name, value in layer.named_parameters()}


def read_record(folder: Path) -> ConditionalRecord:
    """Read and check the record of a folder of conditional layers, without its weights.

    Raises:
        MiniGPTError: the record is missing, malformed, of a later version, or contradicts itself.
    """
    path = folder / RECORD
    try:
        record = read_json(path, ConditionalRecord)
    except ConfigError as error:
        raise MiniGPTError(f"{path} describes a layer that cannot be: {error}") from None
    if record.format != FORMAT:
        raise MiniGPTError(f"{path} has format {record.format}; this minigpt reads format {FORMAT}. Update minigpt.")
    counts = Counter(entry.layer for entry in record.layers)
    if twice := [index for index, count in counts.items() if count > 1]:
        raise MiniGPTError(f"{path} names layer {twice[0]} more than once; save the layers again.")
    for entry in record.layers:
        _check_entry(path, entry)
    return record


def _check_entry(path: Path, entry: LayerRecord) -> None:
    """Check one layer's record against its settings."""
    layer = _empty(entry.settings)
    where = f"{path}, layer {entry.layer}"
    if entry.layer < 0:
        raise MiniGPTError(f"{where}: the number of a layer is 0 or more.")
    if entry.shapes != _shapes(layer):
        wrong = sorted(entry.shapes.items() ^ _shapes(layer).items())[0][0]
        raise MiniGPTError(f"{where}: the shape of {wrong} does not follow from the settings; save the layers again.")
    if entry.neurons != layer.total_neurons():
        raise MiniGPTError(f"{where}: the settings give {layer.total_neurons()} neurons, not {entry.neurons}.")
    if entry.visited_share is not None and not 0 <= entry.visited_share <= 1:
        raise MiniGPTError(f"{where}: visited_share={entry.visited_share} must be from 0 to 1.")


def _empty(settings: AnySettings) -> ConditionalFFN:
    """Return a layer that has shapes and takes no memory."""
    import torch

    with torch.device("meta"):
        return build(settings)


def load(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[int, ConditionalFFN]:
    """Read conditional layers from a folder, in evaluation mode.

    Args:
        folder: a folder that `save` wrote.
        device: where the layers go.
        dtype: type of their weights (None: as saved).

    Returns:
        Conditional layers by number.

    Raises:
        MiniGPTError: record or weights are missing, malformed, or do not belong together.
    """
    record = read_record(folder)
    _check_weights(folder / WEIGHTS, record)
    from safetensors import safe_open

    layers = {}
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        for entry in record.layers:
            layer = _empty(entry.settings).to_empty(device=device)
            weights = {name: file.get_tensor(f"{entry.layer}.{name}") for name in entry.shapes}
            # Copying into the layer's own memory keeps the order in which its kind wants the weights to lie.
            layer = layer.to(dtype or next(iter(weights.values())).dtype)
            layer.load_state_dict(weights)
            layers[entry.layer] = layer.eval()
    return layers


def _check_weights(path: Path, record: ConditionalRecord) -> None:
    """Check that a file of weights has what the record says, by its header."""
    from safetensors import SafetensorError, safe_open

    expected = {f"{entry.layer}.{name}": shape for entry in record.layers for name, shape in entry.shapes.items()}
    try:
        with safe_open(path, framework="pt") as file:
            present = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise MiniGPTError(f"No such file: {path}.") from None
    except (SafetensorError, OSError) as error:
        raise MiniGPTError(f"{path} is not a readable safetensors file ({error}); save the layers again.") from None
    for name in sorted(expected.keys() | present.keys()):
        if expected.get(name) != present.get(name):
            raise MiniGPTError(
                f"{path}: weight {name} is {_words(present.get(name))}, but {RECORD} says "
                f"{_words(expected.get(name))}; the two do not belong together."
            )


def _words(shape: Ints | None) -> str:
    """Return a shape for a message."""
    return "absent" if shape is None else f"of shape {list(shape)}"
