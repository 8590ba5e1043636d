"""The catalog's commands on signatures, licenses and installed packages."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from minigpt.files import file_sha256
from minigpt.models import catalog
from minigpt.models.signing import check
from minigpt.report.sbom import bill_of_materials
from tests.support.building import FAST, folder_of
from tests.support.building import build as build_it
from tests.support.commands import finished_build, run
from tests.support.fields import with_task
from tests.support.reports import make_report
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of the catalog."""
    for name in ("MINIGPT_SIGNING_KEY", "MINIGPT_ALLOWED_SIGNERS"):
        monkeypatch.delenv(name, raising=False)
    folder = finished_build(tmp_path / "b")
    hashes = {"model/config.json": file_sha256(folder / "model" / "config.json")}
    (folder / "sbom.json").write_text(json.dumps(bill_of_materials(make_report(), hashes)))
    catalog.add(folder)
    return folder


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_a_model_is_signed_and_its_signature_verified(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "signers").write_text(f"jo@example.org {key.with_suffix('.pub').read_text()}")
    (entry,) = catalog.entries()
    assert run("catalog", "verify").exit_code == 0 and "not signed" in run("catalog", "verify").stdout
    assert run("catalog", "verify", "--signed").exit_code == 1
    assert run("catalog", "sign", entry.domain).exit_code == 2, "without a key"
    assert run("catalog", "sign", entry.domain, "--key", str(key)).exit_code == 0
    assert json.loads(run("catalog", "verify", "--json").stdout)[entry.id]["sbom.json.sig"] == "ok"
    assert run("catalog", "verify", "--signed").exit_code == 1, "by nobody whom a list names"
    monkeypatch.setenv("MINIGPT_ALLOWED_SIGNERS", str(tmp_path / "signers"))
    done = run("catalog", "verify", entry.id, "--signed", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["signatures"][entry.id]["signer"] == "jo@example.org"
    signature = build / "sbom.json.sig"
    signature.write_text(signature.read_text().replace("U1NIU0lH", "U1NIU0lI"))
    bad = run("catalog", "verify", "--json")
    assert bad.exit_code == 1 and json.loads(bad.stdout)[entry.id]["sbom.json.sig"] == "changed"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_a_build_with_a_key_leaves_a_signed_bill(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    monkeypatch.setenv("MINIGPT_SIGNING_KEY", str(key))
    options = world.options("signed", overrides={**FAST, "evaluation.general": "false"})
    build_it(options)
    (entry,) = (entry for entry in catalog.entries() if entry.path == str(folder_of(options).resolve()))
    assert check(folder_of(options), entry.hashes).state == "intact"


def test_licenses_are_listed_and_those_that_nobody_states_come_first(build: Path) -> None:
    rows = json.loads(run("catalog", "licenses", make_report().domain, "--json").stdout)["licenses"]
    assert {"model", "text", "package"} >= {row["kind"] for row in rows} >= {"model", "text"}
    stated = [row["license"] != "not stated" for row in rows]
    assert stated == sorted(stated)
    names = {row["name"] for row in rows}
    assert {entry.name for entry in make_report().attributions} <= names


def test_installed_packages_are_checked_offline(build: Path, tmp_path: Path) -> None:
    done = run("catalog", "verify", "--packages", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["packages"]["wrong"] == []
    pins = tmp_path / "pins.txt"
    pins.write_text("click==0.1\n")
    pinned = run("catalog", "verify", "--constraints", str(pins))
    assert pinned.exit_code == 1 and "click" in pinned.stdout and "==0.1" in pinned.stdout
    pins.write_text("click\n")
    assert run("catalog", "verify", "--constraints", str(pins)).exit_code == 0


def test_the_list_shows_the_general_text_that_the_page_and_the_gates_show(tmp_path: Path) -> None:
    catalog.add(finished_build(tmp_path / "plain"))
    listed = " ".join(run("catalog", "list").stdout.split())
    assert "1.234×†" in listed and "†: general text of a kind that training may have seen" in listed
    apart = with_task(make_report(), "general/other", 0.8, 1.0)
    catalog.add(finished_build(tmp_path / "apart", stages=apart.stages))
    assert "1.250× " in run("catalog", "list").stdout


def test_the_list_marks_a_folder_that_is_gone(build: Path) -> None:
    assert "(not there)" not in run("catalog", "list").stdout
    shutil.rmtree(build)
    assert "b (not there)" in run("catalog", "list").stdout
