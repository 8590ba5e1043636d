"""What the planner may choose from: the axes of the method and of `--kinds`, fixed widths, and what loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from safetensors import safe_open

from minigpt import assets
from minigpt.errors import PlanError
from minigpt.methods import Method, method_named, resolve
from minigpt.pipeline.context import Context
from minigpt.pipeline.settings import PlanSettings
from minigpt.planning import Limits, Sensitivity, allocate
from minigpt.planning.allocate import NEURON_STEP, VOCAB_STEP
from minigpt.pruning import vocab
from minigpt.transformer.arch import UnitCosts, check_shape, legal_kv_groups, parameters_of, shape_of, unit_costs
from minigpt.types import AXES, Shape

FEWEST_LAYERS = 0.4
FEWEST_NEURONS = 0.25
ENTRY_BYTES = 84
AXES_OF_KIND: Mapping[str, frozenset[str]] = {
    "linear": frozenset({"ffn", "kv_groups"}),
    "activation": frozenset({"ffn"}),
    "embedding": frozenset({"vocab"}),
}
KINDS_OF_WIDTH: Mapping[str, tuple[str, str]] = {
    "layers": ("layers", "layers"),
    "intermediate_size": ("ffn", "activation or linear"),
    "kv_groups": ("kv_groups", "linear"),
    "vocab_size": ("vocab", "embedding"),
}
FREE = Sensitivity(curves={axis: ((1.0, 0.0),) for axis in AXES}, source="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The size to reach and the ways to reach it.

    `slack` is how far from the target, in parameters, a method with few axes may end: one layer's size.
    """

    target: int
    costs: UnitCosts
    limits: Limits
    slack: int

    @property
    def choices(self) -> int:
        """Axes on which there is something to decide."""
        limits = self.limits
        ranges = (limits.neurons[0] < limits.neurons[1], limits.vocab[0] < limits.vocab[1])
        return sum(ranges) + (len(limits.layers) > 1) + (len(limits.kv_groups) > 1)

    def shape(self, parent: Shape, sensitivity: Sensitivity) -> Shape:
        """The best shape of the size asked for."""
        return allocate(parent, self.costs, self.target, sensitivity, self.limits, slack=self.slack)


def check_target(context: Context) -> None:
    """Refuse a target that no shape can meet before any compute is spent on it.

    Raises:
        PlanError: says what the nearest shape is, or which width is wrong.
    """
    from transformers import AutoConfig

    config, method = AutoConfig.from_pretrained(context.parent.path), method_named(context.options.method)
    target_parameters(context, config)
    if context.options.masked and method.faithful is not None:
        return
    tokenizer = assets.load_tokenizer(context.parent.path)
    budget_for(context, config, tokenizer).shape(shape_of(config), FREE)


def budget_for(context: Context, config: Any, tokenizer: Any) -> Budget:
    """The size asked for and what the method, `--kinds` and `--set plan...` allow.

    Raises:
        PlanError: nothing is left to remove, or a fixed width does not fit.
    """
    method = method_named(context.options.method)
    counted = resolve(method.config)(config) if method.config is not None else config
    costs, parent = unit_costs(counted), shape_of(config)
    one_layer = costs.total(parent) - costs.total(replace(parent, layers=parent.layers - 1))
    return Budget(
        target=target_parameters(context, config),
        costs=costs,
        limits=_limits(context, method, config, tokenizer),
        slack=0 if method.axes == frozenset(AXES) else one_layer,
    )


def target_parameters(context: Context, config: Any) -> int:
    """Parameters to keep, the names in the header of the parent's weights allowed for."""
    options, header = context.options, 64
    for path in context.parent.path.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as weights:
            header += sum(len(name) + ENTRY_BYTES for name in weights.keys())  # noqa: SIM118 (not a mapping)
    return options.target.parameters(parameters_of(config), options.dtype, header=header)


def _axes(context: Context, method: Method) -> frozenset[str]:
    """The axes that may be cut."""
    kinds = context.options.kinds
    if kinds is None:
        return method.axes
    allowed = method.axes & frozenset[str]().union(*(AXES_OF_KIND[kind] for kind in kinds))
    if not allowed:
        raise PlanError(
            f"Method {method.name} removes {', '.join(method.prunes)}, and --kinds {','.join(kinds)} allows none of "
            "these; drop --kinds or choose another method (see `minigpt methods`)."
        )
    return allowed


def _limits(context: Context, method: Method, config: Any, tokenizer: Any) -> Limits:
    """What may be chosen. A method that lacks some of the axes may go further on those it has."""
    parent, chosen, axes = shape_of(config), context.settings.plan, _axes(context, method)
    whole = method.axes == frozenset(AXES)
    fewest = min(parent.layers, max(2, round(parent.layers * FEWEST_LAYERS) if whole else 2))
    narrowest = (
        round(parent.intermediate_size * FEWEST_NEURONS) if whole else min(NEURON_STEP, parent.intermediate_size)
    )
    smallest = min(parent.vocab_size, _smallest_vocabulary(tokenizer))
    allowed = Limits(
        layers=tuple(range(fewest, parent.layers + 1)) if "layers" in axes else (parent.layers,),
        kv_groups=legal_kv_groups(config) if "kv_groups" in axes else (parent.kv_groups,),
        neurons=(narrowest if "ffn" in axes else parent.intermediate_size, parent.intermediate_size),
        vocab=(smallest if "vocab" in axes else parent.vocab_size, parent.vocab_size),
        cut_vocab=len(tokenizer) - 1,
    )
    _check_fixed(chosen, config, method, axes, len(tokenizer))
    return replace(
        allowed,
        layers=allowed.layers if chosen.layers is None else (chosen.layers,),
        kv_groups=allowed.kv_groups if chosen.kv_groups is None else (chosen.kv_groups,),
        neurons=allowed.neurons if chosen.intermediate_size is None else (chosen.intermediate_size,) * 2,
        vocab=allowed.vocab if chosen.vocab_size is None else (chosen.vocab_size,) * 2,
    )


def _check_fixed(chosen: PlanSettings, config: Any, method: Method, axes: frozenset[str], tokens: int) -> None:
    """Refuse widths of `--set plan...` that do not fit the parent, the method or the kinds allowed."""
    parent = shape_of(config)
    fixed = {name: getattr(chosen, name) for name in KINDS_OF_WIDTH if getattr(chosen, name) is not None}
    check_shape(config, replace(parent, **fixed))
    for name, width in fixed.items():
        axis, needed = KINDS_OF_WIDTH[name]
        if width == getattr(parent, name) or axis in axes:
            continue
        if axis not in method.axes:
            raise PlanError(f"plan.{name}={width}: method {method.name} removes {', '.join(method.prunes)}; drop one.")
        raise PlanError(f"plan.{name}={width} needs pruning of kind {needed}, which --kinds leaves out; drop one.")
    size, most = chosen.vocab_size, min(parent.vocab_size, tokens)
    if size not in (None, parent.vocab_size) and (size % VOCAB_STEP or not 0 < size < most):
        raise PlanError(f"plan.vocab_size={size} must be a multiple of {VOCAB_STEP} below the parent's {most} tokens.")


def _smallest_vocabulary(tokenizer: Any) -> int:
    """The fewest tokens to plan with: what must be kept, and a thousand to speak with."""
    return -(-(len(vocab.closure(tokenizer, ())) + 1280) // 64) * 64
