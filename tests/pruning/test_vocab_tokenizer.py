"""Laws of vocabulary pruning, tokenizer side: nothing is lost, kept text reads as before, sizes are exact."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.pruning.vocab import closure, encode_parent_ids, keep_tokens, trim_tokenizer
from minigpt.pruning.vocab.bpe import last_merge, parts_of, read_bpe
from minigpt.pruning.vocab.closure import close, merge_counts
from tests.support.bpe_parents import PARENTS, gappy, rebuilt, word_taking
from tests.support.tiny import SENTENCES, tiny_tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("aehrt \n\r\t\x04.1©東🙂", max_size=40)
WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
PROSE = st.lists(st.sampled_from(WORDS) | st.text("aehnorst 12.", max_size=6), max_size=12).map(" ".join)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


parents = pytest.mark.parametrize("name", PARENTS)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def counts_of(tokenizer: Any, texts: Any = SENTENCES[:2]) -> Counter[int]:
    return Counter(token for text in texts for token in ids(tokenizer, text))


@cache
def trimmed(name: str, size: int) -> Any:
    parent = PARENTS[name]()
    return trim_tokenizer(parent, keep_tokens(parent, counts_of(parent), size))


def decoded(tokenizer: Any, numbers: list[int]) -> str:
    return str(tokenizer.decode(numbers, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@parents
@QUICK
@given(text=TEXT)
def test_every_text_survives(name: str, text: str) -> None:
    """The child is lossless on all text, control characters and unseen scripts included, even where the parent is not.

    A literal meta-space is the one thing its parent cannot tell from a space.
    """
    if name == "falling-back":
        text = text.replace("▁", "_")
    child = trimmed(name, 384).tokenizer
    assert decoded(child, ids(child, text)) == text


def test_the_gappy_parent_does_lose_text() -> None:
    """The law above is not empty: this parent drops bytes that its child keeps."""
    parent, child = gappy(), trimmed("gappy", 384).tokenizer
    lost = [chr(code) for code in range(32) if decoded(parent, ids(parent, f"a{chr(code)}b")) == "ab"]
    assert lost == list("\x04\x06\x13\x14\x16\x1d")
    assert all(decoded(child, ids(child, f"a{char}b")) == f"a{char}b" for char in lost)


@parents
@QUICK
@given(text=PROSE | TEXT, extra=st.sets(st.integers(0, 450), max_size=40))
def test_text_of_kept_tokens_reads_as_before(name: str, text: str, extra: set[int]) -> None:
    """Close any set over a text's tokens: the child reads that text token for token like the parent.

    The set is arbitrary, so competing merges are present or absent at random.
    """
    parent = PARENTS[name]()
    before = ids(parent, text)
    if decoded(parent, before) != text:
        return
    child = trim_tokenizer(parent, closure(parent, {*before, *extra & set(parent.get_vocab().values())}))
    assert encode_parent_ids(child, ids(child.tokenizer, text)) == before


@pytest.mark.parametrize("seed", range(3))
def test_the_closure_holds_for_merges_in_any_order(seed: int) -> None:
    """Merges of a random rank, several for one product, some tokens unreachable: harsher than any trained list."""
    import random

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed)
    vocab = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: set[tuple[str, str]] = set()
    for _ in range(400):
        left, right = (rng.choice([*"abc", *list(vocab)[256:]]) for _ in range(2))
        if len(left + right) < 8:
            vocab.setdefault(left + right, len(vocab))
            merges.add((left, right))
    shuffled = sorted(merges)
    rng.shuffle(shuffled)
    backend = Tokenizer(models.BPE(vocab, shuffled))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    parent = PreTrainedTokenizerFast(tokenizer_object=backend)
    for _ in range(25):
        text = "".join(rng.choices("abc", k=rng.randrange(40)))
        before = ids(parent, text)
        child = trim_tokenizer(parent, closure(parent, {*before, *rng.sample(range(len(vocab)), 20)}))
        assert encode_parent_ids(child, ids(child.tokenizer, text)) == before


@parents
@QUICK
@given(word=st.sampled_from(WORDS) | st.text("aehnorst", max_size=12))
def test_our_merging_is_the_library_s(name: str, word: str) -> None:
    """`last_merge` says a token is whole exactly when `tokenizers` returns it whole (merges not ignored)."""
    parent = PARENTS[name]()
    bpe = read_bpe(parent)
    parent.backend_tokenizer.model.ignore_merges, ignored = False, bpe.ignores_merges
    try:
        pieces = [piece.value for piece in parent.backend_tokenizer.model.tokenize(word)]
    finally:
        parent.backend_tokenizer.model.ignore_merges = ignored
    assert (pieces == [word]) == (last_merge(word, bpe.ranks) is not None or word in bpe.ids)


@parents
@pytest.mark.parametrize("size", [384, 448])
def test_the_keep_set_has_the_asked_size_and_is_closed(name: str, size: int) -> None:
    parent = PARENTS[name]()
    keep = keep_tokens(parent, counts_of(parent), size)
    child = trimmed(name, size)
    assert closure(parent, keep) == keep == tuple(sorted(set(keep)))
    assert len(child.tokenizer) == len(child.old_ids) == size
    assert sorted(child.tokenizer.get_vocab().values()) == list(range(size))
    assert child.old_ids[: len(keep)] == keep
    assert all(old == -1 for old in child.old_ids[len(keep) :])


@parents
def test_more_than_there_is_keeps_all_and_changes_no_id(name: str) -> None:
    parent = PARENTS[name]()
    keep = keep_tokens(parent, {}, 4096)
    child = trim_tokenizer(parent, keep)
    assert keep == tuple(range(len(parent)))
    assert child.unchanged == (not read_bpe(parent).missing)
    assert {token: number for token, number in child.tokenizer.get_vocab().items() if number < len(parent)} == (
        parent.get_vocab()
    )


def test_sizes_that_cannot_be_met_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(PlanError, match=r"256 byte|259 byte.*make 259; ask for at least 320"):
        keep_tokens(tiny_tokenizer(), {}, 256)
    with pytest.raises(PlanError, match="no multiple of 64; the next is 448"):
        keep_tokens(tiny_tokenizer(), {}, 400)
    assert len(keep_tokens(tiny_tokenizer(), {}, 320)) == 320


def test_plans_that_would_break_text_are_refused() -> None:
    parent = tiny_tokenizer()
    keep = keep_tokens(parent, {}, 384)
    whole = max(keep)
    part = parts_of(read_bpe(parent))(whole)[0]
    broken = tuple(token for token in keep if token != part)
    with pytest.raises(PlanError, match="closure"):
        trim_tokenizer(parent, broken)
    with pytest.raises(PlanError, match="another parent"):
        trim_tokenizer(parent, (*keep, 10_000))
    with pytest.raises(PlanError, match="not in the vocabulary"):
        closure(parent, [10_000])


def test_use_counts_what_each_merge_saves() -> None:
    """u(t) by the definition: run the merges on every counted token and count each one."""
    parent = tiny_tokenizer()
    bpe = read_bpe(parent)
    counts = counts_of(parent, SENTENCES)
    executed: Counter[int] = Counter()

    def replay(token: str, times: int) -> None:
        executed[bpe.ids[token]] += times
        last = last_merge(token, bpe.ranks)
        for part in last or ():
            replay(part, times)

    for token, times in counts.items():
        replay(bpe.names[token], times)
    assert merge_counts(bpe, counts, parts_of(bpe)) == dict(executed)


def test_no_closed_set_of_the_size_saves_more() -> None:
    """Greedy by use is the optimum: compare with every closed set of a toy vocabulary."""
    from itertools import combinations

    parent = tiny_tokenizer(272)
    bpe = read_bpe(parent)
    parts = parts_of(bpe)
    used = merge_counts(bpe, counts_of(parent, SENTENCES), parts)
    free = sorted(bpe.names.keys() - bpe.required)
    best = max(
        sum(used.get(token, 0) for token in chosen)
        for chosen in combinations(free, 6)
        if close(chosen, parts) <= {*chosen, *bpe.required}
    )
    greedy = sorted((used.get(token, 0) for token in free), reverse=True)[:6]
    assert sum(greedy) == best


def test_the_domain_comes_first_then_the_lowest_merges() -> None:
    parent = tiny_tokenizer()
    seen = counts_of(parent)
    assert set(seen) <= set(keep_tokens(parent, seen, 448))
    prior = set(keep_tokens(parent, {}, 384))
    assert prior == set(range(384)), "without counts, the first merges are the prior"


def test_the_prior_is_general_text_counted_along() -> None:
    """A heavy prior outvotes a rare domain token, no prior leaves the counts alone, any keeps the set closed."""
    parent = tiny_tokenizer()
    late = len(parent) - 1
    counts = {late: 1, parent.convert_tokens_to_ids("a"): 10_000}
    without, usual, heavy = (keep_tokens(parent, counts, 320, prior=prior) for prior in (0, 0.03, 100.0))
    assert late in without
    assert late not in heavy
    assert heavy == tuple(range(320))
    assert closure(parent, usual) == usual


def test_settings_template_and_specials_carry_over(tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    parent = rebuilt(tiny_tokenizer(), lambda document: None)
    parent.padding_side, parent.model_max_length = "left", 777
    child = trim_tokenizer(parent, keep_tokens(parent, counts_of(parent), 384)).tokenizer
    child.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for tokenizer in (child, again):
        assert tokenizer.special_tokens_map == parent.special_tokens_map
        assert (tokenizer.padding_side, tokenizer.model_max_length) == ("left", 777)
        assert tokenizer.all_special_ids == parent.all_special_ids, "specials stand first and stay there"
        chat = tokenizer.apply_chat_template([{"role": "user", "content": "The heart"}], tokenize=False)
        assert chat == "<|im_start|>user\nThe heart<|im_end|>\n"
        assert [number for number in ids(tokenizer, chat) if number < 3] == [1, 2]
    for text in (*SENTENCES, "unseen 東\x04"):
        assert ids(again, text) == ids(child, text)


def test_the_template_inserts_the_new_id() -> None:
    child = trimmed("word-taking", 384).tokenizer
    assert child.bos_token_id != word_taking().bos_token_id
    assert child("The heart").input_ids[0] == child.bos_token_id
    assert child.convert_ids_to_tokens(child.bos_token_id) == "<|im_start|>"


def test_bert_style_post_processor_and_padding_are_renumbered() -> None:
    from tokenizers import processors

    parent = rebuilt(word_taking(), lambda document: None)
    end, start = parent.eos_token_id, parent.bos_token_id
    parent.backend_tokenizer.post_processor = processors.RobertaProcessing(("<|im_end|>", end), ("<|im_start|>", start))
    parent.backend_tokenizer.enable_padding(pad_id=parent.pad_token_id, pad_token="<|endoftext|>")
    child = trim_tokenizer(parent, keep_tokens(parent, {}, 384)).tokenizer
    encoded = child.backend_tokenizer.encode_batch(["a", "a b c"])[0].ids
    assert (encoded[0], encoded[2], encoded[-1]) == (child.bos_token_id, child.eos_token_id, child.pad_token_id)


def test_added_bytes_have_no_parent() -> None:
    child = trimmed("gappy", 384)
    lost = child.old_ids.index(-1)
    assert encode_parent_ids(child, [0, lost, 10_000]) == [0, -1, -1]
    assert encode_parent_ids(child, [0, lost, 10_000], missing=2) == [0, 2, 2]
    assert child.new_ids[child.old_ids[300]] == 300


def test_the_independent_editor_agrees() -> None:
    """skeletoken removes tokens by its own code: same merges, same order of tokens."""
    skeletoken = pytest.importorskip("skeletoken")
    parent = tiny_tokenizer()
    keep = keep_tokens(parent, counts_of(parent), 384)
    names = read_bpe(parent).names
    editor = skeletoken.TokenizerModel.from_string(parent.backend_tokenizer.to_str())
    editor = editor.remove_tokens_from_vocabulary([names[token] for token in names.keys() - set(keep)])
    theirs = json.loads(editor.to_tokenizer().to_str())["model"]
    ours = json.loads(trim_tokenizer(parent, keep).tokenizer.backend_tokenizer.to_str())["model"]
    assert theirs["merges"] == ours["merges"]
    assert theirs["vocab"] == ours["vocab"]


def test_other_tokenizers_are_refused_in_one_sentence() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    lossy = models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>")
    suffixed = models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>")
    others = {
        "WordPiece": models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"),
        "Unigram": models.Unigram([("a", -1.0)]),
        "neither byte-level": lossy,
        "suffixes": suffixed,
    }
    for reason, model in others.items():
        with pytest.raises(UnsupportedModel, match=reason):
            closure(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)), [])
    with pytest.raises(UnsupportedModel, match="not a fast tokenizer"):
        closure(object(), [])
