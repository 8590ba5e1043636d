"""Conversion of a dense specialist's feed-forward layers, and the choice of those that become conditional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.conditional import store
from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.choose import LayerCost, longest_within, ranked, times_of
from minigpt.conditional.convert import relative_error
from minigpt.conditional.distill import DistillOptions, distill, ffn_inputs
from minigpt.conditional.folder import layers_in
from minigpt.conditional.kinds import Kind
from minigpt.conditional.swap import FFNPaths, conditional, dense_weights, ffn_layers, ffn_paths
from minigpt.corpus.selection import take_bytes
from minigpt.errors import PlanError
from minigpt.files import read_json, write_json
from minigpt.forms import ConditionalForm, ConditionalLayer
from minigpt.healing import bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.machine import release
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.run import Run, SavedModel, load
from minigpt.pipeline.text import calibration, planning_text
from minigpt.pipeline.workspace import LAYERS
from minigpt.transformer.arch import ffn_width

# Bytes of cached inputs of layers that are converted together.
CACHED = 1 << 30
# One of so many calibration tokens is kept from the conversion, to measure its error.
UNSEEN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Facts that all steps of a conversion share.

    Attributes:
        run: the build.
        corpora: domain and general text.
        kind: the kind of conditional layers.
        dense: the dense specialist.
        key: fingerprint of dense model, kind, settings and text.
    """

    run: Run
    corpora: Corpora
    kind: Kind
    dense: SavedModel
    key: str

    def step(self, title: str) -> Any:
        """Open a step of the progress."""
        return self.run.reporter.stage(f"Conditional form ({self.kind.name}): {title}")


def convert_layers(work: Conversion) -> None:
    """Convert every feed-forward layer, each a stage of its own; finished ones are kept.

    Groups of layers share one pass over the text, as large as memory for their inputs allows.
    """
    run = work.run
    settings, workspace = run.settings.conditional, run.workspace
    with work.step("converting layers"):
        tokenizer, model = assets.load_tokenizer(work.dense.path), load(run, work.dense.path, training=True)
        text = replace(planning_text(work.corpora, run.settings), batch_tokens=run.settings.evaluation.batch_tokens)
        batches = calibration(text, tokenizer, settings.tokens)
        count = len(ffn_layers(model))
        size = max(1, CACHED // (4 * settings.tokens * int(model.config.hidden_size)))
        inputs: dict[int, Any] = {}

        def make(index: int, folder: Path) -> None:
            if index not in inputs:
                inputs.clear()
                inputs.update(ffn_inputs(model, range(index, min(count, index + size)), batches))
            layer, error = _convert(work, model, index, inputs[index])
            store.save(folder / "layer", {index: layer})
            write_json(folder / "error.json", error)

        for index in run.reporter.track(range(count), title="Converting layers", total=count):
            workspace.stage(f"{LAYERS}/{index}", work.key, partial(make, index))
        inputs.clear()
        release()


def _convert(work: Conversion, model: Any, index: int, inputs: Any) -> tuple[ConditionalFFN, float]:
    """Convert one layer, and return it with its error on inputs that it was not converted on."""
    settings, device = work.run.settings.conditional, work.run.device
    weights, inputs = dense_weights(model, index), inputs.to(device).float()
    unseen = len(inputs) // UNSEEN
    seen, unseen = inputs[: len(inputs) - unseen], inputs[len(inputs) - unseen :]
    layer = work.kind.layer(weights, seen, settings)
    if work.kind.trained and settings.distill_steps:
        options = DistillOptions(
            steps=settings.distill_steps,
            batch_tokens=settings.distill_tokens,
            lr=settings.distill_rate,
            seed=work.run.options.seed,
        )
        error = distill(layer, weights, seen, unseen=unseen, options=options).after
    else:
        error = relative_error(layer, weights, unseen)
    return layer.eval(), error


def choose_layers(work: Conversion, tokenizer: Any) -> ConditionalForm:
    """Choose the layers that cost the least dev loss for each microsecond that they save, up to the limit.

    Raises:
        PlanError: no layer is faster than the dense one.
    """
    run, settings = work.run, work.run.settings.conditional
    model = load(run, work.dense.path)
    layers, errors = _converted(work, len(ffn_layers(model)), next(model.parameters()).dtype)
    text = _probe(work, tokenizer)
    dense_loss = bits_per_byte(model, text)
    inputs = dev_inputs(work, model, tokenizer)
    costs = []
    for index in run.reporter.track(sorted(layers), title="Measuring layers", total=len(layers)):
        dense = dense_modules(ffn_layers(model)[index], ffn_paths(model))
        dense_us, conditional_us = times_of([dense, layers[index]], inputs[index])
        with conditional(model, {index: layers[index]}):
            loss = bits_per_byte(model, text) - dense_loss
        costs.append(LayerCost(layer=index, loss=loss, dense_us=dense_us, conditional_us=conditional_us))
    losses: dict[int, float] = {}

    def loss_of(order: Sequence[int]) -> float:
        with conditional(model, {index: layers[index] for index in order}):
            losses[len(order)] = bits_per_byte(model, text)
        return losses[len(order)]

    replaced = longest_within(ranked(costs), settings.max_loss * dense_loss, loss_of)
    if not replaced:
        raise PlanError(
            f"No layer of kind {work.kind.name} is faster than the dense one on this machine; choose another kind or a "
            "smaller conditional.visited."
        )
    before = losses.get(len(replaced)) or loss_of(replaced)
    entries = tuple(_entry(cost, cost.layer in replaced, layers[cost.layer], errors[cost.layer]) for cost in costs)
    return ConditionalForm(
        kind=work.kind.name, layers=entries, probe=dense_loss, probe_before_healing=before, visited_share=1.0
    )


def dense_modules(layer: Any, paths: FFNPaths) -> Any:
    """Return the modules of a dense layer whose work a conditional one does, as one that runs them in turn."""
    from torch import nn

    modules = [layer.get_submodule(path) for path in (paths.replaced, *paths.bypassed)]
    return nn.Sequential(*modules) if len(modules) > 1 else modules[0]


def layers_of(work: Conversion, form: ConditionalForm) -> dict[int, ConditionalFFN]:
    """Read the converted layers that were chosen, in fp32."""
    import torch

    layers, _ = _converted(work, len(form.layers), torch.float32)
    return {entry.layer: layers[entry.layer] for entry in form.layers if entry.conditional}


def _converted(work: Conversion, count: int, dtype: Any) -> tuple[dict[int, ConditionalFFN], dict[int, float]]:
    """Read the converted layers and their errors."""
    folder = work.run.workspace.work / LAYERS
    layers: dict[int, ConditionalFFN] = {}
    errors: dict[int, float] = {}
    for index in range(count):
        layers |= store.load(folder / str(index) / "layer", device=work.run.device, dtype=dtype)
        errors[index] = read_json(folder / str(index) / "error.json", float)
    return layers, errors


def _entry(cost: LayerCost, replaced: bool, layer: ConditionalFFN, error: float) -> ConditionalLayer:
    """Return the record of one layer; visits are measured after healing."""
    return ConditionalLayer(
        layer=cost.layer,
        conditional=replaced,
        neurons=layer.total_neurons(),
        visited=0.0,
        weights_share=1.0,
        error=error,
        loss=cost.loss,
        dense_us=cost.dense_us,
        conditional_us=cost.conditional_us,
    )


def _probe(work: Conversion, tokenizer: Any) -> Any:
    """Tokenize the dev text that decides."""
    documents = take_bytes(work.corpora.domain.dev, work.run.settings.conditional.probe_bytes)
    return token_text(tokenizer, documents, work.run.settings.heal.window)


def dev_inputs(work: Conversion, model: Any, tokenizer: Any) -> dict[int, Any]:
    """Return what each feed-forward layer reads on about 256 tokens of dev text, on the model's device."""
    run = work.run
    dev = tuple(take_bytes(work.corpora.domain.dev, run.settings.conditional.probe_bytes))
    text = replace(planning_text(work.corpora, run.settings), calibration=dev, window=64)
    inputs = ffn_inputs(model, range(len(ffn_layers(model))), calibration(text, tokenizer, 256))
    return {index: x.to(run.device) for index, x in inputs.items()}


def with_visits(form: ConditionalForm, model: Any, inputs: dict[int, Any]) -> ConditionalForm:
    """Put in how many neurons and weights a token needs in each layer."""
    layers, entries, visited, total = layers_in(model), [], 0.0, 0
    size = ffn_width(model.config)
    matrices = 1 + len(ffn_paths(model).rows)
    for entry in form.layers:
        layer = layers.get(entry.layer)
        neurons = size if layer is None else layer.total_neurons()
        seen = float(size) if layer is None else layer.visited_neurons(inputs[entry.layer])
        weights = 1.0
        if layer is not None:
            read = layer.visited_weights(inputs[entry.layer])
            weights = read / (matrices * size * int(model.config.hidden_size))
        entries.append(replace(entry, neurons=neurons, visited=seen, weights_share=weights))
        visited, total = visited + seen, total + size
    return replace(form, layers=tuple(entries), visited_share=visited / total)
