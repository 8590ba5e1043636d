"""Table of the export formats. It is the registry: a new format is a new row."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.errors import ConfigError, UnknownName


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One export format: how it is written and in which precisions.

    Attributes:
        write: `module:function` of its :class:`minigpt.exporting.request.Writer`.
        precisions: precisions of the weights, the default first.
        summary: one line that says what the format is, for the card.
        card: paragraph of the model card that says how to run it.
        needs: modules that the writer imports.
        extra: extra of minigpt that installs these modules.
        roundings: ways in which int4 weights can be rounded, the default first; empty where there is no choice.
        options: options of `minigpt export` that this format reads, besides those that all read.
        runtime: whether the format is a model. A model has a row in :data:`minigpt.runtimes.LOADERS`, through which it
            is verified; any other format brings its own checks.
        check: `module:function` that refuses, by request and config, a model that the format cannot hold, before any
            work; empty where only the writer knows.
    """

    write: str
    precisions: tuple[str, ...]
    summary: str
    card: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    roundings: tuple[str, ...] = ()
    options: tuple[str, ...] = ("quality-bytes", "device")
    runtime: bool = True
    check: str = ""


# Ways to round int4 weights: with error compensation on the domain's calibration text (GPTQ), or to the nearest code.
ROUNDINGS = ("compensated", "nearest")

# Weights of a row that share a scale, in every 4-bit and 8-bit format.
BLOCK = 32

# Bytes of held-out text on which an export is measured by default.
QUALITY_BYTES = 65536

# Every export format by name.
EXPORTERS = {
    "onnx": Format(
        write="minigpt.exporting.onnx:write",
        check="minigpt.exporting.onnx:check",
        precisions=("fp32", "fp16", "int8", "int4"),
        summary="one ONNX graph with a KV cache, for ONNX Runtime and everything that reads its names",
        card=(
            "`model.onnx` takes `input_ids`, `attention_mask`, `position_ids` and `past_key_values.N.key/value` "
            "[batch, KV heads, past, head size] and gives `logits` and `present.N.key/value`; an empty past is a "
            "prefill. Batch and lengths are free. Run it with ONNX Runtime."
        ),
        needs=("onnx", "onnxruntime", "onnxscript"),
        roundings=ROUNDINGS,
        extra="onnx",
    ),
    "onnx-genai": Format(
        write="minigpt.exporting.onnx_genai:write",
        precisions=("fp32", "int4"),
        summary="a folder for ONNX Runtime GenAI: the fast way to generate with ONNX on processors and phones",
        card="Run it with `onnxruntime_genai`: `Model(folder)`, a `Generator`, `append_tokens`, `generate_next_token`.",
        needs=("onnx", "onnxruntime", "onnxruntime_genai", "onnx_ir"),
        roundings=ROUNDINGS,
        extra="onnx",
    ),
    "torch-4bit": Format(
        write="minigpt.exporting.torch_nf4:write",
        precisions=("int4",),
        summary="a transformers folder with 4-bit linear layers, for GPUs",
        card="`AutoModelForCausalLM.from_pretrained(folder)` loads it as it is, with `bitsandbytes` installed.",
        needs=("bitsandbytes",),
        extra="gpu",
    ),
    "draft": Format(
        write="minigpt.exporting.draft:write",
        precisions=("fp32",),
        summary="a specialist as the draft of its parent, for assisted generation",
        card=(
            "`parent.generate(..., do_sample=False, assistant_model=draft, tokenizer=parent_tokenizer, "
            "assistant_tokenizer=draft_tokenizer)` gives the parent's text. Leave both tokenizers out where "
            "`vocab_size` is the same in both configs, because the vocabulary was not cut: transformers refuses them "
            "there. "
            "`d2t.safetensors` maps the ids: that of draft token i in the parent is i + d2t[i], unless lacking[i]. "
            "`switched_off` in `export.json` says whether it is slower than the parent alone, where it was measured."
        ),
        options=("limit", "device"),
        runtime=False,
    ),
    "lm-eval": Format(
        write="minigpt.exporting.lm_eval:write",
        precisions=("fp32",),
        summary="a domain's held-out text and questions as tasks of lm-evaluation-harness",
        card="`run.sh` holds the command that scores a model with `lm_eval`; `tasks.txt` names the tasks.",
        needs=("lm_eval",),
        extra="lm-eval",
        options=("limit",),
        runtime=False,
    ),
    "gguf": Format(
        write="minigpt.exporting.gguf:write",
        check="minigpt.exporting.gguf:check",
        precisions=("fp16", "int8", "int4", "fp32"),
        summary="one GGUF file (F16, Q8_0, Q4_0 or F32), for llama.cpp and everything built on it",
        card=(
            "`model.gguf` holds weights, tokenizer and chat template. Run it with llama.cpp "
            "(`llama-cli -m model.gguf`), with llama-cpp-python, or with anything else that reads GGUF."
        ),
        needs=("gguf",),
        roundings=ROUNDINGS,
    ),
}


def format_of(name: str, precision: str | None) -> tuple[Format, str]:
    """Look up a format and the precision to write it in.

    Args:
        name: name of the format.
        precision: the precision asked for; None means the format's default.

    Raises:
        UnknownName: no such format.
        ConfigError: the format does not come in that precision.
    """
    if name not in EXPORTERS:
        raise UnknownName("export format", name, EXPORTERS)
    row = EXPORTERS[name]
    if precision is not None and precision not in row.precisions:
        raise ConfigError(f"{name} comes in {', '.join(row.precisions)}, not in {precision}; choose one of these.")
    return row, precision or row.precisions[0]


def rounding_of(name: str, precision: str, rounding: str | None) -> str | None:
    """Look up how the weights of a format are rounded.

    Args:
        name: name of a known format.
        precision: the precision it is written in.
        rounding: the way asked for; None means the format's default.

    Returns:
        The way to round, or None where there is no choice.

    Raises:
        ConfigError: the format cannot be rounded that way in this precision.
    """
    ways = EXPORTERS[name].roundings if precision == "int4" else ()
    if rounding is not None and rounding not in ways:
        known = f"knows {' and '.join(ways)}" if ways else "has no choice of rounding"
        raise ConfigError(f"{name} in {precision} {known}; leave --rounding {rounding} out.")
    return rounding or next(iter(ways), None)


def check_options(name: str, **options: object) -> None:
    """Refuse options that a format does not read.

    Args:
        name: name of a format.
        options: what the user gave for `quality_bytes`, `limit` and `device`; None where nothing was given.

    Raises:
        UnknownName: no such format.
        ConfigError: an option would do nothing.
    """
    row = format_of(name, None)[0]
    for option, value in options.items():
        spelling = option.replace("_", "-")
        if value is not None and spelling not in row.options:
            raise ConfigError(f"{name} does not read --{spelling}; leave --{spelling} {value} out.")
