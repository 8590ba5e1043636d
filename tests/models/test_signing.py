"""Signatures of bills: whose they are, and what makes them bad. The keys are made by the same tool."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from minigpt.errors import AssetError
from minigpt.files import file_sha256
from minigpt.models.signing import SIGNATURE, check, other_files, sign, sign_if_wanted
from minigpt.report.sbom import bill_of_materials
from tests.support.healing import Notes
from tests.support.reports import make_report

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A build with a bill, a key, and a list of signers that knows it."""

    build: Path
    key: Path
    signers: Path

    def hashes(self) -> dict[str, str]:
        """Hashes of the model's files as they are now."""
        files = (path for path in (self.build / "model").iterdir())
        return {path.relative_to(self.build).as_posix(): file_sha256(path) for path in files}


def key_at(path: Path, passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "me", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    for name in ("MINIGPT_SIGNING_KEY", "MINIGPT_ALLOWED_SIGNERS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "build" / "model").mkdir(parents=True)
    for name in ("config.json", "README.md"):
        (tmp_path / "build" / "model" / name).write_text(name)
    key = key_at(tmp_path / "key")
    signers = tmp_path / "signers"
    signers.write_text(f"jo@example.org {Path(f'{key}.pub').read_text()}")
    result = Scene(build=tmp_path / "build", key=key, signers=signers)
    bill = bill_of_materials(make_report(), {"model/config.json": result.hashes()["model/config.json"]})
    (tmp_path / "build" / "sbom.json").write_text(json.dumps(bill))
    return result


def test_a_signature_says_whose_it_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(scene.build, scene.hashes()).state == "unsigned"
    sign(scene.build, scene.key)
    anyone = check(scene.build, scene.hashes())
    assert anyone.state == "intact" and anyone.signer.startswith("SHA256:")
    monkeypatch.setenv("MINIGPT_ALLOWED_SIGNERS", str(scene.signers))
    known = check(scene.build, scene.hashes())
    assert (known.state, known.signer) == ("trusted", "jo@example.org")
    sign(scene.build, key_at(scene.build.parent / "other"))
    assert check(scene.build, scene.hashes()).state == "bad", "a key that is not on the list"
    monkeypatch.setenv("MINIGPT_ALLOWED_SIGNERS", str(scene.build / "none"))
    with pytest.raises(AssetError, match="no list of signers"):
        check(scene.build, scene.hashes())


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("change", ["bill", "signature", "model", "added"])
def test_whatever_changes_makes_it_bad(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, change: str, listed: bool
) -> None:
    if listed:
        monkeypatch.setenv("MINIGPT_ALLOWED_SIGNERS", str(scene.signers))
    sign(scene.build, scene.key)
    where = {"bill": "sbom.json", "signature": SIGNATURE, "model": "model/config.json", "added": "model/more.json"}
    path = scene.build / where[change]
    text = path.read_text() if path.exists() else "new"
    path.write_text(
        text.replace("sample", "simple").replace("CycloneDX", "CyclonedX") if change == "bill" else text[:-60]
    )
    assert check(scene.build, scene.hashes()).state == "bad"
    (scene.build / "sbom.json").unlink()
    assert "missing" in check(scene.build, scene.hashes()).reason


@pytest.mark.parametrize("text", ["[]", "{}", "no JSON", '{"metadata": {"component": {"components": []}}}'])
def test_a_signed_text_that_is_no_bill_is_bad(scene: Scene, text: str) -> None:
    (scene.build / "sbom.json").write_text(text)
    sign(scene.build, scene.key)
    assert check(scene.build, scene.hashes()).state == "bad"


def test_the_card_may_be_edited(scene: Scene) -> None:
    sign(scene.build, scene.key)
    (scene.build / "model" / "README.md").write_text("My words.")
    assert check(scene.build, scene.hashes()).state == "intact"
    bill = json.loads((scene.build / "sbom.json").read_text())
    assert other_files(bill, {"model/config.json": "ab", "conditional/x": "cd"}) == ("model/config.json",)


def test_a_build_signs_if_it_has_a_key_and_goes_on_if_it_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    (scene.build / SIGNATURE).write_text("of an older bill")
    sign_if_wanted(scene.build, notes)
    assert not (scene.build / SIGNATURE).exists() and not notes.notes
    monkeypatch.setenv("MINIGPT_SIGNING_KEY", str(scene.key))
    sign_if_wanted(scene.build, notes)
    assert check(scene.build, scene.hashes()).state == "intact" and not notes.notes
    monkeypatch.setenv("MINIGPT_SIGNING_KEY", str(key_at(scene.build.parent / "locked", "secret words")))
    sign_if_wanted(scene.build, notes)
    assert not (scene.build / SIGNATURE).exists() and "ssh-add" in notes.notes[0]
    with pytest.raises(AssetError, match="There is no key"):
        sign(scene.build, scene.build / "nothing")
    (scene.build / "sbom.json").unlink()
    with pytest.raises(AssetError, match=r"has no sbom\.json"):
        sign(scene.build, scene.key)
