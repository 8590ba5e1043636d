"""Requests that are no text, and optional fields that are null."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.commands import model_folder
from tests.support.serving import CHAT, TEXT, client_of, engine_of, events, user


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(engine_of(folder), max_tokens=64) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (TEXT, {"prompt": "\ud800"}, "prompt"),
        (TEXT, {"prompt": ["whole", "half \udfff"]}, "prompt"),
        (TEXT, {"prompt": "x", "stop": ["\ud800"]}, "stop"),
        (TEXT, {"prompt": "x", "model": "\ud800"}, "model"),
        (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
    ],
)
def test_half_a_character_is_refused(client: TestClient, path: str, body: dict[str, Any], param: str) -> None:
    response = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param and "surrogate" in response.json()["error"]["message"]
    pair = json.dumps({"prompt": "\U0001f642", "max_tokens": 1})
    assert "\\ud83d\\ude42" in pair
    assert client.post(TEXT, content=pair, headers={"Content-Type": "application/json"}).status_code == 200


def test_a_template_that_fails_does_not_name_options_of_the_command_line(folder: Path) -> None:
    engine = engine_of(folder)
    engine.runtime.tokenizer.chat_template = "{{ raise_exception('Turns must take turns.') }}"
    with client_of(engine) as client:
        refused = client.post(CHAT, json={"messages": user("x")})
    assert refused.status_code == 400
    assert "Turns must take turns" in refused.json()["error"]["message"]
    assert "--chat" not in refused.json()["error"]["message"] and TEXT in refused.json()["error"]["message"]


def test_optional_fields_may_be_null(client: TestClient) -> None:
    plain = {"prompt": "x", "max_tokens": 2}
    nulls = {**plain, "stream": None, "echo": None, "stream_options": None, "stop": None, "model": None, "seed": None}
    assert client.post(TEXT, json=nulls).json()["choices"] == client.post(TEXT, json=plain).json()["choices"]
    streamed = client.post(TEXT, json={**plain, "stream": True, "stream_options": {"include_usage": None}})
    assert all("usage" not in event for event in events(streamed.text))
