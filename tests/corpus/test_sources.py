"""Text and questions from files, folders and data sets laid out as on the Hub; every wrong row is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from minigpt.corpus.newdomain import new_domain
from minigpt.corpus.sources import read_question_set, read_questions, read_source
from minigpt.domain.config import DomainConfig, QuestionsConfig, SourceConfig, load_domain
from minigpt.errors import ConfigError, CorpusError
from minigpt.types import Document


def jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def read(file: str, root: Path, **options: Any) -> list[Document]:
    return list(read_source(SourceConfig(name="s", file=file, **options), root=root))


def ask(root: Path, **options: Any) -> Any:
    return read_question_set(QuestionsConfig(name="q", **options), root=root)


def test_a_folder_gives_its_text_files_and_tables_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("One line\ngoes on.\n\nNext paragraph.", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_bytes("\ufeffNaïve café.\r\n".encode())
    jsonl(
        tmp_path / "c.jsonl", {"text": "Row."}, {"text": "  "}, {"text": "Other.", "source": "book", "license": "MIT"}
    )
    parquet(tmp_path / "d.parquet", [{"text": "Column."}])
    (tmp_path / "ignored.csv").write_text("x", encoding="utf-8")
    documents = read(".", tmp_path, license="CC0")
    assert [(item.text, item.source, item.license) for item in documents] == [
        ("One line goes on.\nNext paragraph.", "s:a.md", "CC0"),
        ("Row.", "s:c.jsonl:1", "CC0"),
        ("Other.", "book", "MIT"),
        ("Column.", "s:d.parquet:1", "CC0"),
        ("Naïve café.", "s:sub/b.txt", "CC0"),
    ]


def test_columns_are_mapped_and_a_dot_walks_into_fields(tmp_path: Path) -> None:
    row = {"context": {"contexts": ["First.", "Second."]}, "id": 7, "terms": "MIT"}
    jsonl(tmp_path / "a.jsonl", row)
    columns = {"text": "context.contexts", "source": "id", "license": "terms"}
    assert read("a.jsonl", tmp_path, columns=columns) == [Document(text="First.\nSecond.", source="7", license="MIT")]


def test_a_long_text_becomes_passages_of_one_document_and_loses_no_word(tmp_path: Path) -> None:
    text = "\n".join(f"Sentence {number} has some words in it. " * 20 for number in range(40))
    jsonl(tmp_path / "a.jsonl", {"text": text, "source": "book"})
    passages = read("a.jsonl", tmp_path)
    assert len(passages) > 5
    assert {item.source for item in passages} == {"book"}
    assert max(len(item.text) for item in passages) <= 3300
    assert " ".join(item.text for item in passages).split() == text.split()


def test_a_limit_counts_documents_and_an_online_source_waits(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *({"text": "t", "source": str(number // 2)} for number in range(10)))
    assert [item.source for item in read("a.jsonl", tmp_path, limit=2)] == ["0", "0", "1", "1"]
    assert read("a.jsonl", tmp_path, online=True) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', r"line 2: not valid JSON"),
        (b'{"text": "a"}\n\n[1]\n', r"line 3: expected an object"),
        (b'{"body": "a"}\n', r"line 1: no field 'text'; the fields are body.*columns: {text: body}"),
        (b'{"text": 5}\n', r"line 1: text must be text, found int"),
        (b'{"text": "\xff"}\n', r"line 1: not UTF-8"),
        (b"\n\n", r"holds no text"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read("a.jsonl", tmp_path)


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "b.parquet").write_bytes(b"not parquet")
    for name, message in [
        ("none.txt", "No such"),
        ("empty", "holds no"),
        ("a.pdf", "expected one of"),
        ("b.parquet", "Parquet"),
    ]:
        with pytest.raises(CorpusError, match=message):
            read(name, tmp_path)
    with pytest.raises(ConfigError, match="No reader called 'nonsuch'"):
        list(read_source(SourceConfig(name="s", reader="nonsuch", ref="x"), root=tmp_path))


def test_medmcqa_rows(tmp_path: Path) -> None:
    row = {"id": "1", "question": "Which?", "opa": "A1", "opb": "B1", "opc": "C1", "opd": "D1", "cop": 2}
    parquet(tmp_path / "a.parquet", [{**row, "subject_name": "Anatomy"}])
    mapped = next(item for item in load_domain("medical").questions if item.name == "medmcqa").columns
    (question,) = ask(tmp_path, file="a.parquet", columns=mapped).questions
    assert (question.choices, question.answer, question.subject) == (("A1", "B1", "C1", "D1"), 2, "Anatomy")


def test_pubmedqa_rows(tmp_path: Path) -> None:
    row = {"question": "Is it?", "context": {"contexts": ["X.", "Y."]}, "final_decision": "maybe"}
    jsonl(tmp_path / "a.jsonl", row)
    named = next(item for item in load_domain("medical").questions if item.name == "pubmedqa")
    options = {"columns": named.columns, "template": named.template, "choices": named.choices}
    (question,) = ask(tmp_path, file="a.jsonl", **options).questions
    assert question.question == "X.\nY.\nQuestion: Is it?"
    assert (question.choices, question.answer) == (("yes", "no", "maybe"), 2)


def test_casehold_rows(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"context": "It held (<HOLDING>).", "endings": list("abcde"), "label": 4})
    mapped = next(item for item in load_domain("law").questions if item.name == "casehold").columns
    (question,) = ask(tmp_path, file="a.jsonl", columns=mapped).questions
    assert (question.question, len(question.choices), question.answer) == ("It held (<HOLDING>).", 5, 4)


def test_phrasebank_and_arc_rows(tmp_path: Path) -> None:
    sentiments = ["positive", "neutral", "negative"]
    jsonl(tmp_path / "a.jsonl", {"text": "Profit rose.", "choices": sentiments, "answer": "positive", "gold": 0})
    named = next(item for item in load_domain("finance").questions if item.name == "phrasebank")
    (question,) = ask(tmp_path, file="a.jsonl", columns=named.columns, template=named.template).questions
    assert question.question.startswith("Profit rose.") and question.answer == 0
    arc = {"question": "Why?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    jsonl(tmp_path / "b.jsonl", arc)
    mapped = next(item for item in load_domain("general").questions if item.name == "arc_easy").columns
    (question,) = ask(tmp_path, file="b.jsonl", columns=mapped).questions
    assert (question.choices, question.answer) == (("x", "y"), 1)


@pytest.mark.parametrize(
    ("answer", "base", "index"), [(1, 0, 1), (1, 1, 0), ("B", 0, 1), ("c", 0, 2), ("fish", 0, 2), ("2", 1, 1)]
)
def test_an_answer_may_be_an_index_a_letter_or_the_choice(tmp_path: Path, answer: Any, base: int, index: int) -> None:
    jsonl(tmp_path / "a.jsonl", {"question": "?", "choices": ["dog", "cat", "fish"], "answer": answer})
    assert ask(tmp_path, file="a.jsonl", answer_base=base).questions[0].answer == index


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "choices": ["a", "b"], "answer": 2}, r"line 1: the answer 2 is none of the 2 choices"),
        ({"question": "?", "choices": ["a", "b"], "answer": -1}, "the answer -1"),
        ({"question": "?", "choices": ["a", "b"], "answer": "z"}, "the answer 'z'"),
        ({"question": "?", "choices": ["a"], "answer": 0}, "at least two"),
        ({"question": " ", "choices": ["a", "b"], "answer": 0}, "question is empty"),
        ({"choices": ["a", "b"], "answer": 0}, "no field 'question'"),
    ],
)
def test_a_wrong_question_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    jsonl(tmp_path / "a.jsonl", row)
    with pytest.raises(CorpusError, match=message):
        ask(tmp_path, file="a.jsonl")


def test_a_data_set_folder_is_read_as_the_hub_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parquet(tmp_path / "data" / "train-00000.parquet", [{"body": f"Text {number}."} for number in range(5)])
    source = SourceConfig(name="h", hub=str(tmp_path), columns={"text": "body"}, limit=3)
    assert [item.text for item in read_source(source, root=tmp_path)] == ["Text 0.", "Text 1.", "Text 2."]
    missing = SourceConfig(name="h", hub=str(tmp_path / "none"))
    with pytest.raises(CorpusError, match=r"Cannot load .* from the Hugging Face Hub"):
        list(read_source(missing, root=tmp_path))


def laid_out(folder: Path) -> Path:
    choice = {"question": "?", "choices": ["a", "b"], "answer": 0}
    jsonl(folder / "corpus_train.jsonl", {"text": "Train.", "source": "t"})
    jsonl(folder / "corpus_heldout.jsonl", {"text": "Held.", "source": "h"})
    for name in ("dev", "test", "glossary", "textbook"):
        jsonl(folder / f"mcq_{name}.jsonl", choice)
    return folder


def test_a_folder_with_declared_splits_keeps_them(tmp_path: Path) -> None:
    path = new_domain("heart", laid_out(tmp_path / "in"), output=tmp_path, general=laid_out(tmp_path / "other")).path
    domain = load_domain(str(path))
    assert {item.name: item.split for item in domain.corpus} == {"corpus_train": "train", "corpus_heldout": "heldout"}
    sets = list(read_questions(domain, root=domain.root))
    assert {(item.name, item.role) for item in sets} == {
        ("dev", "dev"),
        ("test", "test"),
        ("glossary", "test"),
        ("textbook", "test"),
    }
    assert not any(item.derived for item in sets)
    general = load_domain(domain.general)
    assert isinstance(general, DomainConfig) and general.general_text and len(general.corpus) == 2
    assert "general_text: true" in Path(domain.general).read_text("utf-8")


def test_a_plain_folder_becomes_one_source(tmp_path: Path) -> None:
    (tmp_path / "my text").mkdir()
    (tmp_path / "my text" / "a.txt").write_text("Some text.", encoding="utf-8")
    path = new_domain("mine", tmp_path / "my text", output=tmp_path / "out.yaml").path
    domain = load_domain(str(path))
    assert [item.text for item in read_source(domain.corpus[0], root=domain.root)] == ["Some text."]
    assert domain.general == "general" and domain.questions == ()
    with pytest.raises(ConfigError, match="already there"):
        new_domain("mine", tmp_path / "my text", output=path)


@pytest.mark.parametrize(
    ("name", "content", "in_place"),
    [
        ("rows.csv", "id,note\n1,The first note is long enough to be text.\n2,The second note is, too.\n", False),
        ("rows.jsonl", '{"text": "The first."}\n{"text": "The second."}\n', True),
    ],
)
def test_a_single_file_becomes_one_source(tmp_path: Path, name: str, content: str, in_place: bool) -> None:
    (tmp_path / "other.txt").write_text("A neighbour that is not read.")
    (tmp_path / name).write_text(content)
    written = new_domain("mine", tmp_path / name, output=tmp_path / "domains")
    assert [(item.file, item.documents) for item in written.reading.files] == [(name, 2)]
    assert (written.texts is None) == in_place
    domain = load_domain(str(written.path))
    texts = [item.text for source in domain.corpus for item in read_source(source, root=domain.root)]
    assert len(texts) == 2 and texts[0].startswith("The first")


def test_a_packaged_name_is_refused(tmp_path: Path) -> None:
    """`--domain medical` would silently mean another text in this folder."""
    (tmp_path / "a.txt").write_text("Some text.")
    for name in ("medical", "general"):
        with pytest.raises(ConfigError, match=f"packaged domain.*my-{name}"):
            new_domain(name, tmp_path, output=tmp_path / "domains")


def test_a_folder_that_cannot_be_read_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    jsonl(tmp_path / "bad" / "a.jsonl", {"body": "x"})
    for folder in ("empty", "bad", "none"):
        with pytest.raises(CorpusError):
            new_domain("x", tmp_path / folder, output=tmp_path / "out.yaml")
        assert not (tmp_path / "out.yaml").exists()
    with pytest.raises(ConfigError, match="cannot name a domain"):
        new_domain("A b", tmp_path, output=tmp_path)
