"""SliceGPT (Ashkboos et al. 2024): rotate the residual stream to its principal components and slice the last ones off.

With the norm weights moved into the projections that read them, RMSNorm commutes with a rotation Q of the stream
(paper, section 3.2). So every place of the stream may have its own rotation: projections that read the stream are
multiplied by Q, projections that write to it by Q^T, and a residual connection by Q^T Q' of the two places that it
joins (paper, figure 4). Q holds the principal directions of the stream on calibration text; keeping the first `width`
of them shrinks all matrices. Stock classes cannot load the result: its residual connections have matrices, and its
stream is narrower than the hidden size of the config.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import CorpusError, PlanError, UnsupportedModel
from minigpt.methods.material import Material, PaperForm
from minigpt.pruning.slicing import linear
from minigpt.pruning.streams import layer_arguments
from minigpt.transformer.arch import arch_of, base_model, decoder_layers, shape_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.families import ArchSpec

# Names of the norms in front of attention, FFN and head, in the families that are supported.
ATTENTION_NORM, FFN_NORM, FINAL_NORM = "input_layernorm", "post_attention_layernorm", "norm"
# The sliced hidden size is a multiple of this.
WIDTH_STEP = 8
# Fraction of the mean diagonal that is added to the Gram matrix, as in the authors' program.
DAMPING = 0.01


class UnitNorm(nn.Module):
    """RMSNorm without weights, which divides by the full hidden size although fewer directions are left."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.size, self.epsilon = size, epsilon

    def forward(self, states: Tensor) -> Tensor:
        """Normalize states [..., width]."""
        values = states.float()
        scale = torch.rsqrt(values.square().sum(-1, keepdim=True) / self.size + self.epsilon)
        return (values * scale).to(states.dtype)


@dataclass(slots=True, kw_only=True)
class _Chunk:
    """One batch on its way through the layers: sliced stream, indices of text rows, keyword arguments of each layer."""

    stream: Tensor
    rows: Tensor
    arguments: list[dict[str, Any]]


@torch.no_grad()
def rotate_and_slice(model: Any, batches: Iterable[Batch], width: int) -> Any:
    """Rotate and slice a dense model in place, layer by layer, on the stream that the sliced layers below produce.

    Args:
        model: the dense model in float32; its head is untied, since the final norm's weights move into it.
        batches: calibration text.
        width: directions of the hidden size that stay; with all of them the model computes what it did before.

    Raises:
        UnsupportedModel: the family has norms or factors that do not commute with a rotation.
        CorpusError: the batches hold no text.
    """
    spec, layers, size = arch_of(model), list(decoder_layers(model)), int(model.config.hidden_size)
    if not spec.rotates:
        raise UnsupportedModel(
            f"slicegpt needs a family with RMS norms in front of attention and FFN and nothing else, and {spec.name} "
            "differs; choose another method."
        )
    chunks = _chunks(model, layers, batches)
    rotation = _principal([(chunk.stream, chunk.rows) for chunk in chunks], width)
    _untie(model)
    embedding = model.get_input_embeddings()
    embedding.weight = nn.Parameter(embedding.weight @ rotation)
    embedding.embedding_dim = width
    for chunk in chunks:
        chunk.stream = chunk.stream @ rotation
    for index, layer in enumerate(layers):
        rotation = _Layer(layer, spec, index, size).rotate(chunks, rotation, width)
    head, body = model.get_output_embeddings(), base_model(model)
    _fuse(getattr(body, FINAL_NORM), [head], rotation)
    setattr(body, FINAL_NORM, _unit(getattr(body, FINAL_NORM), size))
    return model


class _Layer:
    """One decoder layer that is being rotated and sliced."""

    def __init__(self, layer: Any, spec: ArchSpec, index: int, size: int) -> None:
        self.layer, self.spec, self.index, self.size = layer, spec, index, size
        self.attention = layer.get_submodule(spec.attention_module)
        self.mlp = layer.get_submodule(spec.ffn_module)

    def rotate(self, chunks: list[_Chunk], rotation: Tensor, width: int) -> Tensor:
        """Rotate attention, then FFN, and move the chunks' streams behind the layer; returns the rotation there."""
        readers = (self.spec.query, *self.spec.key_value)
        middle = self._half(chunks, rotation, width, ATTENTION_NORM, readers, self.spec.output)
        after = self._half(chunks, middle, width, FFN_NORM, self.spec.ffn_rows, self.spec.ffn_columns)
        self.layer.attention_shortcut = nn.Parameter(rotation.T @ middle)
        self.layer.ffn_shortcut = nn.Parameter(middle.T @ after)
        self.layer.forward = _forward(self.layer, self.attention, self.mlp)
        return after

    def _half(
        self, chunks: list[_Chunk], rotation: Tensor, width: int, norm: str, readers: tuple[str, ...], writer: str
    ) -> Tensor:
        """Rotate the readers of one half, find the principal directions behind it, and rotate its writer to them."""
        old, output = getattr(self.layer, norm), linear(self.layer, writer)
        _fuse(old, [linear(self.layer, path) for path in readers], rotation)
        setattr(self.layer, norm, _unit(old, self.size))
        full = []
        for chunk in chunks:
            normed = getattr(self.layer, norm)(chunk.stream)
            added = self._attend(normed, chunk) if norm == ATTENTION_NORM else self.mlp(normed)
            full.append((chunk.stream @ rotation.T + added, chunk.rows))
        following = _principal(full, width)
        output.weight = nn.Parameter(following.T @ output.weight)
        output.out_features = width
        if output.bias is not None:
            output.bias = nn.Parameter(following.T @ output.bias)
        for chunk, (states, _) in zip(chunks, full, strict=True):
            chunk.stream = states @ following
        return following

    def _attend(self, normed: Tensor, chunk: _Chunk) -> Tensor:
        """Run the layer's attention on normed states."""
        added: Tensor = self.attention(hidden_states=normed, **chunk.arguments[self.index])[0]
        return added


def _forward(layer: Any, attention: nn.Module, mlp: nn.Module) -> Any:
    """Make the forward pass of a rotated layer: the stock one with a matrix on each residual connection."""

    def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        attended: Tensor = attention(hidden_states=getattr(layer, ATTENTION_NORM)(hidden_states), **kwargs)[0]
        states = hidden_states @ layer.attention_shortcut + attended
        result: Tensor = states @ layer.ffn_shortcut + mlp(getattr(layer, FFN_NORM)(states))
        return result

    return forward


def _chunks(model: Any, layers: list[nn.Module], batches: Iterable[Batch]) -> list[_Chunk]:
    """Embed the text and capture what the decoder passes to each layer.

    Raises:
        CorpusError: the batches hold no text.
    """
    chunks = []
    for batch in batches:
        rows = (batch.segment_ids != 0).flatten().nonzero().squeeze(1).to(model.device)
        if len(rows):
            stream, arguments = layer_arguments(model, layers, batch)
            chunks.append(_Chunk(stream=stream, rows=rows, arguments=arguments))
    if not chunks:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    return chunks


def _principal(states: list[tuple[Tensor, Tensor]], width: int) -> Tensor:
    """Compute the `width` directions of largest mean square over the text rows, [hidden, width], orthonormal columns.

    The damping changes no direction, but keeps them stable.
    """
    device, size = states[0][0].device, states[0][0].shape[-1]
    gram = torch.zeros(size, size, dtype=torch.float64)
    for values, rows in states:
        texts = values.reshape(-1, size).index_select(0, rows)
        gram += (texts.T @ texts).cpu().double()
    gram.diagonal().add_(DAMPING * gram.diagonal().mean())
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors.flip(1)[:, :width].float().to(device)


def _fuse(norm: Any, modules: list[nn.Linear], rotation: Tensor) -> None:
    """Move a norm's weights into the projections that read it, and rotate their inputs."""
    weight = _weights(norm, rotation)
    for module in modules:
        module.weight = nn.Parameter((module.weight * weight) @ rotation)
        module.in_features = rotation.shape[1]


def _weights(norm: Any, like: Tensor) -> Tensor:
    """Compute the factors that a norm multiplies by, from its output: some families store w, others w - 1."""
    ones = torch.ones(like.shape[0], dtype=torch.float32, device=like.device)
    factors: Tensor = norm(ones) * (1 + _epsilon(norm)) ** 0.5
    return factors


def _unit(norm: Any, size: int) -> UnitNorm:
    """Make the norm without weights that replaces a norm."""
    return UnitNorm(size, _epsilon(norm))


def _epsilon(norm: Any) -> float:
    """Return the epsilon of a norm, which families name differently."""
    return float(getattr(norm, "variance_epsilon", None) or norm.eps)


def _untie(model: Any) -> None:
    """Give the head its own copy of the embedding's weights."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = False


def parameters_at(model: Any, width: int) -> int:
    """Count the parameters of a dense model after slicing to `width`, the residual matrices included."""
    spec, shape = arch_of(model), shape_of(model)
    layer = decoder_layers(model)[0]
    attention = layer.get_submodule(spec.attention_module)
    readers = [linear(layer, path) for path in (spec.query, *spec.key_value, *spec.ffn_rows)]
    writers = [linear(layer, path) for path in (spec.output, spec.ffn_columns)]
    sides = sum(module.out_features for module in readers) + sum(module.in_features for module in writers)
    biases = sum(module.out_features for module in readers if module.bias is not None)
    written = sum(width for module in writers if module.bias is not None)
    inner = sum(parameter.numel() for name, parameter in attention.named_parameters() if "norm" in name)
    return 2 * shape.vocab_size * width + shape.layers * (sides * width + 2 * width**2 + biases + written + inner)


def width_for(model: Any, target: int) -> int:
    """Find the largest multiple of 8 directions that leaves at most `target` parameters; at least 8."""
    size = int(model.config.hidden_size)
    fitting = [width for width in range(WIDTH_STEP, size + 1, WIDTH_STEP) if parameters_at(model, width) <= target]
    return max(fitting, default=WIDTH_STEP)


def paper_form(material: Material, target: int) -> PaperForm:
    """Rotate and slice to the widest stream, in steps of 8, that leaves at most `target` parameters.

    Raises:
        PlanError: even 8 directions leave more.
    """
    model, hidden = material.model, int(material.model.config.hidden_size)
    width = width_for(model, target)
    size = parameters_at(model, width)
    if size > target:
        raise PlanError(
            f"slicegpt leaves at least {size:,} parameters, and the target is {target:,}; ask for a larger target."
        )
    untied = " The head is untied and counts." if model.config.tie_word_embeddings else ""
    rotate_and_slice(model, material.batches, width)
    return PaperForm(
        model=model,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        note=f"SliceGPT as published: {width} of {hidden} directions of the hidden state are left. The matrices on the "
        f"residual connections count.{untied} No stock class loads the result.",
    )
