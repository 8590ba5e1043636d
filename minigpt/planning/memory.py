"""Memory of the stages that plan and prune: predicted from the shape before the work starts, so that it fits.

Everything is arithmetic on numbers of parameters and tokens. Bytes are those of tensors at the peak of a stage; what
the libraries themselves take is `LIBRARIES` where the memory is that of the process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from minigpt.errors import ConfigError
from minigpt.ranges import at_least, check_ranges
from minigpt.transformer.arch import arch_of, ffn_width, shape_of, unit_costs
from minigpt.types import Shape

Form = Literal["resident", "streamed"]
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
GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Settings of how much of a parent is in memory.

    Attributes:
        streaming: "always" reads the parent layer by layer from the disk for statistics, plan, repair and pruning,
            "never" loads all of it, and "auto" streams what does not fit; the result is the same to the bit.
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
    """

    ends: int
    layer: int
    layers: int
    hidden: int
    width: int
    vocab: int

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
    """

    stage: str
    form: str
    device: int
    host: int
    parts: dict[str, int]

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
    return Parts(
        ends=costs.fixed + shape.vocab_size * costs.per_token,
        layer=costs.layer(shape),
        layers=shape.layers,
        hidden=int(config.hidden_size),
        width=active * (shape.intermediate_size if experts is None else ffn_width(config)),
        vocab=shape.vocab_size,
    )


def pruning_peaks(parts: Parts, work: Work, form: Form) -> tuple[Peak, ...]:
    """Predict the peaks of statistics, probes, and pruning with repair.

    Args:
        parts: sizes of the parent.
        work: what is done to it.
        form: whether the parent is resident or streamed.
    """
    peaks = [_peak("statistics", parts, work, form, _statistics(parts, work), _waiting(parts, work, work.tokens, 1, 0))]
    if work.probe_tokens:
        tokens = DEV_TOKENS if work.accelerated else DEV_TOKENS_CPU
        logits = tokens * parts.vocab * (work.number_bytes + 8)
        probe = replace(work, repair_tokens=work.probe_tokens if work.repair_tokens else 0, kept=1.0)
        # A probe is cut first and reads dev text afterwards, so that one of the two decides.
        extra = max({"logits of dev text": logits}, _repair(parts, probe), key=lambda summands: sum(summands.values()))
        waiting = _waiting(parts, probe, work.probe_tokens, 7, 2) * (TOGETHER if form == "streamed" else 1)
        copies = 1 if form == "resident" else 0
        peak = _peak("probes", parts, work, form, extra, waiting, copies=copies)
        peaks.append(peak)
    waiting = _waiting(parts, work, work.repair_tokens, 7, 2)
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


def _waiting(parts: Parts, work: Work, tokens: int, states: int, wide: int) -> int:
    """Count text that waits between two layers: hidden states and FFN activations of each token, and masks."""
    masks = tokens * min(work.window, max(tokens, 1)) * work.number_bytes
    return tokens * work.number_bytes * (states * parts.hidden + wide * parts.width) + masks


def _peak(
    stage: str, parts: Parts, work: Work, form: Form, inside: dict[str, int], waiting: int, *, copies: int = 0
) -> Peak:
    """Add up a stage: the parent as it is held, what computes, and the text that waits.

    A streamed parent has its ends and one layer in the arithmetic's precision, and the next layer as stored; its text
    waits in the memory of the process. A resident one is there whole (and `copies` more), with its text.
    """
    numbers = work.number_bytes
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
        on_host = parts.layer * STORED + waiting
        if not work.accelerated:
            # The file that is read is mapped meanwhile; it is read before the layer in work is through.
            mapped = max(0, parts.layer * STORED - sum(inside.values()))
            summands |= {"next layer": parts.layer * STORED, "its file": mapped, "texts": waiting}
    device = sum(summands.values())
    if not work.accelerated:
        return Peak(stage=stage, form=form, device=device + LIBRARIES, host=device + LIBRARIES, parts=summands)
    return Peak(stage=stage, form=form, device=device, host=on_host + LIBRARIES, parts=summands)


def choose_form(
    parts: Parts, work: Work, settings: MemorySettings, *, free: int, total: int, streams: bool, method: str
) -> tuple[Form, Peak]:
    """Choose how a parent is held: resident if that fits, else streamed.

    Args:
        parts: sizes of the parent.
        work: what is done to it.
        settings: "always" and "never" leave no choice.
        free: bytes that are free on the device that computes.
        total: bytes that the device has.
        streams: whether method and files can be streamed.
        method: name of the method, for messages.

    Returns:
        The form, and the highest of its peaks.

    Raises:
        ConfigError: nothing fits; the message has the arithmetic and the nearest thing that does.
    """
    if settings.streaming == "always" and not streams:
        raise ConfigError(
            f"Method {method} needs the whole parent in memory and cannot be streamed; choose a method that ranks by "
            "statistics (contextual, wanda, shortgpt ...), or set memory.streaming=auto."
        )
    highest = {form: highest_peak(pruning_peaks(parts, work, form)) for form in ("resident", "streamed")}
    fits = highest["resident"].device <= MARGIN * free
    form: Form = "streamed" if settings.streaming == "always" else "resident"
    if settings.streaming == "auto" and not fits and streams:
        form = "streamed"
    if highest[form].device > total and settings.streaming != "never":
        raise ConfigError(_nothing_fits(parts, work, highest[form], total, streams=streams, method=method))
    return form, highest[form]


def highest_peak(peaks: tuple[Peak, ...]) -> Peak:
    """Return the stage that needs most of the device."""
    return max(peaks, key=lambda peak: peak.device)


def _nothing_fits(parts: Parts, work: Work, peak: Peak, total: int, *, streams: bool, method: str) -> str:
    """Explain why nothing fits, with the arithmetic and the nearest thing that does."""
    sums = f"{peak.device / GB:.1f} GB ({peak.arithmetic()})"
    reason = f"The stage {peak.stage} of this parent, {peak.form}, needs {sums}; the device has {total / GB:.1f} GB. "
    if not streams:
        small = highest_peak(pruning_peaks(parts, work, "streamed"))
        return (
            f"{reason}Method {method} cannot be streamed; contextual, wanda, shortgpt and others can, in "
            f"{small.device / GB:.1f} GB."
        )
    smaller = work
    while smaller.batch_tokens > 512 and highest_peak(pruning_peaks(parts, smaller, "streamed")).device > total:
        half = smaller.batch_tokens // 2
        most = 8 * half
        smaller = replace(
            smaller, batch_tokens=half, tokens=min(work.tokens, most), repair_tokens=min(work.repair_tokens, most)
        )
    nearest = highest_peak(pruning_peaks(parts, smaller, "streamed"))
    if nearest.device > total:
        return f"{reason}Choose a smaller parent, or a device with {nearest.device / GB:.1f} GB."
    changes = {
        "evaluation.batch_tokens": (work.batch_tokens, smaller.batch_tokens),
        "plan.tokens": (work.tokens, smaller.tokens),
        "repair.tokens": (work.repair_tokens, smaller.repair_tokens),
    }
    settings = " ".join(f"--set {name}={after}" for name, (before, after) in changes.items() if after != before)
    return f"{reason}{settings} needs {nearest.device / GB:.1f} GB."


def describe(parts: Parts, form: Form, peak: Peak, *, total: int) -> str:
    """Return one line about a choice: "6.9B: streamed statistics and pruning, 4.1 of 80 GB"."""
    size = f"{parts.parameters / 1e9:.1f}B" if parts.parameters >= 1e9 else f"{parts.parameters / 1e6:.0f}M"
    return (
        f"{size}: {form} statistics and pruning, {peak.device / GB:.1f} of {total / GB:.0f} GB (most in {peak.stage})"
    )
