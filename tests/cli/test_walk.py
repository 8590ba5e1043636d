"""The way of a new user by commands alone: a folder of mixed files, a domain, a build, its page, a model to use."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from tests.support.commands import run
from tests.support.mixed import READABLE, UNREADABLE, mixed_folder, table
from tests.support.worlds import SMALL, World, documents, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

REPORTS = 60
SETTINGS = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]


def folder_of(root: Path) -> Path:
    """The mixed folder with a table of reports that is large enough for a build, an exam and a task."""
    folder = mixed_folder(root / "Ward Texts")
    draw = Random(1)
    texts = documents(draw, words(draw, 900), REPORTS)
    rows = [["id", "report"], *([str(number), text] for number, text in enumerate(texts))]
    (folder / "exports" / "Berichte ä.csv").write_text(table(rows), encoding="cp1252")
    exam = [{"question": f"What is {text[:30]}?", "choices": ["a", "b"], "answer": 0} for text in texts[:4]]
    (folder / "exports" / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exam))
    prompts = [{"prompt": f"Report: {text}\nFirst word:", "answer": text.split()[0]} for text in texts[:30]]
    (folder / "first.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    return folder


def ok(*arguments: str) -> str:
    """Output of a command that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, (arguments, result.stderr)
    return result.stdout


def test_from_a_folder_to_a_model_that_answers(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path)
    created = json.loads(ok("init", str(folder), "--name", "ward", "--general", str(world.root / "general"),
                            "--yes", "--json"))  # fmt: skip
    counts = created["counts"]
    assert counts["listed"] - counts["archives"] + counts["inside"] == sum(
        counts[part] for part in ("read", "other", "left_out")
    )
    assert (counts["read"], counts["other"]) == (len(READABLE) + 1, 2)
    assert len(created["skipped"]) == len(UNREADABLE) == counts["left_out"] + counts["parts"]
    assert [item["file"] for item in created["questions"]] == ["exports/exam.jsonl"]
    assert [item["file"] for item in created["tasks"]] == ["first.jsonl"]
    read = sum(item["documents"] for item in created["read"])
    assert read == created["survey"]["documents"]

    stats = json.loads(ok("corpus", "stats", "ward", "--json"))
    lost = read - sum(split["documents"] for split in stats["splits"].values())
    assert 0 < lost <= stats["counts"]["overlaps_questions"]
    kept = sum(split["passages"] for split in stats["splits"].values())
    assert stats["counts"]["read"] == kept + sum(
        count for name, count in stats["counts"].items() if name not in ("read", "dropped_questions")
    )

    build = ("build", "--domain", "ward", "--base", str(world.base), "--preset", "quick", "--device", "cpu", *SETTINGS)
    plan = json.loads(ok(*build, "--plan-only", "--json"))
    assert plan
    report = json.loads(ok(*build, "--json"))
    tasks = {metric["task"] for metric in report["stages"][-1]["metrics"]}
    assert {"ward", "ward/exam", "ward/first"} <= tasks
    folder = tmp_path / "runs" / "ward"
    page = (folder / "report.html").read_text("utf-8")
    assert "Ward" in page and len(page.encode()) <= 1 << 20 and "<script src" not in page and "http-equiv" in page
    assert json.loads((folder / "report.json").read_text("utf-8"))["domain"] == "ward"

    assert ok("generate", str(folder), "--prompt", "The ward", "--max-new-tokens", "4")
    assert "ward" in ok("compare", str(folder), str(folder))
    ok("catalog", "list", "--page", "models.html")
    assert "ward" in (tmp_path / "models.html").read_text("utf-8")
    exported = json.loads(ok("export", str(folder), "--format", "gguf", "--output-dir", "gguf", "--json"))
    assert exported and list((tmp_path / "gguf").glob("*.gguf"))
