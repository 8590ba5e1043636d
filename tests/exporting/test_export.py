"""An export is handed over only if it computes what its source computes, and says so in export.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minigpt import report, runtimes
from minigpt.errors import AssetError, ConfigError, ExportError, GateFailed, MiniGPTError, UnknownName
from minigpt.exporting import EXPORTERS, Format, export, format_of, rounding_of
from minigpt.exporting.card import render_card
from minigpt.models.find import find_model, find_report
from minigpt.runtimes import LOADERS, read_record
from minigpt.runtimes.record import as_report
from tests.support import exports
from tests.support.exports import Shop, make_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format called `copy` in both tables."""
    row = Format(
        write="tests.support.exports:write_copy", precisions=("fp32", "int4"), summary="a copy", card="Copy it."
    )
    monkeypatch.setitem(EXPORTERS, "copy", row)
    monkeypatch.setitem(LOADERS, "copy", "tests.support.exports:load_lying")
    monkeypatch.setitem(exports.LIE, "is", "")


@pytest.mark.usefixtures("copy")
def test_the_record_holds_proof_and_origin(shop: Shop) -> None:
    record = export(shop.request("copy", "honest"))
    folder = shop.root / "honest"
    assert read_record(folder) == record
    assert {check.name for check in record.checks} == {"prefill", "decode", "left-padded"}
    assert all(check.passed for check in record.checks)
    assert record.greedy and record.greedy.agreeing == record.greedy.tokens == 64
    assert record.quality and record.quality.domain == "mixed" and record.quality.ratio == 1.0
    assert record.quality.opening in {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "\n"}
    assert [stage.opening for stage in as_report(record).stages] == [record.quality.opening] * 2
    assert {name for name in record.files} == {path.name for path in folder.iterdir()} - {"export.json"}
    for name, digest in record.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert (folder / name).stat().st_mode & 0o777 == 0o644
    assert record.source.parameters == 2 * 32 * (2 * 64 + 2 * 32 + 3 * 64) + 512 * 32 + 5 * 32
    assert record.source.fingerprint and record.versions["minigpt"]


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(
    ("lie", "said"), [("weights", "prefill"), ("mask", "left-padded"), ("cache", "decode"), ("infinite", "not finite")]
)
def test_an_export_that_computes_something_else_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lie: str, said: str
) -> None:
    monkeypatch.setitem(exports.LIE, "is", lie)
    with pytest.raises(ExportError, match=said):
        export(shop.request("copy", f"liar-{lie}"))
    assert not (shop.root / f"liar-{lie}").exists()


@pytest.mark.usefixtures("copy")
def test_rounded_weights_may_differ_from_the_source_but_not_from_themselves(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exports.LIE, "is", "weights")
    record = export(shop.request("copy", "rounded", precision="int4"))
    prefill = next(check for check in record.checks if check.name == "prefill")
    assert prefill.tolerance is None and prefill.difference == pytest.approx(0.01, rel=1e-3)
    monkeypatch.setitem(exports.LIE, "is", "cache")
    with pytest.raises(ExportError, match="its own prefill"):
        export(shop.request("copy", "rounded2", precision="int4"))


@pytest.mark.usefixtures("copy")
def test_arithmetic_in_eight_bits_has_room_and_no_more(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that multiplies in eight bits may decode a little away from its own prefill, but not far."""
    monkeypatch.setitem(exports.LIE, "is", "rough")
    assert export(shop.request("copy", "rough", precision="int4")).checks
    monkeypatch.setitem(exports.LIE, "is", "broken")
    with pytest.raises(ExportError, match=r"by 2\.5, and 2 is allowed"):
        export(shop.request("copy", "broken", precision="int4"))


@pytest.mark.usefixtures("copy")
def test_what_is_there_is_not_written_over(shop: Shop) -> None:
    target = shop.root / "taken"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="not an export"):
        export(shop.request("copy", "taken", force=True))
    assert (target / "notes.txt").read_text() == "mine"
    (target / "notes.txt").unlink()
    export(shop.request("copy", "taken"))
    with pytest.raises(ExportError, match="--force"):
        export(shop.request("copy", "taken"))
    assert export(shop.request("copy", "taken", force=True)).format == "copy"


@pytest.mark.usefixtures("copy")
def test_the_current_folder_is_no_target(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="the folder you are in"):
        export(replace(shop.request("copy", "never"), output_dir=Path(".")))
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("copy")
def test_an_export_that_fails_leaves_the_earlier_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = export(shop.request("copy", "kept"))
    monkeypatch.setitem(exports.LIE, "is", "weights")
    with pytest.raises(ExportError, match="prefill"):
        export(shop.request("copy", "kept", force=True))
    assert read_record(shop.root / "kept") == before
    assert not [path for path in shop.root.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("copy")
def test_an_export_is_not_exported_again(shop: Shop) -> None:
    export(shop.request("copy", "first"))
    with pytest.raises(AssetError, match=f"is an export .* give {shop.model} instead"):
        find_model(str(shop.root / "first"))


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_export_names_the_file(shop: Shop, name: str) -> None:
    """A file cut short, then one that is missing."""
    folder = shop.root / f"damaged-{name}"
    export(shop.request("copy", folder.name))
    runtimes.load(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(AssetError, match=f"{name} is not the file that was exported"):
            runtimes.load(folder)
        (folder / name).unlink(missing_ok=True)


@pytest.mark.usefixtures("copy")
def test_a_failure_of_a_sound_export_is_told_as_it_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    export(shop.request("copy", "sound"))
    monkeypatch.setitem(LOADERS, "copy", "tests.support.exports:load_nothing")
    with pytest.raises(AssetError, match="package is missing"):
        runtimes.load(shop.root / "sound")


@pytest.mark.usefixtures("copy")
def test_an_export_stands_in_a_comparison_beside_its_source(shop: Shop) -> None:
    export(shop.request("copy", "one"))
    export(shop.request("copy", "two", precision="int4"))
    reports = [(name, find_report(str(shop.root / name))) for name in ("one", "two")]
    assert [finished.stages[-1].stage for _, finished in reports] == ["exported", "exported"]
    row = next(row for row in report.compare(reports).rows if row.metric == "bits_per_byte")
    assert row.cells[1] and row.cells[1].ratio == 1.0 and row.cells[1].vs_parent == 1.0
    report.check_gate("bits_per_byte>1.001x", reports)
    with pytest.raises(GateFailed):
        report.check_gate("bits_per_byte>0.999x", reports)


def test_names_and_precisions_are_checked_before_any_work() -> None:
    assert format_of("onnx", None)[1] == "fp32"
    with pytest.raises(UnknownName, match="onnx-genai"):
        format_of("onnx-gena", None)
    with pytest.raises(ConfigError, match="fp32, int4"):
        format_of("onnx-genai", "fp16")


def test_rounding_is_chosen_only_where_there_is_a_choice() -> None:
    assert [rounding_of(*arguments) for arguments in (("gguf", "int4", None), ("onnx", "int4", "nearest"))] == [
        "compensated",
        "nearest",
    ]
    assert rounding_of("gguf", "fp16", None) is None and rounding_of("torch-4bit", "int4", None) is None
    with pytest.raises(ConfigError, match="has no choice of rounding"):
        rounding_of("gguf", "int8", "nearest")
    with pytest.raises(ConfigError, match="compensated and nearest"):
        rounding_of("onnx", "int4", "up")


def test_a_missing_package_is_named_with_its_extra(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "onnx", replace(EXPORTERS["onnx"], needs=("onnx", "no_such_package")))
    with pytest.raises(ExportError, match=r"no_such_package: pip install 'minigpt\[onnx\]'"):
        export(shop.request("onnx", "never"))


def test_every_model_format_has_a_runtime() -> None:
    assert {name for name, row in EXPORTERS.items() if row.runtime} <= set(LOADERS)


def test_a_folder_of_an_unknown_format_is_refused(shop: Shop, tmp_path: Path) -> None:
    source: dict[str, Any] = {"ref": "x", "fingerprint": "y", "precision": "float32", "parameters": 1, "bytes": 1}
    source["shape"] = {"layers": 1, "intermediate_size": 1, "kv_groups": 1, "vocab_size": 1}
    record = {"format": "stone", "precision": "fp32", "source": source, "bytes": 1, "bytes_per_token": 1}
    empty: dict[str, Any] = {"settings": {}, "versions": {}, "files": {}}
    (tmp_path / "export.json").write_text(json.dumps(record | empty))
    with pytest.raises(AssetError, match="stone, not a model to run"):
        runtimes.load(tmp_path)
    with pytest.raises(MiniGPTError, match="no figures"):
        find_report(str(tmp_path))


@pytest.mark.usefixtures("copy")
def test_the_card_keeps_the_license_of_its_source(shop: Shop) -> None:
    record = export(shop.request("copy", "carded"))
    card = render_card(EXPORTERS["copy"], record, "---\nlicense: apache-2.0\n---\n\n# Medicine\n\nIt knows hearts.\n")
    assert card.startswith("---\nlicense: apache-2.0\n---\n")
    assert "It knows hearts." in card and "Copy it." in card and record.source.fingerprint in card
