"""The server in OpenAI's form, through the library's test client, on tiny models."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from minigpt.errors import ConfigError
from minigpt.serving.app import build_app
from minigpt.serving.engine import Engine, Interrupted
from minigpt.serving.line import Line
from minigpt.serving.run import short_names
from minigpt.serving.schema import NEUTRAL, RequestError
from minigpt.serving.settings import Settings, is_loopback
from tests.support.commands import model_folder, run
from tests.support.serving import CHAT, TEXT, client_of, engine_of, events, user


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return engine_of(folder)


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[TestClient]:
    with client_of(engine, max_tokens=64) as client:
        yield client


def greedy(folder: Path, ids: list[int], tokens: int) -> str:
    """What stock transformers gives."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    output = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, eos_token_id=[0, 2])
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))


def chat_ids(folder: Path, turns: list[dict[str, str]]) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


def test_a_completion_is_what_stock_transformers_gives_and_a_stream_joins_to_it(
    client: TestClient, folder: Path
) -> None:
    from transformers import AutoTokenizer

    ids = [1, *AutoTokenizer.from_pretrained(folder)("The heart", add_special_tokens=False)["input_ids"]]
    body = {"model": "tiny", "prompt": "The heart", "max_tokens": 12}
    answer = client.post(TEXT, json=body).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == greedy(folder, ids, 12)
    assert answer["usage"]["prompt_tokens"] == len(ids)
    assert answer["usage"]["total_tokens"] == len(ids) + answer["usage"]["completion_tokens"]
    response = client.post(TEXT, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, last = events(response.text)
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == answer["choices"][0]["text"]
    assert [piece["choices"][0]["finish_reason"] for piece in pieces][-1] == answer["choices"][0]["finish_reason"]
    assert last["choices"] == []
    assert last["usage"] == answer["usage"]


def test_token_ids_and_several_prompts_are_answered_in_order(client: TestClient, folder: Path) -> None:
    texts = [client.post(TEXT, json={"prompt": [1, 40 + n], "max_tokens": 5}).json()["choices"][0] for n in range(2)]
    assert texts[0]["text"] == greedy(folder, [1, 40], 5)
    both = client.post(TEXT, json={"prompt": [[1, 40], [1, 41]], "max_tokens": 5}).json()["choices"]
    assert [choice["text"] for choice in both] == [choice["text"] for choice in texts]
    assert [choice["index"] for choice in both] == [0, 1]
    stream = events(client.post(TEXT, json={"prompt": [[1, 40], [1, 41]], "max_tokens": 5, "stream": True}).text)
    pieces = [event["choices"][0] for event in stream]
    for number in range(2):
        assert "".join(p["text"] for p in pieces if p["index"] == number) == texts[number]["text"]


def test_a_chat_is_the_templates_text_answered(client: TestClient, folder: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, *user("A fever?")]
    answer = client.post(CHAT, json={"messages": turns, "max_completion_tokens": 10}).json()
    assert answer["object"] == "chat.completion"
    message = answer["choices"][0]["message"]
    assert message == {"role": "assistant", "content": greedy(folder, chat_ids(folder, turns), 10)}
    parts = [{"role": "developer", "content": [{"type": "text", "text": "Be short."}]}, *user("A fever?")]
    assert client.post(CHAT, json={"messages": parts, "max_tokens": 10}).json()["choices"] == answer["choices"]
    first, *rest = events(client.post(CHAT, json={"messages": turns, "max_tokens": 10, "stream": True}).text)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in rest) == message["content"]
    assert rest[-1]["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]


def test_sampling_repeats_by_seed_and_a_stop_string_ends_the_text(client: TestClient) -> None:
    body = {"prompt": "The", "max_tokens": 30, "temperature": 1.5, "seed": 3}
    one, two = (client.post(TEXT, json=body).json()["choices"][0]["text"] for _ in range(2))
    other = client.post(TEXT, json={**body, "seed": 4}).json()["choices"][0]["text"]
    assert one == two != other
    stop = one[len(one) // 2 : len(one) // 2 + 2]
    cut = client.post(TEXT, json={**body, "stop": [stop, "never there"]}).json()["choices"][0]
    assert cut["text"] == one[: one.index(stop)]
    assert cut["finish_reason"] == "stop"
    echo = client.post(TEXT, json={**body, "echo": True}).json()["choices"][0]
    assert echo["text"] == "The" + one


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (TEXT, {}, 400, "prompt"),
        (TEXT, {"prompt": ""}, 400, "prompt"),
        (TEXT, {"prompt": [1, 99999]}, 400, "prompt"),
        (TEXT, {"prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
        (TEXT, {"prompt": "x", "max_tokens": 65}, 400, "max_tokens"),
        (TEXT, {"prompt": "x", "max_tokens": "9"}, 400, "max_tokens"),
        (TEXT, {"prompt": "x", "temperature": -1}, 400, "temperature"),
        (TEXT, {"prompt": "x", "stop": list("abcde")}, 400, "stop"),
        (TEXT, {"prompt": [1, 2], "echo": True}, 400, "echo"),
        (TEXT, {"prompt": "heart " * 300}, 400, "prompt"),
        (TEXT, {"prompt": "x", "model": "gpt-4"}, 404, "model"),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, 400, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages"),
        (CHAT, {"messages": user("x"), "n": 2}, 400, "n"),
        (CHAT, {"messages": user("x"), "tools": [{"type": "function"}]}, 400, "tools"),
        (CHAT, [], 400, None),
        ("/v1/embeddings", {}, 404, None),
    ],
)
def test_a_bad_request_is_refused_in_openais_form(
    client: TestClient, path: str, body: Any, status: int, param: str | None
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["message"]


def test_values_that_ask_for_nothing_are_taken(client: TestClient) -> None:
    for name, values in NEUTRAL.items():
        for value in values:
            assert client.post(TEXT, json={"prompt": "x", "max_tokens": 1, name: value}).status_code == 200, name


def test_bodies_are_limited_and_must_be_json(engine: Engine) -> None:
    with client_of(engine, max_body=200) as client:
        assert client.post(TEXT, json={"prompt": "x" * 300}).status_code == 413
        assert client.post(TEXT, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        nested = b"[" * 150
        assert client.post(TEXT, content=nested, headers={"Content-Type": "application/json"}).status_code == 400
        plain = client.post(TEXT, content=b'{"prompt": "x"}', headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415, "a page of another site can send plain text without asking"
        assert "access-control-allow-origin" not in plain.headers


def test_a_key_is_needed_where_there_is_one(engine: Engine) -> None:
    with client_of(engine, host="0.0.0.0", api_key="s3cret") as client:
        assert client.get("/v1/models").status_code == 401
        for header in ("Bearer wrong", "Basic s3cret", "s3cret", "Bearer é"):
            refused = client.post(TEXT, json={"prompt": "x"}, headers={"Authorization": header.encode()})
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        good = client.post(TEXT, json={"prompt": "x", "max_tokens": 1}, headers={"Authorization": "Bearer s3cret"})
        assert good.status_code == 200
        assert "s3cret" not in client.get("/").text


def test_other_machines_are_let_in_only_with_a_key(engine: Engine, folder: Path) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "", "example.org", "10.0.0.1")] == [False] * 5
    with pytest.raises(ConfigError, match="--api-key"):
        build_app([engine], Settings(host="0.0.0.0"))
    result = run("serve", str(folder), "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "--api-key" in result.stderr


def test_a_name_of_another_site_is_refused_on_this_machine(engine: Engine) -> None:
    with client_of(engine, base_url="http://evil.example") as client:
        assert client.get("/v1/models").status_code == 400
    with client_of(engine, base_url="http://localhost:8000") as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
        assert client.get("/v1/models/tiny").json()["object"] == "model"
        assert client.get("/v1/models/other").status_code == 404


def test_the_page_runs_only_its_own_script_and_loads_nothing_from_elsewhere(folder: Path) -> None:
    strange = engine_of(folder, name="</script><b>")
    with client_of(engine_of(folder), strange) as client:
        response = client.get("/")
    page, policy = response.text, response.headers["content-security-policy"]
    assert "</script><b>" not in page
    assert "http://" not in page and "https://" not in page
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not re.search(r"\son\w+=|\sstyle=|innerHTML", page)


class Slow:
    """An engine that answers when it is let go, and counts how many run at once."""

    def __init__(self) -> None:
        self.go, self.running, self.most, self.stopped = threading.Event(), 0, 0, 0

    def answer(self, _job: Any, on_text: Any, is_gone: Any) -> Any:
        from minigpt.serving.engine import Answer

        self.running += 1
        self.most = max(self.most, self.running)
        on_text("a ")
        while not self.go.wait(0.01):
            if is_gone():
                self.running -= 1
                self.stopped += 1
                raise Interrupted
        self.running -= 1
        return Answer(text="a ", prompt_tokens=1, tokens=1, reason="stop")


def test_one_generation_runs_at_a_time_and_a_full_line_refuses() -> None:
    slow: Any = Slow()

    async def go() -> list[int]:
        line = Line(waiting=2)
        tickets = [line.enter(slow, [object()]) for _ in range(3)]  # type: ignore[list-item]
        with pytest.raises(RequestError) as refusal:
            line.enter(slow, [object()])  # type: ignore[list-item]
        assert refusal.value.status == 429
        slow.go.set()
        counts = [len([event async for event in ticket]) for ticket in tickets]
        line.enter(slow, [object()])  # type: ignore[list-item]
        line.close()
        return counts

    assert asyncio.run(go()) == [2, 2, 2]
    assert slow.most == 1


def test_work_that_nobody_waits_for_stops() -> None:
    slow: Any = Slow()

    async def go() -> None:
        line = Line(waiting=0)
        ticket = line.enter(slow, [object()])  # type: ignore[list-item]
        async for _event in ticket:
            break
        ticket.gone.set()
        started = time.perf_counter()
        while not slow.stopped and time.perf_counter() < started + 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        again = line.enter(slow, [object()])  # type: ignore[list-item]
        line.close()
        assert [event async for event in again if False] == []

    asyncio.run(go())
    assert slow.stopped == 2


def test_a_failure_of_the_model_ends_the_request_and_not_the_server(folder: Path) -> None:
    engine = engine_of(folder)
    original = engine.runtime.begin

    def fail(_tokens: Any) -> Any:
        raise RuntimeError("secret path")

    with client_of(engine) as client:
        engine.runtime.begin = fail  # type: ignore[method-assign]
        response = client.post(TEXT, json={"prompt": "x"})
        assert response.status_code == 500
        assert "secret" not in response.text
        streamed = client.post(TEXT, json={"prompt": "x", "stream": True}).text
        assert '"server_error"' in streamed and "secret" not in streamed
        engine.runtime.begin = original  # type: ignore[method-assign]
        assert client.post(TEXT, json={"prompt": "x", "max_tokens": 1}).status_code == 200


def test_a_model_without_a_template_continues_text_and_refuses_chats(folder: Path) -> None:
    engine = engine_of(folder)
    engine.runtime.tokenizer.chat_template = None
    with client_of(engine) as client:
        assert client.post(TEXT, json={"prompt": "x", "max_tokens": 1}).status_code == 200
        refused = client.post(CHAT, json={"messages": user("x")})
    assert refused.status_code == 400
    assert "no chat template" in refused.json()["error"]["message"]


def test_names_are_short_and_differ(tmp_path: Path) -> None:
    for name in ("a/runs/model", "b/runs"):
        (tmp_path / name).mkdir(parents=True)
    refs = [str(tmp_path / "a/runs/model"), str(tmp_path / "b/runs"), "parent", "org/name"]
    assert short_names(refs) == ["runs", "runs-2", "parent", "org/name"]
    for name in ("med", "med-2", "med-int4"):
        (tmp_path / name).mkdir()
    med, second, rounded = (str(tmp_path / name) for name in ("med", "med-2", "med-int4"))
    assert short_names([rounded, med]) == ["med-int4", "med"]
    assert short_names([second, med]) == ["med-2", "med"]
    assert short_names([second, med, med]) == ["med-2", "med", "med-3"]
    assert short_names([med, med, second, med]) == ["med", "med-2", "med-2-2", "med-3"]


def test_two_models_of_one_name_are_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="one name"):
        build_app([engine, engine], Settings())
