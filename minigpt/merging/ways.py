"""Ways to merge, each tried on the dev text of all domains; their results are kept until the merge is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from torch import Tensor

from minigpt.files import fingerprint, read_json, write_json
from minigpt.merging.reader import DevReader
from minigpt.progress.rates import Work
from minigpt.progress.stages import Numbered, discount, passing
from minigpt.tickets.delta_merge import RULES, Rule, merged
from minigpt.tickets.delta_store import Ticket

# Factors on the merged differences that are tried.
SCALES = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
# File of the results.
TRIED = "tried.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to merge, and what it costs.

    Attributes:
        rule: how differences are put together.
        scale: factor on the merged differences.
        ratios: bits per byte on each domain's dev text, relative to the domain's own ticket.
    """

    rule: Rule
    scale: float
    ratios: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest of the ratios, by which ways are compared."""
        return max(self.ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """All ways that were tried.

    Attributes:
        key: fingerprint of tickets, dev text and precision.
        own: bits per byte of each ticket on its own dev text.
        ways: the ways.
    """

    key: str
    own: tuple[float, ...]
    ways: tuple[Way, ...]

    @property
    def best(self) -> Way:
        """The way whose largest ratio is the smallest; of equal ones the first."""
        return min(self.ways, key=lambda way: way.worst)


def try_ways(
    reader: DevReader, parent: Mapping[str, Tensor], tickets: Sequence[Ticket], folder: Path, reporter: Numbered
) -> Tried:
    """Measure each ticket on its own dev text, and each way to merge on the dev text of all; or read it if it is there.

    Args:
        reader: dev texts of the domains.
        parent: the parent's tensors by name.
        tickets: the tickets.
        folder: folder of the results.
        reporter: told about progress.
    """
    pairs, path = list(product(RULES, SCALES)), folder / TRIED
    precision = str(reader.model.dtype)
    key = fingerprint([one.record.result for one in tickets], [text.digest for text in reader.dev], pairs, precision)
    before = read_json(path, Tried) if path.is_file() else None
    known = before if before is not None and before.key == key else None
    changes = [ticket.changes for ticket in tickets]
    with passing(reporter, "own", "Measuring each ticket"):
        if known is not None:
            discount(reporter, "own")
            own = known.own
        else:
            places = reporter.track(range(len(tickets)), title="Tickets", total=len(tickets))
            own = tuple(reader.loss(merged(parent, [changes[place]], "sum"), place) for place in places)
    with passing(reporter, "rules", f"Trying {len(pairs)} ways to merge"):
        if known is not None:
            discount(reporter, "rules")
            return known
        ways = [
            Way(rule=rule, scale=scale, ratios=reader.ratios(merged(parent, changes, rule, scale), own))
            for rule, scale in reporter.track(pairs, title="Merging", total=len(pairs))
        ]
        result = Tried(key=key, own=own, ways=tuple(ways))
        write_json(path, result)
    return result


def works_of(dev_tokens: Sequence[int]) -> dict[str, Work]:
    """Return the work of the measuring, in tokens: each ticket reads its own dev text, and each way all of them.

    Args:
        dev_tokens: tokens of each domain's dev text.
    """
    once = float(sum(dev_tokens))
    ways = len(RULES) * len(SCALES)
    return {
        "own": Work(kind="evaluate", operations=once, loop="Tickets", per_item=once / len(dev_tokens)),
        "rules": Work(kind="evaluate", operations=ways * once, loop="Merging", per_item=once),
    }
