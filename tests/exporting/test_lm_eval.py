"""Export for lm-evaluation-harness: both programs agree, whatever tokens a tokenizer puts before a text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minigpt.evaluation import Suite, evaluate, scoring, summarize
from minigpt.exporting.lm_eval import OPENING_SCRIPT, check_slice, run_script, write_tasks
from minigpt.types import AnswerTask, Constraint, Document, Prompt, Question, QuestionSet
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer

pytest.importorskip("lm_eval")

SUITE = Suite(
    texts={"d": tuple(Document(text=text, source=text) for text in ("\nA line end first.", *SENTENCES))},
    questions={
        "d/q": QuestionSet(
            name="q",
            questions=(
                Question(question="What pumps blood?", choices=("the heart", "the court", "a fever"), answer=0),
                Question(question="What rose?", choices=("revenue", "interest income"), answer=0),
            ),
        )
    },
)


ANSWERS = replace(
    SUITE,
    questions={},
    answers={
        "d/label": AnswerTask(
            name="label",
            prompts=tuple(
                Prompt(prompt=f"{text}\nAnswer:", answers=(label,), choices=("a", "b"))
                for text, label in (("Who?", "a"), ("The heart", "b"), ("Why is it so?", "a"))
            ),
            train=(Prompt(prompt="When?\nAnswer:", answers=("b",)),),
            metrics=("exact_match", "token_f1", "label_f1", "rouge_l"),
            max_tokens=6,
            shots=1,
        ),
        "general/say": AnswerTask(
            name="say",
            prompts=(
                Prompt(prompt="Say it.", constraints=(Constraint(kind="words_at_least", value=2),)),
                Prompt(
                    prompt="Again?", constraints=(Constraint(kind="no_commas"), Constraint(kind="contains", value="x"))
                ),
            ),
            metrics=(),
            max_tokens=6,
            chat=True,
        ),
    },
)


def tokenizer_that_adds_bos() -> Any:
    """The tiny tokenizer with the post-processor of Llama 3, which puts bos before every text."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


@pytest.mark.slow
@pytest.mark.parametrize("opening", ["<|im_start|>", "<|endoftext|>", "\n"])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_both_programs_agree_behind_every_opening(adds_bos: bool, opening: str) -> None:
    tokenizer = tokenizer_that_adds_bos() if adds_bos else tiny_tokenizer()
    token = tokenizer.encode(opening, add_special_tokens=False)[0]
    assert (tokenizer.encode("a")[0] == tokenizer.bos_token_id) == adds_bos
    checks = check_slice(tiny_model(), tokenizer, SUITE, token)
    assert {check.name for check in checks} == {"bits_per_byte of d", "accuracy of d/q", "accuracy_norm of d/q"}
    assert all(check.passed for check in checks), checks


@pytest.mark.slow
@pytest.mark.parametrize("adds_bos", [False, True])
def test_both_programs_agree_on_free_answers(adds_bos: bool) -> None:
    tokenizer = tokenizer_that_adds_bos() if adds_bos else tiny_tokenizer()
    tokenizer.chat_template = tiny_tokenizer().chat_template
    checks = check_slice(tiny_model(), tokenizer, ANSWERS, tokenizer.bos_token_id)
    names = {check.name for check in checks}
    own = ("exact_match", "token_f1", "label_f1", "rouge_l", "format_compliance")
    said = ("instructions_followed", "constraints_followed")
    expected = {f"{name} of d/label" for name in own} | {f"{name} of general/say" for name in said}
    assert names == {"bits_per_byte of d"} | expected
    assert all(check.passed for check in checks), checks


def test_the_files_of_free_answers_name_their_functions(tmp_path: Path) -> None:
    names = write_tasks(ANSWERS, tmp_path, "minigpt_d", tiny_tokenizer())
    text = (tmp_path / f"{names['d/label']}.yaml").read_text()
    assert "process_results: !function scoring.process_results" in text
    assert "aggregation: !function scoring.aggregate_labels" in text
    first = json.loads((tmp_path / f"{names['d/label']}.jsonl").read_text().splitlines()[0])
    assert first["prompt"] == "When?\nAnswer: b\n\nWho?\nAnswer:"
    said = json.loads((tmp_path / f"{names['general/say']}.jsonl").read_text().splitlines()[0])
    assert said["prompt"].startswith("<|im_start|>user")
    assert (tmp_path / "scoring.py").read_text() == Path(scoring.__file__).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_script_gives_our_figures(adds_bos: bool, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tokenizer_that_adds_bos() if adds_bos else tiny_tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    names = write_tasks(SUITE, tasks, "minigpt_d")
    (tasks / "run.sh").write_text(run_script(256, "minigpt_d", "\n", asks=True))
    (tasks / "opening.py").write_text(OPENING_SCRIPT)
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "run.sh", str(tmp_path / "model"), "--device", "cpu"],
        cwd=tasks,
        env={**os.environ, "PATH": paths, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (token,) = tokenizer.encode("\n", add_special_tokens=False)
    ours = {
        (item.task, item.metric): item.value for item in summarize(evaluate(model, tokenizer, SUITE, opening=token))
    }
    cells = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if "|" in line]
    shown = {row[5]: float(row[7]) for row in cells if len(row) > 8 and row[5] in {"bits_per_byte", "acc", "acc_bytes"}}
    assert names == {"d": "minigpt_d_text", "d/q": "minigpt_d_q"}
    assert shown["bits_per_byte"] == pytest.approx(ours["d", "bits_per_byte"], abs=2e-4)
    assert shown["acc"] == pytest.approx(ours["d/q", "accuracy"], abs=1e-4)


def test_the_script_quotes_its_opening_and_asks_only_where_there_are_questions() -> None:
    script = run_script(128, "minigpt_d", "it's", asks=False)
    assert """opening='it'"'"'s'""" in script
    assert "minigpt_d_texts" in script
    assert "minigpt_d_questions" not in script
    assert "opening='\\n'" in run_script(128, "minigpt_d", "\n", asks=True)
