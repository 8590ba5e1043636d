"""Drafts: the parent's greedy text is not changed, ids map by spelling, and acceptance is counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from minigpt.errors import ExportError
from minigpt.exporting import draft, export
from minigpt.exporting.draft import MAP, Trial, settings_of, speed_up
from minigpt.exporting.draft_map import Counts, count_tokens, map_ids
from minigpt.types import Document
from tests.support.exports import Shop, make_shop, trimmed_build, uncut_build


def test_ids_map_by_spelling_and_padding_rows_lack_a_parent() -> None:
    ids = map_ids({"b": 0, "c": 1, "new": 2}, {"a": 0, "b": 1, "c": 5}, draft_rows=4, parent_rows=6)
    assert [number + offset for number, offset in enumerate(ids.d2t.tolist())][:2] == [1, 5]
    assert ids.lacking.tolist() == [False, False, True, True]
    assert ids.t2d.tolist() == [False, True, False, False, False, True]


def test_acceptance_is_counted_by_the_lengths_of_the_parents_inputs() -> None:
    """Prompt of 5 with 3 proposed, then 1 + 2, then 1 + 0: 5 proposed; 7 tokens in 3 passes: 4 accepted."""
    counts = count_tokens([8, 3, 1], prompt=5, generated=7)
    assert counts == Counts(proposed=5, accepted=4, passes=3)
    assert counts.acceptance == 0.8
    assert count_tokens([5, 1, 1], prompt=5, generated=3) == Counts(proposed=0, accepted=0, passes=3)


def trials(*seconds: tuple[float, float]) -> list[Trial]:
    counts = Counts(proposed=10, accepted=5, passes=5)
    return [Trial(same=True, alone=alone, assisted=both, tokens=10, counts=counts) for alone, both in seconds]


def test_a_draft_that_is_slower_is_switched_off() -> None:
    assert speed_up(trials((2.0, 1.0), (4.0, 2.0))).value == 2.0
    ids = map_ids({"a": 0}, {"a": 0}, draft_rows=1, parent_rows=1)
    for assisted, off in ((1.0, False), (1.01, False), (1.03, True)):
        settings = settings_of(trials((1.0, assisted), (1.0, assisted)), ids)
        assert settings["switched_off"] is off
        assert settings["acceptance"] == 0.5
        assert settings["tokens_per_pass"] == 2.0


def test_prompts_are_spread_over_the_text_and_begin_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "PIECE", 20)
    text = " ".join(f"word{number}" for number in range(100, 120))
    pieces = list(draft.cut(text))
    assert all(piece.startswith("word1") for piece in pieces)
    assert len(pieces) == 8 and len(text) == 159
    documents = [Document(text=text, source=str(number)) for number in range(3)]
    assert draft.choose_prompts(documents, 24) == draft.choose_prompts(documents, 99) == pieces * 3
    assert draft.choose_prompts(documents, 2) == [pieces[0], pieces[-1]]
    with pytest.raises(ExportError, match="held-out"):
        draft.choose_prompts([], 2)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A build whose specialist is its parent with a smaller vocabulary, and therefore often right."""
    plain = make_shop(tmp_path_factory.mktemp("draft"))
    return replace(plain, model=trimmed_build(plain))


def test_a_trimmed_specialist_gives_its_parents_text(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(draft, "NEW_TOKENS", 12)
    monkeypatch.setattr(draft, "PIECE", 60)
    record = export(shop.request("draft", "drafted", limit=3))
    folder, settings = shop.root / "drafted", record.settings
    assert record.checks[0].passed and "3 prompts" in record.checks[0].name
    assert settings["prompts"] == 3 and 0 <= float(settings["acceptance"]) <= 1
    assert settings["switched_off"] is (float(settings["speedup"]) < 0.98)
    small, large = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(str(shop.root / "model"))
    ids = load_file(folder / MAP)
    for spelling, number in small.get_vocab().items():
        if not ids["lacking"][number]:
            assert large.convert_ids_to_tokens(int(number + ids["d2t"][number])) == spelling
    assert ids["t2d"].sum() == settings["shared_tokens"] == (~ids["lacking"]).sum()
    assert len(small) < len(large)
    parent, helper = (AutoModelForCausalLM.from_pretrained(path) for path in (shop.root / "model", folder))
    row = torch.tensor([[1, *large("The heart pumps", add_special_tokens=False)["input_ids"]]])
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    alone = parent.generate(row, **options)
    both = parent.generate(row, assistant_model=helper, tokenizer=large, assistant_tokenizer=small, **options)
    assert torch.equal(alone, both)
    assert json.loads((folder / "export.json").read_text())["settings"]["switched_off"] is settings["switched_off"]


def test_a_specialist_with_its_parents_vocabulary_gives_its_parents_text(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(draft, "NEW_TOKENS", 12)
    monkeypatch.setattr(draft, "PIECE", 60)
    uncut = replace(shop, model=uncut_build(replace(shop, model=shop.root / "model")))
    record = export(uncut.request("draft", "drafted-uncut", limit=3))
    assert record.checks[0].passed and 0 < float(record.settings["acceptance"]) <= 1
    parent, helper = (
        AutoModelForCausalLM.from_pretrained(path) for path in (shop.root / "model", uncut.root / "drafted-uncut")
    )
    assert draft.assistance(parent, helper, ("large", "same")) == {"assistant_model": helper}
    card = (shop.root / "drafted-uncut" / "README.md").read_text()
    assert "Leave both tokenizers out where `vocab_size` is the same" in card


def test_a_text_that_differs_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    original = draft._generate

    def lie(target: Any, row: Any, options: Any) -> Any:
        text, seconds = original(target, row, options)
        return (text[:, :-1] if options else text), seconds

    monkeypatch.setattr(draft, "NEW_TOKENS", 4)
    monkeypatch.setattr(draft, "PIECE", 60)
    monkeypatch.setattr(draft, "_generate", lie)
    with pytest.raises(ExportError, match="2 of 2 texts differ"):
        export(shop.request("draft", "lying", limit=2))
    assert not (shop.root / "lying").exists()


def test_where_texts_part_the_gap_is_that_of_the_parents_logits(shop: Shop) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(shop.root / "model")
    alone, other = torch.tensor([[1, 5, 7, 9]]), torch.tensor([[1, 5, 8, 9]])
    with torch.inference_mode():
        logits = model(alone[:, :2]).logits[0, -1]
        assert draft.gap_of(model, alone, other) == pytest.approx(float(logits[7] - logits[8]), abs=1e-5)
        assert draft.gap_of(model, alone, alone[:, :3]) == 0.0


def test_a_model_without_a_report_has_no_parent(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="folder of a build"):
        draft.parent_of(tmp_path / "model")
