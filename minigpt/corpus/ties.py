"""Rows that share a source: whether they stay together in one split, and the sentences that say so."""

from __future__ import annotations

from dataclasses import replace

from minigpt.corpus.groups import Proposal
from minigpt.domain.config import SourceConfig

# Fewest sources beside the one kept apart that are split whole: held-out, dev and calibration text take three at least,
# and half of them should be left to train on.
FEWEST_TIED = 6
# Sources of which a tenth are as many documents as a verdict of a report needs.
ENOUGH_TIED = 100


def names_documents(source: SourceConfig, column: str) -> bool:
    """Return True if the column names documents: rows that share it are one document."""
    return source.columns.get("source", "source") == column


def _caution(left: int) -> str:
    """Say what too few held-out documents mean; nothing where there are enough of them."""
    return "" if left >= ENOUGH_TIED else ": a report gives no verdict on fewer than 10, so add text of more of them"


def with_ties(source: SourceConfig, proposal: Proposal, column: str | None) -> Proposal:
    """Say whether rows that share a source stay in one split, where the groups are such sources.

    They do, unless the user names the column as one of groups, or too few sources are left to split them whole.

    Args:
        source: The source.
        proposal: The group to keep apart.
        column: Column that the user names (None: none).
    """
    if proposal.grouping is None or source.row_documents or not names_documents(source, proposal.grouping.column):
        return proposal
    name = proposal.grouping.column
    left = sum(1 for group in proposal.grouping.groups if group.value) - 1
    sources = f"the {left} other {name}s are" if left != 1 else f"the other {name} is"
    if column is None and left >= FEWEST_TIED:
        return replace(
            proposal,
            ties=f"Rows with the same {name} stay in one split, so {sources} as many documents, and about a tenth of "
            f"them is held out{_caution(left)}. If such rows do not belong together, as with sites or categories, "
            f"`--group-by {name}` makes every row a document of its own.",
        )
    why = f"as you named {name} as the column of groups" if column else f"because {sources} too few to split whole"
    remedy = "" if left >= FEWEST_TIED else f" and add text until at least {FEWEST_TIED} others are there"
    return replace(
        proposal,
        untied=True,
        ties=f"Every row is a document of its own, {why}: rows with the same {name} can be both trained on and "
        "measured. If they belong together, as with patients or cases, remove `row_documents` from the first entry of "
        f"the domain file{remedy}.",
    )
