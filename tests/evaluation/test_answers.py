"""Free answers: batches answer like single prompts, scores have intervals and pairs, won and lost are told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.evaluation import ItemScores, Suite, evaluate, load_scores, save_scores, summarize
from minigpt.evaluation.answers import encoded, scored, shown_prompt
from minigpt.evaluation.decoding import FEWEST_SHARED, decode
from minigpt.evaluation.exchanges import exchanges
from minigpt.evaluation.items import QuestionItems
from minigpt.evaluation.suite import beginnings, shortened, suite_for
from minigpt.transformer.ends import end_tokens
from minigpt.types import AnswerTask, Constraint, Corpus, Document, Prompt, Question, QuestionSet
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer

PROMPTS = tuple(
    Prompt(prompt=text, answers=("yes",), choices=("yes", "no"))
    for text in ("The heart", "The court may order that the party", "Interest", "A fever and", "東京 is a")
)
TASK = AnswerTask(name="t", prompts=PROMPTS, metrics=("exact_match", "token_f1", "label_f1"), max_tokens=12)


def alone(model: Any, tokenizer: Any, prompt: list[int], tokens: int) -> list[int]:
    """Greedy decoding token by token, without a cache."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
    return ids[len(prompt) :]


# Positions that are learnt, rotated and rotated in part; a sliding window; norms of their own.
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3", "gpt_neox"])
def test_a_batch_answers_as_each_prompt_alone(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    ids = [tokenizer.encode(item.prompt) for item in PROMPTS]
    together = decode(model, tokenizer, ids, max_tokens=12, one_line=False)
    ends = end_tokens(tokenizer, model.config)
    for prompt, text in zip(ids, together, strict=True):
        tokens = alone(model, tokenizer, prompt, 12)
        stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        assert text == tokenizer.decode(tokens[:stop], skip_special_tokens=True)


@pytest.mark.parametrize("family", ["llama", "qwen3", "olmo2", "granite"])
def test_a_start_that_all_prompts_share_is_read_once_and_changes_nothing(family: str) -> None:
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    start = tokenizer.encode(SENTENCES[0] * 3)
    assert len(start) >= FEWEST_SHARED
    ids = [[*start, *tokenizer.encode(item.prompt)] for item in PROMPTS]
    read: list[int] = []
    model.register_forward_pre_hook(
        lambda _m, args, kwargs: read.append((args[0] if args else kwargs["input_ids"]).shape[1]), with_kwargs=True
    )
    together = decode(model, tokenizer, ids, max_tokens=10, one_line=False)
    assert read[0] >= len(start)
    assert max(read[1:]) < len(start)
    assert together == [decode(model, tokenizer, [row], max_tokens=10, one_line=False)[0] for row in ids]


def test_small_batches_and_one_row_give_the_same() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    ids = [tokenizer.encode(text) for text in SENTENCES[:6]]
    together = decode(model, tokenizer, ids, max_tokens=8)
    assert together == [decode(model, tokenizer, [row], max_tokens=8)[0] for row in ids]


def test_a_runtime_without_a_loop_answers_the_same() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()

    class Steps:
        tokens: list[int]

        def begin(self, tokens: list[int]) -> Any:
            self.tokens = list(tokens)
            with torch.no_grad():
                return model(torch.tensor([self.tokens])).logits[0, -1].numpy()

        def step(self, token: int) -> Any:
            return self.begin([*self.tokens, token])

    other = SimpleNamespace(runtime=Steps(), config=model.config)
    ids = [tokenizer.encode(item.prompt) for item in PROMPTS]
    for one_line in (True, False):
        expected = decode(model, tokenizer, ids, max_tokens=9, one_line=one_line)
        got = decode(other, tokenizer, ids, max_tokens=9, one_line=one_line)
        assert [text.partition("\n")[0] for text in got] == [text.partition("\n")[0] for text in expected]


def test_a_line_end_stops_its_own_row_only() -> None:
    """A model that writes a line end and then letters for ever."""
    tokenizer = tiny_tokenizer()
    line, letter = (tokenizer.encode(text, add_special_tokens=False)[0] for text in ("\n", "a"))
    from transformers import LlamaConfig, LlamaForCausalLM

    class Scripted(LlamaForCausalLM):
        def forward(self, input_ids: Any = None, **options: Any) -> Any:
            output = super().forward(input_ids=input_ids, **options)
            output.logits[:] = 0
            output.logits[:, :, letter] = 1
            output.logits[:, -1, line] = 2 * (input_ids[:, -1] == letter).float() * (input_ids[:, 0] == line).float()
            return output

    config = LlamaConfig(vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=2, use_cache=False)  # fmt: skip
    model = Scripted(config).eval()
    model.generation_config.use_cache = False
    texts = decode(model, tokenizer, [[line, line], [letter, letter]], max_tokens=5)
    assert texts[1] == "aaaaa"
    assert texts[0].startswith("a\n")
    assert texts[0].partition("\n")[0] == "a"


def test_a_long_prompt_keeps_its_end_and_leaves_room() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    ids = tokenizer.encode(SENTENCES[0] * 60)
    assert len(ids) > model.config.max_position_embeddings
    expected = decode(model, tokenizer, [ids[-(256 - 6) :]], max_tokens=6)
    assert decode(model, tokenizer, [ids], max_tokens=6) == expected


def test_examples_stand_before_the_prompt_and_chats_in_their_template() -> None:
    tokenizer = tiny_tokenizer()
    train = (Prompt(prompt="Q: a\nA:", answers=("x", "y")), Prompt(prompt="Q: b\nA:", answers=("z",)))
    task = replace(TASK, train=train, shots=2)
    assert shown_prompt(task, PROMPTS[0], tokenizer) == "Q: a\nA: x\n\nQ: b\nA: z\n\nThe heart"
    chat = replace(task, chat=True)
    assert shown_prompt(chat, PROMPTS[0], tokenizer) == "<|im_start|>user\nThe heart<|im_end|>\n"
    assert encoded(tokenizer, chat, PROMPTS[0])[0] == tokenizer.bos_token_id
    assert shortened(replace(task, shots=1), 2).train == train[:1]


def test_answers_are_measured_stored_and_paired(tmp_path: Any) -> None:
    suite = Suite(texts={"d": (Document(text=SENTENCES[0], source="s"),)}, answers={"d/t": TASK})
    first = evaluate(tiny_model(), tiny_tokenizer(), suite)
    second = evaluate(tiny_model(seed=1), tiny_tokenizer(), suite)
    save_scores(first, tmp_path / "scores.json")
    assert load_scores(tmp_path / "scores.json") == first
    results = {item.metric: item for item in summarize(first, parent=second) if item.task == "d/t"}
    assert set(results) == {"exact_match", "token_f1", "label_f1", "format_compliance"}
    assert all(item.n == 5 and item.paired_difference_vs_parent is not None for item in results.values())


def test_values_intervals_and_differences_by_hand() -> None:
    right = ["yes", "no", "yes", "yes", "maybe"]
    items, other = scored(TASK, right), scored(TASK, ["no", "no", "yes", "Yes.", "no"])
    results = {
        item.metric: item
        for item in summarize(ItemScores(answers={"t": items}), parent=ItemScores(answers={"t": other}))
    }
    assert results["exact_match"].value == pytest.approx(3 / 5)
    assert results["format_compliance"].value == pytest.approx(4 / 5)
    # One label is right somewhere: 2 * 3 / (5 right + 3 answered).
    assert results["label_f1"].value == pytest.approx(6 / 8)
    assert results["exact_match"].paired_difference_vs_parent.value == pytest.approx(1 / 5)  # type: ignore[union-attr]
    for result in results.values():
        assert 0 <= result.low <= result.value <= result.high <= 1


def test_the_interval_of_label_f1_holds_the_truth_about_as_often_as_it_says() -> None:
    """Samples of answers whose macro F1 is known: three labels, an answer is right with 0.7, else another at random."""
    draw = np.random.default_rng(0)
    truth, hits, number = 0.7, 0, 80
    for _ in range(200):
        right = draw.integers(3, size=number)
        wrong = (right + draw.integers(1, 3, size=number)) % 3
        ours = np.where(draw.random(number) < truth, right, wrong)
        labels = ("a", "b", "c")
        task = AnswerTask(
            name="t",
            prompts=tuple(Prompt(prompt=str(place), answers=(labels[label],), choices=labels)
                          for place, label in enumerate(right)),
            metrics=("label_f1",),
        )  # fmt: skip
        (result, _form) = summarize(ItemScores(answers={"t": scored(task, [labels[label] for label in ours])}))
        hits += result.low <= truth <= result.high
    assert 0.9 <= hits / 200 <= 0.99


def test_constraints_are_counted_by_prompt_and_by_constraint() -> None:
    both = (Constraint(kind="lower_case"), Constraint(kind="sentences", value=1))
    task = AnswerTask(
        name="i",
        prompts=(Prompt(prompt="a", constraints=both), Prompt(prompt="b", constraints=both[:1])),
        metrics=(),
        chat=True,
    )
    results = {item.metric: item.value for item in summarize(ItemScores(answers={"i": scored(task, ["Low.", "low"])}))}
    assert results == {
        "instructions_followed": pytest.approx(1 / 2),
        "constraints_followed": pytest.approx(2 / 3),
    }


def test_answers_won_and_lost() -> None:
    questions = (Question(question="q", choices=("x", "y"), answer=0),)
    suite = Suite(
        answers={"d/t": TASK},
        questions={
            "d/q": QuestionSet(name="q", questions=questions),
            "d/q_seen": QuestionSet(name="q_seen", questions=questions, seen=True),
        },
    )

    def picks(choice: int) -> QuestionItems:
        return QuestionItems(keys=("k",), answers=(0,), picks=(choice,), picks_norm=(choice,), chance=0.5)

    def scores(texts: list[str], choice: int) -> ItemScores:
        return ItemScores(
            answers={"d/t": scored(TASK, texts)}, questions={name: picks(choice) for name in suite.questions}
        )

    parent, ours = scores(["yes", "yes", "no", "no", "no"], 0), scores(["yes", "no", "yes", "yes", "no"], 1)
    task, questions = exchanges(suite, {"parent": parent, "healed": ours}, shown=1)
    assert (task.task, task.both, task.lost, task.won, task.neither) == ("d/t", 1, 1, 2, 1)
    assert [(item.won, item.prompt, item.right) for item in task.shown] == [
        (True, "Interest", "yes"),
        (False, "The court may order that the party", "yes"),
    ]
    assert task.shown[0].answers == {"parent": "no", "healed": "yes"}
    assert (questions.task, questions.lost) == ("d/q", 1)
    assert questions.shown[0].answers == {"parent": "x", "healed": "y"}
    assert exchanges(suite, {"healed": ours}) == ()


def test_a_suite_takes_prompts_and_beginnings_of_different_documents() -> None:
    heldout = tuple(Document(text=f"{place} " + "word " * 40, source=f"s{place % 3}") for place in range(9))
    texts = beginnings(heldout, 10, seed=0)
    assert len(texts) == 3
    assert all(len(text.split()) == 12 for text in texts)
    assert texts == beginnings(heldout[::-1], 10, seed=0)
    assert beginnings(heldout, 0, seed=0) == ()
    corpus = Corpus(domain="d", calibration=(), train=(), dev=(), heldout=heldout, tasks=(TASK,))
    suite = suite_for(corpus, max_answers=2, samples=2)
    assert suite.answers["d/t"].prompts == PROMPTS[:2]
    assert len(suite.samples) == 2
    assert suite_for(corpus, max_answers=0).answers == {}


def test_the_commonest_label_given_to_every_prompt_is_the_score_of_guessing() -> None:
    labels = ("x",) * 6 + ("y",) * 3 + ("w",)
    prompts = tuple(Prompt(prompt=label, answers=(label,), choices=("x", "y", "w")) for label in labels)
    task = AnswerTask(name="t", prompts=prompts, metrics=("exact_match", "label_f1"))
    results = {item.metric: item for item in summarize(ItemScores(answers={"d/t": scored(task, list(labels))}))}
    assert results["exact_match"].chance == pytest.approx(0.6)
    # F1 of "x" is 2 * 6 / (10 + 6), and that of the other two labels is zero.
    assert results["label_f1"].chance == pytest.approx(12 / 16 / 3)
    assert results["format_compliance"].chance is None
    lazy = summarize(ItemScores(answers={"d/t": scored(task, ["x"] * 10)}))
    assert {item.value == pytest.approx(item.chance) for item in lazy if item.chance is not None} == {True}
    free = replace(task, metrics=("exact_match",))
    assert {item.chance for item in summarize(ItemScores(answers={"d/t": scored(free, ["x"] * 10)}))} == {None}
