"""Probes: measure what removing a share of one axis costs, by cutting a copy and reading dev text."""

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
from minigpt.transformer.arch import legal_kv_groups, shape_of
from minigpt.types import AXES, Document, Shape

FFN_REMOVED = (0.1, 0.25, 0.5, 0.75)
LAYERS_REMOVED = (0.04, 0.1, 0.2, 0.35, 0.5)
VOCAB_REMOVED = (0.25, 0.5, 0.7, 0.85)
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
    """The curves of a model, on dev text (never on held-out text): log2 of the ratio of bits per byte.

    Args:
        model: the model that will be pruned; left as it is.
        tokenizer: its tokenizer.
        cut: makes a copy of the model of a shape, vocabulary aside, by the method's own means: repaired only if the
            method repairs, or the planner would think cheap what the method pays for.
        documents: dev text to read.
        counts: token counts of the domain.
        axes: which to measure.
        window: longest piece of text.
        reporter: told about progress.
    """
    before = bits_per_byte(model, token_text(tokenizer, documents, window))
    curves: dict[str, list[tuple[float, float]]] = {}
    probes = [probe for probe in _probes(model) if probe[0] in axes]
    for axis, removed, shape in reporter.track(probes, title="Measuring sensitivity"):
        pruned, text_tokenizer = deepcopy(model), tokenizer
        if axis == "vocab":
            trimmed = vocab.trim_tokenizer(tokenizer, vocab.keep_tokens(tokenizer, counts, shape.vocab_size))
            pruned, text_tokenizer = vocab.trim_model(pruned, trimmed), trimmed.tokenizer
        else:
            pruned = cut(pruned, shape)
        after = bits_per_byte(pruned, token_text(text_tokenizer, documents, window))
        curves.setdefault(axis, []).append((removed, math.log2(after / before)))
    return {axis: tuple(points) for axis, points in curves.items()}


def _probes(model: Any) -> list[tuple[str, float, Shape]]:
    """(axis, fraction removed, shape) for every probe, each changing one axis only."""
    full = shape_of(model)
    found: list[tuple[str, float, Shape]] = []
    for share in FFN_REMOVED:
        width = max(32, round(full.intermediate_size * (1 - share)))
        found.append(("ffn", 1 - width / full.intermediate_size, replace(full, intermediate_size=width)))
    for groups in legal_kv_groups(model)[:-1][::-1]:
        found.append(("kv_groups", 1 - groups / full.kv_groups, replace(full, kv_groups=groups)))
    for layers in sorted({max(1, round(full.layers * share)) for share in LAYERS_REMOVED}):
        if layers < full.layers:
            found.append(("layers", layers / full.layers, replace(full, layers=full.layers - layers)))
    for share in VOCAB_REMOVED:
        size = round(full.vocab_size * (1 - share)) // 64 * 64
        if size >= 1024:
            found.append(("vocab", 1 - size / full.vocab_size, replace(full, vocab_size=size)))
    return found
