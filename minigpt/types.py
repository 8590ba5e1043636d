"""Records that the packages of minigpt pass to each other: the vocabulary of the project.

They are plain data without torch. Tensors travel in :class:`minigpt.transformer.stats.ActivationStats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Ints = tuple[int, ...]
StageName = Literal["parent", "parent_tuned", "pruned", "healed", "exported"]
Split = Literal["calibration", "train", "dev", "heldout"]
AXES = ("vocab", "ffn", "kv_groups", "layers")
"""The axes that a plan can cut: tokens, FFN neurons, KV groups with their query heads, and whole layers."""
PruneKind = Literal["linear", "activation", "embedding", "layers"]

SCHEMA_VERSION = 1  # version of the fields of report.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One passage of text. Passages with the same `source` belong to one document and never go to different splits.

    Attributes:
        text: The text of the passage.
        source: Name of the document that the passage belongs to.
        license: License of the text.
    """

    text: str
    source: str
    license: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One multiple-choice question.

    Attributes:
        question: Text of the question.
        choices: Texts of the options.
        answer: Index of the right option in `choices`.
        source: Name of the document that holds the answer; empty if no document of the corpus does.
        subject: Subject of the question, as its data names it.
        license: License of the question.
    """

    question: str
    choices: tuple[str, ...]
    answer: int
    source: str = ""
    subject: str = ""
    license: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """Questions that are scored as one number.

    Attributes:
        name: Name of the set.
        questions: The questions.
        role: A `dev` set may guide choices; a `test` set only measures.
        derived: True if the questions were made from data by a reader.
        seen: True if the answering text was trained on (the set tests memory), False if not, None if not known.
        note: Explanation for the reader of the report, e.g. how the questions were made.
    """

    name: str
    questions: tuple[Question, ...]
    role: Literal["dev", "test"] = "test"
    derived: bool = False
    seen: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The origin of a part of the text, as the model card cites it.

    Attributes:
        name: Name of the source in the domain file.
        license: License of its text.
        citation: Text that cites it.
        documents: Number of its documents in the corpus.
        bytes: Size of its text in the corpus, in bytes of UTF-8.
    """

    name: str
    license: str
    citation: str
    documents: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A domain's text in four disjoint splits, and its questions. No document is in two splits.

    Attributes:
        domain: Name of the domain.
        calibration: Passages that the importance of units is measured on.
        train: Passages that models are trained on.
        dev: Passages that guide choices, e.g. of a learning rate.
        heldout: Passages that only measure.
        questions: The domain's question sets.
        attributions: Sources that the text came from.
        counts: Passages that each cleaning step read or dropped, e.g. {"read": 120, "exact_duplicates": 3}.
        fingerprint: Hash of the whole content.
    """

    domain: str
    calibration: tuple[Document, ...]
    train: tuple[Document, ...]
    dev: tuple[Document, ...]
    heldout: tuple[Document, ...]
    questions: tuple[QuestionSet, ...] = ()
    attributions: tuple[Attribution, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The widths of a decoder, as its Hugging Face config gives them.

    Attributes:
        layers: Number of layers.
        intermediate_size: Number of FFN neurons in a layer.
        kv_groups: Number of key/value heads in a layer.
        vocab_size: Number of rows of the embedding.
    """

    layers: int
    intermediate_size: int
    kv_groups: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """The units that are kept, as sorted indices into the parent; every layer keeps equally many, of its own choice.

    Attributes:
        base_model: Reference of the parent.
        method: Name of the method that ranked the units.
        seed: Seed of the build.
        layers: Parent layers that are kept.
        ffn: FFN neurons that are kept, one tuple for each kept layer.
        kv_groups: KV groups that are kept, one tuple for each kept layer.
        tokens: Token ids of the parent that are kept; None if the vocabulary is not cut.
        parameters_before: Parameters of the parent.
        parameters_after: Parameters of the pruned model.
        target_parameters: Parameters that were asked for; a method that removes layers meets them to within a layer.
        removed_parameters: Parameters that each kind of pruning removes.
        predicted_cost: Cost that the sensitivity predicts for each axis.
        sensitivity: Description of the sensitivity that divided the budget among the axes.
        fingerprints: Hashes of the plan's inputs, by name.
        merges: Merges of layers, in order, each (host, folded, ...) in parent indices; only the host is kept.
    """

    base_model: str
    method: str
    seed: int
    layers: Ints
    ffn: tuple[Ints, ...]
    kv_groups: tuple[Ints, ...]
    tokens: Ints | None = None
    parameters_before: int = 0
    parameters_after: int = 0
    target_parameters: int = 0
    removed_parameters: Mapping[str, int] = field(default_factory=dict)
    predicted_cost: Mapping[str, float] = field(default_factory=dict)
    sensitivity: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    merges: tuple[Ints, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its 95 % bootstrap interval.

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
    """One number of a report, with its 95 % bootstrap interval.

    Attributes:
        task: Text or questions that were measured: a domain, `general`, or `<domain>/<question set>`.
        metric: Name of the metric, e.g. `bits_per_byte`.
        value: The value that was measured.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of documents or questions that were measured.
        chance: Value that guessing gives; None if the metric has no such value.
        higher_is_better: True if a higher value is better.
        paired_difference_vs_parent: Paired difference to the parent; None if there is none.
        paired_difference_vs_tuned: Paired difference to the tuned parent; None if there is none.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The training that a stage received.

    Attributes:
        tokens: Tokens that were trained on, repeats included.
        steps: Number of optimizer steps.
        learning_rate: Peak learning rate.
        best_step: Step whose weights were kept.
        seconds: Time that the training took.
        recipe: Description of the recipe.
        dev_losses: Pairs (step, loss on the dev text).
    """

    tokens: int
    steps: int
    learning_rate: float
    best_step: int
    seconds: float
    recipe: str
    dev_losses: tuple[tuple[int, float], ...] = ()


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
    """

    stage: StageName
    parameters: int
    bytes: int
    seconds: float
    metrics: tuple[MetricResult, ...]
    training: Training | None = None
    sample: str = ""


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
        seconds: Time that the whole build took.
        stages: Reports of the stages, in order.
        shape_before: Widths of the parent.
        shape_after: Widths of the specialist.
        kept_per_layer: Units kept in each layer of the *parent*, by axis (`ffn`, `kv_groups`); 0 for a removed layer.
        removed_parameters: Parameters that each kind of pruning removed.
        corpus_counts: Passages and questions that each cleaning step read or dropped.
        attributions: Sources of the text.
        sample_prompt: Beginning of the text that each stage continues in its `sample`.
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
    sample_prompt: str = ""
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
