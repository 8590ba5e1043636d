"""How much work a build does: three presets, every field open to `--set`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from minigpt.errors import UnknownName
from minigpt.healing import Recipe
from minigpt.healing.recipe import RECIPES
from minigpt.pipeline.overrides import apply_overrides
from minigpt.planning import Healing


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSettings:
    """`relevance`: choose text with the sentence encoder. `max_documents`: read no more than this many."""

    relevance: bool = False
    max_documents: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """Sizes of the evaluation: bytes of held-out text and questions of each set (None: all), tokens of a batch.

    `general`: measure the general control too. `sample_tokens`: length of the sample generation.
    """

    heldout_bytes: int | None = None
    questions: int | None = None
    general: bool = True
    window: int = 1024
    batch_tokens: int = 16384
    sample_tokens: int = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """`tokens` of calibration text for the statistics, `probe_tokens` of dev text for measuring sensitivity.

    `sensitivity`: "table" uses the shipped table where there is one for the parent, "measure" always measures, "auto"
    measures on an accelerator, where it takes seconds.
    `healing`: how much training follows, since neurons and layers heal far better than a vocabulary does. Widths
    that are given are not planned but taken.

    `contrast`: lambda of domain importance less lambda x general importance (`contextual`). `epsilon` and
    `epsilon_tokens`: thresholds of `mini-gpt --masked`, on mean magnitudes (None: the one that reaches the size) and on
    a token's share of the text (negative: none).
    """

    tokens: int = 65536
    probe_tokens: int = 16384
    sensitivity: Literal["auto", "table", "measure"] = "auto"
    protect_ends: bool = True
    healing: Healing = "thorough"
    contrast: float = 0.0
    epsilon: float | None = None
    epsilon_tokens: float = 0.0
    layers: int | None = None
    intermediate_size: int | None = None
    kv_groups: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairSettings:
    """Least-squares repair: tokens of calibration text (0: no repair), ridge (None: by the sample's size) and order.

    Fitting to the parent's residual stream corrects what earlier layers lost (law, 24 % removed: 1.118 instead of
    1.172 times the tuned parent's bits per byte before healing, 1.048 instead of 1.052 after it).
    """

    tokens: int = 65536
    ridge: float | None = None
    sequential: bool = True
    target: Literal["output", "stream"] = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """What is trained on: `general` is the amount of general text mixed in, relative to the bytes of the domain's own.

    It costs the domain nothing (law, 24 % removed: 1.037 instead of 1.041 times the tuned parent on dev text) and
    saves part of what is general (1.130 instead of 1.199 bits per byte).

    `definitions` adds the definitions that stand in this text as questions and answers, so many times over (law, 24 %
    removed, a fifth of the glossary: 0.476 of the answers right instead of 0.357, at equal bits per byte).

    `sampled` is the number of passages that the parent, tuned on this text, adds to it (medical, 24 % removed: 1.043
    instead of 1.058 times the tuned parent on dev text).

    `dev_bytes` limits the dev text that decides when to stop (None: all of it).
    """

    general: float = 0.0
    definitions: int = 0
    sampled: int = 0
    dev_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a preset fixes. Without `control` the parent is pruned as it is, and no tuned parent is measured.

    `tune` is how the control is tuned, at half, once and twice its learning rate. `heal.growth` raises healing's rate
    with what was pruned (medical, distilled in steps of 16,384 tokens: 1e-3 was best without a quarter, 2e-3 without
    half of the parameters, and 4e-3 better than 2e-3 without 65 %).

    `recipe` names a healing recipe of a paper (`minigpt.healing.recipe.RECIPES`) that takes the place of the preset's;
    fields of `heal` that are set change it.

    `keep_general` bounds what general text may cost, as a multiple of the parent's bits per byte on it: general text
    then counts as much as the domain's in statistics, plan, repair, vocabulary and healing, and of the healed weights
    those are kept that are best on the domain among those within the bound.
    """

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)
    text: TextSettings = field(default_factory=TextSettings)
    control: bool = True
    recipe: str = "preset"
    keep_general: float | None = None
    tune: Recipe = field(default_factory=lambda: Recipe(steps=300, learning_rate=2e-4, evaluate_every=50, patience=100))
    heal: Recipe = field(
        default_factory=lambda: Recipe(
            steps=600,
            tokens_per_step=16384,
            learning_rate=5e-4,
            growth=4.0,
            optimizer="muon",
            distill=1.0,
            evaluate_every=150,
        )
    )


STANDARD = Settings(corpus=CorpusSettings(relevance=True), text=TextSettings(general=1.0, definitions=3, sampled=8_000))
PRESETS: Mapping[str, Settings] = {
    "quick": Settings(
        evaluation=EvaluationSettings(heldout_bytes=64_000, questions=100, batch_tokens=1024),
        plan=PlanSettings(tokens=8192, probe_tokens=2048, healing="short"),
        repair=RepairSettings(tokens=6144),
        text=TextSettings(dev_bytes=20_000),
        control=False,
        heal=Recipe(
            steps=180, tokens_per_step=1024, window=256, warmup=8, learning_rate=3e-4, average=0.95, evaluate_every=30
        ),
    ),
    "standard": STANDARD,
    "thorough": replace(
        STANDARD,
        text=replace(STANDARD.text, sampled=24_000),
        heal=replace(STANDARD.heal, steps=2400, evaluate_every=400, average=0.995),
    ),
}


def settings_for(preset: str, overrides: Mapping[str, str]) -> Settings:
    """The preset with the user's `--set` values put in.

    Raises:
        UnknownName: there is no such preset or healing recipe.
        ConfigError: an override names no field or has a value of the wrong type.
    """
    if preset not in PRESETS:
        raise UnknownName("preset", preset, PRESETS)
    settings = PRESETS[preset]
    name = overrides.get("recipe", settings.recipe)
    if name != settings.recipe:
        if name not in RECIPES:
            raise UnknownName("healing recipe", name, {settings.recipe, *RECIPES})
        settings = replace(settings, heal=RECIPES[name])
    return apply_overrides(settings, overrides)
