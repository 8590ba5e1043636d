"""A domain's held-out text and questions as tasks of EleutherAI's lm-evaluation-harness, which then checks our figures.

The prompt, the choices and the scoring are those of :mod:`minigpt.evaluation`: `acc` is our `accuracy`, `acc_bytes` our
`accuracy_norm`, and `bits_per_byte` of a rolling likelihood ours of the same text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig

from minigpt import assets
from minigpt.domain.config import load_domain
from minigpt.errors import ExportError
from minigpt.evaluation import Suite, evaluate, summarize
from minigpt.evaluation.lm import window_limit
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.exporting.quiet import silence, silence_children
from minigpt.exporting.run import ExportRequest, Written
from minigpt.files import write_jsonl, write_text
from minigpt.models.evaluate import suite_of
from minigpt.progress import Reporter
from minigpt.runtimes import Check
from minigpt.types import Document, MetricResult, QuestionSet

WINDOW = 1024
SLICE = 3
TOLERANCE = 1e-4
"""Largest difference between our figures and lm-eval's on the slice that is checked; both sum float32 logarithms."""
SCRIPT = """\
#!/bin/sh
# sh run.sh MODEL_FOLDER [more options of lm_eval]
model="$(realpath "$1")"; shift; cd "$(dirname "$0")" || exit 1
kind=hf; dtype=,dtype=float32
[ -f "$model/genai_config.json" ] && kind=onnxruntime-genai && dtype=
set -- --model_args "pretrained=$model,max_length={window}$dtype" "$@"
exec lm_eval --model "$kind" --include_path . --tasks {tag} "$@"
"""
METRICS = {"bits_per_byte": "bits_per_byte,none", "accuracy": "acc,none", "accuracy_norm": "acc_bytes,none"}


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write a task and its data for every text and question set of the domain, and score a slice with both programs.

    Raises:
        ExportError: lm-eval's figures differ from ours.
    """
    domain = load_domain(request.domain)
    suite = suite_of(domain, seed=request.seed, limit=request.limit, reporter=reporter)
    tag = f"minigpt_{slug(domain.name)}"
    names = write_tasks(suite, folder, tag)
    positions = AutoConfig.from_pretrained(request.source.path, local_files_only=True).max_position_embeddings
    write_text(folder / "tasks.txt", "".join(f"{name}\n" for name in names.values()))
    write_text(folder / "run.sh", script(min(WINDOW, positions), tag))
    with reporter.stage("Scoring a slice with lm-eval"):
        checks = check_slice(request.source.path, suite)
    for check in checks:
        if not check.passed:
            raise ExportError(f"lm-eval's {check.name} differs from ours by {check.difference:.2g}; nothing was kept.")
    return Written(weights=(), settings={"tag": tag, "window": WINDOW, "tasks": len(names)}, checks=checks)


def script(window: int, tag: str) -> str:
    """A shell script that scores the folder it is given: a plain model, or one in the GenAI format.

    The path is taken before the folder changes to the script's own, where the data files are.
    """
    return SCRIPT.format(window=window, tag=tag)


def write_tasks(suite: Suite, folder: Path, tag: str) -> dict[str, str]:
    """Write YAML and data for every task of the suite; our task names and lm-eval's."""
    names: dict[str, str] = {}
    for task, documents in suite.texts.items():
        names[task] = _write(folder, tag, f"{slug(task)}_text", text_task(), text_rows(documents))
    for task, asked in suite.questions.items():
        names[task] = _write(folder, tag, slug(task), question_task(), question_rows(asked))
    return names


def text_task() -> dict[str, Any]:
    """Rolling likelihood of whole passages."""
    metrics = [{"metric": name} for name in ("bits_per_byte", "word_perplexity")]
    return {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": metrics,
    }


def question_task() -> dict[str, Any]:
    """The likeliest choice, raw and by byte."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": TEMPLATE.replace("{question}", "{{question}}"),
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_bytes"}],
    }


def text_rows(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """One row a passage."""
    return [{"text": document.text, "source": document.source} for document in documents]


def question_rows(asked: QuestionSet) -> list[dict[str, Any]]:
    """One row a question."""
    return [{"question": q.question, "choices": list(q.choices), "answer": q.answer} for q in asked.questions]


def slug(name: str) -> str:
    """A task name as lm-eval and file systems like it."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _write(folder: Path, tag: str, name: str, task: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    named = f"minigpt_{name}"
    write_jsonl(folder / f"{named}.jsonl", rows)
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{named}.jsonl"}}, "test_split": "test"}
    whole = {"task": named, "tag": [tag], **data, **task, "metadata": {"version": 1}}
    write_text(folder / f"{named}.yaml", yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
    return named


def check_slice(model_dir: Path, suite: Suite) -> tuple[Check, ...]:
    """Score the first passages and questions of every task with lm-eval and with minigpt: the differences.

    lm-eval runs on its own Hugging Face class, from the files a user would give it.
    """
    import tempfile

    part = Suite(
        texts={task: documents[:SLICE] for task, documents in suite.texts.items()},
        questions={task: replace(asked, questions=asked.questions[:SLICE]) for task, asked in suite.questions.items()},
    )
    model, tokenizer = assets.load_model(model_dir, dtype="float32"), assets.load_tokenizer(model_dir)
    ours = summarize(evaluate(model, tokenizer, part, window=WINDOW, batch_tokens=WINDOW))
    with tempfile.TemporaryDirectory() as name:
        names = write_tasks(part, Path(name), "slice")
        theirs = lm_eval_figures(model, tokenizer, Path(name), list(names.values()))
    return tuple(_check(result, theirs[names[result.task]]) for result in ours if result.metric in METRICS)


def _check(ours: MetricResult, theirs: Mapping[str, float]) -> Check:
    difference = abs(ours.value - theirs[METRICS[ours.metric]])
    return Check(name=f"{ours.metric} of {ours.task}", against="lm-eval's", difference=difference, tolerance=TOLERANCE)


def lm_eval_figures(model: Any, tokenizer: Any, folder: Path, tasks: list[str]) -> dict[str, dict[str, float]]:
    """What lm-eval finds for the tasks in `folder`: metric by task."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with silence(), silence_children(), contextlib.chdir(folder):
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, max_length=window_limit(model, WINDOW), batch_size=1),
            tasks=tasks,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0,
        )
    results: dict[str, dict[str, float]] = (found or {}).get("results", {})
    return results
