"""Memory of the stages that plan and prune: predicted from the shape before the work starts, so that it fits.

Everything is arithmetic on numbers of parameters and tokens. Bytes are those of tensors at the peak of a stage; what
the libraries themselves take is `LIBRARIES` where the memory is that of the process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from minigpt.ranges import at_least, check_ranges
from minigpt.transformer.arch import arch_of, ffn_width, shape_of, unit_costs
from minigpt.types import Shape

# A spilled parent is a streamed one whose text waits on the disk while no layer reads it.
Form = Literal["resident", "streamed", "spilled"]
FORMS: tuple[Form, ...] = ("resident", "streamed", "spilled")
# Share of the free memory that a stage may take by its prediction.
MARGIN = 0.9
# Bytes of the process before any model is loaded: torch, transformers and tokenizers.
LIBRARIES = 450_000_000
# Bytes of a parameter in most files.
STORED = 2
# Parents with more parameters are planned in bf16 on an accelerator, where fp32 arithmetic is many times slower.
MOST_IN_FLOAT32 = 2_000_000_000
# Tokens of one pass over dev text on an accelerator, and elsewhere.
DEV_TOKENS, DEV_TOKENS_CPU = 16384, 2048
# Probes that share a sweep over a streamed parent: each keeps its texts in memory, and a sweep reads the parent once.
TOGETHER = 8
# Hidden states of each token that a repair keeps: the two streams and the parent's in front of the layer, what its two
# projections give, and input and output of the attention projection in the pruned network.
REPAIR_STATES = 7
GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Settings of how much of a parent is in memory.

    Attributes:
        streaming: "always" reads the parent layer by layer from the disk for statistics, plan, repair and pruning,
            "never" loads all of it, and "auto" streams what does not fit; the result is the same to the bit.
        text: "disk" lets the text of a streamed parent wait in a file of the build's folder while no layer reads it,
            "memory" in the memory of the process, and "auto" on the disk where it does not fit into memory.
        precision: precision of statistics, repair and pruning: "fp32", "bf16", or "auto" for bf16 where a parent of
            more than two billion parameters is on an accelerator, and fp32 everywhere else.
        healing: "auto" heals by gradient checkpointing, LoRA or QLoRA where the recipe does not fit into the memory
            that the device has; "recipe" trains as the settings of `heal` say, whatever the memory.
        teacher: "resident" keeps the teacher in memory while it teaches, "stored" writes its answers to the disk before
            healing, and "auto" stores them where the teacher does not fit beside the model that is trained.
        teacher_top: tokens that are stored at each place, the likeliest ones; all others share one probability, and
            more tokens take more room on the disk.
    """

    streaming: Literal["auto", "always", "never"] = "auto"
    text: Literal["auto", "memory", "disk"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    healing: Literal["auto", "recipe"] = "auto"
    teacher: Literal["auto", "resident", "stored"] = "auto"
    teacher_top: int = 64

    def __post_init__(self) -> None:
        check_ranges(self, {"teacher_top": at_least(1)}, named="memory.{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Sizes of a model that memory depends on.

    Attributes:
        ends: parameters outside of the layers.
        layer: parameters of one layer.
        layers: number of layers.
        hidden: hidden size.
        width: FFN width (of all experts that a token goes to).
        vocab: size of the vocabulary.
        unquantized: parameters of one layer that are never held in 4 bits: those of experts, and matrices that are
            stored with inputs first.
    """

    ends: int
    layer: int
    layers: int
    hidden: int
    width: int
    vocab: int
    unquantized: int = 0

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.ends + self.layers * self.layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Amounts of text and of arithmetic that a parent gets.

    Attributes:
        tokens: tokens of calibration text.
        batch_tokens: tokens of one forward pass.
        window: longest piece of text, in tokens.
        number_bytes: bytes of a number in the arithmetic.
        accelerated: whether the device has memory of its own.
        repair_tokens: tokens that a repair fits on (0: there is none).
        probe_tokens: tokens of a probe (0: nothing is probed).
        kept: share of the FFN width that is kept, for the repair.
    """

    tokens: int
    batch_tokens: int
    window: int
    number_bytes: int
    accelerated: bool
    repair_tokens: int = 0
    probe_tokens: int = 0
    kept: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Predicted peak of a stage.

    Attributes:
        stage: the stage.
        form: how the parent is held.
        device: bytes on the device that computes.
        host: bytes of the process; the same memory where the device is the processor.
        parts: the summands of the device's bytes, by what takes them.
        disk: bytes of text that waits on the disk.
    """

    stage: str
    form: str
    device: int
    host: int
    parts: dict[str, int]
    disk: int = 0

    def arithmetic(self) -> str:
        """Return the sum in words: "27.6 GB parent + 1.2 GB texts"."""
        return " + ".join(f"{size / GB:.1f} GB {name}" for name, size in self.parts.items() if size >= GB / 20)


def parts_of(config: Any, shape: Shape | None = None) -> Parts:
    """Return the sizes of a model from its config.

    Args:
        config: config of the whole model.
        shape: widths of the model (None: those of the config).
    """
    shape = shape or shape_of(config)
    costs, experts = unit_costs(config), arch_of(config).experts
    active = int(getattr(config, experts.per_token)) if experts is not None else 1
    turned = any(fused.transposed for fused in arch_of(config).fused)
    return Parts(
        ends=costs.fixed + shape.vocab_size * costs.per_token,
        layer=costs.layer(shape),
        layers=shape.layers,
        hidden=int(config.hidden_size),
        width=active * (shape.intermediate_size if experts is None else ffn_width(config)),
        vocab=shape.vocab_size,
        unquantized=costs.layer(shape) if turned else costs.experts(shape),
    )


def pruning_peaks(parts: Parts, work: Work, form: Form) -> tuple[Peak, ...]:
    """Predict the peaks of statistics, probes, and pruning with repair.

    Args:
        parts: sizes of the parent.
        work: what is done to it.
        form: how the parent and its text are held.
    """
    waiting = _Text.of(parts, work, work.tokens, states=1)
    peaks = [_peak("statistics", parts, work, form, _statistics(parts, work), waiting)]
    if work.probe_tokens:
        tokens = DEV_TOKENS if work.accelerated else DEV_TOKENS_CPU
        logits = tokens * parts.vocab * (work.number_bytes + 8)
        probe = replace(work, repair_tokens=work.probe_tokens if work.repair_tokens else 0, kept=1.0)
        # A probe is cut first and reads dev text afterwards, so that one of the two decides.
        extra = max({"logits of dev text": logits}, _repair(parts, probe), key=lambda summands: sum(summands.values()))
        # Of the probes of a sweep one is in the layer; of the others two streams wait, and the dev text.
        others = 0 if form == "resident" else TOGETHER - 1
        states = REPAIR_STATES + 1 + 3 * others
        waiting = _Text.of(parts, probe, work.probe_tokens, states=states, wide=probe.kept, copies=1 + others)
        copies = 1 if form == "resident" else 0
        peak = _peak("probes", parts, work, form, extra, waiting, copies=copies)
        peaks.append(peak)
    waiting = _Text.of(parts, work, work.repair_tokens, states=REPAIR_STATES, wide=work.kept)
    peaks.append(_peak("pruning", parts, work, form, _repair(parts, work), waiting))
    return tuple(peaks)


def _statistics(parts: Parts, work: Work) -> dict[str, int]:
    """Count one batch inside a layer: six states, and 12 bytes of FFN activations (and of hooks' copies) a neuron."""
    batch = min(work.batch_tokens, work.tokens)
    inside = batch * (parts.width * 12 + parts.hidden * (6 * work.number_bytes + 8))
    return {"one batch": inside + batch * min(work.window, batch) * work.number_bytes}


def _repair(parts: Parts, work: Work) -> dict[str, int]:
    """Count the matrices of a least-squares fit of the widest projection, and one batch inside a layer.

    The Gram matrix is held in fp32 and fp64, with its Cholesky factor in fp64; target and solution [hidden, width] in
    fp32 and fp64.
    """
    if not work.repair_tokens:
        return {}
    width = max(round(parts.width * work.kept), parts.hidden)
    batch = min(work.batch_tokens, work.repair_tokens)
    inside = batch * (parts.width * (3 * work.number_bytes + 4) + parts.hidden * (4 * work.number_bytes + 12))
    return {"least squares": 20 * width * width + 24 * parts.hidden * width, "one batch": inside}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """Bytes of text that waits between two layers.

    Attributes:
        states: of hidden states and FFN activations, which may wait on the disk.
        masks: of attention masks, which stay in memory.
    """

    states: int
    masks: int

    @classmethod
    def of(cls, parts: Parts, work: Work, tokens: int, *, states: int, wide: float = 0, copies: int = 1) -> _Text:
        """Count the text of a stage.

        Args:
            parts: sizes of the parent.
            work: what is done to it.
            tokens: tokens of the text.
            states: hidden states of each token.
            wide: FFN activations of each token, as a share of the width.
            copies: texts that have masks of their own.
        """
        return cls(
            states=tokens * work.number_bytes * (states * parts.hidden + round(wide * parts.width)),
            masks=copies * tokens * min(work.window, max(tokens, 1)) * work.number_bytes,
        )


def _peak(
    stage: str, parts: Parts, work: Work, form: Form, inside: dict[str, int], text: _Text, *, copies: int = 0
) -> Peak:
    """Add up a stage: the parent as it is held, what computes, and the text that waits.

    A streamed parent has its ends and one layer in the arithmetic's precision, and the next layer as stored; its text
    waits in the memory of the process, or on the disk if it is spilled. A resident one is there whole (and `copies`
    more), with its text.
    """
    numbers = work.number_bytes
    disk = text.states if form == "spilled" else 0
    waiting = text.states + text.masks - disk
    # Resident statistics go batch by batch: no text waits between layers.
    resident_text = 0 if stage == "statistics" else waiting
    if form == "resident":
        whole = {"parent": parts.parameters * numbers, "copy for probes": copies * parts.parameters * numbers}
        summands = whole | inside | {"texts": resident_text}
        on_host = parts.parameters * numbers
    else:
        layers = 2 if stage == "probes" else 1  # a probe cuts a copy of the layer
        ends = {"embedding and head": parts.ends * numbers}
        summands = ends | {"layer in work": layers * parts.layer * numbers} | inside
        on_host = parts.layer * STORED + text.masks + round((text.states - disk) * _pinned(parts, work))
        if not work.accelerated:
            summands |= {"next layer": parts.layer * STORED, "texts": waiting}
    device = sum(summands.values())
    if not work.accelerated:
        return Peak(
            stage=stage, form=form, device=device + LIBRARIES, host=device + LIBRARIES, parts=summands, disk=disk
        )
    return Peak(stage=stage, form=form, device=device, host=on_host + LIBRARIES, parts=summands, disk=disk)


def _pinned(parts: Parts, work: Work) -> float:
    """Return how much more pinned memory takes than what lies in it: blocks are powers of two.

    The hidden states of one batch are a block.
    """
    block = work.batch_tokens * parts.hidden * work.number_bytes
    return 2 ** (block - 1).bit_length() / block if block > 0 else 1.0


def highest_peak(peaks: tuple[Peak, ...]) -> Peak:
    """Return the stage that needs most of the device."""
    return max(peaks, key=lambda peak: peak.device)


def in_words(size: int) -> str:
    """Return a number of bytes in words: "5.3 GB"."""
    return f"{size / GB:.1f} GB" if size >= GB / 20 else f"{size / 1e6:.1f} MB"
