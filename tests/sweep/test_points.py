"""Points of a sweep: damaged lines and folders are moved aside and named, whole ones are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minigpt import locks, report
from minigpt.errors import MiniGPTError
from minigpt.files import read_jsonl, write_jsonl
from minigpt.pipeline.workspace import Workspace
from minigpt.sweep import points
from minigpt.sweep.records import Row
from minigpt.sweep.run import LOCK, sweep
from tests.support.healing import Notes
from tests.support.reports import make_report
from tests.support.worlds import World
from tests.sweep.test_run import options


def row(name: str, **changes: object) -> Row:
    """A finished point."""
    values: dict[str, object] = {"id": name, "key": "k", "domain": "d", "method": "flap", "size": 0.5, "seed": 0}
    values |= {"healing": "none", "parameters": 1, "kept": 0.5, "seconds": 1.0, "report": "r", "scores": ()}
    return Row(**(values | changes))  # type: ignore[arg-type]


def test_lines_are_kept_replaced_and_with_other_inputs_moved(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    write_jsonl(path, [{"id": "old", "key": "k", "domain": "d"}])  # of an older sweep, without a digest
    for one in (row("a"), row("b"), row("a", parameters=7), row("x", domain="other")):
        points.record(path, one)
    assert [line["id"] for line in read_jsonl(path)] == ["old", "b", "a", "x"]
    notes = Notes()
    points.record(path, row("c", key="new"), notes)
    points.record(path, row("e", key="new"), notes)
    assert [line["id"] for line in read_jsonl(path)] == ["x", "c", "e"]
    earlier = path.with_name(points.EARLIER)
    assert [line["id"] for line in read_jsonl(earlier)] == ["old", "b", "a"]
    (note,) = notes.notes
    assert note.startswith("3 points of d were made of other text, parent or settings") and str(earlier) in note
    points.record(path, row("a"))
    assert [line["id"] for line in read_jsonl(earlier)] == ["old", "b", "a", "c", "e"]


def test_a_changed_line_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    path, notes = tmp_path / "points.jsonl", Notes()
    write_jsonl(path, [])
    for one in (row("a"), row("b")):
        points.record(path, one)
    path.write_text(path.read_text().replace('"size": 0.5', '"size": 0.6', 1))
    points.record(path, row("c"), notes)
    assert [line["id"] for line in read_jsonl(path)] == ["b", "c"]
    assert "1 of its lines" in notes.notes[0] and list(tmp_path.glob("points.jsonl.damaged-*"))
    path.write_text("{")
    points.record(path, row("d"), notes)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["d"]


def test_a_damaged_point_is_moved_aside_and_one_that_was_never_sealed_is_read(tmp_path: Path) -> None:
    notes = Notes()
    workspace = Workspace(root=tmp_path / "point", reporter=notes)
    workspace.root.mkdir()
    made = make_report(fingerprints={"build": "k"})
    report.save(made, workspace.report)
    (workspace.root / "items_pruned.json").write_text("[1.5]")
    assert points.finished(workspace, "k") == made
    assert points.finished(workspace, "other") is None
    points.seal(workspace, "k")
    assert points.finished(workspace, "k") == made
    (workspace.root / "items_pruned.json").write_text("[2.5]")
    assert points.finished(workspace, "k") is None
    assert "items_pruned.json is not what was written" in notes.notes[0]
    assert list(tmp_path.glob("point.damaged-*")) and not workspace.root.exists()


def test_a_second_sweep_in_the_folder_is_told(world: World) -> None:
    chosen = options(world, "held")
    chosen.output_dir.mkdir(parents=True)
    write_jsonl(chosen.output_dir / "points.jsonl", [])
    with locks.hold(chosen.output_dir / LOCK, "it"), pytest.raises(MiniGPTError, match="in use by process"):
        sweep(chosen)
