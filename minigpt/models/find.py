"""What users may call a model or a report: a path, a catalog id, a domain, or any reference that assets know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigpt import assets, environment, report, runtimes
from minigpt.assets import Parent
from minigpt.assets.refs import HubRef, parse_ref
from minigpt.errors import AssetError, first_line
from minigpt.models import catalog
from minigpt.progress import SILENT, Reporter
from minigpt.runtimes import Runtime
from minigpt.types import BuildReport


def find_model(ref: str, *, reporter: Reporter = SILENT) -> Parent:
    """The model behind `ref`, as a plain Hugging Face folder.

    Args:
        ref: a model folder, a build folder, a catalog id, a domain (its latest catalog entry), a Hub id, a GGUF file
            or a packaged asset. A path that exists wins over a catalog id of the same name.
        reporter: told about downloads and conversions.

    Raises:
        AssetError: nothing of that name, a folder without a model, or an export, whose weights were written for one
            runtime.
    """
    if (folder := export_folder(ref)) is not None:
        record = runtimes.read_record(folder)
        raise AssetError(
            f"{ref} is an export ({record.format} {record.precision}) of {record.source.ref}, not a model that can be "
            f"converted; give {record.source.ref} instead."
        )
    if not Path(ref).expanduser().exists() and in_catalog(ref):
        ref = str(catalog.resolve(ref))
    return assets.parent(ref, reporter=reporter)


def export_folder(ref: str) -> Path | None:
    """The folder that `ref` names if `minigpt export` wrote it as a model, else None."""
    path = Path(ref).expanduser()
    return path if runtimes.is_export(path) else None


def open_model(ref: str, *, device: str, dtype: Any = None, reporter: Reporter = SILENT) -> Runtime:
    """The model behind `ref` in its runtime: an exported folder in the one it was made for, all else in PyTorch.

    Args:
        ref: whatever :func:`find_model` knows, or an exported folder.
        device: a torch device; runtimes for processors alone ignore it.
        dtype: what PyTorch computes in (None: fp32).
        reporter: told about downloads and conversions.

    Raises:
        AssetError: nothing of that name, or a runtime's package is missing.
    """
    folder = export_folder(ref)
    if folder is not None:
        return runtimes.load(folder, device=device)
    from minigpt.runtimes.pytorch import load as in_torch

    return in_torch(find_model(ref, reporter=reporter).path, device, dtype=dtype)


def find_config(ref: str, *, reporter: Reporter = SILENT) -> Any:
    """The Hugging Face config behind `ref`, a config.json included; weights are neither needed nor fetched from a Hub.

    Raises:
        AssetError: nothing of that name, or no config that stock transformers can read.
    """
    from transformers import AutoConfig

    path, options = Path(ref).expanduser(), dict[str, Any]()
    if not path.exists() and in_catalog(ref):
        path = Path(catalog.resolve(ref))
    source: str | Path
    if path.suffix == ".json" and path.is_file():
        source = path
    elif path.is_dir():
        source = path if (path / "config.json").exists() else path / "model"
        if not source.is_dir():
            raise AssetError(f"{ref} holds neither config.json nor a model folder; give a model, a build or a config.")
    elif isinstance(hub := parse_ref(ref), HubRef):
        source, options = hub.repo, {"revision": hub.revision}
    else:
        source = find_model(ref, reporter=reporter).path
    try:
        return AutoConfig.from_pretrained(source, local_files_only=environment.offline(), **options)
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(f"{ref} has no config that can be read here: {first_line(error)}") from None


def report_of(name: str) -> BuildReport:
    """The report of a build folder, a report.json, an export, a catalog id or a domain (its latest catalog entry)."""
    path = Path(name).expanduser()
    if runtimes.is_export(path):
        return runtimes.as_report(runtimes.read_record(path))
    return report.load(path if path.exists() or not in_catalog(name) else catalog.resolve(name))


def in_catalog(name: str) -> bool:
    """Whether the catalog knows `name` as an id or as a domain."""
    return any(name in (entry.id, entry.domain) for entry in catalog.entries())


def domain_of_build(ref: str) -> str | None:
    """The domain that a build folder or a catalog entry was built for; None for any other model."""
    path = Path(ref).expanduser()
    if path.exists():
        return report.load(path).domain if (path / "report.json").is_file() else None
    return report_of(ref).domain if in_catalog(ref) else None
