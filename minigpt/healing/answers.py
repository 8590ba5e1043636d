"""A teacher's answers in short: its likeliest tokens at a place, with their log-probabilities, and the rest's mass.

With S the tokens that are kept, q the teacher's probabilities, r = 1 - sum over S of q its rest, p the student's
probabilities and p_R = 1 - sum over S of p the student's rest, the divergence of a place is

    D = sum over S of q log(q / p) + r log(r / p_R).

This is the KL divergence once all tokens outside of S count as one, so it is exact within S, equal to the KL divergence
where S is the whole vocabulary, and never above it (log sum inequality; Cover and Thomas 2006, theorem 2.7.1). Its
gradient with respect to the student's logits is p - t, where t is q inside of S and r p / p_R outside: a teacher
that divides its rest as the student does, so that the student's order of unlikely tokens is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The student's rest is at least this in a division.
LEAST_MASS = 1e-30
# Rows of logits that are looked through at once.
ROWS_PER_PART = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers of a teacher at n places.

    Attributes:
        tokens: int64 [n, k], the likeliest tokens, in the student's numbers.
        logs: [n, k], natural logarithms of their probabilities.
        rest: [n], logarithm of the probability of all other tokens together.
    """

    tokens: Tensor
    logs: Tensor
    rest: Tensor

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self.tokens)

    def __getitem__(self, part: slice) -> Answers:
        """Return the answers at some of the places."""
        return Answers(tokens=self.tokens[part], logs=self.logs[part], rest=self.rest[part])

    def to(self, device: torch.device | str) -> Answers:
        """Return the answers on a device."""
        return Answers(tokens=self.tokens.to(device), logs=self.logs.to(device), rest=self.rest.to(device))

    def completed(self, student: Tensor) -> Tensor:
        """Return probabilities of all tokens, whose rest is divided as the student divides its own.

        Args:
            student: fp32 [n, vocab], the student's probabilities.

        Returns:
            fp32 [n, vocab], the t of the module's formula. Each row sums to one.
        """
        given = torch.cat([self.logs, self.rest[:, None]], dim=-1)
        # Stored logarithms are rounded; the softmax makes their probabilities sum to one again.
        known = torch.softmax(given, dim=-1, dtype=torch.float32)
        others = student.scatter(-1, self.tokens, 0.0)
        mass = others.sum(dim=-1, keepdim=True).clamp_min(LEAST_MASS)
        return others.mul_(known[:, -1:] / mass).scatter_(-1, self.tokens, known[:, :-1])


@torch.no_grad()
def likeliest(logits: Tensor, count: int, temperature: float = 1.0) -> Answers:
    """Return the answers that logits stand for.

    Args:
        logits: [n, vocab], over the student's vocabulary.
        count: tokens to keep at each place, at most.
        temperature: divides the logits.
    """
    parts = [_likeliest(part, count, temperature) for part in torch.split(logits, ROWS_PER_PART)]
    return joined(parts)


def joined(parts: list[Answers]) -> Answers:
    """Put answers one behind the other."""
    tokens, logs, rest = (torch.cat([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__)
    return Answers(tokens=tokens, logs=logs, rest=rest)


def _likeliest(logits: Tensor, count: int, temperature: float) -> Answers:
    """Do what :func:`likeliest` does, to a few rows."""
    logs = torch.log_softmax(logits.float() / temperature, dim=-1)
    best = logs.topk(min(count, logs.shape[-1]), dim=-1)
    rest = logs.scatter(-1, best.indices, -torch.inf).logsumexp(dim=-1)
    return Answers(tokens=best.indices, logs=best.values, rest=rest)
