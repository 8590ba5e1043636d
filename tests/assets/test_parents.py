"""Parents: folders, build folders and Hub models load offline with stock classes, or say why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from minigpt import assets
from minigpt.assets import hub, load_model, load_tokenizer, parent, resolve
from minigpt.assets.refs import HubRef
from minigpt.errors import AssetError, UnsupportedModel
from tests.support.tiny import SENTENCES, tiny_model, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_loads_as_it_was_saved(folder: Path) -> None:
    ids = torch.arange(20)[None]
    model = load_model(folder)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_model("llama")(ids).logits)
    assert not model.training
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16
    tokenizer = load_tokenizer(folder)
    for text in SENTENCES:
        assert tokenizer(text).input_ids == tiny_tokenizer()(text).input_ids
    assert tokenizer.chat_template == tiny_tokenizer().chat_template


def test_a_build_folder_counts_as_its_model(folder: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    folder.rename(build / "model")
    assert parent(str(build)).path == build / "model"
    assert load_model(build).num_parameters() == tiny_model("llama").num_parameters()
    assert len(load_tokenizer(build)) == len(tiny_tokenizer())


def test_the_tokenizer_file_wins_over_the_class_named_beside_it(folder: Path) -> None:
    """Family classes may rebuild the pipeline by their own rules and change the ids."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "LlamaTokenizer"}))
    assert load_tokenizer(folder)(SENTENCES[4]).input_ids == tiny_tokenizer()(SENTENCES[4]).input_ids


def test_the_fingerprint_names_the_content(folder: Path, tmp_path: Path) -> None:
    first = parent(str(folder))
    assert first.precision == "float32"
    folder.rename(tmp_path / "moved")
    moved = parent(str(tmp_path / "moved"))
    assert moved.fingerprint == first.fingerprint
    model = load_model(moved.path)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    model.to(torch.bfloat16).save_pretrained(moved.path)
    changed = parent(str(moved.path))
    assert changed.fingerprint != first.fingerprint
    assert changed.precision == "bfloat16"


def test_bad_folders_are_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="No such folder"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetError, match=r"no config\.json"):
        parent(str(tmp_path / "empty"))
    with pytest.raises(AssetError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(AssetError, match="not a model"):
        parent(str(tmp_path / "notes.txt"))
    (folder / "config.json").write_text("{")
    with pytest.raises(AssetError, match="not valid JSON"):
        parent(str(folder))


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model("llama").state_dict(), folder / "pytorch_model.bin")
    for attempt in (load_model, lambda path: parent(str(path))):
        with pytest.raises(AssetError, match=r"no \.safetensors weights"):
            attempt(folder)


def test_architectures_that_need_foreign_code_are_refused(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('this must never run')")
    edit_config(folder, model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    with pytest.raises(UnsupportedModel, match="never"):
        load_model(folder)


def test_quantized_folders_are_refused(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModel, match="gptq"):
        parent(str(folder))


def test_missing_and_damaged_weights_are_errors_not_random_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(AssetError, match="incomplete"):
        load_model(folder)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AssetError, match="Cannot load"):
        load_model(folder)
    with pytest.raises(AssetError, match="damaged"):
        parent(str(folder))


def test_a_damaged_tokenizer_is_an_error_of_ours(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(AssetError, match=r"tokenizer\.json"):
        load_tokenizer(folder)


def test_a_hub_id_without_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AssetError, match=r"Cannot reach the Hugging Face Hub for no-such-org/no-such-model") as caught:
        resolve("no-such-org/no-such-model@main")
    assert "\n" not in str(caught.value)


def test_a_mistyped_path_is_not_taken_for_a_network_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "runs" / "medical").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssetError, match=r"no folder runs/medcal \(did you mean runs/medical\?\)"):
        resolve("runs/medcal")


def test_a_hub_model_is_fetched_at_its_revision_and_fingerprinted_by_commit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request: dict[str, Any] = {}
    snapshot = folder.rename(tmp_path / ("c0ffee" * 7)[:40])

    def download(repo: str, **options: Any) -> str:
        request.update(options, repo=repo)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model = parent("org/name@v2")
    assert (request["repo"], request["revision"]) == ("org/name", "v2")
    assert model.path == snapshot
    other = snapshot.rename(tmp_path / ("decade" * 7)[:40])
    snapshot = other
    assert parent("org/name@v2").fingerprint != model.fingerprint
    wanted = {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model-00001-of-00002.safetensors",
    }
    unwanted = {
        "pytorch_model.bin",
        "modeling_own.py",
        "training_args.pt",
        "onnx/model.safetensors",
        "model.pkl",
        "consolidated.safetensors",
        "README.md",
    }
    kept = filter_repo_objects(
        sorted(wanted | unwanted),
        allow_patterns=request["allow_patterns"],
        ignore_patterns=request["ignore_patterns"],
    )
    assert set(kept) == wanted


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GatedRepoError", "gated"),
        ("RevisionNotFoundError", "no revision"),
        ("RepositoryNotFoundError", "no model"),
        ("LocalEntryNotFoundError", "Cannot reach"),
    ],
)
def test_hub_errors_become_sentences(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    kind = getattr(errors, name)

    def fail(*_args: Any, **_options: Any) -> str:
        raise kind.__new__(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(AssetError, match=words):
        hub.snapshot(HubRef(repo="org/name", revision="v9"))


def test_the_public_names() -> None:
    assert set(assets.__all__) == {
        "DEFAULT_BASE", "Parent", "encoder", "fetch_member", "load_model", "load_outline", "load_tokenizer", "parent",
        "resolve", "weights_by_type",
    }  # fmt: skip


def test_an_outline_has_the_shapes_of_the_model_and_no_number(tmp_path: Path) -> None:
    model = tiny_model(layers=2)
    model.save_pretrained(tmp_path)
    outline = assets.load_outline(tmp_path)
    assert type(outline) is type(model)
    shapes = {name: value.shape for name, value in model.named_parameters()}
    assert {name: value.shape for name, value in outline.named_parameters()} == shapes
    assert all(value.is_meta for value in outline.parameters())
    with pytest.raises(AssetError):
        assets.load_outline(tmp_path / "nowhere")
