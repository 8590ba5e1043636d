"""Our numbers are lm-eval's: the same text and questions through its own tasks and model class."""

from __future__ import annotations

import json
import math
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pytest

from minigpt.evaluation import ItemScores, Suite, evaluate, summarize
from minigpt.evaluation.mcq import TEMPLATE, choice_loglikelihoods
from minigpt.types import Document, Question, QuestionSet
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer

pytest.importorskip("lm_eval")

TEXTS = tuple(Document(text=f"{text} " * repeat, source=text) for repeat, text in enumerate(SENTENCES, 1))
NOUNS = ("heart", "court", "fever", "revenue", "statute", "patient")
QUESTIONS = tuple(
    Question(
        question=f"Which word fits number {n}: {SENTENCES[n % 4][: 20 + n]} ...? ",
        choices=(NOUNS[n % 6], f"the {NOUNS[(n + 1) % 6]} of 東京", NOUNS[(n + 2) % 6], "interest income\nand fees")[
            : 2 + n % 3
        ],
        answer=n % 2,
    )
    for n in range(24)
)
TEXT_TASK = """
task: our_text
dataset_path: json
dataset_kwargs: {data_files: {test: $data}, cache_dir: $cache}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]
"""
QUESTION_TASK = """
task: our_questions
dataset_path: json
dataset_kwargs: {data_files: {test: $data}, cache_dir: $cache}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_bytes}]
"""


def lm_eval_results(model: Any, folder: Path, documents: Any, questions: Any) -> dict[str, Any]:
    """Run lm-eval's own task machinery over local files."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    texts = [{"text": document.text} for document in documents]
    question_rows = [{"question": q.question, "choices": q.choices, "answer": q.answer} for q in questions]
    for name, task, rows in (("text", TEXT_TASK, texts), ("questions", QUESTION_TASK, question_rows)):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        paths = {"data": json.dumps(str(data)), "cache": json.dumps(str(folder / "cache"))}
        (folder / f"{name}.yaml").write_text(Template(task).substitute(paths), "utf-8")
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=model, tasks=["our_text", "our_questions"], task_manager=tasks, bootstrap_iters=0, log_samples=True
    )
    assert results is not None
    return results


def check_equal(model: Any, tokenizer: Any, window: int, folder: Path, documents: Any, questions: Any) -> None:
    from lm_eval.models.huggingface import HFLM

    reference = lm_eval_results(
        HFLM(pretrained=model, tokenizer=tokenizer, max_length=window, batch_size=4), folder, documents, questions
    )
    suite = Suite(texts={"d": documents}, questions={"d/q": QuestionSet(name="q", questions=questions)})
    scores: ItemScores = evaluate(model, tokenizer, suite, window=window, batch_tokens=700)
    ours = {result.metric: result.value for result in summarize(scores)}
    text, answers = reference["results"]["our_text"], reference["results"]["our_questions"]
    assert ours["bits_per_byte"] == pytest.approx(text["bits_per_byte,none"], rel=1e-5)
    assert math.log(ours["word_perplexity"]) == pytest.approx(math.log(text["word_perplexity,none"]), rel=1e-5)
    assert ours["accuracy"] == pytest.approx(answers["acc,none"])
    assert ours["accuracy_norm"] == pytest.approx(answers["acc_bytes,none"])
    samples = sorted(reference["samples"]["our_questions"], key=lambda sample: sample["doc_id"])
    loglikelihoods = choice_loglikelihoods(model, tokenizer, questions, window=window)
    for sample, values in zip(samples, loglikelihoods, strict=True):
        np.testing.assert_allclose(values, [value for ((value, _),) in sample["resps"]], rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("window", [48, 256])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_equal_to_lm_eval_on_tiny_models(family: str, window: int, tmp_path: Path) -> None:
    """The narrow window makes texts roll and cuts questions on the left."""
    assert "{question}" in TEMPLATE
    check_equal(tiny_model(family), tiny_tokenizer(), window, tmp_path, TEXTS, QUESTIONS)


@pytest.mark.slow
def test_equal_to_lm_eval_on_the_default_parent(tmp_path: Path) -> None:
    from minigpt import assets

    parent = assets.parent(assets.DEFAULT_BASE)
    model, tokenizer = assets.load_model(parent.path), assets.load_tokenizer(parent.path)
    check_equal(model.float(), tokenizer, 512, tmp_path, TEXTS, QUESTIONS[:20])
