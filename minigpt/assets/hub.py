"""Models from the Hugging Face Hub: only data files, at one commit, from the local cache if they are there.

The cache names every file by the hash that the Hub gave for it, so that a damaged one can be told without a record.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from minigpt import environment
from minigpt.assets.refs import HubRef
from minigpt.errors import AssetError, nearest
from minigpt.integrity import aside_note, set_aside, sha256_once
from minigpt.progress import SILENT, Reporter

# Files that are downloaded. No pickles and no code.
ALLOWED = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model")
# Files that are not downloaded although they have an allowed suffix.
IGNORED = ("*/*", "consolidated*.safetensors")


def snapshot(ref: HubRef, *, reporter: Reporter = SILENT) -> Path:
    """Download a Hub model, if it is not in the cache, and return its folder. Pickles and code are never downloaded.

    Args:
        ref: The model.
        reporter: Receives progress.

    Returns:
        The snapshot folder, whose name is the commit.

    Raises:
        AssetError: The model is not in the cache and there is no network, there is no such repository or revision, or
            access is not granted.
    """
    folder = _download(ref, reporter)
    if damaged := damaged_blobs(folder):
        for blob in damaged.values():
            reporter.note(aside_note(blob, "it does not have the hash of its name", set_aside(blob)))
        try:
            folder = _download(ref, reporter)
        except AssetError as error:
            raise AssetError(
                f"{ref.repo} is damaged in the local cache: {', '.join(damaged)}. Go online once to mend it."
            ) from error
    return folder


def damaged_blobs(folder: Path) -> dict[str, Path]:
    """Return the files of a snapshot in the cache whose content does not have the hash that names them.

    Large files are named by their SHA-256, small ones by git's hash of a blob. Copies, which systems without links
    have, are named by nothing and are not looked at.

    Returns:
        The file in the cache by its name in the model's folder.
    """
    links = {path.name: path.resolve() for path in sorted(folder.iterdir()) if path.is_symlink() and path.exists()}
    named = {name: blob for name, blob in links.items() if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name)}
    return {name: blob for name, blob in named.items() if not _is_whole(blob)}


def _is_whole(blob: Path) -> bool:
    """Return whether a file of the cache has the hash that names it."""
    if len(blob.name) == 64:
        return sha256_once(blob) == blob.name
    content = blob.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == blob.name


def _download(ref: HubRef, reporter: Reporter) -> Path:
    """Let the Hub's client complete a snapshot in its cache, and return its folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name = ref.repo + (f"@{ref.revision}" if ref.revision else "")
    try:
        with reporter.stage(f"Fetching {name} from the Hub"):
            folder = snapshot_download(
                ref.repo,
                revision=ref.revision,
                allow_patterns=list(ALLOWED),
                ignore_patterns=list(IGNORED),
                local_files_only=environment.offline(),
            )
    except GatedRepoError as error:
        raise AssetError(f"{name} is gated: accept its terms on the Hub, then log in with `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise AssetError(f"{ref.repo} has no revision {ref.revision!r} on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise AssetError(
            mistyped_path(ref.repo, "the Hub has no model of that name for you.")
            or f"The Hub has no model {ref.repo!r} for you. Check the spelling or log in."
        ) from error
    except Exception as error:  # the HTTP library's own errors differ between versions of the client
        raise AssetError(_unreachable(name, error)) from error
    return Path(folder)


def _unreachable(name: str, error: Exception) -> str:
    """Explain in one or two sentences why a model could not be downloaded."""
    if isinstance(error, OSError) and error.errno == 28:
        return f"The disk is full: cannot store {name}. Free space or set HF_HOME to another disk."
    return mistyped_path(name, "the Hugging Face Hub cannot be reached for a model of that name.") or (
        f"Cannot reach the Hugging Face Hub for {name}, and it is not in the local cache. Go online once, or use a "
        "local folder, a GGUF file or the packaged default base."
    )


def mistyped_path(name: str, hub: str) -> str | None:
    """Return a sentence about a name that reads like a path of this machine; None for other names.

    `runs/medcal` has the form of a Hub id, but where there is a folder `runs` a mistyped path is likelier.

    Args:
        name: The name.
        hub: The end of the sentence, on the Hub.
    """
    path = Path(name)
    if len(path.parts) < 2 or not path.parent.is_dir():
        return None
    near = nearest(path.name, [item.name for item in path.parent.iterdir()])
    hint = f" (did you mean {path.parent / near}?)" if near else ""
    return f"There is no folder {name}{hint}, and {hub}"
