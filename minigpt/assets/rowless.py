"""Added tokens that a model has no row for, such as the image token of a text-only model: they are left out.

No text holds such a token, so nothing is lost; with it the ids of the tokenizer would reach beyond the embedding, which
vocabulary pruning and exports refuse.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minigpt.files import write_text
from minigpt.parsing import load_json

# Files of a tokenizer that are read beside tokenizer.json.
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
# Folder of a tokenizer's chat templates beyond the default one.
TEMPLATES = "additional_chat_templates"


@contextmanager
def without_rowless(folder: Path) -> Iterator[Path]:
    """Give a folder whose tokenizer has no added token beyond the model's rows: the same one where there is none.

    Args:
        folder: a folder with tokenizer.json, and config.json if the number of rows is known.
    """
    names = rowless(folder)
    if not names:
        yield folder
        return
    with TemporaryDirectory(prefix="minigpt-") as temporary:
        for name in ("tokenizer.json", *BESIDE):
            path = folder / name
            if path.suffix == ".json" and path.is_file():
                kept = without(load_json(path.read_text("utf-8")), names)
                write_text(Path(temporary) / name, json.dumps(kept))
            elif path.is_file():
                shutil.copyfile(path, Path(temporary) / name)
        yield Path(temporary)


def rowless(folder: Path) -> frozenset[str]:
    """Name the added tokens of a folder's tokenizer whose ids are beyond the rows that its config.json declares."""
    try:
        rows = load_json((folder / "config.json").read_text("utf-8")).get("vocab_size")
        document = load_json((folder / "tokenizer.json").read_text("utf-8"))
        added, vocabulary = document["added_tokens"], document["model"]["vocab"]
        beyond = {token["content"] for token in added if isinstance(rows, int) and token["id"] >= rows}
        return frozenset(name for name in beyond if not isinstance(vocabulary, dict) or name not in vocabulary)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return frozenset()  # whoever reads these files says what is wrong with them


def without(value: Any, names: frozenset[str]) -> Any:
    """Return a file of a tokenizer without the entries that stand for some tokens.

    Args:
        value: parsed content, or a part of it.
        names: the tokens to leave out.
    """
    if isinstance(value, dict):
        return {key: without(item, names) for key, item in value.items() if not _stands_for(item, names)}
    if isinstance(value, list):
        return [without(item, names) for item in value if not _stands_for(item, names)]
    return value


def _stands_for(value: Any, names: frozenset[str]) -> bool:
    """Return whether an entry is one of the tokens, as a name or with its properties."""
    return value in names if isinstance(value, str) else isinstance(value, dict) and value.get("content") in names
