"""Laws of the opening: which tokens are candidates, and that the best on dev text stands before every text."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.evaluation import ItemScores, Suite, choose_opening, evaluate, load_scores, save_scores, text_bits
from minigpt.evaluation.opening import SAMPLE_BYTES, candidates, sample_for_opening
from minigpt.types import Document, Question, QuestionSet
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer

DOCUMENTS = tuple(Document(text=text, source=f"s{index}") for index, text in enumerate(SENTENCES))
QUESTIONS = QuestionSet(
    name="q", questions=(Question(question="What pumps blood?", choices=("the heart", "the court"), answer=0),)
)


def bits_behind(model: Any, tokenizer: Any, token: int) -> float:
    """Bits of all documents behind a token, one by one."""
    total = 0.0
    for document in DOCUMENTS:
        ids = [token, *tokenizer.encode(document.text, add_special_tokens=False)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        total -= float(logits.gather(1, torch.tensor(ids[1:])[:, None]).sum())
    return total


def made_for(token: int) -> Any:
    """A model that dislikes every candidate but one: their embeddings point away from what follows."""
    model = tiny_model(tied=False)
    with torch.no_grad():
        for other in {0, 1, 2, line_end()} - {token}:
            model.model.embed_tokens.weight[other] = 3 * torch.randn(32, generator=torch.Generator().manual_seed(other))
    return model


def line_end() -> int:
    return int(tiny_tokenizer().encode("\n", add_special_tokens=False)[0])


def test_candidates_are_bos_eos_separator_and_line_end_each_once() -> None:
    texts = [opening.text for opening in candidates(tiny_tokenizer(), 512)]
    assert texts == ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "\n"]
    alike = deepcopy(tiny_tokenizer())
    alike.bos_token = alike.eos_token = alike.pad_token = "<|endoftext|>"
    assert [opening.text for opening in candidates(alike, 512)] == ["<|endoftext|>", "\n"]


def test_ids_without_a_row_in_the_model_are_no_candidates() -> None:
    assert [opening.token for opening in candidates(tiny_tokenizer(), 2)] == [1, 0]
    nothing: Any = SimpleNamespace(
        bos_token_id=None, eos_token_id=None, pad_token_id=None, unk_token_id=None, added_tokens_decoder={},
        all_special_tokens=[], all_special_ids=[], encode=lambda *_args, **_options: [3, 4],
    )  # fmt: skip
    with pytest.raises(MiniGPTError, match="no bos_token"):
        candidates(nothing, 512)


@pytest.mark.parametrize("token", [0, 1, 2, None])
def test_the_best_opening_on_dev_text_is_found(token: int | None) -> None:
    token = line_end() if token is None else token
    model, tokenizer = made_for(token), tiny_tokenizer()
    behind = {opening.token: bits_behind(model, tokenizer, opening.token) for opening in candidates(tokenizer, 512)}
    best = min(behind, key=lambda other: behind[other])
    for batch_tokens in (1, 8192):
        assert choose_opening(model, tokenizer, DOCUMENTS, batch_tokens=batch_tokens).token == best


def test_different_models_get_different_openings() -> None:
    texts = {choose_opening(tiny_model(seed=seed), tiny_tokenizer(), DOCUMENTS).text for seed in range(6)}
    assert len(texts) > 1


def test_without_dev_text_the_usual_opening_stands() -> None:
    assert choose_opening(tiny_model(), tiny_tokenizer(), ()).text == "<|im_start|>"
    plain = deepcopy(tiny_tokenizer())
    plain.bos_token = None
    assert choose_opening(tiny_model(), plain, ()).text == "<|im_end|>"


def test_every_text_is_measured_behind_the_opening_and_questions_are_not(tmp_path: Any) -> None:
    model, tokenizer = made_for(0), tiny_tokenizer()
    suite = Suite(texts={"d": DOCUMENTS, "general": DOCUMENTS[:2]}, questions={"d/q": QUESTIONS}, dev=DOCUMENTS)
    usual = evaluate(model, tokenizer, Suite(texts=suite.texts, questions=suite.questions))
    scores = evaluate(model, tokenizer, suite)
    token = choose_opening(model, tokenizer, DOCUMENTS).token
    assert token != tokenizer.bos_token_id
    assert scores.texts["d"] == text_bits(model, tokenizer, DOCUMENTS, opening=token)
    assert scores.texts["general"] == text_bits(model, tokenizer, DOCUMENTS[:2], opening=token)
    assert sum(scores.texts["d"].bits) < sum(usual.texts["d"].bits)
    assert (usual.opening, scores.opening) == ("<|im_start|>", tokenizer.decode([token]))
    assert scores.questions == usual.questions
    fixed = evaluate(model, tokenizer, suite, opening=line_end())
    assert (fixed.opening, fixed.texts["d"]) == ("\n", text_bits(model, tokenizer, DOCUMENTS, opening=line_end()))
    save_scores(scores, tmp_path / "scores.json")
    assert load_scores(tmp_path / "scores.json") == scores


def test_scores_of_older_versions_have_no_opening(tmp_path: Any) -> None:
    (tmp_path / "scores.json").write_text('{"texts": {}, "questions": {}}')
    assert load_scores(tmp_path / "scores.json") == ItemScores()


def test_the_sample_is_small_and_does_not_depend_on_the_order() -> None:
    documents = [Document(text=f"{number} " + "word " * 400, source=f"s{number}") for number in range(90)]
    sample = sample_for_opening(documents)
    size = sum(len(document.text.encode()) for document in sample)
    assert 0.9 * SAMPLE_BYTES < size <= SAMPLE_BYTES
    assert sample == sample_for_opening(documents[::-1]) == sample_for_opening(sample)
    assert sample_for_opening(()) == ()
