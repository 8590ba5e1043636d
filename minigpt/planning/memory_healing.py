"""Memory of healing: predicted for each form of training, from all weights down to adapters on 4-bit weights.

Where the recipe's own form does not fit, the first of these does that fits: the same with gradient checkpointing, LoRA
on frozen weights, QLoRA on frozen 4-bit weights (Dettmers et al. 2023). Each is tried with the teacher in memory first,
and then with the teacher's answers on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from minigpt.errors import ConfigError
from minigpt.healing.recipe import Recipe
from minigpt.planning.memory import GB, LIBRARIES, MARGIN, STORED, MemorySettings, Parts, Peak

# Rank and peak learning rate of adapters that stand in for all weights: those of Gromov et al. 2024 (arXiv 2403.17887).
RANK, LEARNING_RATE = 64, 3e-4
# Bytes of a weight in NF4 with double-quantized scales.
FOUR_BIT = 0.53
# Bytes of a token of stored answers in memory: its number and its logarithm.
ANSWER = 12
# Bytes of the states of an optimizer for each weight in fp32.
STATES = {"adamw": 8, "muon": 4}
# How a teacher is held that answers once, before the model that is trained is loaded.
TeacherForm = Literal["resident", "streamed"]
DEFAULTS = MemorySettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealingForm:
    """Form of healing: the recipe as it fits into memory.

    Attributes:
        recipe: the recipe, with adapters where all weights do not fit.
        saves_memory: recompute activations in the backward pass, and leave frozen weights in their own precision.
        peak: the predicted peak.
        portions: portions of a step's batch that are read one after the other; the gradients add up to the same.
        stored: tokens at each place of the teacher's answers on disk; 0 has the teacher in memory, or none.
    """

    recipe: Recipe
    saves_memory: bool
    peak: Peak
    portions: int = 1
    stored: int = 0

    def describe(self, student: Parts, *, total: int) -> str:
        """Return one line about the form: "Healing of 5.2B: LoRA r 64, checkpointing, 46.0 of 80 GB"."""
        kinds = {"full": "all weights", "lora": f"LoRA r {self.recipe.rank}", "qlora": f"QLoRA r {self.recipe.rank}"}
        saved = ", gradient checkpointing" if self.saves_memory else ""
        saved += f", steps in {self.portions} portions" if self.portions > 1 else ""
        saved += ", teacher's answers on disk" if self.stored else ""
        size = f"{student.parameters / GB:.1f}B"
        memory = f"{self.peak.device / GB:.1f} of {total / GB:.0f} GB"
        return f"Healing of {size}: {kinds[self.recipe.adapter]}{saved}, {memory}"


def healing_peak(
    student: Parts,
    teacher: Parts | None,
    recipe: Recipe,
    *,
    saves_memory: bool,
    accelerated: bool,
    portions: int = 1,
    stored: int = 0,
) -> Peak:
    """Predict the peak of healing.

    All weights are trained in fp32 with gradients, optimizer states and an average; on an accelerator a bf16 copy
    computes, with gradients of its own where a step is captured as a graph. The best weights are on the processor.

    Args:
        student: sizes of the model that is trained.
        teacher: sizes of its teacher (None: there is none).
        recipe: the recipe.
        saves_memory: see :class:`HealingForm`.
        accelerated: whether the device has memory of its own, and computes in bf16.
        portions: see :class:`HealingForm`.
        stored: see :class:`HealingForm`.
    """
    number, size = (2 if accelerated else 4), student.parameters
    tokens = max(-(-recipe.tokens_per_step // portions), recipe.window)
    state = 8 + STATES[recipe.optimizer if recipe.adapter == "full" else "adamw"] + (4 if recipe.average else 0)
    summands: dict[str, int] = {}
    if recipe.adapter == "full":
        copies = (2 if saves_memory or portions > 1 else 4) if accelerated else 0
        summands["weights, gradients and optimizer"] = size * (state + copies)
    else:
        frozen, plain = student.layers * student.layer, number if saves_memory else 4
        in_4_bits = frozen - student.layers * student.unquantized if recipe.adapter == "qlora" else 0
        summands["frozen weights"] = round(in_4_bits * FOUR_BIT) + (frozen - in_4_bits + student.ends) * plain
        widths = 11 * student.hidden + 3 * student.width
        summands["adapters"] = recipe.rank * student.layers * widths * state
        if recipe.adapter == "lora" and accelerated and not saves_memory:
            # The backward pass keeps the frozen weights as the forward pass cast them.
            summands["cast weights"] = frozen * number
    inside = tokens * (number * (10 * student.hidden + 4 * student.width) + 8 * student.hidden)
    if recipe.adapter != "full":
        # Adapters keep copies of what they read.
        inside += tokens * number * (2 * student.hidden + student.width)
    kept = student.layers * tokens * student.hidden * number + inside if saves_memory else student.layers * inside
    summands["activations"] = kept
    resident = teacher is not None and not stored
    summands["logits"] = tokens * student.vocab * (2 * number + 8 + (number + 4 if resident else 0))
    if teacher is not None:
        # Of stored answers a token's number and its logarithm, in the types of the arithmetic.
        answers = tokens * min(stored, student.vocab) * ANSWER
        summands["teacher"] = answers if stored else teacher.parameters * number
    device = sum(summands.values())
    best = size * 4 if recipe.adapter == "full" else summands["adapters"] // state * 4
    host = best + LIBRARIES
    if not accelerated:
        device = host = device + host
    form = f"{recipe.adapter}{', checkpointing' if saves_memory else ''}"
    form += f", {portions} portions" if portions > 1 else ""
    form += ", stored teacher" if stored else ""
    return Peak(stage="healing", form=form, device=device, host=host, parts=summands)


def choose_healing(
    student: Parts,
    teacher: Parts | None,
    recipe: Recipe,
    *,
    total: int,
    accelerated: bool,
    settings: MemorySettings = DEFAULTS,
) -> HealingForm:
    """Choose the first form of training that fits; a recipe without steps takes no memory at all.

    The choice depends on what the device has, not on what is free at the moment, so that the same command on the same
    machine trains the same way.

    Args:
        student: sizes of the model that is trained.
        teacher: sizes of its teacher (None: there is none).
        recipe: the recipe that the settings ask for.
        total: bytes that the device has.
        accelerated: whether the device has memory of its own.
        settings: "resident" and "stored" leave no choice about the teacher.

    Raises:
        ConfigError: answers cannot be stored, or nothing fits; then the message has the arithmetic and the nearest
            thing that does.
    """
    if not recipe.steps:
        nothing = Peak(stage="healing", form="none", device=0, host=0, parts={})
        return HealingForm(recipe=recipe, saves_memory=False, peak=nothing)
    forms = [
        HealingForm(
            recipe=form,
            saves_memory=saves,
            portions=portions,
            stored=stored,
            peak=healing_peak(
                student, teacher, form, saves_memory=saves, accelerated=accelerated, portions=portions, stored=stored
            ),
        )
        for form, saves, portions, stored in _candidates(recipe, ways_to_teach(teacher, recipe, settings))
    ]
    fitting = [form for form in forms if form.peak.device <= MARGIN * total]
    if fitting:
        return fitting[0]
    least = min(forms, key=lambda form: form.peak.device)
    raise ConfigError(_nothing_fits(student, teacher, least, total, accelerated=accelerated))


def ways_to_teach(teacher: Parts | None, recipe: Recipe, settings: MemorySettings) -> tuple[int, ...]:
    """Return the values of `HealingForm.stored` that may be tried, in order.

    Raises:
        ConfigError: answers are to be stored, and noise changes the text that they answer.
    """
    if teacher is None or settings.teacher == "resident":
        return (0,)
    if settings.teacher == "auto":
        return (0,) if recipe.is_noisy else (0, settings.teacher_top)
    if recipe.is_noisy:
        raise ConfigError("memory.teacher=stored needs text without noise; add --set heal.noise=0.")
    return (settings.teacher_top,)


def _candidates(recipe: Recipe, ways: tuple[int, ...]) -> list[tuple[Recipe, bool, int, int]]:
    """List the forms to try, from the one that is asked for to the smallest.

    A form is a recipe, whether it checkpoints, its portions, and the tokens of stored answers.
    """
    groups = [[(recipe, False), (recipe, True)]]
    if recipe.adapter == "full":
        adapted = replace(recipe, adapter="lora", rank=RANK, alpha=None, learning_rate=LEARNING_RATE)
        groups += [[(adapted, True)]]
    if recipe.adapter != "qlora":
        groups += [[(replace(groups[-1][0][0], adapter="qlora"), True)]]
    most = max(1, recipe.tokens_per_step // recipe.window)
    portions = [1, *(2**power for power in range(1, most.bit_length()) if 2**power <= most)]
    return [
        (form, saves, number, stored)
        for group in groups
        for stored in ways
        for form, saves in group
        for number in portions
    ]


def _nothing_fits(student: Parts, teacher: Parts | None, least: HealingForm, total: int, *, accelerated: bool) -> str:
    """Explain why no form fits, with the arithmetic and the nearest thing that does."""
    peak = least.peak
    reason = (
        f"Healing needs {peak.device / GB:.1f} GB at least ({peak.form}: {peak.arithmetic()}), and the device has "
        f"{total / GB:.1f} GB. "
    )
    alone = healing_peak(
        student, None, least.recipe, saves_memory=True, accelerated=accelerated, portions=least.portions
    )
    if alone.device <= MARGIN * total:
        return f"{reason}Without a teacher, --set heal.distill=0, it needs {alone.device / GB:.1f} GB."
    return f"{reason}Leave healing out with --set heal.steps=0, or choose a smaller parent."


def answering_peak(teacher: Parts, tokens: int, vocab: int, form: TeacherForm, *, accelerated: bool) -> Peak:
    """Predict the peak of storing a teacher's answers, before the model that is trained is loaded.

    Args:
        teacher: sizes of the teacher.
        tokens: tokens of one pass.
        vocab: size of the student's vocabulary.
        form: whether the teacher is resident or streamed.
        accelerated: whether the device has memory of its own, and computes in bf16.
    """
    number = 2 if accelerated else 4
    inside = tokens * (number * (10 * teacher.hidden + 4 * teacher.width) + 8 * teacher.hidden)
    summands = {"one pass": max(inside, tokens * vocab * (number + 8))}
    in_memory = teacher.parameters if form == "resident" else teacher.ends + teacher.layer
    summands["teacher"] = in_memory * number
    on_host = LIBRARIES
    if form == "streamed":
        on_host += teacher.layer * STORED
    device = sum(summands.values()) + (0 if accelerated else on_host)
    host = on_host if accelerated else device
    return Peak(stage="teacher's answers", form=form, device=device, host=host, parts=summands)
