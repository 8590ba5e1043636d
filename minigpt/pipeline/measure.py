"""Measurement of a build's models: items for paired comparison, size, and a sample generation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import __version__, assets
from minigpt.evaluation import ItemScores, Suite, evaluate, load_scores, save_scores
from minigpt.evaluation.decoding import decode
from minigpt.evaluation.items import with_parts
from minigpt.evaluation.kept import evaluate_kept
from minigpt.evaluation.opening import choose_opening
from minigpt.files import fingerprint, read_json, write_json
from minigpt.machine import measuring_conditions, versions
from minigpt.pipeline.run import Run, SavedModel, load
from minigpt.planning.target import DTYPE_BYTES
from minigpt.progress.stages import discount
from minigpt.results import StageName, StageReport
from minigpt.transformer.packing import prefix_token
from minigpt.transformer.shipping import held

SCORES = "scores.json"
FACTS = "facts.json"
# Libraries whose versions decide, with ours, whether scores of an earlier build still hold.
LIBRARIES = ("torch", "transformers", "tokenizers")
TITLES = {
    "parent": "Evaluating the parent",
    "parent_tuned": "Evaluating the tuned parent",
    "parent_distilled": "Evaluating the distilled twin",
    "pruned": "Evaluating the pruned model",
    "healed": "Evaluating the healed model",
    "delta": "Evaluating the delta ticket",
    "conditional": "Evaluating the conditional form",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Measurement of one model.

    Attributes:
        scores: its items.
        report: its stage of the report, without metrics: these compare it with other models.
    """

    scores: ItemScores
    report: StageReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Size and sample of a model.

    Attributes:
        parameters: number of parameters; tied weights count once.
        bytes: bytes of the weights as the build saves them.
        sample: the greedy continuation of the build's prompt.
        samples: greedy continuations of held-out beginnings.
    """

    parameters: int
    bytes: int
    sample: str
    samples: tuple[str, ...] = ()


def measure(run: Run, suite: Suite, stage: StageName, model: SavedModel, *, share: float = 1.0) -> Measurement:
    """Evaluate a saved model; never one in memory, so that the measured model is the shipped one.

    The parent's scores are kept for later builds, and those of earlier builds are used.

    Args:
        run: the build.
        suite: the texts and questions that are measured.
        stage: the stage that the model belongs to.
        model: the model to measure.
        share: the part that `suite` is of what the other stages are measured on, for the report.
    """

    def make(folder: Path) -> None:
        with run.reporter.stage(TITLES[stage]):
            loaded, tokenizer = load(run, model.path), assets.load_tokenizer(model.path)
            with held(loaded):
                if stage == "parent":
                    scores = parent_scores(run, suite, loaded, tokenizer, model.key)
                else:
                    scores = scores_of(run, suite, loaded, tokenizer)
            save_scores(scores, folder / SCORES)
            write_json(folder / FACTS, _facts(run, suite, stage, loaded, tokenizer, model.path))

    # Parts are taken from the scores afterwards.
    measured = replace(suite, parts={})
    conditions = (run.options.dtype, measuring_conditions(run.device))
    name = fingerprint(model.key, measured, run.settings.evaluation, run.prompt, *conditions)
    folder, done = run.workspace.stage(f"measured_{stage}", name, make)
    facts = read_json(folder / FACTS, ModelFacts)
    scores = load_scores(folder / SCORES)
    report = StageReport(
        stage=stage,
        parameters=facts.parameters,
        bytes=facts.bytes,
        seconds=done.seconds,
        metrics=(),
        sample=facts.sample,
        samples=facts.samples,
        share=share,
        opening=scores.opening,
    )
    return Measurement(scores=with_parts(scores, suite.parts), report=report)


def parent_scores(run: Run, suite: Suite, model: Any, tokenizer: Any, key: str) -> ItemScores:
    """Score the parent, as far as no earlier build has scored it on the same texts and questions.

    Args:
        run: the build; with `force` everything is measured again.
        suite: the texts and questions that are measured.
        model: the parent.
        tokenizer: its tokenizer.
        key: the parent's fingerprint.
    """
    settings = run.settings.evaluation
    opening = choose_opening(model, tokenizer, suite.dev, batch_tokens=settings.batch_tokens, reporter=run.reporter)
    conditions = {
        "model": key,
        "opening": opening.token,
        "tokens": (settings.window, settings.batch_tokens),
        "device": measuring_conditions(run.device),
        "versions": versions(__version__, LIBRARIES),
    }
    measured: list[Suite] = []

    def score(part: Suite) -> ItemScores:
        measured.append(part)
        return scores_of(run, part, model, tokenizer, opening=opening.token)

    scores = evaluate_kept(
        suite,
        score,
        conditions,
        anew=run.options.force,
        reporter=run.reporter,
    )
    if measured != [suite]:
        discount(run.reporter, "measured_parent")
    return replace(scores, opening=opening.text)


def scores_of(run: Run, suite: Suite, model: Any, tokenizer: Any, *, opening: int | None = None) -> ItemScores:
    """Score a model in memory on the build's texts, behind the opening that suits it best, and on its questions.

    Args:
        run: the build.
        suite: the texts and questions that are measured.
        model: the model.
        tokenizer: its tokenizer.
        opening: the token before every text, where it is chosen already.
    """
    settings = run.settings.evaluation
    return evaluate(
        model,
        tokenizer,
        suite,
        batch_tokens=settings.batch_tokens,
        window=settings.window,
        opening=opening,
        reporter=run.reporter,
    )


def _facts(run: Run, suite: Suite, stage: StageName, model: Any, tokenizer: Any, path: Path) -> ModelFacts:
    """Count parameters and bytes, and generate the samples."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    saved = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    # The parent's own file may be of any dtype: count the bytes that the build would save it in.
    size = parameters * DTYPE_BYTES[run.options.dtype] if stage == "parent" else saved
    sample = greedy(model, tokenizer, run.prompt, run.settings.evaluation.sample_tokens)
    samples = continued(run, suite, model, tokenizer)
    return ModelFacts(parameters=parameters, bytes=size, sample=sample, samples=samples)


def continued(run: Run, suite: Suite, model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Continue the suite's beginnings of held-out passages greedily, in batches."""
    if not suite.samples:
        return ()
    prompts = [[prefix_token(tokenizer), *tokenizer.encode(text, add_special_tokens=False)] for text in suite.samples]
    settings = run.settings.evaluation
    texts = decode(
        model,
        tokenizer,
        prompts,
        max_tokens=settings.sample_tokens,
        one_line=False,
        batch_tokens=settings.batch_tokens,
        title="Writing samples",
        reporter=run.reporter,
    )
    return tuple(texts)


def greedy(model: Any, tokenizer: Any, prompt: str, new_tokens: int) -> str:
    """Continue `prompt` greedily by at most `new_tokens` tokens."""
    import torch

    if new_tokens < 1:
        return ""
    ids = [prefix_token(tokenizer), *tokenizer.encode(prompt, add_special_tokens=False)]
    inputs = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))
