"""Whatever a model runs in, it is measured, sampled from and timed by the same code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minigpt import runtimes
from minigpt.errors import AssetError, ConfigError, MiniGPTError
from minigpt.evaluation import Suite, evaluate
from minigpt.files import atomic_path
from minigpt.machine import processor_name
from minigpt.models import bench, generate
from minigpt.runtimes import base, llama_worker
from minigpt.runtimes.base import ExportRuntime
from minigpt.runtimes.pytorch import TorchRuntime
from minigpt.runtimes.scoring import ScoringModel, scoring_model
from minigpt.types import Document, Question, QuestionSet
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_model("qwen3").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def runtime(folder: Path) -> TorchRuntime:
    loaded = runtimes.load(folder)
    assert isinstance(loaded, TorchRuntime) and isinstance(loaded, runtimes.Runtime)
    return loaded


def test_measuring_through_a_runtime_gives_the_same_numbers(runtime: TorchRuntime) -> None:
    documents = tuple(Document(text=text, source=text) for text in SENTENCES)
    choices = ("the heart", "a court", "rest")
    questions = tuple(Question(question=text[:20], choices=choices, answer=1) for text in SENTENCES[:4])
    suite = Suite(texts={"d": documents}, questions={"d/q": QuestionSet(name="q", questions=questions)})
    direct = evaluate(runtime.model, runtime.tokenizer, suite, window=24, batch_tokens=100)
    wrapped = evaluate(ScoringModel(runtime), runtime.tokenizer, suite, window=24, batch_tokens=100)
    np.testing.assert_allclose(wrapped.texts["d"].bits, direct.texts["d"].bits, rtol=1e-5)
    assert wrapped.questions == direct.questions
    assert scoring_model(runtime) is runtime.model


class Hidden:
    """A runtime that does not let on that it is PyTorch."""

    name = "hidden"

    def __init__(self, runtime: TorchRuntime) -> None:
        self._runtime = runtime
        self.tokenizer, self.config = runtime.tokenizer, runtime.config
        self.parameters, self.bytes = runtime.parameters, runtime.bytes
        self.logits, self.begin, self.step = runtime.logits, runtime.begin, runtime.step


def text_of(model: Any, tokenizer: Any, **sampling: Any) -> tuple[str, int]:
    pieces: list[str] = []
    settings = generate.Sampling(**{"max_new_tokens": 24, **sampling})
    generated = generate.generate(
        model, tokenizer, "The heart pumps", sampling=settings, chat=False, on_text=pieces.append
    )
    assert "".join(pieces) == generated.text
    return generated.text, generated.tokens


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "seed": 3}, {"temperature": 1.3, "top_p": 0.6}])
def test_a_runtime_writes_what_transformers_writes(runtime: TorchRuntime, sampling: dict[str, Any]) -> None:
    ours = text_of(Hidden(runtime), runtime.tokenizer, **sampling)
    again = text_of(Hidden(runtime), runtime.tokenizer, **sampling)
    assert ours == again
    if not sampling:
        assert ours == text_of(runtime.model, runtime.tokenizer)


def test_a_nucleus_of_one_is_greedy_and_chances_follow_the_softmax() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, -1.0])
    assert generate.choose_token(logits, generate.Sampling(temperature=2.0, top_p=1e-6)) == 1
    torch.manual_seed(0)
    drawn = [generate.choose_token(logits, generate.Sampling(temperature=0.5)) for _ in range(3000)]
    weights = np.exp(np.array([0.0, 4.0, 2.0, -2.0]))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 3000, weights / weights.sum(), atol=0.03)
    nucleus = {generate.choose_token(logits, generate.Sampling(temperature=1.0, top_p=0.7)) for _ in range(200)}
    assert nucleus == {1, 2}


def test_an_end_token_ends_the_text(runtime: TorchRuntime) -> None:
    free = Hidden(runtime)
    prompt = [5, 6, 7]
    first = int(runtime.begin(prompt).argmax())
    free.config = SimpleNamespace(eos_token_id=[first])
    seen: list[list[int]] = []
    out = SimpleNamespace(put=lambda ids: seen.append(ids.tolist()), end=lambda: seen.append([]))
    assert generate.generate_tokens(free, prompt, generate.Sampling(max_new_tokens=9), out) == [first]
    assert seen == [prompt, [first], []]


class Counting:
    """A runtime that takes a known time: 1 s a prefill token, 2 s a step (times `slowness`), on a clock of its own."""

    def __init__(self, clock: dict[str, float], slowness: float, size: int) -> None:
        self.clock, self.slowness = clock, slowness
        self.name, self.parameters, self.bytes = f"x{slowness:g}", size, 4 * size
        self.tokenizer = SimpleNamespace(encode=lambda _text, add_special_tokens: [1, 2, 3])
        self.config = SimpleNamespace(model_type="gpt2", max_position_embeddings=16)

    def begin(self, tokens: Any) -> None:
        self.clock["now"] += self.slowness * len(tokens)

    def step(self, _token: int) -> None:
        self.clock["now"] += 2 * self.slowness


def test_speeds_are_medians_by_turns_and_ratios_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    models = {"parent": Counting(clock, 1.0, 100), "child": Counting(clock, 0.5, 50)}
    loaded: Iterator[bench.LoadCost] = iter([bench.LoadCost(seconds=4, peak=800), bench.LoadCost(seconds=3, peak=200)])
    monkeypatch.setattr("minigpt.models.find.open_model", lambda ref, **_options: models[ref])
    monkeypatch.setattr(bench, "load_in_fresh_process", lambda *_arguments: next(loaded))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock["now"])
    timings = bench.bench(["parent", "child"], workload=bench.Workload(prompt=10, decode=6, repeats=3))
    parent, child = timings.models
    assert (parent.prefill, parent.decode, parent.ratios) == (1.0, 0.5, {})
    assert (child.prefill, child.decode, len(child.samples)) == (2.0, 1.0, 3)
    assert child.ratios == {"bytes": 0.5, "load_seconds": 0.75, "peak_memory": 0.25, "prefill": 2.0, "decode": 2.0}
    with pytest.raises(ConfigError, match="positions for 16 tokens, and 10 are read and 7 decoded"):
        bench.measure_speed(models["parent"], bench.Workload(prompt=10, decode=7))  # type: ignore[arg-type]


def test_a_fresh_process_tells_its_time_and_memory(folder: Path) -> None:
    cost = bench.load_in_fresh_process(str(folder), "cpu", bench.Workload(prompt=4))
    assert cost.seconds > 0 and cost.peak > 50e6


def test_memory_is_a_processs_own() -> None:
    """A process that holds much starts one that holds little."""
    ballast = np.ones(400 * 2**17)
    code = f"import runpy; print(runpy.run_path({llama_worker.__file__!r})['peak_memory']())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5e6 < int(process.stdout) < 200e6 < llama_worker.peak_memory() and ballast.nbytes > 4e8


def test_what_a_fresh_process_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(MiniGPTError) as caught:
        bench.load_in_fresh_process(str(tmp_path), "cpu", bench.Workload(prompt=4))
    assert str(caught.value).startswith(f"{tmp_path} cannot be loaded in a process of its own: {tmp_path} is not a")


def test_a_text_ends_with_the_window(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.config, "max_position_embeddings", 10)
    monkeypatch.setattr(generate, "end_tokens", lambda _runtime: set())
    out = generate.make_streamer(runtime.tokenizer, lambda _text: None)
    lengths = {
        prompt: len(generate.generate_tokens(runtime, [5] * prompt, generate.Sampling(max_new_tokens=6), out))
        for prompt in (2, 7, 10)
    }
    assert lengths == {2: 6, 7: 4, 10: 1}


def test_the_ends_beside_an_export_end_its_texts(runtime: TorchRuntime) -> None:
    """A chat model names several ends in its generation config, of which its config knows one."""
    rules = SimpleNamespace(eos_token_id=[2, 9])
    exported: Any = SimpleNamespace(
        tokenizer=runtime.tokenizer, config=SimpleNamespace(eos_token_id=2), generation_config=rules
    )
    assert generate.end_tokens(exported) >= {2, 9}
    assert 9 not in generate.end_tokens(runtime)


def test_an_export_is_opened_with_the_rules_of_generation_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "is_export", lambda _folder: True)
    monkeypatch.setattr(base, "read_record", lambda _folder: SimpleNamespace(format="onnx", files={}))
    monkeypatch.setattr(base, "resolve", lambda _name: lambda _folder, _device: SimpleNamespace())
    bare: Any = base.load(tmp_path)
    assert bare.generation_config is None
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 9]}')
    opened: Any = base.load(tmp_path)
    assert opened.generation_config.eos_token_id == [2, 9]


def test_a_model_that_was_read_back_gets_the_rules_of_generation_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF file read by PyTorch is generated with by transformers, which goes by the model's own rules."""
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=2))
    monkeypatch.setattr(base, "is_export", lambda _folder: True)
    monkeypatch.setattr(base, "read_record", lambda _folder: SimpleNamespace(format="gguf", files={}))
    monkeypatch.setattr(base, "resolve", lambda _name: lambda _folder, _device: SimpleNamespace(model=model))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 9]}')
    base.load(tmp_path)
    assert model.generation_config.eos_token_id == [2, 9]


def test_a_runtime_with_a_window_refuses_what_is_longer() -> None:
    record: Any = SimpleNamespace(format="gguf", precision="fp16", bytes=1, source=SimpleNamespace(parameters=1))
    runtime = ExportRuntime(None, SimpleNamespace(max_position_embeddings=8), record)
    runtime.check_window(8)
    with pytest.raises(AssetError, match="at most 8 tokens and was given 9"):
        runtime.check_window(9)
    ExportRuntime(None, SimpleNamespace(), record).check_window(10**6)


def test_a_folder_put_in_anothers_place_leaves_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    real, moves = os.replace, list[Path]()

    def interrupted(source: Path, goal: Path) -> None:
        moves.append(goal)
        if len(moves) == 2:
            raise KeyboardInterrupt
        real(source, goal)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as folder:
        folder.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (target / "old").exists() and len(moves) == 3


def test_four_bit_folders_load_with_plain_transformers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A width of 32 is no whole number of blocks of 64: there bitsandbytes' own CPU forward is wrong."""
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM

    from minigpt.exporting import export
    from minigpt.transformer.nf4 import round_trip
    from tests.support.exports import make_shop

    shop = make_shop(tmp_path_factory.mktemp("shop"))
    record = export(shop.request("torch-4bit", "nf4"))
    quantized = runtimes.load(shop.root / "nf4")
    plain = AutoModelForCausalLM.from_pretrained(shop.root / "nf4")
    assert type(plain.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    dense = AutoModelForCausalLM.from_pretrained(shop.model, dtype=torch.bfloat16)
    for module in dense.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = round_trip(module.weight.data)[0]
    ids = np.arange(3, 23)[None]
    with torch.no_grad():
        want = dense(torch.from_numpy(ids)).logits[0].float().numpy()
    np.testing.assert_allclose(quantized.logits(ids, np.ones_like(ids))[0], want, atol=0.2)
    assert record.bytes < 0.5 * record.source.bytes


def test_the_processor_goes_by_its_makers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.processor", lambda: "x86_64")
    known, arm = tmp_path / "known", tmp_path / "arm"
    known.write_text("processor\t: 0\nmodel name\t: Maker Chip 9 @ 3.1GHz\nmodel\t\t: 2\n\nmodel name\t: other\n")
    arm.write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert processor_name(known) == "Maker Chip 9 @ 3.1GHz (x86_64)"
    assert processor_name(arm) == processor_name(tmp_path / "none") == "x86_64 CPU"
