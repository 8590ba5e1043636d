"""The contract of the command line: exit codes, two streams, sizes as people write them, help that is current."""

from __future__ import annotations

import importlib.util
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from minigpt import catalog, report
from minigpt.cli import COMMANDS, cli, console
from minigpt.cli.params import Amount, Fraction
from minigpt.errors import AssetError, GateFailed, MiniGPTError
from tests import tiny
from tests.reports import make_report

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty catalog for every test."""
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    return tmp_path


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, arguments, **options)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        here = (*path, name)
        found += leaves(command, here) if isinstance(command, click.Group) else [(here, command)]
    return found


def finished_build(folder: Path, **changes: Any) -> Path:
    """A folder that looks like a build: a report and a model folder."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    report.save(make_report(**changes), folder / "report.json")
    return folder


@pytest.mark.parametrize(("path", "command"), leaves(cli), ids=[" ".join(path) for path, _ in leaves(cli)])
def test_every_command_has_the_common_options_and_examples(path: tuple[str, ...], command: click.Command) -> None:
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v"} <= flags
    assert command.epilog and f"minigpt {' '.join(path)}" in command.epilog
    assert command.help


def test_the_table_tells_what_the_commands_tell_themselves() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


def test_the_documented_help_is_current() -> None:
    """docs/cli.md is generated: `make docs` writes it again."""
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == module.markdown()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MiniGPTError("Do this."), 1, "Error: Do this.\n"),
        (GateFailed("Too high."), 3, "Error: Too high.\n"),
        (OSError(28, "No space left on device", "/x/y"), 1, "No space left on device (/x/y)"),
        (MemoryError(), 1, "Not enough memory"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, "same command resumes"),
    ],
)
def test_failures_leave_as_one_sentence_and_their_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(_domain: str | None = None) -> None:
        raise error

    monkeypatch.setattr(catalog, "entries", fail)
    result = run("catalog", "list", "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_domain: str | None = None) -> None:
        raise AssetError("Gone.")

    monkeypatch.setattr(catalog, "entries", fail)
    result = run("catalog", "list", "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: Gone.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["nonsense"],
        ["build", "--domain", "medical", "--target-size", "0.5", "--target-params", "100M"],
        ["build", "--domain", "medical", "--target-size", "1.5"],
        ["build", "--domain", "medical", "--target-bytes", "plenty"],
        ["build", "--domain", "medical", "--set", "heal.steps"],
        ["build", "--domain", "medical", "--kinds", "linear,magic"],
        ["catalog", "list", "-q", "-v"],
        ["generate", "model", "--prompt", " "],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Error:" in result.stderr


SENDS_ITSELF = """
import os, signal, sys, time
from minigpt import catalog
catalog.entries = lambda domain=None: (os.kill(os.getpid(), signal.{name}), time.sleep(60))
from minigpt.cli import main
sys.argv = ["minigpt", "catalog", "list"]
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_end_a_real_process_without_a_traceback(name: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SENDS_ITSELF.format(name=name)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert signal.Signals[name]
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("resumes" in done.stderr) == (code == 130)


@pytest.mark.parametrize(
    ("text", "count"),
    [("100M", 100_000_000), ("0.5B", 500_000_000), ("1.5k", 1500), ("1_000", 1000), ("134,515,008", 134_515_008)],
)
def test_counts_as_people_write_them(text: str, count: int) -> None:
    assert Amount("count").convert(text, None, None) == count


@pytest.mark.parametrize(
    ("text", "count"), [("150MB", 150_000_000), ("1 GiB", 2**30), ("200m", 200_000_000), ("12", 12), ("2kB", 2000)]
)
def test_bytes_as_people_write_them(text: str, count: int) -> None:
    assert Amount("bytes", unit="B").convert(text, None, None) == count


@given(st.text(max_size=12))
def test_sizes_are_positive_or_refused(text: str) -> None:
    for kind in (Amount("count"), Amount("bytes", unit="B"), Fraction()):
        try:
            assert kind.convert(text, None, None) > 0
        except click.BadParameter as error:
            assert "write it like" in error.message


@pytest.mark.parametrize(("text", "fraction"), [("0.75", 0.75), ("75%", 0.75), ("1", 1.0)])
def test_fractions(text: str, fraction: float) -> None:
    assert Fraction().convert(text, None, None) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["0", "nan", "-0.5", "1.01", "%", "inf", "half"])
def test_fractions_outside_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Fraction().convert(text, None, None)


def test_methods_as_the_contract_says() -> None:
    listed = json.loads(run("methods", "--json").stdout)["methods"]
    assert "contextual" in {method["name"] for method in listed}
    for method in listed:
        assert set(method) == {"name", "prunes", "paper", "loads", "options"}
        assert method["prunes"] and set(method["prunes"]) <= {"ffn", "kv_groups", "layers", "embedding", "hidden"}
    assert "contextual" in run("methods").stdout


def test_a_build_goes_through_the_catalog(home: Path) -> None:
    folder = finished_build(home / "runs" / "medical")
    added = json.loads(run("catalog", "add", str(folder), "--json").stdout)
    listed = json.loads(run("catalog", "list", "--json").stdout)["entries"]
    assert [entry["id"] for entry in listed] == [added["id"]]
    assert added["id"] in run("catalog", "list").stdout
    shown = json.loads(run("catalog", "show", added["domain"], "--json").stdout)
    assert shown == json.loads((folder / "report.json").read_text())
    assert run("catalog", "verify").exit_code == 0
    (folder / "model" / "config.json").write_text("{ }")
    (folder / "model" / "added.py").write_text("")
    damaged = run("catalog", "verify", added["id"], "--json")
    assert damaged.exit_code == 1
    assert json.loads(damaged.stdout)[added["id"]]["model/config.json"] == "changed"
    assert json.loads(damaged.stdout)[added["id"]]["model/added.py"] == "unexpected"
    assert run("catalog", "remove", added["id"]).exit_code == 0
    assert json.loads(run("catalog", "list", "--json").stdout)["entries"] == []
    assert (folder / "report.json").is_file()


def test_a_gate_that_fails_is_code_3_and_the_table_is_printed_all_the_same(home: Path) -> None:
    folder = finished_build(home / "build")
    holds = run("compare", str(folder), "--fail-if", "bits_per_byte>9")
    fails = run("compare", str(folder), "--fail-if", "bits_per_byte>0.01", "--json")
    unreadable = run("compare", str(folder), "--fail-if", "beauty<1")
    assert holds.exit_code == 0, holds.output
    assert fails.exit_code == 3
    assert json.loads(fails.stdout)["models"]
    assert "bits_per_byte" in fails.stderr
    assert unreadable.exit_code == 1
    assert unreadable.stdout == ""


def test_a_new_domain_can_be_shown_validated_and_described(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "texts").mkdir()
    for number in range(3):
        (home / "texts" / f"{number}.txt").write_text(f"Passage {number} on valves and vessels.")
    monkeypatch.chdir(home)
    made = json.loads(run("domains", "new", "cardiology", "--from", "texts", "--json").stdout)
    assert made == {"domain": "cardiology", "path": "domains/cardiology.yaml"}
    assert "cardiology" in {row["name"] for row in json.loads(run("domains", "list", "--json").stdout)["domains"]}
    assert run("domains", "show", "cardiology").stdout.count("name: cardiology") == 1
    assert json.loads(run("corpus", "show", "cardiology", "--json").stdout)["corpus"][0]["file"]
    assert run("domains", "validate", "cardiology").exit_code == 0
    again = run("domains", "new", "cardiology", "--from", "texts")
    assert again.exit_code == 1
    assert "already there" in again.stderr
    (home / "texts").rename(home / "moved")
    broken = run("domains", "validate", "cardiology", "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["problems"]
    assert run("domains", "show", "cardiolgy").stderr.count("Did you mean 'cardiology'") == 1


def test_build_hands_over_what_was_asked_and_renders_what_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt import pipeline
    from minigpt.pipeline import BuildOptions

    asked: list[BuildOptions] = []

    def fake(options: BuildOptions, _reporter: Any) -> tuple[Any, ...]:
        asked.append(options)
        return tuple(make_report(domain) for domain in options.domains)

    monkeypatch.setattr(pipeline, "build", fake)
    plain = run("build", "--domain", "medical", "--json")
    full = run(
        *("build", "--domain", "medical", "--domain", "law", "--target-bytes", "150MB", "--kinds", "linear,embedding"),
        *(
            "--set",
            "heal.steps=50",
            "--set",
            "heal.lr = 1e-4",
            "--preset",
            "thorough",
            "--output-dir",
            "out",
            "--seed",
            "7",
        ),
    )
    assert plain.exit_code == 0, plain.output
    assert asked[0] == BuildOptions(domains=("medical",))
    assert json.loads(plain.stdout)["schema_version"] == 1
    assert asked[1] == BuildOptions(
        domains=("medical", "law"),
        target_bytes=150_000_000,
        kinds=("linear", "embedding"),
        overrides={"heal.steps": "50", "heal.lr": "1e-4"},
        preset="thorough",
        output_dir=Path("out"),
        seed=7,
    )
    assert full.stdout.count("parent") > 2
    assert "law" in full.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "medical", "--method", "contextal"), "Did you mean 'contextual'"),
        (("--domain", "medical", "--domain", "nope"), "nope"),
    ],
)
def test_a_name_that_does_not_exist_stops_a_build_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    from minigpt import pipeline

    monkeypatch.setattr(pipeline, "build", lambda *_arguments: pytest.fail("built"))
    result = run("build", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr


def test_eval_finds_the_model_before_it_reads_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt import pipeline

    monkeypatch.setattr(pipeline, "evaluate_ref", lambda *_arguments, **_options: pytest.fail("evaluated"))
    result = run("eval", "/nope", "--domain", "medical")
    assert result.exit_code == 1
    assert "/nope" in result.stderr


def test_online_reaches_the_library(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    from minigpt import corpus, pipeline

    asked: list[Any] = []

    def stop(*arguments: Any, **options: Any) -> None:
        asked.append((arguments, options))
        raise MiniGPTError("Stop.")

    monkeypatch.setattr(pipeline, "build", stop)
    monkeypatch.setattr(pipeline, "evaluate_ref", stop)
    monkeypatch.setattr(corpus, "build_corpus", stop)
    for more in ((), ("--online",)):
        run("build", "--domain", "medical", *more)
        run("eval", str(model), "--domain", "medical", *more)
        run("corpus", "stats", "medical", *more)
        run("corpus", "fetch", "medical", *more)
    for part, wanted in ((asked[:4], False), (asked[4:], True)):
        assert part[0][0][0].online is wanted
        assert part[1][1]["online"] is wanted
        assert [any(source.online for source in call[0][0].corpus) for call in part[2:]] == [not wanted] * 2


def test_a_plan_is_shown_and_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt import pipeline

    plan = pipeline.PlanSummary(
        domain="medical",
        base_model="tiny",
        method="contextual",
        parameters_before=200_000_000,
        parameters_after=150_000_000,
        layers=28,
        intermediate_size=1344,
        kv_groups=3,
        tokens=24_576,
        removed_layers=(9, 12),
        removed_parameters={"embedding": 14_000_000},
        predicted_cost={"vocabulary": 0.0213},
    )
    monkeypatch.setattr(pipeline, "plan_only", lambda _options, _reporter: (plan,))
    monkeypatch.setattr(pipeline, "build", lambda _options, _reporter: pytest.fail("built"))
    shown = run("build", "--domain", "medical", "--plan-only").stdout
    for figure in ("75.0 % kept", "28 (without 9, 12)", "1,344", "24,576", "14.0 M", "0.0213"):
        assert figure in shown
    assert json.loads(run("build", "--domain", "medical", "--plan-only", "--json").stdout)["tokens"] == 24_576


def test_compare_says_what_is_missing() -> None:
    result = run("compare", "no-such-build")
    assert result.exit_code == 1
    assert "no-such-build" in result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny.tiny_model().save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("extra", [[], ["--chat"], ["--temperature", "0.9", "--seed", "3"]])
def test_generate_streams_what_json_returns(model: Path, extra: list[str]) -> None:
    arguments = ["generate", str(model), "--prompt", "The heart", "--max-new-tokens", "12", "--device", "cpu", *extra]
    streamed = run(*arguments, "-q")
    data = json.loads(run(*arguments, "--json").stdout)
    assert streamed.exit_code == 0, streamed.output
    assert streamed.stdout_bytes.decode() == ("" if extra == ["--chat"] else "The heart") + data["text"] + "\n"
    assert streamed.stderr == ""
    assert 0 < data["tokens"] <= 12


def test_generate_agrees_with_transformers(model: Path) -> None:
    """Greedy text equals what stock classes give from prefix and prompt: nothing is lost while streaming."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = torch.tensor([[prefix, *tokenizer("A fever", add_special_tokens=False)["input_ids"]]])
    output = network.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
    result = run("generate", str(model), "--prompt", "-", "--json", "--max-new-tokens", "10", input="A fever")
    assert json.loads(result.stdout)["text"] == tokenizer.decode(output, skip_special_tokens=True)


def test_a_prompt_is_encoded_as_training_text_is_and_never_prefixed_twice(model: Path) -> None:
    from minigpt import generation
    from minigpt.assets import load_tokenizer
    from minigpt.corpus import tokenize
    from minigpt.types import Document

    tokenizer = load_tokenizer(model)
    (wanted,) = tokenize(tokenizer, [Document(text="A fever", source="a")], window=64)
    found = generation.encode(tokenizer, "A fever", chat=False)
    assert found["input_ids"].tolist() == [wanted]
    assert found["attention_mask"].tolist() == [[1] * len(wanted)]
    written = generation.encode(tokenizer, tokenizer.convert_ids_to_tokens(wanted[0]) + "A fever", chat=False)
    assert written["input_ids"].tolist() == [wanted]


def test_generate_reads_the_model_of_a_build_folder(model: Path, home: Path) -> None:
    build = home / "build"
    build.mkdir()
    (build / "model").symlink_to(model)
    assert run("generate", str(build), "--prompt", "x", "--max-new-tokens", "2").exit_code == 0


def test_progress_and_notes_stay_off_stdout(home: Path) -> None:
    folder = finished_build(home / "build")
    assert run("catalog", "add", str(folder)).exit_code == 0
    result = run("catalog", "verify", "--json")
    assert json.loads(result.stdout)
    assert "Hashing: done in" in result.stderr
    assert run("catalog", "verify", "--json", "-q").stderr == ""


def test_the_eta_is_the_mean_pace_and_silent_without_evidence() -> None:
    pace = console.Pace(100, now=0.0)
    assert pace.remaining(50.0) is None
    pace.done = 20
    assert pace.remaining(1.0) is None
    assert pace.remaining(50.0) == pytest.approx(200.0)
    pace.done = 130
    assert pace.remaining(50.0) == 0.0
    assert console.Pace(None, now=0.0).remaining(50.0) is None


def test_plain_progress_has_one_line_about_every_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(ticks)))
    stream = io.StringIO()
    assert list(console.PlainReporter(stream).track(range(12), title="Reading")) == list(range(12))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Reading: 3/12 after 30.0 s, about 1 min 30 s left"
    assert len(lines) == 4
    assert "\x1b" not in stream.getvalue()


def test_a_stage_that_fails_says_so_and_lets_the_error_through() -> None:
    stream = io.StringIO()
    with pytest.raises(AssetError), console.PlainReporter(stream).stage("Fetching"):
        raise AssetError("No network.")
    assert "Fetching: stopped after" in stream.getvalue()


def test_bars_leave_only_finished_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("NO_COLOR", "1")
    progress = console.bars()
    stream = io.StringIO()
    progress.live.console = Console(file=stream, force_terminal=True, width=80)
    reporter = console.RichReporter(progress)
    with reporter.stage("Pruning [all]"):
        assert list(reporter.track([1, 2], title="Layers")) == [1, 2]
        assert not progress.finished
    assert "✓ Pruning [all]" in stream.getvalue()
    assert "\x1b[32m" not in stream.getvalue()
    assert not progress.live.is_started
    assert progress.tasks == []
