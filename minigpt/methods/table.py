"""The table of pruning methods: what each removes, how it decides, and what its results load in.

A method is one row of `METHODS`. Functions are named as "module:function" and imported on use, so that listing the
table costs nothing. A row may give any of:

`rank`: `(Material) -> Scores`, the importance of units; higher is kept, uniform widths are cut from it.
`layers`: `(Material, count: int) -> Ints`, which parent layers to keep, ascending; it overrules `rank` for layers. It
may return a `Collapse` instead, whose merges the plan then carries and `apply_plan` carries out.
`transform`: `(Material, PrunePlan) -> model`, cuts `material.model` to the plan by other means than slicing (merged
layers, say); the result must have exactly the plan's shape in stock classes.
`faithful`: `(Material, target: int) -> Masked`, the paper's own form at about `target` parameters, evaluated with
`--masked` and never exported; without it the shipped form is the faithful one.
`config`: `(config) -> config`, the parent's config with what the method adds to it (biases); sizes are counted by it.

A method with `rank` alone lets the planner choose layers by `Scores.layers`; one with `layers` alone removes layers
only. `axes` are the only ones the planner may cut to reach the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from minigpt.errors import UnknownName
from minigpt.types import AXES

Need = Literal["gradients", "loss search", "transformed model"]

STOCK = "stock transformers classes"
UNIFORM = f"{STOCK}: uniform widths, units chosen per layer"
FEWER_LAYERS = f"{STOCK}: fewer layers, widths untouched"
WIDTH = ("ffn", "kv_groups")
DEPTH = ("layers",)
EVERYTHING = ("ffn", "kv_groups", "layers", "embedding")
FROM_STATISTICS = "minigpt.methods.ranking:from_statistics"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of the table; the module's docstring says what the function references mean.

    `prunes`, `paper`, `loads` and `options` are what `minigpt methods` tells. `prunes` names `ffn` (neurons),
    `kv_groups`, `layers`, `embedding` (tokens, ranked by how often the domain uses them) or `hidden`. `loads` starts
    with "no" if the method has no shipped form. `repair` says whether the least-squares repair is a part of it.
    `masked` tells what `--masked` evaluates.
    """

    name: str
    prunes: tuple[str, ...]
    paper: str
    rank: str | None = None
    layers: str | None = None
    transform: str | None = None
    faithful: str | None = None
    config: str | None = None
    masked: str = "the shipped form, not saved"
    loads: str = UNIFORM
    options: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    repair: bool = False

    @property
    def axes(self) -> frozenset[str]:
        """The planner's axes that the method may cut: of `vocab`, `ffn`, `kv_groups`, `layers`."""
        return frozenset(AXES) & {"vocab" if name == "embedding" else name for name in self.prunes}

    @property
    def ships(self) -> bool:
        """Whether the method has a form that plain transformers loads."""
        return not self.loads.startswith("no")


_MINI_GPTS = "Valicenti et al. 2023, Mini-GPTs (arXiv 2312.12682)"

_DEEPER = "Gromov et al. 2024, The Unreasonable Ineffectiveness of the Deeper Layers (arXiv 2403.17887)"
_WHOLE_RANKING = "one ranking over all layers, per-layer widths, bias compensation in any family"

_ROWS = (
    Method(
        name="contextual",
        rank="minigpt.methods.ranking:contextual",
        prunes=EVERYTHING,
        paper=f"{_MINI_GPTS}; Sun et al. 2023, Wanda (2306.11695); Men et al. 2024, ShortGPT (2403.03853)",
        options={
            "kinds": "linear, activation: which evidence ranks the FFN neurons",
            "plan.contrast": "domain importance less this times general importance, standardized by layer [0]",
        },
        repair=True,
    ),
    Method(name="linear", rank=FROM_STATISTICS, prunes=EVERYTHING, paper=_MINI_GPTS, repair=True),
    Method(name="activation", rank=FROM_STATISTICS, prunes=EVERYTHING, paper=_MINI_GPTS, repair=True),
    Method(
        name="mini-gpt",
        rank="minigpt.methods.mini_gpts:structural",
        faithful="minigpt.methods.mini_gpts:masked",
        prunes=("ffn", "kv_groups", "embedding"),
        paper=_MINI_GPTS,
        masked="weights zeroed where mean magnitudes are at most epsilon; size = parameters that are not zero",
        options={
            "plan.epsilon": "--masked: threshold on mean magnitudes [the one that reaches the size]",
            "plan.epsilon_tokens": "--masked: threshold on a token's share of the text, -1 for none [0]",
        },
    ),
    Method(name="wanda", rank=FROM_STATISTICS, prunes=WIDTH, paper="Sun et al. 2023, Wanda (arXiv 2306.11695)"),
    Method(
        name="flap",
        rank=FROM_STATISTICS,
        transform="minigpt.methods.flap:compensated",
        faithful="minigpt.methods.flap:masked",
        config="minigpt.methods.flap:with_biases",
        prunes=WIDTH,
        paper="An et al. 2023, FLAP (arXiv 2312.11983)",
        masked=_WHOLE_RANKING,
        loads=f"{UNIFORM}; biases where the family's config has them",
    ),
    Method(
        name="llm-pruner",
        rank="minigpt.methods.llm_pruner:taylor",
        faithful="minigpt.methods.llm_pruner:masked",
        prunes=WIDTH,
        paper="Ma et al. 2023, LLM-Pruner (arXiv 2305.11627)",
        masked="first four and last two layers whole, the same share from each of the others",
        needs=("gradients",),
    ),
    Method(
        name="slicegpt",
        faithful="minigpt.methods.sliced:masked",
        prunes=("hidden",),
        paper="Ashkboos et al. 2024, SliceGPT (arXiv 2401.15024)",
        masked="rotated to principal components and sliced, matrices on the residual connections",
        loads="no: the residual connections need matrices; evaluate it with --masked",
        needs=("transformed model",),
    ),
    Method(name="magnitude", rank=FROM_STATISTICS, prunes=WIDTH, paper="baseline: weight norms"),
    Method(
        name="random",
        rank=FROM_STATISTICS,
        prunes=WIDTH,
        paper="baseline: chance",
        options={"seed": "seed of the random scores"},
    ),
    Method(
        name="shortgpt",
        layers="minigpt.methods.depth.methods:shortgpt",
        prunes=DEPTH,
        paper="Men et al. 2024, ShortGPT (arXiv 2403.03853)",
        loads=FEWER_LAYERS,
    ),
    Method(
        name="deeper-layers",
        layers="minigpt.methods.depth.methods:deeper_layers",
        prunes=DEPTH,
        paper=_DEEPER,
        loads=FEWER_LAYERS,
        options={"recipe": "deeper-layers: the paper's QLoRA healing"},
    ),
    Method(
        name="deepest",
        layers="minigpt.methods.depth.methods:deepest",
        prunes=DEPTH,
        paper=f"{_DEEPER}, the simple strategy",
        loads=FEWER_LAYERS,
        options={"recipe": "deeper-layers: the paper's QLoRA healing"},
    ),
    Method(
        name="greedy-blocks",
        layers="minigpt.methods.depth.methods:greedy_blocks",
        faithful="minigpt.methods.depth.methods:greedy_blocks_faithful",
        prunes=DEPTH,
        paper="Song et al. 2024, SLEB (arXiv 2402.09025); Zhong et al. 2024, BlockPruner (2406.10594)",
        masked="attentions and FFNs removed one by one (BlockPruner) instead of whole layers (SLEB)",
        loads=FEWER_LAYERS,
        options={"plan.protect_ends": "keep the first and the last layer [true]"},
        needs=("loss search",),
    ),
    Method(
        name="laco",
        layers="minigpt.methods.depth.methods:laco",
        prunes=DEPTH,
        paper="Yang et al. 2024, LaCo (arXiv 2402.11187)",
        loads=FEWER_LAYERS,
        needs=("loss search",),
    ),
)

METHODS: Mapping[str, Method] = {row.name: row for row in _ROWS}


def method_named(name: str) -> Method:
    """The row of a method.

    Raises:
        UnknownName: no such method; suggests the nearest.
    """
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]
