"""Curation: the result is that of one process with all text in memory, whatever the workers and however they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from minigpt import files
from minigpt.corpus import build_corpus
from minigpt.curation import curate, reading, steps
from minigpt.curation.plan import Wishes
from minigpt.curation.run import WORK
from minigpt.domain.config import load_domain
from minigpt.errors import ConfigError, CorpusError, MiniGPTError
from tests.support.commands import run
from tests.support.shelves import domain_file, shelf

# Small shards, so that little text makes several of them.
SMALL = Wishes(shard_bytes=100_000)
SPLITS = ("train", "dev", "heldout", "other", "calibration")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curation")
    domain_file(shelf(root / "texts"), root / "shelf.yaml")
    return root


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: no test cuts the power."""
    monkeypatch.setattr(files, "_sync_tree", lambda path: None)
    monkeypatch.setattr(files, "sync_folder", lambda path: None)


@pytest.fixture(scope="module")
def curated(place: Path) -> Path:
    curate(load_domain(str(place / "shelf.yaml")), place / "curated", wishes=SMALL)
    return place / "curated"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_build_reads_the_same_corpus_as_from_the_text_itself(place: Path, curated: Path) -> None:
    direct, read = build_corpus(load_domain(str(place / "shelf.yaml"))), build_corpus(load_domain(str(curated)))
    for split in SPLITS:
        documents, others = getattr(direct, split), getattr(read, split)
        assert documents == others, split
        assert [item.ends for item in documents] == [item.ends for item in others]
    record = json.loads((curated / "curation.json").read_text())
    assert record["counts"] == direct.counts
    assert direct.counts["exact_duplicates"] > 10 and direct.counts["near_duplicates"] > 40
    sizes = {name.removeprefix("corpus_"): size for name, size in record["splits"].items()}
    assert sizes["heldout"]["passages"] == len(direct.heldout)
    assert sizes["train"]["passages"] == len(direct.train) + len(direct.calibration)
    assert {item.license for item in read.attributions} == {"CC0"}
    assert not (curated / WORK).exists()


@pytest.mark.parametrize("workers", [2, 8])
def test_the_result_does_not_depend_on_the_number_of_workers(place: Path, curated: Path, workers: int) -> None:
    output = place / f"workers-{workers}"
    curate(load_domain(str(place / "shelf.yaml")), output, wishes=SMALL, workers=workers)
    assert content(output) == content(curated)


def command(place: Path, output: Path) -> list[str]:
    small = (
        f"from minigpt.curation import plan; plan.Wishes.__init__.__kwdefaults__['shard_bytes'] = {SMALL.shard_bytes}"
    )
    call = "from minigpt.cli import main; main()"
    arguments = ["corpus", "curate", str(place / "shelf.yaml"), "-o", str(output), "--workers", "2", "--json"]
    guard = "if __name__ == '__main__':"
    return [sys.executable, "-c", f"{small}\n{guard}\n    {call}", *arguments]


def test_a_killed_worker_is_named_and_the_same_command_goes_on(place: Path, curated: Path) -> None:
    output = place / "killed"
    process = subprocess.Popen(command(place, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((output / WORK / "log" / "read").glob("completions/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any("forkserver" in part for part in child.cmdline()) and not child.children()
    ]
    workers[-1].send_signal(signal.SIGKILL)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1 and "worker was killed" in words and "run the same command again" in words, words
    assert not (output / "curation.json").exists()
    again = subprocess.run(command(place, output), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["splits"]["corpus_train"]["documents"] > 100
    assert content(output) == content(curated)


@pytest.mark.parametrize("stage", [name for name in steps.STEPS if name not in ("score", "choose")])
def test_a_process_that_ends_in_any_stage_loses_no_finished_task(
    place: Path, curated: Path, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = load_domain(str(place / "shelf.yaml"))
    original, calls = steps.STEPS[stage], []

    def ends(*arguments: object) -> None:
        calls.append(arguments[1])
        if len(calls) == min(2, 1 if stage in ("decide", "split", "measured") else 2):
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setitem(steps.STEPS, stage, ends)
    with pytest.raises(KeyboardInterrupt):
        curate(domain, tmp_path / "out", wishes=SMALL)
    done = list(calls[:-1])
    monkeypatch.setitem(steps.STEPS, stage, lambda *arguments: (calls.append(arguments[1]), original(*arguments)))
    calls.clear()
    curate(domain, tmp_path / "out", wishes=SMALL)
    assert not set(done) & set(calls) or stage in ("pairs", "verify", "decide")
    assert content(tmp_path / "out") == content(curated)


def test_a_task_writes_what_it_reads_in_pieces(
    place: Path, curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SPILL", 5_000)
    curate(load_domain(str(place / "shelf.yaml")), tmp_path / "out", wishes=SMALL)
    assert content(tmp_path / "out") == content(curated)


def test_declared_splits_questions_and_other_sources_are_kept(tmp_path: Path) -> None:
    question = {"question": "Which word is it?", "choices": ["banela", "detore"], "answer": 0}
    shelf(tmp_path / "texts", 120)
    shelf(tmp_path / "apart", 30, seed=5)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "dev.jsonl").write_text("\n".join((tmp_path / "apart" / "a.jsonl").read_text().split("\n")[:9]))
    (tmp_path / "exam.jsonl").write_text(json.dumps(question))
    more = (
        f"  - name: away\n    file: {tmp_path / 'apart'}\n    split: other\n"
        f"  - name: dev text\n    file: {tmp_path / 'dev'}\n    split: dev\n    limit: 4\n"
        f"questions:\n  - name: exam\n    file: {tmp_path / 'exam.jsonl'}\n"
    )
    domain = load_domain(str(domain_file(tmp_path / "texts", tmp_path / "x.yaml", more=more)))
    curate(domain, tmp_path / "out", wishes=Wishes(shard_bytes=20_000, seed=3))
    direct, read = build_corpus(domain, seed=3), build_corpus(load_domain(str(tmp_path / "out")), seed=3)
    for split in SPLITS:
        assert set(getattr(direct, split)) == set(getattr(read, split)), split
    assert read.other and direct.questions == read.questions
    assert [item.name for item in read.attributions if item.measured_only] == ["shelf (heldout)", "away (other)"]


def test_irrelevant_documents_are_dropped_as_in_a_build(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from minigpt.curation import pool

    class Letters:
        """Vectors from the numbers of two words."""

        def encode(self, texts: list[str]) -> object:
            counts = np.array([[text.count("ba") + 1.0, text.count("ki") - 1.0] for text in texts], np.float32)
            return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    monkeypatch.setattr(pool, "encoder_of", Letters)
    monkeypatch.setattr("minigpt.corpus.relevance.FLOOR", 0.5)
    monkeypatch.setattr(pool, "FLOOR", 0.97)
    monkeypatch.setattr("minigpt.corpus.relevance.irrelevant.__kwdefaults__", {"floor": 0.97, "tail": 0.25})
    domain = load_domain(str(domain_file(place / "texts", tmp_path / "x.yaml", more="seeds: [ba ba ki, ki]\n")))
    record = curate(domain, tmp_path / "out", wishes=Wishes(shard_bytes=100_000, relevance=True))
    direct = build_corpus(domain, relevance=True, encoder=Letters())
    read = build_corpus(load_domain(str(tmp_path / "out")))
    assert record.counts["irrelevant"] == direct.counts["irrelevant"] > 0
    assert {*direct.train, *direct.calibration} == {*read.train, *read.calibration}


def test_the_command_takes_a_folder_and_prints_what_is_done(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run("corpus", "curate", str(place / "texts"), "-o", str(output), "--workers", "1", "--json")
    assert first.exit_code == 0, first.stderr
    stamp = (output / "curation.json").stat().st_mtime_ns
    again = run("corpus", "curate", str(place / "texts"), "-o", str(output), "--json")
    assert again.stdout == first.stdout and (output / "curation.json").stat().st_mtime_ns == stamp
    shown = run("corpus", "curate", str(place / "texts"), "-o", str(output))
    assert "heldout" in shown.stdout and f"minigpt build --domain {output}" in " ".join(shown.stdout.split())
    assert json.loads(run("corpus", "stats", str(output), "--json").stdout)["splits"]["train"]["documents"] > 100


def test_other_text_in_the_same_folder_is_refused(place: Path, curated: Path, tmp_path: Path) -> None:
    domain = load_domain(str(place / "shelf.yaml"))
    with pytest.raises(ConfigError, match="other text or settings"):
        curate(domain, curated, wishes=Wishes(shard_bytes=100_000, seed=1))
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(ConfigError, match="holds something else"):
        curate(domain, tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        curate(domain, tmp_path / "letter.txt")


def test_text_that_changes_while_it_is_read_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "texts", tmp_path / "texts")
    domain = load_domain(str(domain_file(tmp_path / "texts", tmp_path / "x.yaml")))
    with monkeypatch.context() as patch:
        patch.setitem(steps.STEPS, "exact", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            curate(domain, tmp_path / "out", wishes=SMALL)
    with (tmp_path / "texts" / "c.txt").open("a") as stream:
        stream.write("\n\nOne more paragraph.")
    with pytest.raises(ConfigError, match="changed since the work"):
        curate(domain, tmp_path / "out", wishes=SMALL)
    shutil.rmtree(tmp_path / "out" / WORK)
    curate(domain, tmp_path / "out", wishes=SMALL)


def test_too_little_text_is_said_with_the_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ("one", "One!", " ", "two")))
    domain = load_domain(str(domain_file(tmp_path / "a.jsonl", tmp_path / "x.yaml")))
    with pytest.raises(CorpusError, match=r"need 4 documents and 2 are left \(read 3, exact duplicates 1"):
        curate(domain, tmp_path / "out")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": \n')
    domain = load_domain(str(domain_file(tmp_path / "a.jsonl", tmp_path / "x.yaml")))
    with pytest.raises(CorpusError, match="line 3: not valid JSON"):
        curate(domain, tmp_path / "out")


def test_a_missing_package_is_named_with_its_command(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minigpt.curation.run.find_spec", lambda name: None)
    result = run("corpus", "curate", str(place / "texts"), "-o", str(tmp_path / "out"))
    assert result.exit_code == 1 and 'pip install "minigpt[curate]"' in " ".join(result.stderr.split())


def test_the_shards_are_a_folder_of_declared_splits(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("domains", "new", "again", "--from", str(curated), "--json")
    assert result.exit_code == 0, result.stderr
    assert {item["file"] for item in json.loads(result.stdout)["skipped"]} == {"curation.json", "domain.yaml"}
    domain = load_domain("again")
    assert {source.split for source in domain.corpus} == {"train", "dev", "heldout"}
    assert {item.text for item in build_corpus(domain).heldout} == {
        item.text for item in build_corpus(load_domain(str(curated))).heldout
    }


def test_two_processes_do_not_write_one_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = load_domain(str(place / "shelf.yaml"))

    def second(*arguments: object) -> None:
        with pytest.raises(MiniGPTError, match="is in use"):
            curate(domain, tmp_path / "out", wishes=SMALL)
        raise KeyboardInterrupt

    monkeypatch.setitem(steps.STEPS, "read", second)
    with pytest.raises(KeyboardInterrupt):
        curate(domain, tmp_path / "out", wishes=SMALL)


def test_environment_is_untouched() -> None:
    assert not any(name.startswith("DATATROVE") for name in os.environ)


@pytest.mark.parametrize("source", ["shelf.yaml", "texts"])
def test_relevance_without_seed_sentences_is_refused_at_once(place: Path, tmp_path: Path, source: str) -> None:
    refused = run("corpus", "curate", str(place / source), "--relevance", "-o", str(tmp_path / "out"))
    assert refused.exit_code == 1 and "has none; list some under `seeds`" in " ".join(refused.stderr.split())
    assert not (tmp_path / "out").exists()
