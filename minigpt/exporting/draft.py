"""A specialist as the draft of its parent: the parent verifies every token, so its greedy text stays what it was.

Assisted generation in transformers gives the same text faster, if the draft is cheap and often right (Leviathan et al.
2023, arXiv:2211.17192). A draft with another vocabulary works through `assistant_tokenizer`, which transformers refuses
where both have the same. Whether it pays is
measured side by side, and where it does not, the record says that the draft is switched off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from minigpt import assets, report
from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import ExportError
from minigpt.evaluation.intervals import around, half_width, influences
from minigpt.exporting.common import copy_tokenizer
from minigpt.exporting.draft_map import Counts, IdMap, add, count_tokens, map_ids
from minigpt.exporting.request import ExportRequest, Written, read_corpus
from minigpt.files import atomic_path
from minigpt.progress import Reporter
from minigpt.results import Interval
from minigpt.runtimes import Check
from minigpt.transformer.packing import prefix_token
from minigpt.types import Document

# Prompts where the user names no number.
PROMPTS = 16
# Longest prompt, and length of its continuation, in tokens of the parent.
PROMPT_TOKENS = 32
NEW_TOKENS = 64
# Characters of held-out text between the beginnings of two prompts.
PIECE = 400
# Speed-up below which the draft is switched off.
WORTH_IT = 0.98
MAP = "d2t.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One prompt, continued by the parent alone and with the draft.

    Attributes:
        same: whether the texts are equal token for token.
        alone: seconds of the parent alone.
        assisted: seconds with the draft.
        tokens: tokens of the text.
        counts: tokens that the draft proposed and the parent accepted.
        gap: the parent's best logit minus that of the token with the draft, where the texts part; None where they are
            the same. Near 0 the parent itself has no preference, and rounding decides.
    """

    same: bool
    alone: float
    assisted: float
    tokens: int
    counts: Counts
    gap: float | None = None


def write(request: ExportRequest, folder: Path, reporter: Reporter) -> Written:
    """Write the specialist, the id map and what the trial of both models showed.

    Raises:
        ExportError: the model is not that of a build, its vocabulary is not its parent's, or a text differs.
    """
    reference = parent_of(request.source.path)
    parent = assets.parent(reference, reporter=reporter)
    prompts = choose_prompts(read_corpus(request, reporter=reporter).heldout, request.limit or PROMPTS)
    with reporter.stage("Loading parent and draft"):
        target, draft = (
            assets.load_model(path, dtype=torch.float32, device=request.device)
            for path in (parent.path, request.source.path)
        )
        tokenizers = (assets.load_tokenizer(parent.path), assets.load_tokenizer(request.source.path))
    ids = id_map(target, draft, tokenizers)
    trials = list(run_trials(target, draft, tokenizers, prompts, reporter))
    differing = sum(not trial.same for trial in trials)
    if differing:
        raise ExportError(
            f"With the draft, {differing} of {len(trials)} texts differ from the parent's. Nothing was kept; report "
            "it with the versions of your packages."
        )
    names = _write_files(request.source.path, folder, ids)
    check = Check(name=f"greedy text, {len(trials)} prompts", against="the parent's", difference=0.0, tolerance=0.0)
    return Written(
        weights=names,
        bytes_per_token=sum((folder / name).stat().st_size for name in names),
        settings={"parent": reference, **settings_of(trials, ids)},
        checks=(check,),
    )


def parent_of(model: Path) -> str:
    """Find the parent of a build's model in the report beside it.

    Raises:
        ExportError: there is no report.
    """
    if not (model.parent / report.store.FILE_NAME).is_file():
        raise ExportError(f"{model} has no report beside it, which names its parent. Give the folder of a build.")
    return report.load(model.parent).base_model


def id_map(target: Any, draft: Any, tokenizers: tuple[Any, Any]) -> IdMap:
    """Map the draft's ids to the parent's.

    Raises:
        ExportError: the vocabularies have nothing in common.
    """
    ids = map_ids(
        tokenizers[1].get_vocab(),
        tokenizers[0].get_vocab(),
        draft_rows=draft.get_input_embeddings().weight.shape[0],
        parent_rows=target.get_input_embeddings().weight.shape[0],
    )
    if ids.lacking.all():
        raise ExportError("Draft and parent have no token in common; the draft must be made from this parent.")
    return ids


def choose_prompts(documents: Sequence[Document], limit: int) -> list[str]:
    """Take pieces of held-out documents, spread evenly over all of them; fewer where there is less text.

    Args:
        documents: the held-out documents.
        limit: number of pieces.

    Raises:
        ExportError: there is no held-out text.
    """
    pieces = [piece for document in documents for piece in cut(document.text)]
    if not pieces:
        raise ExportError("The domain has no held-out text to try the draft on; name another --domain.")
    places = np.linspace(0, len(pieces) - 1, min(limit, len(pieces))).astype(int)
    return [pieces[place] for place in places]


def cut(text: str) -> Iterator[str]:
    """Cut a text into pieces of `PIECE` characters that begin with a word; a short rest is left out."""
    yield text[:PIECE]
    for place in range(PIECE, len(text) - PIECE // 2, PIECE):
        _, _, rest = text[place : place + PIECE].partition(" ")
        if rest.strip():
            yield rest


def run_trials(
    target: Any, draft: Any, tokenizers: tuple[Any, Any], prompts: Sequence[str], reporter: Reporter
) -> Iterator[Trial]:
    """Continue each prompt in both ways, by turns in which goes first, after one that is not counted.

    Args:
        target: the parent.
        draft: the specialist.
        tokenizers: tokenizers of both.
        prompts: texts whose beginnings are the prompts.
        reporter: receives the progress.
    """
    rows = [encode(tokenizers[0], prompt).to(target.device) for prompt in prompts]
    with quiet_transformers(), torch.inference_mode():
        run_trial(target, draft, tokenizers, rows[0], draft_first=False)
        for number, row in enumerate(reporter.track(rows, title="Trying the draft", total=len(rows))):
            yield run_trial(target, draft, tokenizers, row, draft_first=bool(number % 2))


def run_trial(target: Any, draft: Any, tokenizers: tuple[Any, Any], row: Tensor, *, draft_first: bool) -> Trial:
    """Continue one prompt in both ways.

    Args:
        target: the parent.
        draft: the specialist.
        tokenizers: tokenizers of both.
        row: token ids of the prompt, [1, tokens].
        draft_first: whether the assisted way goes first.
    """
    help_of = assistance(target, draft, tokenizers)
    lengths: list[int] = []
    results: dict[bool, tuple[Tensor, float]] = {}
    for assisted in (draft_first, not draft_first):
        with _recorded(target, lengths if assisted else []):
            results[assisted] = _generate(target, row, help_of if assisted else {})
    (alone, alone_seconds), (both, both_seconds) = results[False], results[True]
    tokens = both.shape[1] - row.shape[1]
    same = torch.equal(alone, both)
    return Trial(
        same=same,
        gap=None if same else gap_of(target, alone, both),
        alone=alone_seconds,
        assisted=both_seconds,
        tokens=tokens,
        counts=count_tokens(lengths, row.shape[1], tokens),
    )


def assistance(target: Any, draft: Any, tokenizers: tuple[Any, Any]) -> dict[str, Any]:
    """Return the options of `generate` that let the draft help: tokenizers only where the vocabularies differ.

    The test is that of transformers, which refuses tokenizers for vocabularies of one size and wants them otherwise.

    Args:
        target: the parent.
        draft: the specialist.
        tokenizers: tokenizers of both.
    """
    sizes = {model.config.get_text_config().vocab_size for model in (target, draft)}
    both = {"tokenizer": tokenizers[0], "assistant_tokenizer": tokenizers[1]} if len(sizes) == 2 else {}
    return {"assistant_model": draft, **both}


def gap_of(target: Any, alone: Tensor, assisted: Tensor) -> float:
    """Return how much the parent prefers its own token where two texts part; 0 where one only ends earlier.

    Args:
        target: the parent.
        alone: its own text, [1, tokens].
        assisted: the text with the draft, [1, tokens].
    """
    shared = min(alone.shape[1], assisted.shape[1])
    apart = (alone[0, :shared] != assisted[0, :shared]).nonzero()
    if not len(apart):
        return 0.0
    place = int(apart[0])
    logits = target(alone[:, :place]).logits[0, -1].float()
    return float(logits[alone[0, place]] - logits[assisted[0, place]])


def settings_of(trials: Sequence[Trial], ids: IdMap) -> dict[str, str | int | float | bool]:
    """Return the figures of the trials for the record."""
    counts, faster = add([trial.counts for trial in trials]), speed_up(trials)
    return {
        "prompts": len(trials),
        "tokens": sum(trial.tokens for trial in trials),
        "acceptance": counts.acceptance,
        "tokens_per_pass": sum(trial.tokens for trial in trials) / counts.passes,
        "speedup": faster.value,
        "speedup_low": faster.low,
        "speedup_high": faster.high,
        "switched_off": faster.value < WORTH_IT,
        "shared_tokens": int((~ids.lacking).sum()),
    }


def speed_up(trials: Sequence[Trial]) -> Interval:
    """Return the parent's time alone over the time with the draft, with a 95 % interval over the prompts."""
    alone, assisted = (np.array([getattr(trial, name) for trial in trials]) for name in ("alone", "assisted"))
    width = half_width(influences(alone, assisted), float(len(trials)))
    return around(float(alone.sum() / assisted.sum()), width)


def _generate(target: Any, row: Tensor, options: dict[str, Any]) -> tuple[Tensor, float]:
    """Return the greedy text, prompt included, and the seconds that it took."""
    _wait(row.device)
    started = time.perf_counter()
    text = target.generate(
        row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        **options,
    )
    _wait(row.device)
    return text, time.perf_counter() - started


def _wait(device: torch.device) -> None:
    """Let the device finish, so that the clock counts its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _recorded(model: Any, lengths: list[int]) -> Iterator[None]:
    """Record the number of tokens of each pass of a model inside the block."""

    def record(_module: Any, _arguments: Any, options: dict[str, Any]) -> None:
        lengths.append(int(options["input_ids"].shape[1]))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def encode(tokenizer: Any, text: str) -> Tensor:
    """Return the first tokens of a text behind the prefix token, [1, tokens]."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: PROMPT_TOKENS - 1]
    return torch.tensor([[prefix_token(tokenizer), *ids]])


def _write_files(model: Path, folder: Path, ids: IdMap) -> tuple[str, ...]:
    """Write model, tokenizer and map, and return the names of the files with weights."""
    copy_tokenizer(model, folder)
    names = tuple(path.name for path in sorted(model.glob("*.safetensors")))
    for name in [*names, *(path.name for path in model.glob("*.safetensors.index.json"))]:
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes((model / name).read_bytes())
    with atomic_path(folder / MAP) as temporary:
        save_file({"d2t": ids.d2t, "t2d": ids.t2d, "lacking": ids.lacking}, str(temporary))
    return names
