"""Lookup of models and reports by path, catalog id, domain, or any reference that `minigpt.assets` knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigpt import assets, environment, report, runtimes
from minigpt.assets import Parent
from minigpt.assets.parents import CONDITIONAL_RECORD, is_conditional
from minigpt.assets.refs import HubRef, parse_ref
from minigpt.domain.config import domain_names
from minigpt.errors import AssetError, UnknownName, first_line
from minigpt.files import path_of
from minigpt.integrity import check_file
from minigpt.models import catalog
from minigpt.progress import SILENT, Reporter
from minigpt.results import BuildReport
from minigpt.runtimes import Runtime
from minigpt.tickets.delta_places import FOLDER, WEIGHTS, ticket_folder

# Files and folders that make a folder a model, a build, an export or a ticket.
PRODUCTS = ("config.json", "model", "report.json", runtimes.RECORD, CONDITIONAL_RECORD, FOLDER, WEIGHTS)

# Folders of a build that are models of their own.
PARTS = ("model", "conditional", FOLDER)


def find_model(ref: str, *, reporter: Reporter = SILENT) -> Parent:
    """Find the model behind a reference, as a plain Hugging Face folder; a delta ticket becomes a model first.

    Args:
        ref: A model folder, a build folder, a delta ticket's folder, a catalog id, a domain (its latest catalog
            entry), a Hub id, a GGUF file or a packaged asset. A path that exists is preferred to a catalog id of the
            same name.
        reporter: Receives the progress of downloads and conversions.

    Raises:
        AssetError: There is nothing of that name, the folder holds no model, or it is an export, whose weights were
            written for one runtime.
    """
    if (folder := export_folder(ref)) is not None:
        record = runtimes.read_record(folder)
        raise AssetError(
            f"{ref} is an export ({record.format} {record.precision}) of {record.source.ref}, not a model that can be "
            f"converted; give {record.source.ref} instead."
        )
    if (place := place_of(ref)) != path_of(ref):
        ref = str(place)
    elif not place.exists() and is_bare(ref) and ref in domain_names():
        raise AssetError(
            f"No model of the domain {ref} is in the catalog yet: `minigpt build --domain {ref}` makes one."
        )
    if (ticket := ticket_folder(path_of(ref))) is not None:
        from minigpt.tickets.delta_store import materialize

        return materialize(ticket, reporter=reporter)
    return assets.parent(ref, reporter=reporter)


def export_folder(ref: str) -> Path | None:
    """Return the folder that `ref` names if `minigpt export` wrote a model there, else None."""
    path = path_of(ref)
    return path if runtimes.is_export(path) else None


def open_model(ref: str, *, device: str, dtype: Any = None, reporter: Reporter = SILENT) -> Runtime:
    """Open the model behind a reference in its runtime.

    An export folder opens in the runtime that it was made for, any other model in PyTorch.

    Args:
        ref: Anything that :func:`find_model` knows, or an export folder.
        device: A torch device; runtimes that know only processors ignore it.
        dtype: Type in which PyTorch computes (None: fp32).
        reporter: Receives the progress of downloads and conversions.

    Raises:
        AssetError: There is nothing of that name, or the package of the runtime is missing.
    """
    folder = export_folder(ref)
    if folder is not None:
        return runtimes.load(folder, device=device)
    from minigpt.runtimes.pytorch import load as load_in_torch

    return load_in_torch(find_model(ref, reporter=reporter).path, device, dtype=dtype)


def find_config(ref: str, *, reporter: Reporter = SILENT) -> Any:
    """Read the Hugging Face config behind a reference; weights are neither needed nor fetched from the Hub.

    Args:
        ref: Anything that :func:`find_model` knows, or a config.json.
        reporter: Receives the progress of downloads and conversions.

    Raises:
        AssetError: There is nothing of that name, or no config that stock transformers can read.
    """
    path, options = place_of(ref), dict[str, Any]()
    source: str | Path
    if path.suffix == ".json" and path.is_file():
        source = path
    elif ticket_folder(path) is not None:
        source = find_model(str(path), reporter=reporter).path
    elif path.is_dir():
        source = path if (path / "config.json").exists() else path / "model"
        if not source.is_dir():
            raise AssetError(f"{ref} holds neither config.json nor a model folder; give a model, a build or a config.")
    elif isinstance(hub := parse_ref(ref), HubRef):
        source, options = hub.repo, {"revision": hub.revision}
    else:
        source = find_model(ref, reporter=reporter).path
    if isinstance(source, Path):
        check_file(source / "config.json" if source.is_dir() else source)
    return _stock_config(ref, source, options)


def _stock_config(ref: str, source: str | Path, options: dict[str, Any]) -> Any:
    """Read a config into the class that transformers has for its type; code that a config names is never run."""
    from transformers import CONFIG_MAPPING, PretrainedConfig

    reader: Any = PretrainedConfig
    try:
        values, _ = reader.get_config_dict(source, local_files_only=environment.offline(), **options)
        kind = values.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            raise AssetError(
                f"{ref}: transformers has no model of type {kind!r}. Code in a model folder is never run; choose a "
                "model of a built-in architecture or update transformers."
            )
        return CONFIG_MAPPING[kind].from_dict(values)
    except AssetError:
        raise
    except Exception as error:  # odd values end in exceptions of every kind
        raise _no_config(ref, source, error) from None


def _no_config(ref: str, source: str | Path, error: Exception) -> AssetError:
    """Say why a config cannot be read; the Hub's own words are for other programs."""
    if isinstance(source, Path) or not isinstance(error, OSError):
        return AssetError(f"{ref} has no config that can be read here: {first_line(error)}.")
    return AssetError(
        f"The config of {ref} is not in the local cache, and the Hugging Face Hub cannot be reached or has no such "
        "model. Check the name, go online once, or use a local folder."
    )


def find_report(name: str) -> BuildReport:
    """Load the report behind a name.

    Args:
        name: A build folder, a report.json, an export folder, `conditional` in a build folder, a catalog id or
            a domain (its latest catalog entry). A path that exists is preferred to a catalog id of the same name.

    Returns:
        The report of a build; for an export, its record as a report with the source as the parent.

    Raises:
        MiniGPTError: There is no report of that name, or it cannot be read.
    """
    path = place_of(name)
    if runtimes.is_export(path):
        return runtimes.as_report(runtimes.read_record(path))
    if is_conditional(path):
        return report.of_conditional(report.load(path.resolve().parent))
    if not path.exists() and is_bare(name):
        known = {known for entry in catalog.entries() for known in (entry.id, entry.domain)}
        raise UnknownName("build or catalog entry", name, known)
    return report.load(path)


def in_catalog(name: str) -> bool:
    """Check whether the catalog knows `name` as an id or as a domain."""
    return any(name in (entry.id, entry.domain) for entry in catalog.entries())


def is_bare(name: str) -> bool:
    """Return whether a name could be one of the catalog's: not a path of several parts, and no file's name."""
    return not path_of(name).suffix and len(path_of(name).parts) == 1


def place_of(name: str) -> Path:
    """Return the path that a name stands for: itself, or the build folder of a catalog id or domain.

    A path that exists is preferred, unless it is a folder in which minigpt has nothing to read: a folder of texts that
    is called like the domain made from it does not hide the domain's build.
    """
    path = path_of(name)
    if path.is_file() or any((path / product).exists() for product in PRODUCTS) or not in_catalog(name):
        return path
    return catalog.resolve(name)


def build_folder(ref: str) -> Path | None:
    """Find the folder of the build that a reference leads to, also by the build's model, ticket or conditional form.

    Args:
        ref: A build folder or such a part of one, a catalog id or a domain; any other reference is allowed too.
    """
    path = place_of(ref).absolute()
    places = (path, path.parent) if path.name in PARTS else (path,)
    return next((place for place in places if (place / "report.json").is_file()), None)


def domain_of_build(ref: str) -> str | None:
    """Find the domain that a model was built for, in the form that `--domain` takes.

    Args:
        ref: A build folder, a catalog id or a domain; any other reference is allowed too.

    Returns:
        The build's folder, whose `domain.yaml` says what it read, also where nobody else knows that domain; the
        domain's name where the folder has no such file; None where the reference is neither a build nor in the catalog.

    Raises:
        MiniGPTError: The report of the build cannot be read.
    """
    path = build_folder(ref)
    if path is None:
        return None
    return str(path) if (path / "domain.yaml").is_file() else report.load(path).domain


def domain_file(ref: str) -> str | None:
    """Find the domain file that a build left: the text on which the model behind a reference was measured.

    Args:
        ref: A build folder, a catalog id or a domain; any other reference is allowed too.

    Returns:
        Path of the file, or None where the reference is no build.
    """
    path = (build_folder(ref) or place_of(ref)) / "domain.yaml"
    return str(path) if path.is_file() else None
