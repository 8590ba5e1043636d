"""The project's vocabulary: frozen records that cross the borders between stages.

Everything here is plain data without torch, so that the command line, the catalog and the planner can use it for
free. Tensors travel in :class:`minigpt.transformer.stats.ActivationStats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Ints = tuple[int, ...]
StageName = Literal["parent", "parent_tuned", "pruned", "healed", "exported"]
Split = Literal["calibration", "train", "dev", "heldout"]
AXES = ("vocab", "ffn", "kv_groups", "layers")
"""What a plan may cut: tokens, FFN neurons, KV groups with their query heads, whole layers."""
PruneKind = Literal["linear", "activation", "embedding", "layers"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One passage of text. Passages with the same `source` belong to one document and are never split apart."""

    text: str
    source: str
    license: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A multiple-choice question; `answer` indexes `choices`."""

    question: str
    choices: tuple[str, ...]
    answer: int
    source: str = ""
    subject: str = ""
    license: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """Questions scored as one number. `derived` says they were made from data, `note` says how.

    `seen` tells whether the text that answers them was in the training split (None: not known), so that memory of
    the text and knowledge of the domain never share a number.
    """

    name: str
    questions: tuple[Question, ...]
    role: Literal["dev", "test"] = "test"
    derived: bool = False
    seen: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where text came from: goes into the model card."""

    name: str
    license: str
    citation: str
    documents: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A domain's text in four disjoint splits and its questions. No document stands in two splits.

    `counts` tells what each cleaning step saw and dropped, e.g. {"read": 120, "exact_duplicates": 3}.
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
    """The widths of a decoder, as in its Hugging Face config."""

    layers: int
    intermediate_size: int
    kv_groups: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What is kept, as sorted indices into the parent. Widths are uniform across layers, the choice is per layer.

    `layers` indexes the parent's layers; `ffn` and `kv_groups` hold one tuple for each *kept* layer; `tokens` are
    the parent's token ids in ascending order (None: vocabulary untouched). `removed_parameters` counts what each
    kind of pruning takes away. `target_parameters` is the size asked for, which a method that removes whole layers
    only meets to within one of them. `merges` are folds of whole layers, in order, each the parent indices (host,
    folded, ...); the folded ones are not kept.
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
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One number of a report: `task` is a domain, `general` or `<domain>/<question set>`."""

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
    """What a stage was trained on. `tokens` counts every token seen, repeats included."""

    tokens: int
    steps: int
    learning_rate: float
    best_step: int
    seconds: float
    recipe: str
    dev_losses: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """A model at one stage of the build and everything measured on it."""

    stage: StageName
    parameters: int
    bytes: int
    seconds: float
    metrics: tuple[MetricResult, ...]
    training: Training | None = None
    sample: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """The report a sceptic reads: schema in docs/reference/report.md.

    `kept_per_layer` holds, under `ffn` and `kv_groups`, what every *parent* layer kept (0: the layer is gone).
    `fingerprints` names what was measured: one key a task (its held-out texts or questions), and `vocabulary` for the
    healed model's tokenizer. Two numbers are compared only where these agree.
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
        """The report of one stage, or None if the build skipped it."""
        return next((stage for stage in self.stages if stage.stage == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A finished model in the catalog; `hashes` maps file names under the build folder to SHA-256."""

    id: str
    domain: str
    base_model: str
    path: str
    created: str
    parameters: int
    bytes: int
    headline: Mapping[str, float]
    hashes: Mapping[str, str]
