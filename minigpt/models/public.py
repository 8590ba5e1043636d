"""Records and configs as others may see them: of a local path only its last part is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from minigpt.report.card import hub_id
from minigpt.results import BuildReport
from minigpt.runtimes import ExportRecord

# Settings of an export that name a domain or a model, as its user wrote it.
REFERENCES = ("calibration_domain", "parent")
# Ends of the names under which configs of transformers keep where a model or a file was.
PLACES = ("name_or_path", "_file")


def public(ref: str) -> str:
    """Return a reference as others may see it: of a local path only the last part."""
    is_public = hub_id(ref) is not None or ref.startswith("pypi:")
    return ref if is_public else Path(ref).name


def public_report(full: BuildReport) -> BuildReport:
    """Return a report without the texts that models generated, and without the path of a local parent."""
    stages = tuple(replace(stage, sample="", samples=()) for stage in full.stages)
    return replace(
        full,
        stages=stages,
        sample_prompt="",
        sample_prompts=(),
        exchanges=(),
        base_model=public(full.base_model),
    )


def public_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan without the path of a local parent."""
    parent = plan.get("base_model")
    return {**plan, **({"base_model": public(parent)} if isinstance(parent, str) else {})}


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the folders in which its model or its tokenizer lay, however deep they are named."""
    return {name: _without_folder(name, value) for name, value in config.items()}


def _without_folder(name: str, value: Any) -> Any:
    """Return a value of a config, of which a place keeps only its last part."""
    if isinstance(value, Mapping):
        return public_config(value)
    if isinstance(value, list):
        return [_without_folder(name, item) for item in value]
    is_place = name.endswith(PLACES) and isinstance(value, str) and Path(value).is_absolute()
    return Path(value).name if is_place else value


def public_record(record: ExportRecord, hashes: Mapping[str, str]) -> ExportRecord:
    """Return a record that names its source and its text without the folders above them.

    Args:
        record: the record of an export.
        hashes: SHA-256 by name of the files that are not sent as they lie on disk.
    """
    settings = {
        name: public(value) if isinstance(value, str) and (name in REFERENCES or Path(value).is_absolute()) else value
        for name, value in record.settings.items()
    }
    source = replace(record.source, ref=public(record.source.ref))
    return replace(record, source=source, settings=settings, files={**record.files, **hashes})
