"""Cost of a removal: cross-entropy on calibration text while parts of the dense model are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.methods.searches import Part
from minigpt.pruning.slicing import forward_replaced, no_ffn
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.batches import Batch, attention_mask, run_decoder, split_rows, take_tokens
from minigpt.transformer.logits import logits_at

# Tokens of one forward pass, so that its logits stay small.
CHUNK_TOKENS = 4096
# Tokens of the search text, by type of device.
SEARCH_TOKENS = {"cuda": 32768}
# Tokens of the search text on every other type of device.
SEARCH_TOKENS_CPU = 2048


def search_text(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """Take the part of the calibration text that a search reads at every step: less of it on a processor."""
    return list(take_tokens(batches, SEARCH_TOKENS.get(device.type, SEARCH_TOKENS_CPU)))


def trial_losses(model: Any, batches: Sequence[Batch], gone: Sequence[Part], trials: Sequence[Part]) -> list[float]:
    """Measure the mean cross-entropy, in nats a token, without `gone` and each of the trials.

    The layers below a trial's layer compute the same for all trials, so their output is computed once, which halves
    the work. The pieces of a window do not see each other.

    Args:
        model: the dense model, which stays as it is.
        batches: the search text.
        gone: parts that are removed already.
        trials: parts that are tried, one at a time.

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
                with _start_at(model, trial[0], inputs[trial[0]]), parts_skipped(model, above):
                    totals[index] += _summed_loss(model, batch, places, labels)
    if not count:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    return [total / count for total in totals]


def _summed_loss(model: Any, batch: Batch, places: Tensor, labels: Tensor) -> float:
    """Sum the cross-entropy of the labels at the given places."""
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
    """Record the hidden states that enter every layer of the model without `gone`."""
    inputs: list[Tensor] = []

    def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])

    with ExitStack() as stack:
        for layer in decoder_layers(model):
            stack.callback(layer.register_forward_pre_hook(record, with_kwargs=True).remove)
        stack.enter_context(parts_skipped(model, gone))
        run_decoder(model, batch)
    return inputs


@contextmanager
def _start_at(model: Any, layer: int, states: Tensor) -> Iterator[None]:
    """Let the model start at a layer inside the block: `states` enter it, and the layers below do not run."""
    with ExitStack() as stack:
        for below in decoder_layers(model)[:layer]:
            stack.enter_context(forward_replaced(below, lambda *_args, **_kwargs: states))
        yield


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    """Find the places of the flattened batch that a token of the same piece follows, and those tokens; int64 [n]."""
    segments = functional.pad(batch.segment_ids, (0, 1))
    inside = (segments[:, :-1] != 0) & (segments[:, :-1] == segments[:, 1:])
    places = inside.flatten().nonzero().squeeze(1).cpu()
    return places, batch.input_ids.flatten().cpu()[places + 1]


@contextmanager
def parts_skipped(model: Any, parts: Iterable[Part]) -> Iterator[None]:
    """Skip parts of a model inside the block: layers return their input, attentions and FFNs add nothing.

    The model is as before afterwards. A key-value cache cannot be used inside the block.
    """
    forwards = {"layer": _pass_through, "attention": no_attention, "ffn": no_ffn(model)}
    with ExitStack() as stack:
        for index, kind in parts:
            stack.enter_context(forward_replaced(module_of(model, index, kind), forwards[kind]))
        yield


def module_of(model: Any, index: int, kind: str) -> Any:
    """Return a layer (`kind` "layer"), its attention ("attention") or its FFN ("ffn")."""
    spec, layer = arch_of(model), decoder_layers(model)[index]
    paths = {"layer": "", "attention": spec.attention_module, "ffn": spec.ffn_module}
    return layer.get_submodule(paths[kind])


def _pass_through(hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor:
    """Stand in for a removed layer: return its input."""
    return hidden_states


def no_attention(hidden_states: Tensor, *_args: object, **_kwargs: object) -> tuple[Tensor, None]:
    """Stand in for a removed attention: zeros, and no attention weights."""
    return torch.zeros_like(hidden_states), None
