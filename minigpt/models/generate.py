"""Text generation piece by piece, for `minigpt generate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.errors import AssetError, ConfigError, MiniGPTError, first_line
from minigpt.transformer import ends
from minigpt.transformer.arch import window_of

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt.runtimes import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Rule for choosing tokens: greedy at `temperature` 0, else from the nucleus with `top_p` of the probability."""

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Generated text and its figures; `seconds` counts generation only, without loading.

    `cut` is the model's window where its end ended the text, before an end token and before all tokens were generated.
    """

    prompt: str
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    cut: int | None = None


def load(folder: Path, *, device: str = "auto") -> tuple[Any, Any]:
    """Load the model and the tokenizer of a folder.

    Args:
        folder: A model folder, a build folder, a folder with conditional layers or an export folder.
        device: A torch device (`auto`: the accelerator if there is one).

    Returns:
        Model and tokenizer. The model of an export folder is its :class:`minigpt.runtimes.Runtime`, unless that is
        PyTorch itself.
    """
    from minigpt import assets, runtimes
    from minigpt.conditional.folder import load_model
    from minigpt.machine import pick_device

    if runtimes.is_export(folder):
        runtime = runtimes.load(folder, device=pick_device(device))
        return getattr(runtime, "model", runtime), runtime.tokenizer
    return load_model(folder, device=pick_device(device)), assets.load_tokenizer(folder)


def generate(
    model: Any, tokenizer: Any, prompt: str, *, sampling: Sampling, chat: bool, on_text: Callable[[str], None]
) -> Generation:
    """Continue a prompt, or answer it as a chat turn, and pass on each piece of text as soon as it is final.

    Args:
        model: A causal language model in eval mode, or a runtime that holds one.
        tokenizer: The model's tokenizer.
        prompt: Text to continue, or the user's turn.
        sampling: Rule for choosing tokens; the same seed gives the same text.
        chat: Wrap the prompt in the chat template.
        on_text: Receives each piece in order; joined, the pieces are the text that is returned.

    Raises:
        ConfigError: The prompt is longer than the model's window, or is a question to a model without chat template.
    """
    import torch

    from minigpt.runtimes import Runtime

    if chat and not tokenizer.chat_template:
        raise ConfigError("The model has no chat template: it continues text and knows no turns. Leave --chat out.")
    torch.manual_seed(sampling.seed)
    inputs = encode_prompt(tokenizer, prompt, chat=chat)
    read = int(inputs["input_ids"].shape[1])
    most = room_for(model.config, read, sampling.max_new_tokens)
    pieces: list[str] = []

    def keep(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    out, started = make_streamer(tokenizer, keep), time.perf_counter()
    if isinstance(model, Runtime):
        tokens, stops = generate_tokens(model, inputs["input_ids"][0].tolist(), sampling, out), end_tokens(model)
    else:
        stops = end_tokens_of(model, tokenizer)
        tokens = _generate_in_transformers(model, tokenizer, inputs, replace(sampling, max_new_tokens=most), out)
    is_cut = len(tokens) == most < sampling.max_new_tokens and tokens[-1] not in stops
    return Generation(
        prompt=prompt,
        text="".join(pieces),
        prompt_tokens=read,
        tokens=len(tokens),
        seconds=time.perf_counter() - started,
        cut=window_of(model.config) if is_cut else None,
    )


def room_for(config: Any, prompt: int, wanted: int) -> int:
    """Return how many of the wanted tokens may follow a prompt: the last one need not be read any more.

    Args:
        config: The model's config.
        prompt: Tokens of the prompt.
        wanted: Tokens that are wanted.

    Raises:
        ConfigError: The prompt is longer than the model's window.
    """
    window = window_of(config)
    if window is None:
        return wanted
    if prompt > window:
        raise ConfigError(f"The prompt has {prompt} tokens, and the model reads at most {window}; shorten it.")
    return min(wanted, window - prompt + 1)


def _generate_in_transformers(model: Any, tokenizer: Any, inputs: Any, sampling: Sampling, out: Any) -> list[int]:
    """Generate with the loop of transformers, and return the new tokens."""
    import torch

    def checked(_ids: Tensor, logits: Tensor) -> Tensor:
        check_logits(logits)
        return logits

    with torch.inference_mode():
        output = model.generate(
            **inputs.to(model.device),
            logits_processor=[checked],
            eos_token_id=sorted(end_tokens_of(model, tokenizer)) or None,
            max_new_tokens=sampling.max_new_tokens,
            num_beams=1,  # a streamer shows one text, whatever the folder's rules of generation say
            penalty_alpha=None,
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature or None,
            top_p=sampling.top_p if sampling.temperature > 0 else None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            streamer=out,
        )
    new: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return new


def generate_tokens(runtime: Runtime, prompt: list[int], sampling: Sampling, out: Any) -> list[int]:
    """Generate token by token in a runtime, by the rules of transformers' own loop.

    An end token ends the text, and so does the end of the model's window, beyond which some runtimes stop.

    Args:
        runtime: The model.
        prompt: Token ids of the prompt.
        sampling: Rule for choosing tokens; the random numbers come from torch's global generator.
        out: A transformers streamer; it receives the prompt first and then each token.

    Returns:
        Ids of the new tokens.

    Raises:
        ConfigError: The prompt is longer than the model's window.
    """
    import torch

    stops = end_tokens(runtime)
    most = room_for(runtime.config, len(prompt), sampling.max_new_tokens)
    out.put(torch.tensor(prompt))
    logits, tokens = runtime.begin(prompt), list[int]()
    while True:
        tokens.append(choose_token(torch.from_numpy(logits), sampling))
        out.put(torch.tensor(tokens[-1:]))
        if tokens[-1] in stops or len(tokens) == most:
            out.end()
            return tokens
        logits = runtime.step(tokens[-1])


def end_tokens(runtime: Runtime) -> frozenset[int]:
    """Collect the ids that end a text, those of the rules of generation beside an export included."""
    return ends.end_tokens(runtime.tokenizer, runtime.config, getattr(runtime, "generation_config", None))


def end_tokens_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Collect the ids that end a text of a transformers model."""
    return ends.end_tokens(tokenizer, model.config, model.generation_config)


def choose_token(logits: Tensor, sampling: Sampling) -> int:
    """Choose the next token by its logits [vocabulary]: the likeliest, or one of the nucleus (Holtzman et al. 2020).

    Raises:
        MiniGPTError: The logits are no numbers to choose by.
    """
    import torch

    check_logits(logits)
    if not sampling.temperature:
        return int(logits.argmax())
    probabilities, order = (logits.double() / sampling.temperature).softmax(-1).sort(descending=True)
    probabilities[probabilities.cumsum(-1) - probabilities >= sampling.top_p] = 0
    return int(order[torch.multinomial(probabilities, 1)])


def check_logits(logits: Tensor) -> None:
    """Refuse logits by which no token can be chosen: one is not a number, or the largest is not finite.

    Raises:
        MiniGPTError: They are such logits.
    """
    if not logits.max(dim=-1).values.isfinite().all():  # the largest of numbers of which one is NaN is NaN
        raise MiniGPTError(
            "The model gives no finite probabilities: its weights are damaged, or overflow in this precision. Run "
            "minigpt catalog verify, or try --device cpu."
        )


def encode_prompt(tokenizer: Any, prompt: str, *, chat: bool) -> Any:
    """Tokenize a prompt in the chat template if `chat` is set, else after the prefix token.

    Training, evaluation and the report's samples put the prefix token before every text; a model was never measured on
    text without it.
    """
    check_text(prompt)
    if chat:
        return encode_turns(tokenizer, [{"role": "user", "content": prompt}])
    from transformers import BatchEncoding

    from minigpt.transformer.packing import prefix_token

    prefix, ids = prefix_token(tokenizer), tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = ids if ids[:1] == [prefix] else [prefix, *ids]
    return BatchEncoding({"input_ids": [ids], "attention_mask": [[1] * len(ids)]}, tensor_type="pt")


def check_text(text: str) -> None:
    """Refuse a text with bytes that are no UTF-8, which Python keeps as halves of characters.

    Raises:
        ConfigError: It has some.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("The prompt holds bytes that are no UTF-8; give it as UTF-8 text.") from None


def encode_turns(
    tokenizer: Any, turns: Sequence[Mapping[str, str]], *, hint: str = "Leave --chat out, or correct it."
) -> Any:
    """Put the turns of a chat into the chat template, which transformers runs in a sandbox, and tokenize them.

    Args:
        tokenizer: A tokenizer with a chat template.
        turns: Turns with `role` and `content`.
        hint: What to do where the template fails.

    Raises:
        AssetError: The template cannot be used with these turns.
        ConfigError: A turn holds bytes that are no text.
    """
    for turn in turns:
        check_text(turn["content"])
    try:
        return tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
    except Exception as error:  # a template is a program of the model's author
        raise AssetError(f"The model's chat template cannot be used ({first_line(error)}). {hint}") from error


def make_streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    """Make a transformers streamer that calls `on_text` with each finished piece instead of printing it."""
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc,unused-ignore]
        """Streamer that passes the text on."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            """Pass on one piece from transformers."""
            if text:
                on_text(text)

    return Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True)
