"""SliceGPT as a row of the table: the width that reaches a size, evaluated in memory."""

from __future__ import annotations

from minigpt.errors import PlanError
from minigpt.methods.material import Masked, Material
from minigpt.methods.slicegpt import parameters_at, rotate_and_slice, width_for


def masked(material: Material, target: int) -> Masked:
    """Rotate and slice to the widest stream, in steps of 8, that leaves at most `target` parameters.

    Raises:
        PlanError: even 8 directions leave more.
    """
    model, hidden = material.model, int(material.model.config.hidden_size)
    width = width_for(model, target)
    size = parameters_at(model, width)
    if size > target:
        raise PlanError(
            f"slicegpt leaves {size:,} parameters at its narrowest, {target:,} are asked for; ask for more."
        )
    untied = " The head is untied and counts." if model.config.tie_word_embeddings else ""
    rotate_and_slice(model, material.batches, width)
    return Masked(
        model=model,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        note=f"SliceGPT as published: {width} of {hidden} directions of the hidden state are left. The matrices on the "
        f"residual connections count.{untied} No stock class loads the result.",
    )
