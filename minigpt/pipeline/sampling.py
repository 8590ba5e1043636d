"""Sampled training text: passages that the parent writes about the domain after a short tuning on it.

A long healing would read a corpus of a few megabytes many times over. Distillation does not need true text: it needs
positions at which the teacher's distribution is worth learning, and the teacher can produce those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, read_jsonl, write_jsonl
from minigpt.healing.blend import blend_weights
from minigpt.healing.together import sample_together as sample
from minigpt.healing.tokenized import token_text
from minigpt.machine import release
from minigpt.pipeline.read import Corpora, clear_of_tests
from minigpt.pipeline.run import Run, load
from minigpt.pipeline.settings import Settings
from minigpt.pipeline.text import TrainingText
from minigpt.pipeline.tuning import TunedParent, short_tuning_key
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.ends import end_tokens
from minigpt.transformer.packing import prefix_token
from minigpt.transformer.sampling import can_sample
from minigpt.types import Document

# Version of sampling: raised when it changes, so that older passages are sampled again.
VERSION = 5
# Longest passage in tokens, its opening included.
LENGTH = 384
# Shortest and longest opening of a passage, in tokens.
OPENING = (4, 32)
# A character that is split at an end of the text decodes to this.
SPLIT_CHARACTER = "\ufffd"
SOURCE, LICENSE = "sampled from the tuned parent", "generated"


def needs_writer(run: Run, parent: assets.Parent, *, trains: bool) -> bool:
    """Return whether a briefly tuned parent is needed: as the start of the tuned parent, or to write sampled text.

    Args:
        run: the build.
        parent: the untuned parent; some kinds of attention cannot be sampled from.
        trains: whether a specialist will be trained.
    """
    from transformers import AutoConfig

    if run.settings.tuned_parent:
        return True
    samples = trains and bool(run.settings.text.sampled)
    return samples and can_sample(AutoConfig.from_pretrained(parent.path), LENGTH)


def add_sampled(
    run: Run, corpora: Corpora, parent: assets.Parent, text: TrainingText, writer: TunedParent | None
) -> TrainingText:
    """Add passages that the briefly tuned parent writes to the training text, as many as the setting `text.sampled`.

    Each passage continues a few tokens of a training document, at temperature 1, up to 384 tokens or the model's end
    token. The documents are the domain's, and for the share `text.sampled_general` (half at least, where the loss on
    general text is bounded) those of the general text. With `blend` the writer is blended with the parent, as the
    teacher is. Passages that overlap held-out text, dev text
    or test questions are dropped. Some kinds of attention cannot be sampled from: then there are no passages, and a
    note says so.

    Args:
        run: the build.
        corpora: domain and general text.
        parent: the untuned parent.
        text: the real training text.
        writer: the briefly tuned parent, of :func:`minigpt.pipeline.tuning.tune_briefly`.
    """
    if not run.settings.text.sampled:
        return text
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(parent.path)
    samples = writer is not None and can_sample(config, LENGTH)
    key = sampled_key(run, parent, text)

    def make(folder: Path) -> None:
        if not samples:
            kind = config.model_type
            run.reporter.note(f"No text is sampled: the attention of {kind} is not plainly causal.")
        with run.reporter.stage("Sampling text from the tuned parent"):
            passages = _write(run, corpora, parent, writer.model.path) if samples and writer else ()
            write_jsonl(folder / "documents.jsonl", passages)

    folder, done = run.common.stage("sampled", key, make)
    return replace(
        text,
        sampled=tuple(Document(**row) for row in read_jsonl(folder / "documents.jsonl")),
        key=fingerprint(text.real_key, key),
        sampling_seconds=done.seconds + (writer.seconds if samples and writer else 0.0),
    )


def sampled_key(run: Run, parent: assets.Parent, text: TrainingText) -> str:
    """Fingerprint the passages that a build samples."""
    settings = run.settings
    choices = (settings.text.sampled, settings.text.sampled_general, settings.keep_general is not None, settings.blend)
    return fingerprint(VERSION, short_tuning_key(run, parent, text), choices, LENGTH, OPENING)


def _write(run: Run, corpora: Corpora, parent: assets.Parent, writer: Path) -> list[Document]:
    """Let the tuned parent, blended as the teacher is, write passages, and drop those that overlap test text."""
    tokenizer, settings = assets.load_tokenizer(parent.path), run.settings
    model = load(run, writer)
    if settings.blend:
        blend_weights(model, load(run, parent.path), settings.blend)
    passages: list[Document] = []
    for offset, (documents, count) in enumerate(_parts(corpora, settings)):
        windows = token_text(tokenizer, documents, settings.tune.window).windows
        seed = run.text_seed + offset
        passages += write_passages(model, tokenizer, windows, count, seed=seed, reporter=run.reporter)
    del model
    release()
    return clear_of_tests(passages, corpora)


def _parts(corpora: Corpora, settings: Settings) -> list[tuple[tuple[Document, ...], int]]:
    """Return the documents that passages go on from, the domain's and then the general ones, and how many passages."""
    count, general = settings.text.sampled, corpora.general
    share = settings.text.sampled_general if general is not None else 0.0
    if general is not None and settings.keep_general is not None:
        share = max(0.5, share)
    from_general = round(share * count)
    parts = [(corpora.domain.train, count - from_general), (general.train if general else (), from_general)]
    return [(documents, number) for documents, number in parts if number and documents]


def write_passages(
    model: Any,
    tokenizer: Any,
    windows: Sequence[Sequence[int]],
    count: int,
    *,
    seed: int,
    reporter: Reporter = SILENT,
) -> list[Document]:
    """Let a model continue openings that are drawn from `windows`; empty texts are left out.

    A passage that reaches the longest length without an end token goes on, as far as training is concerned.

    Args:
        model: the model, in the precision to sample in; on a GPU it keeps fused kernels, so give a copy.
        tokenizer: tokenizer of model and windows.
        windows: tokenized text; each window starts with the token that opens a text.
        count: number of passages to sample.
        seed: seed of openings and sampling.
        reporter: told about progress.
    """
    prompts = draw_openings(windows, count, prefix=prefix_token(tokenizer), seed=seed)
    ends = end_tokens(tokenizer, model.config, model.generation_config)
    rows = sample(model, prompts, length=LENGTH, seed=seed, ends=ends, reporter=reporter)
    texts = [tokenizer.decode(cut_at_end(row, ends), skip_special_tokens=True) for row in rows]
    return [
        Document(text=whole, source=SOURCE, license=LICENSE, ends=row[-1] in ends)
        for row, text in zip(rows, texts, strict=True)
        if (whole := text.strip(SPLIT_CHARACTER)).strip()
    ]


def draw_openings(windows: Sequence[Sequence[int]], count: int, *, prefix: int, seed: int) -> list[list[int]]:
    """Draw `count` short runs of tokens from anywhere in the text, and put `prefix` in front of each.

    Args:
        windows: tokenized text; each window starts with the token that opens a text.
        count: number of openings.
        prefix: the token that opens a text.
        seed: seed of the draws.
    """
    draw, (shortest, longest) = Random(seed), OPENING
    usable = [window for window in windows if len(window) > longest + 1] or list(windows)
    runs = []
    for _ in range(count):
        window, size = draw.choice(usable), draw.randrange(shortest, longest)
        start = draw.randrange(1, max(2, len(window) - size))
        runs.append([prefix, *window[start : start + size]])
    return runs


def cut_at_end(row: Sequence[int], ends: Collection[int]) -> list[int]:
    """Cut a sampled text at the first of the tokens `ends`, and drop its opening token."""
    stop = next((place for place in range(1, len(row)) if row[place] in ends), len(row))
    return list(row[1:stop])
