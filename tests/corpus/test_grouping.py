"""Groups of own text, and the one that a new domain keeps apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from minigpt.corpus import build_corpus
from minigpt.corpus.grouping import advice, propose
from minigpt.corpus.groups import Proposal
from minigpt.corpus.newdomain import Grouped, NewDomain, new_domain
from minigpt.domain.config import SourceConfig, load_domain
from minigpt.errors import ConfigError

SIZES = {"guidelines": 40, "leaflets": 12, "letters": 25, "reports": 15}


def prose(seed: object, length: int = 50) -> str:
    draw = Random(str(seed))
    return " ".join(f"w{draw.randrange(3000)}" for _ in range(length))


def folders(root: Path, sizes: dict[str, int], *, length: int = 50) -> Path:
    for name, count in sizes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.txt").write_text(prose((name, number), length))
    return root


def table(root: Path, column: str, values: dict[str, int], **extra: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"text": prose((v, n)), column: v, **extra} for v, count in values.items() for n in range(count)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def proposal(folder: Path, **wishes: Any) -> Proposal:
    return propose(SourceConfig(name="texts", file=str(folder)), root=folder, **wishes)


def new(tmp_path: Path, folder: Path, **wishes: Any) -> NewDomain:
    return new_domain("mine", folder, output=tmp_path / "mine.yaml", grouped=Grouped(**wishes))


def test_the_folder_nearest_to_fifteen_percent_is_kept_apart(tmp_path: Path) -> None:
    written = new(tmp_path, folders(tmp_path / "texts", SIZES))
    assert written.grouped_by == "folder"
    assert {group.value: group.documents for group in written.groups} == SIZES
    # 15 of 92 documents are 16 %, 12 of 92 are 13 %.
    assert "The folder 'reports' is kept apart as another source (15 documents, 16 % of the text)" in written.apart
    domain = load_domain(str(written.path))
    corpus = build_corpus(domain)
    assert [source.split for source in domain.corpus] == ["auto", "other"]
    assert len(corpus.other) == 15
    texts = {(tmp_path / "texts" / "reports" / f"{number}.txt").read_text() for number in range(15)}
    assert {document.text for document in corpus.other} == texts
    assert sum(len(getattr(corpus, split)) for split in ("calibration", "train", "dev", "heldout")) == 92 - 15
    assert yaml.safe_load(written.path.read_text())["corpus"][1]["where"] == {"folder": ["reports"]}
    assert "# The folder 'reports' is kept apart" in written.path.read_text()


def test_the_largest_is_never_kept_apart_nor_a_group_that_is_too_small(tmp_path: Path) -> None:
    even = proposal(folders(tmp_path / "even", dict.fromkeys("abcd", 12)))
    assert even.group is not None and even.grouping is not None
    assert even.group is not even.grouping.groups[0]
    small = proposal(folders(tmp_path / "small", {**dict.fromkeys("abc", 30), "d": 12, "e": 9}))
    assert small.group is not None and small.group.value == "d"
    uneven = proposal(folders(tmp_path / "uneven", {"a": 900, **dict.fromkeys("bcd", 10)}, length=9))
    assert uneven.group is None and uneven.reason == (
        "Nothing is kept apart: none of the 4 groups by folder has 5 % to 25 % of the text."
    )


@pytest.mark.parametrize("sizes", [{"a": 50}, {"a": 20, "b": 20, "c": 20}, {**dict.fromkeys("abc", 20), "d": 9}])
def test_with_too_few_sources_nothing_is_kept_apart(tmp_path: Path, sizes: dict[str, int]) -> None:
    written = new(tmp_path, folders(tmp_path / "texts", sizes))
    assert written.apart.startswith("Nothing is kept apart: ") and written.apart.endswith(", and 4 are needed.")
    corpus = build_corpus(load_domain(str(written.path)))
    assert corpus.other == ()
    assert "# Nothing is kept apart" in written.path.read_text()
    assert ("1 group of at least 10 documents was found" in written.apart) == (len(sizes) == 1)


def test_a_copy_of_the_others_is_no_other_source(tmp_path: Path) -> None:
    folder = folders(tmp_path / "texts", {"a": 40, "b": 30, "c": 20, "d": 1})
    for number in range(16):  # 15 % of the text, and nothing but text of a
        (folder / "d" / f"{number}.txt").write_text((folder / "a" / f"{number}.txt").read_text() + f" copy {number}")
    chosen = proposal(folder)
    assert chosen.group is not None and chosen.group.value == "c"
    for number in range(20):
        (folder / "c" / f"{number}.txt").write_text((folder / "a" / f"{number}.txt").read_text() + f" copy {number}")
    assert proposal(folder).group is None
    assert "stands in the others word for word" in proposal(folder).reason


def test_a_column_tells_groups_apart_where_there_are_no_folders(tmp_path: Path) -> None:
    folder = table(tmp_path / "texts", "site", SIZES)
    written = new(tmp_path, folder)
    assert written.grouped_by == "site"
    corpus = build_corpus(load_domain(str(written.path)))
    assert len(corpus.other) == 15
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert {document.text for document in corpus.other} == {row["text"] for row in rows if row["site"] == "reports"}


def test_dates_are_grouped_by_year_and_addresses_by_host(tmp_path: Path) -> None:
    dates = {f"{year}-0{month}-01": 5 for year in (2020, 2021, 2022, 2023) for month in (1, 2, 3)}
    by_year = proposal(table(tmp_path / "dates", "date", dates))
    assert by_year.grouping is not None
    assert {group.value for group in by_year.grouping.groups} == {"2020*", "2021*", "2022*", "2023*"}
    pages = {f"https://{host}.org/{page}": 6 for host in "abcd" for page in (1, 2)}
    written = new(tmp_path, table(tmp_path / "pages", "url", pages))
    assert written.grouped_by == "url"
    assert len(build_corpus(load_domain(str(written.path))).other) == 12


def test_where_the_source_column_names_sites_every_row_is_a_document(tmp_path: Path) -> None:
    """Else 92 rows would be 4 documents, which are too few to split."""
    written = new(tmp_path, table(tmp_path / "texts", "source", SIZES))
    assert written.grouped_by == "source"
    domain = load_domain(str(written.path))
    assert all(source.row_documents for source in domain.corpus)
    corpus = build_corpus(domain)
    assert len({document.source for document in corpus.other}) == 15
    assert len({document.source for document in corpus.train}) > 50
    assert "because the 3 other sources are too few to split whole" in written.ties
    assert "remove `row_documents`" in " ".join(written.path.read_text().replace("#", "").split())
    books = {f"book {number}": 3 for number in range(30)}
    assert new_domain("books", table(tmp_path / "books", "source", books), output=tmp_path).grouped_by == ""


def test_rows_without_a_value_belong_to_no_group(tmp_path: Path) -> None:
    many = proposal(table(tmp_path / "texts", "site", {**SIZES, "": 20}))
    assert many.group is None
    assert re.search(
        r"site tells 4 groups .* apart, but \d+ % of the text has no site, and at most 5 % may.*--hold-out", many.reason
    )
    assert "are needed" not in many.reason
    few = proposal(table(tmp_path / "few", "site", {**SIZES, "": 3}))
    assert few.group is not None and few.group.value == "reports"


def test_a_user_names_the_column_the_source_or_none(tmp_path: Path) -> None:
    folder = folders(tmp_path / "texts", SIZES)
    named = new(tmp_path, folder, apart="leaflets")
    assert len(build_corpus(load_domain(str(named.path))).other) == 12
    named.path.unlink()
    none = new(tmp_path, folder, column="none")
    assert none.apart == "Nothing is kept apart, as you wished."
    assert len(load_domain(str(none.path)).corpus) == 1
    none.path.unlink()
    ward = table(tmp_path / "wards", "ward", SIZES)
    assert new(tmp_path, ward, column="ward").grouped_by == "ward"
    (tmp_path / "mine.yaml").unlink()
    with pytest.raises(
        ConfigError, match="there is no 'nowhere' among folders and columns; there is guidelines, letters"
    ):
        new(tmp_path, folder, apart="nowhere")
    with pytest.raises(ConfigError, match="no groups of at least 10 documents were found by color"):
        new(tmp_path, folder, column="color")
    assert not (tmp_path / "mine.yaml").exists()


def test_a_domain_file_without_one_is_advised(tmp_path: Path) -> None:
    folder = folders(tmp_path / "texts", SIZES)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "corpus": [{"name": "all", "file": str(folder)}]}))
    (line,) = advice(load_domain(str(path)))
    assert "all holds 4 groups by folder" in line and "`where: {folder: ['reports']}` and `split: other`" in line
    path.unlink()
    assert advice(load_domain(str(new(tmp_path, folder).path))) == []


def test_filters_need_rows(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: x\ncorpus: [{name: a, reader: hpo, ref: x, license: y, where: {site: [a]}}]\n"
    )
    with pytest.raises(ConfigError, match="where, without and row_documents need rows"):
        load_domain(str(tmp_path / "x.yaml"))
