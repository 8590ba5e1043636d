"""The choice: exact bytes without measuring, rehearsals that correct the costs, and the same choice again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minigpt.errors import AssetError, ConfigError, PlanError, UnsupportedModel
from minigpt.fitting import choose as choosing
from minigpt.fitting.choose import FitRequest, choose
from minigpt.fitting.constraints import Constraint
from minigpt.fitting.narrow import NEAR, usage
from minigpt.fitting.profile import Profile, Sample, work_of, write_profile
from minigpt.fitting.rehearse import WORKLOAD, Stage, profile_shapes
from minigpt.fitting.run import export_folder, fitted_options
from minigpt.pipeline import BuildOptions
from minigpt.planning.allocate import Limits
from minigpt.types import Shape


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small random parent with enough tokens to trim, and a home of its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.support.tiny import tiny_tokenizer

    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    config: Any = AutoConfig.for_model(
        "llama", vocab_size=512, hidden_size=64, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def request(base: str, *constraints: str, **others: Any) -> FitRequest:
    return FitRequest(options=BuildOptions(domains=("medical",), base=base), constraints=constraints, **others)


def invented(self: Stage, precision: str, shapes: Sequence[Shape], *, factor: float = 1.0) -> tuple[Sample, ...]:
    """Samples of a machine that takes 0.1 ms a token, 50 us a layer and 1 ns a byte: nothing is loaded."""

    def speed(shape: Shape) -> float:
        work = work_of(self.sizes, shape, self.engine.layouts[precision])
        slow = factor if shape != self.whole else 1.0
        return 1 / (slow * (1e-4 + 5e-5 * work.layers + 1e-9 * (work.matrices + work.head)))

    return tuple(
        Sample(
            runtime=self.engine.name,
            precision=precision,
            shape=shape,
            work=work_of(self.sizes, shape, self.engine.layouts[precision]),
            decode=speed(shape),
            memory=1e6,
            parent_decode=speed(self.whole),
        )
        for shape in shapes
    )


def test_bytes_need_no_measuring_and_the_build_gets_the_widths(base: str):
    fitted = choose(request(base, "300KB"))
    best = fitted.best
    assert best.speed is None and fitted.machine == "" and best.file <= 300_000
    options = fitted_options(BuildOptions(domains=("medical",), base=base, overrides={"heal.steps": "3"}), fitted)
    assert options.target_params == best.parameters
    assert options.overrides == {
        "heal.steps": "3",
        "plan.layers": str(best.shape.layers),
        "plan.intermediate_size": str(best.shape.intermediate_size),
        "plan.kv_groups": str(best.shape.kv_groups),
        "plan.vocab_size": str(best.shape.vocab_size),
    }
    assert "borrowed" in fitted.sensitivity  # this parent has no costs of its own


def test_a_speed_is_searched_rehearsed_and_kept(base: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choosing, "check_runtime", lambda _engine: None)
    monkeypatch.setattr(Stage, "time", invented)
    fitted = choose(request(base, "1.3x parent tokens/s"))
    assert fitted.rehearsed is not None and fitted.rehearsed.parent_decode is not None
    ratio = fitted.rehearsed.decode / fitted.rehearsed.parent_decode
    assert 1.3 <= ratio <= 1.3 * (1 + NEAR)
    calls: list[str] = []
    monkeypatch.setattr(Stage, "time", lambda *_arguments: calls.append("timed"))
    assert choose(request(base, "1.3x parent tokens/s")) == fitted and not calls  # so that the build resumes


def test_a_rehearsal_that_is_slower_than_expected_leads_to_a_smaller_model(base: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choosing, "check_runtime", lambda _engine: None)
    monkeypatch.setattr(Stage, "time", invented)
    expected = choose(request(base, "1.3x parent tokens/s"))
    profiled = [True]

    def slower(self: Stage, precision: str, shapes: Sequence[Shape]) -> tuple[Sample, ...]:
        factor = 1.0 if profiled.pop() else 1.15
        profiled.append(False)
        return invented(self, precision, shapes, factor=factor)

    monkeypatch.setattr(Stage, "time", slower)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # another machine as far as what is kept goes
    corrected = choose(request(base, "1.3x parent tokens/s"))
    assert corrected.best.parameters < expected.best.parameters
    assert corrected.rehearsed is not None and corrected.rehearsed.parent_decode is not None
    assert corrected.rehearsed.decode / corrected.rehearsed.parent_decode >= 1.3


def test_a_carried_profile_decides_without_the_runtime(base: str, tmp_path: Path):
    ground = choosing.lay_ground(request(base, "1MB"), choosing.SILENT)
    stage = choosing.stage_of(ground, tmp_path, choosing.SILENT, memory=True)
    samples = invented(stage, "int4", profile_shapes(stage.whole, ground.budget.limits))
    profile = Profile(machine="a phone", threads=4, parent=base, workload=WORKLOAD, samples=samples)
    write_profile(tmp_path / "phone.json", profile)
    fitted = choose(request(base, "1.3x parent tokens/s", profile=tmp_path / "phone.json"))
    assert fitted.machine == "a phone" and fitted.rehearsed is None
    assert fitted.best.speed is not None and fitted.best.speed >= 1.3 * samples[0].decode
    with pytest.raises(ConfigError, match="0 models of onnx in int4"):
        choose(request(base, "9 tokens/s", runtime="onnx", profile=tmp_path / "phone.json"))


def test_refuses_what_contradicts_a_fit(base: str, monkeypatch: pytest.MonkeyPatch):
    for change in ({"target_size": 0.5}, {"delta": 0.1}, {"masked": True}):
        contradiction = replace(request(base, "1MB"), options=BuildOptions(domains=("medical",), base=base, **change))
        with pytest.raises(PlanError, match="leave out"):
            choose(contradiction)
    monkeypatch.setattr("minigpt.fitting.rehearse.interpreter", lambda: None)
    with pytest.raises(AssetError, match="device-profile"):
        choose(request(base, "60 tokens/s"))


def test_profile_shapes_differ_and_are_allowed():
    whole = Shape(layers=30, intermediate_size=1536, kv_groups=3, vocab_size=49152)
    limits = Limits(
        layers=tuple(range(12, 31)), kv_groups=(1, 3), neurons=(384, 1536), vocab=(2048, 49152), cut_vocab=49151
    )
    shapes = profile_shapes(whole, limits)
    assert shapes[0] == whole and len(shapes) == 5
    for shape in shapes:
        assert shape.layers in limits.layers and shape.kv_groups in limits.kv_groups
        assert shape.intermediate_size in set(limits.neuron_widths()) and shape.vocab_size % 64 == 0


def test_the_tightest_limit_is_what_counts(base: str):
    point = replace(choose(request(base, "300KB")).best, speed=50.0)
    limits = [Constraint(kind="speed", amount=40.0), Constraint(kind="file", amount=2.0 * point.file)]
    assert usage(limits, point) == pytest.approx(0.8)


def test_exports_stand_beside_the_build(base: str, tmp_path: Path):
    from types import SimpleNamespace

    options = BuildOptions(domains=("medical",), base=base, output_dir=tmp_path / "m")
    report: Any = SimpleNamespace(domain="medical")
    fitted = choose(request(base, "300KB"))
    assert export_folder(options, report, fitted) == tmp_path / f"m-gguf-{fitted.best.precision}"
    plain = replace(fitted, runtime="torch", best=replace(fitted.best, precision="bf16"))
    assert export_folder(options, report, plain) == tmp_path / "m" / "model"


@pytest.mark.parametrize(
    ("family", "runtime", "others"),
    [("rwkv", "llama.cpp", "torch"), ("mamba", "onnx", "llama.cpp or torch"), ("gemma3_text", "onnx-genai", "llama")],
)
def test_a_runtime_that_no_file_can_be_written_for_is_refused_before_anything_is_measured(
    family: str, runtime: str, others: str
):
    from minigpt.fitting.engines import engine_named
    from tests.support.tiny import tiny_config, tiny_tokenizer

    with pytest.raises(UnsupportedModel, match=rf"cannot write {family} models .* {runtime}; take --runtime {others}"):
        choosing.check_formats(engine_named(runtime), tiny_config(family, layers=2), tiny_tokenizer())
    choosing.check_formats(engine_named("torch"), tiny_config(family, layers=2), tiny_tokenizer())
