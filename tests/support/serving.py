"""Tiny models behind the server's test client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from minigpt.serving.app import build_app
from minigpt.serving.engine import Engine, open_engine
from minigpt.serving.settings import Settings

LOCAL = "http://127.0.0.1"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def engine_of(folder: Path, name: str = "tiny") -> Engine:
    return open_engine(str(folder), name=name, device="cpu")


@contextmanager
def client_of(*engines: Engine, base_url: str = LOCAL, **settings: Any) -> Iterator[TestClient]:
    with TestClient(
        build_app(engines, Settings(**settings)), base_url=base_url, raise_server_exceptions=False
    ) as client:
        yield client


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def events(text: str) -> list[dict[str, Any]]:
    """The JSON data of a stream of server-sent events, which must end as OpenAI's does."""
    blocks = text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""], blocks[-2:]
    assert all(block.startswith("data: ") for block in blocks[:-1])
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
