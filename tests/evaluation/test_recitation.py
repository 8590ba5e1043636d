"""Recitation against greedy decoding token by token, on a tiny model that has learnt some texts by heart."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from minigpt.evaluation import ItemScores, recite, summarize
from minigpt.evaluation.items import RecitationItems, TextItems, with_parts
from minigpt.evaluation.recitation import parts_to_recite
from minigpt.evaluation.suite import passages_to_recite, suite_for
from minigpt.types import Corpus, Document
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer

WORDS = sorted({word.strip(".,;") for sentence in SENTENCES[:4] for word in sentence.split()})


def texts(seed: int, count: int) -> list[Document]:
    draw = Random(seed)
    return [Document(text=" ".join(draw.choices(WORDS, k=60)), source=f"{seed}/{n // 2}") for n in range(count)]


@pytest.fixture(scope="module")
def learnt() -> tuple[Any, Any, list[Document]]:
    """A tiny model after training on four passages until it knows them."""
    tokenizer, model, documents = tiny_tokenizer(), tiny_model(seed=3, layers=2), texts(0, 4)
    rows = [[1, *tokenizer.encode(document.text, add_special_tokens=False)][:110] for document in documents]
    batch = torch.tensor([row[: min(map(len, rows))] for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(150):
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer, documents


def decoded(model: Any, tokenizer: Any, text: str, opening: int) -> int:
    """Characters of the continuation that plain greedy decoding gives back."""
    shown, continuation = parts_to_recite(text) or ("", "")
    ids = [opening, *tokenizer.encode(shown, add_special_tokens=False)]
    start, written = len(ids), ""
    while continuation.startswith(written) and written != continuation:
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        written = tokenizer.decode(ids[start:], skip_special_tokens=True)
    return next((n for n, (a, b) in enumerate(zip(written, continuation, strict=False)) if a != b), len(continuation))


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_one_pass_counts_what_greedy_decoding_writes(learnt: Any, batch_tokens: int) -> None:
    model, tokenizer, known = learnt
    passages = {"a/train": [*known, *texts(1, 3)], "a": texts(2, 5)}
    items = recite(model, tokenizer, passages, batch_tokens=batch_tokens)
    for task, documents in passages.items():
        keys = list(dict.fromkeys(document.source for document in documents))
        expected = dict.fromkeys(keys, 0)
        for document in documents:
            expected[document.source] += decoded(model, tokenizer, document.text, 1)
        assert items[task].keys == tuple(keys)
        assert items[task].recited == tuple(expected.values())
    learnt_items = items["a/train"]
    assert learnt_items.recited[:2] == learnt_items.characters[:2]
    assert sum(items["a"].recited) < 0.3 * sum(items["a"].characters)


def test_the_opening_of_a_text_is_the_caller_s(learnt: Any) -> None:
    model, tokenizer, known = learnt
    behind = recite(model, tokenizer, {"t": known}, opening=7)["t"]
    assert sum(behind.recited) == sum(decoded(model, tokenizer, document.text, 7) for document in known)


def test_training_mode_is_left_as_it_was(learnt: Any) -> None:
    model, tokenizer, known = learnt
    model.train()
    recite(model, tokenizer, {"t": known})
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("length", "shown", "continued"),
    [(119, None, None), (120, 60, 60), (200, 100, 100), (400, 128, 100), (228, 114, 100)],
)
def test_passages_are_cut_at_ends_of_words(length: int, shown: int | None, continued: int | None) -> None:
    text = ("abcdef " * 100)[:length].rstrip().ljust(length, "x")
    parts = parts_to_recite(text)
    if shown is None or continued is None:
        assert parts is None
        return
    assert parts is not None
    beginning, continuation = parts
    assert text.startswith(beginning + continuation)
    assert shown - 7 < len(beginning) <= shown and continuation.startswith(" ")
    assert len(continuation) <= 100 and len(continuation) > min(continued, 100) - 14
    assert text[len(beginning) + len(continuation) :][:1] in ("", " ")


def test_text_without_spaces_is_cut_by_characters() -> None:
    assert parts_to_recite("東" * 300) == ("東" * 128, "東" * 100)


def test_passages_come_from_as_many_documents_as_possible() -> None:
    documents = [Document(text=f"{n} " + "word " * 40, source=f"d{n % 5}") for n in range(40)]
    short = [Document(text="too short", source="s")]
    taken = passages_to_recite([*documents, *short], 7, seed=0)
    assert len(taken) == 7 and {document.source for document in taken} == {f"d{n}" for n in range(5)}
    assert set(passages_to_recite(documents[::-1], 7, seed=0)) == set(taken)
    assert passages_to_recite(documents, 0, seed=0) == ()
    assert len(passages_to_recite(documents, 99, seed=0)) == 40


def test_a_suite_asks_for_training_and_held_out_passages_or_for_none() -> None:
    def corpus(train: list[Document]) -> Corpus:
        return Corpus(domain="a", calibration=(), train=tuple(train), dev=(), heldout=tuple(texts(2, 6)))

    suite = suite_for(corpus(texts(1, 6)), recitations=4)
    assert {task: len(passages) for task, passages in suite.recitations.items()} == {"a/train": 4, "a": 4}
    assert suite_for(corpus(texts(1, 6))).recitations == {}
    assert suite_for(corpus([Document(text="short", source="s")]), recitations=4).recitations == {}


def test_the_report_s_metric_is_a_share_of_characters_with_a_paired_difference() -> None:
    ours = RecitationItems(keys=("a", "b", "c"), recited=(50, 0, 30), characters=(100, 90, 110))
    parents = RecitationItems(keys=("a", "b", "c"), recited=(10, 0, 5), characters=(100, 90, 110))
    (result,) = summarize(
        ItemScores(recitations={"x/train": ours}), parent=ItemScores(recitations={"x/train": parents})
    )
    assert (result.task, result.metric, result.n, result.higher_is_better) == ("x/train", "recitation", 3, False)
    assert result.value == pytest.approx(80 / 300)
    assert result.paired_difference_vs_parent is not None
    assert result.paired_difference_vs_parent.value == pytest.approx(65 / 300)


def test_a_part_of_a_task_has_the_scores_of_its_documents() -> None:
    whole = TextItems(keys=("a", "b", "c"), bits=(1.0, 2.0, 4.0), bytes=(1, 2, 3), words=(4, 5, 6), tokens=(7, 8, 9))
    scores = with_parts(ItemScores(texts={"x": whole}), {"x/unseen": ("x", ("c", "a")), "y/unseen": ("y", ("a",))})
    assert scores.texts["x"] == whole and set(scores.texts) == {"x", "x/unseen"}
    assert scores.texts["x/unseen"] == TextItems(
        keys=("a", "c"), bits=(1.0, 4.0), bytes=(1, 3), words=(4, 6), tokens=(7, 9)
    )
