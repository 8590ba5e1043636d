"""Pushing to the Hub, against an object that stands for it: what goes, what stays, and who may see it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigpt import report
from minigpt.assets.rowless import TEMPLATES
from minigpt.errors import AssetError, ConfigError
from minigpt.exporting.common import copy_tokenizer
from minigpt.models.public import public_config
from minigpt.models.push import pack, push
from minigpt.report.card import write_card
from minigpt.runtimes import RECORD, ExportRecord, Quality, Source
from tests.support.commands import model_folder, run
from tests.support.reports import make_report, metric

SECRET = "the patient's secret"


class Hub:
    """Stands for `HfApi`, with its signatures, and keeps what it was sent."""

    def __init__(self, *, existing_public: bool = False) -> None:
        self.private, self.files = not existing_public, dict[str, bytes]()
        self.existing = existing_public
        self.commits = 0

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        assert exist_ok and repo_type == "model"
        if not self.existing:
            self.private = private
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        return SimpleNamespace(private=self.private)

    def create_commit(self, repo_id: str, operations: list[Any], *, commit_message: str, repo_type: str) -> None:
        self.commits += 1
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture
def build(tmp_path: Path) -> Path:
    from dataclasses import replace

    folder = tmp_path / "private place" / "build"
    model_folder(folder / "model")
    original = make_report()
    stages = tuple(replace(stage, sample=SECRET) for stage in original.stages)
    full = replace(original, stages=stages, sample_prompt=SECRET, base_model=str(tmp_path / "private place" / "base"))
    report.save(full, folder / "report.json")
    write_card(full, folder / "model")
    (folder / "plan.json").write_text(json.dumps({"base_model": full.base_model, "layers": [0, 1]}))
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "_name_or_path": full.base_model}))
    for name in ("domain.yaml", "recipe.yaml", "report.html", "build.json"):
        (folder / name).write_text(SECRET)
    (folder / "work" / "corpus").mkdir(parents=True)
    (folder / "work" / "corpus" / "train.jsonl").write_text(SECRET)
    (folder / "model" / "notes.txt").write_text(SECRET)
    return folder


@pytest.mark.parametrize("part", ["", "model"])
def test_a_build_goes_without_text_and_is_private(build: Path, part: str) -> None:
    hub = Hub()
    shipment = pack(str(build / part), "acme/medical")
    url = push(shipment, api=hub)
    assert url == "https://huggingface.co/acme/medical"
    assert hub.private and hub.commits == 1
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "report.json", "plan.json"} <= set(
        hub.files
    )
    for name, data in hub.files.items():
        assert SECRET.encode() not in data, name
        assert name.endswith(".safetensors") or str(build.parent.parent).encode() not in data, name
        assert b"private place" not in data, name
    assert json.loads(hub.files["plan.json"]) == {"base_model": "base", "layers": [0, 1]}
    config = json.loads((build / "model" / "config.json").read_text())
    assert json.loads(hub.files["config.json"]) == {**config, "_name_or_path": "base"}
    assert hub.files["model.safetensors"] == (build / "model" / "model.safetensors").read_bytes()
    sent = json.loads(hub.files["report.json"])
    full = json.loads((build / "report.json").read_text())
    assert [stage["metrics"] for stage in sent["stages"]] == [stage["metrics"] for stage in full["stages"]]
    assert {left.name for left in shipment.left_out} == {
        "notes.txt", "domain.yaml", "recipe.yaml", "report.html", "work/",
    }  # fmt: skip


def test_text_goes_when_the_user_wants_it_but_never_the_corpus(build: Path) -> None:
    hub = Hub()
    shipment = pack(str(build), "acme/medical", with_text=True, public=True)
    push(shipment, api=hub)
    assert not hub.private
    assert {"domain.yaml", "recipe.yaml", "report.html"} <= set(hub.files)
    assert SECRET in json.loads(hub.files["report.json"])["sample_prompt"]
    assert hub.files["plan.json"] == (build / "plan.json").read_bytes()
    assert not any("work" in name or name == "notes.txt" for name in hub.files)


def test_a_dry_run_lists_sizes_and_sends_nothing(build: Path) -> None:
    result = run("push", str(build), "acme/medical", "--dry-run", "--json")
    data = json.loads(result.stdout)
    assert data["url"] is None and data["public"] is False
    sizes = {file["name"]: file["bytes"] for file in data["files"]}
    assert sizes["model.safetensors"] == (build / "model" / "model.safetensors").stat().st_size
    assert data["bytes"] == sum(sizes.values())
    shown = run("push", str(build), "acme/medical", "--dry-run").stdout
    assert "work/" in shown and "never sent" in shown and "private" in shown


def test_a_public_repository_takes_nothing_that_was_meant_to_be_private(build: Path) -> None:
    hub = Hub(existing_public=True)
    with pytest.raises(ConfigError, match="--public"):
        push(pack(str(build), "acme/medical"), api=hub)
    assert hub.files == {}
    push(pack(str(build), "acme/medical", public=True), api=hub)
    assert hub.commits == 1


@pytest.mark.parametrize("name", ["medical", "a/b/c", "acme/me dical", "acme/", "-acme/x", ""])
def test_a_name_that_is_no_repository_is_refused(build: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="org/name"):
        pack(str(build), name)


def test_failures_of_the_hub_end_in_a_sentence(build: Path) -> None:
    hub = Hub()

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError("no route\nto host")

    hub.create_commit = refuse  # type: ignore[method-assign]
    with pytest.raises(AssetError, match=r"not pushed \(no route\)"):
        push(pack(str(build), "acme/medical"), api=hub)
    offline = run("push", str(build), "acme/medical")
    assert offline.exit_code == 1
    assert "HF_HUB_OFFLINE" in offline.stderr
    assert run("push", "nowhere", "acme/medical").exit_code == 1


def test_an_export_goes_as_its_record_says_without_the_path_of_its_source(tmp_path: Path) -> None:
    from minigpt.files import file_sha256, write_json

    folder, source = tmp_path / "export", str(tmp_path / "private place" / "model")
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"weights")
    (folder / "tokenizer_config.json").write_text(json.dumps({"name_or_path": source, "pad_token": "/"}))
    (folder / "README.md").write_text(f"An export of {source}.\n\n# The model it was made from\n\n{SECRET}")
    quality = (metric("medical", "bits_per_byte", 0.9),)
    record = ExportRecord(
        format="gguf",
        precision="fp16",
        source=Source(
            ref=source, fingerprint="f", precision="bf16", parameters=1, bytes=2,
            shape=make_report().shape_after,
        ),
        bytes=7,
        bytes_per_token=7,
        settings={
            "rounding": "compensated", "calibration_domain": str(tmp_path / "private place" / "mixed.yaml"),
            "opening": "</s>", "tokens": 3,
        },
        versions={},
        files={name: file_sha256(folder / name) for name in ("model.gguf", "README.md", "tokenizer_config.json")},
        quality=Quality(domain="medical", fingerprint="f", source=quality, exported=quality),
    )  # fmt: skip
    write_json(folder / RECORD, record)
    (folder / "stray.txt").write_text(SECRET)
    hub = Hub()
    shipment = pack(str(folder), "acme/medical-gguf")
    push(shipment, api=hub)
    assert set(hub.files) == {"model.gguf", "README.md", "tokenizer_config.json", RECORD}
    assert json.loads(hub.files[RECORD])["settings"] == {**record.settings, "calibration_domain": "mixed.yaml"}
    assert json.loads(hub.files["tokenizer_config.json"]) == {"name_or_path": "model", "pad_token": "/"}
    assert [left.name for left in shipment.left_out] == ["stray.txt"]
    assert not any(str(tmp_path).encode() in data for data in hub.files.values())
    assert not any(b"private place" in data or SECRET.encode() in data for data in hub.files.values())
    for name, data in hub.files.items():
        (folder / name).write_bytes(data)
    pack(str(folder), "acme/medical-gguf")  # the hashes in the record that was sent are those of the files that were
    (folder / "model.gguf").write_bytes(b"damaged")
    with pytest.raises(AssetError, match=r"model\.gguf"):
        pack(str(folder), "acme/medical-gguf")


def test_all_chat_templates_go(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "plain")
    (folder / TEMPLATES).mkdir()
    (folder / TEMPLATES / "tool_use.jinja").write_text("{{ tools }}")
    assert f"{TEMPLATES}/tool_use.jinja" in {file.name for file in pack(str(folder), "acme/plain").files}
    copy_tokenizer(folder, tmp_path)
    assert (tmp_path / TEMPLATES / "tool_use.jinja").read_text() == "{{ tools }}"


def test_a_plain_folder_goes_without_its_card_which_may_have_samples(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "plain")
    (folder / "README.md").write_text(SECRET)
    names = {file.name for file in pack(str(folder), "acme/plain").files}
    assert names == {path.name for path in folder.iterdir()} - {"README.md"}
    assert "README.md" in {file.name for file in pack(str(folder), "acme/plain", with_text=True).files}


def test_a_folder_that_a_config_names_deep_inside_goes_nowhere() -> None:
    config = {
        "text_config": {"_name_or_path": "/home/u/secret/x", "layers": 2},
        "parts": [{"a_file": "/home/u/b.json"}],
    }
    assert public_config(config) == {
        "text_config": {"_name_or_path": "x", "layers": 2},
        "parts": [{"a_file": "b.json"}],
    }
