"""Atomic and durable writes, hashes and the JSON form of records; other modules write text files with its help."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from minigpt.errors import ConfigError, MiniGPTError

T = TypeVar("T")

# The user's umask. It can only be read by setting it, which is not safe once there are threads.
UMASK = os.umask(0o022)
os.umask(UMASK)


# Name, beside the new folder, of the one that is being replaced.
REPLACED = ".replaced"
# Longest name of a file that common systems have, in bytes.
MAX_NAME = 255


def path_of(name: str | Path) -> Path:
    """Return the path that a user wrote, with `~` written out where there is such a user.

    Raises:
        ConfigError: It can be no path: a part of it is too long.
    """
    text = str(name).replace("\0", "\ufffd")  # no system has a name with this character
    if any(len(part.encode("utf-8", "replace")) > MAX_NAME for part in Path(text).parts):
        raise ConfigError(f"{text[:60]!r}... is too long for the name of a file. Check the spelling.")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return Path(text)


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
    stays as it was. The new content has reached the disk before it gets its name, so that a power cut leaves either
    the old or the new content, too.

    Raises:
        MiniGPTError: The disk is full or the folder cannot be written.
    """
    holder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary = holder / path.name
        yield temporary
        _sync_tree(temporary)
        if temporary.is_dir():
            _swap(temporary, path, holder / REPLACED)
        else:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except Exception as error:
        reason = write_failure(error)
        if reason is None:
            raise
        raise MiniGPTError(f"Cannot write {path}: {reason}. Free space or choose another folder.") from error
    finally:
        # What could not be put back is left for `sweep`.
        if holder is not None and (os.path.lexists(path) or not (holder / REPLACED).exists()):
            shutil.rmtree(holder, ignore_errors=True)


def write_failure(error: BaseException) -> str | None:
    """Say why a file could not be written, if that is what an error means; None for any other error.

    Libraries that write by themselves report a full disk with classes of their own (safetensors, pyarrow, torch), whose
    text holds the number that the operating system gave.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if isinstance(error, MiniGPTError):
        return None
    if number := re.search(r"\(os error (\d+)\)|\[?[Ee]rrno (\d+)\]?", str(error)):
        return os.strerror(int(number[1] or number[2]))
    return next((os.strerror(code) for code in (errno.ENOSPC, errno.EIO) if os.strerror(code) in str(error)), None)


def sweep(path: Path) -> None:
    """Delete what killed processes left beside `path` while they wrote it; call it only while nobody else writes it.

    A folder that was about to be replaced goes back into its place if nothing stands there.

    Raises:
        OSError: it cannot be moved back; nothing is deleted then.
    """
    # The pattern is that of `tempfile`: `.a.b.k3_x9q2f` is the temporary of `a.b` and not of `a`.
    ours = re.compile(re.escape(f".{path.name}.") + "[a-z0-9_]{8}")
    leftovers = [item for item in path.parent.glob(".*") if ours.fullmatch(item.name) and item.is_dir()]
    for leftover in sorted(leftovers, key=lambda item: item.stat().st_mtime_ns, reverse=True):  # the newest first
        if (leftover / REPLACED).exists() and not os.path.lexists(path):
            os.replace(leftover / REPLACED, path)
            sync_folder(path.parent)
        shutil.rmtree(leftover, ignore_errors=True)


def open_to_readers(path: Path) -> None:
    """Give a file, or a folder with all that is in it, the permissions that the user's umask allows.

    Some libraries write files that nobody else may read, whatever the user wants.
    """
    for item in (path, *path.rglob("*")) if path.is_dir() else (path,):
        item.chmod((0o777 if item.is_dir() else 0o666) & ~UMASK)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # systems without it, e.g. Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _sync_tree(path: Path) -> None:
    """Make a file, or a folder with all that is in it, durable."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        elif file.is_dir():
            sync_folder(file)
    if path.is_dir():
        sync_folder(path)


def _swap(new: Path, path: Path, aside: Path) -> None:
    """Replace the folder at `path` by `new`, so that one of the two is at `path` even after a failure.

    A process that is killed between the two steps leaves the old one at `aside`, and :func:`sweep` puts it back.
    """
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
    except OSError as error:
        raise MiniGPTError(f"Cannot read {path}: {error.strerror or error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise MiniGPTError(f"{path} is not a valid {kind.__name__}: {where}: {first['msg']}.") from None


def is_json(path: Path) -> bool:
    """Return whether a file is one whole JSON document."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return True


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
    except (OSError, UnicodeDecodeError) as error:
        raise MiniGPTError(f"Cannot read {path}: {error}.") from None
    for number, line in enumerate(lines, 1):
        try:
            documents += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise MiniGPTError(f"{path}, line {number}, is not JSON ({error}); fix or remove it.") from None
    return documents


def link(source: str, target: str) -> None:
    """Create `target` as a hard link to `source`, or as a copy if the file system has no hard links.

    A symbolic link is followed: a link to it would lead nowhere from another folder.
    """
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
