"""Text that the parent itself writes about the domain, once it has read the domain's own: more to heal on.

A corpus of a few megabytes is read ten times over by a healing that is long enough. Distillation does not need true
text, it needs places at which the teacher's distribution is worth learning, and those the teacher can make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from minigpt import assets
from minigpt.files import fingerprint, read_jsonl, write_jsonl
from minigpt.pipeline.read import clear_of_tests
from minigpt.pipeline.text import token_text
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.packing import prefix_token
from minigpt.transformer.sampling import can_sample, sample
from minigpt.types import Document

if TYPE_CHECKING:
    from pathlib import Path

    from minigpt.pipeline.context import Context

WRITER = 4
"""Version of how the parent is tuned before it writes, and VERSION of how it writes."""
VERSION = 3
LENGTH = 384
OPENING = (4, 32)
HALF = "\ufffd"
"""What a character decodes to whose first or last bytes are in a token beyond the text's end."""
SOURCE, LICENSE = "sampled from the tuned parent", "generated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What was sampled, and the seconds it took with the tuning of the parent that wrote it."""

    documents: tuple[Document, ...] = ()
    seconds: float = 0.0


def first_key(context: Context) -> str:
    """Names the parent after its short runs on the real text (:func:`minigpt.pipeline.tuning.first_tuned`)."""
    made = (context.settings.tune, context.text_seed, context.options.dtype)
    return fingerprint(WRITER, context.parent.fingerprint, context.real_text_key, made)


def sampled_key(context: Context) -> str:
    """Names the sampled passages."""
    return fingerprint(VERSION, first_key(context), context.settings.text.sampled, LENGTH, OPENING)


def sampled_documents(context: Context) -> list[Document]:
    """The documents of :func:`sampled_text`."""
    return list(sampled_text(context).documents)


def sampled_text(context: Context) -> Sampled:
    """`text.sampled` passages, sampled once a build from the parent after its short tuning on the real training text.

    Each goes on from a few tokens of a training document of the domain (or of the general text whose loss is bounded),
    at temperature 1, to 384 tokens or the model's own end. Passages that overlap held-out text, dev text or test
    questions are dropped. A parent whose attention the sampler does not compute gives none, which is noted.
    """
    if not context.settings.text.sampled:
        return Sampled()
    from transformers import AutoConfig

    from minigpt.pipeline.tuning import first_tuned

    config = AutoConfig.from_pretrained(context.parent.path)
    able = can_sample(config, LENGTH)
    writer = first_tuned(context) if able else None

    def make(folder: Path) -> None:
        if writer is None:
            kind = config.model_type
            context.reporter.note(f"No text is sampled: the attention of {kind} is not plainly causal.")
        with context.reporter.stage("Sampling text from the tuned parent"):
            write_jsonl(folder / "documents.jsonl", _sampled(context, writer.path) if writer else ())

    folder, done = context.common.stage("sampled", sampled_key(context), make)
    documents = tuple(Document(**row) for row in read_jsonl(folder / "documents.jsonl"))
    return Sampled(documents=documents, seconds=done.seconds + (writer.seconds if writer else 0.0))


def _sampled(context: Context, writer: Path) -> list[Document]:
    from minigpt.machine import release

    tokenizer, count = assets.load_tokenizer(context.parent.path), context.settings.text.sampled
    read = context.corpus.train if context.bounded is None else context.read_documents()
    windows = token_text(tokenizer, read, context.settings.tune.window).windows
    model = context.load(writer)
    documents = passages(model, tokenizer, windows, count, seed=context.text_seed, reporter=context.reporter)
    del model
    release()
    return clear_of_tests(documents, context.corpus, context.general)


def passages(
    model: Any,
    tokenizer: Any,
    windows: Sequence[Sequence[int]],
    count: int,
    *,
    seed: int,
    reporter: Reporter = SILENT,
) -> list[Document]:
    """What a model goes on to write from openings of `windows`, empty texts left out.

    Args:
        model: in the precision to sample in.
        tokenizer: of model and windows.
        windows: tokenized text, each window behind its opening token.
        count: passages to sample.
        seed: of openings and draws.
        reporter: told about progress.
    """
    prompts = openings(windows, count, prefix=prefix_token(tokenizer), seed=seed)
    texts = sample(model, prompts, length=LENGTH, seed=seed, reporter=reporter)
    end = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    told = tokenizer.batch_decode([until(text, end) for text in texts], skip_special_tokens=True)
    whole = [text.strip(HALF) for text in told]
    return [Document(text=text, source=SOURCE, license=LICENSE) for text in whole if text.strip()]


def openings(windows: Sequence[Sequence[int]], count: int, *, prefix: int, seed: int) -> list[list[int]]:
    """`count` short runs of tokens from anywhere in the text, each behind the token that opens a text."""
    draw, (shortest, longest) = Random(seed), OPENING
    usable = [window for window in windows if len(window) > longest + 1] or list(windows)
    found = []
    for _ in range(count):
        window, size = draw.choice(usable), draw.randrange(shortest, longest)
        start = draw.randrange(1, max(2, len(window) - size))
        found.append([prefix, *window[start : start + size]])
    return found


def until(text: Sequence[int], ends: set[int]) -> list[int]:
    """A sampled text without its opening token, up to where the model ended it."""
    stop = next((place for place in range(1, len(text)) if text[place] in ends), len(text))
    return list(text[1:stop])
