"""Answers of the line as JSON: a whole answer, or a stream of server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import StreamingResponse

from minigpt.errors import MiniGPTError
from minigpt.serving.engine import Job
from minigpt.serving.line import Done, Event, Ticket
from minigpt.serving.schema import (
    CompletionRequest,
    RequestError,
    Shared,
    chat_choice,
    chat_piece,
    completion_choice,
    usage,
)

Kind = Literal["text_completion", "chat.completion"]
# The choice of a whole answer, and of a piece of one, by kind.
WHOLE: dict[str, Callable[[int, str, str | None], dict[str, Any]]] = {
    "text_completion": completion_choice,
    "chat.completion": chat_choice,
}
PIECE: dict[str, Callable[[int, str, str | None], dict[str, Any]]] = {
    "text_completion": completion_choice,
    "chat.completion": chat_piece,
}
PREFIX = {"text_completion": "cmpl", "chat.completion": "chatcmpl"}


@dataclass(frozen=True, slots=True)
class Form:
    """The frame of an answer: its kind, the model's name, the request, and what identifies it."""

    kind: Kind
    model: str
    request: Shared
    created: int = field(default_factory=lambda: int(time.time()))
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def frame(self, choices: list[dict[str, Any]], *, piece: bool = False, **more: Any) -> dict[str, Any]:
        """Return the JSON data around some choices."""
        kind = f"{self.kind}.chunk" if piece and self.kind == "chat.completion" else self.kind
        frame = {"id": f"{PREFIX[self.kind]}-{self.key}", "object": kind, "created": self.created, "model": self.model}
        return {**frame, "choices": choices, **more}

    def opening(self, index: int) -> str:
        """Return the prompt where a completion repeats it (`echo`), else nothing."""
        request = self.request
        if not isinstance(request, CompletionRequest) or not request.echo:
            return ""
        return str(request.prompts[index])


async def whole(form: Form, ticket: Ticket, jobs: Sequence[Job]) -> dict[str, Any]:
    """Wait for all jobs, and return the answer as JSON data.

    Args:
        form: the frame of the answer.
        ticket: the place in the line.
        jobs: the jobs of the request.

    Raises:
        Exception: the work failed.
    """
    answers = [event.answer async for event in ticket if isinstance(event, Done)]
    if len(answers) < len(jobs):
        raise RequestError("The server is shutting down.", status=503, kind="server_error")
    choices = [
        WHOLE[form.kind](index, form.opening(index) + answer.text, answer.reason)
        for index, answer in enumerate(answers)
    ]
    counts = usage(sum(answer.prompt_tokens for answer in answers), sum(answer.tokens for answer in answers))
    return form.frame(choices, usage=counts)


def stream(form: Form, ticket: Ticket, jobs: Sequence[Job]) -> StreamingResponse:
    """Return a response that sends each piece as a server-sent event as soon as it is there."""
    return StreamingResponse(
        events(form, ticket, jobs), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


async def events(form: Form, ticket: Ticket, jobs: Sequence[Job]) -> AsyncIterator[str]:
    """Give the server-sent events of an answer; a failure becomes an event too, because the status is already sent.

    Args:
        form: the frame of the answer.
        ticket: the place in the line.
        jobs: the jobs of the request.
    """
    finished: list[Done] = []
    try:
        for index in range(len(jobs)):
            opening = form.opening(index)
            if opening or form.kind == "chat.completion":
                yield _event(form.frame([PIECE[form.kind](index, opening, None)], piece=True))
        async for event in ticket:
            if isinstance(event, Done):
                finished.append(event)
            yield _event(form.frame([_choice(form, event)], piece=True))
        if form.request.wants_usage:
            prompt, new = (sum(getattr(done.answer, name) for done in finished) for name in ("prompt_tokens", "tokens"))
            yield _event(form.frame([], piece=True, usage=usage(prompt, new)))
        yield "data: [DONE]\n\n"
    except (RequestError, MiniGPTError) as error:
        yield _event(RequestError(str(error)).body())
    except Exception as error:  # whatever a runtime raises
        yield _event(RequestError(f"The model failed ({type(error).__name__}).", kind="server_error").body())


def _choice(form: Form, event: Event) -> dict[str, Any]:
    """Return an event of the line as a choice."""
    if isinstance(event, Done):
        return PIECE[form.kind](event.index, "", event.answer.reason)
    return PIECE[form.kind](event.index, event.text, None)


def _event(data: dict[str, Any]) -> str:
    """Return JSON data as a server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
