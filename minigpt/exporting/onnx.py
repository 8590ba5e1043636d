"""Portable ONNX format: one graph that prefills and decodes, with the names that other tools expect.

transformers' own exporter traces the model; this module corrects its names and removes what it leaves behind. `onnx`,
`onnx_ir` and `onnxscript` belong to the extra `onnx`, so functions import what needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim
from transformers import DynamicCache

from minigpt import assets
from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import ExportError, first_line
from minigpt.exporting.common import copy_tokenizer, weight_bytes
from minigpt.exporting.onnx_int4 import index_by_content
from minigpt.exporting.onnx_quantize import quantize
from minigpt.exporting.quiet import silence
from minigpt.exporting.request import ExportRequest, Written
from minigpt.exporting.rounding.layers import round_layers
from minigpt.exporting.support import advice
from minigpt.files import atomic_path
from minigpt.progress import Reporter
from minigpt.transformer.arch import has_state, head_dim, kv_groups_of

if TYPE_CHECKING:
    from minigpt.exporting.rounding import RoundedMatrix

# The graph, and the file of weights beside it.
GRAPH = "model.onnx"
DATA = "model.onnx_data"
# Tokens of the sample that stand in the cache, and tokens that continue it.
SAMPLE_PAST = 3
SAMPLE_QUERY = 6
# Inputs of the graph besides the cache, with the names of their axes.
INPUTS = {
    "input_ids": ("batch_size", "sequence_length"),
    "attention_mask": ("batch_size", "total_sequence_length"),
    "position_ids": ("batch_size", "sequence_length"),
}


def check(request: ExportRequest, config: Any) -> None:
    """Refuse a model that has no graph of this form, before any work.

    Raises:
        ExportError: its layers carry a state.
    """
    if has_state(config):
        refuse_states(config, assets.load_tokenizer(request.source.path))


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write `model.onnx` with its weights beside it, in fp32 or fp16, or with int8 or int4 weights.

    Raises:
        ExportError: the model cannot be traced, or its graph cannot be quantized.
    """
    dtype = torch.float16 if request.precision == "fp16" else torch.float32
    model = assets.load_model(request.source.path, dtype=dtype)
    tokenizer = assets.load_tokenizer(request.source.path)
    with reporter.stage("Tracing the model"):
        graph = trace(model, tokenizer)
    settings: dict[str, Any] = {"opset": graph.opset_imports[""]}
    with reporter.stage("Saving the graph and its weights"):
        rename_values(graph)
        drop_trace_notes(graph)
        save_graph(graph, folder)
    if request.precision in {"int8", "int4"}:
        rounded: Mapping[str, RoundedMatrix] = {}
        weights = 0
        if request.precision == "int4":
            matrices, rounding = round_layers(model, tokenizer, request, reporter, every=True)
            rounded, settings = index_by_content(model, matrices), settings | rounding
            weights = sum(matrix.codes.numel() for matrix in matrices.values())
        settings |= quantize(folder / GRAPH, DATA, rounded, weights=weights)
    copy_tokenizer(request.source.path, folder)
    return Written(weights=(GRAPH, DATA), bytes_per_token=weight_bytes(folder / GRAPH), settings=settings)


def trace(model: Any, tokenizer: Any = None) -> Any:
    """Trace a model into an `onnx_ir.Model` in which the batch and both lengths are free.

    The sample is a batch of two, so that the exporter does not take the batch for a constant. It is padded on the left,
    so that the mask is not taken for superfluous. It continues a short past, of which an empty one is a special case.
    Sliding windows are in the masks that the graph computes, so its cache holds all tokens in every layer.

    Raises:
        ExportError: the exporter cannot trace this model.
    """
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    refuse_states(model.config, tokenizer)
    config = OnnxConfig(dynamic=True, dynamic_shapes=free_axes(model.config.num_hidden_layers))
    try:
        with quiet_transformers(), silence(), torch.no_grad():
            exporter: Any = OnnxExporter
            program = exporter().export_program(model, sample_inputs(model), config)
    except Exception as error:
        raise ExportError(
            f"transformers' ONNX exporter cannot trace this {model.config.model_type} model ({first_line(error)}). "
            f"{advice(model.config, tokenizer, but='onnx')}"
        ) from error
    # A tuple with metadata since transformers 5.2x, an ONNXProgram before.
    return program[0] if isinstance(program, tuple) else program.model


def refuse_states(config: Any, tokenizer: Any) -> None:
    """Refuse a model whose layers carry a state.

    Raises:
        ExportError: they do; the message names formats that work for the model.
    """
    if has_state(config):
        raise ExportError(
            f"The ONNX graph holds keys and values only, so this program cannot trace this {config.model_type} "
            f"model, whose layers carry a state. {advice(config, tokenizer, but='onnx')}"
        )


def sample_inputs(model: Any) -> dict[str, Any]:
    """Make inputs to trace with: a continuation of a cache of random numbers, the first row padded on the left.

    A cache that is made from the config drops tokens that no window reaches, and notes how many they were, which is
    more than keys and values. One that is made without it keeps them, and masks hide what a window does not reach.
    """
    config = model.config
    heads, size = kv_groups_of(config), head_dim(config)
    cache: Any = DynamicCache()
    for layer in range(config.num_hidden_layers):
        past = torch.randn(2, 2, heads, SAMPLE_PAST, size, dtype=model.dtype)
        cache.update(past[0], past[1], layer)
    mask = torch.ones(2, SAMPLE_PAST + SAMPLE_QUERY, dtype=torch.long)
    mask[0, : SAMPLE_PAST - 1] = 0
    return {
        "input_ids": torch.arange(2 * SAMPLE_QUERY).reshape(2, SAMPLE_QUERY) % config.vocab_size,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, SAMPLE_PAST:],
        "past_key_values": cache,
    }


def free_axes(layers: int) -> dict[str, Any]:
    """List the axes that may vary: batch and lengths.

    Everything else is fixed, which makes tracing faster.
    """

    def free(*axes: int) -> dict[int, Any]:
        return dict.fromkeys(axes, Dim.AUTO)

    cache = [free(0, 2) for _ in range(2 * layers)]
    return {**{name: free(0, 1) for name in INPUTS}, "past_key_values": cache}


def rename_values(graph: Any) -> None:
    """Give inputs, outputs and free axes the names that optimum established.

    Raises:
        ExportError: the traced graph lacks an input or has one too many, so it is another model than expected.
    """
    import onnx_ir

    pasts = [value for value in graph.graph.inputs if value.name not in INPUTS]
    presents = list(graph.graph.outputs)[1:]
    known = {value.name for value in graph.graph.inputs} & set(INPUTS)
    if known != set(INPUTS) or not pasts or len(pasts) != len(presents):
        raise ExportError(
            "The traced graph has inputs other than ids, mask, positions and a cache; use another format."
        )
    for value in graph.graph.inputs:
        if value.name in INPUTS:
            value.shape = onnx_ir.Shape(INPUTS[value.name])
    for values, prefix, length in (
        (pasts, "past_key_values", "past_sequence_length"),
        (presents, "present", "total_sequence_length"),
    ):
        for index, value in enumerate(values):
            layer, part = divmod(index, 2)
            value.name = f"{prefix}.{layer}.{('key', 'value')[part]}"
            value.shape = onnx_ir.Shape(["batch_size", value.shape[1], length, value.shape[3]])
    logits = graph.graph.outputs[0]
    logits.name = "logits"
    logits.shape = onnx_ir.Shape(["batch_size", "sequence_length", logits.shape[2]])


def drop_trace_notes(graph: Any) -> None:
    """Drop the stack traces that tracing notes on every node: they are large, and show paths of this machine."""
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*graph.graph.inputs, *graph.graph.outputs, *graph.graph.initializers.values()]:
        value.metadata_props.clear()
    graph.graph.metadata_props.clear()
    graph.metadata_props.clear()


def save_graph(graph: Any, folder: Path) -> None:
    """Write the graph, with its weights in a file beside it because a graph file may not exceed 2 GB."""
    import onnx_ir

    with atomic_path(folder / "onnx") as temporary:
        temporary.mkdir()
        onnx_ir.save(graph, temporary / GRAPH, external_data=DATA)
    for name in (GRAPH, DATA):
        (folder / "onnx" / name).replace(folder / name)
    (folder / "onnx").rmdir()
