"""Text from a model, piece by piece: what `minigpt generate` streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt.runtimes import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen: greedily at `temperature` 0, else from the nucleus that holds `top_p` of the mass."""

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What was generated. `seconds` is decoding alone, without loading."""

    prompt: str
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float


def load(folder: Path, *, device: str = "auto") -> tuple[Any, Any]:
    """Model and tokenizer of a folder, on `device` (`auto`: the accelerator if there is one).

    Of an exported folder, the model is its :class:`minigpt.runtimes.Runtime`, unless that is PyTorch itself.
    """
    from minigpt import assets, runtimes
    from minigpt.machine import pick_device

    if runtimes.is_export(folder):
        runtime = runtimes.load(folder, device=pick_device(device))
        return getattr(runtime, "model", runtime), runtime.tokenizer
    return assets.load_model(folder, device=pick_device(device)), assets.load_tokenizer(folder)


def generate(
    model: Any, tokenizer: Any, prompt: str, *, sampling: Sampling, chat: bool, on_text: Callable[[str], None]
) -> Generation:
    """Continue `prompt`, or answer it as a chat turn, handing over each piece of text as soon as it is final.

    Args:
        model: a causal language model in eval mode, or a runtime that holds one.
        tokenizer: its tokenizer.
        prompt: the text to continue, or the user's turn.
        sampling: how tokens are chosen; the same seed gives the same text.
        chat: wrap the prompt in the chat template; a tokenizer without one continues the plain text.
        on_text: called with each piece, in order; the pieces join to the text that is returned.
    """
    import torch

    from minigpt.runtimes import Runtime

    torch.manual_seed(sampling.seed)
    inputs = encode(tokenizer, prompt, chat=chat)
    pieces: list[str] = []

    def keep(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    out, started = streamer(tokenizer, keep), time.perf_counter()
    if isinstance(model, Runtime):
        tokens = len(run(model, inputs["input_ids"][0].tolist(), sampling, out))
    else:
        tokens = _generate(model, tokenizer, inputs, sampling, out)
    return Generation(
        prompt=prompt,
        text="".join(pieces),
        prompt_tokens=inputs["input_ids"].shape[1],
        tokens=tokens,
        seconds=time.perf_counter() - started,
    )


def _generate(model: Any, tokenizer: Any, inputs: Any, sampling: Sampling, out: Any) -> int:
    """How many tokens transformers' own loop generated."""
    import torch

    with torch.inference_mode():
        output = model.generate(
            **inputs.to(model.device),
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature or None,
            top_p=sampling.top_p if sampling.temperature > 0 else None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            streamer=out,
        )
    return int(output.shape[1] - inputs["input_ids"].shape[1])


def run(runtime: Runtime, prompt: list[int], sampling: Sampling, out: Any) -> list[int]:
    """Generate token by token in a runtime, by the rules of transformers' own loop.

    An end token ends the text, and so does the end of the model's window, beyond which some runtimes stop.

    Args:
        runtime: the model.
        prompt: its token ids.
        sampling: how tokens are chosen; torch's global generator supplies the chance.
        out: a transformers streamer, given the prompt first and then each token.
    """
    import torch

    ends = end_tokens(runtime)
    window = getattr(runtime.config, "max_position_embeddings", None) or len(prompt) + sampling.max_new_tokens
    most = max(1, min(sampling.max_new_tokens, window - len(prompt) + 1))
    out.put(torch.tensor(prompt))
    logits, found = runtime.begin(prompt), list[int]()
    while True:
        found.append(choose(torch.from_numpy(logits), sampling))
        out.put(torch.tensor(found[-1:]))
        if found[-1] in ends or len(found) == most:
            out.end()
            return found
        logits = runtime.step(found[-1])


def end_tokens(runtime: Runtime) -> set[int]:
    """The ids that end a text: the config's, else the tokenizer's."""
    ends = getattr(runtime.config, "eos_token_id", None)
    ends = runtime.tokenizer.eos_token_id if ends is None else ends
    return set(ends) if isinstance(ends, list) else {ends} - {None}


def choose(logits: Tensor, sampling: Sampling) -> int:
    """The next token from its logits [vocabulary]: the likeliest, or one of the nucleus (Holtzman et al. 2020)."""
    import torch

    if not sampling.temperature:
        return int(logits.argmax())
    chances, order = (logits.double() / sampling.temperature).softmax(-1).sort(descending=True)
    chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0
    return int(order[torch.multinomial(chances, 1)])


def encode(tokenizer: Any, prompt: str, *, chat: bool) -> Any:
    """Token ids of the prompt: in the chat template if asked and there is one, else opened by the prefix token.

    Training, evaluation and the report's samples open every text in that way; a prompt that stands alone is text the
    model was never measured on.
    """
    if chat and tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        return tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    from transformers import BatchEncoding

    from minigpt.transformer.packing import prefix_token

    prefix, ids = prefix_token(tokenizer), tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = ids if ids[:1] == [prefix] else [prefix, *ids]
    return BatchEncoding({"input_ids": [ids], "attention_mask": [[1] * len(ids)]}, tensor_type="pt")


def streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    """A transformers streamer that calls `on_text` with each finished piece instead of printing it."""
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc,unused-ignore]
        """Hands the text over."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            """Receive one piece from transformers."""
            if text:
                on_text(text)

    return Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True)
