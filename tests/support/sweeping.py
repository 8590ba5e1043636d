"""Hand-made points of a sweep: 20 documents of 100 bytes, bits chosen so that verdicts follow by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from minigpt.evaluation import ItemScores, QuestionItems, TextItems
from minigpt.results import StageName, StageReport
from minigpt.sweep.cells import FinishedPoint
from minigpt.sweep.options import Point
from tests.support.reports import make_report

DOCUMENTS = 20


def items(level: float, *, noise: float = 0.0, seed: int = 0, right: int = 10) -> ItemScores:
    """About `level` bits per byte on the domain and half a bit more in general; `right` of 20 answers are right."""
    draw = Random(seed)
    keys = tuple(f"d{number}" for number in range(DOCUMENTS))
    bits = tuple(100 * (level + noise * draw.uniform(-1, 1)) for _ in keys)
    whole = (100,) * DOCUMENTS
    text = TextItems(keys=keys, bits=bits, bytes=whole, words=(20,) * DOCUMENTS, tokens=(25,) * DOCUMENTS)
    other = replace(text, bits=tuple(value + 50 for value in bits))
    picks = tuple(0 if number < right else 1 for number in range(DOCUMENTS))
    questions = QuestionItems(keys=keys, answers=(0,) * DOCUMENTS, picks=picks, picks_norm=picks, chance=0.25)
    return ItemScores(texts={"general": other, "medical": text}, questions={"medical/glossary": questions})


def finished_point(
    method: str,
    size: float,
    levels: dict[StageName, ItemScores],
    *,
    seed: int = 0,
    layers: int = 30,
    only_layers: bool = False,
) -> FinishedPoint:
    """A finished point with `size` of 100 million parameters."""
    report = make_report()
    parent = replace(report.stages[0], parameters=100_000_000)
    stages: list[StageReport] = [parent]
    stages += [replace(parent, stage=name, parameters=round(size * 100_000_000)) for name in levels]
    report = replace(
        report,
        stages=tuple(stages),
        shape_after=replace(report.shape_before, layers=layers),
        removed_parameters={"layers": 5} if only_layers else {"linear": 5},
    )
    healing = "preset" if "healed" in levels else "none"
    return FinishedPoint(point=Point(method=method, size=size, seed=seed, healing=healing), report=report, items=levels)


built = finished_point  # the old name, until every test uses the new one
