"""One model that answers prompts piece by piece, in whatever runtime it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from minigpt.errors import ConfigError
from minigpt.models.find import open_model
from minigpt.models.generate import (
    Sampling,
    encode_prompt,
    encode_turns,
    end_tokens,
    generate_tokens,
    make_streamer,
)
from minigpt.progress import SILENT, Reporter
from minigpt.runtimes import Runtime
from minigpt.serving.stops import StopFilter
from minigpt.transformer.arch import window_of

Reason = Literal["stop", "length"]
# Ways to use a model whose chat template is missing or fails.
WITHOUT_TURNS = "Use `minigpt generate`, or /v1/completions of `minigpt serve`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt to continue.

    Attributes:
        tokens: token ids of the prompt.
        sampling: rule for choosing tokens.
        stops: strings that end the text; they are not part of it.
    """

    tokens: tuple[int, ...]
    sampling: Sampling
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished text: `reason` is `stop` at an end token or a stop string, else `length`."""

    text: str
    prompt_tokens: int
    tokens: int
    reason: Reason


class Interrupted(Exception):
    """Signal that nobody waits for the text any more."""


class _Stopped(Exception):
    """Signal that a stop string has appeared."""


class Engine:
    """A model by name, and the functions that turn requests into prompts and prompts into text.

    Attributes:
        name: the name under which clients ask for the model.
        runtime: the model.
    """

    def __init__(self, name: str, runtime: Runtime) -> None:
        self.name, self.runtime = name, runtime
        self.ends = end_tokens(runtime)

    @property
    def has_template(self) -> bool:
        """True if the model has a chat template."""
        return bool(self.runtime.tokenizer.chat_template)

    @property
    def window(self) -> int | None:
        """Most tokens of prompt and answer together; None without a limit."""
        return window_of(self.runtime.config)

    def room(self, prompt: int) -> int | None:
        """Return how many tokens may follow a prompt of so many tokens; None without a limit."""
        return None if self.window is None else max(0, self.window - prompt)

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenize a text to continue, after the token that opens every text."""
        return tuple(encode_prompt(self.runtime.tokenizer, text, chat=False)["input_ids"][0].tolist())

    def encode_chat(self, turns: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """Put the turns of a chat into the model's template, ready for the next answer.

        Raises:
            ConfigError: the model has no chat template.
            AssetError: the template cannot be used with these turns.
        """
        if not self.has_template:
            raise ConfigError(
                f"{self.name} has no chat template: it continues text and knows no turns. {WITHOUT_TURNS}"
            )
        return tuple(encode_turns(self.runtime.tokenizer, turns, hint=WITHOUT_TURNS)["input_ids"][0].tolist())

    def answer(self, job: Job, on_text: Callable[[str], None], is_gone: Callable[[], bool] = lambda: False) -> Answer:
        """Continue a prompt, and pass on each piece of text as soon as it is final.

        Args:
            job: the prompt and the rules.
            on_text: receives each piece; joined, the pieces are the text of the answer.
            is_gone: says before each token whether nobody waits any more.

        Raises:
            Interrupted: `is_gone` said so.
        """
        torch.manual_seed(job.sampling.seed)
        stops, pieces, count = StopFilter(job.stops), list[str](), 0

        def show(text: str) -> None:
            if text:
                pieces.append(text)
                on_text(text)

        def pass_on(piece: str) -> None:
            show(stops.feed(piece))
            if stops.stopped:
                raise _Stopped

        def before_token() -> None:
            nonlocal count
            count += 1
            if is_gone():
                raise Interrupted

        out = _Watched(make_streamer(self.runtime.tokenizer, pass_on), before_token)
        reason: Reason = "stop"
        try:
            tokens = generate_tokens(self.runtime, list(job.tokens), job.sampling, out)
            reason = "stop" if tokens[-1] in self.ends else "length"
            show(stops.flush())
        except _Stopped:
            pass
        # The streamer receives the prompt first.
        return Answer(text="".join(pieces), prompt_tokens=len(job.tokens), tokens=count - 1, reason=reason)


class _Watched:
    """Streamer that calls a function before it passes anything to another streamer."""

    def __init__(self, inner: Any, before: Callable[[], None]) -> None:
        self._inner, self._before = inner, before

    def put(self, value: Any) -> None:
        """Pass on the prompt or a token."""
        self._before()
        self._inner.put(value)

    def end(self) -> None:
        """Pass on the end."""
        self._inner.end()


def open_engine(ref: str, *, name: str, device: str, reporter: Reporter = SILENT) -> Engine:
    """Open the model behind a reference in its runtime: PyTorch computes in fp32 on processors, else in bfloat16.

    Args:
        ref: anything that `minigpt generate` takes.
        name: name for clients.
        device: a torch device.
        reporter: receives the progress of downloads and conversions.

    Raises:
        AssetError: there is no such model, or the package of its runtime is missing.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with reporter.stage(f"Loading {ref}"):
        return Engine(name, open_model(ref, device=device, dtype=dtype, reporter=reporter))
