"""The line of jobs: one generation at a time in one thread, the others wait in order, and too many are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from minigpt.serving.engine import Answer, Engine, Interrupted, Job
from minigpt.serving.schema import RequestError


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the text of a job, by the job's number in the request."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a job, by the job's number in the request."""

    index: int
    answer: Answer


Event = Piece | Done


class Ticket:
    """A request in the line; iterating over it gives pieces and ends of its jobs as they come.

    Attributes:
        gone: set it to stop the work, because nobody waits any more.
    """

    def __init__(self) -> None:
        self.gone = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def put(self, event: Event | Exception | None) -> None:
        """Hand an event over from the thread that generates; None is the end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give the events until the end.

        Raises:
            Exception: the work failed.
        """
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.gone.set()


class Line:
    """The line before one thread.

    Args:
        waiting: most requests that wait while one is served.
    """

    def __init__(self, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        self._lock, self._present, self._most = threading.Lock(), 0, waiting + 1
        self._closing = threading.Event()

    def enter(self, engine: Engine, jobs: Sequence[Job]) -> Ticket:
        """Put a request into the line.

        Raises:
            RequestError: the line is full (429), or the server ends (503).
        """
        if self._closing.is_set():
            raise RequestError("The server is shutting down.", status=503, kind="server_error")
        with self._lock:
            if self._present >= self._most:
                raise RequestError(
                    "Too many requests wait; try again later.",
                    status=429,
                    kind="rate_limit_error",
                    code="rate_limit_exceeded",
                )
            self._present += 1
        ticket = Ticket()
        self._pool.submit(self._work, engine, tuple(jobs), ticket)
        return ticket

    def close(self) -> None:
        """Stop the work and let nobody in; a server that ends must not wait for a long text."""
        self._closing.set()
        # Requests that still wait must run, so that each notices the end and tells its client.
        self._pool.shutdown(wait=False)

    def _work(self, engine: Engine, jobs: tuple[Job, ...], ticket: Ticket) -> None:
        """Serve one request in the thread."""

        def is_gone() -> bool:
            return ticket.gone.is_set() or self._closing.is_set()

        try:
            for index, job in enumerate(jobs):
                answer = engine.answer(job, lambda text, index=index: ticket.put(Piece(index, text)), is_gone)  # type: ignore[misc]
                ticket.put(Done(index, answer))
            ticket.put(None)
        except Interrupted:
            ticket.put(None)
        except Exception as error:  # whatever a runtime raises ends this request, not the server
            ticket.put(error)
        finally:
            with self._lock:
                self._present -= 1
