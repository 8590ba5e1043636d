"""Mini-GPTs (Valicenti et al. 2023): prune units whose mean magnitude on the domain's text is under a threshold.

The authors' program has three rules:

Linear: input j of a linear layer is removed where A_in[j] = mean |x_j| <= epsilon, and output i where
min(A_out[i], U_out[i]) <= epsilon, with A_out = mean |y_i| and, if there is a bias, U_out = mean |y_i - b_i|.
Activation: the row in front of an activation function is removed where mean |act(x)_i| <= epsilon.
Embedding: a token is removed from the input embedding and the head where its share of the text is <= epsilon_tokens.

The paper writes zeros; that is the paper form. The shipped form ranks whole units by the smallest of the same
magnitudes and cuts them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import CorpusError
from minigpt.methods.material import Material, PaperForm
from minigpt.methods.scores import Scores
from minigpt.transformer.arch import arch_of, decoder_layers, refuse_experts, shape_of
from minigpt.transformer.batches import Batch, run_decoder
from minigpt.transformer.fused import separate_projections

# Tokens that go through the output head at once; the logits of a whole batch would not fit into memory.
HEAD_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitudes:
    """Mean magnitudes at one linear layer over all text tokens, fp32 on the CPU.

    Attributes:
        inputs: A_in.
        outputs: min(A_out, U_out).
        biased: A_out, which alone decides about the bias.
    """

    inputs: Tensor
    outputs: Tensor
    biased: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Mean magnitudes at every linear layer and every activation function of a model.

    Attributes:
        linears: magnitudes by module name.
        activations: mean |act(x)| of each neuron, one tensor a layer.
    """

    linears: Mapping[str, Magnitudes]
    activations: tuple[Tensor, ...]


def observe(model: Any, batches: Iterable[Batch]) -> Observed:
    """Measure mean magnitudes in one pass, at every linear layer (the head included) and every activation function.

    Raises:
        CorpusError: the batches hold no text.
    """
    refuse_experts(model, "Method mini-gpt")
    head, sums = model.get_output_embeddings(), _Sums()
    training = model.training
    model.eval()
    try:
        with separate_projections(model), torch.inference_mode(), ExitStack() as stack:
            linears = _hook(model, sums, stack)
            for batch in batches:
                sums.rows = (batch.segment_ids != 0).flatten().nonzero().squeeze(1).to(model.device)
                states = sums.text(run_decoder(model, batch))
                sums.tokens += len(states)
                sums.rows = None
                for part in torch.split(states, HEAD_ROWS):
                    head(part.to(head.weight.dtype))
    finally:
        model.train(training)
    if not sums.tokens:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    means = {name: value.cpu() / sums.tokens for name, value in sums.values.items()}
    return Observed(
        linears={
            name: Magnitudes(
                inputs=means[f"{name}.in"],
                outputs=torch.minimum(means[f"{name}.out"], means.get(f"{name}.free", means[f"{name}.out"])),
                biased=means[f"{name}.out"],
            )
            for name in linears
        },
        activations=tuple(means[f"{index}.act"] for index in range(len(decoder_layers(model)))),
    )


def _hook(model: Any, sums: _Sums, stack: ExitStack) -> list[str]:
    """Hold hooks on every linear layer and activation function until the stack closes; returns the layers' names."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, module in linears.items():
        stack.callback(module.register_forward_hook(sums.linear(name, module)).remove)
    for index, layer in enumerate(decoder_layers(model)):
        activation = layer.get_submodule(arch_of(model).ffn_activation)
        stack.callback(activation.register_forward_hook(sums.activation(str(index))).remove)
    return list(linears)


class _Sums:
    """Sums of magnitudes over the text tokens of the batches so far."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.rows: Tensor | None = None
        self.tokens = 0

    def text(self, states: Tensor) -> Tensor:
        """Select the rows of text tokens, without padding: fp32 [n, features]."""
        flat = states.reshape(-1, states.shape[-1])
        return (flat if self.rows is None else flat.index_select(0, self.rows)).float()

    def add(self, name: str, states: Tensor) -> None:
        """Add the magnitudes of states [n, features] to the sum of that name."""
        total = states.abs().sum(0)
        self.values[name] = self.values[name] + total if name in self.values else total

    def linear(self, name: str, module: nn.Linear) -> Callable[..., None]:
        """Make a forward hook that sums A_in, A_out and U_out."""

        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            outputs = self.text(output)
            self.add(f"{name}.in", self.text(args[0]))
            self.add(f"{name}.out", outputs)
            if module.bias is not None:
                self.add(f"{name}.free", outputs - module.bias.float())

        return hook

    def activation(self, name: str) -> Callable[..., None]:
        """Make a forward hook that sums |act(x)|."""

        def hook(_module: nn.Module, _args: object, output: Tensor) -> None:
            self.add(f"{name}.act", self.text(output))

        return hook


def structural(material: Material) -> Scores:
    """Score whole units by the smallest of their magnitudes: the epsilon at which the paper's rules first touch them.

    For a neuron these are the outputs of gate and up, the output of the activation function and the input of down. For
    a KV group they are the means over its features of the outputs of q, k and v and of the inputs of o. All layers
    score the same: the method ranks none.
    """
    model = material.model
    spec, groups, observed = arch_of(model), shape_of(model).kv_groups, observe(model, material.batches)
    ffn, attention = [], []
    for index in range(len(decoder_layers(model))):
        place = f"{spec.layers}.{index}."
        rows = [observed.linears[place + path].outputs for path in spec.ffn_rows]
        columns = observed.linears[place + spec.ffn_columns].inputs
        ffn.append(torch.stack([*rows, observed.activations[index], columns]).amin(0))
        outputs = [observed.linears[place + path].outputs for path in (spec.query, *spec.key_value)]
        features = [*outputs, observed.linears[place + spec.output].inputs]
        attention.append(torch.stack([values.view(groups, -1).mean(1) for values in features]).amin(0))
    neurons = torch.stack(ffn)
    return Scores(ffn=neurons, kv_groups=torch.stack(attention), layers=torch.ones(len(neurons)))


def paper_form(material: Material, target: int) -> PaperForm:
    """Zero weights as the paper does, in memory: the tokenizer stays, and a removed token keeps a logit of 0.

    One epsilon holds for all linear layers and activations. `plan.epsilon` sets it, whatever size it gives; without
    that setting it is the smallest one that leaves at most `target` parameters that are not zero, if there is one.
    """
    model = material.model
    with separate_projections(model):
        zeroing = _Zeroing(material, observe(model, material.batches))
        epsilon = material.epsilon if material.epsilon is not None else zeroing.epsilon_for(target)
        zeroing.apply(epsilon)
    kept = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    return PaperForm(
        model=model,
        parameters=kept,
        note=f"Mini-GPTs as published: weights zeroed at epsilon = {epsilon:.3g} (linear, activation) and "
        f"{material.epsilon_tokens:g} (share of tokens). Its size counts the parameters that are not zero; nothing is "
        "smaller on disk.",
    )


class _Zeroing:
    """Rows and columns of weights that are zeroed, as a function of epsilon."""

    def __init__(self, material: Material, observed: Observed) -> None:
        model = material.model
        self.model, self.observed = model, observed
        spec = arch_of(model)
        self.activations = {
            f"{spec.layers}.{index}.{spec.ffn_rows[0]}": values for index, values in enumerate(observed.activations)
        }
        self.lost_tokens = rare_tokens(
            material.counts, shape_of(model).vocab_size, material.epsilon_tokens, material.specials
        )

    def lines(self, name: str, epsilon: float) -> tuple[Tensor, Tensor]:
        """Return the rows and the columns of a linear layer that are zeroed, as booleans."""
        magnitudes = self.observed.linears[name]
        rows = magnitudes.outputs <= epsilon
        if name in self.activations:
            rows = rows | (self.activations[name] <= epsilon)
        return rows, magnitudes.inputs <= epsilon

    def left(self, epsilon: float) -> int:
        """Count the parameters that neither the linear and activation rules nor the lost tokens zero."""
        zeroed: int = 0
        head = self.model.get_output_embeddings()
        for name in self.observed.linears:
            rows, columns = self.lines(name, epsilon)
            module = self.model.get_submodule(name)
            if module is head:
                rows = rows | self.lost_tokens
            zeroed += rows.numel() * columns.numel() - int((~rows).sum()) * int((~columns).sum())
        embedding = self.model.get_input_embeddings()
        if embedding.weight is not head.weight:
            zeroed += int(self.lost_tokens.sum()) * embedding.weight.shape[1]
        total: int = sum(parameter.numel() for parameter in self.model.parameters())
        return total - zeroed

    def epsilon_for(self, target: int) -> float:
        """Find the smallest observed magnitude that, taken as epsilon, leaves at most `target` parameters."""
        linears = [torch.cat([values.inputs, values.outputs]) for values in self.observed.linears.values()]
        levels = torch.unique(torch.cat([*linears, *self.observed.activations]))
        low, high = -1, len(levels) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.left(float(levels[middle])) <= target else (middle, high)
        return float(levels[high]) if self.left(-1.0) > target else -1.0

    @torch.no_grad()
    def apply(self, epsilon: float) -> None:
        """Write the zeros; a bias is zeroed only where the whole output, bias included, is at most epsilon."""
        for name, magnitudes in self.observed.linears.items():
            module = self.model.get_submodule(name)
            rows, columns = (mask.to(module.weight.device) for mask in self.lines(name, epsilon))
            module.weight[rows] = 0
            module.weight[:, columns] = 0
            if module.bias is not None:
                silent = magnitudes.biased <= epsilon
                if name in self.activations:
                    silent = silent | (self.activations[name] <= epsilon)
                module.bias[silent.to(module.bias.device)] = 0
        for module in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
            module.weight[self.lost_tokens.to(module.weight.device)] = 0


def rare_tokens(counts: Mapping[int, int], size: int, epsilon: float, specials: Iterable[int]) -> Tensor:
    """Mark the tokens whose share of the text is at most `epsilon`, as booleans [size].

    Args:
        counts: how often each token id occurs in the text.
        size: size of the vocabulary.
        epsilon: 0 marks the tokens that do not occur, a negative number none.
        specials: ids of special tokens, which are never marked.
    """
    shares = torch.zeros(size, dtype=torch.float64)
    for token, count in counts.items():
        shares[token] = count
    shares /= shares.sum().clamp_min(1)
    shares[[token for token in specials if token < size]] = float("inf")
    return shares <= epsilon
