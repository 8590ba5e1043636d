"""The retention experiment on a tiny encoder: tasks without leaks, arms that train, and retention as arithmetic."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from benchmarks import encoder, encoder_model, encoder_tasks
from minigpt.conditional.swap import conditional_layers

WORDS = [f"w{number}" for number in range(60)]
DOMAINS = ("one", "two")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text of two domains with words of their own, and questions whose answer shares a word."""
    generator = random.Random(0)
    for place, domain in enumerate(DOMAINS):
        (tmp_path / domain).mkdir()
        own = WORDS[30 * place : 30 * place + 30]
        rows = [
            {"text": " ".join(generator.choices(own, k=30)), "source": f"book|{document}"}
            for document in range(200)
            for _ in range(2)
        ]
        asked = []
        for answer, number in zip(generator.choices(own, k=300), generator.choices(range(4), k=300), strict=True):
            choices = generator.sample([word for word in own if word != answer], 3)
            choices.insert(number, answer)
            asked.append({"question": f"defined as follows {answer}", "choices": choices, "answer": number})
        for name, lines in (("corpus_train", rows), ("mcq_glossary", asked)):
            text = "\n".join(json.dumps(line) for line in lines)
            (tmp_path / domain / f"{name}.jsonl").write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    target = tmp_path / "encoder"
    target.mkdir()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    words = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, "[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(target)
    config = BertConfig(
        vocab_size=65,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=600,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(target)
    return target


def tasks(folder: Path) -> dict[str, encoder_tasks.Task]:
    return {task.name: task for task in encoder_tasks.make(*encoder_tasks.read_folder(folder), most=60)}


def test_no_document_and_no_term_is_in_two_splits(folder: Path) -> None:
    made = tasks(folder)
    assert {"domain", "collection", "term"} <= set(made)
    texts, _ = encoder_tasks.read_folder(folder)
    documents: dict[str, set[str]] = {}
    for name in ("domain", "document"):
        for split, items in made[name].splits.items():
            for item in items:
                home = [one for one in texts if item.text in one.text]
                documents.setdefault(split, set()).update(one.source for one in home if len(home) == 1)
    assert not documents["train"] & documents["test"] and documents["test"]
    terms = [{item.choices[item.answer] for item in made["term"].splits[split]} for split in ("train", "test")]
    assert not terms[0] & terms[1]


def test_right_choices_come_from_the_same_document_and_stand_anywhere(folder: Path) -> None:
    passages, _ = encoder_tasks.read_folder(folder)
    items = tasks(folder)["document"].splits["test"]
    for item in items:
        for number, choice in enumerate(item.choices):
            sources = {one.source for one in passages if choice in one.text}
            own = {one.source for one in passages if item.text in one.text}
            assert bool(sources & own) == (number == item.answer)
    assert len({item.answer for item in items}) == 4


def test_a_run_writes_scores_and_retention(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_model, "LENGTH", 16)
    target = tmp_path / "out.json"
    arms = ["dense", "control", "trees-2x8", "top-3%", "relu-1"]
    options = ["--data", str(folder), "--encoder", str(tiny), "--device", "cpu", "--items", "60", "--texts", "64"]
    options += ["--steps", "40", "--distill", "4", "--seeds", "0", "--lrs", "0.01", "--tasks", "domain", "term"]
    monkeypatch.setattr(sys, "argv", ["encoder", "--json", str(target), *options, "--arms", *arms])
    encoder.main()
    result = json.loads(target.read_text("utf-8"))
    assert len(result["runs"]) == 2 * len(arms)
    by_arm = {row["arm"]: row for row in result["rows"] if row["task"] == "domain"}
    assert by_arm["dense"]["visited"] == 600 and by_arm["control"]["visited"] == 0
    assert by_arm["trees-2x8"]["visited"] == 18 and by_arm["trees-2x8"]["total"] == 1022
    assert by_arm["top-3%"]["visited"] <= 18
    assert by_arm["dense"]["score"]["value"] > 0.8  # the words tell the domain
    assert by_arm["dense"]["retention"]["value"] == 1
    assert all(run["difference_of_forms"] < 1e-4 for run in result["runs"])
    again = tmp_path / "again.json"
    monkeypatch.setattr(sys, "argv", ["encoder", "--json", str(again), "--seeds", "--with", str(target)])
    encoder.main()
    assert json.loads(again.read_text("utf-8"))["rows"] == result["rows"]


def test_training_changes_the_layers_and_time_ends_the_runs(tiny: Path, folder: Path) -> None:
    whole = encoder_model.load(str(tiny), "cpu")
    model, errors = encoder_model.convert(whole, "trees-6x7", WORDS, 3)
    assert len(errors) == 2 and not conditional_layers(whole.model)
    task = tasks(folder)["term"]
    student = encoder_model.Student(model, 0, 16)
    before = [value.clone() for value in student.parameters()]
    encoder_model.train(student, encoder_model.Batches(whole, task, 8, 0), steps=3, lr=1e-2)
    changed = [not torch.equal(one, other) for one, other in zip(before, student.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2


def test_retention_is_measured_against_dense_and_control() -> None:
    dense, control, arm = np.ones((1, 400)), np.zeros((1, 400)), np.ones((1, 400))
    control[:, :200], arm[:, :100] = 1, 0  # dense 1.0, control 0.5, arm 0.75
    value, drawn = encoder.retained(arm, dense, control, np.random.default_rng(0))
    assert value["score"]["value"] == 0.75 and value["retention"]["value"] == 0.75
    assert value["retention_above_control"]["value"] == 0.5
    assert 0.3 < value["retention_above_control"]["low"] < 0.5 < value["retention_above_control"]["high"] < 0.7
    row = {"arm": "top-3%", "counts": True, "visited": 46.0, "total": 1536.0, **value}
    (one,), (both,) = (encoder.overall([row] * count, {"top-3%": [drawn] * count}) for count in (1, 2))
    assert one["retention"] == pytest.approx(value["retention"]) and both["tasks"] == 2
    (apart,) = encoder.overall([row] * 2, {"top-3%": [drawn, drawn[::-1]]})
    assert value["retention"]["low"] < apart["retention"]["low"] < 0.75 < apart["retention"]["high"]
