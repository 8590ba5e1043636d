"""Records of what was measured: metrics with intervals, trainings, stages, reports and entries of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from minigpt.costs import Cost
from minigpt.exchanges import TaskExchanges
from minigpt.fits import Fit
from minigpt.forms import ConditionalForm
from minigpt.types import Attribution, Shape

StageName = Literal[
    "parent", "parent_tuned", "parent_distilled", "pruned", "healed", "delta", "conditional", "exported"
]

SCHEMA_VERSION = 1  # version of the fields of report.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its 95 % interval.

    Attributes:
        value: The value that was measured.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One number of a report, with its 95 % interval.

    Attributes:
        task: Text or questions that were measured: a domain, `general`, or `<domain>/<question set>`.
        metric: Name of the metric, e.g. `bits_per_byte`.
        value: The value that was measured.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of documents or questions that were measured.
        chance: Value that guessing gives, for labels the commonest one every time; None if there is no such value.
        higher_is_better: True if a higher value is better.
        paired_difference_vs_parent: Paired difference to the parent; None if there is none.
        paired_difference_vs_tuned: Paired difference to the tuned parent; None if there is none.
        effective_n: Number of documents of equal size that the text is worth, 1 / sum of squared shares of the bytes;
            the number of questions for questions. None in reports of older versions.
        paired_difference_vs_distilled: Paired difference to the distilled twin; None if there is none.
        paired_difference_vs_dense: Paired difference of a conditional form to its dense model; None elsewhere.
        paired_ratio_vs_parent: Paired ratio to the parent; None if there is none, if either value is zero, and in
            reports of older versions.
    """

    task: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    chance: float | None
    higher_is_better: bool
    paired_difference_vs_parent: Interval | None = None
    paired_difference_vs_tuned: Interval | None = None
    effective_n: float | None = None
    paired_difference_vs_distilled: Interval | None = None
    paired_difference_vs_dense: Interval | None = None
    paired_ratio_vs_parent: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRun:
    """One of several runs of which the best by dev loss was kept.

    Attributes:
        text: Text that the run read.
        optimizer: Name of the optimizer.
        learning_rate: Peak learning rate.
        planned_steps: Steps over which the learning rate was to fall.
        steps: Steps that were taken.
        tokens: Tokens that were trained on, repeats included.
        best_step: Step with the lowest dev loss.
        dev_loss: Lowest dev loss; None if there is none.
    """

    text: str
    optimizer: str
    learning_rate: float
    planned_steps: int
    steps: int
    tokens: int
    best_step: int
    dev_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The training that a stage received.

    Attributes:
        tokens: Tokens that were trained on, repeats included; of several runs those of the run that read the most.
        steps: Number of optimizer steps of that run.
        learning_rate: Peak learning rate of the run whose weights were kept.
        best_step: Step whose weights were kept.
        seconds: Time that the run with the most tokens took.
        recipe: Description of the recipe.
        dev_losses: Pairs (step, loss on the dev text) of the run whose weights were kept.
        kept_tokens: Tokens of the run whose weights were kept; None if there was one run only.
        kept_steps: Steps of the run whose weights were kept; None if there was one run only.
        runs: All runs, where there were several.
    """

    tokens: int
    steps: int
    learning_rate: float
    best_step: int
    seconds: float
    recipe: str
    dev_losses: tuple[tuple[int, float], ...] = ()
    kept_tokens: int | None = None
    kept_steps: int | None = None
    runs: tuple[TrialRun, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """A model at one stage of the build, and everything that was measured on it.

    Attributes:
        stage: Name of the stage.
        parameters: Number of parameters, tied weights counted once.
        bytes: Size of its weights on disk, in bytes.
        seconds: Time that the stage took.
        metrics: Numbers that were measured on the model.
        training: Training that the stage received; None if it received none.
        sample: Text that the model generated from the report's `sample_prompt`.
        samples: Texts that the model generated from the report's `sample_prompts`, in their order.
        opening: Text of the token that stood before every text that was measured, e.g. a line end; the model's best
            on dev text. Empty if it is not known (reports of older versions).
        share: Share of the report's texts and questions that the stage was measured on, about. Below 1 its values
            are not comparable with those of other stages; its paired differences are, being those of the same part.
        conditional: Conditional layers of the stage `conditional`; None elsewhere.
    """

    stage: StageName
    parameters: int
    bytes: int
    seconds: float
    metrics: tuple[MetricResult, ...]
    training: Training | None = None
    sample: str = ""
    samples: tuple[str, ...] = ()
    opening: str = ""
    share: float = 1.0
    conditional: ConditionalForm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Part of a measured text that stands in the training text already.

    Attributes:
        task: Text that was measured: a domain or `general`, or one of these with `/other`.
        share: Share of its 8-word runs that stand anywhere in the training text, sampled text included.
        documents: Number of its documents.
        unseen: Number of the documents of which less than 2 % of the runs stand there. Those of the domain's own text
            are also the task `<domain>/unseen`, where they are 3 at least and not all.
    """

    task: str
    share: float
    documents: int
    unseen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketRound:
    """A round of a lottery ticket: one training of what was left, before the next pruning.

    Attributes:
        number: Number of the round, from 0; round 0 trains everything.
        remaining: Share of the decoder layers' weights that was trained.
        dev_bits_per_byte: Bits per byte on dev text after the training.
        steps: Optimizer steps of the training.
        tokens: Tokens of the training.
        distance: Share of the weights on which the mask differs from that of the round before.
        seconds: Time that the round took.
    """

    number: int
    remaining: float
    dev_bits_per_byte: float
    steps: int
    tokens: int
    distance: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """Everything that a build measured, with what is needed to check it (docs/reference/report.md).

    Attributes:
        domain: Name of the domain.
        base_model: Reference of the parent.
        base_precision: Precision of the parent's weights, e.g. `Q4_1 dequantized`.
        method: Name of the method that ranked the units.
        preset: Name of the preset.
        target: Target size as the user gave it.
        seed: Seed of the build.
        versions: Versions of minigpt, Python and the libraries.
        device: Device that the build ran on.
        seconds: Time of making and measuring the stages; `cost` has that of all steps.
        stages: Reports of the stages, in order.
        shape_before: Widths of the parent.
        shape_after: Widths of the specialist.
        kept_per_layer: Units kept in each layer of the *parent*, by axis (`ffn`, `kv_groups`); 0 for a removed layer.
        removed_parameters: Parameters that each kind of pruning removed.
        corpus_counts: Passages and questions that each cleaning step read or dropped.
        attributions: Sources of the text.
        coverage: Coverage of the measured texts by the training text.
        personal: Numbers of what looks like personal data in the training text, by kind (docs/guide/privacy.md).
        description: Sentences of the domain file that say what its texts are.
        general_share: General text in the real training text, as a share of the domain's; None if it is not known.
        overrides: Settings that differ from the preset, as `--set` takes them.
        sample_prompt: Beginning of the text that each stage continues in its `sample`.
        sample_prompts: Beginnings of held-out passages that each stage continues in its `samples`.
        exchanges: Answers won and lost against the parent, by task.
        rounds: Rounds of training and pruning of the method `lottery`, in order; empty for other methods.
        cost: Time and energy of the steps, and the price of an hour; None in reports of older versions.
        fit: Limits of a device that the build was fitted to (`--fit`), and what came out; None for other builds.
        notes: Remarks that help to read the numbers.
        fingerprints: Hashes of what was measured, by task and for `vocabulary`; only numbers with equal ones compare.
        schema_version: Version of these fields.
    """

    domain: str
    base_model: str
    base_precision: str
    method: str
    preset: str
    target: str
    seed: int
    versions: Mapping[str, str]
    device: str
    seconds: float
    stages: tuple[StageReport, ...]
    shape_before: Shape
    shape_after: Shape
    kept_per_layer: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed_parameters: Mapping[str, int] = field(default_factory=dict)
    corpus_counts: Mapping[str, int] = field(default_factory=dict)
    attributions: tuple[Attribution, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    personal: Mapping[str, int] = field(default_factory=dict)
    description: str = ""
    general_share: float | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    sample_prompt: str = ""
    sample_prompts: tuple[str, ...] = ()
    exchanges: tuple[TaskExchanges, ...] = ()
    rounds: tuple[TicketRound, ...] = ()
    cost: Cost | None = None
    fit: Fit | None = None
    notes: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def stage(self, name: StageName) -> StageReport | None:
        """Return the report of one stage, or None if the build skipped it."""
        return next((stage for stage in self.stages if stage.stage == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A finished model in the catalog.

    Attributes:
        id: Name of the model in the catalog.
        domain: Name of its domain.
        base_model: Reference of its parent.
        path: Build folder of the model.
        created: Time of the build, in ISO 8601.
        parameters: Number of parameters.
        bytes: Size of its weights on disk, in bytes.
        headline: Its main numbers, by name.
        hashes: SHA-256 of its files, by their path under the build folder.
    """

    id: str
    domain: str
    base_model: str
    path: str
    created: str
    parameters: int
    bytes: int
    headline: Mapping[str, float]
    hashes: Mapping[str, str]
