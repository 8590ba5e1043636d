"""Least-squares repair: refit the projections that read removed units, in closed form and without training.

The output projections (o of attention, down of the FFN) are refitted layer by layer on calibration text. With X the
inputs of a projection in the parent, Y = X W^T its outputs there, K the kept columns and X^ the kept inputs as the
pruned network computes them, the new weights are

    W' = W[:, K] + (Y^T X^ - W[:, K] X^^T X^) (X^^T X^ + lambda I)^-1

With the target "stream", Y also contains the distance between the two residual streams in front of the projection, so
that the stream behind the projection is fitted and not only its output. The ridge pulls toward the original columns;
removing nothing changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from minigpt.errors import CorpusError
from minigpt.pruning.experts import slice_experts
from minigpt.pruning.leastsquares import default_ridge, ridge_solution
from minigpt.pruning.slicing import (
    forward_replaced,
    head_columns,
    linear,
    no_ffn,
    set_kv_groups,
    slice_attention,
    slice_ffn,
)
from minigpt.pruning.streams import call_layer, layer_arguments, recorded
from minigpt.pruning.waiting import Home, InMemory, Waiting
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group, residual_scale
from minigpt.transformer.batches import Batch
from minigpt.transformer.families import ArchSpec
from minigpt.types import PrunePlan

Target = Literal["output", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """Record of a repair. Errors are squared errors of the target over the squared output, one per kept layer.

    Attributes:
        tokens: size of the calibration sample.
        tokens_per_neuron: size of the sample over the kept FFN width; below 4 the fit depends on the ridge.
        ridge: ridge penalty; None if it was chosen by the size of the sample.
        sequential: whether layers were fitted to the pruned network's own inputs.
        target: the target of the fit.
        seconds: time that cutting and repair took.
        attention_before: errors of o as cut.
        attention_after: errors of o after the repair.
        ffn_before: errors of down as cut.
        ffn_after: errors of down after the repair.
    """

    tokens: int
    tokens_per_neuron: float
    ridge: float | None
    sequential: bool
    target: Target
    seconds: float
    attention_before: tuple[float, ...]
    attention_after: tuple[float, ...]
    ffn_before: tuple[float, ...]
    ffn_after: tuple[float, ...]


@dataclass(slots=True, kw_only=True)
class _Chunk:
    """One calibration batch on its way through the layers of parent and pruned network."""

    parent: Waiting
    pruned: Waiting
    rows: Tensor
    arguments: list[dict[str, Any]]
    seen: dict[str, Waiting] = field(default_factory=dict)

    def text(self, waiting: Waiting) -> Tensor:
        """Select the text rows of states [batch, length, features]: fp32 [n, features], where the rows are."""
        states = waiting.to(self.rows.device)
        return states.reshape(-1, states.shape[-1]).index_select(0, self.rows).float()


class Fit:
    """The state of one repair: the model being cut and the calibration chunks between two layers.

    Args:
        model: the dense model.
        plan: the units to keep.
        ridge: see :func:`prune_with_repair`.
        sequential: see :func:`prune_with_repair`.
        target: see :func:`prune_with_repair`.
        home: where the calibration text waits while nothing computes with it (None: on the model's device). Elsewhere
            it leaves an accelerator's memory to one layer and one chunk.
    """

    def __init__(
        self,
        model: Any,
        plan: PrunePlan,
        *,
        ridge: float | None = None,
        sequential: bool = True,
        target: Target = "stream",
        home: Home | None = None,
    ) -> None:
        self.model, self.plan, self.ridge, self.sequential = model, plan, ridge, sequential
        self.device: torch.device = model.device
        self.home: Home = InMemory(self.device) if home is None else home
        self.started = time.perf_counter()
        self.spec: ArchSpec = arch_of(model)
        self.target: Target = target if self.spec.norms_after == 0 and sequential else "output"
        self.scale = residual_scale(model.config)
        self.layers = list(decoder_layers(model))
        self.chunks: list[_Chunk] = []
        names = ("attention_before", "attention_after", "ffn_before", "ffn_after")
        self.errors: dict[str, list[float]] = {name: [] for name in names}

    @property
    def tokens(self) -> int:
        """Number of text tokens in the sample."""
        return sum(len(chunk.rows) for chunk in self.chunks)

    def report(self, width: int) -> RepairReport:
        """Return the record of the repair so far.

        Args:
            width: FFN width that is kept.
        """
        errors = {name: tuple(values) for name, values in self.errors.items()}
        return RepairReport(
            tokens=self.tokens,
            tokens_per_neuron=self.tokens / width,
            ridge=self.ridge,
            sequential=self.sequential,
            target=self.target,
            seconds=time.perf_counter() - self.started,
            **errors,
        )

    def load(self, batches: Iterable[Batch]) -> None:
        """Embed the text and record the arguments of every layer (masks, rotary embeddings)."""
        for batch in batches:
            rows = (batch.segment_ids != 0).flatten().nonzero().squeeze(1).to(self.model.device)
            if len(rows):
                states, arguments = layer_arguments(self.model, self.layers, batch)
                waiting = self.home.keep(states)
                self.chunks.append(_Chunk(parent=waiting, pruned=waiting, rows=rows, arguments=arguments))
        if not self.chunks:
            raise CorpusError("The calibration batches hold no text; give the domain more documents.")

    def layer(self, index: int) -> None:
        """Run one layer for the parent; if it is kept, cut it, refit it and run it for the pruned network."""
        layer, spec = self.layers[index], self.spec
        output = linear(layer, spec.output)
        down = linear(layer, spec.ffn_columns) if spec.experts is None else None
        before = [chunk.parent for chunk in self.chunks]
        self._run_parent(index, output, down)
        if index not in self.plan.layers:
            return
        place = self.plan.layers.index(index)
        width = head_dim(self.model.config) * heads_per_group(self.model.config)
        groups, neurons = self.plan.kv_groups[place], self.plan.ffn[place]
        slice_attention(self.model, layer, groups)
        self._attention_inputs(index, output, head_columns(groups, width))
        self._refit(output, "attention", before)
        slice_ffn(self.model, layer, neurons)
        if self.plan.experts:
            slice_experts(self.model, layer, self.plan.experts[place])
        if down is None:
            self._run_experts(index, output)
            return
        self._ffn_inputs(index, output, down, torch.tensor(neurons))
        self._refit(down, "ffn", before)
        self._run_pruned(index, output, down)

    def _run_experts(self, index: int, output: nn.Linear) -> None:
        """Move the pruned stream through a layer whose experts stay as they are; attention is refitted already."""
        for chunk in self.chunks:
            if self.sequential:
                with self._attention_known(index, output, chunk):
                    chunk.pruned = self._call(index, chunk.pruned, chunk)
            chunk.seen.clear()

    def _call(self, index: int, states: Waiting, chunk: _Chunk) -> Waiting:
        """Run a layer on states of a chunk, on the device of the model, and keep what leaves it."""
        return self.home.keep(self._pass(index, states, chunk))

    def _pass(self, index: int, states: Waiting, chunk: _Chunk) -> Tensor:
        """Run a layer on states of a chunk, on the device of the model."""
        return call_layer(self.layers[index], states.to(self.device), chunk.arguments[index])

    def _keep(self, seen: dict[str, Tensor], *names: str) -> dict[str, Waiting]:
        """Keep what was recorded under some names; nothing reads the rest."""
        return {name: self.home.keep(seen[name]) for name in names if name in seen}

    def _run_parent(self, index: int, output: nn.Linear, down: nn.Linear | None) -> None:
        """Move the parent's stream through a layer and record the outputs of its two output projections.

        Their inputs are recorded where a fit uses the parent's own.
        """
        inputs = () if self.sequential else ("attention_in", "ffn_in")
        names = ("attention_out", "ffn_out", *inputs) if index in self.plan.layers else ()
        for chunk in self.chunks:
            seen: dict[str, Tensor] = {}
            with ExitStack() as stack:
                for name, module in (("attention", output), ("ffn", down)):
                    if module is not None:
                        stack.enter_context(recorded(module, name, seen))
                chunk.parent = self._call(index, chunk.parent, chunk)
            chunk.seen = self._keep(seen, *names)

    def _attention_inputs(self, index: int, output: nn.Linear, columns: Tensor) -> None:
        """Put the pruned network's inputs of o into `seen["attention_in"]`."""
        layer = self.layers[index]
        mlp, attention = (layer.get_submodule(path) for path in (self.spec.ffn_module, self.spec.attention_module))
        for chunk in self.chunks:
            if self.sequential:
                cut = groups_in_config(attention, self.model.config, len(self.plan.kv_groups[0]))
                seen: dict[str, Tensor] = {}
                with cut, forward_replaced(mlp, no_ffn(self.model)), recorded(output, "attention", seen):
                    self._pass(index, chunk.pruned, chunk)
                chunk.seen |= self._keep(seen, "attention_in")
            else:
                chunk.seen["attention_in"] = self._columns(chunk.seen["attention_in"], columns)

    def _ffn_inputs(self, index: int, output: nn.Linear, down: nn.Linear, neurons: Tensor) -> None:
        """Put the pruned network's inputs of down into `seen["ffn_in"]`; attention is refitted already."""
        for chunk in self.chunks:
            if self.sequential:
                seen: dict[str, Tensor] = {}
                with self._attention_known(index, output, chunk) as known, recorded(down, "ffn", seen):
                    self._pass(index, chunk.pruned, chunk)
                chunk.seen |= self._keep(seen | {"attention_mid": known}, "ffn_in", "attention_mid")
            else:
                chunk.seen["ffn_in"] = self._columns(chunk.seen["ffn_in"], neurons)

    def _run_pruned(self, index: int, output: nn.Linear, down: nn.Linear) -> None:
        """Move the pruned stream through the refitted layer, by the inputs that are already known."""
        mlp = self.layers[index].get_submodule(self.spec.ffn_module)
        for chunk in self.chunks:
            if self.sequential:
                known = down(chunk.seen["ffn_in"].to(self.device))
                with self._attention_known(index, output, chunk), forward_replaced(mlp, lambda _x, known=known: known):
                    chunk.pruned = self._call(index, chunk.pruned, chunk)
            chunk.seen.clear()

    @contextmanager
    def _attention_known(self, index: int, output: nn.Linear, chunk: _Chunk) -> Iterator[Tensor]:
        """Skip the computation of attention in the pruned layer, and yield what o gives: its input is known."""
        attention = self.layers[index].get_submodule(self.spec.attention_module)
        known: Tensor = output(chunk.seen["attention_in"].to(self.device))
        with forward_replaced(attention, lambda *_args, **_kwargs: (known, None)):
            yield known

    def _columns(self, states: Waiting, kept: Tensor) -> Waiting:
        """Take some features of states that wait."""
        whole = states.to(self.device)
        return self.home.keep(whole.index_select(-1, kept.to(whole.device)))

    def _refit(self, module: nn.Linear, name: str, before: list[Waiting]) -> None:
        """Solve for the weights of one projection and record the errors before and after."""
        size = module.in_features
        gram = torch.zeros(size, size, device=module.weight.device)
        cross = torch.zeros(module.out_features, size, device=module.weight.device)
        missed = total = 0.0
        for chunk, parent_in in zip(self.chunks, before, strict=True):
            inputs = chunk.seen[f"{name}_in"].to(self.device)
            expected = chunk.text(chunk.seen[f"{name}_out"])
            gap = expected - chunk.text(module(inputs))
            if self.target == "stream":
                gap += self._drift(chunk, name, parent_in)
            features = chunk.text(inputs)
            gram.addmm_(features.T, features)
            cross.addmm_(gap.T, features)
            missed, total = missed + float(gap.square().sum()), total + float(expected.square().sum())
        ridge = default_ridge(size, self.tokens) if self.ridge is None else self.ridge
        correction = ridge_solution(cross, gram, ridge)
        module.weight.copy_((module.weight.float() + correction).to(module.weight.dtype))
        left = missed - 2 * float((correction * cross).sum()) + float(((correction @ gram) * correction).sum())
        self.errors[f"{name}_before"].append(missed / max(total, 1e-30))
        self.errors[f"{name}_after"].append(max(left, 0.0) / max(total, 1e-30))

    def _drift(self, chunk: _Chunk, name: str, parent_in: Waiting) -> Tensor:
        """Compute the parent's residual stream minus the pruned one, where this projection adds to it: [n, hidden].

        It is counted in the projection's output, which some families scale before they add it.
        """
        drift = (chunk.text(parent_in) - chunk.text(chunk.pruned)) / self.scale
        if name == "ffn":
            drift = drift + chunk.text(chunk.seen["attention_out"]) - chunk.text(chunk.seen["attention_mid"])
        return drift


@contextmanager
def groups_in_config(attention: Any, config: Any, groups: int) -> Iterator[None]:
    """Let a cut attention read a config of its own width inside the block: some families look there at every call."""
    before = getattr(attention, "config", None)
    if before is None:
        yield
        return
    attention.config = deepcopy(config)
    set_kv_groups(attention.config, groups)
    try:
        yield
    finally:
        attention.config = before
