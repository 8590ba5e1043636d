"""Log-probabilities from a causal language model, in batches; measuring runs a model nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from minigpt.distributed import current
from minigpt.distributed.group import Group
from minigpt.errors import MiniGPTError
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.logits import float_head, logits_at
from minigpt.transformer.portions import Portions

# Logits in the softmax at a time: few enough to stay in the cache, which makes it faster.
SOFTMAX_BLOCK = 2**20
# Logits held at a time, by kind of device (2**27 in float32 are 512 MB).
MAX_LOGITS = {"cpu": 2**27, "cuda": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence to read and the tokens to score in it.

    Token `targets[i]` is predicted by the output at `tokens[where[i]]`, and its log-probability is added to the sum of
    `owners[i]`. Without `branches` the row is ordinary causal text. With them the row is a trunk (branch 0) followed by
    alternative continuations (branches 1, 2, ...); each continuation sees only the trunk and itself.
    """

    tokens: Sequence[int]
    where: Sequence[int]
    targets: Sequence[int]
    owners: Sequence[int]
    branches: Sequence[int] | None = None


def prefix_token(tokenizer: Any) -> int:
    """Find the token to put before a text, so that its first token can be scored too (lm-eval's rule).

    Raises:
        MiniGPTError: The tokenizer has neither a beginning nor an end token.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise MiniGPTError("The tokenizer has no bos_token and no eos_token; set one of them in tokenizer_config.json.")


def window_limit(model: Any, window: int) -> int:
    """Limit `window` to the positions that the model has."""
    return min(window, getattr(model.config, "max_position_embeddings", None) or window)


def windows(tokens: Sequence[int], *, prefix: int, window: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Cut a text into windows in which every token is scored exactly once.

    These are lm-eval's rolling windows with a context of one token. The first window follows `prefix`; every later
    one begins with the last token of the window before it; the last one reaches back so far that it, too, reads
    `window` tokens.

    Args:
        tokens: Token ids of the text.
        prefix: Token put before the text.
        window: Longest input in tokens.

    Yields:
        The inputs of a window and its targets. The last `len(targets)` inputs predict the targets.
    """
    stream = [prefix, *tokens]
    for start in range(0, len(tokens), window):
        end = min(start + window, len(tokens))
        yield stream[max(0, end - window) : end], stream[start + 1 : end + 1]


def log_probabilities(
    model: Any, rows: Sequence[Row], owners: int, *, batch_tokens: int, title: str, reporter: Reporter = SILENT
) -> NDArray[np.float64]:
    """Sum the natural log-probabilities of the scored tokens for each owner.

    Rows are sorted by length and padded on the right; the padding never reaches a scored token. The model runs in its
    own dtype, output projection and softmax in float32, the sums in float64.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        rows: Sequences to read and tokens to score.
        owners: Number of owners; `Row.owners` index them.
        batch_tokens: Most tokens in a batch, padding included; fewer if the logits would not fit in memory.
        title: Title of the progress bar.
        reporter: Receives the progress.

    Returns:
        One sum of natural log-probabilities for each owner.

    Raises:
        MiniGPTError: The model gives NaN or infinite log-probabilities.
    """
    sums = np.zeros(owners, dtype=np.float64)
    group = current()
    if group is None or group.shipped is not model:
        batches = list(_batches(rows, min(batch_tokens, _logit_rows(model))))
        scores: Iterable[NDArray[np.float64]] = _scores(model, batches, title=title, reporter=reporter)
    else:
        group.announce("score")
        batches, scores = _shared_scores(group, rows, batch_tokens, title=title, reporter=reporter)
    for batch, values in zip(batches, scores, strict=True):
        owner = np.concatenate([np.asarray(row.owners, dtype=np.int64) for row in batch])
        np.add.at(sums, owner, values)
    if not np.isfinite(sums).all():
        raise MiniGPTError("The model gives no finite probabilities on this text; its weights are damaged.")
    return sums


def _scores(
    model: Any, batches: Sequence[Sequence[Row]], *, title: str, reporter: Reporter
) -> Iterator[NDArray[np.float64]]:
    """Yield the log-probabilities of the scored tokens of each batch."""
    portions = Portions(title, reporter)
    with _evaluating(model), float_head(model):
        for batch in reporter.track(batches, title=title, total=len(batches)):
            scores = portions.run(len(batch), partial(_scores_of_parts, model, batch))
            yield torch.cat(scores).double().numpy()


def _shared_scores(
    group: Group, rows: Sequence[Row], batch_tokens: int, *, title: str = "", reporter: Reporter = SILENT
) -> tuple[list[list[Row]], list[NDArray[np.float64]]]:
    """Score the first process's rows on all processes: batches in turns, each in the place that it has alone.

    Args:
        group: the processes, which hold the model.
        rows: sequences to read; those of the first process count.
        batch_tokens: most tokens in a batch.
        title: title of the progress bar.
        reporter: receives the progress.

    Returns:
        The batches, and the log-probabilities of the scored tokens of each.
    """
    fields = [[list(row.tokens), list(row.where), list(row.targets), list(row.owners), row.branches] for row in rows]
    shared, tokens = group.share([fields, batch_tokens])
    names = ("tokens", "where", "targets", "owners", "branches")
    known = [Row(**dict(zip(names, values, strict=True))) for values in shared]
    batches = list(_batches(known, min(tokens, _logit_rows(group.shipped))))
    ends = np.cumsum([0, *(sum(len(row.targets) for row in batch) for batch in batches)])
    values = torch.zeros(int(ends[-1]), dtype=torch.float64)
    turns = range(group.rank, len(batches), group.world)
    scores = _scores(group.shipped, [batches[turn] for turn in turns], title=title, reporter=reporter)
    for turn, score in zip(turns, scores, strict=True):
        values[int(ends[turn]) : int(ends[turn + 1])] = torch.from_numpy(score)
    # Each place is filled by one process and zero in all others, so the sum is exact.
    return batches, np.split(group.add_up(values).numpy(), ends[:-1])[1:]  # none where there are no rows


def help_to_score(group: Group) -> None:
    """Take part in :func:`log_probabilities` of the model that all processes hold."""
    _shared_scores(group, (), 0)


def likeliest_tokens(
    model: Any, rows: Sequence[Row], *, batch_tokens: int, title: str, reporter: Reporter = SILENT
) -> list[list[int]]:
    """Predict the likeliest token at every scored place, from the true tokens before it.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        rows: Sequences to read; each is its own owner, numbered in this order, and its targets are not read.
        batch_tokens: Most tokens in a batch, padding included; fewer if the logits would not fit in memory.
        title: Title of the progress bar.
        reporter: Receives the progress.

    Returns:
        One list for each row.
    """
    predicted: list[list[int]] = [[] for _ in rows]
    batches = list(_batches(rows, min(batch_tokens, _logit_rows(model))))
    portions = Portions(title, reporter)
    with _evaluating(model):
        for batch in reporter.track(batches, title=title, total=len(batches)):
            tokens = portions.run(len(batch), partial(_likeliest, model, batch))
            for row in batch:
                predicted[row.owners[0]], tokens = tokens[: len(row.where)], tokens[len(row.where) :]
    return predicted


def _logit_rows(model: Any) -> int:
    """Count the positions whose logits fit at once on the model's device; this bounds memory for large vocabularies."""
    return max(1, MAX_LOGITS.get(model.device.type, MAX_LOGITS["cpu"]) // int(model.config.vocab_size))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off, and restore the training mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Group rows of similar length, longest first; plain and branching rows never share a batch."""
    ordered = sorted(rows, key=lambda row: (row.branches is None, -len(row.tokens)))
    batch: list[Row] = []
    for row in ordered:
        same_kind = batch and (batch[0].branches is None) == (row.branches is None)
        if batch and not (same_kind and (len(batch) + 1) * len(batch[0].tokens) <= batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _scores_of_parts(model: Any, batch: Sequence[Row], parts: Sequence[slice]) -> list[Tensor]:
    """Compute the log-probabilities of the scored tokens of each part of a batch, on the CPU."""
    return [_score(model, batch[part]).cpu() for part in parts]


def _likeliest(model: Any, batch: Sequence[Row], parts: Sequence[slice]) -> list[int]:
    """Predict the likeliest token at every scored place of a batch, one part of its rows after the other."""
    tokens: list[int] = []
    for part in parts:
        length, inputs = _padded(model, batch[part])
        places = torch.tensor(_flat_places(batch[part], length))
        tokens += logits_at(model, places, **inputs).argmax(-1).tolist()
    return tokens


def _score(model: Any, batch: Sequence[Row]) -> Tensor:
    """Compute the log-probability of every scored token of the batch, row by row, in float32."""
    length, inputs = _padded(model, batch)
    flat = torch.tensor(_flat_places(batch, length))
    targets = torch.tensor([target for row in batch for target in row.targets], device=model.device)
    positions, inverse = torch.unique(flat, return_inverse=True)
    logits = logits_at(model, positions, **inputs)
    inverse, targets = inverse.to(logits.device), targets.to(logits.device)
    blocks = torch.split(logits, max(1, SOFTMAX_BLOCK // logits.shape[-1]))
    normalizers = torch.cat([_normalizer(block.float()) for block in blocks])
    return logits[inverse, targets].float() - normalizers[inverse]


def _padded(model: Any, batch: Sequence[Row]) -> tuple[int, dict[str, Tensor]]:
    """Return the length of the longest row and the inputs of the batch, on the model's device."""
    length = max(len(row.tokens) for row in batch)
    return length, {key: value.to(model.device) for key, value in _inputs(batch, length, model.dtype).items()}


def _flat_places(batch: Sequence[Row], length: int) -> list[int]:
    """Number the scored places of a batch in its flattened inputs, row by row."""
    return [index * length + place for index, row in enumerate(batch) for place in row.where]


def _normalizer(logits: Tensor) -> Tensor:
    """Compute the logarithm of the sum of exponentials of each row of logits, [rows].

    Cross-entropy is many times faster on a processor than `logsumexp` and gives the same number, less the logit of the
    label.
    """
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return functional.cross_entropy(logits, labels, reduction="none") + logits[:, 0]


def _inputs(batch: Sequence[Row], length: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Build right-padded `input_ids` [B, T]; for branching rows also `position_ids` [B, T] and a mask [B, 1, T, T].

    Plain rows need no mask: causal attention never sees padding on the right.
    """
    input_ids = torch.zeros(len(batch), length, dtype=torch.long)
    branches = torch.full((len(batch), length), -1)
    for index, row in enumerate(batch):
        input_ids[index, : len(row.tokens)] = torch.tensor(row.tokens)
        if row.branches is not None:
            branches[index, : len(row.tokens)] = torch.tensor(row.branches)
    if batch[0].branches is None:
        return {"input_ids": input_ids}
    query, key = branches[:, :, None], branches[:, None, :]
    visible = ((query == key) | ((key == 0) & (query > 0))).tril()
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    return {"input_ids": input_ids, "position_ids": visible.sum(-1) - 1, "attention_mask": mask[:, None]}
