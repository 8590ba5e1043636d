"""Choice of how a parent is held while it is planned and pruned: the first form that fits, or why none does."""

from __future__ import annotations

from dataclasses import replace

from minigpt.errors import ConfigError
from minigpt.planning.memory import (
    FORMS,
    GB,
    MARGIN,
    Form,
    MemorySettings,
    Parts,
    Peak,
    Work,
    highest_peak,
    in_words,
    pruning_peaks,
)


def choose_form(
    parts: Parts,
    work: Work,
    settings: MemorySettings,
    *,
    free: int,
    total: int,
    streams: bool,
    method: str,
    host: int | None = None,
) -> tuple[Form, Peak]:
    """Choose how a parent is held: resident if that fits, else streamed, its text on the disk if that does not fit.

    Args:
        parts: sizes of the parent.
        work: what is done to it.
        settings: "always", "never", "memory" and "disk" leave no choice.
        free: bytes that are free on the device that computes.
        total: bytes that the device has.
        streams: whether method and files can be streamed.
        method: name of the method, for messages.
        host: bytes that are free for the process (None: as many as it needs).

    Returns:
        The form, and the highest of its peaks; bytes on the disk are those of the stage that needs most.

    Raises:
        ConfigError: nothing fits; the message has the arithmetic and the nearest thing that does.
    """
    if settings.streaming == "always" and not streams:
        raise ConfigError(
            f"Method {method} needs the whole parent in memory and cannot be streamed; choose a method that ranks by "
            "statistics (contextual, wanda, shortgpt ...), or set memory.streaming=auto."
        )
    peaks = {form: pruning_peaks(parts, work, form) for form in FORMS}
    fits = highest_peak(peaks["resident"]).device <= MARGIN * free
    form: Form = "resident"
    if streams and (settings.streaming == "always" or (settings.streaming == "auto" and not fits)):
        form = _streamed_form(peaks["streamed"], settings, free, host)
    highest = highest_peak(peaks[form])
    if highest.device > total and settings.streaming != "never":
        raise ConfigError(_nothing_fits(parts, work, highest, total, form if streams else None, method=method))
    return form, replace(highest, disk=max(peak.disk for peak in peaks[form]))


def _streamed_form(peaks: tuple[Peak, ...], settings: MemorySettings, free: int, host: int | None) -> Form:
    """Choose where the text of a streamed parent waits: on the disk if the settings say so or memory lacks the room."""
    tight = highest_peak(peaks).device > MARGIN * free
    if host is not None:
        tight = tight or max(peak.host for peak in peaks) > MARGIN * host
    return "spilled" if settings.text == "disk" or (settings.text == "auto" and tight) else "streamed"


def _nothing_fits(parts: Parts, work: Work, peak: Peak, total: int, form: Form | None, *, method: str) -> str:
    """Explain why nothing fits, with the arithmetic and the nearest thing that does.

    Args:
        parts: sizes of the parent.
        work: what is done to it.
        peak: the peak that does not fit.
        total: bytes that the device has.
        form: form of streaming that was tried (None: the method or the files cannot be streamed).
        method: name of the method.
    """
    sums = f"{peak.device / GB:.1f} GB ({peak.arithmetic()})"
    reason = f"The stage {peak.stage} of this parent, {peak.form}, needs {sums}; the device has {total / GB:.1f} GB. "
    if form is None:
        small = highest_peak(pruning_peaks(parts, work, "streamed"))
        return (
            f"{reason}Method {method} cannot be streamed; contextual, wanda, shortgpt and others can, in "
            f"{small.device / GB:.1f} GB."
        )
    smaller = work
    while smaller.batch_tokens > 512 and highest_peak(pruning_peaks(parts, smaller, form)).device > total:
        half = smaller.batch_tokens // 2
        most = 8 * half
        smaller = replace(
            smaller, batch_tokens=half, tokens=min(work.tokens, most), repair_tokens=min(work.repair_tokens, most)
        )
    nearest = highest_peak(pruning_peaks(parts, smaller, form))
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
    way = "resident" if form == "resident" else "streamed"
    spilled = f", {in_words(peak.disk)} of text on the disk" if peak.disk else ""
    memory = f"{peak.device / GB:.1f} of {total / GB:.0f} GB"
    return f"{size}: {way} statistics and pruning{spilled}, {memory} (most in {peak.stage})"
