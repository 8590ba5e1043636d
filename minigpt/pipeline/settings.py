"""Settings of a build, in three presets by amount of work; `--set` changes any field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from minigpt.conditional.settings import ConditionalSettings
from minigpt.errors import UnknownName
from minigpt.healing import Recipe
from minigpt.healing.recipe import RECIPES
from minigpt.healing.tune import TuneSettings
from minigpt.pipeline.overrides import apply_overrides
from minigpt.planning.memory import MemorySettings
from minigpt.planning.settings import PlanSettings
from minigpt.pruning.settings import RepairSettings
from minigpt.ranges import PART, SHARE, Range, above, at_least, check_ranges
from minigpt.tickets.delta_settings import DeltaSettings
from minigpt.tickets.settings import LotterySettings

# Ranges of the fields of `evaluation` and of `text`.
EVALUATION_RANGES: Mapping[str, Range] = {
    "heldout_bytes": at_least(1),
    "questions": at_least(1),
    "pruned_share": above(0, 1),
    "window": at_least(2),
    "batch_tokens": at_least(2),
    "sample_tokens": at_least(0),
    "chat_tokens": at_least(0),
    "recitation": at_least(0),
    "answers": at_least(0),
    "samples": at_least(0, 100),
}
TEXT_RANGES: Mapping[str, Range] = {
    "general": at_least(0, 1000),
    "definitions": at_least(0, 1000),
    "sampled": at_least(0),
    "sampled_general": SHARE,
    "answers": at_least(0),
    "dev_bytes": at_least(1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSettings:
    """Settings of how the text is read.

    Attributes:
        relevance: choose passages with the sentence encoder, by their similarity to the domain's seed texts.
        max_documents: number of documents to sample at most from those that may be trained on, which bounds the memory;
            null takes all.
    """

    relevance: bool = False
    max_documents: int | None = None

    def __post_init__(self) -> None:
        check_ranges(self, {"max_documents": at_least(1)}, named="corpus.{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """Settings of how much is measured.

    Attributes:
        heldout_bytes: bytes of held-out text; null measures all of it.
        questions: questions of each set; null takes all of them.
        general: measure general text and questions too.
        pruned_share: part of the texts and questions that the pruned model is measured on before it heals, at least
            ten of each; 1 measures it on all of them, as a sweep always does.
        window: longest context in tokens.
        batch_tokens: tokens of one forward pass.
        sample_tokens: length of the sample generation; 0 writes none.
        chat_tokens: longest answer of the chat probe, which counts the answers that end; 0 leaves the probe out.
        answers: prompts of each task with free answers; null takes all of them, 0 leaves these tasks out.
        samples: number of held-out passages whose beginnings parent and specialist continue on the page, in
            `sample_tokens` tokens each; private like the text. 0 writes none.
        recitation: number of training passages, and of held-out passages, that each model has to complete from memory;
            0 measures no recitation.
    """

    heldout_bytes: int | None = None
    questions: int | None = None
    general: bool = True
    pruned_share: float = 1.0
    window: int = 1024
    batch_tokens: int = 16384
    sample_tokens: int = 48
    chat_tokens: int = 48
    answers: int | None = 200
    samples: int = 10
    recitation: int = 200

    def __post_init__(self) -> None:
        check_ranges(self, EVALUATION_RANGES, named="evaluation.{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """Settings of the training text; docs/results/quality.md shows the effect of each part.

    Attributes:
        general: bytes of general text mixed in, relative to the bytes of the domain's own text.
        definitions: number of times that the definitions in this text are added as questions and answers.
        sampled: number of passages that are sampled from the parent after a short tuning on this text.
        sampled_general: share of the sampled passages that go on from general text instead of the domain's, 0 to 1; a
            larger share keeps more of what the parent knows outside the sources, and less of the sources.
        answers: number of training prompts of each task with free answers that are trained on with their answers.
        plan_general: count general text as much as the domain's in statistics, repair and vocabulary.
        dev_bytes: bytes of dev text that decide when to stop; null reads all of it.
    """

    general: float = 0.0
    definitions: int = 0
    sampled: int = 0
    sampled_general: float = 0.0
    answers: int = 400
    plan_general: bool = False
    dev_bytes: int | None = None

    def __post_init__(self) -> None:
        check_ranges(self, TEXT_RANGES, named="text.{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a build, as a preset fixes them.

    Attributes:
        corpus: settings of how the text is read.
        evaluation: settings of how much is measured.
        plan: settings of how the units to keep are chosen.
        repair: settings of the least-squares repair.
        memory: settings of how much of a parent is in memory.
        text: settings of the training text.
        tuned_parent: tune the parent on the same text. It is the fair comparison, the model that is pruned, and the
            teacher; without it the parent is pruned as it is.
        blend: share of the parent's own weights in the model that is pruned and that teaches, 0 or more and below 1;
            the rest is the tuned parent's. A share of a quarter keeps more of the field beyond the sources, and costs
            hardly anything on them (docs/results/sources.md). Nothing is blended without a tuned parent.
        recipe: a paper's healing recipe that replaces the preset's one; fields of `heal` that the user sets change it.
        keep_general: bound on general text, as a multiple of the parent's bits per byte on it. General text then
            counts as much as the domain's in statistics, plan, repair, vocabulary and healing, and healing keeps the
            weights that are best on the domain among those within the bound. Null sets no bound.
        twin: train the unpruned parent with the specialist's own recipe, teacher and text, too. This distilled twin
            alone shows what the pruning costs; it takes as long as healing, or somewhat longer.
        lottery: rounds of training and pruning of the method `lottery` and of `minigpt lottery`.
        tune: recipe for tuning the parent, and the variations of it that are tried.
        heal: recipe for training the pruned model.
        delta: rounds and training of a delta ticket, where one is made instead of pruning; windows, batches and
            precision are those of `heal`.
        conditional: settings of the conditional form, which `--conditional` asks for.
    """

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    text: TextSettings = field(default_factory=TextSettings)
    tuned_parent: bool = True
    blend: float = 0.0
    recipe: str = "preset"
    keep_general: float | None = None
    twin: bool = False
    lottery: LotterySettings = field(default_factory=LotterySettings)
    tune: TuneSettings = field(default_factory=lambda: TuneSettings(steps=200, learning_rate=2e-4, evaluate_every=50))
    heal: Recipe = field(
        default_factory=lambda: Recipe(
            steps=1200,
            tokens_per_step=16384,
            learning_rate=5e-4,
            growth=4.0,
            optimizer="muon",
            distill=1.0,
            evaluate_every=300,
        )
    )
    delta: DeltaSettings = field(default_factory=DeltaSettings)

    conditional: ConditionalSettings = field(default_factory=ConditionalSettings)

    def __post_init__(self) -> None:
        check_ranges(self, {"blend": PART, "keep_general": at_least(0)})


# The preset "standard", from which "thorough" is derived.
STANDARD = Settings(
    corpus=CorpusSettings(relevance=True, max_documents=100_000),
    text=TextSettings(general=1.0, definitions=3, sampled=12_000, sampled_general=0.5, plan_general=True),
    blend=0.25,
    tune=TuneSettings(steps=200, learning_rate=2e-4, evaluate_every=50, shorter=(), longer=0.0, muon=()),
)
PRESETS: Mapping[str, Settings] = {
    "quick": Settings(
        corpus=CorpusSettings(max_documents=10_000),
        evaluation=EvaluationSettings(
            heldout_bytes=64_000,
            questions=100,
            pruned_share=0.33,
            batch_tokens=1024,
            chat_tokens=0,
            recitation=16,
            answers=10,
        ),
        plan=PlanSettings(tokens=12288, probe_tokens=2048, healing="short"),
        repair=RepairSettings(tokens=8192),
        # Ten minutes leave no room for prompts beside the text: answers are measured and not trained.
        text=TextSettings(general=0.5, answers=0, plan_general=True, dev_bytes=20_000),
        tuned_parent=False,
        heal=Recipe(
            steps=220, tokens_per_step=1024, window=256, warmup=8, learning_rate=1.5e-4, average=0.95, evaluate_every=55
        ),
        delta=DeltaSettings(rounds=2, steps=220, learning_rate=2e-4),
        conditional=ConditionalSettings(
            tokens=6144, distill_steps=40, distill_tokens=512, probe_bytes=5_000, steps=80, learning_rate=1.5e-4
        ),
    ),
    "standard": STANDARD,
    "thorough": replace(
        STANDARD,
        text=replace(STANDARD.text, sampled=18_000),
        tune=replace(STANDARD.tune, shorter=(0.5,), longer=2.0, muon=(0.5,)),
        heal=replace(STANDARD.heal, steps=2400, evaluate_every=300, average=0.995),
    ),
}


# Former names of settings, which scripts may still use.
OLDER_NAMES = {"control": "tuned_parent"}


def settings_for(preset: str, overrides: Mapping[str, str], *, keep_general: float | None = None) -> Settings:
    """Resolve the settings of a build: the preset with the user's changes.

    Args:
        preset: a key of `PRESETS`.
        overrides: dotted names and values, as `--set` takes them.
        keep_general: bound on general text (None: the bound in the settings).

    Raises:
        UnknownName: there is no such preset or healing recipe.
        ConfigError: an override names no field or has a value of the wrong type.
    """
    if preset not in PRESETS:
        raise UnknownName("preset", preset, PRESETS)
    settings = PRESETS[preset]
    changes = {OLDER_NAMES.get(name, name): value for name, value in overrides.items()}
    recipe = changes.get("recipe", settings.recipe)
    if recipe != settings.recipe:
        if recipe not in RECIPES:
            raise UnknownName("healing recipe", recipe, {settings.recipe, *RECIPES})
        settings = replace(settings, heal=RECIPES[recipe])
    if "repair.when" not in changes and any(name.startswith("repair.") for name in changes):
        changes["repair.when"] = "always"
    settings = apply_overrides(settings, changes)
    return settings if keep_general is None else replace(settings, keep_general=keep_general)
