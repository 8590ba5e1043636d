"""Residual streams layer by layer: call one layer, record what runs through a module, and embed text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from minigpt.pruning.slicing import forward_replaced
from minigpt.transformer.batches import Batch, run_decoder


@contextmanager
def recorded(module: nn.Module, name: str, seen: dict[str, Tensor]) -> Iterator[None]:
    """Keep the last input and output of a module in `seen`."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        seen[f"{name}_in"], seen[f"{name}_out"] = args[0], result

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def call_layer(layer: nn.Module, states: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Run one layer; some families return a tuple."""
    result = layer(states, **arguments)
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output


def layer_arguments(model: Any, layers: list[nn.Module], batch: Batch) -> tuple[Tensor, list[dict[str, Any]]]:
    """Return the embedded text and the keyword arguments that the decoder passes to each of its layers."""
    return recorded_arguments(layers, lambda: run_decoder(model, batch))


def recorded_arguments(layers: list[nn.Module], run: Callable[[], object]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Run a model without its layers; return what enters the first one, and the keyword arguments of each.

    Args:
        layers: the decoder layers, whose weights are not needed.
        run: runs the model on a text, without a cache.
    """
    states: list[Tensor] = []
    arguments: list[dict[str, Any]] = []
    # Some families pass arguments by place; their names follow `self` and the hidden states.
    names = list(inspect.signature(type(layers[0]).forward).parameters)[2:]

    def record(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        states.append(hidden_states)
        arguments.append({**dict(zip(names, args, strict=False)), **kwargs})
        return hidden_states

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(forward_replaced(layer, record))
        run()
    return states[0], arguments


@contextmanager
def layers_replaced(layers: Sequence[nn.Module], states: Tensor) -> Iterator[None]:
    """Let a model compute inside the block as if its layers had given `states`: norm and head alone run."""
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(forward_replaced(layer, lambda *_args, **_kwargs: states))
        yield
