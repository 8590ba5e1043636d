"""Verdict of a report in plain sentences, computed only from its intervals.

The first sentence says everything that decides: the text of the specialist's own sources, text of other sources of its
field, and a collapse elsewhere. A model is better only where both kinds of text say so.
"""

from __future__ import annotations

from minigpt.report.answers import answer_sentence
from minigpt.report.collapse import losses
from minigpt.report.figures import (
    ENOUGH_ITEMS,
    HEADLINE,
    RECITATION,
    REPEATED,
    TOO_REPEATED,
    coverage_of,
    final_stage,
    metric_of,
    ratio,
    verdict,
    verdict_vs_parent,
    verdict_vs_tuned,
    verdict_vs_twin,
)
from minigpt.report.questions import question_sentence
from minigpt.report.tasks import GENERAL, OTHER, TRAIN, UNSEEN
from minigpt.report.text import number, percent, stage_title
from minigpt.report.wording import WORDS, standing
from minigpt.results import BuildReport, Interval, MetricResult, StageName

OWN_PLACE = "its own sources"
OTHER_PLACE = "other sources of its field"


def sentences(report: BuildReport) -> tuple[str, ...]:
    """Write the verdict of a build, the most decisive sentence first."""
    if final_stage(report).stage == "parent":
        return ()
    candidates = (
        _field(report),
        _repeated(report),
        _tuned(report),
        _twin(report),
        question_sentence(report),
        answer_sentence(report),
        _general(report),
        recitation(report),
    )
    return tuple(sentence for sentence in candidates if sentence)


def _field(report: BuildReport) -> str | None:
    """Compare the specialist with the parent on text of its field, and say in the same sentence what was lost."""
    final, parent_stage = final_stage(report), report.stage("parent")
    ours, parent = _pair(report, report.domain)
    if ours is None or parent is None or parent_stage is None:
        return None
    kept = percent(final.parameters / parent_stage.parameters) if parent_stage.parameters else "?"
    size = report.target if final.stage == "delta" else f"{kept} of the parameters"
    other, other_parent = _pair(report, f"{report.domain}/{OTHER}")
    text = (
        f"{_conclusion(report, ours, other)}: with {size} the {stage_title(final.stage)} needs "
        f"{number(ours.value)} bits per byte on held-out {report.domain} text, {_times(ours, parent)} the parent's "
        f"{number(parent.value)}{_evidence(ours, ours.paired_difference_vs_parent)}{_new_wording(report)}"
    )
    if other is not None and other_parent is not None:
        text += f", and {_times(other, other_parent)} on other sources"
        text += _evidence(other, other.paired_difference_vs_parent, brief=True)
    if lost := losses(report):
        text += f"; it lost general ability: {', '.join(lost)}"
    if other is None:
        text += (
            f". Nothing is known about {OTHER_PLACE}: no text of them was measured. A source with `split: other` in "
            "the domain file is such text"
        )
    return text + "."


def _conclusion(report: BuildReport, ours: MetricResult, other: MetricResult | None) -> str:
    """Write the verdicts on own and other sources as the beginning of a sentence."""
    own = standing(report, ours)
    words = f"{own} on {OWN_PLACE}"
    if _contradicted(report, ours):
        words = f"better than the parent only on repeated wording of {OWN_PLACE}"
    if other is not None:
        elsewhere = standing(report, other)
        link = "but" if own.startswith("better") != elsewhere.startswith("better") else "and"
        words += f" and on {OTHER_PLACE}" if own == elsewhere else f", {link} {elsewhere} on {OTHER_PLACE}"
    return words[:1].upper() + words[1:]


def _contradicted(report: BuildReport, ours: MetricResult) -> bool:
    """Check whether a gain turns into a loss on the documents that the training text does not cover."""
    unseen = metric_of(final_stage(report), f"{report.domain}/{UNSEEN}", HEADLINE)
    if unseen is None or verdict_vs_parent(report, ours) != "better":
        return False
    return verdict_vs_parent(report, unseen) == "worse"


def _new_wording(report: BuildReport) -> str:
    """Write the ratio on the documents that the training text does not cover, where they are some of the documents."""
    unseen, parent = _pair(report, f"{report.domain}/{UNSEEN}")
    coverage = coverage_of(report, report.domain)
    if unseen is None or parent is None or (coverage and coverage.unseen == coverage.documents):
        return ""
    of = f" of {coverage.documents}" if coverage else ""
    return f"; {_times(unseen, parent)} on the {unseen.n}{of} documents with new wording, {standing(report, unseen)}"


def _repeated(report: BuildReport) -> str | None:
    """Warn of a text that stands in the training text to a large part."""
    parts = []
    for task, place in ((report.domain, OWN_PLACE), (f"{report.domain}/{OTHER}", OTHER_PLACE)):
        coverage = coverage_of(report, task)
        if coverage is None or coverage.share < REPEATED:
            continue
        consequence = (
            "the figure measures repeated wording, and no gain is called better"
            if coverage.share > TOO_REPEATED
            else "the figure partly measures repeated wording"
        )
        parts.append(
            f"{percent(coverage.share)} of the 8-word runs of the held-out text of {place} stand in the training text: "
            f"{consequence}"
        )
    return f"Warning: {'; '.join(parts)}." if parts else None


def _tuned(report: BuildReport) -> str | None:
    """Compare the specialist with the tuned parent on text of its field, or say that there is none."""
    tuned = metric_of(report.stage("parent_tuned"), report.domain, HEADLINE)
    ours = metric_of(final_stage(report), report.domain, HEADLINE)
    if tuned is None:
        if report.stage("parent") is None:
            return None
        skipped = (
            f"The tuned parent (the unpruned parent trained on the same text) was skipped by the {report.preset} "
            "preset."
        )
        if report.stage("parent_distilled") is not None:
            return skipped
        return f"{skipped} Without it, this report cannot say how much the text gained and how much the pruning cost."
    if ours is None:
        return None
    prices = _price(report, report.domain)
    if elsewhere := _price(report, f"{report.domain}/{OTHER}", brief=True):
        prices = f"on {OWN_PLACE} {prices}; on {OTHER_PLACE} {elsewhere}"
    return (
        f"Against the tuned parent, trained on the same text ({number(tuned.value)}): {prices}. "
        "This ratio is the price of pruning with this recipe."
    )


def _twin(report: BuildReport) -> str | None:
    """Compare the specialist with the distilled twin on text of its field; None where there is no twin."""
    places = {report.domain: OWN_PLACE, f"{report.domain}/{OTHER}": OTHER_PLACE}
    parts = [
        f"on {place} {price}"
        for task, place in places.items()
        if (price := _price(report, task, against="parent_distilled", brief=task != report.domain))
    ]
    if not parts:
        return None
    return (
        "Against the distilled twin, the unpruned parent with the specialist's own training: "
        f"{'; '.join(parts)}. This ratio is the price of pruning alone."
    )


def _price(
    report: BuildReport, task: str, *, against: StageName = "parent_tuned", of: str = "", brief: bool = False
) -> str:
    """Write ratio (`of` a model that is named) and verdict against a trained control; empty where not measured."""
    ours, control = _pair(report, task, against)
    if ours is None or control is None:
        return ""
    if against == "parent_distilled":
        judgement, paired = verdict_vs_twin(report, ours), ours.paired_difference_vs_distilled
    else:
        judgement, paired = verdict_vs_tuned(report, ours), ours.paired_difference_vs_tuned
    words = _unpaired(ours, control) if judgement is None else judgement
    if judgement == "repeated wording":
        words = WORDS[judgement]
    evidence = _evidence(ours, paired, brief=brief) if paired else ""
    return f"{_times(ours, control)}{of}, {words}{evidence}"


def _unpaired(ours: MetricResult, control: MetricResult) -> str:
    """Compare with a trained control without pairs, more cautiously, where a report has no paired difference."""
    relation = verdict(ours, control)
    return {
        "not distinguishable": "the unpaired intervals overlap",
        "too few to tell": f"{relation} (n={ours.n})",
    }.get(relation, f"{relation} (the unpaired intervals do not overlap)")


def _general(report: BuildReport) -> str | None:
    """Compare the specialist with both parents on general text, and say whether such text was trained on."""
    task, other = GENERAL, f"{GENERAL}/{OTHER}"
    parts = [part for part in (_general_text(report, task), _general_text(report, other)) if part]
    if not parts:
        return None
    results = [metric_of(final_stage(report), name, HEADLINE) for name in (task, other)]
    worse = any(result and verdict_vs_parent(report, result) == "worse" for result in results)
    return "; ".join([parts[0], *parts[1:]]) + (". Outside its domain, use the parent." if worse else ".")


def _general_text(report: BuildReport, task: str) -> str:
    """Write both ratios on one general text; empty where it was not measured."""
    ours, parent = _pair(report, task)
    if ours is None or parent is None:
        return ""
    text = (
        f"{_general_place(report, task)}: {_times(ours, parent)} the parent's bits per byte, {standing(report, ours)}"
    )
    price = _price(report, task, of=" the tuned parent's", brief=True)
    return f"{text}, and {price}" if price else text


def _general_place(report: BuildReport, task: str) -> str:
    """Name a general text at the beginning of a clause, with whether such text was trained on."""
    if task != GENERAL:
        return "on general text of sources that nothing was trained on"
    if report.general_share is None:
        return "On general text"
    if report.general_share == 0:
        return "On general text (none was trained on)"
    return "On general text (of a kind that tuning and healing trained on, and the parent did not)"


def recitation(report: BuildReport) -> str | None:
    """Say how often the specialist continues training text verbatim, beside the parent and beside held-out text."""
    trained = _recited(report, f"{report.domain}/{TRAIN}", "training passages")
    if trained is None:
        return None
    held_out = _recited(report, report.domain, "held-out passages")
    shares = ", and ".join(part for part in (trained, held_out) if part)
    return f"Recitation: given the beginning, it continues {shares} verbatim before its first error."


def _recited(report: BuildReport, task: str, passages: str) -> str | None:
    """Write the share of what follows in the passages of one task that specialist and parent recite."""
    ours, parent = _pair(report, task, metric=RECITATION)
    if ours is None:
        return None
    beside = f" (the parent {percent(parent.value)})" if parent else ""
    return f"{percent(ours.value)} of the text of {ours.n:,} {passages}{beside}"


def _pair(
    report: BuildReport, task: str, against: StageName = "parent", metric: str = HEADLINE
) -> tuple[MetricResult | None, MetricResult | None]:
    """Find a result of the final stage and that of the parent or of another control."""
    return metric_of(final_stage(report), task, metric), metric_of(report.stage(against), task, metric)


def _times(ours: MetricResult, other: MetricResult) -> str:
    """Write the ratio of two results."""
    value = ratio(ours, other)
    return "–" if value is None else f"{value:.3f}×"


def _evidence(ours: MetricResult, paired: Interval | None, *, brief: bool = False) -> str:
    """Write the interval on which a verdict rests, with typographic minus signs."""
    if ours.n < ENOUGH_ITEMS:
        return f" (n={ours.n})"
    if paired is None:
        return " (unpaired intervals)"
    span = f"{paired.low:.3f} to {paired.high:.3f}".replace("-", "−")
    return f" (paired {span})" if brief else f" (paired 95 % interval of the difference {span})"
