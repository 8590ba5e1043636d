"""Budget of a build: the parameters to keep, and the shapes that are allowed."""

from __future__ import annotations

from typing import Any

from minigpt import assets
from minigpt.methods import method_named
from minigpt.pipeline.run import Run
from minigpt.planning.budget import FREE, Budget, budget_for, header_bytes
from minigpt.transformer.arch import parameters_of, shape_of


def check_target(run: Run, parent: assets.Parent) -> None:
    """Refuse a target that no shape can meet before text is read or any compute is spent on it.

    The parent's config and tokenizer decide; its weights are not loaded.

    Raises:
        PlanError: the target cannot be met; the error says which size is nearest, or which width is wrong.
    """
    from transformers import AutoConfig

    config, method = AutoConfig.from_pretrained(parent.path), method_named(run.options.method)
    target_parameters(run, parent, config)
    if run.options.masked and method.paper_form is not None:
        return
    budget_of(run, parent, config, assets.load_tokenizer(parent.path)).shape(shape_of(config), FREE)


def target_parameters(run: Run, parent: assets.Parent, config: Any) -> int:
    """Return the number of parameters to keep; a target in bytes leaves room for the header of the weights' file."""
    return run.options.target.parameters(parameters_of(config), run.options.dtype, header=header_bytes(parent.path))


def budget_of(run: Run, parent: assets.Parent, config: Any, tokenizer: Any) -> Budget:
    """Set up the budget of the build's method and target."""
    return budget_for(
        config,
        tokenizer,
        method_named(run.options.method),
        target_parameters(run, parent, config),
        settings=run.settings.plan,
        kinds=run.options.kinds,
    )
