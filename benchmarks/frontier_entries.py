"""Files of the frontier: exports of ours, llama.cpp's own quantisations, and parents in bits that no runtime reads."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minigpt import assets, runtimes
from minigpt.assets import Parent
from minigpt.exporting import ExportRequest
from minigpt.exporting.rounding import blocks
from minigpt.exporting.rounding.layers import calibration_grams
from minigpt.exporting.rounding.matrices import round_matrices
from minigpt.exporting.run import write_unproved
from minigpt.files import write_json
from minigpt.fitting.engines import engine_named
from minigpt.fitting.filesize import file_sizes
from minigpt.models import find
from minigpt.progress import SILENT
from minigpt.runtimes import RECORD, read_record
from minigpt.runtimes.gguf import FILE, interpreter
from minigpt.runtimes.scoring import scoring_model
from minigpt.transformer.arch import shape_of
from minigpt.transformer.grams import matrices_by_input
from minigpt.types import Corpus

# llama.cpp's own quantisations and the numbers of their file types (enum llama_ftype of llama.h).
NATIVE = {"Q3_K_M": 12, "Q2_K": 10}
# Parents in bits that no runtime here reads: bits of the matrices and of the embedding.
HYPOTHETICAL = {"3 bits, embedding 4": (3, 4), "3 bits": (3, 3), "2 bits, embedding 4": (2, 4)}
# Program for the interpreter that has llama.cpp.
QUANTIZE = """import sys, llama_cpp
source, target, kind = sys.argv[1:]
settings = llama_cpp.llama_model_quantize_default_params()
settings.ftype, settings.nthread = int(kind), 1
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), settings))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One point of the frontier: a model in a precision.

    Attributes:
        name: its name, also that of its folder.
        group: parent, specialist or sibling.
        reference: the model.
        precision: a precision of the GGUF export, a name of `NATIVE` or one of `HYPOTHETICAL`.
    """

    name: str
    group: str
    reference: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An entry ready to be scored.

    Attributes:
        model: what :func:`minigpt.evaluation.evaluate` takes.
        tokenizer: its tokenizer.
        bytes: bytes of the file.
        scored: what the figures come from: the file, or the weights that its codes stand for.
    """

    model: Any
    tokenizer: Any
    bytes: int
    scored: str


def parent_entries(group: str, reference: str, *, hypothetical: bool) -> Iterator[Entry]:
    """List the precisions of an uncut model, fp16 first because llama.cpp quantises from it."""
    kinds = ["fp16", "int8", "int4", *NATIVE, *(HYPOTHETICAL if hypothetical else ())]
    for precision in kinds:
        name = f"{group}-{precision}".replace(", ", "-").replace(" ", "-")
        yield Entry(name=name, group=group, reference=reference, precision=precision)


def make_entry(entry: Entry, work: Path, corpus: Corpus) -> Opened | None:
    """Make the file of an entry, unless it stands there, and open it; None where its runtime is missing."""
    folder = work / entry.name
    if entry.precision in HYPOTHETICAL:
        return _in_few_bits(entry, corpus)
    if entry.precision in NATIVE:
        if interpreter() is None:
            return None
        if not (folder / RECORD).is_file():
            quantize_natively(work / f"{entry.group}-fp16", folder, entry.precision)
    elif not (folder / RECORD).is_file():
        source = find.find_model(entry.reference)
        request = request_of(source, folder, corpus)
        rounding = "compensated" if entry.precision == "int4" else None
        write_unproved(replace(request, precision=entry.precision, rounding=rounding))
    runtime = runtimes.load(folder)
    scored = "llama.cpp" if interpreter() is not None else "weights"
    return Opened(model=scoring_model(runtime), tokenizer=runtime.tokenizer, bytes=runtime.bytes, scored=scored)


def request_of(source: Parent, folder: Path, corpus: Corpus) -> ExportRequest:
    """Ask for a GGUF file that is calibrated on the domain's own calibration text."""
    return ExportRequest(source=source, format="gguf", output_dir=folder, domain=corpus.domain, corpus=corpus)


def quantize_natively(source: Path, folder: Path, kind: str) -> None:
    """Let llama.cpp quantise an F16 file, without an importance matrix.

    Rows that its blocks of 256 do not divide fall back to formats with smaller blocks and more bits.
    """
    python = interpreter()
    assert python is not None
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    (temporary / FILE).unlink()
    command = [python, "-c", QUANTIZE, str(source / FILE), str(temporary / FILE), str(NATIVE[kind])]
    subprocess.run(command, check=True, capture_output=True)
    record = read_record(source)
    write_json(temporary / RECORD, replace(record, precision=kind, bytes=(temporary / FILE).stat().st_size, files={}))
    temporary.rename(folder)


def _in_few_bits(entry: Entry, corpus: Corpus) -> Opened:
    """Round a parent to few bits in memory, with the error compensation of our int4, and count the file's bytes."""
    bits, embedding = HYPOTHETICAL[entry.precision]
    source = find.find_model(entry.reference)
    model: Any = assets.load_model(source.path, dtype=torch.float32)
    tokenizer: Any = assets.load_tokenizer(source.path)
    grams = _grams(entry.reference, model, tokenizer, request_of(source, Path("unused"), corpus))
    names = [name for group in matrices_by_input(model).values() for name in group]
    with few_bits(bits):
        rounded, _ = round_matrices({name: model.get_parameter(name).detach() for name in names}, grams)
        put(model, {name: matrix.values() for name, matrix in rounded.items()})
    table = model.get_input_embeddings().weight
    with few_bits(embedding), torch.no_grad():
        table.copy_(blocks.round_searched(table.detach()).values())
    layout = replace(engine_named("llama.cpp").layouts["int4"], matrices=block_bytes(bits), tied=block_bytes(embedding))
    size = file_sizes(model.config, tokenizer).parts(shape_of(model), layout).total
    return Opened(model=model, tokenizer=tokenizer, bytes=size, scored="weights; no runtime reads it")


# Gram matrices by the reference of their model: one pass over the calibration text serves all numbers of bits.
_KNOWN: dict[str, Mapping[str, Any]] = {}


def _grams(reference: str, model: Any, tokenizer: Any, request: ExportRequest) -> Mapping[str, Any]:
    """Measure the Gram matrices of a model's inputs, once."""
    if reference not in _KNOWN:
        _KNOWN[reference] = calibration_grams(model, tokenizer, request, SILENT)
    return _KNOWN[reference]


def put(model: Any, weights: dict[str, Any]) -> None:
    """Replace weights of a model."""
    with torch.no_grad():
        for name, weight in weights.items():
            model.get_parameter(name).copy_(weight)


def block_bytes(bits: int) -> float:
    """Bytes of a weight in blocks of 32 with a 16-bit scale."""
    return (bits + 16 / blocks.BLOCK) / 8


@contextmanager
def few_bits(bits: int) -> Iterator[None]:
    """Let the block rounding work with fewer codes than its sixteen; zero stays in the middle of the grid.

    The package rounds to four bits only, because that is what runtimes read, so its constants are changed for a while.
    """
    before = blocks.LEVELS, blocks.ZERO, blocks.PLACES
    share = 2**bits / before[0]
    blocks.LEVELS, blocks.ZERO = 2**bits, 2 ** (bits - 1)  # type: ignore[misc]
    blocks.PLACES = tuple(place * share for place in before[2])  # type: ignore[misc]
    try:
        yield
    finally:
        blocks.LEVELS, blocks.ZERO, blocks.PLACES = before  # type: ignore[misc]
