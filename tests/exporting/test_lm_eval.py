"""Export for lm-evaluation-harness: both programs agree, whatever tokens a tokenizer puts before a text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minigpt.evaluation import Suite, evaluate, summarize
from minigpt.exporting.lm_eval import OPENING_SCRIPT, check_slice, run_script, write_tasks
from minigpt.types import Document, Question, QuestionSet
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
