"""The plain references, against arithmetic by hand and PyTorch's own layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from minigpt.conditional import reference
from minigpt.errors import UnknownName


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_a_tree_by_hand() -> None:
    # Scores of x = (1, 2): root 1, left child -2, right child 3 (bias included). The root leads to the right.
    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    w_in = torch.tensor([[[1.0, 0.0], [0.0, -1.0], [1.0, 1.0]]])
    w_out = torch.tensor([[[1.0, 0.0], [10.0, 0.0], [0.0, 100.0]]])
    bias = torch.zeros(1, 3)
    path = reference.tree_path(x, w_in, bias, None, depth=1)
    assert path.tolist() == [[[0, 2]], [[0, 1]]]
    out = reference.tree_ffn(x, w_in, bias, None, w_out, depth=1, activation="relu")
    assert out.tolist() == [[1.0, 300.0], [0.0, 0.0]]
    # A bias of 2 turns the second token's root to the right, where its score is 1.
    bias[0, 0] = 2.0
    out = reference.tree_ffn(x, w_in, bias, None, w_out, depth=1, activation="relu")
    assert out.tolist() == [[3.0, 300.0], [1.0, 100.0]]


def test_a_score_of_zero_leads_to_the_left_in_trees_and_to_the_right_in_leaves() -> None:
    x, zero = torch.ones(1, 2), torch.zeros(1, 3, 2)
    assert reference.tree_path(x, zero, None, None, depth=1).tolist() == [[[0, 1]]]
    assert reference.leaf_of(x, zero[0, :1], torch.zeros(1), depth=1).tolist() == [1]


def test_the_gate_decides_the_path_and_the_input_score_does_not() -> None:
    x = torch.tensor([[1.0, 1.0]])
    w_in = torch.tensor([[[-1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]])
    w_gate = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    w_out = torch.eye(3).unsqueeze(0)[..., :2] + 1.0
    silu = 1 / (1 + math.exp(-1))
    out = reference.tree_ffn(x, w_in, None, w_gate, w_out, depth=1, activation="silu")
    expected = silu * -1 * w_out[0, 0] + silu * 3 * w_out[0, 2]
    torch.testing.assert_close(out[0], expected)


def test_a_tree_of_depth_0_is_a_dense_layer_of_its_roots() -> None:
    x, w_in, b_in, w_out = normal(5, 4), normal(3, 1, 4), normal(3, 1), normal(3, 1, 4)
    tree = reference.tree_ffn(x, w_in, b_in, None, w_out, depth=0, activation="gelu")
    dense = functional.linear(functional.gelu(functional.linear(x, w_in[:, 0], b_in[:, 0])), w_out[:, 0].T)
    torch.testing.assert_close(tree, dense)


def test_the_mixture_by_hand() -> None:
    # Three decisions with logits 0, ln 3, -ln 3: probabilities 1/2, 3/4, 1/4.
    x, bias = torch.zeros(1, 2), torch.tensor([0.0, math.log(3), -math.log(3)])
    mixture = reference.leaf_mixture(x, torch.zeros(3, 2), bias, depth=2)
    torch.testing.assert_close(mixture, torch.tensor([[1 / 8, 3 / 8, 3 / 8, 1 / 8]]))


@pytest.mark.parametrize("gated", [False, True])
def test_sure_decisions_make_the_soft_form_the_hard_one(gated: bool) -> None:
    x, leaves, width = normal(7, 4), 8, 3
    gate = normal(leaves, width, 4) if gated else None
    weights = (normal(leaves, width, 4), normal(leaves, width), gate, normal(leaves, width, 4) * 2, normal(leaves, 4))
    nodes = (normal(7, 4) * 1e4, normal(7) * 1e4)
    soft = reference.leaf_ffn_soft(x, *nodes, *weights, depth=3, activation="silu")
    hard = reference.leaf_ffn(x, *nodes, *weights, depth=3, activation="silu")
    torch.testing.assert_close(soft, hard)
    assert len(set(reference.leaf_of(x, *nodes, depth=3).tolist())) > 1


def test_the_output_bias_of_the_leaf_counts_in_the_hard_form() -> None:
    x, zero = normal(1, 4), torch.zeros(2, 3, 4, dtype=torch.float64)
    bias = normal(2, 4)
    out = reference.leaf_ffn(
        x, normal(1, 4), normal(1), zero, zero[..., 0], None, zero, bias, depth=1, activation="gelu"
    )
    leaf = int((x[0] @ normal(1, 4)[0] + normal(1)[0]) >= 0)
    torch.testing.assert_close(out[0], bias[leaf])


def test_dense_against_the_layers_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    torch.manual_seed(0)
    mlp = LlamaMLP(LlamaConfig(hidden_size=8, num_attention_heads=2, intermediate_size=12, hidden_act="silu")).double()
    x = normal(5, 8)
    up, gate, down = mlp.up_proj.weight, mlp.gate_proj.weight, mlp.down_proj.weight
    torch.testing.assert_close(reference.dense_ffn(x, up, None, gate, down.T, activation="silu"), mlp(x))
    every = reference.topk_ffn(x, up, None, gate, down.T, k=12, activation="silu")
    torch.testing.assert_close(every, mlp(x))
    none = reference.threshold_ffn(x, up, None, gate, down.T, t_in=0, t_gate=0, t_out=0, activation="silu")
    torch.testing.assert_close(none, mlp(x))


def test_top_k_and_thresholds_by_hand() -> None:
    x, eye = torch.tensor([[3.0, -1.0, 2.0]]), torch.eye(3)
    largest = reference.topk_ffn(x, eye, None, None, eye, k=2, activation="relu")
    assert largest.tolist() == [[3.0, 0.0, 2.0]]
    limits = {"t_in": 1.0, "t_gate": 0.0, "t_out": 2.0}
    assert reference.threshold_ffn(x, eye, None, None, eye, **limits, activation="relu").tolist() == [[3.0, 0.0, 0.0]]
    # The gate reads all of x, the input only what is above 1 in size.
    gated = reference.threshold_ffn(x, eye, None, -eye, eye, **limits, activation="relu")
    assert gated.tolist() == [[0.0, 0.0, 0.0]]


def test_drelu_by_hand() -> None:
    x, eye = torch.tensor([[2.0, -1.0]]), torch.eye(2)
    assert reference.hidden_values(x, eye, None, eye, activation="drelu").tolist() == [[4.0, 0.0]]
    assert reference.hidden_values(x, -eye, None, eye, activation="drelu").tolist() == [[0.0, 0.0]]
    assert reference.hidden_values(x, -eye, None, eye, activation="relu").tolist() == [[-4.0, 0.0]]
    with pytest.raises(ValueError, match="gate"):
        reference.hidden_values(x, eye, None, None, activation="drelu")


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(UnknownName, match=r"'gelo'.*Did you mean 'gelu'"):
        reference.activation_of("gelo")
