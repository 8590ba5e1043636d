"""The part of a build that a size and a method decide: plan, cut, heal, and measure what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigpt.evaluation import ItemScores
from minigpt.evaluation.part import part_of
from minigpt.evaluation.suite import without_answers
from minigpt.pipeline.controls import compare_with_controls
from minigpt.pipeline.cutting import prune
from minigpt.pipeline.groundwork import Groundwork
from minigpt.pipeline.healing import heal
from minigpt.pipeline.measure import measure
from minigpt.pipeline.paper_form import PaperFormRecord, paper_form_stage
from minigpt.pipeline.plan import plan_pruning
from minigpt.pipeline.rounds import ticket_of
from minigpt.pipeline.run import Run
from minigpt.results import StageReport, TicketRound
from minigpt.types import PrunePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialist:
    """The result of planning, pruning and healing.

    Attributes:
        plan: the units that were kept.
        stages: a stage of the report for each measured model: pruned, healed.
        scores: the items of these models.
        model: the folder of the last model.
        rounds: rounds of a lottery ticket.
        paper_form: the record of a paper form, which exists in memory only; `model` is then the model it was made from.
    """

    plan: PrunePlan
    stages: tuple[StageReport, ...]
    scores: tuple[ItemScores, ...]
    model: Path
    rounds: tuple[TicketRound, ...] = ()
    paper_form: PaperFormRecord | None = None


def specialize(run: Run, ground: Groundwork, *, healing: bool = True) -> Specialist:
    """Plan, prune and measure; with `healing`, heal and measure again; a paper form is only evaluated.

    Args:
        run: the build.
        ground: corpora, parent, text and controls.
        healing: whether to heal; a sweep may stop before it.
    """
    controls, source = ground.controls, ground.controls.source
    if run.options.masked:
        form, stage, items = paper_form_stage(run, ground)
        return Specialist(plan=form.plan, stages=(stage,), scores=(items,), model=source.path, paper_form=form)
    ticket = ticket_of(run, ground.parent, ground.planning, ground.text, source)
    planned = plan_pruning(run, ground.parent, ground.corpora.domain.fingerprint, ground.planning, source, ticket)
    plan, rounds = planned.plan, ticket.rounds if ticket is not None else ()
    same = plan.tokens is None
    pruned, seconds = prune(run, ground.planning, planned, source)
    # A sweep compares its points before healing, too.
    share = run.settings.evaluation.pruned_share if healing and run.shared is None else 1.0
    # Nobody uses this model, and decoding takes longest.
    part = without_answers(part_of(ground.suite, share, seed=run.options.seed))
    before = measure(run, part, "pruned", pruned, share=share)
    first = compare_with_controls(controls, before, same_vocabulary=same, seconds=seconds + planned.seconds)
    if not healing:
        return Specialist(plan=plan, stages=(first,), scores=(before.scores,), model=pruned.path, rounds=rounds)
    healed = heal(run, ground.corpora, ground.parent, ground.text, source, plan, pruned)
    after = measure(run, ground.suite, "healed", healed.model)
    # The tuned parent's stage holds the time of sampling; a point of a sweep does not pay for what all points share.
    shared = run.settings.tuned_parent or run.shared is not None
    seconds = healed.seconds + (0.0 if shared else ground.text.sampling_seconds)
    last = compare_with_controls(controls, after, same_vocabulary=same, seconds=seconds, training=healed.training)
    return Specialist(
        plan=plan,
        stages=(first, last),
        scores=(before.scores, after.scores),
        model=healed.model.path,
        rounds=rounds,
    )
