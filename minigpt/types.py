"""Records that the packages of minigpt pass to each other: the vocabulary of the project.

They are plain data without torch. Tensors travel in :class:`minigpt.transformer.stats.ActivationStats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Ints = tuple[int, ...]
Split = Literal["calibration", "train", "dev", "heldout", "other"]
AXES = ("vocab", "ffn", "experts", "kv_groups", "layers")
"""The axes that a plan can cut: tokens, FFN neurons, KV groups with their query heads, and whole layers."""
PruneKind = Literal["linear", "activation", "embedding", "layers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One passage of text. Passages with the same `source` belong to one document and never go to different splits.

    Attributes:
        text: The text of the passage.
        source: Name of the document that the passage belongs to.
        license: License of the text.
        ends: True if the document ends with this passage, which training then tells the model; False if it goes on.
    """

    text: str
    source: str
    license: str = "unknown"
    ends: bool = field(default=True, compare=False)


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
class Constraint:
    """One condition on an answer that a program can check.

    Attributes:
        kind: Name of the check, a key of `minigpt.evaluation.scoring.CHECKS`.
        value: What the check needs: a number, a word or a pattern; empty for checks that need nothing.
    """

    kind: str
    value: int | str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of a task with free answers.

    Attributes:
        prompt: Text that the model continues with its answer.
        answers: Right answers, of which one is enough; empty where only constraints are checked.
        choices: Labels of which an answer must be one; empty where any answer has the right form.
        regex: Pattern that a whole answer must match; empty for none.
        constraints: Conditions that a program checks.
        source: Name of the document that the prompt was made from or belongs to; empty if there is none.
        license: License of the prompt.
    """

    prompt: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    regex: str = ""
    constraints: tuple[Constraint, ...] = ()
    source: str = ""
    license: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTask:
    """Prompts with free answers that are scored as one task.

    Attributes:
        name: Name of the task.
        prompts: Prompts that only measure.
        train: Prompts whose right answers are trained on, and of which the first are shown as examples.
        metrics: Metrics of the task.
        max_tokens: Longest answer in tokens.
        shots: Number of training prompts that are shown before each prompt, with their answers.
        chat: True if the prompt is put into the model's chat template, where it has one.
        derived: True if a rule made the prompts from the corpus.
        note: Explanation for the reader of the report, e.g. how the prompts were made.
    """

    name: str
    prompts: tuple[Prompt, ...]
    train: tuple[Prompt, ...] = ()
    metrics: tuple[str, ...] = ("exact_match", "token_f1")
    max_tokens: int = 24
    shots: int = 0
    chat: bool = False
    derived: bool = False
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
        measured_only: True if its text only measures: no model is trained on it.
    """

    name: str
    license: str
    citation: str
    documents: int
    bytes: int
    measured_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A domain's text in disjoint splits, and its questions. No document is in two splits.

    Attributes:
        domain: Name of the domain.
        calibration: Passages that the importance of units is measured on.
        train: Passages that models are trained on.
        dev: Passages that guide choices, e.g. of a learning rate.
        heldout: Passages that only measure.
        other: Passages that only measure, from sources of which nothing is trained on or guides a choice.
        questions: The domain's question sets.
        tasks: The domain's tasks with free answers.
        attributions: Sources that the text came from.
        counts: Passages that each cleaning step read or dropped, e.g. {"read": 120, "exact_duplicates": 3}.
        fingerprint: Hash of the whole content.
    """

    domain: str
    calibration: tuple[Document, ...]
    train: tuple[Document, ...]
    dev: tuple[Document, ...]
    heldout: tuple[Document, ...]
    other: tuple[Document, ...] = ()
    questions: tuple[QuestionSet, ...] = ()
    tasks: tuple[AnswerTask, ...] = ()
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
        experts: Number of experts in a layer; 0 if layers have one FFN each.
    """

    layers: int
    intermediate_size: int
    kv_groups: int
    vocab_size: int
    experts: int = 0


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
        experts: Experts that are kept, one tuple for each kept layer; empty if all stay or the family has none.
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
    experts: tuple[Ints, ...] = ()
