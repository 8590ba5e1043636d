"""Table of the runtimes that a model can be fitted to: their export formats, precisions and file layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minigpt.errors import UnknownName
from minigpt.transformer.estimate import SCALE_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Bytes that a file takes for each weight, by the place of the weight.

    Attributes:
        matrices: bytes of a weight in the matrices of the layers.
        tied: bytes of a weight of an embedding that is the head, too.
        table: bytes of a weight of an embedding that is only looked up.
        head: bytes of a weight of a head of its own.
        vectors: bytes of a number in norms and biases.
        per_layer: bytes that a layer takes besides its weights: names, and nodes of the graph.
        fixed: bytes of the file besides layers and weights.
        rotary: bytes of a stored rotary angle, where the file holds a table of them; else 0.
        tokens: whether the file holds the tokenizer.
    """

    matrices: float
    tied: float
    table: float
    head: float
    vectors: float
    per_layer: int
    fixed: int
    rotary: int = 0
    tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One runtime.

    Attributes:
        name: the runtime's name as users write it.
        formats: export format of each precision; empty for the plain model folder of a build.
        layouts: how a file of each precision is laid out; the precisions are in the order of their quality.
        timed: precisions that are tried where memory is limited; where only speed is, the first of them, which reads
            the fewest bytes of weights for a token.
    """

    name: str
    formats: Mapping[str, str]
    layouts: Mapping[str, Layout]
    timed: tuple[str, ...]


def _plain(size: float, **others: int | bool) -> Layout:
    """Lay out a file whose weights all take the same bytes."""
    return Layout(matrices=size, tied=size, table=size, head=size, vectors=size, **others)  # type: ignore[arg-type]


# Blocks of 32 weights with a 16-bit scale: ggml's Q8_0 and Q4_0.
Q8_0, Q4_0 = 34 / 32, 18 / 32
# Blocks of 32 weights with a 32-bit scale, in 8 bits with a zero point: ONNX Runtime's MatMulNBits.
ONNX_INT8, ONNX_INT4 = 1 + 5 / 32, 0.5 + 4 / 32
# Bytes of the entry of one tensor in the header of a GGUF or safetensors file, and tensors of a layer.
ENTRY, TENSORS = 96, 9
# Bytes of a layer's nodes in an ONNX graph as it is traced, and as GenAI's builder writes it.
TRACED, FUSED = 16_000, 9_000


def _gguf(matrices: float, embedding: float) -> Layout:
    """Lay out a GGUF file: vectors stay in 32 bits, and the tokenizer is inside."""
    return Layout(
        matrices=matrices,
        tied=embedding,
        table=embedding,
        head=embedding,
        vectors=4,
        per_layer=ENTRY * TENSORS,
        fixed=2_000,
        tokens=True,
    )


def _onnx(matrices: float, embedding: float, vectors: float = 4, *, layer: int = TRACED, rotary: int = 0) -> Layout:
    """Lay out an ONNX graph: an embedding that is not the head, too, is not rounded to fewer than 16 bits."""
    return Layout(
        matrices=matrices,
        tied=embedding,
        table=vectors,
        head=embedding,
        vectors=vectors,
        per_layer=layer,
        fixed=layer,
        rotary=rotary,
    )


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            name="llama.cpp",
            formats={"fp16": "gguf", "int8": "gguf", "int4": "gguf"},
            layouts={"fp16": _gguf(2, 2), "int8": _gguf(Q8_0, Q8_0), "int4": _gguf(Q4_0, Q8_0)},
            timed=("int4", "int8"),
        ),
        Engine(
            name="onnx-genai",
            formats={"fp32": "onnx-genai", "int4": "onnx-genai"},
            layouts={
                "fp32": _onnx(4, 4, layer=FUSED, rotary=4),
                "int4": _onnx(ONNX_INT4, ONNX_INT8, layer=FUSED, rotary=4),
            },
            timed=("int4",),
        ),
        Engine(
            name="onnx",
            formats={"fp32": "onnx", "int8": "onnx", "int4": "onnx"},
            layouts={"fp32": _onnx(4, 4), "int8": _onnx(ONNX_INT8, ONNX_INT8), "int4": _onnx(ONNX_INT4, ONNX_INT8)},
            timed=("int4", "int8"),
        ),
        Engine(
            name="torch",
            formats={"bf16": "", "int4": "torch-4bit"},
            layouts={
                "bf16": _plain(2, per_layer=ENTRY * TENSORS, fixed=1_000),
                "int4": Layout(
                    matrices=(4 + SCALE_BITS) / 8,
                    tied=2,
                    table=2,
                    head=2,
                    vectors=2,
                    per_layer=ENTRY * TENSORS * 4,
                    fixed=1_000,
                ),
            },
            timed=("bf16",),
        ),
    )
}


def engine_named(name: str) -> Engine:
    """Look up a runtime.

    Raises:
        UnknownName: there is no such runtime.
    """
    if name not in ENGINES:
        raise UnknownName("runtime", name, ENGINES)
    return ENGINES[name]
