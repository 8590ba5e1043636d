"""Signatures of bills of materials, made and checked by OpenSSH's `ssh-keygen`, with keys that stay the user's.

A bill holds the hashes of the model's files, so that a signature of the bill is one of the model. It lies beside the
bill in the format of `ssh-keygen -Y sign`, which every OpenSSH since 8.0 makes and checks:
https://man.openbsd.org/ssh-keygen#Y~5
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from minigpt import environment
from minigpt.errors import AssetError, MiniGPTError
from minigpt.files import write_text
from minigpt.integrity import check_file
from minigpt.parsing import Unreadable, load_json
from minigpt.progress import SILENT, Reporter
from minigpt.report.sbom import FILE as BILL

SIGNATURE = f"{BILL}.sig"
# What a signature is for, so that one of something else is not taken for one of a bill.
NAMESPACE = "minigpt"
TOOL = "ssh-keygen"
# Seconds that the tool may take, for a person to type a passphrase or to touch a key.
PATIENCE = 120.0

State = Literal["unsigned", "trusted", "intact", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """State of a model's signature.

    Attributes:
        state: `trusted` (by a signer of the list), `intact` (there is no list to compare with), `bad` or `unsigned`.
        signer: name on the list, or fingerprint of the key; empty where it is not known.
        reason: words for a person.
    """

    state: State
    signer: str = ""
    reason: str = ""


def sign(folder: Path, key: Path, *, interactive: bool = True) -> Path:
    """Sign the bill of materials of a build, and return the file of the signature.

    Args:
        folder: the build.
        key: a private SSH key, or a public one whose private key is in the agent.
        interactive: whether the tool may ask for a passphrase on the terminal.

    Raises:
        AssetError: the build has no bill, or the key cannot be used.
    """
    bill = folder / BILL
    if not bill.is_file():
        raise AssetError(f"{folder} has no {BILL}. Build the model again with this version, which writes one.")
    check_file(bill)
    if not key.is_file():
        raise AssetError(f"There is no key {key}. Make one with ssh-keygen -t ed25519, or name another.")
    done = _run("sign", "-f", str(key), data=bill.read_bytes(), interactive=interactive)
    if done.returncode or not done.stdout.startswith("-----BEGIN SSH SIGNATURE-----"):
        raise AssetError(
            f"{TOOL} cannot sign with {key}: {_last_line(done.stderr)}. A key with a passphrase needs the agent: "
            "ssh-add it, and name its .pub file."
        )
    write_text(folder / SIGNATURE, done.stdout)
    return folder / SIGNATURE


def sign_if_wanted(folder: Path, reporter: Reporter = SILENT) -> None:
    """Sign a new bill if the environment names a key; a key that fails is a note, because the model is finished.

    Args:
        folder: the build.
        reporter: told if it fails.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)  # of the bill that was here before
    if (key := environment.signing_key()) is None:
        return
    try:
        sign(folder, key, interactive=False)
    except MiniGPTError as error:
        reporter.note(f"The bill of materials is not signed. {error} Then: minigpt catalog sign {folder}")


def check(folder: Path, hashes: Mapping[str, str]) -> Signature:
    """Check the signature of a build's bill, and that the bill names the build's files.

    Args:
        folder: the build.
        hashes: SHA-256 of its files, by their paths in it.

    Raises:
        AssetError: there is a signature, and no tool to check it with.
    """
    signature, bill = folder / SIGNATURE, folder / BILL
    if not signature.is_file():
        return Signature(state="unsigned", reason="not signed")
    if not bill.is_file():
        return Signature(state="bad", reason=f"{BILL} is missing")
    result = _signer(signature, bill.read_bytes())
    if result.state == "bad":
        return result
    try:
        other = other_files(load_json(bill.read_bytes()), hashes)
    except (Unreadable, LookupError, TypeError, AttributeError):
        return Signature(state="bad", signer=result.signer, reason=f"{BILL} is no bill of materials of a model")
    if other:
        return Signature(state="bad", signer=result.signer, reason=f"{other[0]} is not the file of the signed bill")
    return result


def other_files(bill: Any, hashes: Mapping[str, str]) -> tuple[str, ...]:
    """Name the files that differ between a bill and the hashes of a build; the model's card counts in neither.

    Args:
        bill: the document.
        hashes: SHA-256 of the build's files, by their paths in it.

    Raises:
        LookupError: it is no bill of a model, or names none of its files; or TypeError.
    """
    parts = bill["metadata"]["component"]["components"]
    named = {part["name"]: part["hashes"][0]["content"] for part in parts}
    if not named:
        raise LookupError("the bill names no file")
    tops = {PurePosixPath(name).parts[0] for name in named}
    present = {
        name: digest
        for name, digest in hashes.items()
        if PurePosixPath(name).parts[0] in tops and PurePosixPath(name).name != "README.md"
    }
    return tuple(sorted(name for name in named.keys() | present.keys() if named.get(name) != present.get(name)))


def _signer(signature: Path, data: bytes) -> Signature:
    """Find whose signature it is, by the list of trusted signers if there is one."""
    signers = environment.allowed_signers()
    if signers is None:
        done = _run("check-novalidate", "-s", str(signature), data=data)
        if done.returncode:
            return Signature(state="bad", reason="the signature is not of this bill")
        signer = done.stdout.strip().rsplit(" ", 1)[-1]
        reason = f"signed with the key {signer}; set MINIGPT_ALLOWED_SIGNERS to say whose keys you trust"
        return Signature(state="intact", signer=signer, reason=reason)
    if not signers.is_file():
        raise AssetError(f"There is no list of signers {signers}, which MINIGPT_ALLOWED_SIGNERS names.")
    known = _run("find-principals", "-s", str(signature), "-f", str(signers), data=data)
    names = known.stdout.split()
    if known.returncode or not names:
        return Signature(state="bad", reason=f"not signed by a key of {signers}")
    done = _run("verify", "-f", str(signers), "-I", names[0], "-s", str(signature), data=data)
    if done.returncode:
        return Signature(state="bad", signer=names[0], reason="the signature is not of this bill")
    return Signature(state="trusted", signer=names[0], reason=f"signed by {names[0]}")


def _run(action: str, *arguments: str, data: bytes, interactive: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the tool on data; without a terminal unless it may ask."""
    tool = shutil.which(TOOL)
    if tool is None:
        raise AssetError(f"{TOOL} is missing: install OpenSSH to sign and to check signatures.")
    command = [tool, "-Y", action, *(() if action == "find-principals" else ("-n", NAMESPACE)), *arguments]
    try:
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            env=None if interactive else environment.without_prompts(),
            start_new_session=not interactive,
        )
    except subprocess.TimeoutExpired:
        raise AssetError(f"{TOOL} gave no answer in {PATIENCE:.0f} s.") from None
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def _last_line(text: str) -> str:
    """Return the last line of what a program said."""
    return next((line.strip().rstrip(".") for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
