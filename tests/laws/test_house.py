"""The house rules that a linter does not know, read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "minigpt"
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "corpora").rglob("*.py")])
SCRIPTS = sorted(path for folder in ("benchmarks", "docs", "examples") for path in (ROOT / folder).rglob("*.py"))
TEXT_FILES = {".py", ".md", ".json", ".jsonl", ".yaml", ".yml", ".txt", ".j2", ".svg", ".ipynb"}
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "sentence_transformers",
    "peft",
    "pydantic",
    "rich",
    "matplotlib",
    "numba",
}
ONLY_IN = {
    "peft": ("healing",),
    "evaluate": ("evaluation",),
    "lm_eval": ("exporting",),
    "matplotlib": ("sweep",),
    "bitsandbytes": ("transformer/nf4",),
    "onnx": ("exporting",),
    "onnx_ir": ("exporting",),
    "onnxruntime": ("exporting", "runtimes"),
    "onnxruntime_genai": ("exporting", "runtimes"),
    "datasketch": ("corpus",),
    "datatrove": ("curation",),
    "sentence_transformers": ("corpus",),
    "gguf": ("assets", "exporting"),
    "numba": ("conditional/kernels",),
    "starlette": ("serving",),
    "uvicorn": ("serving",),
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain; calls and subscripts inside it read as `?`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def imported(path: Path) -> set[str]:
    """Top-level names of every absolute import, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_imports_point_down() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


LIGHT = ("minigpt", "minigpt.cli", "minigpt.cli.build", "minigpt.domain.config", "minigpt.machine", "minigpt.types")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom minigpt.cli import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_home(library: str) -> None:
    users = {name_of(path) for path in FILES if library in imported(path)}
    allowed = tuple(f"minigpt/{home}" for home in ONLY_IN[library])
    assert [user for user in sorted(users) if not user.startswith(allowed or ("nowhere",))] == []


def test_only_settings_reads_the_environment() -> None:
    for path in FILES:
        touches = [node for node in ast.walk(tree(path)) if isinstance(node, (ast.Attribute, ast.Name))]
        found = {dotted(node) for node in touches} & {"os.environ", "os.getenv", "environ", "getenv"}
        assert not found or name_of(path) == "minigpt/environment.py", (name_of(path), found)


def test_nothing_runs_code_from_files() -> None:
    forbidden = {"torch.load", "yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system"}
    for path in FILES:
        assert not {name for name, _ in calls(path)} & forbidden, name_of(path)
        assert not imported(path) & {"pickle", "dill", "shelve", "marshal"}, name_of(path)
        assert not any(keyword.arg == "trust_remote_code" for _, call in calls(path) for keyword in call.keywords)


# Modules that read JSON which this program has just written, line by line or between its processes.
OWN_JSON = ("curation/context.py", "distributed/", "fitting/search.py", "models/bench.py", "runtimes/")


def test_json_of_others_is_read_within_bounds() -> None:
    """`parsing.load_json` makes one exception of every mistake; plain `json.loads` has another for deep nesting.

    The readers of corpora/ read packages whose hashes are pinned.
    """
    allowed = ("corpora/", "parsing.py", "files.py", "evaluation/scoring.py", "transformer/shipping.py", *OWN_JSON)
    for path in FILES:
        reads = {name for name, _ in calls(path)} & {"json.loads", "json.load"}
        assert not reads or name_of(path).removeprefix("minigpt/").startswith(allowed), name_of(path)


def test_only_the_command_line_prints_and_exits() -> None:
    for path in FILES:
        if not name_of(path).startswith(("minigpt/cli/", "minigpt/__main__.py")):
            assert not {name for name, _ in calls(path)} & {"print", "input", "sys.exit", "exit", "click.echo"}, path


def test_files_are_written_atomically() -> None:
    """Whoever writes a file takes its path from `minigpt.files.atomic_path`, or leaves the writing to that module."""
    writers = {"write_text", "write_bytes"}
    for path in FILES:
        if name_of(path) == "minigpt/files.py":
            continue
        found = {name.rpartition(".")[2] for name, _ in calls(path) if "." in name} & writers
        assert not found or "atomic_path" in path.read_text("utf-8"), (name_of(path), found)


def test_files_and_functions_stay_short() -> None:
    for path in [*FILES, *SCRIPTS]:
        assert len(path.read_text("utf-8").splitlines()) <= 350, name_of(path)
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 70, f"{name_of(path)}: {node.name} has {length} lines"


MACHINE = re.compile(r"(?<![\w.~-])/(?:tmp|work|root|home)/\w")


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    """Results are often written elsewhere and copied: the references in them must hold everywhere."""
    folders = ("benchmarks", "corpora", "docs", "domains", "examples", "minigpt")
    written = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXT_FILES]
    assert len(written) > 300
    for path in [*written, *ROOT.glob("*.md")]:
        found = MACHINE.search(path.read_text("utf-8"))
        assert not found, f"{name_of(path)}: {found.group() if found else ''}"


DIALECT = {"asked", "chosen", "each", "found", "held", "made", "mine", "theirs", "told"}
RIDDLES = ("What ", "Which ", "How ", "Who ", "Where ", "Whether ")


def test_names_are_nouns_and_docstrings_are_no_riddles() -> None:
    """CONTRIBUTING's rules for words, as far as a machine can tell: a reader cannot search for `found`."""
    for path in FILES:
        for node in ast.walk(tree(path)):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if stored and isinstance(node, ast.Name) else getattr(node, "arg", None)
            assert not (isinstance(node, (ast.Name, ast.arg)) and name in DIALECT), f"{name_of(path)}: {name}"
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = ast.get_docstring(node) or ""
                public = not getattr(node, "name", "").startswith("_")
                assert not (public and text.startswith(RIDDLES)), f"{name_of(path)}: {text.splitlines()[0]}"
