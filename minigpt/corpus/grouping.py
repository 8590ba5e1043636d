"""Groups in a user's text, such as folders, authors or sites, and the one that is best kept apart as another source.

A specialist can be good at its own sources and bad at others of the field. Only text of a source that it never read
tells, so where a text has several sources one of them is held out whole (`split: other`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from minigpt.corpus.coverage import WARN, seen_runs
from minigpt.corpus.groups import FEWEST_DOCUMENTS, FEWEST_GROUPS, UNGROUPED, Group, Grouping, Proposal
from minigpt.corpus.localfiles import rows_and_documents
from minigpt.corpus.rows import FOLDER, Row, field_text
from minigpt.corpus.selection import take_bytes
from minigpt.corpus.ties import names_documents, with_ties
from minigpt.domain.config import DomainConfig, SourceConfig
from minigpt.files import path_of
from minigpt.types import Document

# Share of the text that a group may have to be kept apart, and the share that is best.
SHARES = (0.05, 0.25)
BEST_SHARE = 0.15
# Bytes of a group that are searched for text of the others.
SEARCHED = 1 << 18

DATES = ("date", "year", "published")
ADDRESSES = ("url", "website")
# Names of columns that often say where a text comes from, the likeliest first.
COLUMNS = (
    *("source", "site", "author", "publisher", "journal", "institution", "organization", "department", "hospital"),
    *("court", "company", *ADDRESSES, *DATES),
)


def propose(source: SourceConfig, *, root: Path, column: str | None = None, value: str | None = None) -> Proposal:
    """Find the groups in a source's files and choose the one to keep apart: about 15 % of the text, never the largest.

    A group of which much stands in the others word for word is no other source and is passed over.

    Args:
        source: A source of files.
        root: Folder that its path is relative to.
        column: Column that tells groups apart, or `folder` (None: folders, or else a column such as `source`, `author`,
            `site` or `date`).
        value: The group to keep apart (None: the best one).

    Raises:
        CorpusError: The files cannot be read.
    """
    path = root / path_of(source.file or "")
    groupings = groupings_of(source, path, (column,) if column else (FOLDER, *COLUMNS))
    grouping = next((grouping for grouping in groupings if grouping.is_sound), None)
    if value is not None:
        return with_ties(source, _named(groupings, column, value), column)
    if grouping is None:
        return Proposal(grouping=None, group=None, reason=_too_few(groupings, column))
    low, high = SHARES
    fitting = [group for group in grouping.usable[1:] if low <= grouping.share(group) <= high]
    copied = 0
    for group in sorted(fitting, key=lambda group: abs(grouping.share(group) - BEST_SHARE)):
        if _copied(source, path, grouping.column, group) < WARN:
            proposal = Proposal(grouping=grouping, group=group, reason=_chosen(grouping, group))
            return with_ties(source, proposal, column)
        copied += 1
    size = f"{_percent(low)} to {_percent(high)} of the text"
    reason = f"none of the {len(grouping.usable)} groups by {grouping.column} has {size}"
    if copied:
        reason = f"much of every group by {grouping.column} of a fitting size stands in the others word for word"
    return Proposal(grouping=grouping, group=None, reason=f"Nothing is kept apart: {reason}.")


def parts(source: SourceConfig, proposal: Proposal) -> tuple[SourceConfig, ...]:
    """Divide a source into its text without the group that is kept apart, and that group as `split: other`.

    Rows of the group are documents of their own even where the column names documents: none of them leaves the group,
    and a report judges nothing by a single document.
    """
    if proposal.grouping is None or proposal.group is None:
        return (source,)
    column, value = proposal.grouping.column, proposal.group.value
    kept = replace(
        source,
        row_documents=source.row_documents or proposal.untied,
        without={**source.without, column: (value,)},
    )
    name = re.sub(r"[^\w.-]+", "-", value).strip("-") or "other"
    apart = replace(
        source,
        name=f"{source.name}-{name}",
        row_documents=source.row_documents or names_documents(source, column),
        where={**source.where, column: (value,)},
        split="other",
    )
    return kept, apart


def groupings_of(source: SourceConfig, path: Path, columns: Sequence[str]) -> tuple[Grouping, ...]:
    """Group the text of a source by each of the columns, in one reading.

    Args:
        source: The source.
        path: Its file or folder.
        columns: Columns to group by.
    """
    sizes: dict[str, dict[str, int]] = {column: {} for column in columns}
    documents: dict[str, dict[str, set[str]]] = {column: {} for column in columns}
    for row, passages in rows_and_documents(source, path):
        texts = list(passages)
        size = sum(len(passage.text.encode()) for passage in texts)
        for column in columns if texts else ():
            value = group_value(row, column)
            sizes[column][value] = sizes[column].get(value, 0) + size
            if value:
                members = documents[column].setdefault(value, set())
                members.add(f"row {len(members)}" if names_documents(source, column) else texts[0].source)
    return tuple(
        Grouping(
            column=column,
            groups=tuple(
                Group(value=value, documents=len(documents[column].get(value, ())), bytes=size)
                for value, size in sorted(sizes[column].items(), key=lambda item: (-item[1], item[0]))
            ),
        )
        for column in columns
    )


def group_value(row: Row, column: str) -> str:
    """Return the group of a row: the value of the column, the year of a date, or the host of an address."""
    text = field_text(row, column).strip()
    if column in DATES and (year := re.match(r"\d{4}", text)):
        return f"{year[0]}*"
    if column in ADDRESSES and (host := re.match(r"\w+://[^/]+/", text)):
        return f"{host[0]}*"
    return text


def _copied(source: SourceConfig, path: Path, column: str, group: Group) -> float:
    """Return the share of a group's 8-word runs that stand in the text of the others."""
    inside = replace(source, where={**source.where, column: (group.value,)})
    outside = replace(source, without={**source.without, column: (group.value,)})
    sample = take_bytes(list(_documents(inside, path)), SEARCHED)
    return seen_runs({"group": sample}, _documents(outside, path))["group"].share


def _documents(source: SourceConfig, path: Path) -> Iterator[Document]:
    """Yield the passages of a source."""
    for _, documents in rows_and_documents(source, path):
        yield from documents


def _named(groupings: Sequence[Grouping], column: str | None, value: str) -> Proposal:
    """Propose the group that the user names; any column that has it will do, unless one is given."""
    value = value.strip()
    for grouping in groupings:
        for group in grouping.groups:
            if group.value and value in (group.value, group.value.removesuffix("*")):
                return Proposal(grouping=grouping, group=group, reason=_described(grouping, group) + ".")
    values = ", ".join(group.value for grouping in groupings for group in grouping.usable[:8])
    where = f"in {column}" if column else "among folders and columns"
    reason = f"Nothing is kept apart: there is no {value!r} {where}"
    return Proposal(grouping=None, group=None, reason=f"{reason}; there is {values}." if values else f"{reason}.")


def _described(grouping: Grouping, group: Group) -> str:
    """Say which group it is and how much text it has."""
    return (
        f"The {grouping.column} {group.value.removesuffix('*')!r} is kept apart as another source "
        f"({group.documents:,} documents, {_percent(grouping.share(group))} of the text)"
    )


def _percent(share: float) -> str:
    """Format a share of the text."""
    return f"{100 * share:.0f} %"


def _chosen(grouping: Grouping, group: Group) -> str:
    """Say which group is kept apart, and why."""
    return (
        f"{_described(grouping, group)}: of {len(grouping.usable)} groups of at least {FEWEST_DOCUMENTS} documents "
        f"it is the one nearest to {_percent(BEST_SHARE)} that is not the largest."
    )


def _too_few(groupings: Sequence[Grouping], column: str | None) -> str:
    """Say why the text gives no group to keep apart: too few groups, or too much text that belongs to none."""
    partial = [grouping for grouping in groupings if len(grouping.usable) >= FEWEST_GROUPS]
    if partial:  # not sound, so much of the text has no value there
        best = min(partial, key=lambda grouping: grouping.ungrouped)
        return (
            f"Nothing is kept apart: {best.column} tells {len(best.usable)} groups of at least {FEWEST_DOCUMENTS} "
            f"documents apart, but {_percent(best.ungrouped)} of the text has no {best.column}, and at most "
            f"{_percent(UNGROUPED)} may. To keep one of them apart all the same, name it with `minigpt domains new "
            f"--hold-out`, e.g. {best.usable[-1].value.removesuffix('*')!r}."
        )
    by = f"by {column}" if column else "by folder or by a column such as source, author, site or date"
    most = max((len(grouping.usable) for grouping in groupings), default=0)
    return (
        f"Nothing is kept apart: {most or 'no'} group{'s' * (most != 1)} of at least {FEWEST_DOCUMENTS} documents "
        f"{'was' if most == 1 else 'were'} found {by}, and {FEWEST_GROUPS} are needed."
    )


def advice(domain: DomainConfig) -> list[str]:
    """Say which groups of a domain's own files could be kept apart, where nothing is kept apart yet.

    Args:
        domain: The domain.

    Raises:
        CorpusError: The files cannot be read.
    """
    if any(source.split == "other" for source in domain.corpus):
        return []
    lines = []
    for source in domain.corpus:
        if source.file is None or source.online or source.split not in ("auto", "train"):
            continue
        proposal = propose(source, root=domain.root)
        if proposal.grouping is not None and proposal.group is not None:
            column, value = proposal.grouping.column, proposal.group.value
            lines.append(
                f"{source.name} holds {len(proposal.grouping.usable)} groups by {column}. To see how a specialist does "
                f"on a source that it never read, give it `without: {{{column}: [{value!r}]}}` and add an entry with "
                f"`where: {{{column}: [{value!r}]}}` and `split: other`, as `minigpt domains new` does."
            )
    return lines
