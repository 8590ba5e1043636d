"""Any runtime as `minigpt.evaluation` expects a model, so that there is one way to measure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.runtimes.base import Runtime


class ScoringModel:
    """The few attributes of a transformers model that measuring needs, over a runtime's `logits`.

    It tells no attention implementation, so that measuring gives it only ordinary causal rows: no runtime but PyTorch
    takes a mask that branches.
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
        """A runtime has no other mode."""
        return self

    def train(self, _mode: bool = True) -> ScoringModel:
        """A runtime cannot be trained."""
        return self

    def get_output_embeddings(self) -> None:
        """There is no module to hand chosen hidden states to: all logits are made."""

    def __call__(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Logits [batch, length, vocabulary] of right-padded rows; in causal attention the padding is never seen."""
        ids = input_ids.numpy()
        return SimpleNamespace(logits=torch.from_numpy(self.runtime.logits(ids, np.ones_like(ids))))


def scoring_model(runtime: Runtime) -> Any:
    """What to hand to :func:`minigpt.evaluation.evaluate`: PyTorch models as they are, others wrapped."""
    return getattr(runtime, "model", None) or ScoringModel(runtime)
