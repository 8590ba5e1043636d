"""Parents of random weights for `large.py`: written layer by layer, never in memory as a whole."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from minigpt.streaming.writer import SafetensorsWriter
from minigpt.transformer.arch import arch_of
from minigpt.transformer.batches import Batch

WINDOW = 512
# Shapes of published models, by the names of their papers: what their config.json says.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "opt-1.3b": {
        "model_type": "opt",
        "vocab_size": 50272,
        "hidden_size": 2048,
        "word_embed_proj_dim": 2048,
        "ffn_dim": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "architectures": ["OPTForCausalLM"],
    },
    "phi-1.5": {
        "model_type": "phi",
        "vocab_size": 51200,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "architectures": ["PhiForCausalLM"],
    },
}


def config_for(options: argparse.Namespace) -> Any:
    """Return the config of the parent: a published shape, or Llama's form with heads of 128 where they fit."""
    from transformers import AutoConfig, LlamaConfig

    if options.shape:
        return AutoConfig.for_model(**SHAPES[options.shape], bos_token_id=0, eos_token_id=1, dtype="bfloat16")
    head = 128 if options.hidden % 128 == 0 and options.hidden >= 1024 else 64
    return LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        intermediate_size=options.ffn,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // head,
        num_key_value_heads=options.kv_heads or options.hidden // head,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )


def make_parent(folder: Path, config: Any) -> None:
    """Write a parent of random weights, one shard a layer; one that is there already is kept."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        classes: Any = AutoModelForCausalLM
        model = classes.from_config(config)
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    inside, tied = f"{arch_of(config).layers}.", config.tie_word_embeddings
    for name, value in model.state_dict().items():
        shard = name.removeprefix(inside).split(".")[0] if name.startswith(inside) else "ends"
        if not (tied and name == "lm_head.weight"):
            shards.setdefault(shard, {})[name] = tuple(value.shape)
    index: dict[str, str] = {}
    generator = torch.Generator().manual_seed(0)
    for number, shapes in enumerate(shards.values(), 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with SafetensorsWriter(folder / file, shapes, torch.bfloat16) as writer:
            for name, shape in shapes.items():
                writer.write(name, _random(name, shape, generator))
                index[name] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "done").touch()


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw a tensor: ones for norms, zeros for biases; matrices repeat a block of rows, faster than drawing all."""
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith(".bias") else 1.0, dtype=torch.bfloat16)
    rows = min(shape[0], 512)
    block = (torch.randn(rows, shape[1], generator=generator) * shape[1] ** -0.5).to(torch.bfloat16)
    return block.repeat(-(-shape[0] // rows), 1)[: shape[0]]


def tokenizer() -> Any:
    """Make a byte-level tokenizer without merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(["<s>", "</s>", *letters])}
    plain = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<s>")


def text(options: argparse.Namespace, vocabulary: int) -> list[Batch]:
    """Draw calibration text: windows of two pieces each.

    Args:
        options: of the command line.
        vocabulary: the parent's number of tokens.
    """
    generator, rows = torch.Generator().manual_seed(1), max(1, options.batch_tokens // WINDOW)
    batches = []
    for start in range(0, options.tokens, rows * WINDOW):
        count = min(rows, -(-(options.tokens - start) // WINDOW))
        ids = torch.randint(2, vocabulary, (count, WINDOW), generator=generator)
        half = torch.arange(WINDOW) // (WINDOW // 2)
        batches.append(
            Batch(
                input_ids=ids,
                position_ids=(torch.arange(WINDOW) % (WINDOW // 2)).expand(count, -1).clone(),
                segment_ids=(half + 1).expand(count, -1).clone(),
            )
        )
    return batches
