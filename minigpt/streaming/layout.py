"""Layout of model files: which tensors of a file make up a parameter, under another name or one for each expert.

transformers stacks the experts of a layer into one parameter when it loads a model, and takes them apart when it saves
one. A streamed parent does the same, a layer at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Endings of names that files of a family have for what transformers 5 calls otherwise; it writes these names, too.
RENAMED = {
    "gpt_neox": {"lm_head.weight": "embed_out.weight"},
    "mixtral": {"mlp.gate.weight": "block_sparse_moe.gate.weight"},
    "granitemoe": {
        "block_sparse_moe.router.weight": "block_sparse_moe.router.layer.weight",
        "block_sparse_moe.experts.gate_up_proj": "block_sparse_moe.input_linear.weight",
        "block_sparse_moe.experts.down_proj": "block_sparse_moe.output_linear.weight",
    },
}
_NAMED = {
    "mlp.experts.gate_up_proj": ("mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight"),
    "mlp.experts.down_proj": ("mlp.experts.{}.down_proj.weight",),
}
# Endings of names of stacked experts [experts, rows, columns], with those of the files for expert `{}`; where there are
# several, each has as many of the rows, in this order.
APART = {
    "mixtral": {
        "mlp.experts.gate_up_proj": (
            "block_sparse_moe.experts.{}.w1.weight",
            "block_sparse_moe.experts.{}.w3.weight",
        ),
        "mlp.experts.down_proj": ("block_sparse_moe.experts.{}.w2.weight",),
    },
    "olmoe": _NAMED,
    "qwen2_moe": _NAMED,
    "qwen3_moe": _NAMED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One tensor of a file, and its place in a parameter.

    Attributes:
        stored: name of the tensor in the file.
        shape: shape of the tensor.
        place: index of the parameter; without an index it is all of it.
    """

    stored: str
    shape: tuple[int, ...]
    place: tuple[int | slice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A parameter as files hold it.

    Attributes:
        shape: shape of the parameter.
        pieces: the tensors that it is made of.
    """

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def under(name: str, shape: tuple[int, ...]) -> Stored:
    """Return a parameter that is one tensor of a file."""
    return Stored(shape=shape, pieces=(Piece(stored=name, shape=shape),))


def as_written(config: Any, name: str, shape: tuple[int, ...]) -> Stored:
    """Return a parameter as transformers saves it.

    Args:
        config: config of the model.
        name: name of the parameter in the model.
        shape: shape of the parameter.
    """
    family = str(config.model_type)
    for ending, parts in APART.get(family, {}).items():
        if name.endswith(f".{ending}"):
            return _apart(name.removesuffix(ending), parts, shape)
    for ending, stored in RENAMED.get(family, {}).items():
        if name == ending or name.endswith(f".{ending}"):
            return under(name.removesuffix(ending) + stored, shape)
    return under(name, shape)


def _apart(front: str, parts: tuple[str, ...], shape: tuple[int, ...]) -> Stored:
    """Return stacked experts that files hold one by one, in one or more parts each."""
    rows = shape[1] // len(parts)
    pieces = [
        Piece(
            stored=front + part.format(expert),
            shape=(rows, *shape[2:]),
            place=(expert, slice(place * rows, (place + 1) * rows)),
        )
        for expert in range(shape[0])
        for place, part in enumerate(parts)
    ]
    return Stored(shape=shape, pieces=tuple(pieces))
