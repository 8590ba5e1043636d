"""Tasks of EleutherAI's lm-evaluation-harness, made of a domain's held-out text and questions.

A slice of them is scored with both programs, so that lm-eval checks our figures.

The prompt, the choices and the scoring are those of :mod:`minigpt.evaluation`: `acc` is our `accuracy`, `acc_bytes` our
`accuracy_norm`, and `bits_per_byte` of a rolling likelihood ours of the same text. Free answers are generated greedily
and scored by a copy of our own module. Texts, with chats, and questions are two calls of lm-eval. Texts stand behind
the model's opening, without the beginning token that some tokenizers add by themselves and that lm-eval would score as
text; questions stand behind whatever the tokenizer adds.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from minigpt import assets
from minigpt.domain.config import load_domain
from minigpt.errors import ExportError
from minigpt.evaluation import Suite, choose_opening, evaluate, summarize
from minigpt.evaluation.lm import window_limit
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.exporting.lm_eval_answers import answer_rows, answer_task, with_functions, write_scoring
from minigpt.exporting.quiet import silence, silence_children
from minigpt.exporting.request import ExportRequest, Written
from minigpt.files import write_jsonl, write_text
from minigpt.metrics import ANSWER_METRICS
from minigpt.models.evaluate import build_suite
from minigpt.progress import Reporter
from minigpt.results import MetricResult
from minigpt.runtimes import Check
from minigpt.transformer.ends import SEPARATORS
from minigpt.types import Document, QuestionSet

# Longest window in tokens; a model with fewer positions gets shorter ones.
WINDOW = 1024
# Documents or questions of each task that are scored with both programs.
SLICE = 3
# Largest difference between our figures and lm-eval's on that slice; both sum float32 logarithms.
TOLERANCE = 1e-4
# Template of `run.sh`.
SCRIPT = """\
#!/bin/sh
# sh run.sh MODEL_FOLDER [more options of lm_eval]
# Texts stand behind the token that suits the exported model best. For another model give the one that `minigpt eval`
# names, a line end as \\n: OPENING='<|endoftext|>' sh run.sh MODEL_FOLDER
model="$(realpath "$1")"; shift; cd "$(dirname "$0")" || exit 1
opening={opening}
if [ -f "$model/genai_config.json" ]; then
    # lm-eval always reads such a model behind its bos token.
    exec lm_eval --model onnxruntime-genai --model_args "pretrained=$model,max_length={window}" \\
        --include_path . --tasks {tag} "$@"
fi
prefix="$(python3 opening.py "$model" "${{OPENING:-$opening}}")" || exit 1
arguments="pretrained=$model,max_length={window},dtype=float32"
lm_eval --model hf --model_args "$arguments,add_bos_token=False,prefix_token_id=$prefix" \\
    --include_path . --tasks {tag}_{texts} "$@" || exit 1
"""
# Lines that follow where there are questions.
QUESTIONS_SCRIPT = """\
exec lm_eval --model hf --model_args "$arguments" --include_path . --tasks {tag}_{questions} "$@"
"""
# `opening.py`, which `run.sh` calls: ids of one token differ between vocabularies.
OPENING_SCRIPT = """\
import sys

from transformers import AutoTokenizer

folder, text = sys.argv[1:]
text = text.replace("\\\\n", "\\n")
ids = AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
if len(ids) != 1:
    sys.exit(f"{text!r} is not one token of this model; name its opening: OPENING=... sh run.sh MODEL_FOLDER")
print(ids[0])
"""
# Tags of the tasks that are scored in one call of lm-eval.
TEXTS, QUESTIONS = "texts", "questions"
# Name of each checked metric in lm-eval's results.
METRICS = {
    "bits_per_byte": "bits_per_byte,none",
    "accuracy": "acc,none",
    "accuracy_norm": "acc_bytes,none",
    **{name: f"{name},none" for name in ANSWER_METRICS},
}


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write a task and its data for every text and question set of the domain, and score a slice with both programs.

    Raises:
        ExportError: lm-eval's figures differ from ours.
    """
    domain = load_domain(request.domain)
    suite = build_suite(
        domain, seed=request.seed, limit=request.limit, max_documents=request.max_documents, reporter=reporter
    )
    tag = f"minigpt_{slug(domain.name)}"
    names = write_tasks(suite, folder, tag, assets.load_tokenizer(request.source.path))
    write_text(folder / "tasks.txt", "".join(f"{name}\n" for name in names.values()))
    with reporter.stage("Scoring a slice with lm-eval"):
        model, tokenizer = (
            assets.load_model(request.source.path, dtype="float32"),
            assets.load_tokenizer(request.source.path),
        )
        opening = choose_opening(model, tokenizer, suite.dev, batch_tokens=WINDOW)
        checks = check_slice(model, tokenizer, suite, opening.token)
    script = run_script(
        window_limit(model, WINDOW), tag, opening.text, asks=bool(suite.questions) or bool(plain_answers(suite))
    )
    write_text(folder / "run.sh", script)
    write_text(folder / "opening.py", OPENING_SCRIPT)
    for check in checks:
        if not check.passed:
            raise ExportError(f"lm-eval's {check.name} differs from ours by {check.difference:.2g}; nothing was kept.")
    settings: dict[str, str | int] = {"tag": tag, "window": WINDOW, "tasks": len(names), "opening": opening.text}
    return Written(weights=(), settings=settings, checks=checks)


def run_script(window: int, tag: str, opening: str, *, asks: bool) -> str:
    """Fill in the shell script that scores the folder it is given: a plain model, or one in the GenAI format.

    The script resolves the path before it changes to its own folder, where the data files are.

    Args:
        window: longest window in tokens.
        tag: lm-eval's tag of all tasks.
        opening: text of the token before every text.
        asks: whether there are questions.
    """
    script = SCRIPT + (QUESTIONS_SCRIPT if asks else "")
    quoted = shlex.quote(opening.replace("\n", "\\n"))
    return script.format(window=window, tag=tag, opening=quoted, texts=TEXTS, questions=QUESTIONS)


def write_tasks(suite: Suite, folder: Path, tag: str, tokenizer: Any = None) -> dict[str, str]:
    """Write YAML and data for every task of the suite.

    Args:
        suite: texts and question sets by task.
        folder: where the files go.
        tag: lm-eval's tag of all tasks.
        tokenizer: the tokenizer whose chat template and end tokens tasks with free answers have.

    Returns:
        lm-eval's name of each of our tasks.
    """
    names: dict[str, str] = {}
    for task, documents in suite.texts.items():
        names[task] = _write_task(folder, (tag, TEXTS), f"{slug(task)}_text", text_task(), text_rows(documents))
    for task, questions in suite.questions.items():
        names[task] = _write_task(folder, (tag, QUESTIONS), slug(task), question_task(), question_rows(questions))
    if suite.answers:
        write_scoring(folder)
        ends = sorted({str(tokenizer.eos_token)} | (SEPARATORS & set(map(str, tokenizer.all_special_tokens))))
        for task, item in suite.answers.items():
            # A chat template has put its own marks before the prompt, so that no other one may be added.
            kind, rows = (TEXTS if item.chat else QUESTIONS), answer_rows(item, tokenizer)
            names[task] = _write_task(folder, (tag, kind), slug(task), answer_task(item, ends), rows)
    return names


def plain_answers(suite: Suite) -> list[str]:
    """List the tasks with free answers whose prompts are no chats."""
    return [task for task, item in suite.answers.items() if not item.chat]


def text_task() -> dict[str, Any]:
    """Define a task that scores the rolling likelihood of whole passages."""
    metrics = [{"metric": name} for name in ("bits_per_byte", "word_perplexity")]
    return {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": metrics,
    }


def question_task() -> dict[str, Any]:
    """Define a task that picks the likeliest choice, by likelihood as it is and by byte."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": TEMPLATE.replace("{question}", "{{question}}"),
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_bytes"}],
    }


def text_rows(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """List one row for each passage."""
    return [{"text": document.text, "source": document.source} for document in documents]


def question_rows(questions: QuestionSet) -> list[dict[str, Any]]:
    """List one row for each question."""
    return [
        {"question": item.question, "choices": list(item.choices), "answer": item.answer}
        for item in questions.questions
    ]


def slug(name: str) -> str:
    """Turn a name into one that lm-eval and file systems accept."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _write_task(
    folder: Path, tags: tuple[str, str], name: str, task: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Write data and definition of one task, and return its name in lm-eval.

    Args:
        folder: where the files go.
        tags: lm-eval's tag of all tasks, and the kind of this one.
        name: the task's name.
        task: its definition without data.
        rows: its data.
    """
    full_name = f"minigpt_{name}"
    data_file = f"{full_name}.jsonl"
    write_jsonl(folder / data_file, rows)
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": data_file}}, "test_split": "test"}
    definition = {"task": full_name, "tag": [tags[0], "_".join(tags)], **data, **task, "metadata": {"version": 1}}
    text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
    write_text(folder / f"{full_name}.yaml", with_functions(text))
    return full_name


def check_slice(model: Any, tokenizer: Any, suite: Suite, opening: int) -> tuple[Check, ...]:
    """Score the first passages and questions of every task with lm-eval and with minigpt, and compare.

    lm-eval runs on its own Hugging Face class, from the files that a user would give it.

    Args:
        model: the loaded model, in float32.
        tokenizer: its tokenizer.
        suite: texts and question sets by task.
        opening: id of the token before every text.

    Returns:
        One check for each metric of each task.
    """
    part = Suite(
        texts={task: documents[:SLICE] for task, documents in suite.texts.items()},
        questions={task: replace(full, questions=full.questions[:SLICE]) for task, full in suite.questions.items()},
        answers={task: replace(full, prompts=full.prompts[:SLICE]) for task, full in suite.answers.items()},
    )
    results = summarize(evaluate(model, tokenizer, part, window=WINDOW, batch_tokens=WINDOW, opening=opening))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = write_tasks(part, folder, "slice", tokenizer)
        plain = plain_answers(part)
        chats = [task for task in part.answers if task not in plain]
        texts, questions = (
            [names[task] for task in tasks] for tasks in ([*part.texts, *chats], [*part.questions, *plain])
        )
        reference = lm_eval_results(model, tokenizer, folder, texts, add_bos_token=False, prefix_token_id=opening)
        if questions:
            reference |= lm_eval_results(model, tokenizer, folder, questions)
    return tuple(_check(result, reference[names[result.task]]) for result in results if result.metric in METRICS)


def _check(result: MetricResult, reference: Mapping[str, float]) -> Check:
    """Compare one of our figures with lm-eval's figures of the same task."""
    difference = abs(result.value - reference[METRICS[result.metric]])
    return Check(
        name=f"{result.metric} of {result.task}", against="lm-eval's", difference=difference, tolerance=TOLERANCE
    )


def lm_eval_results(
    model: Any, tokenizer: Any, folder: Path, tasks: list[str], **options: Any
) -> dict[str, dict[str, float]]:
    """Score the tasks in `folder` with lm-eval.

    Args:
        model: the loaded model.
        tokenizer: its tokenizer.
        folder: the folder with the tasks' files.
        tasks: lm-eval's names of the tasks.
        **options: of lm-eval's Hugging Face class.

    Returns:
        Metrics by task, each under lm-eval's names.
    """
    # lm-eval belongs to the extra of that name.
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with silence(), silence_children(), contextlib.chdir(folder):
        answer = lm_eval.simple_evaluate(
            model=HFLM(
                pretrained=model,
                tokenizer=tokenizer,
                max_length=window_limit(model, WINDOW),
                batch_size=1,
                **options,
            ),
            tasks=tasks,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0,
        )
    results: dict[str, dict[str, float]] = (answer or {}).get("results", {})
    return results
