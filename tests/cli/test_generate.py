"""`minigpt generate`: what is streamed is what stock classes give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import model_folder, run

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize("extra", [[], ["--chat"], ["--temperature", "0.9", "--seed", "3"]])
def test_generate_streams_what_json_returns(model: Path, extra: list[str]) -> None:
    arguments = ["generate", str(model), "--prompt", "The heart", "--max-new-tokens", "12", "--device", "cpu", *extra]
    streamed = run(*arguments, "-q")
    data = json.loads(run(*arguments, "--json").stdout)
    assert streamed.exit_code == 0, streamed.output
    assert streamed.stdout_bytes.decode() == ("" if extra == ["--chat"] else "The heart") + data["text"] + "\n"
    assert streamed.stderr == ""
    assert 0 < data["tokens"] <= 12


def test_generate_agrees_with_transformers(model: Path) -> None:
    """Greedy text equals what stock classes give from prefix and prompt: nothing is lost while streaming."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = torch.tensor([[prefix, *tokenizer("A fever", add_special_tokens=False)["input_ids"]]])
    output = network.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
    result = run("generate", str(model), "--prompt", "-", "--json", "--max-new-tokens", "10", input="A fever")
    assert json.loads(result.stdout)["text"] == tokenizer.decode(output, skip_special_tokens=True)


def test_a_prompt_is_encoded_as_training_text_is_and_never_prefixed_twice(model: Path) -> None:
    from minigpt.assets import load_tokenizer
    from minigpt.models import generate
    from minigpt.transformer.packing import tokenize
    from minigpt.types import Document

    tokenizer = load_tokenizer(model)
    (expected,) = tokenize(tokenizer, [Document(text="A fever", source="a")], window=64)
    encoded = generate.encode_prompt(tokenizer, "A fever", chat=False)
    assert encoded["input_ids"].tolist() == [expected]
    assert encoded["attention_mask"].tolist() == [[1] * len(expected)]
    written = generate.encode_prompt(tokenizer, tokenizer.convert_ids_to_tokens(expected[0]) + "A fever", chat=False)
    assert written["input_ids"].tolist() == [expected]


def test_generate_reads_the_model_of_a_build_folder(model: Path, home: Path) -> None:
    build = home / "build"
    build.mkdir()
    (build / "model").symlink_to(model)
    assert run("generate", str(build), "--prompt", "x", "--max-new-tokens", "2").exit_code == 0


def test_the_text_may_stand_behind_the_model_and_is_needed_once(model: Path) -> None:
    named = run("generate", str(model), "--prompt", "A fever", "--max-new-tokens", "2", "--json")
    behind = run("generate", str(model), "A fever", "--max-new-tokens", "2", "--json")
    assert behind.exit_code == 0
    assert json.loads(behind.stdout)["text"] == json.loads(named.stdout)["text"]
    assert run("generate", str(model)).exit_code == 2
    assert run("generate", str(model), "A fever", "--prompt", "A fever").exit_code == 2


def test_a_text_that_the_window_cuts_is_noted(model: Path) -> None:
    arguments = ("generate", str(model), "The heart", "--max-new-tokens", "300", "--device", "cpu")
    text, data = run(*arguments), json.loads(run(*arguments, "--json").stdout)
    assert data["cut"] in (None, 256)
    assert ("window of 256 tokens" in text.stderr) is (data["cut"] == 256)
    long = run("generate", str(model), "The heart pumps blood. " * 200)
    assert long.exit_code == 1 and "reads at most 256; shorten it." in long.stderr


def test_a_question_to_a_model_without_template_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    refused = run("generate", str(folder), "The heart", "--chat", "--device", "cpu")
    assert refused.exit_code == 1 and refused.stdout == ""
    assert "no chat template" in refused.stderr and "Leave --chat out" in refused.stderr


@pytest.mark.parametrize("command", [("generate",), ("generate", "--chat"), ("generate", "-"), ("chat",)])
def test_bytes_that_are_no_text_are_refused(model: Path, command: tuple[str, ...]) -> None:
    piped = command in (("chat",), ("generate", "-"))
    prompt = () if piped else ("--prompt", "half \udcff")
    lines = {"input": b"half \xff\n"} if piped else {}
    refused = run(command[0], str(model), *command[1:], *prompt, "--device", "cpu", **lines)
    assert refused.exit_code == 1 and refused.stdout == ""
    assert "no UTF-8" in refused.stderr and "defect" not in refused.stderr
