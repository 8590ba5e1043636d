"""Trees of neurons on a GPU, by Triton: few tokens walk their paths, many are grouped by path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import triton
from torch import Tensor

from minigpt.conditional.kernels import triton_group, triton_walk
from minigpt.conditional.kernels.layout import Visits, token_types
from minigpt.conditional.kernels.triton_parts import interpreted, rows_of
from minigpt.conditional.kernels.weights import TreeWeights, activation_number
from minigpt.errors import ConfigError

Form = Literal["auto", "walk", "group"]
# Fewer tokens than this walk: sorting takes several launches.
GROUP_FROM = 256
# Rows that the tokens' paths must have for each row of the trees, so that grouping pays: where walking finds its rows
# in the second-level cache, and where it reads them from memory (docs/results/conditional.md).
_READS_CACHED, _READS = 32, 4
# Trees up to this multiple of the second-level cache are mostly read from it, because their upper rows are read most.
_CACHED = 2
# Programs up to this number leave multiprocessors idle, so that reading more rows than needed costs little.
_FEW = 264
# Numbers of rows that a program has on the way at once.
_ON_THE_WAY = 16384
# Numbers of partial sums of several trees that lie in memory at once.
_PARTS = 1 << 26
# Most levels of a stage: 127 rows of a subtree, on the matrix units.
_STAGE = 7


@dataclass(frozen=True)
class PreparedGpu:
    """Trees that are ready for the GPU's kernels; calls of one of these must follow each other on one stream.

    Attributes:
        weights: the trees; they stay where they are, and changes of their values are seen.
        form: whether tokens walk or are grouped; "auto" decides by their number.
        counts: how many trees of a token are done, zero between calls.
    """

    weights: TreeWeights
    form: Form = "auto"
    counts: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Compute the layer for tokens [B, H].

        Args:
            x: the tokens.
            out: contiguous memory of the tokens' shape and type to write to, or None for new memory.
        """
        return self._run(x, out, None)

    def visit(self, x: Tensor) -> tuple[Tensor, Visits]:
        """Compute the layer for tokens [B, H], and return what the backward pass needs as well."""
        shape = (x.shape[0], self.weights.trees, self.weights.levels)
        path, score = x.new_empty(shape, dtype=torch.int32), x.new_empty(shape, dtype=torch.float32)
        visits = Visits(path, score, score.new_empty(0) if self.weights.w_gate is None else score.new_empty(shape))
        return self._run(x, None, visits), visits

    def _run(self, x: Tensor, out: Tensor | None, visits: Visits | None) -> Tensor:
        """Choose the form and launch it."""
        weights = self.weights
        if x.dim() != 2 or x.shape[1] != weights.width or x.dtype not in token_types(weights):
            raise ConfigError(
                f"This kernel takes tokens [any number, {weights.width}] of "
                f"{', '.join(map(str, token_types(weights)))}, not {list(x.shape)} of {x.dtype}; convert them."
            )
        x = x.contiguous()
        y = torch.empty_like(x) if out is None else out
        if y.shape != x.shape or y.dtype != x.dtype or y.device != x.device or not y.is_contiguous():
            raise ConfigError(f"The output must be contiguous {list(x.shape)} of {x.dtype}; leave it out.")
        if not len(x):
            return y
        if self.form == "group" or (self.form == "auto" and grouped(weights, x)):
            _group(weights, x, y, visits)
        else:
            self._walk(x, y, visits)
        return y

    def _walk(self, x: Tensor, y: Tensor, visits: Visits | None) -> None:
        """Launch the walk for as many tokens at a time as there is room for partial sums."""
        weights = self.weights
        most = len(x) if weights.trees == 1 else max(1, _PARTS // (weights.trees * weights.width))
        for start in range(0, len(x), most):
            part = slice(start, start + most)
            some = None if visits is None else Visits(*(v[part] if v.numel() else v for v in _all(visits)))
            _walk(weights, x[part], y[part], some, self._count(x[part]))

    def _count(self, x: Tensor) -> Tensor:
        """Return a zero for each token; single trees need none."""
        if self.weights.trees == 1:
            return x
        if len(x) not in self.counts:
            self.counts[len(x)] = torch.zeros(len(x), dtype=torch.int32, device=x.device)
        return self.counts[len(x)]


def prepare(weights: TreeWeights, *, threads: int | None = None, form: Form = "auto") -> PreparedGpu:
    """Make trees ready for the GPU's kernels.

    Args:
        weights: trees whose rows are contiguous, best made by `weights.interleave`.
        threads: without meaning here.
        form: "walk", "group", or "auto" for what reads fewer bytes.

    Raises:
        ConfigError: a row is not contiguous, or lies where the kernels do not run.
    """
    matrices = (weights.w_in, weights.w_gate, weights.w_out)
    if any(rows is not None and (rows.stride(2) != 1 or not runs_on(rows.device.type)) for rows in matrices):
        raise ConfigError("Kernels of the GPU read rows that are contiguous and on the GPU; call interleave there.")
    return PreparedGpu(weights, form)


def runs_on(device: str) -> bool:
    """Say whether the kernels run on a type of device; on the CPU only Triton's interpreter runs them."""
    return (device == "cuda" and not interpreted()) or (device == "cpu" and interpreted())


def grouped(weights: TreeWeights, x: Tensor) -> bool:
    """Say whether tokens are grouped.

    Walking reads the rows of each token's path; grouping reads about all rows once, in several launches, so it pays
    from where the paths have many times as many rows as the trees. In fp32 the matrix units would round decisions, and
    without them the rows off the path cost more than they save.
    """
    if len(x) < GROUP_FROM or x.dtype != torch.bfloat16:
        return False
    size = sum(tensor.nbytes for tensor in (weights.w_in, weights.w_gate, weights.w_out) if tensor is not None)
    reads = _READS_CACHED if size <= _CACHED * _second_level_cache(x.device) else _READS
    return len(x) * weights.levels >= reads * weights.nodes


def _second_level_cache(device: torch.device) -> int:
    """Return the bytes of a GPU's second-level cache; that of an A100 where there is no GPU."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 40 * 2**20


def _all(visits: Visits) -> tuple[Tensor, Tensor, Tensor]:
    """Return path, scores and gates."""
    return visits.path, visits.score, visits.gate


def _facts(weights: TreeWeights, visits: Visits | None) -> dict[str, Any]:
    """Return the constants that both forms are compiled for."""
    return {
        "TREES": weights.trees,
        "NODES": weights.nodes,
        "WIDTH": weights.width,
        "LEVELS": weights.levels,
        "ACT": activation_number(weights.activation),
        "GATED": weights.w_gate is not None,
        "BIASED": weights.b_in is not None,
        "SCALED": weights.scales is not None,
        "KEEP": visits is not None,
    }


def _walk(weights: TreeWeights, x: Tensor, y: Tensor, visits: Visits | None, counts: Tensor) -> None:
    """Launch one program for each token and tree."""
    block, room = triton.next_power_of_2(weights.width), max(2, triton.next_power_of_2(weights.levels))
    ahead = 1
    if len(x) * weights.trees <= _FEW:
        while ahead < min(4, weights.levels) and block << (ahead + 1) <= _ON_THE_WAY:
            ahead += 1
    parts = x
    if weights.trees > 1:
        parts = x.new_empty((len(x), weights.trees, weights.width), dtype=torch.float32)
    triton_walk.walk[(len(x), weights.trees)](
        *(x, y, parts, counts),
        *((x, x, x) if visits is None else _all(visits)),
        *rows_of(weights),
        **_facts(weights, visits),
        BLOCK=block,
        PIECE=min(block, _ON_THE_WAY // room),
        ROOM=room,
        AHEAD=ahead,
        num_warps=4 if block << ahead <= 2048 else 8,
    )


def _group(weights: TreeWeights, x: Tensor, y: Tensor, visits: Visits | None) -> None:
    """Launch the stages, the sorting between them, and the outputs tree by tree."""
    stages = -(-weights.levels // _STAGE)
    depth, tokens, trees = -(-weights.levels // stages), len(x), weights.trees
    room, tile = max(16, 1 << depth), 16 if tokens < 2048 else 64
    block = 64 if x.dtype == torch.bfloat16 else 32
    values = x.new_empty((trees, stages, tokens, room))
    order, key, goes, rank = x.new_empty((4, trees, tokens), dtype=torch.int32)
    warps = {"num_warps": 8 if tile == 64 and room == 128 else 4, "num_stages": 3 if x.dtype == torch.bfloat16 else 2}
    shape = {"LEVELS": weights.levels, "DEPTH": depth, "ROOM": room, "STAGES": stages, "TILE": tile, **warps}
    shape["WIDE"] = interpreted()
    for number in range(stages):
        groups = 1 << ((number + 1) * depth)
        last = number == stages - 1
        counts = order if last else x.new_zeros((trees, groups), dtype=torch.int32)
        triton_group.stage[(triton.cdiv(tokens, tile), trees)](
            *(x, order, key, values, goes, rank, counts),
            *((x, x, x) if visits is None else _all(visits)),
            *rows_of(weights),
            tokens,
            **{**_facts(weights, visits), **shape},
            FIRST=number * depth,
            BLOCK=block,
        )
        if not last:
            triton_group.sort[(triton.cdiv(tokens, 128), trees)](
                goes, rank, counts, order, tokens, GROUPS=groups, TILE=128
            )
            key, goes = goes, key
    part = y if trees == 1 else x.new_empty(x.shape, dtype=torch.float32)
    for tree in range(trees):
        triton_group.outputs[(triton.cdiv(tokens, tile), triton.cdiv(weights.width, 64))](
            *(order, key, values, y, part, weights.w_out, weights.w_out.stride(1), weights.w_out.stride(0)),
            *(tree, tokens),
            WIDTH=weights.width,
            BEGIN=tree == 0,
            END=tree == trees - 1,
            BLOCK=64,
            **shape,
        )
