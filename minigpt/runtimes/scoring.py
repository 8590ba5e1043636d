"""Adapter that lets `minigpt.evaluation` measure any runtime like a transformers model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.runtimes.base import Runtime


class ScoringModel:
    """A runtime with the few attributes of a transformers model that measuring needs.

    It names no attention implementation that is known, so that measuring sends it ordinary causal rows only: no
    runtime but PyTorch takes a mask that branches.
    """

    training = False
    dtype = torch.float32

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.device = torch.device("cpu")
        config = runtime.config
        self.config = SimpleNamespace(
            vocab_size=config.vocab_size,
            max_position_embeddings=getattr(config, "max_position_embeddings", None),
            model_type=config.model_type,
            _attn_implementation="runtime",
        )

    def eval(self) -> ScoringModel:
        """Do nothing; a runtime has no other mode."""
        return self

    def train(self, _mode: bool = True) -> ScoringModel:
        """Do nothing; a runtime cannot be trained."""
        return self

    def get_output_embeddings(self) -> None:
        """Return None: there is no output layer to call on selected positions, so all logits are computed."""

    def __call__(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Compute logits [batch, length, vocabulary] of right-padded rows; causal attention never sees the padding."""
        ids = input_ids.numpy()
        return SimpleNamespace(logits=torch.from_numpy(self.runtime.logits(ids, np.ones_like(ids))))


def scoring_model(runtime: Runtime) -> Any:
    """Return a model for :func:`minigpt.evaluation.evaluate`: a PyTorch model as it is, any other runtime wrapped."""
    return getattr(runtime, "model", None) or ScoringModel(runtime)
