"""FinanceToolkit (`financetoolkit/`): what ratios, options, bonds, risk measures and economic indicators mean.

Explanations in the doc strings of functions. Paragraphs about the use of the package (arguments, data frames,
downloads) are left out. A document is a run of neighboring functions of a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import MIN_CHARACTERS, clean, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

LICENSE = "MIT (FinanceToolkit)"
# Folders of explanations, and characters from which a document is complete.
FOLDERS = tuple(
    ["ratios", "models", "options", "fixedincome", "risk", "performance", "economics", "technicals", "econometrics"]
)
ENOUGH = 1500
SHORTEST = 70
# Beginning of the part of a doc string that is about code, and words of sentences that are.
CODE_PART = re.compile(
    r"(?m)^\s*(?:Args|Arguments|Parameters|Returns|Raises|Examples?|Notes?|As an example|Which returns)\b.*:"
)
CODE_WORDS = re.compile(
    r"[`_={}<>|]|\b(?:data ?frames?|series|parameters?|arguments?|methods?|functions?|class|cache\w*|api|toolkit|"
    r"financialmodelingprep|yahoo|columns?|rows?|index|returned|retriev\w+|pandas|numpy|nan|download\w*|keyword|"
    r"defaults?|endpoint|boolean|tickers?|callers?|controller|helper|module|optional|passing|bounds|available|"
    r"publish\w*|fallback|see definition|list of|dictionary|rounding|lag|instance|array|inputs?|raises?|code|"
    r"sources?)\b",
    re.IGNORECASE,
)
# Beginning of a sentence that says what a function does with a quantity, and the quantity's explanation behind it.
ORDER = re.compile(r"^(?:Calculates?|Computes?|Gets?|Determines?|Estimates?|Returns?|Obtains?|Fetch\w*|Converts?) ")
EXPLAINED = re.compile(r"^\w+ the (?P<name>[^,.:;]{3,80}), (?:which|(?P<article>an?|the)) (?P<rest>.+)$")
FORMULA = re.compile(r"[=*/^∑√]|\\")


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of neighboring explanations.

    Raises:
        CorpusError: The folder holds no Python files, or one cannot be parsed.
    """
    files = [file for folder in FOLDERS for file in sorted((path / folder).rglob("*.py"))]
    if not files:
        raise CorpusError(f"{path} holds no Python files with explanations.")
    known: set[str] = set()
    for file in files:
        current: list[str] = []
        first = ""
        for name, lines in explanations(file, known):
            first = first or name
            current += lines
            if sum(map(len, current)) >= ENOUGH:
                yield from documents_of(f"financetoolkit:{file.stem}/{first}", current, license=LICENSE)
                current, first = [], ""
        if sum(map(len, current)) >= MIN_CHARACTERS:
            yield from documents_of(f"financetoolkit:{file.stem}/{first}", current, license=LICENSE)


def explanations(file: Path, known: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (name of the function, new paragraphs about its subject) of a file.

    Args:
        file: The Python file.
        known: Paragraphs that were read before; the new ones are added.

    Raises:
        CorpusError: The file cannot be parsed.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise CorpusError(f"{file} is not readable as Python ({error}).") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            lines = [line for line in paragraphs(ast.get_docstring(node) or "") if line not in known]
            known.update(lines)
            if lines:
                yield node.name, lines


def paragraphs(doc: str) -> list[str]:
    """Return the paragraphs of a doc string that explain its subject, without sentences about the code."""
    text = CODE_PART.split(doc)[0]
    kept = []
    for block in re.split(r"\n\s*\n", text):
        if re.match(r"\s*(?:[-*]|\d+\.|For more information|Also known as|Where |Formula|The formula)", block):
            continue
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"\s+", " ", block).strip())
        kept_parts = (part for part in map(statement, sentences) if not CODE_WORDS.search(part))
        line = clean(" ".join(part for part in kept_parts if not FORMULA.search(part)))
        if len(line) >= SHORTEST and line[-1] == ".":
            kept.append(line)
    return kept


def statement(sentence: str) -> str:
    """Turn "Calculate the current ratio, a ratio that ..." into "The current ratio is a ratio that ...".

    An order that explains nothing becomes an empty string.
    """
    if not ORDER.match(sentence):
        return sentence
    match = EXPLAINED.match(sentence)
    if match is None:
        return ""
    verb = f"is {match['article']} " if match["article"] else ""
    return f"The {match['name']} {verb}{match['rest']}"
