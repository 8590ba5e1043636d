"""A finished model on its way to the Hub: the list of what would go, and the upload."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt import environment, report, runtimes
from minigpt.assets.parents import is_conditional, model_folder
from minigpt.assets.rowless import TEMPLATES
from minigpt.errors import AssetError, ConfigError, first_line
from minigpt.files import dumps, read_json
from minigpt.models.find import place_of
from minigpt.models.public import public, public_config, public_plan, public_record, public_report
from minigpt.report.card import render_card
from minigpt.runtimes import RECORD
from minigpt.runtimes.record import changed_file
from minigpt.tickets.delta_places import ticket_folder

# Names of the files of a plain model folder that go to the Hub.
MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "README.md",
)  # fmt: skip
# Those of them that may say where the model or its tokenizer was when it was saved.
CONFIGS = ("config.json", "tokenizer_config.json")
# Files of a build that may hold the user's text, questions or paths, and go only if the user wants it.
TEXT_FILES = ("domain.yaml", "recipe.yaml", "report.html")
NO_TEXT = "may hold your text or paths; --with-text sends it"
SOURCE_CARD = "\n\n# The model it was made from\n"
NO_PATHS = "without local paths"
UNKNOWN = "not a file of a model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that goes to the Hub, of `size` bytes.

    `content` is its path, or what it holds where that is not what the disk has.
    """

    name: str
    size: int
    content: Path | bytes
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that stays, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """Everything that a push would send, and what it would leave."""

    repo: str
    public: bool
    files: tuple[Upload, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def pack(ref: str, repo: str, *, public: bool = False, with_text: bool = False) -> Shipment:
    """List what of a model goes to the Hub, without sending anything.

    The folder of stages (`work`) never goes. Report and card go without the texts that models generated, and without
    local paths, unless `with_text` is set.

    Args:
        ref: a build folder, a model folder, an export folder, a catalog id or a domain (its latest catalog entry).
        repo: the repository, `org/name`.
        public: whether everybody may see it.
        with_text: whether samples, recipe, domain file and page go too.

    Raises:
        AssetError: there is no such model, or it is damaged.
        ConfigError: the repository's name is none, or the model cannot be pushed.
    """
    check_repo(repo)
    folder = place_of(ref)
    if folder.name == "model" and (folder.parent / "report.json").is_file():
        folder = folder.parent  # the card in the model's folder is that of the build
    if not folder.is_dir():
        raise AssetError(f"{ref} is neither a folder nor in the catalog; `minigpt catalog list` shows what is.")
    if runtimes.is_export(folder):
        files, left = _export_files(folder, with_text)
    else:
        files, left = _model_files(folder, with_text)
    return Shipment(repo=repo, public=public, files=tuple(files), left_out=tuple(left))


def push(shipment: Shipment, *, api: Any = None) -> str:
    """Send a shipment in one commit, and return the address of the repository.

    Args:
        shipment: the files.
        api: an object like `huggingface_hub.HfApi` (None: that).

    Raises:
        ConfigError: the repository is public and the shipment is not.
        AssetError: the Hub cannot be reached or refuses.
    """
    if api is None and environment.offline():
        raise AssetError("HF_HUB_OFFLINE is set, so nothing can be sent. Unset it, or look with --dry-run.")
    from huggingface_hub import CommitOperationAdd, HfApi

    api = api or HfApi()
    try:
        url = str(api.create_repo(shipment.repo, repo_type="model", private=not shipment.public, exist_ok=True))
        # An existing repository keeps its visibility, whatever was said above.
        if not shipment.public and not api.repo_info(shipment.repo, repo_type="model").private:
            raise ConfigError(f"{shipment.repo} exists and is public. Give --public, or another name.")
        operations = [
            CommitOperationAdd(
                path_in_repo=file.name,
                path_or_fileobj=file.content if isinstance(file.content, bytes) else str(file.content),
            )
            for file in shipment.files
        ]
        api.create_commit(shipment.repo, operations, commit_message="Upload by minigpt", repo_type="model")
    except ConfigError:
        raise
    except Exception as error:  # the Hub's client has errors of many kinds, also for files and for the network
        raise AssetError(
            f"{shipment.repo} was not pushed ({first_line(error)}). Check the network, the name and `hf auth login`."
        ) from error
    return url


def check_repo(repo: str) -> None:
    """Refuse a name that the Hub would refuse.

    Raises:
        ConfigError: the name is not `org/name`.
    """
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        if repo.count("/") != 1:
            raise ValueError
        validate_repo_id(repo)
    except ValueError:
        raise ConfigError(f"{repo!r} is no name of a repository; give org/name, as in acme/medical-100m.") from None


def _model_files(folder: Path, with_text: bool) -> tuple[list[Upload], list[LeftOut]]:
    """List the files of a build, or of a plain model folder."""
    if ticket_folder(folder) is not None:
        raise ConfigError(f"{folder} is a delta ticket, which stock transformers cannot load; push a dense build.")
    model = model_folder(folder)
    if is_conditional(model):
        raise ConfigError(
            f"{model} has conditional layers, which stock transformers cannot load; push the dense model."
        )
    files, left = list[Upload](), list[LeftOut]()
    is_build = model != folder and (folder / "report.json").is_file()
    for path in sorted(path for path in model.iterdir() if path.is_file()):
        if path.name == "README.md" and not (is_build or with_text):
            left.append(LeftOut(name=path.name, reason=NO_TEXT))
        elif any(fnmatch.fnmatch(path.name, pattern) for pattern in MODEL_FILES):
            files.append(_model_file(path, path.name))
        else:
            left.append(LeftOut(name=path.name, reason=UNKNOWN))
    files += [_whole(path, f"{TEMPLATES}/{path.name}") for path in sorted((model / TEMPLATES).glob("*.jinja"))]
    if is_build:
        _add_records(folder, files, left, with_text)
    return files, left


def _add_records(folder: Path, files: list[Upload], left: list[LeftOut], with_text: bool) -> None:
    """Add the report, the plan and, if wanted, what may hold text; put a card without texts in place of the build's."""
    full = report.load(folder)
    if with_text:
        files.append(_whole(folder / "report.json", "report.json"))
    else:
        bare = public_report(full)
        note = "without samples and local paths"
        card = _written("README.md", render_card(bare), note=note)
        files[:] = [card if file.name == card.name else file for file in files]
        files.append(_written("report.json", dumps(bare), note=note))
    if (folder / "plan.json").is_file():
        files.append(_whole(folder / "plan.json", "plan.json") if with_text else _plan(folder / "plan.json"))
    for name in TEXT_FILES:
        if (folder / name).is_file():
            if with_text:
                files.append(_whole(folder / name, name))
            else:
                left.append(LeftOut(name=name, reason=NO_TEXT))
    if (folder / "work").is_dir():
        left.append(LeftOut(name="work/", reason="stages of the build, with the text; never sent"))


def _export_files(folder: Path, with_text: bool) -> tuple[list[Upload], list[LeftOut]]:
    """List the files of an export: those in its record, and the record without a local path."""
    record = runtimes.read_record(folder)
    if record.quality is None:
        raise ConfigError(f"{folder} is an export in {record.format}, which is no model of its own; push the model.")
    if (changed := changed_file(folder, record)) is not None:
        raise AssetError(f"{folder / changed} is not the file that was exported. Export again.")
    files = [_model_file(folder / name, name) for name in sorted(record.files)]
    card = folder / "README.md"
    text = card.read_text("utf-8").replace(record.source.ref, public(record.source.ref)) if card.is_file() else ""
    if not with_text:
        # The card of the source, which is appended whole, has samples.
        text = text.partition(SOURCE_CARD)[0]
    files = [_written(card.name, text, note=NO_PATHS) if file.name == card.name else file for file in files]
    hashes = {file.name: _sha256(file.content) for file in files if isinstance(file.content, bytes)}
    files.append(_written(RECORD, dumps(public_record(record, hashes)), note=NO_PATHS))
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unknown = sorted(present - {file.name for file in files})
    return files, [LeftOut(name=name, reason="not in the record of the export") for name in unknown]


def _model_file(path: Path, name: str) -> Upload:
    """Send a file of a model, a config without the folders that it names."""
    if name not in CONFIGS:
        return _whole(path, name)
    config = read_json(path, dict[str, Any])
    bare = public_config(config)
    return _whole(path, name) if bare == config else _written(name, dumps(bare), note=NO_PATHS)


def _plan(path: Path) -> Upload:
    """Send a plan without the path of a local parent."""
    plan = read_json(path, dict[str, Any])
    bare = public_plan(plan)
    return _whole(path, path.name) if bare == plan else _written(path.name, dumps(bare), note=NO_PATHS)


def _sha256(data: bytes) -> str:
    """Return the SHA-256 of a text that is sent."""
    return hashlib.sha256(data).hexdigest()


def _whole(path: Path, name: str) -> Upload:
    """Send a file as it is."""
    return Upload(name=name, size=path.stat().st_size, content=path)


def _written(name: str, text: str, *, note: str) -> Upload:
    """Send a text instead of a file."""
    return Upload(name=name, size=len(text.encode()), content=text.encode(), note=note)
