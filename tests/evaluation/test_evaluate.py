"""Laws of the evaluation: what is scored, that batching and sharing change nothing, that models can be paired."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.errors import CorpusError, MiniGPTError
from minigpt.evaluation import (
    ItemScores,
    Suite,
    TextItems,
    evaluate,
    load_scores,
    question_scores,
    save_scores,
    summarize,
    text_bits,
)
from minigpt.evaluation.lm import windows
from minigpt.evaluation.mcq import TEMPLATE, choice_loglikelihoods, encode_pair
from minigpt.types import Document, Question, QuestionSet
from tests.support.tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer

DOCUMENTS = tuple(Document(text=text * 2, source=f"s{index % 4}") for index, text in enumerate(SENTENCES))
QUESTIONS = (
    Question(question="What pumps blood?", choices=("the heart", "the court", "a", "interest income"), answer=0),
    Question(question="What rose by 12 percent? " * 3, choices=("revenue", "fever and infection"), answer=0),
    Question(question="Welche Würde?  ", choices=("東京", "Menschen 🙂", "x"), answer=1),
)


def reference_bits(model: Any, tokenizer: Any, text: str) -> float:
    """Token by token, one text at a time, in float64."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = torch.tensor([[tokenizer.bos_token_id, *ids]])
    with torch.no_grad():
        logits = model(stream).logits[0].double()
    return -sum(float(logits[at].log_softmax(-1)[token]) for at, token in enumerate(ids)) / math.log(2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_tokens", [1, 150, 8192])
def test_bits_are_those_of_each_passage_alone(family: str, batch_tokens: int) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    items = text_bits(model, tokenizer, DOCUMENTS, batch_tokens=batch_tokens)
    assert items.keys == ("s0", "s1", "s2", "s3")
    for key, bits, size in zip(items.keys, items.bits, items.bytes, strict=True):
        texts = [document.text for document in DOCUMENTS if document.source == key]
        assert bits == pytest.approx(sum(reference_bits(model, tokenizer, text) for text in texts), rel=1e-5)
        assert size == sum(len(text.encode()) for text in texts)
    assert items.bits_per_byte == sum(items.bits) / sum(items.bytes)


def test_words_are_counted_between_white_space_and_tokens_without_the_prefix() -> None:
    items = text_bits(tiny_model(), tiny_tokenizer(), [Document(text="The heart  pumps\n\nblood", source="a")])
    assert items.words == (4,)
    assert items.tokens == (len(tiny_tokenizer().encode("The heart  pumps\n\nblood")),)


@pytest.mark.parametrize(
    ("text", "words"), [("東京は 大きい。", 7), ("the 東京 tower", 4), ("ภาษาไทย", 7), ("서울은 크다", 2)]
)
def test_a_character_is_a_word_in_scripts_without_spaces(text: str, words: int) -> None:
    """A text without spaces is one word for lm-eval, and 2 to the power of its bits is no number."""
    assert text_bits(tiny_model(), tiny_tokenizer(), [Document(text=text, source="a")]).words == (words,)


@pytest.mark.parametrize("length", [1, 2, 4, 5, 9, 12])
def test_windows_score_every_token_once_after_the_tokens_before_it(length: int) -> None:
    tokens = list(range(1, 1 + length))
    pairs = list(windows(tokens, prefix=0, window=4))
    assert [token for _, targets in pairs for token in targets] == tokens
    for inputs, targets in pairs:
        assert len(inputs) == min(4, length)
        assert list(inputs) == list(range(targets[-1] - len(inputs), targets[-1]))


def test_windows_are_those_of_lm_eval() -> None:
    utils = pytest.importorskip("lm_eval.utils")
    for length in range(1, 30):
        tokens = list(range(1, 1 + length))
        reference = map(
            utils.make_disjoint_window,
            utils.get_rolling_token_windows(tokens, prefix_token=0, max_seq_len=7, context_len=1),
        )
        expected = [((context + after)[:-1], after) for context, after in reference]
        assert [(list(inputs), list(targets)) for inputs, targets in windows(tokens, prefix=0, window=7)] == expected


def test_a_long_text_is_read_in_windows_and_within_the_positions_of_the_model() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    long = [Document(text=SENTENCES[0] * 60, source="a")]
    items = text_bits(model, tokenizer, long, window=1024)
    assert items.tokens[0] > model.config.max_position_embeddings == 256
    assert items == text_bits(model, tokenizer, long, window=256)
    assert items.bits != text_bits(model, tokenizer, long, window=32).bits


@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_the_question_changes_no_likelihood(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    shared = choice_loglikelihoods(model, tokenizer, QUESTIONS)
    alone = choice_loglikelihoods(model, tokenizer, QUESTIONS, share_prefix=False, batch_tokens=1)
    for question, one, other in zip(QUESTIONS, shared, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
        for choice, value in zip(question.choices, one, strict=True):
            context, after = encode_pair(tokenizer, TEMPLATE.format(question=question.question), f" {choice}")
            with torch.no_grad():
                logits = model(torch.tensor([context + after])).logits[0].double().log_softmax(-1)
            expected = sum(float(logits[len(context) - 1 + at, token]) for at, token in enumerate(after))
            assert value == pytest.approx(expected, rel=1e-5)


def test_sharing_reads_fewer_tokens() -> None:
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(lambda _m, _a, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True)
    choice_loglikelihoods(model, tiny_tokenizer(), QUESTIONS[:1])
    shared = sum(seen)
    seen.clear()
    choice_loglikelihoods(model, tiny_tokenizer(), QUESTIONS[:1], share_prefix=False)
    assert shared < 0.5 * sum(seen)


def test_questions_longer_than_a_sliding_window_stay_exact() -> None:
    model, tokenizer = tiny_model("gemma3_text"), tiny_tokenizer()
    long = Question(question="The heart pumps blood. " * 12, choices=("yes indeed", "no"), answer=0)
    assert len(tokenizer.encode(long.question)) > model.config.sliding_window
    shared, alone = (choice_loglikelihoods(model, tokenizer, [long], share_prefix=share)[0] for share in (True, False))
    np.testing.assert_allclose(shared, alone, rtol=1e-6)


def test_a_question_longer_than_the_window_is_cut_on_the_left() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    first, second = (Question(question=f"{start} {'blood ' * 90}", choices=("a b", "c"), answer=0) for start in "xy")
    one, other = choice_loglikelihoods(model, tokenizer, [first, second], window=64)
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    "broken",
    [
        Question(question="q", choices=("a",), answer=0),
        Question(question="q", choices=("a", " "), answer=0),
        Question(question="q", choices=("a", "b"), answer=2),
    ],
)
def test_malformed_questions_are_refused(broken: Question) -> None:
    with pytest.raises(CorpusError, match="'q'"):
        question_scores(tiny_model(), tiny_tokenizer(), [broken])


def test_the_picks_are_the_likeliest_choice_raw_and_per_byte() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    items = question_scores(model, tokenizer, QUESTIONS)
    loglikelihoods = choice_loglikelihoods(model, tokenizer, QUESTIONS)
    for at, (question, values) in enumerate(zip(QUESTIONS, loglikelihoods, strict=True)):
        per_byte = [value / len(choice.encode()) for value, choice in zip(values, question.choices, strict=True)]
        assert items.picks[at] == list(values).index(max(values))
        assert items.picks_norm[at] == per_byte.index(max(per_byte))
    assert items.answers == (0, 0, 1)
    assert items.correct == tuple(int(pick == answer) for pick, answer in zip(items.picks, (0, 0, 1), strict=True))
    assert items.chance == pytest.approx((1 / 4 + 1 / 2 + 1 / 3) / 3)


def test_a_model_in_bf16_is_scored_by_logits_in_float32() -> None:
    """Against the same model's hidden states, projected here in float64."""
    model, tokenizer = tiny_model().to(torch.bfloat16), tiny_tokenizer()
    ids = [tokenizer.bos_token_id, *tokenizer.encode(SENTENCES[0], add_special_tokens=False)]
    with torch.no_grad():
        states = model.model(torch.tensor([ids[:-1]])).last_hidden_state[0].double()
        logits = states @ model.lm_head.weight.double().T
    expected = -float(logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum()) / math.log(2)
    bits = text_bits(model, tokenizer, [Document(text=SENTENCES[0], source="a")]).bits[0]
    assert bits == pytest.approx(expected, rel=2e-6)
    with torch.no_grad():
        rounded = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    plain = -float(rounded.gather(1, torch.tensor(ids[1:])[:, None]).sum()) / math.log(2)
    assert abs(plain - expected) > 10 * abs(bits - expected)
    assert "forward" not in vars(model.lm_head)


@pytest.mark.parametrize("rows", [1, 100])
def test_a_large_head_is_converted_block_by_block(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_model().to(torch.bfloat16), tiny_tokenizer()
    whole = text_bits(model, tokenizer, DOCUMENTS)
    monkeypatch.setattr("minigpt.transformer.logits.HEAD_BLOCK", rows * model.config.hidden_size)
    np.testing.assert_allclose(text_bits(model, tokenizer, DOCUMENTS).bits, whole.bits, rtol=1e-6)


def test_evaluating_leaves_the_model_as_it_was() -> None:
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    suite = Suite(texts={"d": DOCUMENTS}, questions={"d/q": QuestionSet(name="q", questions=QUESTIONS)})
    evaluate(model, tiny_tokenizer(), suite)
    assert model.training
    assert not model.lm_head._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_damaged_model_is_refused_instead_of_scored() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(MiniGPTError, match="damaged"):
        text_bits(model, tiny_tokenizer(), DOCUMENTS)
    with pytest.raises(CorpusError, match="no text"):
        text_bits(model, tiny_tokenizer(), [])


def test_scores_survive_a_round_trip_and_reports_hold_each_metric_once(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    suite = Suite(
        texts={"medical": DOCUMENTS, "general": DOCUMENTS[:2]},
        questions={"medical/q": QuestionSet(name="q", questions=QUESTIONS)},
    )
    scores = evaluate(model, tokenizer, suite)
    save_scores(scores, tmp_path / "scores.json")
    assert load_scores(tmp_path / "scores.json") == scores
    results = summarize(scores, parent=scores)
    assert len({(result.task, result.metric) for result in results}) == len(results) == 8
    for result in results:
        assert result.low <= result.value <= result.high
        difference = result.paired_difference_vs_parent
        assert difference is not None
        assert difference.value == 0
        # Equal bits on these documents are equal on others; equal answers to a few questions need not be.
        assert (difference.low == difference.high == 0) == (result.chance is None)
        assert difference.low == -difference.high
        assert (result.chance is not None) == result.metric.startswith("accuracy") == result.higher_is_better


def test_comparing_with_other_items_is_refused() -> None:
    text = TextItems(keys=("a", "b"), bits=(4.0, 2.0), bytes=(2, 2), words=(1, 1), tokens=(2, 1))
    scores = ItemScores(texts={"d": text})
    for other in ({}, {"d": replace(text, keys=("a", "c"))}):
        with pytest.raises(MiniGPTError, match="other items"):
            summarize(scores, parent=ItemScores(texts=other))


def test_importing_the_package_is_cheap() -> None:
    """The command line imports it for its types; torch and the `evaluate` library would cost seconds."""
    code = "import sys, minigpt.evaluation; sys.exit(bool({'torch', 'evaluate', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
