"""Groups in a user's text, and the one that is proposed to be kept apart."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.corpus.rows import FOLDER

# Fewest groups: with one kept apart, three are left, so that what a model learns is not the manner of one or two.
FEWEST_GROUPS = 4
# Fewest documents of a group that counts. Verdicts of a report need as many.
FEWEST_DOCUMENTS = 10
# Largest share of the text that may belong to no group.
UNGROUPED = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Text that comes from one place.

    Attributes:
        value: Value of the column that its rows share, in the form that `where` of a source takes.
        documents: Number of its documents.
        bytes: Size of its text.
    """

    value: str
    documents: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Groups of a source's text by one column.

    Attributes:
        column: The column; `folder` for the top-level folders.
        groups: The groups, the largest first; text that belongs to none has the value "".
    """

    column: str
    groups: tuple[Group, ...]

    @property
    def usable(self) -> tuple[Group, ...]:
        """Groups that are large enough to count."""
        return tuple(group for group in self.groups if group.value and group.documents >= FEWEST_DOCUMENTS)

    @property
    def bytes(self) -> int:
        """Size of the whole text."""
        return sum(group.bytes for group in self.groups)

    def share(self, group: Group) -> float:
        """Return the share of the text that belongs to a group."""
        return group.bytes / max(1, self.bytes)

    @property
    def ungrouped(self) -> float:
        """Share of the text that belongs to no group."""
        return sum(self.share(group) for group in self.groups if not group.value)

    @property
    def is_sound(self) -> bool:
        """True if there are enough groups and nearly all text belongs to one; files beside folders do not count."""
        return len(self.usable) >= FEWEST_GROUPS and (self.column == FOLDER or self.ungrouped <= UNGROUPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A group to keep apart, or the reason why there is none.

    Attributes:
        grouping: The groups; None where the text has no groups.
        group: The group to keep apart; None where none fits.
        reason: One sentence about the choice.
        untied: True if rows that share a source become documents of their own, which the splits may part.
        ties: Sentences on whether rows that share a source stay together; empty where the groups are no such sources.
    """

    grouping: Grouping | None
    group: Group | None
    reason: str
    untied: bool = False
    ties: str = ""
