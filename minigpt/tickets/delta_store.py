"""Files of delta tickets: written whole, read with every hash checked, and turned into models where one is needed.

A ticket is a folder of `delta.safetensors`, which holds positions and values and, as metadata, the record, and
`delta.json`, the same record for people together with the hash of the file.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minigpt import assets, environment
from minigpt.assets import Parent
from minigpt.assets.quiet import quiet_transformers
from minigpt.errors import AssetError, MiniGPTError
from minigpt.files import atomic_path, file_sha256, open_to_readers
from minigpt.integrity import SUMS, check_model, damage, read_signed, seal, sha256_once, write_signed
from minigpt.progress import SILENT, Reporter
from minigpt.tickets.delta import (
    BLOCK,
    Change,
    apply,
    changed_weights,
    changes_between,
    check_digests,
    digests,
    parameters_of,
    quantized,
)
from minigpt.tickets.delta_codes import Form, decode_positions, encode_positions, pack_fours, unpack_fours
from minigpt.tickets.delta_places import RECORD, WEIGHTS
from minigpt.tickets.delta_settings import Values
from minigpt.transformer.older_readers import open_to_older_readers

# Version of the files; other versions are refused.
FORMAT = 1
# A model that was made from a ticket is kept for this long after its last use.
KEPT_SECONDS = 86_400.0
# Types of weights by their name.
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """Form in which one tensor's changes are stored: the form of the positions, their number, the tensor's size."""

    form: Form
    changes: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRecord:
    """Record of a delta ticket.

    Attributes:
        base: reference of the parent.
        domains: the domains it was trained for; several after a merge.
        dtype: type of the parent's and the specialist's weights.
        values: how the changes are stored.
        changed: weights that are changed.
        parameters: weights of the parent.
        parent: hash of every tensor of the parent in `dtype`.
        result: hash of every tensor that is changed, after the change.
        tensors: form of each changed tensor.
        format: version of the files.
        sha256: hash of `delta.safetensors`; only in the JSON file.
    """

    base: str
    domains: tuple[str, ...]
    dtype: str
    values: Values
    changed: int
    parameters: int
    parent: Mapping[str, str]
    result: Mapping[str, str]
    tensors: Mapping[str, TensorRecord]
    format: int = FORMAT
    sha256: str = field(default="")

    @property
    def fraction(self) -> float:
        """Share of the weights that are changed."""
        return self.changed / self.parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A ticket that was read: its record and its changes."""

    record: DeltaRecord
    changes: Mapping[str, Change]


def make_ticket(
    parent: Mapping[str, Tensor],
    result: Mapping[str, Tensor],
    *,
    base: str,
    domains: tuple[str, ...],
    values: Values = "exact",
) -> Ticket:
    """Make the ticket that turns the parent into the result, and check that it does.

    Args:
        parent: the parent's tensors by name, in the type that is stored; they are unchanged afterwards.
        result: tensors of the same names and type.
        base: reference of the parent.
        domains: names of the domains.
        values: how the changes are stored; with 8 or 4 bits the specialist is the rounded one.
    """
    changes = quantized(parent, changes_between(parent, result), values)
    before = digests(parent)
    undo = apply(parent, changes)
    after = digests({name: parent[name] for name in changes})
    apply(parent, undo)
    forms = {}
    for name, change in changes.items():
        form, _ = encode_positions(change.positions, parent[name].numel())
        forms[name] = TensorRecord(form=form, changes=len(change.positions), size=parent[name].numel())
    record = DeltaRecord(
        base=base,
        domains=domains,
        dtype=str(next(iter(parent.values())).dtype).removeprefix("torch."),
        values=values,
        changed=changed_weights(changes),
        parameters=sum(tensor.numel() for tensor in parent.values()),
        parent=before,
        result=after,
        tensors=forms,
    )
    return Ticket(record=record, changes=changes)


def write(ticket: Ticket, folder: Path) -> DeltaRecord:
    """Write a ticket's folder, whole or not at all, and return its record with the hash of the file."""
    record, tensors = ticket.record, dict[str, Tensor]()
    for name, change in ticket.changes.items():
        _, tensors[f"{name}.positions"] = encode_positions(change.positions, record.tensors[name].size)
        packed = pack_fours(change.values) if record.values == "int4" else change.values
        tensors[f"{name}.values"] = packed.contiguous()
        if change.scales is not None:
            tensors[f"{name}.scales"] = change.scales.contiguous()
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        try:
            save_file(tensors, temporary / WEIGHTS, metadata={"record": json.dumps(asdict(record), sort_keys=True)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        open_to_readers(temporary / WEIGHTS)
        values = asdict(record) | {"sha256": file_sha256(temporary / WEIGHTS)}
        write_signed(temporary / RECORD, values)
        written = DeltaRecord(**{**values, "tensors": record.tensors})
    return written


def read_record(folder: Path) -> DeltaRecord:
    """Read the record of a ticket, and check that its weights are the ones that were written.

    Raises:
        AssetError: a file is missing or damaged, or another version of minigpt wrote it.
        MiniGPTError: the build that it lies in recorded other hashes.
    """
    try:
        record = read_signed(folder / RECORD, DeltaRecord)
    except MiniGPTError as error:
        raise AssetError(f"The delta ticket in {folder} is damaged: {error} Copy the ticket again.") from None
    if record.format != FORMAT:
        raise AssetError(
            f"{folder} was written by another version of minigpt; use that one, or build the ticket again."
        )
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256_once(weights) != record.sha256:
        raise AssetError(f"{weights} is missing or damaged: its hash is not that of {RECORD}. Copy the ticket again.")
    check_model(folder)
    return record


def read(folder: Path) -> Ticket:
    """Read a ticket.

    Raises:
        AssetError: as :func:`read_record`, or the files do not fit together.
    """
    record = read_record(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as stored:
            changes = {name: _change(stored, name, record) for name in record.tensors}
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise AssetError(f"{folder / WEIGHTS} is damaged ({error}). Copy the ticket again.") from None
    return Ticket(record=record, changes=changes)


def _change(stored: Any, name: str, record: DeltaRecord) -> Change:
    """Read the changes of one tensor."""
    form = record.tensors[name]
    positions = decode_positions(form.form, stored.get_tensor(f"{name}.positions"), form.size)
    values, scales = stored.get_tensor(f"{name}.values"), None
    if record.values != "exact":
        scales = stored.get_tensor(f"{name}.scales")
        values = unpack_fours(values, form.changes) if record.values == "int4" else values
    blocks = math.ceil(form.changes / BLOCK)
    if not len(positions) == len(values) == form.changes or (scales is not None and len(scales) != blocks):
        raise ValueError(f"{name} has {len(positions)} positions and {len(values)} values, not {form.changes}")
    return Change(positions=positions, values=values, scales=scales)


def put_in(model: Any, ticket: Ticket, *, verified: bool = True) -> dict[str, Change]:
    """Turn a parent in memory into the specialist, in place, and return what turns it back.

    Args:
        model: the parent, with weights of the ticket's type.
        ticket: the ticket.
        verified: compare every tensor with its hash, before and after.

    Returns:
        Changes that :func:`minigpt.tickets.delta.apply` takes to bring the parent back, to the bit.

    Raises:
        AssetError: the model is not the ticket's parent, or the result is not the one that was measured. The model is
            then as it was.
    """
    tensors, record = parameters_of(model), ticket.record
    if record.parent.keys() != tensors.keys() or any(
        form.size != tensors[name].numel() for name, form in record.tensors.items()
    ):
        raise AssetError(f"This model has other tensors than the ticket's parent; put the ticket into {record.base}.")
    if verified:
        check_digests(
            tensors,
            record.parent,
            f"The ticket belongs to another parent: {{name}} differs from that of {record.base} in {record.dtype}. "
            "Put it into that model.",
        )
    undo = apply(tensors, ticket.changes)
    if verified:
        try:
            check_digests(
                tensors, record.result, "The ticket is damaged: {name} is not what was measured. Copy it again."
            )
        except AssetError:
            apply(tensors, undo)
            raise
    return undo


def materialize(folder: Path, *, reporter: Reporter = SILENT) -> Parent:
    """Return a ticket as a plain model folder, made from its parent and kept for a day after its last use.

    Args:
        folder: folder of the ticket.
        reporter: receives progress.

    Raises:
        AssetError: the ticket is damaged, or its parent cannot be found or is another one.
    """
    record = read_record(folder)
    home = environment.home() / "tickets"
    target = home / record.sha256[:16]
    name = f"delta of {record.changed / record.parameters:.1%}".replace("%", " %")
    if damage(target) is not None:
        with reporter.stage(f"Making the specialist from its parent and a {name}"):
            save_specialist(folder, target, reporter=reporter)
    (target / SUMS).touch()
    _forget_old(home)
    return Parent(path=target, ref=str(folder), precision=record.dtype, fingerprint=f"delta-{record.sha256[:16]}")


def save_specialist(folder: Path, target: Path, *, reporter: Reporter = SILENT) -> None:
    """Write the model that a ticket stands for as a plain folder, after every hash was checked.

    Args:
        folder: folder of the ticket.
        target: folder to write, whole or not at all.
        reporter: receives the progress of fetching the parent.

    Raises:
        AssetError: as :func:`materialize`.
    """
    ticket = read(folder)
    parent = parent_of(folder, ticket.record, reporter)
    dtype = DTYPES[ticket.record.dtype]
    model: Any = assets.load_model(parent, dtype=dtype)
    put_in(model.to(dtype), ticket)
    with atomic_path(target) as temporary, quiet_transformers():
        model.save_pretrained(temporary)
        assets.load_tokenizer(parent).save_pretrained(temporary)
        open_to_older_readers(temporary)
        open_to_readers(temporary)
        seal(temporary)


def parent_of(folder: Path, record: DeltaRecord, reporter: Reporter = SILENT) -> Path:
    """Return the folder of a ticket's parent: the recorded one, or that which `MINIGPT_PARENT` names.

    Whether it is the right one is decided by the hashes of its tensors.

    Args:
        folder: folder of the ticket.
        record: its record.
        reporter: receives the progress of fetching it.

    Raises:
        AssetError: it cannot be had.
    """
    ref = environment.parent() or record.base
    try:
        return assets.parent(ref, reporter=reporter).path
    except AssetError as error:
        raise AssetError(
            f"The delta ticket in {folder} needs its parent {ref}, which cannot be had ({str(error).rstrip('.')}). Put "
            "it back, or set MINIGPT_PARENT to where it is."
        ) from error


def _forget_old(home: Path) -> None:
    """Delete models that were made from tickets and not used for a day, and what killed processes left half made."""
    for folder in home.iterdir():
        marker = folder if folder.name.startswith(".") else folder / SUMS
        with suppress(FileNotFoundError):  # another process deletes, too
            if time.time() - marker.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
