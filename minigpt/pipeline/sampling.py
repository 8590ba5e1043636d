"""Text that the parent itself writes about the domain, once it has read the domain's own: more to heal on.

A corpus of a few megabytes is read ten times over by a healing that is long enough. Distillation does not need true
text: it needs places at which the teacher's distribution is worth learning, and those the teacher can make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, read_jsonl, write_jsonl
from minigpt.healing.tokenized import token_text
from minigpt.machine import release
from minigpt.pipeline.read import Corpora, clear_of_tests
from minigpt.pipeline.run import Run, load
from minigpt.pipeline.text import TrainingText
from minigpt.pipeline.tuning import TunedParent, short_tuning_key
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.packing import prefix_token
from minigpt.transformer.sampling import can_sample, sample
from minigpt.types import Document

# Raised when sampling changes, so that older passages are not taken for new ones.
VERSION = 3
# Longest passage in tokens, its opening included.
LENGTH = 384
# Shortest and longest opening of a passage, in tokens.
OPENING = (4, 32)
# A character whose first or last bytes lie in a token beyond the text's end decodes to this.
SPLIT_CHARACTER = "\ufffd"
SOURCE, LICENSE = "sampled from the tuned parent", "generated"


def needs_writer(run: Run, parent: assets.Parent, *, trains: bool) -> bool:
    """Whether a briefly tuned parent is needed: it begins the tuned parent, and it writes the sampled text.

    Args:
        run: the build.
        parent: the parent; some kinds of attention cannot be sampled from.
        trains: whether a specialist is trained.
    """
    from transformers import AutoConfig

    if run.settings.tuned_parent:
        return True
    wanted = trains and bool(run.settings.text.sampled)
    return wanted and can_sample(AutoConfig.from_pretrained(parent.path), LENGTH)


def add_sampled(
    run: Run, corpora: Corpora, parent: assets.Parent, text: TrainingText, writer: TunedParent | None
) -> TrainingText:
    """Add `text.sampled` passages that the briefly tuned parent writes to the training text.

    Each goes on from a few tokens of a training document of the domain (or of the general text whose loss is bounded),
    at temperature 1, to 384 tokens or the model's own end. Passages that overlap held-out text, dev text or test
    questions are dropped. A parent whose attention the sampler does not compute gives none, and the user is told.

    Args:
        run: the build.
        corpora: domain and general text.
        parent: the untuned parent.
        text: the real training text.
        writer: of :func:`minigpt.pipeline.tuning.tune_briefly`.
    """
    if not run.settings.text.sampled:
        return text
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(parent.path)
    able = writer is not None and can_sample(config, LENGTH)
    key = sampled_key(run, parent, text)

    def make(folder: Path) -> None:
        if not able:
            kind = config.model_type
            run.reporter.note(f"No text is sampled: the attention of {kind} is not plainly causal.")
        with run.reporter.stage("Sampling text from the tuned parent"):
            passages = _write(run, corpora, parent, text, writer.model.path) if able and writer else ()
            write_jsonl(folder / "documents.jsonl", passages)

    folder, done = run.common.stage("sampled", key, make)
    return replace(
        text,
        sampled=tuple(Document(**row) for row in read_jsonl(folder / "documents.jsonl")),
        key=fingerprint(text.real_key, key),
        sampling_seconds=done.seconds + (writer.seconds if able and writer else 0.0),
    )


def sampled_key(run: Run, parent: assets.Parent, text: TrainingText) -> str:
    """Name the passages that a build samples."""
    return fingerprint(VERSION, short_tuning_key(run, parent, text), run.settings.text.sampled, LENGTH, OPENING)


def _write(run: Run, corpora: Corpora, parent: assets.Parent, text: TrainingText, writer: Path) -> list[Document]:
    tokenizer = assets.load_tokenizer(parent.path)
    bounded = corpora.general is not None and run.settings.keep_general is not None
    openings_from = text.real if bounded else corpora.domain.train
    windows = token_text(tokenizer, openings_from, run.settings.tune.window).windows
    model = load(run, writer)
    documents = write_passages(
        model, tokenizer, windows, run.settings.text.sampled, seed=run.text_seed, reporter=run.reporter
    )
    del model
    release()
    return clear_of_tests(documents, corpora)


def write_passages(
    model: Any,
    tokenizer: Any,
    windows: Sequence[Sequence[int]],
    count: int,
    *,
    seed: int,
    reporter: Reporter = SILENT,
) -> list[Document]:
    """Let a model go on from openings of `windows`; empty texts are left out.

    Args:
        model: in the precision to sample in.
        tokenizer: of model and windows.
        windows: tokenized text, each window behind its opening token.
        count: passages to sample.
        seed: of openings and draws.
        reporter: told about progress.
    """
    prompts = openings(windows, count, prefix=prefix_token(tokenizer), seed=seed)
    rows = sample(model, prompts, length=LENGTH, seed=seed, reporter=reporter)
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    texts = tokenizer.batch_decode([until(row, ends) for row in rows], skip_special_tokens=True)
    whole = [text.strip(SPLIT_CHARACTER) for text in texts]
    return [Document(text=text, source=SOURCE, license=LICENSE) for text in whole if text.strip()]


def openings(windows: Sequence[Sequence[int]], count: int, *, prefix: int, seed: int) -> list[list[int]]:
    """Draw `count` short runs of tokens from anywhere in the text, each behind the token that opens a text."""
    draw, (shortest, longest) = Random(seed), OPENING
    usable = [window for window in windows if len(window) > longest + 1] or list(windows)
    runs = []
    for _ in range(count):
        window, size = draw.choice(usable), draw.randrange(shortest, longest)
        start = draw.randrange(1, max(2, len(window) - size))
        runs.append([prefix, *window[start : start + size]])
    return runs


def until(row: Sequence[int], ends: set[int]) -> list[int]:
    """Cut a sampled text: without its opening token, up to where the model ended it."""
    stop = next((place for place in range(1, len(row)) if row[place] in ends), len(row))
    return list(row[1:stop])
