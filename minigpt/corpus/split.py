"""Split by document: each document goes to one split, by its name and the seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeVar

from minigpt.errors import CorpusError
from minigpt.types import Document

Declared = Literal["auto", "train", "heldout", "dev", "other"]
Side = Literal["heldout", "other", "dev", "pool"]
# Largest calibration split, in bytes.
CALIBRATION_BYTES = 1 << 19
# Shares of the wanted bytes at which a split is full, and up to which the last document may fill it.
FULL, OVER = 0.9, 1.1
# Strictness of the splits: a document with several declarations goes to the strictest.
STRICTNESS = {"auto": 0, "train": 1, "dev": 2, "other": 3, "heldout": 4}

Name = TypeVar("Name", str, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage with the source that it was read from.

    Attributes:
        document: The passage.
        origin: Name of the source in the domain file.
        declared: Split that the source declares for its text.
    """

    document: Document
    origin: str
    declared: Declared = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of the text, in bytes, that do not go to the training split.

    Attributes:
        heldout: Share of the held-out split.
        dev: Share of the dev split.
        calibration: Share of the calibration split.
    """

    heldout: float = 0.10
    dev: float = 0.05
    calibration: float = 0.05

    @property
    def calibration_of_pool(self) -> float:
        """Share of the calibration split in the pool that held-out and dev leave."""
        return self.calibration / (1 - self.heldout - self.dev)


def draw(seed: int, *names: str) -> int:
    """Return a random 64-bit number that the seed and the names fix. Draws take documents in its order."""
    key = "\0".join((str(seed), *names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def by_draw(sources: Iterable[str], seed: int) -> list[str]:
    """Return the distinct sources in a random order that only the seed fixes, not the order in which they come."""
    return sorted(set(sources), key=lambda source: (draw(seed, source), source))


def hold_out(passages: Sequence[Passage], *, seed: int, shares: Shares, history: str = "") -> dict[str, Side]:
    """Assign every document to held-out, other, dev or the pool that calibration and training share.

    Declared splits are kept. Besides, held-out documents are drawn from those declared `auto`, and dev documents, if no
    source declares any, from all that may be trained on. A document with several declarations goes to the most
    protected split: held-out, then other, then dev, then training.

    Args:
        passages: Passages of all documents.
        seed: Seed of the draw.
        shares: Shares of the splits.
        history: Counts of the passages that were dropped before, for the error message.

    Returns:
        The side of each document, by its name.

    Raises:
        CorpusError: There are too few documents to fill the splits.
    """
    declared = _strictest_declarations(passages)
    sizes = sizes_of(passage.document for passage in passages)
    remaining = must_remain(Counter(declared.values()), history)
    side: dict[str, Side] = {
        source: "pool" if where == "auto" or where == "train" else where for source, where in declared.items()
    }
    auto = by_draw((source for source, where in declared.items() if where == "auto"), seed)
    leave = max(0, remaining - list(declared.values()).count("train"))
    side.update(dict.fromkeys(take(auto, sizes, share=shares.heldout, leave=leave), "heldout"))
    if "dev" not in declared.values():
        pool = by_draw((source for source, where in side.items() if where == "pool"), seed)
        side.update(dict.fromkeys(take(pool, sizes, share=shares.dev / (1 - shares.heldout), leave=2), "dev"))
    return side


def take(
    order: Sequence[str], sizes: Mapping[str, int], *, share: float, leave: int = 1, limit: int | None = None
) -> list[str]:
    """Take documents in order until about `share` of their bytes are taken.

    A document larger than what is still wanted is skipped, so that one book does not fill a split. At least one
    document is taken, the smallest if no other fits, unless fewer than `leave` would stay.

    Args:
        order: Names of the documents.
        sizes: Bytes of each document.
        share: Share of the bytes to take.
        leave: Number of documents that must stay.
        limit: Largest number of bytes to take; None for no limit.

    Returns:
        The names of the documents that are taken.
    """
    wanted = share * sum(sizes[source] for source in order)
    return take_wanted(order, sizes, wanted if limit is None else min(wanted, limit), most=len(order) - leave)


def take_wanted(order: Sequence[Name], sizes: Mapping[Name, int], wanted: float, *, most: int) -> list[Name]:
    """Take documents in order until about `wanted` bytes are taken, by the rules of :func:`take`.

    Args:
        order: Names of the documents.
        sizes: Bytes of each document.
        wanted: Bytes to take.
        most: Largest number of documents to take.
    """
    taken: list[Name] = []
    total = 0
    for source in order:
        if total >= FULL * wanted or len(taken) >= most:
            break
        if total + sizes[source] <= OVER * wanted:
            taken.append(source)
            total += sizes[source]
    if taken or most <= 0:
        return taken
    return [min(order, key=lambda source: sizes[source])]


def on_side(side: Side, passages: Iterable[Passage], sides: Mapping[str, Side]) -> list[Document]:
    """Return the passages of one side's documents, without those whose source declares another split.

    Args:
        side: The side.
        passages: Passages of all documents.
        sides: Side of each document, from :func:`hold_out`.
    """
    passages = list(passages)
    allowed = {"heldout": {"heldout", "auto"}, "other": {"other"}, "dev": {"dev", "auto"}, "pool": {"train", "auto"}}[
        side
    ]
    if side == "dev" and not any(p.declared == "dev" == sides[p.document.source] for p in passages):
        allowed = {"train", "auto"}
    return [p.document for p in passages if sides[p.document.source] == side and p.declared in allowed]


def sizes_of(documents: Iterable[Document]) -> dict[str, int]:
    """Return the bytes of UTF-8 text of each document, by its name."""
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.source] = sizes.get(document.source, 0) + len(document.text.encode())
    return sizes


def _strictest_declarations(passages: Iterable[Passage]) -> dict[str, Declared]:
    """Return the most protected split that is declared for each document."""
    declared: dict[str, Declared] = {}
    for passage in passages:
        source = passage.document.source
        if STRICTNESS[passage.declared] > STRICTNESS[declared.get(source, "auto")] or source not in declared:
            declared[source] = passage.declared
    return declared


def must_remain(declared: Mapping[str, int], history: str) -> int:
    """Return how many documents must remain after held-out is drawn: one for each split that draws from them.

    Args:
        declared: Number of documents for each declaration.
        history: Counts of the passages that were dropped before, for the error message.

    Raises:
        CorpusError: There are fewer documents than splits.
    """
    auto, train = declared.get("auto", 0), declared.get("train", 0)
    lacking = [name for name in ("heldout", "dev") if not declared.get(name)]
    needed, left = 2 + len(lacking), auto + train
    if left < needed:
        names = ", ".join([*lacking, "calibration"])
        raise CorpusError(
            f"Too little text: {names} and train need {needed} documents and {left} {'is' if left == 1 else 'are'} left"
            f"{f' ({history})' if history else ''}; add documents or sources."
        )
    if "heldout" in lacking and not auto:
        raise CorpusError(
            f"All {train} documents are declared for training and none can be held out; "
            "give one source the split heldout or auto."
        )
    return needed - ("heldout" in lacking)
