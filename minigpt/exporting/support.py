"""Support matrix: what can be done with each family of models, or the sentence that says why not.

Every cell is computed from the tables that the program works by; `minigpt families` and the documentation show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minigpt.assets.gguf import READ_BACK
from minigpt.errors import ExportError
from minigpt.exporting.gguf_arch import family_of
from minigpt.exporting.gguf_families import FAMILIES as GGUF
from minigpt.exporting.gguf_vocab import vocabulary_of
from minigpt.transformer.arch import has_state
from minigpt.transformer.families import ARCHITECTURES, ArchSpec

# Which neurons go where layers have experts.
INSIDE = "inside of experts, by method expert-width: as many from each, of its own choice"
# How many experts go, and how.
EXPERTS = "as many in each layer, enough for every token; removed (reap) or merged (m-smoe, hc-smoe)"
# What can be done with a model, in the order of the columns.
COLUMNS = ("ffn", "heads", "layers", "vocabulary", "experts", "repair", "heal", "onnx", "gguf", "onnx-genai")
# Families that ONNX Runtime GenAI's builder writes.
GENAI = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "smollm3", "granite", "phi", "phi3", "lfm2"}
)
# Families whose sliding windows GenAI's builder writes, too.
GENAI_WINDOWS = frozenset({"mistral", "qwen2"})
# Parents with real weights that builds were measured with.
REAL_WEIGHTS: Mapping[str, str] = {
    "llama": "SmolLM2-135M-Instruct",
    "gemma3_text": "Gemma 3 270M",
    "mixtral": "SmolLM2-135M, upcycled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Answer to whether something can be done with a family.

    Attributes:
        state: "yes", "refused" (the program says the sentence) or "none" (there is nothing of the kind).
        note: what is special, or why not; empty if there is nothing to say.
    """

    state: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Row of the support matrix.

    Attributes:
        family: the `model_type` of the family's configs.
        variants: values that config fields must have, in words; empty if all variants are described.
        cells: the answer for each of `COLUMNS`.
        real_weights: parent with real weights that builds were measured with; empty for tiny random ones only.
    """

    family: str
    variants: str
    cells: Mapping[str, Cell]
    real_weights: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the row as plain values."""
        return asdict(self)


def matrix() -> list[Support]:
    """Compute the support matrix, one row for each family of the table."""
    return [row(spec) for spec in ARCHITECTURES.values()]


def row(spec: ArchSpec) -> Support:
    """Compute the row of one family."""
    yes = Cell(state="yes")
    cells = {
        "ffn": _ffn(spec),
        "heads": _heads(spec),
        "layers": _layers(spec),
        "vocabulary": Cell(state="yes", note="with a BPE tokenizer; other kinds keep their vocabulary"),
        "experts": _experts(spec),
        "repair": _repair(spec),
        "heal": yes,
        "onnx": _onnx(spec),
        "gguf": _gguf(spec),
        "onnx-genai": _genai(spec),
    }
    return Support(
        family=spec.name,
        variants=", ".join(f"{name.lstrip('_')}={value}" for name, value in spec.requires.items()),
        cells={name: cells[name] for name in COLUMNS},
        real_weights=REAL_WEIGHTS.get(spec.name, ""),
    )


def _ffn(spec: ArchSpec) -> Cell:
    """Say whether neurons of a family can be removed."""
    if spec.experts is not None:
        return Cell(state="yes", note=INSIDE)
    if not spec.ffn_columns:
        return Cell(state="none", note="its layers have no FFN of neurons that stand alone")
    return Cell(state="yes")


def _layers(spec: ArchSpec) -> Cell:
    """Say which layers of a family can be removed."""
    if spec.state is None:
        return Cell(state="yes")
    if spec.state.kind:
        return Cell(state="yes", note=f"layers of kind {spec.state.kind}; those with attention stay")
    return Cell(state="yes", note="all but the first" if spec.state.first else "all of them carry a state")


def _experts(spec: ArchSpec) -> Cell:
    """Say which experts of a family can be removed."""
    if spec.experts is None:
        return Cell(state="none", note="the family has no experts")
    if spec.experts.shared:
        return Cell(state="yes", note=f"{EXPERTS}; the shared expert is kept")
    return Cell(state="yes", note=EXPERTS)


def _heads(spec: ArchSpec) -> Cell:
    """Say which numbers of KV groups a family takes."""
    if spec.state is not None and not spec.state.kind:
        return Cell(state="none", note="its layers have no attention")
    if spec.state is not None:
        return Cell(state="refused", note="most layers carry a state in place of attention, so heads stay")
    if spec.head_rule == "any":
        return Cell(state="yes", note="any number of KV groups")
    if spec.head_rule == "divides":
        return Cell(state="yes", note="numbers of query heads that divide the hidden size")
    if spec.wide_norms:
        return Cell(state="refused", note="a norm runs over all heads, so fewer would compute something else")
    return Cell(state="refused", note="the config cannot say the head size, so fewer heads would be larger ones")


def _repair(spec: ArchSpec) -> Cell:
    """Say what the repair of a family is fitted to."""
    if spec.state is not None:
        return Cell(state="refused", note="it needs attention in each layer, so builds leave it out")
    if spec.experts is not None:
        return Cell(state="yes", note="fits attention's output projections; the experts that are kept stay as they are")
    if spec.norms_after:
        return Cell(state="yes", note="fits the outputs of the projections: norms stand behind them")
    return Cell(state="yes", note="fits the residual stream")


def _onnx(spec: ArchSpec) -> Cell:
    """Say whether a family can be written as a plain ONNX graph."""
    if spec.state is not None:
        return Cell(state="refused", note="the graph holds keys and values only, and layers carry a state")
    windows = "sliding windows, where it has any, are in the masks; the cache holds the whole text"
    return Cell(state="yes", note=f"{windows}{_rounding(spec)}")


def _gguf(spec: ArchSpec) -> Cell:
    """Say whether a family can be written for llama.cpp, what proves it, and how int4 is rounded."""
    if spec.name not in GGUF:
        return Cell(state="refused", note="its tensors have no row in the table of llama.cpp's families")
    proof = "" if spec.name in READ_BACK else "; proved in llama.cpp, so that has to be there (`minigpt[gguf-runtime]`)"
    return Cell(state="yes", note=f"a setting that llama.cpp lacks is refused by name{proof}{_rounding(spec)}")


def _rounding(spec: ArchSpec) -> str:
    """Say what rounding with error compensation leaves out in a family, as the end of a note."""
    if spec.state is not None:
        return "; int4 is rounded to the nearest code"
    return "; experts are rounded to the nearest code in int4" if spec.experts is not None else ""


def _genai(spec: ArchSpec) -> Cell:
    """Say whether GenAI's builder writes a family."""
    if spec.name in GENAI:
        return Cell(state="yes", note=_rounding(spec).removeprefix("; "))
    return Cell(state="refused", note="ONNX Runtime GenAI's builder does not know the family or its rotary settings")


def slides(config: Any) -> bool:
    """Return whether a model has layers that see a window of the text only.

    Args:
        config: its Hugging Face config.
    """
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return "sliding_attention" in kinds
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True) is not False


def working_formats(config: Any, tokenizer: Any) -> tuple[str, ...]:
    """List the export formats that are known to work for a model, by its config and tokenizer.

    Args:
        config: its Hugging Face config.
        tokenizer: its tokenizer; None leaves out what depends on it.
    """
    writable = {
        "onnx": not has_state(config),
        "onnx-genai": config.model_type in GENAI and (not slides(config) or config.model_type in GENAI_WINDOWS),
        "gguf": tokenizer is not None and _is_gguf(config, tokenizer),
        "torch-4bit": True,
    }
    return tuple(name for name, works in writable.items() if works)


def advice(config: Any, tokenizer: Any, *, but: str) -> str:
    """Name the formats that a model can be exported to instead.

    Args:
        config: its Hugging Face config.
        tokenizer: its tokenizer.
        but: the format that failed.
    """
    others = [name for name in working_formats(config, tokenizer) if name != but]
    return f"Use --format {' or '.join(others)}."


def _is_gguf(config: Any, tokenizer: Any) -> bool:
    """Return whether llama.cpp computes what a config asks for and reads the tokenizer."""
    try:
        family_of(config)
        vocabulary_of(tokenizer, config.vocab_size)
    except ExportError:
        return False
    return True
