"""The group of processes: what they exchange, in the order of their ranks.

Numbers travel as tensors, by NCCL between cards and by gloo between processors; names and settings travel as JSON. A
slot that one process fills and all others leave at zero is exact after a sum, in whatever order it is taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from minigpt.distributed.place import Place
from minigpt.errors import MiniGPTError

# Seconds that a process waits for the others in an exchange: longer than any of them writes a checkpoint.
PATIENCE = 1800.0
# Seconds between two looks for the next job.
POLL = 0.005
# Name of the end of all jobs.
END = "end"
# The module, for names that it has without exporting them to type checkers.
_DIST: Any = dist
# Newer releases of torch have other names for the same two exchanges.
_GATHER: Callable[..., Any] = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_SCATTER: Callable[..., Any] = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class LostProcess(MiniGPTError):
    """A group of which a process has ended."""

    def __init__(self) -> None:
        super().__init__(
            "A process of this build ended. The same command resumes from the last checkpoint, with any number of "
            "processes."
        )


class Group:
    """Processes that work together.

    Args:
        place: the place of this one.
        store: small values that all processes see.

    Attributes:
        shipped: a model that every process holds at the moment, or None.
    """

    def __init__(self, place: Place, store: Any) -> None:
        self.place, self.store = place, store
        self.rank, self.world, self.leads = place.rank, place.world, place.leads
        self.device = torch.device(place.device)
        self.shipped: Any = None
        self._jobs = self._barriers = 0

    def share(self, value: Any = None) -> Any:
        """Return the first process's value, which must be JSON, in every process."""
        words = json.dumps(value).encode() if self.leads else b""
        size = torch.tensor([len(words)])
        self.spread(size)
        data = torch.empty(int(size), dtype=torch.uint8)
        if self.leads:
            data.copy_(torch.frombuffer(bytearray(words), dtype=torch.uint8))
        self.spread(data)
        return json.loads(data.numpy().tobytes())

    def share_tensor(self, tensor: Tensor | None = None, *, device: torch.device | None = None) -> Tensor:
        """Return the first process's tensor in every process, on `device` (None: the processor)."""
        kind = None if tensor is None else [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        shape, dtype = self.share(kind)
        where = torch.device("cpu") if device is None else device
        if tensor is None or not self.leads:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=where)
        return self.spread(tensor.detach().to(where).contiguous())

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, which must be JSON, in the order of the ranks."""
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = self.rows(torch.tensor([len(own)])).flatten().tolist()
        data = [own if rank == self.rank else torch.empty(size, dtype=torch.uint8) for rank, size in enumerate(sizes)]
        return [json.loads(self.spread(item, rank).numpy().tobytes()) for rank, item in enumerate(data)]

    def spread(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Overwrite a tensor by that of one process, and return it."""
        dist.broadcast(tensor, source)
        return tensor

    def add_up(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor by the sum of all processes' tensors, and return it."""
        dist.all_reduce(tensor)
        return tensor

    def rows(self, row: Tensor) -> Tensor:
        """Return one row of each process, [world, *shape], in the order of the ranks."""
        rows = row.new_empty(self.world * row.numel())
        _GATHER(rows, row.contiguous().view(-1))
        return rows.view(self.world, *row.shape)

    def gather_segments(self, whole: Tensor, segment: Tensor) -> None:
        """Fill a flat tensor with one segment of each process, in the order of the ranks."""
        _GATHER(whole, segment)

    def scatter_sum(self, segment: Tensor, whole: Tensor) -> None:
        """Fill a segment with the sum over all processes of this process's segment of a flat tensor."""
        _SCATTER(segment, whole)

    def all_agree(self, yes: bool) -> bool:
        """Return whether every process says yes."""
        return int(self.add_up(torch.tensor([int(yes)]))) == self.world

    def send(self, tensors: Mapping[str, Tensor], target: int) -> None:
        """Send named tensors to one process, through the memory of the processor."""
        kinds = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()]
        words = torch.frombuffer(bytearray(json.dumps(kinds).encode()), dtype=torch.uint8)
        dist.send(torch.tensor([len(words)]), target)
        dist.send(words, target)
        for tensor in tensors.values():
            dist.send(tensor.detach().cpu().contiguous().reshape(-1), target)

    def receive(self, source: int) -> dict[str, Tensor]:
        """Receive what one process sends by :meth:`send`."""
        size = torch.empty(1, dtype=torch.long)
        dist.recv(size, source)
        words = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(words, source)
        tensors = {}
        for name, shape, dtype in json.loads(words.numpy().tobytes()):
            flat = torch.empty(shape, dtype=getattr(torch, dtype)).reshape(-1)
            dist.recv(flat, source)
            tensors[name] = flat.view(shape)
        return tensors

    def barrier(self, seconds: float = PATIENCE) -> None:
        """Wait for all processes.

        Raises:
            MiniGPTError: some did not arrive in time; the message names them.
        """
        self._barriers += 1
        names = [f"barrier/{self._barriers}/{rank}" for rank in range(self.world)]
        self.store.set(names[self.rank], b"1")
        end = time.monotonic() + seconds
        while missing := [rank for rank, name in enumerate(names) if not self.store.check([name])]:
            if time.monotonic() > end:
                ranks = ", ".join(map(str, missing))
                raise MiniGPTError(f"Process {ranks} of {self.world} did not arrive within {seconds:g} seconds.")
            time.sleep(POLL)

    def announce(self, job: str) -> None:
        """Tell the other processes which job comes next; only the first process does."""
        self._jobs += 1
        self.store.set(f"job/{self._jobs}", job.encode())

    def next_job(self) -> str | None:
        """Wait for the next job and return its name; None at the end of all jobs."""
        self._jobs += 1
        name = f"job/{self._jobs}"
        while not self.store.check([name]):
            time.sleep(POLL)
        job = self.store.get(name).decode()
        return None if job == END else str(job)

    def claims(self, what: str) -> bool:
        """Return True in the one process that is the first to ask for this."""
        return int(self.store.add(f"claim/{what}", 1)) == 1


def start(place: Place) -> Group:
    """Meet the other processes at the address that the environment names: NCCL between cards, gloo elsewhere."""
    if place.device != "cpu":
        torch.cuda.set_device(place.device)
    store, rank, world = next(_DIST.rendezvous("env://", timeout=timedelta(seconds=PATIENCE)))
    backend = "gloo" if place.device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        store=_DIST.PrefixStore("exchange", store),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=PATIENCE),
    )
    return Group(place, _DIST.PrefixStore("minigpt", store))


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()
