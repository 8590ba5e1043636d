"""Requests as jobs: prompts are tokenized, and checked against the model's window and the server's limit."""

from __future__ import annotations

from minigpt.models.generate import Sampling
from minigpt.serving.engine import Engine, Job
from minigpt.serving.schema import ChatRequest, CompletionRequest, RequestError, Shared

# Tokens of a completion that does not say how many it wants, as OpenAI has it.
COMPLETION_TOKENS = 16


def completion_jobs(engine: Engine, form: CompletionRequest, limit: int) -> tuple[Job, ...]:
    """Return the jobs of a request for completions, one for each prompt.

    Args:
        engine: the model.
        form: the request.
        limit: most new tokens that the server allows.

    Raises:
        RequestError: a prompt is too long, or its token ids are none of the model's.
    """
    if form.echo and not all(isinstance(prompt, str) for prompt in form.prompts):
        raise RequestError("echo needs a prompt of text, not of token ids.", param="echo")
    wanted = form.most_tokens or min(COMPLETION_TOKENS, limit)
    return tuple(_job(engine, form, _tokens(engine, prompt), wanted, limit) for prompt in form.prompts)


def chat_jobs(engine: Engine, form: ChatRequest, limit: int) -> tuple[Job, ...]:
    """Return the job of a request for the next turn of a chat.

    Args:
        engine: the model.
        form: the request.
        limit: most new tokens that the server allows; also what a request gets that does not say.

    Raises:
        RequestError: the chat is too long.
        MiniGPTError: the model has no chat template, or it cannot take these turns.
    """
    tokens = engine.encode_chat(form.turns)
    room = engine.room(len(tokens))
    return (_job(engine, form, tokens, form.most_tokens or max(1, min(limit, limit if room is None else room)), limit),)


def _tokens(engine: Engine, prompt: str | list[int]) -> tuple[int, ...]:
    """Return the token ids of a prompt, which may be given as such."""
    if isinstance(prompt, str):
        return engine.encode(prompt)
    size = engine.runtime.config.vocab_size
    if not all(0 <= token < size for token in prompt):
        raise RequestError(f"prompt holds token ids outside of 0 to {size - 1}.", param="prompt")
    return tuple(prompt)


def _job(engine: Engine, form: Shared, tokens: tuple[int, ...], wanted: int, limit: int) -> Job:
    """Return a job, checked against the limits."""
    if wanted > limit:
        raise RequestError(f"max_tokens is too large: this server generates at most {limit}.", param="max_tokens")
    room = engine.room(len(tokens))
    if room is not None and wanted > room:
        raise RequestError(
            f"The model reads at most {engine.window} tokens. The request has {len(tokens)} in the prompt and asks for "
            f"{wanted} more; shorten one of them.",
            param="max_tokens" if room else "prompt",
            code="context_length_exceeded",
        )
    sampling = Sampling(
        max_new_tokens=wanted,
        temperature=form.temperature or 0.0,
        top_p=1.0 if form.top_p is None else form.top_p,
        seed=form.seed or 0,
    )
    return Job(tokens=tokens, sampling=sampling, stops=form.stops)
