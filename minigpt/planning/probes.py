"""Probes: measure the cost of removing a fraction of one axis, by cutting a copy and reading dev text."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from minigpt.healing import bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.planning import Curve
from minigpt.progress import Reporter
from minigpt.pruning import vocab
from minigpt.transformer.arch import legal_experts, legal_kv_groups, shape_of
from minigpt.types import AXES, Document, Ints, Shape

# The axis of a probe, the fraction of it that is removed, and the shape that is left.
Probe = tuple[str, float, Shape]
# Fractions of each axis that probes remove; of KV groups, every legal number is probed if there are few. Those of
# experts are not in `PROBED`, by which curves are kept: models without experts have no such probes.
FFN_REMOVED = (0.1, 0.25, 0.5, 0.75)
LAYERS_REMOVED = (0.04, 0.1, 0.2, 0.35, 0.5)
VOCAB_REMOVED = (0.25, 0.5, 0.7, 0.85)
EXPERTS_REMOVED = (0.125, 0.25, 0.5, 0.75)
GROUPS_REMOVED = (0.125, 0.25, 0.5, 0.75)
# Most numbers of KV groups that are all probed: multi-head parents have dozens, and each probe is a pass over the text.
MOST_GROUPS = 8
# Smallest vocabulary that is probed.
FEWEST_TOKENS = 1024
PROBED = (FFN_REMOVED, LAYERS_REMOVED, VOCAB_REMOVED)


def measure_sensitivity(
    model: Any,
    tokenizer: Any,
    cut: Callable[[Any, Shape], Any],
    documents: Sequence[Document],
    counts: Mapping[int, int],
    *,
    axes: Collection[str] = AXES,
    window: int,
    reporter: Reporter,
) -> dict[str, Curve]:
    """Measure the sensitivity curves of a model: log2 of the ratio of bits per byte, before any healing.

    Args:
        model: the model that will be pruned; it stays as it is.
        tokenizer: its tokenizer.
        cut: `(copy, shape) -> model`, cuts a copy to a shape, vocabulary aside, exactly as the method will: with the
            repair only if the method repairs, since otherwise the measured costs would be too low.
        documents: dev text to read (never held-out text).
        counts: token counts of the domain.
        axes: axes to measure.
        window: longest piece of text, in tokens.
        reporter: told about progress.

    Returns:
        For each axis, points (fraction removed, cost).
    """
    before = bits_per_byte(model, token_text(tokenizer, documents, window))
    probes = probes_of(model, axes)
    costs = []
    for axis, _, shape in reporter.track(probes, title="Measuring sensitivity"):
        pruned, text_tokenizer = deepcopy(model), tokenizer
        if axis == "vocab":
            trimmed = vocab.trim_tokenizer(tokenizer, vocab.keep_tokens(tokenizer, counts, shape.vocab_size))
            pruned, text_tokenizer = vocab.trim_model(pruned, trimmed), trimmed.tokenizer
        else:
            pruned = cut(pruned, shape)
        costs.append(bits_per_byte(pruned, token_text(text_tokenizer, documents, window)))
    return curves_of(probes, before, costs)


def curves_of(probes: Sequence[Probe], before: float, costs: Sequence[float]) -> dict[str, Curve]:
    """Turn the bits per byte of probes into curves.

    Args:
        probes: of :func:`probes_of`.
        before: bits per byte of the whole model.
        costs: bits per byte of each probe.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for (axis, removed, _), after in zip(probes, costs, strict=True):
        curves.setdefault(axis, []).append((removed, math.log2(after / before)))
    return {axis: tuple(points) for axis, points in curves.items()}


def probes_of(model: Any, axes: Collection[str] = AXES) -> list[Probe]:
    """List the probes of some axes as (axis, fraction removed, shape); every probe changes one axis only.

    Args:
        model: the model that will be pruned, or its config.
        axes: axes to probe.
    """
    full = shape_of(model)
    probes: list[Probe] = []
    for share in FFN_REMOVED:
        width = max(32, round(full.intermediate_size * (1 - share)))
        probes.append(("ffn", 1 - width / full.intermediate_size, replace(full, intermediate_size=width)))
    legal = legal_experts(model)[:-1]
    for experts in sorted({round(full.experts * (1 - share)) for share in EXPERTS_REMOVED} & {*legal}, reverse=True):
        probes.append(("experts", 1 - experts / full.experts, replace(full, experts=experts)))
    for groups in _group_numbers(legal_kv_groups(model), full.kv_groups):
        probes.append(("kv_groups", 1 - groups / full.kv_groups, replace(full, kv_groups=groups)))
    for layers in sorted({max(1, round(full.layers * share)) for share in LAYERS_REMOVED}):
        if layers < full.layers:
            probes.append(("layers", layers / full.layers, replace(full, layers=full.layers - layers)))
    for share in VOCAB_REMOVED:
        size = round(full.vocab_size * (1 - share)) // 64 * 64
        if size >= FEWEST_TOKENS:
            probes.append(("vocab", 1 - size / full.vocab_size, replace(full, vocab_size=size)))
    return [probe for probe in probes if probe[0] in axes]


def _group_numbers(legal: Ints, full: int) -> Ints:
    """Choose the numbers of KV groups to probe, descending: all legal ones, or a few of many."""
    smaller = legal[:-1][::-1]
    if len(smaller) <= MOST_GROUPS:
        return smaller
    wanted = (full * (1 - share) for share in GROUPS_REMOVED)
    near = {min(smaller, key=lambda groups, at=at: abs(groups - at)) for at in wanted}  # type: ignore[misc]
    return tuple(sorted(near, reverse=True))
