"""Healing on text that the tuned parent writes: what it goes on from, what it must not hold, who reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from minigpt.files import read_jsonl
from minigpt.healing import schedules
from minigpt.healing.checkpoint import weights_digest
from minigpt.healing.tune import best_of
from minigpt.pipeline import BuildOptions, groundwork, sampling, tuning
from minigpt.pipeline.text import tokenized, training_text
from minigpt.pipeline.tuning import short_tuning_key
from minigpt.types import Document, Question, QuestionSet
from tests.support.building import FAST, Start, build, folder_of, start
from tests.support.healing import Notes
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")

SAMPLED = {**CONTROL, "tune.steps": "1", "text.sampled": "5"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LENGTH", 40)


def start_of(world: World, folder: str, **overrides: str) -> Start:
    return start(world.options(folder, overrides={**SAMPLED, **overrides}))


def sampled_by(begun: Start) -> list[Document]:
    """The passages that a build would sample."""
    return list(begun.text().sampled)


def test_openings_are_pieces_of_the_text_behind_its_opening_token() -> None:
    windows = [list(range(100, 160)), list(range(200, 260)), [1, 2, 3]]
    found = sampling.draw_openings(windows, 200, prefix=7, seed=0)
    assert {opening[0] for opening in found} == {7}
    pieces = [opening[1:] for opening in found]
    assert {len(piece) for piece in pieces} == set(range(4, 32))
    assert all(piece == list(range(piece[0], piece[0] + len(piece))) for piece in pieces)
    assert all(any(piece[0] in window[1:] and piece[-1] in window for window in windows[:2]) for piece in pieces)
    assert sampling.draw_openings(windows, 200, prefix=7, seed=0) == found
    assert sampling.draw_openings(windows, 200, prefix=7, seed=1) != found
    assert sampling.draw_openings([[1, 2, 3]], 1, prefix=7, seed=0)[0][1:] in ([2, 3], [1, 2, 3], [3])


@pytest.mark.parametrize(("text", "kept"), [([7, 1, 2, 9, 3], [1, 2]), ([9, 1, 2], [1, 2]), ([7, 9], []), ([7], [])])
def test_a_text_ends_where_the_model_ended_it(text: list[int], kept: list[int]) -> None:
    assert sampling.cut_at_end(text, {9}) == kept


def test_tuned_parent_and_specialist_read_it_and_it_is_made_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Counter[str]()
    real = sampling.sample

    def counted(*arguments: Any, **options: Any) -> Any:
        written["calls"] += 1
        return real(*arguments, **options)

    monkeypatch.setattr(sampling, "sample", counted)
    begun = start_of(world, "sampled-once")
    tokenizer = begun.tokenizer
    before, _ = tokenized(start_of(world, "sampled-none", **{"text.sampled": "0"}).text(), tokenizer, 64)
    first, _ = tokenized(begun.text(), tokenizer, 64)
    again, _ = tokenized(begun.text(), tokenizer, 64)
    assert first == again and written["calls"] == 1
    rows = read_jsonl(begun.run.workspace.work / "sampled" / "documents.jsonl")
    assert 0 < len(rows) <= 5 and {row["license"] for row in rows} == {"generated"}
    assert first.windows[: len(before.windows)] == before.windows
    assert first.bytes - before.bytes == sum(len(row["text"].encode()) for row in rows)


@pytest.mark.parametrize("bound", ["null", "1.5"])
def test_the_writer_has_read_the_text_and_goes_on_from_what_is_to_be_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """Only where general text is bounded is there an opening of it among very many."""
    writers, prompts = set[str](), list[list[int]]()

    def noted(model: Any, openings: Any, **_: Any) -> list[list[int]]:
        writers.add(weights_digest(model))
        prompts.extend(openings)
        return []

    monkeypatch.setattr(sampling, "sample", noted)
    settings = {"text.sampled": "400", "text.general": "1", "keep_general": bound, "tune.learning_rate": "1e-2"}
    begun = start_of(world, f"sampled-writer-{bound}", **settings)
    begun.text()
    (writer,) = writers
    assert len(prompts) == 400
    assert writer != weights_digest(begun.load(begun.parent.path))
    assert writer == weights_digest(begun.load(begun.writer().model.path))
    tokenizer, train = begun.tokenizer, begun.corpora.domain.train
    own = [" ".join(map(str, tokenizer.encode(each.text, add_special_tokens=False))) for each in train]
    strange = [each for each in prompts if not any(" ".join(map(str, each[1:])) in text for text in own)]
    assert bool(strange) is (bound != "null")


def test_the_tuned_parent_has_read_what_was_sampled_and_is_never_worse_than_the_writer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its long run reads all; where that is worse than the short ones on real text, the best of these is kept."""
    read: list[int] = []
    real = schedules.train

    def noted(model: Any, text: Any, *arguments: Any, **options: Any) -> Any:
        read.append(text.bytes)
        return real(model, text, *arguments, **options)

    monkeypatch.setattr(schedules, "train", noted)
    monkeypatch.setattr(sampling, "sample", lambda *_a, **_o: [[0, *range(5, 30)]] * 40)
    settings = {"heal.steps": "3", "heal.tokens_per_step": "256", "tune.tokens_per_step": "256"}
    begun = start_of(world, "sampled-tuned", **settings, **{"tune.learning_rate": "1e-2"})
    first, tuned = begun.writer(), begun.tuned()
    assert len(set(read[:3])) == 1 and len(read) == 4 and read[3] > read[0]
    assert tuned.attempts[:3] == first.attempts and tuned.attempts[3].training.steps == 4
    assert tuned.training.steps == 4 and len(tuned.training.runs) == 4
    best = best_of(tuned.attempts)
    kept = weights_digest(begun.load(tuned.model.path))
    assert (kept == weights_digest(begun.load(first.model.path))) is (best in first.attempts)
    assert tuned.training.kept_tokens == best.training.tokens
    assert not any("tuning" in path.name for path in begun.run.workspace.work.iterdir()), "no ledger is left"


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("healing_steps", ["1", "8"])
def test_the_long_run_is_for_sampled_text_or_for_as_many_tokens_as_healing_reads(
    world: World, monkeypatch: pytest.MonkeyPatch, healing_steps: str, sampled: bool
) -> None:
    """It may end early only over sampled text; what was tried comes back from a file."""
    monkeypatch.setattr(sampling, "sample", lambda *_a, **_o: [[0, *range(5, 30)]] * 40)
    real, early = tuning.prolong, list[bool]()

    def noted(*arguments: Any, ends_early: bool, **options: Any) -> Any:
        early.append(ends_early)
        return real(*arguments, ends_early=ends_early, **options)

    monkeypatch.setattr(tuning, "prolong", noted)
    settings = {"heal.steps": healing_steps, "tune.steps": "2", "tune.evaluate_every": "2"}
    same = {"heal.tokens_per_step": "256", "tune.tokens_per_step": "256"}
    texts = {} if sampled else {"text.sampled": "0"}
    folder = f"sampled-long-{healing_steps}-{sampled}"
    begun = start_of(world, folder, **{**settings, **same, **texts})
    tuned = begun.tuned()
    assert early == ([sampled] if sampled or healing_steps == "8" else [])
    assert tuned.training.tokens == max(attempt.training.tokens for attempt in tuned.attempts)
    assert begun.tuned() == tuned and len(early) <= 1


def test_documents_end_in_training_and_never_in_what_measures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passage of the writer ends where the writer ended it, and goes on where it ran out of room."""
    ended, cut = [0, *range(5, 20), 2], [0, *range(5, 30)]
    monkeypatch.setattr(sampling, "sample", lambda *_a, **_o: [ended, cut])
    begun = start_of(world, "sampled-ends")
    tokenizer, text = begun.tokenizer, begun.text()
    assert [passage.ends for passage in text.sampled] == [True, False]
    train, dev = tokenized(text, tokenizer, 64, end=tokenizer.eos_token_id)
    plain, same_dev = tokenized(text, tokenizer, 64)
    ends = sum(window[-1] == tokenizer.eos_token_id for window in train.windows)
    assert ends == sum(passage.ends for passage in (*text.real, *text.definitions, *text.sampled)) > 1
    assert dev == same_dev and train.bytes == plain.bytes
    assert not any(tokenizer.eos_token_id in window[1:] for window in (*dev.windows, *plain.windows))


def test_the_text_is_named_by_who_wrote_it(world: World) -> None:
    """Other settings of the writer are another text, also to what is trained on it; the writer knows of no passages."""
    keys = {}
    for name, changes in {
        "": {},
        "rate": {"tune.learning_rate": "3e-3"},
        "more": {"text.sampled": "7"},
        "none": {"text.sampled": "0"},
    }.items():
        begun = start_of(world, f"sampled-keys-{name}", **changes)
        keys[name] = (
            short_tuning_key(begun.run, begun.parent, begun.real),
            sampling.sampled_key(begun.run, begun.parent, begun.real),
            begun.text().key,
        )
    first, written, read = zip(*keys.values(), strict=True)
    assert first[0] == first[2] == first[3] != first[1]
    assert len(set(written)) == 4 and len(set(read)) == 4
    single = replace(begun.run, options=replace(begun.run.options, dtype="float32"))
    assert short_tuning_key(single, begun.parent, begun.real) != first[-1]


def test_without_a_tuned_parent_healing_tells_the_time_of_writing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = groundwork.add_sampled

    def slow(*arguments: Any) -> Any:
        return replace(real(*arguments), sampling_seconds=1000.0)

    monkeypatch.setattr(groundwork, "add_sampled", slow)
    overrides = {**FAST, **SAMPLED, "heal.steps": "1"}
    for tuned, told in (("false", True), ("true", False)):
        made = build(world.options(f"sampled-time-{tuned}", overrides={**overrides, "tuned_parent": tuned}))
        assert (made.stages[-1].seconds > 1000) is told


def test_held_out_text_that_the_model_writes_is_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = start_of(world, "sampled-leak")
    tokenizer, corpus = begun.tokenizer, begun.corpora.domain
    leaks = [*corpus.heldout[:2], *corpus.dev[:1]]
    texts = [[0, *tokenizer.encode(each.text, add_special_tokens=False)] for each in (*leaks, corpus.train[0])]
    monkeypatch.setattr(sampling, "sample", lambda *_a, **_o: texts)
    found = [each.text for each in sampled_by(begun)]
    assert len(found) == 1 and found[0].strip() == corpus.train[0].text.strip()


def test_a_character_that_a_text_begins_or_ends_within_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Openings are cut anywhere between tokens, and a token may be a part of a character."""
    begun = start_of(world, "sampled-halves")
    tokenizer = begun.tokenizer
    ids = tokenizer.encode("ж and ж", add_special_tokens=False)
    assert tokenizer.decode(ids[1:-1]) == "\ufffd and \ufffd"
    monkeypatch.setattr(sampling, "sample", lambda *_a, **_o: [[0, *ids[1:-1]]])
    assert [each.text for each in sampled_by(begun)] == [" and "]


def test_a_family_the_sampler_does_not_compute_gives_none_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "can_sample", lambda *_: False)
    notes = Notes()
    begun = start(world.options("sampled-family", overrides=SAMPLED), notes)
    assert sampled_by(begun) == []
    assert any("No text is sampled" in note for note in notes.notes)


def test_the_report_tells_of_it_and_the_text_is_dropped_at_the_end(world: World) -> None:
    options: BuildOptions = world.options(
        "sampled-build", overrides={**FAST, **SAMPLED, "heal.steps": "1", "text.definitions": "1"}
    )
    made = build(options)
    assert any("sampled from the parent" in note for note in made.notes)
    assert not (folder_of(options) / "work" / "sampled").exists()


def test_a_form_that_nothing_was_trained_for_asks_for_no_text(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paper form without a tuned parent trains nothing: its report must not say so, nor is a writer tuned."""
    monkeypatch.setattr(groundwork, "add_sampled", lambda *_: pytest.fail("nothing is to be sampled"))
    monkeypatch.setattr(groundwork, "tune_briefly", lambda *_: pytest.fail("nobody is to write"))
    overrides = {**FAST, **SAMPLED, "tuned_parent": "false", "evaluation.general": "true", "text.general": "1"}
    made = build(world.options("sampled-masked", overrides=overrides, masked=True))
    assert not any("trained" in note or "training text" in note for note in made.notes)


@pytest.mark.parametrize(
    "changed",
    [{"keep_general": "1.5"}, {"text.dev_bytes": "700"}, {"text.definitions": "1"}, {"tune.steps": "2"}, {}],
    ids=["bound", "dev text", "definitions", "recipe", "nothing"],
)
def test_it_is_made_again_for_other_settings_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    """A general text as large as the domain's stands in the training text already: the prompts still change."""
    written: list[Any] = []
    monkeypatch.setattr(sampling, "sample", lambda _model, prompts, **_: written.append(prompts) or [])
    folder = f"sampled-again-{'-'.join(changed)}"
    for settings in ({}, changed):
        start_of(world, folder, **{"text.general": "1", **settings}).text()
    # Under a bound, half of the passages go on from general text, in a call of its own.
    assert len(written) == (3 if "keep_general" in changed else 2 if changed else 1)


def test_points_of_a_sweep_read_what_their_tuned_parent_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point's own seed orders its healing; another text than the tuned parent's would make the comparison unfair."""
    written: list[Any] = []
    monkeypatch.setattr(sampling, "sample", lambda _model, prompts, **_: written.append(prompts) or [])
    base = start_of(world, "sampled-sweep", **{"text.definitions": "1"})
    point = replace(base, run=replace(base.run, options=replace(base.run.options, seed=3)))
    first, second = base.text(), point.text()
    assert first == replace(second, sampling_seconds=first.sampling_seconds) and len(written) == 1


def test_a_definition_is_not_put_as_a_test_puts_it(world: World) -> None:
    """No guard finds the test question in the sentence: only the wording around it makes them equal."""
    told = Document(text="Output is the total of all that a country produces.", source="book")
    question = "Which term means the total of all that a country produces?"
    tests = QuestionSet(name="terms", questions=(Question(question=question, choices=("a", "b"), answer=0),))
    begun = start_of(world, "sampled-asked", **{"text.definitions": "12"})
    empty = QuestionSet(name="terms", questions=())
    free = replace(begun.corpora.domain, train=(told,), questions=(empty,))
    guarded = replace(free, questions=(tests,))
    made, kept = (
        [
            each.text
            for each in training_text(replace(begun.corpora, domain=one), begun.run.settings, seed=0).definitions
        ]
        for one in (free, guarded)
    )
    assert len(made) == 24 and kept == [text for text in made if question not in text] != made
