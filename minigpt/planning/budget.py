"""Budget of a plan: the target size, and the shapes that the method, `--kinds`, the settings and the family allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from minigpt.errors import PlanError
from minigpt.methods import Method, resolve
from minigpt.planning import Limits, Sensitivity, allocate
from minigpt.planning.allocate import NEURON_STEP, VOCAB_STEP
from minigpt.planning.settings import PlanSettings
from minigpt.pruning import vocab
from minigpt.transformer.arch import (
    arch_of,
    check_shape,
    fixed_layers,
    legal_experts,
    legal_kv_groups,
    shape_of,
    unit_costs,
)
from minigpt.transformer.costs import UnitCosts
from minigpt.transformer.specs import ArchSpec
from minigpt.types import AXES, Shape

# Smallest fractions of layers and neurons that a plan over all axes keeps.
FEWEST_LAYERS = 0.4
FEWEST_NEURONS = 0.25
# Bytes of one entry in the header of a safetensors file, besides the tensor's name.
ENTRY_BYTES = 84
# Axes that each kind of pruning cuts.
AXES_OF_KIND: Mapping[str, frozenset[str]] = {
    "linear": frozenset({"ffn", "kv_groups"}),
    "activation": frozenset({"ffn"}),
    "embedding": frozenset({"vocab"}),
    "experts": frozenset({"experts"}),
}
# Axis and kind of pruning of each width that can be set.
KINDS_OF_WIDTH: Mapping[str, tuple[str, str]] = {
    "layers": ("layers", "layers"),
    "intermediate_size": ("ffn", "activation or linear"),
    "kv_groups": ("kv_groups", "linear"),
    "vocab_size": ("vocab", "embedding"),
    "experts": ("experts", "experts"),
}
# A sensitivity without costs, for plans in which there is nothing to decide.
FREE = Sensitivity(curves={axis: ((1.0, 0.0),) for axis in AXES}, source="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The size to reach, and the shapes that may reach it.

    Attributes:
        target: parameters to keep.
        costs: parameters of each unit.
        limits: the allowed shapes.
        slack: how far from the target a method with few axes, or a parent with experts, may end: the parameters of one
            layer, or of one expert in every layer.
    """

    target: int
    costs: UnitCosts
    limits: Limits
    slack: int

    @property
    def choices(self) -> int:
        """Number of axes on which there is something to decide."""
        limits = self.limits
        ranges = (limits.neurons[0] < limits.neurons[1], limits.vocab[0] < limits.vocab[1])
        return sum(ranges) + sum(len(numbers) > 1 for numbers in (limits.layers, limits.kv_groups, limits.experts))

    def shape(self, parent: Shape, sensitivity: Sensitivity) -> Shape:
        """Find the shape of the target size with the smallest expected cost."""
        return allocate(parent, self.costs, self.target, sensitivity, self.limits, slack=self.slack)


def budget_for(
    config: Any,
    tokenizer: Any,
    method: Method,
    target: int,
    *,
    settings: PlanSettings,
    kinds: Collection[str] | None = None,
) -> Budget:
    """Set up the budget: the target, and the shapes that the method, `kinds` and the settings allow.

    Args:
        config: the parent's Hugging Face config, or its model.
        tokenizer: the parent's tokenizer.
        method: the row of the table; only its axes are cut.
        target: parameters to keep, of :meth:`minigpt.planning.target.Target.parameters`.
        settings: widths that are given instead of planned.
        kinds: kinds of pruning that are allowed (None: all, whole layers too).

    Raises:
        PlanError: nothing is left to remove, or a given width does not fit.
    """
    counted = resolve(method.config)(config) if method.config is not None else config
    costs, parent = unit_costs(counted), shape_of(config)
    step = max(costs.layer(parent), parent.layers * costs.experts(parent) // max(1, parent.experts))
    return Budget(
        target=target,
        costs=costs,
        limits=_limits(config, tokenizer, method, allowed_axes(method, kinds, arch_of(config)), settings),
        slack=0 if method.axes >= family_axes(method, arch_of(config)) and not parent.experts else step,
    )


def header_bytes(folder: Path) -> int:
    """Estimate the bytes of a model's safetensors files that hold no weights: their headers."""
    header = 64
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as weights:
            header += sum(len(name) + ENTRY_BYTES for name in weights.keys())  # noqa: SIM118 (not a mapping)
    return header


def family_axes(method: Method, family: ArchSpec) -> frozenset[str]:
    """Return the axes of a family that a method can cut: neurons inside of experts go by a transformation alone."""
    inside = family.experts is not None and method.transform is None
    return family.axes - {"ffn"} if inside else family.axes


def allowed_axes(method: Method, kinds: Collection[str] | None, family: ArchSpec) -> frozenset[str]:
    """Return the axes that a method may cut where only these kinds of pruning are allowed (None: all).

    Args:
        method: the row of the table.
        kinds: kinds of pruning.
        family: decides which axes there are.

    Raises:
        PlanError: no axis is left.
    """
    axes = method.axes & family_axes(method, family)
    if method.axes and not axes:
        raise PlanError(
            f"Method {method.name} removes {', '.join(method.prunes)}, and {family.name} models have none of these to "
            "remove; choose another method (see `minigpt methods`)."
        )
    if kinds is None:
        return axes
    allowed = axes & frozenset[str]().union(*(AXES_OF_KIND[kind] for kind in kinds))
    if not allowed:
        raise PlanError(
            f"Method {method.name} removes {', '.join(method.prunes)}, and --kinds {','.join(kinds)} allows none of "
            f"these in {family.name} models; drop --kinds or choose another method (see `minigpt methods`)."
        )
    return allowed


def _limits(config: Any, tokenizer: Any, method: Method, axes: frozenset[str], settings: PlanSettings) -> Limits:
    """Collect the allowed shapes; a method that lacks some of the axes may cut more of those it has."""
    parent = shape_of(config)
    whole = method.axes >= family_axes(method, arch_of(config))
    fewest = max(2, round(parent.layers * FEWEST_LAYERS) if whole else 2, len(fixed_layers(config)))
    fewest = min(parent.layers, fewest)
    narrowest = (
        round(parent.intermediate_size * FEWEST_NEURONS) if whole else min(NEURON_STEP, parent.intermediate_size)
    )
    # A tokenizer whose tokens cannot be chosen from is read only where some of them may go.
    smallest = min(parent.vocab_size, _smallest_vocabulary(tokenizer)) if "vocab" in axes else parent.vocab_size
    allowed = Limits(
        layers=tuple(range(fewest, parent.layers + 1)) if "layers" in axes else (parent.layers,),
        kv_groups=legal_kv_groups(config) if "kv_groups" in axes else (parent.kv_groups,),
        neurons=(narrowest if "ffn" in axes else parent.intermediate_size, parent.intermediate_size),
        vocab=(smallest, parent.vocab_size),
        cut_vocab=len(tokenizer) - 1,
        experts=legal_experts(config) if "experts" in axes else (parent.experts,),
    )
    _check_fixed(settings, config, method, axes, tokenizer)
    return replace(
        allowed,
        layers=allowed.layers if settings.layers is None else (settings.layers,),
        kv_groups=allowed.kv_groups if settings.kv_groups is None else (settings.kv_groups,),
        neurons=allowed.neurons if settings.intermediate_size is None else (settings.intermediate_size,) * 2,
        vocab=allowed.vocab if settings.vocab_size is None else (settings.vocab_size,) * 2,
        experts=allowed.experts if settings.experts is None else (settings.experts,),
    )


def _check_fixed(settings: PlanSettings, config: Any, method: Method, axes: frozenset[str], tokenizer: Any) -> None:
    """Refuse given widths that do not fit the parent, the method or the kinds allowed."""
    parent = shape_of(config)
    fixed = {name: getattr(settings, name) for name in KINDS_OF_WIDTH if getattr(settings, name) is not None}
    check_shape(config, replace(parent, **fixed))
    for name, width in fixed.items():
        axis, needed = KINDS_OF_WIDTH[name]
        if width == getattr(parent, name) or axis in axes:
            continue
        if axis not in family_axes(method, arch_of(config)):
            raise PlanError(f"plan.{name}={width}: a {config.model_type} has no {axis} to remove; drop the setting.")
        if axis not in method.axes:
            raise PlanError(f"plan.{name}={width}: method {method.name} removes {', '.join(method.prunes)}; drop one.")
        raise PlanError(f"plan.{name}={width} needs pruning of kind {needed}, which --kinds leaves out; drop one.")
    size, most = settings.vocab_size, min(parent.vocab_size, len(tokenizer))
    if size is None or size == parent.vocab_size:
        return
    if size % VOCAB_STEP or not 0 < size < most:
        raise PlanError(f"plan.vocab_size={size} must be a multiple of {VOCAB_STEP} below the parent's {most} tokens.")
    if size < (least := len(vocab.closure(tokenizer, ()))):
        raise PlanError(
            f"plan.vocab_size={size} is too small: {least} tokens are in every vocabulary of this tokenizer. Ask for "
            f"{-(-least // VOCAB_STEP) * VOCAB_STEP} or more."
        )


def _smallest_vocabulary(tokenizer: Any) -> int:
    """Return the smallest vocabulary to plan with: the required tokens and about a thousand others."""
    return -(-(len(vocab.closure(tokenizer, ())) + 1280) // 64) * 64
