"""A probe of the chat template: how many answers to a few plain prompts end by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigpt.transformer.arch import decodes_batches
from minigpt.transformer.ends import end_tokens

# Prompts that belong to no field and want a short answer.
PROMPTS = ("Name three colors.", "What is the capital of France?", "Say hello.", "Name an animal.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatProbe:
    """Result of the probe.

    Attributes:
        ended: number of answers that end.
        prompts: number of prompts; 0 where there is no chat template.
    """

    ended: int
    prompts: int


def probe_chat(model: Any, tokenizer: Any, *, tokens: int) -> ChatProbe:
    """Answer each prompt greedily in the chat template, and count the answers that end within so many tokens.

    A specialist is not trained on chats, and may have forgotten that an answer ends.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        tokens: longest answer.
    """
    if not tokenizer.chat_template:
        return ChatProbe(ended=0, prompts=0)
    import torch

    ends = torch.tensor(sorted(end_tokens(tokenizer, model.config, model.generation_config)), device=model.device)
    rows, ended = _prompts(tokenizer), 0
    for batch in [rows] if decodes_batches(model.config) else [[row] for row in rows]:
        ids, mask = _left_padded(batch)
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=ends.tolist() or None,
                pad_token_id=ends.tolist()[0] if len(ends) else 0,
            )
        ended += int(torch.isin(output[:, ids.shape[1] :], ends).any(dim=1).sum())
    return ChatProbe(ended=ended, prompts=len(PROMPTS))


def _prompts(tokenizer: Any) -> list[list[int]]:
    """Put the prompts into the chat template."""
    return [
        list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        )
        for prompt in PROMPTS
    ]


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Pad prompts on the left, where an answer does not follow."""
    import torch

    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
