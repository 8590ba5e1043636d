"""Atomic writes, hashes and the JSON form of records. No other module writes text files without its help."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from minigpt.errors import MiniGPTError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Turn dataclasses, tuples and mappings into the dicts and lists that `json` can write."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: to_plain(item) for key, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """Return readable, deterministic JSON with a final newline."""
    return json.dumps(to_plain(value), indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"


def fingerprint(*values: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of `values`.

    Stages are named by the fingerprint of their inputs.
    """
    canonical = json.dumps(to_plain(list(values)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits, reading the file in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it only if the block succeeds.

    The path may become a file or a folder. If the block fails or the process is killed, the old content, if any,
    stays as it was.

    Raises:
        MiniGPTError: The disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = holder / path.name
    try:
        yield temporary
        if temporary.is_dir():
            _swap(temporary, path, holder / ".replaced")
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise MiniGPTError(
            f"Cannot write {path}: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _swap(new: Path, path: Path, aside: Path) -> None:
    """Replace the folder at `path` by `new`, so that one of the two is at `path` even after a failure."""
    try:
        if path.exists():
            os.replace(path, aside)
        os.replace(new, path)
    except BaseException:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a record or plain data atomically as JSON."""
    write_text(path, dumps(value))


def read_json(path: Path, kind: type[T]) -> T:
    """Read JSON into a dataclass (or any type that pydantic knows) and check every field.

    Raises:
        MiniGPTError: The file is missing, is not JSON or does not have the fields of `kind`.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise MiniGPTError(f"No such file: {path}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise MiniGPTError(f"{path} is not a valid {kind.__name__}: {where}: {first['msg']}.") from None


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write a file atomically, with one compact JSON document on each line."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(to_plain(row), ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[Any]:
    """Read a file with one JSON document on each line; skip empty lines.

    Raises:
        MiniGPTError: The file is missing, or a line is not JSON. The message names the line.
    """
    documents = []
    try:
        lines = path.read_text("utf-8").split("\n")  # not splitlines: a string may hold U+2028
    except FileNotFoundError:
        raise MiniGPTError(f"No such file: {path}.") from None
    for number, line in enumerate(lines, 1):
        try:
            documents += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise MiniGPTError(f"{path}, line {number}, is not JSON ({error}); fix or remove it.") from None
    return documents


def link(source: str, target: str) -> None:
    """Create `target` as a hard link to `source`, or as a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
