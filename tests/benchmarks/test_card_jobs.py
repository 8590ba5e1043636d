"""Jobs on cards: their order, their room, and what a second call does with what a first one left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigpt.files import write_jsonl

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import card_jobs

    yield card_jobs
    sys.modules.pop("card_jobs", None)


def call(folder: Path, jobs: list[dict[str, Any]], *more: str) -> tuple[dict[str, Any], int]:
    """Run a list; return the last line of the output and the exit code."""
    write_jsonl(folder / "jobs.jsonl", jobs)
    command = [sys.executable, str(BENCHMARKS / "card_jobs.py"), str(folder / "jobs.jsonl"), "--work", str(folder)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=120)
    return json.loads(done.stdout.strip().splitlines()[-1]), done.returncode


def test_the_first_job_with_room_begins_on_the_emptiest_card(module: Any) -> None:
    jobs = [module.Job(name="whole", command="", places=0), module.Job(name="small", command="")]
    assert module.next_start(jobs, (), (), {"0": 2, "1": 3}, 3) == (jobs[0], ("1",))
    assert module.next_start(jobs, (), (), {"0": 1, "1": 2}, 3) == (jobs[1], ("1",))
    assert module.next_start(jobs, ("whole",), ("small",), {"0": 3}, 3) is None
    behind = [module.Job(name="b", command="", after=("a",)), module.Job(name="a", command="")]
    assert module.next_start(behind, (), (), {"0": 1}, 3)[0].name == "a"
    assert module.next_start(behind, ("a",), (), {"0": 1}, 3)[0].name == "b"


def test_a_job_of_two_cards_keeps_others_from_taking_the_free_one(module: Any) -> None:
    jobs = [module.Job(name="two", command="", cards=2, places=0), module.Job(name="one", command="")]
    assert module.next_start(jobs, (), (), {"0": 3, "1": 2}, 3) is None
    assert module.next_start(jobs, (), (), {"0": 3, "1": 3}, 3) == (jobs[0], ("0", "1"))
    assert module.next_start(jobs, (), (), {"0": 3}, 3) == (jobs[1], ("0",)), "one card will never be two"


def test_lists_that_cannot_work_are_refused(module: Any, tmp_path: Path) -> None:
    for jobs, words in (
        ([{"name": "a", "command": ""}] * 2, "one name"),
        ([{"name": "a", "command": "", "after": ["b"]}], "called b"),
        ([{"name": "a", "command": "echo {base}"}], "a needs --set base=TEXT"),
    ):
        write_jsonl(tmp_path / "jobs.jsonl", jobs)
        with pytest.raises(ValueError, match=words):
            module.read_jobs([tmp_path / "jobs.jsonl"], {})


def test_a_second_call_does_what_the_first_left(tmp_path: Path) -> None:
    """One job is finished, one fails until a file is there, and one waits for it; each sees its card and its words."""
    jobs: list[dict[str, Any]] = [
        {"words": {"say": "echo {text} $CUDA_VISIBLE_DEVICES"}},
        {"name": "first", "command": "bash -c '{say} >> {work}/first.txt'", "least": 0},
        {"name": "second", "command": "test -e {work}/there", "least": 0},
        {"name": "third", "command": "bash -c '{say} > {work}/third.txt'", "after": ["second"], "least": 0},
    ]
    said, code = call(tmp_path, jobs, "--set", "text=hello", "--cards", "7", "--seconds", "60")
    assert (said["finished"], said["open"], said["failed"], code) == (["first"], ["second", "third"], {"second": 1}, 1)
    (tmp_path / "there").touch()
    said, code = call(tmp_path, jobs, "--set", "text=hello", "--cards", "7", "--seconds", "60")
    assert (said["open"], code) == ([], 0)
    assert (tmp_path / "first.txt").read_text() == (tmp_path / "third.txt").read_text() == "hello 7\n"


def test_a_job_is_all_of_its_command_and_another_command_is_another_job(tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [{"name": "two", "command": "touch {work}/one; test -e {work}/{seen}", "least": 0}]
    assert call(tmp_path, jobs, "--set", "seen=never")[0]["failed"] == {"two": 1}
    assert call(tmp_path, jobs, "--set", "seen=one")[0]["finished"] == ["two"]
    assert call(tmp_path, jobs, "--set", "seen=never")[0]["failed"] == {"two": 1}


def test_jobs_can_be_named_in_another_order_and_rest_on_those_that_are_finished(tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [
        {"name": name, "command": f"echo {name} >> {{work}}/order.txt", "after": after, "least": 0}
        for name, after in (("base", []), ("a", ["base"]), ("b", ["base"]), ("c", []))
    ]
    assert call(tmp_path, jobs, "--only", "base")[0]["finished"] == ["base"]
    said, code = call(tmp_path, jobs, "--only", "b,a", "--places", "1")
    assert (said["finished"], said["open"], code) == (["a", "b", "base"], [], 0)
    assert (tmp_path / "order.txt").read_text().split() == ["base", "b", "a"]
    command = [sys.executable, str(BENCHMARKS / "card_jobs.py"), str(tmp_path / "jobs.jsonl"), "--work", str(tmp_path)]
    for names, words in (("d", "no job is called 'd'"), ("", "no job is called ''")):
        wrong = subprocess.run([*command, "--only", names], capture_output=True, text=True, check=False, timeout=60)
        assert wrong.returncode == 2 and words in wrong.stderr


def test_jobs_whose_groundwork_is_left_out_are_refused(tmp_path: Path) -> None:
    jobs = [{"name": "base", "command": "true"}, {"name": "a", "command": "true", "after": ["base"]}]
    write_jsonl(tmp_path / "jobs.jsonl", jobs)
    command = [sys.executable, str(BENCHMARKS / "card_jobs.py"), str(tmp_path / "jobs.jsonl"), "--work", str(tmp_path)]
    done = subprocess.run([*command, "--only", "a"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "leaves out jobs that are waited for: base" in done.stderr


def test_jobs_wait_for_room_and_take_it_when_others_leave(tmp_path: Path) -> None:
    """One place for three jobs, each of which fails if another one runs; none begins that has too little time."""
    alone = "mkdir {work}/busy && sleep 0.3 && rmdir {work}/busy"
    jobs = [{"name": name, "command": alone, "least": 0} for name in ("a", "b", "c")]
    jobs.append({"name": "late", "command": "touch {work}/late", "least": 1000})
    said, code = call(tmp_path, jobs, "--places", "1", "--seconds", "60")
    assert (said["finished"], said["open"], code) == (["a", "b", "c"], ["late"], 0)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_runner_that_is_stopped_ends_its_jobs(tmp_path: Path, number: signal.Signals) -> None:
    write_jsonl(
        tmp_path / "jobs.jsonl", [{"name": "long", "command": "echo $$ > {work}/pid; exec sleep 100", "least": 0}]
    )
    command = [sys.executable, str(BENCHMARKS / "card_jobs.py"), str(tmp_path / "jobs.jsonl"), "--work", str(tmp_path)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < until
        time.sleep(0.05)
    runner.send_signal(number)
    assert runner.wait(60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_end_of_a_call_interrupts_and_leaves_time_for_a_checkpoint(tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "if (folder / 'checkpoint').exists(): sys.exit(0)\n"
        "try: time.sleep(100)\n"
        "except KeyboardInterrupt: time.sleep(0.5); (folder / 'checkpoint').touch(); raise\n"
    )
    jobs = [{"name": "long", "command": "{python} {work}/long.py {work}", "least": 0}]
    said, code = call(tmp_path, jobs, "--seconds", "23")
    assert (said["open"], said["failed"], code) == (["long"], {}, 0)
    assert (tmp_path / "checkpoint").exists()
    assert call(tmp_path, jobs, "--seconds", "60")[0]["open"] == []


def test_the_lists_are_whole(module: Any) -> None:
    """Every word has a text, and the controls of a table are those of its ticket."""
    values = {"data": "DATA", "base": "BASE", "work": "WORK", "python": "python", "gemma": "GEMMA"}
    jobs = module.read_jobs([BENCHMARKS / "parent_jobs.jsonl", BENCHMARKS / "ticket_jobs.jsonl"], values)
    assert not [
        job.name
        for job in jobs
        if any(f"{{{word}}}" in job.command for word in ("lottery", "deltas", "build", *values))
    ]
    for plan in ("--remaining 0.3", "--remaining 0.2", "--pattern 2:4"):
        arms = [
            job.command.split("--arms ")[1].split()[0]
            for job in jobs
            if plan in job.command and "medical" in job.command
        ]
        assert {"imp", "random", "sparsegpt", "wanda", "magnitude"} <= {arm for part in arms for arm in part.split(",")}
