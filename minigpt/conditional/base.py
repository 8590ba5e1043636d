"""The interface of conditional feed-forward layers, their settings, and the weights of the dense layer they replace."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.conditional.reference import ACTIVATIONS, dense_ffn
from minigpt.errors import ConfigError

# Deeper trees than this have more nodes than any model has neurons; the limit keeps a damaged record from asking for
# all memory.
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings that every kind of conditional layer has: they say which weights it holds.

    Attributes:
        hidden_size: size of what the layer reads and writes.
        activation: function of a neuron, by its name in `reference.ACTIVATIONS`.
        gated: whether neurons have a gate (SwiGLU), which then passes through the activation.
    """

    hidden_size: int
    activation: str = "gelu"
    gated: bool = False


def require(holds: bool, message: str) -> None:
    """Refuse settings for which a condition does not hold.

    Raises:
        ConfigError: with this message.
    """
    if not holds:
        raise ConfigError(message)


def check_common(settings: Settings, *, activations: tuple[str, ...] = tuple(ACTIVATIONS)) -> None:
    """Check the settings that all kinds share.

    Raises:
        ConfigError: the hidden size is not positive or the activation is not one of these.
    """
    require(settings.hidden_size >= 1, f"hidden_size={settings.hidden_size} must be at least 1.")
    require(
        settings.activation in activations,
        f"activation={settings.activation!r} is not possible here; choose one of {', '.join(sorted(activations))}.",
    )


def check_depth(depth: int) -> None:
    """Check the depth of a tree.

    Raises:
        ConfigError: it is negative or larger than `MAX_DEPTH`.
    """
    require(0 <= depth <= MAX_DEPTH, f"depth={depth} must be from 0 to {MAX_DEPTH}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseWeights:
    """Weights of a dense feed-forward layer, by neuron: row n of each matrix belongs to neuron n.

    Attributes:
        w_in: [N, H], input weights (`up_proj`, or the first of two projections).
        w_out: [N, H], output weights: the transpose of the weight of the last projection.
        activation: name of the activation.
        w_gate: [N, H], gate weights (`gate_proj`), or None.
        b_in: [N], input biases, or None.
        b_out: [H], output bias, or None.
    """

    w_in: Tensor
    w_out: Tensor
    activation: str
    w_gate: Tensor | None = None
    b_in: Tensor | None = None
    b_out: Tensor | None = None

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.w_in.shape[0]

    @property
    def hidden_size(self) -> int:
        """Size of what the layer reads and writes."""
        return self.w_in.shape[1]

    def to(self, *args: Any) -> DenseWeights:
        """Return these weights on another device or in another dtype."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(*args)

        return replace(
            self,
            w_in=self.w_in.to(*args),
            w_out=self.w_out.to(*args),
            w_gate=moved(self.w_gate),
            b_in=moved(self.b_in),
            b_out=moved(self.b_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the dense layer: [B, H]."""
        out = dense_ffn(x, self.w_in, self.b_in, self.w_gate, self.w_out, activation=self.activation)
        return out if self.b_out is None else out + self.b_out


class KernelCache:
    """Kernels of one layer by type of tokens, for as long as its weights stay as they are."""

    def __init__(self) -> None:
        self._kernels: dict[torch.dtype, Callable[[Tensor], Tensor] | None] = {}
        self._stamp: list[tuple[Tensor, int, int]] = []

    def clear(self) -> None:
        """Forget all kernels."""
        self._kernels, self._stamp = {}, []

    def get(
        self, layer: nn.Module, tokens: torch.dtype, prepare: Callable[[torch.dtype], Callable[[Tensor], Tensor] | None]
    ) -> Callable[[Tensor], Tensor] | None:
        """Return the kernel for tokens of a type; it is prepared again if a weight was moved or changed.

        Args:
            layer: the layer.
            tokens: type of the tokens.
            prepare: prepares the kernel for a type.
        """
        if not all(value.data_ptr() == place and value._version == version for value, place, version in self._stamp):
            self.clear()
        if tokens not in self._kernels:
            # The counter of changes is absent from weights that were made in inference mode, which nobody trains.
            self._stamp = [
                (value, value.data_ptr(), value._version) for value in layer.parameters() if not value.is_inference()
            ]
            self._kernels[tokens] = prepare(tokens)
        return self._kernels[tokens]


class ConditionalFFN(nn.Module, ABC):
    """Feed-forward layer of which a token needs a part; it stands in for the dense one in a model.

    In training mode `forward` is the differentiable training form; in evaluation mode it is `hard_forward`, which reads
    only the neurons that a token visits. Without gradients that form runs in a kernel, where there is one for these
    weights and tokens. A kind implements the two for tokens [B, H] and counts what it reads.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._penalty: Tensor | None = None
        self._kernels = KernelCache()

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer for x [..., H] in the form of the current mode."""
        return self.training_forward(x) if self.training else self.hard_forward(x)

    def training_forward(self, x: Tensor) -> Tensor:
        """Compute the training form for x [..., H], and note its penalty."""
        return self._training(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def hard_forward(self, x: Tensor) -> Tensor:
        """Compute the inference form for x [..., H], which reads only what each token needs."""
        tokens = x.reshape(-1, x.shape[-1])
        kernel = self._kernel_for(tokens)
        return (self._hard(tokens) if kernel is None else kernel(tokens)).reshape(x.shape)

    def _kernel_for(self, x: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Return a kernel for tokens [B, H] that is ready for the weights as they are; None where there is none."""
        most = self._kernel_tokens(x)
        if not len(x) or (most is not None and len(x) > most) or torch.compiler.is_compiling():
            return None
        if torch.is_grad_enabled() and (x.requires_grad or any(value.requires_grad for value in self.parameters())):
            return None
        return self._kernels.get(self, x.dtype, self._prepare)

    def _kernel_tokens(self, x: Tensor) -> int | None:
        """Return the most tokens that the kernel computes faster than plain torch where x is; None for any number."""
        return None

    def _prepare(self, tokens: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        """Return a kernel for tokens of a type, ready for the weights as they are; None where there is none."""
        return None

    def train(self, mode: bool = True) -> ConditionalFFN:
        """Set the mode, and forget kernels: between two modes optimizers write weights in ways that nobody sees."""
        self._kernels.clear()
        return super().train(mode)

    def penalty(self) -> Tensor:
        """Return the term that the last training form adds to the loss, already weighted; zero if there is none."""
        return next(self.parameters()).new_zeros(()) if self._penalty is None else self._penalty

    @abstractmethod
    def _training(self, x: Tensor) -> Tensor:
        """Compute the training form for tokens [B, H]."""

    @abstractmethod
    def _hard(self, x: Tensor) -> Tensor:
        """Compute the inference form for tokens [B, H]."""

    @abstractmethod
    def total_neurons(self) -> int:
        """Return the number of neurons of the layer."""

    @abstractmethod
    def visited_neurons(self, x: Tensor | None = None) -> float:
        """Return how many neurons add to a token's output, as a mean over tokens x [..., H].

        Kinds whose number does not depend on the token need no x.

        Raises:
            ConfigError: the number depends on the token, and x is not given.
        """

    @abstractmethod
    def visited_weights(self, x: Tensor | None = None) -> float:
        """Return how many weights of the matrices a token reads, routing included, as a mean over tokens x [..., H].

        This number compares kinds, because it is what a kernel for one token moves. Errors as `visited_neurons`.
        """

    def total_weights(self) -> int:
        """Return the number of weights in the layer's matrices, biases left out."""
        biases = ("b_in", "b_out", "b_node")
        return sum(value.numel() for name, value in self.named_parameters() if name not in biases)

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw new random weights, for training from scratch; see each kind for the distribution."""
        with torch.no_grad():
            for name, value in self.named_parameters():
                bound = self._bound(name)
                value.copy_(torch.empty(value.shape).uniform_(-bound, bound, generator=generator))

    def _bound(self, name: str) -> float:
        """Return the largest absolute value that a new random weight of a parameter may have."""
        fan_in = self.visited_neurons() if name in ("w_out", "b_out") else self.settings.hidden_size
        return 1.0 / math.sqrt(fan_in)

    def __getstate__(self) -> dict[str, Any]:
        # The noted penalty belongs to the graph of one step; a tensor inside of a graph cannot be copied.
        return {**self.__dict__, "_penalty": None, "_kernels": KernelCache()}

    def extra_repr(self) -> str:
        """Return the settings for `print(model)`."""
        return str(self.settings)


def parameter(*shape: int) -> nn.Parameter:
    """Return an empty parameter of this shape."""
    return nn.Parameter(torch.empty(*shape))


def with_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias, if there is one."""
    return out if bias is None else out + bias


def split_rows(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return a tensor in pieces of at most this many rows."""
    return torch.split(values, size)  # type: ignore[no-untyped-call, no-any-return, unused-ignore]


def need_tokens(x: Tensor | None, kind: str) -> Tensor:
    """Return tokens [B, H] to count on.

    Raises:
        ConfigError: there are none.
    """
    if x is None:
        raise ConfigError(f"How many neurons a layer of kind {kind!r} visits depends on the text; pass inputs.")
    return x.reshape(-1, x.shape[-1])
