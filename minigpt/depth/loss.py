"""What a removal costs, measured: cross-entropy on calibration text with parts of the dense model skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.arch import arch_of, decoder_layers
from minigpt.batches import Batch, attention_mask, take_tokens
from minigpt.errors import CorpusError
from minigpt.slicing import forward_replaced

Half = tuple[int, Literal["attention", "ffn"]]
CHUNK_TOKENS = 4096
SEARCH_TOKENS = {"cuda": 32768}
SEARCH_TOKENS_CPU = 2048


def search_text(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """The part of the calibration text that a search reads again and again: 32,768 tokens, 2,048 on a CPU."""
    return list(take_tokens(batches, SEARCH_TOKENS.get(device.type, SEARCH_TOKENS_CPU)))


@torch.no_grad()
def next_token_loss(model: Any, batches: Sequence[Batch]) -> float:
    """Mean cross-entropy in nats of the tokens of the batches, the pieces of a window kept apart.

    Raises:
        CorpusError: the batches hold no token to predict.
    """
    total, count = 0.0, 0
    for batch in (part for whole in batches for part in _rows(whole)):
        places, labels = _targets(batch)
        if len(places):
            logits = _logits_at(model, batch, places)
            total += float(functional.cross_entropy(logits.float(), labels.to(logits.device), reduction="sum"))
            count += len(places)
    if not count:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    return total / count


def _rows(batch: Batch) -> Iterator[Batch]:
    """Cut a batch so that the logits of one part stay small."""
    rows = max(1, CHUNK_TOKENS // batch.input_ids.shape[1])
    for start in range(0, len(batch.input_ids), rows):
        part = slice(start, start + rows)
        yield Batch(
            input_ids=batch.input_ids[part],
            position_ids=batch.position_ids[part],
            segment_ids=batch.segment_ids[part],
        )


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Places in the flattened batch that are followed by a token of the same piece, and these tokens; int64 [n]."""
    segments = functional.pad(batch.segment_ids, (0, 1))
    inside = (segments[:, :-1] != 0) & (segments[:, :-1] == segments[:, 1:])
    places = inside.flatten().nonzero().squeeze(1).cpu()
    return places, batch.input_ids.flatten().cpu()[places + 1]


def _logits_at(model: Any, batch: Batch, places: Tensor) -> Tensor:
    """Logits [n, vocab] at some places; what a family does to its logits (soft caps, scales) is done."""
    chosen = places.to(model.device)

    def choose(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0].flatten(0, 1).index_select(0, chosen).unsqueeze(0),)

    batch = batch.to(model.device)
    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits: Tensor = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=attention_mask(model.config, batch.segment_ids, model.dtype),
            use_cache=False,
        ).logits
    finally:
        handle.remove()
    return logits[0]


@contextmanager
def layers_skipped(model: Any, skipped: Iterable[int]) -> Iterator[None]:
    """Inside the block these layers hand on what they are given; nothing is left behind. Not for use with a cache."""
    layers = decoder_layers(model)
    with ExitStack() as stack:
        for index in skipped:
            stack.enter_context(forward_replaced(layers[index], _handed_on))
        yield


@contextmanager
def halves_skipped(model: Any, skipped: Iterable[Half]) -> Iterator[None]:
    """Inside the block these attentions and FFNs add nothing to the residual stream (BlockPruner's minimal blocks)."""
    with ExitStack() as stack:
        for index, half in skipped:
            replacement = no_attention if half == "attention" else no_ffn
            stack.enter_context(forward_replaced(half_of(model, index, half), replacement))
        yield


def half_of(model: Any, index: int, half: str) -> Any:
    """The attention or FFN module of a layer."""
    spec = arch_of(model)
    path = spec.output if half == "attention" else spec.ffn_columns
    return decoder_layers(model)[index].get_submodule(path.rpartition(".")[0])


def _handed_on(hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor:
    return hidden_states


def no_attention(hidden_states: Tensor, *_args: object, **_kwargs: object) -> tuple[Tensor, None]:
    """The answer of an attention that is gone: nothing, and no weights."""
    return torch.zeros_like(hidden_states), None


def no_ffn(hidden_states: Tensor) -> Tensor:
    """The answer of an FFN that is gone."""
    return torch.zeros_like(hidden_states)
