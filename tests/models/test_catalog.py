"""The catalog finds models again and notices every changed byte."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.errors import AssetError, MiniGPTError, UnknownName
from minigpt.integrity import SUMS, seal
from minigpt.models import catalog
from minigpt.report import save
from tests.support.reports import make_report


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def build(folder, domain="medical", weights=b"weights"):
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "model.safetensors").write_bytes(weights)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "stages").mkdir(exist_ok=True)
    (folder / "stages" / "cache.bin").write_bytes(b"not part of the model")
    save(make_report(domain), folder)
    return folder


def test_an_entry_carries_hashes_and_figures(tmp_path):
    entry = catalog.add(build(tmp_path / "a"))
    assert re.fullmatch(r"medical-76-\d{8}-[0-9a-f]{6}", entry.id)
    assert set(entry.hashes) == {"report.json", "model/model.safetensors", "model/config.json"}
    assert entry.hashes["model/config.json"] == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert entry.headline["bits_per_byte"] == 0.7014
    assert entry.parameters == 102_097_728
    assert catalog.get(entry.id) == entry
    assert catalog.list() == (entry,)


def test_adding_twice_is_one_entry_and_a_rebuild_replaces_it(tmp_path):
    folder = build(tmp_path / "a")
    first = catalog.add(folder)
    assert catalog.add(folder) == first
    build(folder, weights=b"better weights")
    second = catalog.add(folder)
    assert catalog.list() == (second,)
    assert second.id != first.id


def test_list_latest_and_resolve(tmp_path):
    one, two = catalog.add(build(tmp_path / "a")), catalog.add(build(tmp_path / "b"))
    law = catalog.add(build(tmp_path / "c", "law"))
    assert catalog.list("medical") == (one, two)
    assert catalog.latest("medical") == two
    assert catalog.resolve(one.id) == tmp_path / "a"
    assert catalog.resolve("law") == Path(law.path)
    with pytest.raises(UnknownName, match="medical"):
        catalog.latest("medicine")
    with pytest.raises(UnknownName, match="Did you mean"):
        catalog.resolve(one.id[:-1])
    (tmp_path / "c").rename(tmp_path / "moved")
    with pytest.raises(AssetError, match="minigpt catalog add"):
        catalog.resolve("law")


def test_verify_names_changed_and_missing_files(tmp_path):
    entry = catalog.add(build(tmp_path / "a"))
    other = catalog.add(build(tmp_path / "b"))
    assert set(catalog.verify(entry.id)[entry.id].values()) == {"ok"}
    (tmp_path / "a/model/model.safetensors").write_bytes(b"Weights")
    (tmp_path / "a/model/config.json").unlink()
    states = catalog.verify()
    assert states[entry.id] == {
        "model/model.safetensors": "changed",
        "model/config.json": "missing",
        "report.json": "ok",
    }
    assert set(states[other.id].values()) == {"ok"}


def test_verify_names_files_that_were_added_to_the_model(tmp_path):
    entry = catalog.add(build(tmp_path / "a"))
    (tmp_path / "a/model/extra.safetensors").write_bytes(b"other weights")
    (tmp_path / "a/stages/more.bin").write_bytes(b"not part of the model")
    states = catalog.verify(entry.id)[entry.id]
    assert {name: state for name, state in states.items() if state != "ok"} == {"model/extra.safetensors": "unexpected"}
    assert set(states) == {*entry.hashes, "model/extra.safetensors"}


def test_the_conditional_form_and_the_recipe_are_verified_and_deleted_too(tmp_path):
    folder = build(tmp_path / "a")
    (folder / "conditional").mkdir()
    for name in ("conditional/conditional.safetensors", "recipe.yaml", "sbom.json"):
        (folder / name).write_bytes(b"as it was written")
    entry = catalog.add(folder)
    assert {"conditional/conditional.safetensors", "recipe.yaml", "sbom.json"} <= set(entry.hashes)
    (folder / "conditional/conditional.safetensors").write_bytes(b"as it was Written")
    (folder / "conditional/more.safetensors").write_bytes(b"")
    states = {name: state for name, state in catalog.verify(entry.id)[entry.id].items() if state != "ok"}
    assert states == {"conditional/conditional.safetensors": "changed", "conditional/more.safetensors": "unexpected"}
    (folder / "conditional/more.safetensors").unlink()
    (folder / "conditional/conditional.safetensors").write_bytes(b"as it was written")
    catalog.remove(entry.id, delete=True)
    assert not (folder / "conditional").exists() and not (folder / "recipe.yaml").exists()


def test_files_that_were_changed_since_are_not_deleted(tmp_path):
    folder = build(tmp_path / "a")
    entry = catalog.add(folder)
    (folder / "report.json").write_text((folder / "report.json").read_text() + " ")
    catalog.remove(entry.id, delete=True)
    assert catalog.list() == () and not (folder / "model").exists()
    assert (folder / "report.json").exists(), "somebody has worked on it"


@pytest.mark.parametrize("where", ["work", "."])
def test_a_build_that_is_damaged_is_not_entered(tmp_path, where):
    folder = build(tmp_path / "a")
    (folder / where).mkdir(exist_ok=True)
    seal(folder, names=["report.json", "model/model.safetensors"], at=folder / where / SUMS)
    catalog.add(folder)
    (folder / "model/model.safetensors").write_bytes(b"Weights")
    with pytest.raises(AssetError, match=r"model/model.safetensors is not what was written.*Run the build once more"):
        catalog.add(folder)


def test_an_entry_is_forgotten_by_its_folder(tmp_path):
    one, two = catalog.add(build(tmp_path / "a")), catalog.add(build(tmp_path / "b"))
    catalog.forget(tmp_path / "b")
    catalog.forget(tmp_path / "c")
    assert catalog.list() == (one,) and Path(two.path).exists()


def test_remove_keeps_files_unless_asked(tmp_path):
    folder = build(tmp_path / "a")
    entry = catalog.add(folder)
    catalog.remove(entry.id)
    assert catalog.list() == ()
    assert (folder / "model/model.safetensors").exists()
    catalog.remove(catalog.add(folder).id, delete=True)
    assert not (folder / "model").exists()
    assert not (folder / "report.json").exists()
    assert (folder / "stages/cache.bin").exists()
    with pytest.raises(UnknownName):
        catalog.remove(entry.id)


def test_delete_never_leaves_the_build_folder(tmp_path, home):
    entry = catalog.add(build(tmp_path / "a"))
    precious = tmp_path / "precious"
    precious.write_text("mine")
    index = home / "catalog/index.json"
    tampered = json.loads(index.read_text().replace("model/config.json", "../precious"))
    tampered["digest"] = ""  # the digest tells of accidents; whoever can write the index can write it, too
    index.write_text(json.dumps(tampered))
    with pytest.raises(MiniGPTError, match="nothing was deleted"):
        catalog.remove(entry.id, delete=True)
    assert precious.exists()
    assert (tmp_path / "a/report.json").exists()
    assert catalog.list()


def test_an_unfinished_build_is_refused(tmp_path):
    with pytest.raises(AssetError, match="not a finished build"):
        catalog.add(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"entries": [{"id": 1}]}'])
def test_a_damaged_index_says_what_to_do_and_is_not_overwritten(tmp_path, home, content):
    index = home / "catalog" / "index.json"
    index.parent.mkdir(parents=True)
    index.write_text(content)
    for action in (catalog.list, lambda: catalog.add(build(tmp_path / "a"))):
        with pytest.raises(MiniGPTError, match="Move that file away"):
            action()
    assert index.read_text() == content


def test_a_flipped_figure_in_the_index_is_noticed(tmp_path, home):
    entry = catalog.add(build(tmp_path / "a"))
    index = home / "catalog" / "index.json"
    text = index.read_text()
    index.write_text(text.replace(f'"parameters": {entry.parameters}', f'"parameters": {entry.parameters + 1}'))
    assert index.read_text() != text
    with pytest.raises(MiniGPTError, match=r"is not what was written\. Move that file away"):
        catalog.list()
    index.write_text(text)
    assert catalog.list() == (entry,)


def test_an_index_of_another_version_is_refused(home):
    (home / "catalog").mkdir(parents=True)
    (home / "catalog/index.json").write_text('{"schema_version": 9, "entries": []}')
    with pytest.raises(MiniGPTError, match="another version"):
        catalog.list()


SLOW_WRITER = """
import pathlib, sys, time
from minigpt.models import catalog
write = catalog.write_json
catalog.write_json = lambda path, value: (time.sleep(0.4), write(path, value))
for folder in sys.argv[1:]:
    catalog.add(pathlib.Path(folder))
"""


def test_concurrent_writers_lose_nothing(tmp_path, home):
    """Two processes, each slow between reading the index and writing it: only the lock keeps all entries."""
    folders = [build(tmp_path / name) for name in ("a", "b", "c", "d")]
    environment = {"MINIGPT_HOME": str(home), "PYTHONPATH": str(Path(catalog.__file__).parents[2])}
    running = [
        subprocess.Popen([sys.executable, "-c", SLOW_WRITER, *map(str, half)], env=environment)
        for half in (folders[:2], folders[2:])
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    assert {Path(entry.path).name for entry in catalog.list()} == {"a", "b", "c", "d"}
    assert [path.name for path in (home / "catalog").iterdir() if path.name.startswith(".")] == []
