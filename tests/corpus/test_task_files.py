"""Task files in a user's folder become tasks, not text; `corpus show` and `corpus stats` count their prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.corpus.task_files import task_files, tasks_sentence
from minigpt.corpus.tasks import MEASURED
from tests.support.commands import run
from tests.support.mixed import prose

DIAGNOSES = [{"prompt": f"Letter {number} tells of a cough.\nDiagnosis:", "answer": "asthma"} for number in range(60)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty letters and a file of prompts in a folder below them."""
    monkeypatch.chdir(tmp_path)
    letters = tmp_path / "letters"
    letters.mkdir()
    for number in range(40):
        (letters / f"{number}.txt").write_text(prose(number, 300))
    write(letters / "tasks" / "Diagnosis.jsonl", DIAGNOSES)
    return letters


def test_only_prompts_with_answers_and_no_text_are_tasks(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "p", "answers": ["x", "y"]}, {"prompt": "q", "answer": 7}])
    write(tmp_path / "text.jsonl", [{"prompt": "p", "answer": "x", "text": "A text."}])
    write(tmp_path / "half.jsonl", [{"prompt": "p", "answer": "x"}, {"prompt": "q"}])
    write(tmp_path / "rows.jsonl", [{"text": "A text."}])
    write(tmp_path / "mcq_exam.jsonl", [{"prompt": "p", "answer": "x"}])
    write(tmp_path / ".hidden" / "b.jsonl", [{"prompt": "p", "answer": "x"}])
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "empty.jsonl").write_text("")
    files = task_files(tmp_path, [tmp_path / "mcq_exam.jsonl"])
    assert [(task.config.name, task.file, task.prompts) for task in files.tasks] == [("a", "a.jsonl", 2)]
    assert not files.skipped


def test_what_looks_like_a_task_and_is_none_is_left_out_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "twice.jsonl", [{"prompt": "p", "answer": "x"}] * 2)
    write(tmp_path / "gap.jsonl", [{"prompt": "p", "answer": "x"}, {"prompt": "", "answer": "x"}])
    files = task_files(tmp_path)
    assert not files.tasks
    reasons = {item.file: item.reason for item in files.skipped}
    assert "has a prompt twice" in reasons["twice.jsonl"]
    assert reasons["gap.jsonl"].endswith("gap.jsonl, line 2: the prompt is empty.")
    assert str(tmp_path) not in "".join(reasons.values())


def test_names_are_free_and_long_answers_are_scored_as_text(tmp_path: Path) -> None:
    row = {"prompt": "p", "answer": "x"}
    for name in ("Other", "exam", "a/x", "b/x"):
        write(tmp_path / f"{name}.jsonl", [row])
    write(tmp_path / "summary.jsonl", [{"prompt": "p", "answer": "word " * 30}])
    tasks = {task.file: task.config for task in task_files(tmp_path, names=["exam"]).tasks}
    assert tasks["Other.jsonl"].name == "other-2" and tasks["exam.jsonl"].name == "exam-2"
    assert {tasks["a/x.jsonl"].name, tasks["b/x.jsonl"].name} == {"x", "x-2"}
    assert tasks["summary.jsonl"].metrics == ("token_f1", "rouge_l")
    assert tasks["summary.jsonl"].max_tokens == (30 * len("word ") - 1) // 2
    assert tasks["a/x.jsonl"].metrics == () and tasks["a/x.jsonl"].max_tokens == 24


def test_a_folder_with_prompts_gets_a_task_and_a_sentence(folder: Path) -> None:
    created = run("domains", "new", "ward", "--from", "letters")
    assert created.exit_code == 0, created.stderr
    words = " ".join(created.stdout.split())
    assert "became a task with free answers, not text: diagnosis (60 prompts of tasks/Diagnosis.jsonl)" in words
    assert "Diagnosis:" not in (folder.parent / "domains/ward.texts/texts.jsonl").read_text()
    assert run("domains", "validate", "ward").exit_code == 0
    shown = json.loads(run("corpus", "show", "ward", "--json").stdout)["tasks"]
    counted = json.loads(run("corpus", "show", "ward", "--count", "--json").stdout)["tasks"]
    assert shown == counted
    (task,) = shown
    assert (task["name"], task["prompts"], task["derived"]) == ("diagnosis", 60, False)
    assert task["metrics"] == ["exact_match", "token_f1"]
    assert task["train"] + task["heldout"] == 60 and 0 < task["heldout"] < 2 * 60 / MEASURED
    stats = " ".join(run("corpus", "stats", "ward").stdout.split())
    assert f"diagnosis {task['heldout']} {task['train']} exact_match, token_f1" in stats
    assert "held-out prompts; a report judges nothing" not in stats
    assert "40 passages read." in stats


def test_a_task_with_few_held_out_prompts_is_said_to_be_too_small(folder: Path) -> None:
    write(folder / "tasks" / "Diagnosis.jsonl", DIAGNOSES[:2])
    assert run("domains", "new", "ward", "--from", "letters").exit_code == 0
    stats = " ".join(run("corpus", "stats", "ward").stdout.split())
    assert "held-out prompts; a report judges nothing by fewer than 10. Add more." in stats


def test_prompts_that_follow_documents_are_counted_with_the_text(folder: Path) -> None:
    rows = [row | {"source": f"{number % 40}.txt"} for number, row in enumerate(DIAGNOSES)]
    write(folder / "tasks" / "Diagnosis.jsonl", rows)
    assert run("domains", "new", "ward", "--from", "letters").exit_code == 0
    (task,) = json.loads(run("corpus", "show", "ward", "--json").stdout)["tasks"]
    assert (task["prompts"], task["train"], task["heldout"]) == (60, None, None)
    words = " ".join(run("corpus", "show", "ward").stdout.split())
    assert "60 – – exact_match, token_f1" in words and "`minigpt corpus show ward --count`" in words
    (task,) = json.loads(run("corpus", "show", "ward", "--count", "--json").stdout)["tasks"]
    assert task["heldout"] and task["train"]


def test_rules_are_listed_with_their_metrics_before_the_text_is_read() -> None:
    tasks = {task["name"]: task for task in json.loads(run("corpus", "show", "medical", "--json").stdout)["tasks"]}
    assert tasks["kind"]["origin"] == "rule kind" and tasks["kind"]["metrics"] == ["exact_match", "label_f1"]
    assert tasks["define"]["derived"] and tasks["define"]["prompts"] is None


def test_init_says_that_prompts_became_a_task_and_counts_personal_data_in_them(folder: Path) -> None:
    write(folder / "tasks" / "Diagnosis.jsonl", [{"prompt": "Write to jo@example.org?", "answer": "no"}])
    data = json.loads(run("init", "letters", "--name", "ward", "--yes", "--json").stdout)
    assert data["tasks"] == [{"name": "diagnosis", "file": "tasks/Diagnosis.jsonl", "prompts": 1}]
    assert data["survey"]["documents"] == 40
    assert data["survey"]["personal"]["e-mail addresses"] == {"documents": 1, "places": 1}


def test_a_folder_with_declared_splits_may_have_tasks(folder: Path) -> None:
    for split in ("train", "heldout"):
        write(folder / f"corpus_{split}.jsonl", [{"text": prose(f"{split}{number}")} for number in range(20)])
    data = json.loads(run("domains", "new", "ward", "--from", "letters", "--json").stdout)
    assert [task["name"] for task in data["tasks"]] == ["diagnosis"]
    assert not any("Diagnosis" in item["file"] for item in data["skipped"])


def test_no_sentence_without_tasks() -> None:
    assert tasks_sentence(()) == ""
