"""Doc strings of classes and their members, read from Python files with `ast`. Nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from minigpt.errors import CorpusError


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentedClass:
    """A class with doc strings.

    Attributes:
        name: Name of the class.
        doc: Doc string of the class; empty if there is none.
        members: Pairs (name, doc string) of its members, in the order of the file.
        path: Path of the file, relative to the folder that is read.
    """

    name: str
    doc: str
    members: tuple[tuple[str, str], ...]
    path: str


def documented_classes(folder: Path, *, skip: frozenset[str] = frozenset()) -> Iterator[DocumentedClass]:
    """Yield every documented class under a folder, in the order of the files. Inner classes follow their outer one.

    Args:
        folder: The folder.
        skip: Names of files and folders to leave out.

    Raises:
        CorpusError: The folder has no Python files, or a file cannot be parsed.
    """
    files = sorted(folder.rglob("*.py"))
    if not files:
        raise CorpusError(f"{folder} holds no Python files to read doc strings from.")
    for file in files:
        parts = file.relative_to(folder).parts
        if skip & set(parts):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            raise CorpusError(f"{file} is not readable as Python ({error}).") from None
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                yield from classes(node, "/".join(parts), node.name)


def classes(node: ast.ClassDef, path: str, name: str) -> Iterator[DocumentedClass]:
    """Yield a class, if it is documented, and its inner classes, whose names start with the outer name."""
    doc = ast.get_docstring(node) or ""
    item = DocumentedClass(name=name, doc=doc, members=tuple(members(node.body)), path=path)
    if item.doc or item.members:
        yield item
    for inner in node.body:
        if isinstance(inner, ast.ClassDef):
            yield from classes(inner, path, f"{name}{inner.name}")


def members(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield (name, doc string) of every assignment that a string literal follows."""
    for statement, after in pairwise(body):
        name = assigned_name(statement)
        doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if name and isinstance(doc, str):
            yield name, doc


def assigned_name(statement: ast.stmt) -> str:
    """Return the one plain name that a statement assigns or annotates, or an empty string."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return ""
