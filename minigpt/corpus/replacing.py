"""Replacement of domain files: a new definition and its texts take the place of old ones when both are complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from minigpt.corpus.ownfiles import texts_folder
from minigpt.domain.checks import read_yaml
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import sync_folder, write_failure

# Folder, inside of the one that new files are written to, for the old ones while these are replaced.
OLD = "replaced"


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[Path]:
    """Yield a hidden folder beside domain files; files of their names in it take their places if the block succeeds.

    A domain file and the folder of its texts change together. If the block or a step of the change fails, everything
    is as it was. A process that is killed between two steps leaves the old files in the hidden folder.

    Args:
        targets: The domain files, all of one folder.

    Raises:
        MiniGPTError: The disk is full or the folder cannot be written.
    """
    parent = targets[0].parent
    with _writing(targets[0]):
        parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{targets[0].name}.", dir=parent))
    try:
        yield stage
        with _writing(targets[0]):
            _publish([place for target in reversed(targets) for place in _in_order(target, stage)], stage)
            sync_folder(parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn errors of the system into a sentence on the file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise MiniGPTError(
            f"Cannot write {target}: {write_failure(error)}. Free space or choose another --output."
        ) from error


def _in_order(target: Path, stage: Path) -> tuple[Path, ...]:
    """Return the two places of a definition: new texts come before the file that names them, old ones go after it."""
    texts = texts_folder(target)
    return (texts, target) if (stage / texts.name).exists() else (target, texts)


def _publish(places: Sequence[Path], stage: Path) -> None:
    """Move what stands at the places aside and new files of their names there; put everything back on a failure."""
    aside = stage / OLD
    aside.mkdir()
    moved: list[Path] = []
    try:
        for place in places:
            new = stage / place.name
            moved.append(place)
            if place.is_file() and new.exists():
                shutil.copy2(place, aside / place.name)  # the name is never without a file
            elif place.exists():
                os.replace(place, aside / place.name)
            if new.exists():
                os.replace(new, place)
    except BaseException:
        for place in reversed(moved):
            _put_back(place, aside / place.name, stage / place.name)
        raise


def _put_back(place: Path, old: Path, new: Path) -> None:
    """Undo one replacement, whichever of its steps was the last."""
    if place.exists() and not new.exists():
        os.replace(place, new)
    if old.exists() and not place.exists():
        os.replace(old, place)


def check_replaceable(target: Path, name: str) -> None:
    """Refuse to replace anything but a definition of that name and the texts that were converted for it.

    Args:
        target: The domain file.
        name: The name of the new domain.

    Raises:
        ConfigError: The file is no definition of that name, or the folder of texts is not named in it.
    """
    values = read_yaml(target) if target.exists() else {}
    if target.exists() and values.get("name") != name:
        raise ConfigError(
            f"{target} is no definition of {name}, and --force replaces no other file. Choose another --output."
        )
    texts = texts_folder(target)
    if texts.exists() and texts.name not in _files(values):
        raise ConfigError(
            f"{texts} is already there, and no definition of {name} names it, so that --force does not replace it. "
            "Move it away or choose another --output."
        )


def replaced_sentence(targets: Sequence[Path]) -> str:
    """Say which definitions will be replaced, and where their texts come from; empty where there are none.

    Args:
        targets: The domain files that will be written.
    """
    parts = []
    for target in targets:
        if target.exists():
            texts = texts_folder(target)
            converted = f" with {texts}" if texts.exists() else ""
            files = ", ".join(dict.fromkeys(_files(read_yaml(target)))) or "no files"
            parts.append(f"{target}{converted} (it named {files})")
    return f"Replaced {' and '.join(parts)}." if parts else ""


def _files(values: dict[str, object]) -> list[str]:
    """List the files of text that the values of a definition name."""
    corpus = values.get("corpus")
    sources = corpus if isinstance(corpus, list) else []
    return [str(source["file"]) for source in sources if isinstance(source, dict) and source.get("file")]
