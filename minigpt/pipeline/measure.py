"""Measure a model of the build: items for paired comparison, size, and a sample of what it writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.evaluation import ItemScores, evaluate, load_scores, save_scores, summarize
from minigpt.files import fingerprint, read_json, write_json
from minigpt.pipeline.context import Context
from minigpt.types import MetricResult, StageName, StageReport, Training

SCORES = "scores.json"
FACTS = "facts.json"
TITLES = {
    "parent": "Evaluating the parent",
    "parent_tuned": "Evaluating the tuned parent",
    "pruned": "Evaluating the pruned model",
    "healed": "Evaluating the healed model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a model besides its scores."""

    parameters: int
    bytes: int
    sample: str


def scored(context: Context, model: Any, tokenizer: Any) -> ItemScores:
    """The items of a model in memory on the build's texts and questions."""
    chosen = context.settings.evaluation
    return evaluate(
        model,
        tokenizer,
        context.suite,
        batch_tokens=chosen.batch_tokens,
        window=chosen.window,
        reporter=context.reporter,
    )


def measure(context: Context, stage: StageName, model_dir: Path, key: str) -> tuple[ItemScores, StageReport]:
    """Evaluate the model saved in `model_dir` (never one in memory: what is shipped is what is measured)."""

    def make(folder: Path) -> None:
        with context.reporter.stage(TITLES[stage]):
            model, tokenizer = context.load(model_dir), assets.load_tokenizer(model_dir)
            save_scores(scored(context, model, tokenizer), folder / SCORES)
            write_json(folder / FACTS, facts(model, tokenizer, model_dir, context))

    name = fingerprint(key, context.suite, context.settings.evaluation, context.prompt, context.options.dtype)
    folder, done = context.workspace.stage(f"measured_{stage}", name, make)
    scores, found = load_scores(folder / SCORES), read_json(folder / FACTS, Facts)
    report = StageReport(
        stage=stage,
        parameters=found.parameters,
        bytes=found.bytes,
        seconds=done.seconds,
        metrics=(),
        sample=found.sample,
    )
    return scores, report


def with_metrics(
    report: StageReport,
    scores: ItemScores,
    *,
    parent: ItemScores | None = None,
    seed: int,
    seconds: float = 0.0,
    training: Training | None = None,
) -> StageReport:
    """The stage's report with its metrics, paired with the parent's items where they are given."""
    metrics = summarize(scores, parent=parent, seed=seed)
    return replace(report, metrics=metrics, training=training, seconds=report.seconds + seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The items a pruned model is paired with: the parent's and, where there is one, the tuned parent's."""

    parent: ItemScores
    tuned: ItemScores | None
    same_vocabulary: bool

    def applied(
        self,
        report: StageReport,
        scores: ItemScores,
        *,
        seed: int,
        seconds: float = 0.0,
        training: Training | None = None,
    ) -> StageReport:
        """The stage's report with differences to both; none for token perplexity across vocabularies."""
        made = with_metrics(report, scores, parent=self.parent, seed=seed, seconds=seconds, training=training)
        tuned = summarize(scores, parent=self.tuned, seed=seed) if self.tuned is not None else made.metrics
        metrics = tuple(
            replace(
                ours,
                paired_difference_vs_parent=ours.paired_difference_vs_parent if self._comparable(ours) else None,
                paired_difference_vs_tuned=theirs.paired_difference_vs_parent
                if self.tuned is not None and self._comparable(ours)
                else None,
            )
            for ours, theirs in zip(made.metrics, tuned, strict=True)
        )
        return replace(made, metrics=metrics)

    def _comparable(self, result: MetricResult) -> bool:
        return self.same_vocabulary or result.metric != "token_perplexity"


def facts(model: Any, tokenizer: Any, model_dir: Path, context: Context) -> Facts:
    """Parameters (tied weights once), bytes of the weights as the build saves them, and a sample."""
    from minigpt.planning.target import DTYPE_BYTES

    parameters = sum(parameter.numel() for parameter in model.parameters())
    saved = sum(path.stat().st_size for path in model_dir.glob("*.safetensors"))
    inherited = model_dir == context.parent.path
    size = parameters * DTYPE_BYTES[context.options.dtype] if inherited else saved
    sample = greedy(model, tokenizer, context.prompt, context.settings.evaluation.sample_tokens)
    return Facts(parameters=parameters, bytes=size, sample=sample)


def greedy(model: Any, tokenizer: Any, prompt: str, new_tokens: int) -> str:
    """The greedy continuation of `prompt`."""
    import torch

    if new_tokens < 1:
        return ""
    from minigpt.transformer.packing import prefix_token

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
