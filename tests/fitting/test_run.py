"""A fitted build from the command line to the measured export, in a small world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import minigpt
from minigpt import assets
from minigpt.fitting import rehearse
from minigpt.fitting.engines import engine_named
from minigpt.fitting.filesize import file_sizes
from minigpt.models.bench import LoadCost, Workload
from minigpt.runtimes import gguf, read_record
from minigpt.transformer.arch import shape_of
from tests.support.commands import run
from tests.support.worlds import SMALL, World

BRIEF = {
    **SMALL,
    "heal.steps": "0",
    "repair.tokens": "0",
    "evaluation.sample_tokens": "0",
    "evaluation.general": "false",
}


def command(world: World, folder: str, *more: str) -> list[str]:
    settings = [word for name, value in BRIEF.items() for word in ("--set", f"{name}={value}")]
    return ["build", "--domain", str(world.domain), "--base", str(world.base), "--output-dir", str(world.root / folder),
            "--device", "cpu", "--json", "-q", *settings, *more]  # fmt: skip


def bytes_of_parent(world: World, precision: str) -> int:
    from transformers import AutoConfig

    sizes = file_sizes(AutoConfig.from_pretrained(world.base), assets.load_tokenizer(world.base))
    return sizes.parts(sizes.whole, engine_named("llama.cpp").layouts[precision]).total


def test_a_file_of_the_asked_size_stands_beside_the_build(world: World, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MINIGPT_LLAMA_PYTHON", raising=False)
    limit = round(0.97 * bytes_of_parent(world, "int4"))
    result = run(*command(world, "fitted", "--fit", f"{limit}B"))
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    (outcome,) = data["fit"]["outcomes"]
    record = read_record(Path(data["fit"]["folder"]))
    assert outcome["measured"] == record.bytes <= limit
    assert outcome["expected"] == pytest.approx(record.bytes, rel=0.03)
    model = assets.load_model(world.root / "fitted" / "model")
    expected = data["fit"]["fitted"]["best"]["shape"]
    assert shape_of(model).layers == expected["layers"] and shape_of(model).vocab_size == expected["vocab_size"]
    assert data["report"]["domain"] == "words" and record.source.shape == shape_of(model)
    shown = (world.root / "fitted" / "report.html").read_text("utf-8")
    assert "<h2>Fit</h2>" in shown and f"{limit}B" in shown and f"{record.bytes / 1e6:.1f} MB" in shown
    assert data["report"]["fit"]["outcomes"] == data["fit"]["outcomes"]
    assert minigpt.load_report(world.root / "fitted").fit is not None  # and the folder is sealed with it
    again = run(*command(world, "fitted", "--fit", f"{limit}B"))
    assert json.loads(again.stdout)["report"] == data["report"]  # resumed: nothing was built again


def test_a_speed_is_measured_beside_the_parent(world: World, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rehearse, "WORKLOAD", Workload(prompt=8, decode=4, repeats=2))
    monkeypatch.setattr(rehearse, "load_in_fresh_process", lambda *_arguments: LoadCost(seconds=1.0, peak=2 * 10**7))
    result = run(*command(world, "fast", "--fit", "0.5x parent tokens/s", "--fit", "100GB ram", "--runtime", "torch"))
    assert result.exit_code == 0, result.output
    fit = json.loads(result.stdout)["fit"]
    speed, ram = fit["outcomes"]
    assert speed["measured"] == fit["speed"] > 0 and speed["limit"] == pytest.approx(0.5 * fit["parent_speed"])
    assert ram["measured"] == fit["ram"] == 2 * 10**7
    assert Path(fit["folder"]) == world.root / "fast" / "model"


def test_a_profile_is_written_and_carried(world: World, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rehearse, "WORKLOAD", Workload(prompt=8, decode=4, repeats=2))
    monkeypatch.setattr(rehearse, "load_in_fresh_process", lambda *_arguments: LoadCost(seconds=1.0, peak=10**6))
    file = home / "device.json"
    result = run("bench", "--profile", str(file), str(world.base), "--runtime", "torch", "--json", "-q")
    assert result.exit_code == 0, result.output
    assert {sample["runtime"] for sample in json.loads(file.read_text())["samples"]} == {"torch"}
    planned = run(
        *command(world, "planned", "--fit", "0.1 tokens/s", "--runtime", "torch", "--device-profile", str(file)),
        "--plan-only",
    )
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["layers"] >= 1


def test_a_file_that_nothing_here_reads_is_refused_before_the_build(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gguf, "interpreter", lambda: None)
    monkeypatch.setattr(gguf, "READ_BACK", ("mistral",))
    limit = round(0.97 * bytes_of_parent(world, "int4"))
    result = run(*command(world, "unread", "--fit", f"{limit}B"))
    assert result.exit_code == 1 and "GGUF files of llama models need llama.cpp" in result.stderr
    assert not (world.root / "unread").exists()
    assert run(*command(world, "unread", "--fit", f"{limit}B"), "--plan-only").exit_code == 0  # a plan writes no file


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--fit", "quick"), 1, "'quick' is nothing that a model can be fitted to"),
        (("--fit", "1B"), 1, "Nothing fits 1B in llama.cpp: the nearest is"),
        (("--fit", "50MB", "--target-size", "0.5"), 1, "--fit finds the size"),
        (("--runtime", "onnx"), 2, "go with --fit"),
        (("--fit", "50MB", "--runtime", "vllm"), 2, "vllm"),
    ],
)
def test_says_in_one_sentence_what_is_wrong(words: tuple[str, ...], code: int, sentence: str, world: World, home: Path):
    result = run(*command(world, "wrong", *words))
    assert result.exit_code == code and sentence in result.stderr and "Traceback" not in result.stderr


def test_bench_needs_models_or_a_profile():
    assert "Missing argument" in run("bench").stderr and run("bench").exit_code == 2
    assert "goes with --profile" in run("bench", "x", "--runtime", "onnx").stderr
    assert "one parent" in run("bench", "x", "y", "--profile", "p.json").stderr


def test_the_command_line_names_the_runtimes_of_the_table():
    from minigpt.cli.fit import RUNTIMES
    from minigpt.fitting.engines import ENGINES

    assert tuple(ENGINES) == RUNTIMES
