"""Imports inside functions: each has a reason, and hiding an import circle is none of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_UP = "start-up time: --help and the tables of methods, formats and domains must not load it"
OPTIONAL = "an optional package, or one that a user of other features never needs"

# Libraries that may be imported inside a function, and why.
LIBRARIES = {
    **dict.fromkeys(
        (
            "datasets", "datasketch", "evaluate", "filelock", "gguf", "huggingface_hub", "importlib", "jinja2", "numpy",
            "peft", "platformdirs", "pyarrow", "pydantic", "rich", "safetensors", "scipy", "sentence_transformers",
            "tokenizers", "torch", "transformers", "yaml",
        ),
        START_UP,
    ),
    **dict.fromkeys(
        (
            "bitsandbytes", "charset_normalizer", "datatrove", "docx", "liger_kernel", "llama_cpp", "lm_eval", "lxml",
            "matplotlib", "onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai", "openpyxl", "pptx", "py3langid",
            "pypdf", "ray", "resiliparse", "resource", "submitit", "uvicorn",
        ),
        OPTIONAL,
    ),
}  # fmt: skip

# Modules of ours that import others of ours inside functions, and why. The command line does so everywhere: START_UP.
OWN = {
    "conditional/kernels/ops.py": "Numba, Triton and the C++ tool-chain are optional",
    "conditional/kernels/rows.py": "Numba and Triton are optional",
    "corpus/relevance.py": "start-up time: the sentence encoder comes with torch",
    "corpus/sources.py": "start-up time: fetching loads the package index client",
    "evaluation/answers.py": "start-up time: scores are read and written without torch",
    "evaluation/opening.py": "start-up time: suites take their dev sample without torch",
    "evaluation/recitation.py": "start-up time: reading items and suites must not load torch",
    "evaluation/run.py": "start-up time: reading items and suites must not load torch",
    "evaluation/summary.py": "start-up time: the metrics library takes seconds",
    "models/bench.py": "start-up time: the options are read without torch",
    "models/evaluate.py": "start-up time: runtimes come with torch",
    "models/find.py": "start-up time: a name is resolved without torch",
    "models/generate.py": "start-up time: sampling options are read without torch",
    "serving/run.py": "starlette and uvicorn are optional",
    "sweep/matrix.py": "matplotlib is optional",
    "sweep/run.py": "matplotlib is optional",
}


def inner_imports(path: Path) -> Iterator[str]:
    """Modules that are imported inside the functions of a file."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield node.module
                elif isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)


def found() -> dict[str, set[str]]:
    return {
        path.relative_to(ROOT / "minigpt").as_posix(): set(inner_imports(path))
        for path in sorted((ROOT / "minigpt").rglob("*.py"))
    }


def test_libraries_imported_inside_functions_have_a_reason() -> None:
    strange = {
        (name, module)
        for name, modules in found().items()
        for module in modules
        if not module.startswith("minigpt") and module.partition(".")[0] not in LIBRARIES
    }
    assert strange == set()


def test_our_own_modules_are_imported_at_the_top_but_for_start_up_and_options() -> None:
    files = {name for name, modules in found().items() if any(module.startswith("minigpt") for module in modules)}
    outside = {name for name in files if not name.startswith("cli/")}
    assert outside == set(OWN), "an import inside a function needs a reason in OWN, and a reason a use"
