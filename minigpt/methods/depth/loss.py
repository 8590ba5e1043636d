"""What a removal costs, measured: cross-entropy on calibration text with parts of the dense model skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.methods.searches import Part
from minigpt.pruning.slicing import forward_replaced
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.batches import Batch, attention_mask, run_decoder, split_rows, take_tokens
from minigpt.transformer.logits import logits_at

CHUNK_TOKENS = 4096
"""Of one forward pass, so that its logits stay small."""
SEARCH_TOKENS = {"cuda": 32768}
SEARCH_TOKENS_CPU = 2048


def search_text(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """The part of the calibration text that a search reads again and again: 32,768 tokens, 2,048 on a CPU."""
    return list(take_tokens(batches, SEARCH_TOKENS.get(device.type, SEARCH_TOKENS_CPU)))


def trial_losses(model: Any, batches: Sequence[Batch], gone: Sequence[Part], trials: Sequence[Part]) -> list[float]:
    """Mean cross-entropy in nats a token without `gone` and one more part, for every part on trial.

    What lies below a trial's layer is the same for all of them and computed once, which halves the work. The pieces
    of a window are kept apart, and the model is left as it was.

    Raises:
        CorpusError: the batches hold no token to predict.
    """
    totals, count = [0.0] * len(trials), 0
    with torch.inference_mode():
        for batch in (part for whole in batches for part in split_rows(whole, CHUNK_TOKENS)):
            places, labels = _targets(batch)
            if not len(places):
                continue
            count += len(places)
            inputs = _layer_inputs(model, batch, gone)
            for index, trial in enumerate(trials):
                above = [part for part in (*gone, trial) if part[0] >= trial[0]]
                with _started_at(model, trial[0], inputs[trial[0]]), parts_skipped(model, above):
                    totals[index] += _summed_loss(model, batch, places, labels)
    if not count:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    return [total / count for total in totals]


def _summed_loss(model: Any, batch: Batch, places: Tensor, labels: Tensor) -> float:
    batch = batch.to(model.device)
    logits = logits_at(
        model,
        places,
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=attention_mask(model.config, batch.segment_ids, model.dtype),
    )
    return float(functional.cross_entropy(logits.float(), labels.to(logits.device), reduction="sum"))


def _layer_inputs(model: Any, batch: Batch, gone: Sequence[Part]) -> list[Tensor]:
    """The hidden states that enter every layer of the model without `gone`."""
    found: list[Tensor] = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])

    with ExitStack() as stack:
        for layer in decoder_layers(model):
            stack.callback(layer.register_forward_pre_hook(note, with_kwargs=True).remove)
        stack.enter_context(parts_skipped(model, gone))
        run_decoder(model, batch)
    return found


@contextmanager
def _started_at(model: Any, layer: int, states: Tensor) -> Iterator[None]:
    """Inside the block the layers below are not run: `states` enter this one."""
    with ExitStack() as stack:
        for below in decoder_layers(model)[:layer]:
            stack.enter_context(forward_replaced(below, lambda *_args, **_kwargs: states))
        yield


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Places in the flattened batch that are followed by a token of the same piece, and these tokens; int64 [n]."""
    segments = functional.pad(batch.segment_ids, (0, 1))
    inside = (segments[:, :-1] != 0) & (segments[:, :-1] == segments[:, 1:])
    places = inside.flatten().nonzero().squeeze(1).cpu()
    return places, batch.input_ids.flatten().cpu()[places + 1]


@contextmanager
def parts_skipped(model: Any, parts: Iterable[Part]) -> Iterator[None]:
    """Inside the block these layers hand on what they are given, these attentions and FFNs add nothing.

    Nothing is left behind. Not for use with a cache.
    """
    answers = {"layer": _handed_on, "attention": no_attention, "ffn": no_ffn}
    with ExitStack() as stack:
        for index, kind in parts:
            stack.enter_context(forward_replaced(module_of(model, index, kind), answers[kind]))
        yield


def module_of(model: Any, index: int, kind: str) -> Any:
    """A layer, its attention or its FFN."""
    spec, layer = arch_of(model), decoder_layers(model)[index]
    paths = {"layer": "", "attention": spec.output.rpartition(".")[0], "ffn": spec.ffn_columns.rpartition(".")[0]}
    return layer.get_submodule(paths[kind])


def _handed_on(hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor:
    return hidden_states


def no_attention(hidden_states: Tensor, *_args: object, **_kwargs: object) -> tuple[Tensor, None]:
    """The answer of an attention that is gone: nothing, and no weights."""
    return torch.zeros_like(hidden_states), None


def no_ffn(hidden_states: Tensor) -> Tensor:
    """The answer of an FFN that is gone."""
    return torch.zeros_like(hidden_states)
