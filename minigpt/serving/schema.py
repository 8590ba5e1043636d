"""Requests and answers in the form of OpenAI's API: checks of what comes in, and the JSON that goes out.

The form is that of https://platform.openai.com/docs/api-reference (completions, chat, models, errors).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# Parameters of the API that are not implemented, and the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
}
MAX_STOPS = 4
MAX_PROMPTS = 32

Text = str | list[str]
Ids = list[int] | list[list[int]]


class RequestError(Exception):
    """A request that cannot be served, with the status and the fields of OpenAI's error object."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "invalid_request_error", **fields: str | None
    ) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind
        self.param, self.code = fields.get("param"), fields.get("code")

    def body(self) -> dict[str, Any]:
        """Return the error as JSON data."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """Options of streaming: `include_usage` adds a last chunk with the counts of tokens."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class Shared(BaseModel):
    """Parameters that both kinds of requests have; unknown ones are ignored, as servers of this form do."""

    model_config = ConfigDict(strict=True, extra="ignore")
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end the text."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > MAX_STOPS or "" in stop:
            raise RequestError(f"stop takes at most {MAX_STOPS} strings, none of them empty.", param="stop")
        return tuple(stop)

    @property
    def most_tokens(self) -> int | None:
        """The most tokens that are wanted; None if the request leaves it open."""
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """True if a stream ends with the counts of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


Form = TypeVar("Form", bound=Shared)


class CompletionRequest(Shared):
    """Request for the continuation of one text, or of several; a prompt may be given as token ids."""

    prompt: Text | Ids
    echo: bool | None = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list."""
        prompt: Any = self.prompt
        alone = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))
        prompts = [prompt] if alone else prompt
        if not 0 < len(prompts) <= MAX_PROMPTS or not all(prompts):
            raise RequestError(f"prompt takes 1 to {MAX_PROMPTS} texts, none of them empty.", param="prompt")
        return list(prompts)


class Part(BaseModel):
    """A part of a turn; only text is understood."""

    model_config = ConfigDict(strict=True, extra="ignore")
    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(strict=True, extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def plain(self) -> dict[str, str]:
        """Return the turn for a chat template, in which `developer`, a newer word, is `system`."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Shared):
    """Request for the next turn of a chat."""

    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def most_tokens(self) -> int | None:
        """The most tokens that are wanted, by the newer name of the parameter or by the older one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def turns(self) -> list[dict[str, str]]:
        """The turns for a chat template."""
        return [turn.plain() for turn in self.messages]


def parse(form: type[Form], data: Any) -> Form:
    """Check a request.

    Args:
        form: the kind of request.
        data: the JSON data.

    Raises:
        RequestError: it is malformed or asks for something that is not implemented; `param` names the parameter.
    """
    if not isinstance(data, dict):
        raise RequestError("The body must be a JSON object.")
    for name, values in NEUTRAL.items():
        if name in data and data[name] not in values:
            raise RequestError(f"{name} is not supported here; leave it out.", param=name, code="unsupported_parameter")
    for name in form.model_fields:
        if name in data and not is_text(data[name]):
            raise RequestError(
                f"{name} holds half of a surrogate pair, which is no character; send whole characters.", param=name
            )
    try:
        return form.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        names = [str(part) for part in first["loc"]]
        param = names[0] if names else None
        raise RequestError(f"{'.'.join(names) or 'The body'}: {first['msg']}.", param=param) from None


def is_text(value: Any) -> bool:
    r"""Return whether all strings in JSON data are text: an escape such as \ud800 alone stands for no character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return the counts of tokens as JSON data."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion_choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    """Return one text of a completion, or a piece of it, as JSON data."""
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def chat_choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    """Return a whole turn of a chat as JSON data."""
    message = {"role": "assistant", "content": text}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def chat_piece(index: int, text: str | None, reason: str | None) -> dict[str, Any]:
    """Return a piece of a turn as JSON data; the first piece (`text` is empty) names the role."""
    delta: Mapping[str, str] = {}
    if reason is None:
        delta = {"content": text} if text else {"role": "assistant", "content": ""}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
