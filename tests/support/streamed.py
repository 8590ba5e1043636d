"""Models on disk for tests of streaming: the same folder is read whole and layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.pruning.waiting import PROCESSOR, Home
from minigpt.streaming.parent import StreamedParent
from tests.support.archsuite import EXPERTS, FAMILIES, model_of
from tests.support.tiny import tiny_tokenizer

# Families whose files hold experts one by one or under another name, and all families.
STORED_APART = tuple(name for name in EXPERTS if name != "gpt_oss")
STREAMED = tuple(FAMILIES)


def saved(folder: Path, family: str, *, shard: str | int = "50GB", **options: Any) -> Path:
    """Save a random model of a family in bf16, with its tokenizer."""
    model = model_of(family, **options).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shard)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def whole(folder: Path) -> Any:
    """Load a folder as a build does: all of it, in fp32."""
    return assets.load_model(folder, dtype=torch.float32)


def streamed(folder: Path, home: Home = PROCESSOR) -> StreamedParent:
    """Open a folder layer by layer; its text waits at `home`."""
    return StreamedParent(folder, dtype=torch.float32, home=home)
