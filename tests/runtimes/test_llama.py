"""GGUF files in llama.cpp itself: `make llama` builds it, or `MINIGPT_LLAMA_PYTHON` names a Python that has it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minigpt import environment, runtimes
from minigpt.exporting import export
from minigpt.exporting.gguf_families import FAMILIES
from minigpt.exporting.gguf_write import GgufType, write_gguf
from minigpt.runtimes.gguf import LlamaRuntime, interpreter
from tests.exporting.test_gguf import spelled, vary
from tests.exporting.test_gguf_families import set_fields
from tests.support.exports import make_shop
from tests.support.tiny import UNUSUAL, tiny_model, tiny_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(interpreter() is None, reason="no llama-cpp-python: make llama, or set MINIGPT_LLAMA_PYTHON"),
]

STRINGS = (
    "In 2020, 12 of 345 patients\n\n  had a fever of 38.5.",
    "naïve 東京 🙂 \u200b\x04x\r\n\t\ty",
    "  double   spaces 007 \n \n\n 1",
    "<|im_start|>user\nhi<|im_end|>\n",
    "ﬁ ½ Ⅷ ٣٤ e\u0301 \ud7a3 ǅ 𝟘𝟙 don't WE'LL",
    "\x00\x7f\u00a0\u2028\ufeff\U0010ffff",
)
GELU = 5e-3
"""ggml looks GELU up in a table of 16-bit floats."""


def runtime(model: Any, tokenizer: Any, file: Path, precision: str) -> LlamaRuntime:
    """A file in llama.cpp."""
    record: Any = SimpleNamespace(
        format="gguf", precision=precision, source=SimpleNamespace(parameters=1), bytes=file.stat().st_size
    )
    return LlamaRuntime(file, str(interpreter()), tokenizer, model.config, record=record)


def reference(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


STATES = ("mamba", "falcon_mamba", "mamba2", "lfm2", "qwen3_5_text")
HEADS = [(family, tied) for family in FAMILIES for tied in (True, False) if tied or family not in ("gemma", "gemma2")]
"""llama.cpp knows no Gemma with a head of its own, and the writer refuses one."""


@pytest.mark.parametrize(("family", "tied"), [pair for pair in HEADS if pair != ("cohere2", False)])
def test_every_family_gives_the_same_logits(
    family: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_fields(monkeypatch, family)
    model, tokenizer = vary(tiny_model(family, tied=tied)), tiny_tokenizer()
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F32", name="tiny")
    length = 60 if FAMILIES[family].window == "cap" else 100
    ids = np.random.default_rng(0).integers(3, 500, (1, length))
    logits = runtime(model, tokenizer, tmp_path / "m.gguf", "fp32").logits(ids, np.ones_like(ids))
    exact = not any("gelu" in name for name in FAMILIES[family].activations)
    near = 5e-4 if family == "qwen3_5_text" else 1e-4
    """Qwen3.5's linear attention adds its small number under the root, llama.cpp takes the larger of both."""
    assert np.abs(logits - reference(model, ids)).max() < (near if exact else GELU)


@pytest.mark.parametrize("family", ["lfm2", "qwen3_5_text"])
def test_layers_with_attention_may_stand_anywhere(family: str, tmp_path: Path) -> None:
    """Removed layers break the period of layers with attention; the file says where they are."""
    state = UNUSUAL[family]["layer_types"][0]
    model = tiny_model(family)
    kinds = [state, "full_attention", "full_attention", state]
    config = type(model.config)(**model.config.to_dict() | {"layer_types": kinds})
    torch.manual_seed(1)
    model = vary(type(model)(config).float().eval())
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="F32", name="tiny")
    ids = np.random.default_rng(0).integers(3, 500, (1, 60))
    logits = runtime(model, tiny_tokenizer(), tmp_path / "m.gguf", "fp32").logits(ids, np.ones_like(ids))
    assert np.abs(logits - reference(model, ids)).max() < 5e-4


@pytest.mark.parametrize("family", ["mamba", "falcon_mamba", "mamba2"])
def test_a_state_is_continued_token_by_token(family: str, tmp_path: Path) -> None:
    """Prefill and steps give the same in llama.cpp, also after another text was read."""
    model, tokenizer = vary(tiny_model(family)), tiny_tokenizer()
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F32", name="tiny")
    worker = runtime(model, tokenizer, tmp_path / "m.gguf", "fp32")
    row = np.random.default_rng(1).integers(3, 500, 30).tolist()
    worker.begin([9, 8, 7])
    steps = np.stack([worker.begin(row[:10]), *(worker.step(token) for token in row[10:])])
    assert np.abs(steps - reference(model, [row])[0][9:]).max() < 1e-4


@pytest.mark.parametrize("family", ["qwen3", "olmo3", "gpt_oss"])
def test_yarn_gives_the_same_logits(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions beyond the original context, where the stretched frequencies matter."""
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    monkeypatch.setitem(UNUSUAL, family, UNUSUAL.get(family, {}) | {"rope_parameters": yarn})
    model, tokenizer = vary(tiny_model(family)), tiny_tokenizer()
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F32", name="tiny")
    ids = np.random.default_rng(0).integers(3, 500, (1, 200))
    logits = runtime(model, tokenizer, tmp_path / "m.gguf", "fp32").logits(ids, np.ones_like(ids))
    assert np.abs(logits - reference(model, ids)).max() < 1e-4


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "gpt_oss", "gpt2", "gpt_neox", *STATES])
@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_other_precisions_stay_near(family: str, kind: GgufType, tmp_path: Path) -> None:
    """Some tokens go to other experts by rounding, so one layer (of a kind) and the middle token are compared."""
    model, tokenizer = vary(tiny_model(family, layers=2 if family in STATES else 1)), tiny_tokenizer()
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind=kind, name="tiny")
    ids = np.random.default_rng(0).integers(3, 500, (1, 60))
    logits = runtime(model, tokenizer, tmp_path / "m.gguf", "fp32").logits(ids, np.ones_like(ids))
    gaps = np.abs(logits - reference(model, ids)).max(-1)
    assert np.median(gaps) < (0.02 if kind == "F16" else 0.5)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
def test_llama_cpp_cuts_text_as_the_tokenizer_does(pre: str, tmp_path: Path):
    tokenizer, model = spelled(pre), tiny_model(layers=1, vocab_size=576)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F16", name="tiny")
    worker = runtime(model, tokenizer, tmp_path / "m.gguf", "fp16")
    for text in STRINGS:
        assert worker.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_a_sequence_grows_beyond_its_room_and_survives_other_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minigpt.runtimes.gguf.ROOM", 16)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F32", name="tiny")
    worker = runtime(model, tokenizer, tmp_path / "m.gguf", "fp32")
    ids = np.random.default_rng(1).integers(3, 500, (1, 60))
    wanted = reference(model, ids)[0]
    steps = [worker.begin(ids[0, :10].tolist())]
    for index in range(10, 60):
        if index == 30:
            worker.logits(ids[:, :40], np.ones((1, 40), dtype=np.int64))
        steps.append(worker.step(int(ids[0, index])))
    assert np.abs(np.stack(steps) - wanted[9:]).max() < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_an_export_is_verified_in_llama_cpp(precision: str, tmp_path: Path):
    shop = make_shop(tmp_path)
    record = export(shop.request("gguf", "out", precision=precision))
    assert isinstance(runtimes.load(tmp_path / "out"), LlamaRuntime)
    assert all(check.passed for check in record.checks) and record.quality and record.quality.ratio < 1.05
    if precision in ("fp32", "fp16"):
        assert record.greedy and record.greedy.agreeing == 64


@pytest.fixture(scope="module")
def pruned() -> tuple[Any, Any]:
    """The default parent on 16,384 tokens."""
    from minigpt import assets
    from minigpt.pruning.vocab import keep_tokens, trim_model, trim_tokenizer

    parent = assets.parent(assets.DEFAULT_BASE)
    model, tokenizer = assets.load_model(parent.path), assets.load_tokenizer(parent.path)
    trimmed = trim_tokenizer(tokenizer, keep_tokens(tokenizer, {}, 16384))
    return trim_model(model, trimmed), trimmed.tokenizer


def test_the_default_parent_with_a_pruned_vocabulary(pruned: tuple[Any, Any], tmp_path: Path):
    model, tokenizer = pruned
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F16", name="pruned")
    worker = runtime(model, tokenizer, tmp_path / "m.gguf", "fp16")
    for text in STRINGS:
        assert worker.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text
    prompt = [tokenizer.bos_token_id, *tokenizer("Hypertension is", add_special_tokens=False)["input_ids"]]
    wanted = model.generate(torch.tensor([prompt]), max_new_tokens=64, min_new_tokens=64, do_sample=False)[0]
    logits, text = worker.begin(prompt), []
    for _ in range(64):
        logits[tokenizer.eos_token_id] = -np.inf
        text.append(int(logits.argmax()))
        logits = worker.step(text[-1])
    assert text == wanted[len(prompt) :].tolist()
    long = np.array([[tokenizer.bos_token_id, *tokenizer(" ".join(STRINGS[:3]) * 3)["input_ids"]]])
    ours, expected = (
        nats(logits, long) for logits in (worker.logits(long, np.ones_like(long)), reference(model, long))
    )
    assert abs(np.exp(ours - expected) - 1) < 0.01


def nats(logits: Any, ids: Any) -> float:
    """Mean negative log-probability of each token after those before it."""
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits[0, :-1]), torch.tensor(ids[0, 1:]))
    return float(loss)


def test_a_file_that_is_not_gguf_is_an_error(tmp_path: Path):
    from minigpt.errors import AssetError

    (tmp_path / "m.gguf").write_bytes(b"nothing")
    with pytest.raises(AssetError, match="cannot read"):
        runtime(tiny_model(layers=1), tiny_tokenizer(), tmp_path / "m.gguf", "fp16")


def test_the_interpreter_is_a_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINIGPT_LLAMA_PYTHON", "/somewhere/python")
    assert interpreter() == environment.llama_python() == "/somewhere/python"
    monkeypatch.delenv("MINIGPT_LLAMA_PYTHON")
    assert (interpreter() is None) is (importlib.util.find_spec("llama_cpp") is None)
