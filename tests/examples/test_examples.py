"""The examples run as they stand, on a small world instead of the packaged parent and text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.building import FAST
from tests.support.worlds import SMALL, World

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = [part for name, value in {**SMALL, **FAST}.items() for part in ("--set", f"{name}={value}")]


def run(folder: Path, *command: str, home: Path) -> str:
    """What an example prints, started in `folder` as a user would start it."""
    environment = {
        **os.environ,
        "MINIGPT_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(EXAMPLES.parent),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: texts of their own, a domain called medical, and a build of it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "texts").mkdir()
    rows = (world.root / "docs" / "texts.jsonl").read_text("utf-8").splitlines()
    for number, row in enumerate(rows):
        (folder / "texts" / f"{number:02}.txt").write_text(json.loads(row)["text"], encoding="utf-8")
    (folder / "domains").mkdir()
    text = world.domain.read_text("utf-8").replace("name: words", "name: medical")
    for name in ("plain.yaml", "docs", "questions.jsonl"):
        text = text.replace(f": {name}", f": {world.root / name}")
    (folder / "domains" / "medical.yaml").write_text(text, encoding="utf-8")
    run(
        folder, "sh", str(EXAMPLES / "build_medical.sh"), "--base", str(world.base), "--device", "cpu", *SETTINGS,
        home=folder / "home",
    )  # fmt: skip
    return folder


def test_the_first_build_leaves_a_model_that_writes(place: Path) -> None:
    assert (place / "runs" / "medical" / "model" / "model.safetensors").is_file()
    assert (place / "runs" / "medical" / "recipe.yaml").is_file()


def test_own_text(place: Path, world: World) -> None:
    options = ["--base", str(world.base), "--device", "cpu", *SETTINGS, "--set", "evaluation.general=false"]
    shown = run(place, "sh", str(EXAMPLES / "own_text.sh"), "ward", "texts", *options, home=place / "home")
    assert "heldout" in shown and (place / "runs" / "ward" / "report.json").is_file()


def test_pruning_in_memory(place: Path, world: World) -> None:
    script = str(EXAMPLES / "prune_in_memory.py")
    shown = run(place, sys.executable, script, str(world.base), "texts", home=place / "home")
    assert "healed, 10 steps" in shown and (place / "specialist" / "model.safetensors").is_file()


def test_a_method_of_ones_own_from_python_and_the_command_line(place: Path, world: World) -> None:
    script = str(EXAMPLES / "own_method.py")
    shown = run(place, sys.executable, script, str(world.base), "texts", home=place / "home")
    assert shown.count("bits per byte") == 3 and "deviation" in shown
    (place / "own_method.py").write_bytes(Path(script).read_bytes())
    run(
        place, "minigpt", "build", "--domain", "medical", "--method", "own_method:ROW", "--target-size", "0.85",
        "--base", str(world.base), "--device", "cpu", "--output-dir", "runs/own", *SETTINGS, home=place / "home",
    )  # fmt: skip
    plan = json.loads((place / "runs" / "own" / "plan.json").read_text("utf-8"))
    assert plan["method"] == "deviation" and plan["tokens"] is None


def test_export(place: Path) -> None:
    shown = run(
        place, sys.executable, str(EXAMPLES / "export_onnx.py"), "runs/medical", "onnx", "domains/medical.yaml",
        home=place / "home",
    )  # fmt: skip
    assert "as int8" in shown and "next token:" in shown


def test_sweep(place: Path, world: World) -> None:
    options = ["--base", str(world.base), "--device", "cpu", "--no-pictures", *SETTINGS]
    run(place, "sh", str(EXAMPLES / "sweep.sh"), *options, home=place / "home")
    assert len((place / "runs" / "sweep" / "points.jsonl").read_text("utf-8").splitlines()) >= 4


def test_the_notebook_runs_cell_by_cell_and_shows_its_outputs(place: Path, world: World) -> None:
    """Its parameters are replaced by the small world; every other cell runs as it stands."""
    notebook = json.loads((EXAMPLES / "first_specialist.ipynb").read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert sum(bool(cell["outputs"]) for cell in code) >= 6, "the notebook is kept with what it printed"
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    small = f"BASE, DOMAIN, STEPS, PASSAGES = {str(world.base)!r}, 'domains/medical.yaml', 2, 4"
    script = "\n".join(small if cell is parameters else "".join(cell["source"]) for cell in code)
    (place / "notebook.py").write_text(script, encoding="utf-8")
    shown = run(place, sys.executable, "notebook.py", home=place / "home")
    assert "healed, 2 steps" in shown
