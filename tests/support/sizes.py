"""Sizes of parents and of the work on them, for tests of memory."""

from __future__ import annotations

from minigpt.planning.memory import Parts, Work

SMALL = Parts(ends=1000, layer=500, layers=4, hidden=10, width=30, vocab=100)
WORK = Work(tokens=64, batch_tokens=32, window=16, number_bytes=4, accelerated=True)
SEVEN = Parts(ends=262_148_096, layer=202_383_360, layers=32, hidden=4096, width=11008, vocab=32000)
STANDARD = Work(
    tokens=65536,
    batch_tokens=16384,
    window=512,
    number_bytes=2,
    accelerated=True,
    repair_tokens=65536,
    probe_tokens=16384,
)
