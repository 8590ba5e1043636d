"""A model is measured on the text that its own build held out, not on what the build trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

import minigpt
from minigpt import report
from minigpt.api import use
from minigpt.api.splits import Split, split_for, split_of_domain
from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain, resolved_yaml
from minigpt.errors import MiniGPTError
from minigpt.exporting import ExportRequest
from minigpt.exporting.request import read_corpus
from minigpt.files import write_json
from minigpt.merging.run import MERGE, MergeRecord
from minigpt.models import find
from minigpt.progress import SILENT
from minigpt.runtimes import RECORD, ExportRecord, Source
from minigpt.sweep import matrix
from tests.support.commands import model_folder, run
from tests.support.healing import Notes
from tests.support.reports import make_report
from tests.support.worlds import documents, words

pytestmark = pytest.mark.usefixtures("home")


def build_in(folder: Path, domain: str, *, seed: int, **overrides: str) -> Path:
    """A build folder with a model, a report and the definition of its domain."""
    model_folder(folder / "model")
    definition = load_domain(domain)
    (folder / "domain.yaml").write_text(resolved_yaml(definition))
    record = replace(make_report(definition.name), seed=seed, preset="quick", overrides=overrides)
    report.save(record, folder / "report.json")
    return folder


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build of seed 3 that sampled 12 of the 40 documents of its domain."""
    draw = Random(0)
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(documents(draw, words(draw, 900), 40)):
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    domain = {"name": "mixed", "general_text": True, "corpus": [{"name": "texts", "file": "texts", "license": "CC0"}]}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(domain))
    options: Any = {"corpus.max_documents": "12"}
    return build_in(tmp_path / "runs" / "mixed", str(tmp_path / "mixed.yaml"), seed=3, **options)


def export_in(folder: Path, source: str, *, seed: int) -> Path:
    """An export that names its source."""
    shape = make_report().shape_after
    source_of = Source(ref=source, fingerprint="f", precision="fp32", parameters=1, bytes=2, shape=shape)
    record = ExportRecord(
        format="gguf", precision="fp16", source=source_of, bytes=1, bytes_per_token=1, settings={}, versions={},
        files={}, seed=seed,
    )  # fmt: skip
    folder.mkdir()
    write_json(folder / RECORD, record)
    return folder


def received(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Any, dict[str, Any]]]:
    """What a function below the door is called with, which does nothing."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(use, name, lambda *arguments, **options: calls.append((arguments, options)))
    return calls


@pytest.mark.parametrize("part", ["", "model"])
def test_an_export_reads_what_its_build_held_out(build: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = received(monkeypatch, "write_export")
    minigpt.export(build / part, build.parent / "out", format="onnx", device="cpu")
    request: ExportRequest = calls[0][0][0]
    assert (request.seed, request.max_documents) == (3, 12)
    trained = {text.text for text in build_corpus(load_domain(str(build)), seed=3, max_documents=12).train}
    assert trained and not trained & {text.text for text in read_corpus(request).heldout}
    for other in (replace(request, seed=0), replace(request, max_documents=None)):
        assert trained & {text.text for text in read_corpus(other).heldout}


def test_so_does_an_evaluation(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = received(monkeypatch, "evaluate_ref")
    run("eval", str(build))
    run("eval", str(build), "--domain", "law")
    run("eval", str(build / "model"), "--domain", str(build), "--seed", "5")
    options = [options for _, options in calls]
    assert [(item["seed"], item["max_documents"]) for item in options] == [(3, 12), (3, None), (5, 12)]


def test_another_seed_is_taken_with_a_note(build: Path) -> None:
    notes = Notes()
    assert split_for(str(build), str(build), 4, reporter=notes) == Split(seed=4, max_documents=12)
    assert len(notes.notes) == 1 and "built with seed 3: with seed 4, some of the text" in notes.notes[0]
    split_for(str(build), str(build), 3, reporter=notes)
    split_for(str(build), str(build), None, reporter=notes)
    assert len(notes.notes) == 1


def test_an_export_is_measured_as_its_source_and_by_its_record_where_that_is_gone(build: Path) -> None:
    folder = export_in(build.parent / "gguf", str(build), seed=0)
    assert split_for(str(folder), str(build), None) == Split(seed=3, max_documents=12)
    gone = export_in(build.parent / "gone", str(build.parent / "removed"), seed=7)
    assert split_for(str(gone), "law", None) == Split(seed=7)


def test_a_merge_is_measured_as_the_build_of_the_domain(build: Path, tmp_path: Path) -> None:
    law, notes = build_in(tmp_path / "runs" / "law", "law", seed=1), Notes()
    record = MergeRecord(
        parts=(str(law / "delta"), str(build / "delta")), domains=("law", "mixed"), rule="sum", scale=1.0,
        dev=(), tried={}, overlap=None, chance=None, changed=0.1, bytes=1,
    )  # fmt: skip
    (tmp_path / "both").mkdir()
    write_json(tmp_path / "both" / MERGE, record)
    assert split_for(str(tmp_path / "both"), str(build), None, reporter=notes) == Split(seed=3, max_documents=12)
    assert "built with seed 1: with seed 3" in notes.notes[0]
    assert split_for(str(tmp_path / "both"), "law", None).seed == 1


def test_other_models_are_measured_on_the_split_of_the_domains_build_or_with_seed_0(build: Path) -> None:
    other = str(model_folder(build.parent / "plain"))
    assert split_for(other, str(build / "domain.yaml"), None) == Split(seed=3, max_documents=12)
    assert split_for(other, "law", None) == split_of_domain("law", None) == Split()
    assert split_of_domain(str(build), None) == Split(seed=3, max_documents=12)
    assert split_of_domain(str(build), 1).seed == 1


def test_parts_of_a_build_lead_to_it(build: Path) -> None:
    assert find.build_folder(str(build / "model")) == find.build_folder(str(build)) == build
    assert find.domain_of_build(str(build / "model")) == str(build)
    assert find.build_folder(str(build.parent)) is None


def test_the_matrix_reads_what_a_build_held_out_and_says_where_seeds_differ(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = matrix._texts([matrix._specialist(str(build))], None, SILENT)
    trained = {text.text for text in build_corpus(load_domain(str(build)), seed=3, max_documents=12).train}
    assert texts["mixed"].texts["mixed"] and not trained & {text.text for text in texts["mixed"].texts["mixed"]}
    other, notes = build_in(tmp_path / "runs" / "other", str(tmp_path / "mixed.yaml"), seed=1), Notes()

    def stop(*_: Any) -> None:
        raise MiniGPTError("Stop.")

    monkeypatch.setattr(matrix, "_texts", stop)
    for builds in ([str(build)], [str(build), str(other)]):
        with pytest.raises(MiniGPTError, match="Stop"):
            matrix.cross_domain(builds, output_dir=tmp_path / "m", pictures=False, reporter=notes)
    assert len(notes.notes) == 1 and "seeds 1, 3" in notes.notes[0]


def test_the_build_of_the_domain_decides_for_another_build(tmp_path: Path, build: Path) -> None:
    other = build_in(tmp_path / "runs" / "law", "law", seed=9)
    assert split_for(str(other), str(build), None) == Split(seed=3, max_documents=12)
    assert split_for(str(build), str(build), None) == Split(seed=3, max_documents=12)
