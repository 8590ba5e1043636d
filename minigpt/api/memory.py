"""Planning, pruning and healing of a model in memory, on the user's own texts, without corpus, folder or catalog."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from minigpt.corpus.selection import take_bytes
from minigpt.errors import CorpusError, PlanError
from minigpt.healing import Recipe, Teacher, train
from minigpt.healing.teacher import teacher_of
from minigpt.healing.tokenized import token_text
from minigpt.methods import Method, method_named
from minigpt.methods.cut import check_size, cut_units, repair_of, trim_vocabulary
from minigpt.methods.material import Material, gather
from minigpt.methods.ranking import rank
from minigpt.methods.scores import Scores
from minigpt.pipeline.settings import PRESETS
from minigpt.planning.budget import allowed_axes, budget_for
from minigpt.planning.planner import Curves, decide_sensitivity, measure_curves, plan_units
from minigpt.planning.settings import PlanSettings
from minigpt.planning.target import Target
from minigpt.progress import SILENT, Reporter
from minigpt.pruning.settings import RepairSettings
from minigpt.results import Training
from minigpt.transformer.arch import arch_of, parameters_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.calibration import calibration_batches, token_counts
from minigpt.transformer.ends import document_end
from minigpt.types import Document, PrunePlan

Texts = Sequence[str | Document]

# Without settings of one's own the door takes those of a preset: `quick` on a processor.
QUICK, STANDARD = PRESETS["quick"], PRESETS["standard"]
# Tokens of one forward pass over calibration text.
BATCH_TOKENS = 4096
# Longest piece of calibration text, in tokens.
WINDOW = 512


def plan(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    *,
    size: float | None = None,
    params: int | None = None,
    method: str | Method = "contextual",
    kinds: Collection[str] | None = None,
    dev: Texts | None = None,
    settings: PlanSettings | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> PrunePlan:
    """Decide which units of a model to keep, by their importance on texts of a domain; the model stays as it is.

    Args:
        model: a causal language model of a known family, best in float32.
        tokenizer: its tokenizer.
        texts: texts of the domain; about 8,000 tokens of them are read on a processor, 65,000 on an accelerator.
        size: fraction of the parameters to keep (0.75 where no target is given).
        params: parameters to keep, instead of `size`.
        method: a name of `minigpt methods`, `package.module:ROW`, or a :class:`minigpt.methods.Method`.
        kinds: kinds of pruning that are allowed, of linear, activation, embedding (None: all, whole layers too).
        dev: texts on which the cost of each axis is measured, where it is measured (None: `texts`).
        settings: further settings of the plan (None: those of the presets).
        seed: of random scores.
        reporter: told about progress.

    Returns:
        The plan, for :func:`prune`.

    Raises:
        PlanError: no allowed shape is near the target.
        UnsupportedModel: minigpt does not know the model's family.
        CorpusError: there is no text.
    """
    row = method if isinstance(method, Method) else method_named(method)
    if not row.ships:
        raise PlanError(f"{row.name} makes no model that plain transformers loads; choose another method.")
    settings = settings or (PlanSettings() if _accelerated(model) else QUICK.plan)
    documents = as_documents(texts)
    material = gather(
        model,
        _batches(tokenizer, documents, settings.tokens),
        reporter=reporter,
        counts=token_counts(tokenizer, documents),
        specials=frozenset(tokenizer.all_special_ids),
        seed=seed,
        kinds=frozenset(kinds or ("linear", "activation")),
        contrast=settings.contrast,
        protect_ends=settings.protect_ends,
    )
    target = Target(size=size, params=params).parameters(parameters_of(model), "float32")
    budget = budget_for(model.config, tokenizer, row, target, settings=settings, kinds=kinds)
    scores = rank(row, material)
    probes = as_documents(dev if dev is not None else texts)
    axes = allowed_axes(row, kinds, arch_of(model))
    sensitivity = decide_sensitivity(
        budget,
        model.config,
        settings,
        accelerated=_accelerated(model),
        measure=lambda: _curves(row, material, tokenizer, scores, probes, settings, axes),
    )
    result = plan_units(row, material, tokenizer, budget, sensitivity, scores, kinds=kinds)
    reference = method if isinstance(method, str) else row.name
    return replace(result, method=reference, base_model=str(getattr(model, "name_or_path", "") or ""))


def _curves(
    row: Method,
    material: Material,
    tokenizer: Any,
    scores: Scores | None,
    documents: Sequence[Document],
    settings: PlanSettings,
    axes: Collection[str],
) -> Curves:
    """Measure the costs of the axes that may be cut, on as much dev text as a build reads."""
    return measure_curves(
        row,
        material,
        tokenizer,
        scores,
        take_bytes(documents, 4 * settings.probe_tokens),
        axes=axes,
        repair=repair_of(row, RepairSettings()),
        probe_tokens=settings.probe_tokens,
        window=WINDOW,
        reporter=material.reporter,
    )


def prune(
    model: Any,
    tokenizer: Any,
    plan: PrunePlan,
    *,
    repair: Texts | None = None,
    method: str | Method | None = None,
    settings: RepairSettings | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Any, Any]:
    """Cut a model to a plan, in place: smaller matrices in stock classes, and a smaller tokenizer.

    Args:
        model: the model that the plan was made for, best in float32. It is changed.
        tokenizer: its tokenizer; it stays as it is.
        plan: of :func:`plan`.
        repair: texts of the domain on which the cut layers are refitted by least squares (None: no repair).
        method: the method of the plan, where it is a row that the plan cannot name.
        settings: settings of the repair (None: those of the presets; fewer tokens are read on a processor).
        reporter: told about progress.

    Returns:
        The model (the same object) and the tokenizer of the kept tokens.

    Raises:
        PlanError: the plan does not fit the model.
    """
    row = method if isinstance(method, Method) else method_named(method or plan.method)
    settings = settings or (RepairSettings() if _accelerated(model) else QUICK.repair)
    batches: list[Batch] = []
    if repair is not None:
        batches = _batches(tokenizer, as_documents(repair), settings.tokens)
    model, _ = cut_units(
        model,
        plan,
        row,
        repair=repair_of(row, replace(settings, when="always" if batches else "never")),
        batches=batches,
        material=_material_of_transform(row, model, batches, reporter),
        reporter=reporter,
    )
    model, tokenizer = trim_vocabulary(model, tokenizer, plan)
    check_size(model, plan)
    return model, tokenizer


def _material_of_transform(row: Method, model: Any, batches: Sequence[Batch], reporter: Reporter) -> Material | None:
    """Gather the material of a method with its own transformation; None for every other method.

    Raises:
        CorpusError: there is no text to measure on.
    """
    if row.transform is None:
        return None
    if not batches:
        raise CorpusError(f"{row.name} needs texts to cut by; give them as `repair`.")
    return gather(model, batches, reporter=reporter)


def heal(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    *,
    dev: Texts,
    steps: int | None = None,
    recipe: Recipe | None = None,
    teacher: Any | None = None,
    plan: PrunePlan | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Training:
    """Train a pruned model in place, and leave it with the weights that were best on the dev texts.

    Args:
        model: the pruned model. Its weights become float32.
        tokenizer: its tokenizer.
        texts: training texts.
        dev: texts that decide when to stop; never texts that you measure on later.
        steps: training steps (None: the recipe's).
        recipe: settings of the training (None: the preset `quick` on a processor, `standard` on an accelerator).
        teacher: the unpruned model, to distil from; needs `plan` where tokens were cut.
        plan: the plan that the model was cut by.
        seed: seed of the order of the texts.
        reporter: told about progress.

    Returns:
        The record of the training.

    Raises:
        CorpusError: there is no text to train or to decide on.
    """
    recipe = recipe or (STANDARD.heal if _accelerated(model) else QUICK.heal)
    if steps is not None:
        recipe = replace(recipe, steps=steps, evaluate_every=max(1, min(recipe.evaluate_every, steps)))
    if teacher is not None and not recipe.distill:
        recipe = replace(recipe, distill=1.0)
    end = document_end(tokenizer, model.config, model.generation_config)
    return train(
        model,
        token_text(tokenizer, as_documents(texts), recipe.window, end=end),
        token_text(tokenizer, as_documents(dev), recipe.window),
        recipe,
        teacher=_teacher(teacher, plan, model),
        seed=seed,
        backs_off=True,
        reporter=reporter,
    )


def _teacher(model: Any | None, plan: PrunePlan | None, student: Any) -> Teacher | None:
    """Wrap the unpruned model as a teacher; None without one.

    Raises:
        PlanError: student and teacher have different vocabularies, and no plan maps one to the other.
    """
    if model is None:
        return None
    tokens = plan.tokens if plan is not None else None
    if tokens is None and model.config.vocab_size != student.config.vocab_size:
        raise PlanError("Teacher and student have different vocabularies: give the plan that the student was cut by.")
    return teacher_of(model, tokens, student)


def _accelerated(model: Any) -> bool:
    """Tell whether the model is on an accelerator, where more text is read in the same time."""
    return str(model.device.type) != "cpu"


def as_documents(texts: Texts) -> list[Document]:
    """Convert texts to documents, each with its own source.

    Raises:
        CorpusError: there is no text.
    """
    documents = [
        text if isinstance(text, Document) else Document(text=text, source=f"text {number}")
        for number, text in enumerate(texts)
    ]
    if not any(document.text.strip() for document in documents):
        raise CorpusError("There is no text: give a list of texts.")
    return documents


def _batches(tokenizer: Any, documents: Sequence[Document], tokens: int) -> list[Batch]:
    """Pack documents into batches of calibration text."""
    return calibration_batches(tokenizer, documents, window=WINDOW, tokens=tokens, batch_tokens=BATCH_TOKENS)
