"""Models from the Hugging Face Hub: only data files, at one commit, from the local cache if they are there."""

from __future__ import annotations

from pathlib import Path

from minigpt import environment
from minigpt.assets.refs import HubRef
from minigpt.errors import AssetError
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
        raise AssetError(f"The Hub has no model {ref.repo!r} for you. Check the spelling or log in.") from error
    except Exception as error:  # the HTTP library's own errors differ between versions of the client
        raise AssetError(_unreachable(name, error)) from error
    return Path(folder)


def _unreachable(name: str, error: Exception) -> str:
    """Explain in one or two sentences why a model could not be downloaded."""
    if isinstance(error, OSError) and error.errno == 28:
        return f"The disk is full: cannot store {name}. Free space or set HF_HOME to another disk."
    return (
        f"Cannot reach the Hugging Face Hub for {name}, and it is not in the local cache. Go online once, or use a "
        "local folder, a GGUF file or the packaged default base."
    )
