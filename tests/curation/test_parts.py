"""Parts of a curation: spans of files, draws of splits, and what the plan says of a source."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minigpt.corpus.localfiles import rows_of_file
from minigpt.corpus.rows import spans
from minigpt.corpus.split import STRICTNESS, Passage, Shares, draw, hold_out
from minigpt.curation import drawing
from minigpt.curation.plan import Wishes, plan_of, state_of, units_of
from minigpt.domain.config import SourceConfig, load_domain
from minigpt.errors import CorpusError
from minigpt.types import Document
from tests.support.shelves import domain_file, shelf

SHARES = Shares()


def parts_of(passages: list[Passage], seed: int, count: int = 3) -> list[drawing.Drawn]:
    """Documents of passages, in partitions."""
    parts = []
    for number in range(count):
        sizes: dict[int, int] = {}
        strictness: dict[int, int] = {}
        for passage in passages:
            name = draw(seed, passage.document.source)
            if name % count == number:
                sizes[name] = sizes.get(name, 0) + len(passage.document.text)
                strictness[name] = max(strictness.get(name, 0), STRICTNESS[passage.declared])
        part = drawing.Drawn.empty(len(sizes))
        part.names[:], part.sizes[:] = list(sizes), list(sizes.values())
        part.strictness[:] = list(strictness.values())
        parts.append(part)
    return parts


@pytest.mark.parametrize(
    "declared", [("auto",), ("auto", "train"), ("auto", "dev"), ("heldout", "train", "auto", "other")]
)
@pytest.mark.parametrize("count", [8, 60, 500])
def test_the_draw_takes_what_one_process_takes(declared: tuple, count: int) -> None:
    for seed in range(4):
        draws = random.Random(seed)
        passages = [
            Passage(
                document=Document(text="x" * draws.choice((5, 30, 200, 4000)), source=f"d{number % (count * 2 // 3)}"),
                origin="o",
                declared=draws.choice(declared) if number > 6 else "auto",
            )
            for number in range(count)
        ]
        parts = parts_of(passages, seed)
        drawn = drawing.draw_splits(lambda parts=parts: parts, SHARES, history="")
        sides = hold_out(passages, seed=seed, shares=SHARES)
        strict = {name: code for part in parts for name, code in zip(part.names, part.strictness, strict=True)}
        for side in (drawing.HELDOUT, drawing.DEV):
            expected = {draw(seed, source) for source, where in sides.items() if where == side}
            assert set(drawn[side]) == {name for name in expected if strict[name] != STRICTNESS[side]}


def many(count: int, size: int) -> list[drawing.Drawn]:
    part = drawing.Drawn.empty(count)
    part.names[:] = [draw(1, str(number)) for number in range(count)]
    part.sizes[:] = size
    return [part]


def test_a_large_corpus_holds_out_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "LIMITS", {drawing.HELDOUT: 2_000, drawing.DEV: 1_000})
    seen = []
    parts = many(5_000, 50)

    def reading() -> Iterator[drawing.Drawn]:
        seen.append(1)
        yield from parts

    drawn = drawing.draw_splits(reading, SHARES, history="")
    assert 1_800 <= 50 * len(drawn["heldout"]) <= 2_200 and 900 <= 50 * len(drawn["dev"]) <= 1_100
    assert drawn["heldout"] == sorted(parts[0].names.tolist())[: len(drawn["heldout"])]
    assert not set(drawn["heldout"]) & set(drawn["dev"]) and len(seen) == 3


def test_a_draw_that_runs_out_of_small_documents_looks_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "LIMITS", {drawing.HELDOUT: 2_000, drawing.DEV: 1_000})
    parts = many(5_000, 10_000)
    parts[0].sizes[::1000] = 700
    drawn = drawing.draw_splits(lambda: parts, SHARES, history="")
    sizes = dict(zip(parts[0].names.tolist(), parts[0].sizes.tolist(), strict=True))
    assert [sizes[name] for name in drawn["heldout"]] == [700] * 3


def test_too_few_documents_are_refused_with_the_history() -> None:
    with pytest.raises(CorpusError, match=r"need 4 documents and 3 are left \(read 9\)"):
        drawing.draw_splits(lambda: many(3, 50), SHARES, history="read 9")


def test_spans_give_the_rows_and_names_of_the_whole_file(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {number}"}) for number in range(50)]
    lines[3:3] = ["", "null", "   "]
    file = tmp_path / "a.jsonl"
    file.write_text("\ufeff" + "\r\n".join(lines), "utf-8")
    source = SourceConfig(name="s", file=str(file))
    whole = [item for _, documents in rows_of_file(source, file, file) for item in documents]
    assert [item.source for item in whole] == [f"s:a.jsonl:{number}" for number in range(1, 51)]
    for size in (1, 40, 300, 10**6):
        parts = list(spans(file, size))
        read = [
            item for span in parts for _, documents in rows_of_file(source, file, file, span=span) for item in documents
        ]
        assert read == whole
        assert len(parts) == (1 if size == 10**6 else len(parts)) and parts[-1].stop == file.stat().st_size
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text"\n')
    last = list(spans(tmp_path / "bad.jsonl", 5))[-1]
    with pytest.raises(CorpusError, match="line 3"):
        list(rows_of_file(source, tmp_path, tmp_path / "bad.jsonl", span=last))


def test_units_are_divided_by_the_text_alone(tmp_path: Path) -> None:
    folder = shelf(tmp_path / "texts", 200)
    source = SourceConfig(name="s", file=str(folder))
    units = list(units_of(0, source, tmp_path, 20_000))
    assert sum(unit.span is not None for unit in units) > 3
    assert {file for unit in units for file in unit.files} == {str(file) for file in folder.iterdir()}
    assert len(list(units_of(0, source, tmp_path, 10**7))) == 1
    limited = SourceConfig(name="s", file=str(folder), limit=3)
    assert [unit.files for unit in units_of(0, limited, tmp_path, 20_000)] == [()]


def test_the_state_names_text_and_settings(tmp_path: Path) -> None:
    domain = load_domain(str(domain_file(shelf(tmp_path / "texts", 60), tmp_path / "x.yaml")))
    first = state_of(domain, Wishes())
    assert first == state_of(domain, Wishes()) != state_of(domain, Wishes(seed=1))
    folder = state_of(tmp_path / "texts", Wishes())
    (tmp_path / "texts" / "e.txt").write_text("More text.")
    assert first != state_of(domain, Wishes()) and folder != state_of(tmp_path / "texts", Wishes())
    assert plan_of(domain, Wishes(relevance=True), state="").relevance is False  # there are no seed sentences


def test_sides_hold_numbers_of_64_bits() -> None:
    part = drawing.Drawn.empty(1)
    part.names[:] = 2**64 - 1
    assert part.names.dtype == np.uint64 and int(part.names[0]) == 2**64 - 1
