"""The table of pruning methods: what each one removes, how it ranks units, and what its results load in.

A method is one row of `METHODS`; a user's own row, outside the package, is named as `package.module:ROW`. Functions
are given as "module:function", which is imported on use so that listing the table stays fast, or as functions. A row
may give any of:

`rank`: `(Material) -> Scores`, the importance of units; higher is kept, uniform widths are cut from it.
`layers`: `(Material, count: int) -> Ints`, the parent's layers to keep, ascending; it overrules `rank` for layers. It
may return a `Collapse` instead: the plan then holds its merges, and `apply_plan` carries them out.
`transform`: `(Material, PrunePlan) -> model`, cuts `material.model` to the plan by other means than slicing; the result
must have exactly the plan's shape in stock classes.
`paper_form`: `(Material, target: int) -> PaperForm`, the method exactly as in its paper, at about `target` parameters;
`--paper-form` evaluates it, and it is never exported. Without it the shipped form is the paper's.
`config`: `(config) -> config`, the parent's config with what the method adds to it (biases); sizes are counted by it.

A method with `rank` alone lets the planner choose layers by `Scores.layers`; one with `layers` alone removes layers
only. `axes` are the only ones the planner may cut to reach the size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from minigpt.errors import ConfigError, UnknownName, first_line
from minigpt.lazy import importable_here, resolve
from minigpt.types import AXES

Need = Literal["gradients", "loss search", "transformed model", "training rounds"]
Reference = str | Callable[..., Any]

# Need of a method whose ranking comes from rounds of training, which only a build runs.
ROUNDS: Need = "training rounds"
# What the results of most methods load in.
STOCK = "stock transformers classes"
UNIFORM = f"{STOCK}: uniform widths, units chosen per layer"
FEWER_LAYERS = f"{STOCK}: fewer layers, widths untouched"
# Kinds of units, for `Method.prunes`.
WIDTH = ("ffn", "kv_groups")
DEPTH = ("layers",)
EVERYTHING = ("ffn", "kv_groups", "layers", "embedding")
EXPERTS = ("experts",)
_REAP = "Lasby et al. 2025, REAP (arXiv 2510.13999)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A pruning method: a row of the table. The module's docstring explains the functions.

    Attributes:
        name: name of the method, for `--method`.
        prunes: kinds of units it removes, of `ffn` (neurons), `experts`, `kv_groups`, `layers`, `embedding` (tokens,
            ranked by how often the domain uses them) and `hidden`.
        paper: the paper that it comes from.
        rank: scores units.
        layers: chooses layers.
        transform: cuts the model in another way than by slicing.
        paper_form: makes the method's paper form.
        config: returns the parent's config with what the method adds to it.
        paper_form_summary: one line about the paper form.
        loads: the classes that the result loads in; starts with "no" where plain transformers cannot load it.
        options: settings that the method reads, with a line about each of them.
        needs: costly work that the method needs.
        repair: whether the least-squares repair is part of the method.
        streams: whether ranking and choice read statistics and norms only, never the model itself, so that a parent can
            be pruned that does not fit into memory.
    """

    name: str
    prunes: tuple[str, ...]
    paper: str
    rank: Reference | None = None
    layers: Reference | None = None
    transform: Reference | None = None
    paper_form: Reference | None = None
    config: Reference | None = None
    paper_form_summary: str = "the shipped form, not saved"
    loads: str = UNIFORM
    options: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    repair: bool = False
    streams: bool = False

    @property
    def axes(self) -> frozenset[str]:
        """Axes that the planner may cut for this method where the family has them, of :data:`minigpt.types.AXES`."""
        return frozenset(AXES) & {"vocab" if name == "embedding" else name for name in self.prunes}

    @property
    def ships(self) -> bool:
        """True if the method has a form that plain transformers loads."""
        return not self.loads.startswith("no")


_MINI_GPTS = "Valicenti et al. 2023, Mini-GPTs (arXiv 2312.12682)"

_DEEPER = "Gromov et al. 2024, The Unreasonable Ineffectiveness of the Deeper Layers (arXiv 2403.17887)"
_WHOLE_RANKING = "one ranking over all layers, per-layer widths, bias compensation in any family"

_ROWS = (
    Method(
        name="contextual",
        rank="minigpt.methods.formulas:contextual",
        prunes=(*EVERYTHING, *EXPERTS),
        paper=f"{_MINI_GPTS}; Sun et al. 2023, Wanda (2306.11695); Men et al. 2024, ShortGPT (2403.03853)",
        options={
            "kinds": "linear, activation: which evidence ranks the FFN neurons",
            "plan.contrast": "domain importance less this times general importance, standardized by layer [0]",
        },
        repair=True,
        streams=True,
    ),
    Method(
        name="linear",
        rank="minigpt.methods.formulas:linear",
        prunes=EVERYTHING,
        paper=_MINI_GPTS,
        repair=True,
        streams=True,
    ),
    Method(
        name="activation",
        rank="minigpt.methods.formulas:activation",
        prunes=EVERYTHING,
        paper=_MINI_GPTS,
        repair=True,
        streams=True,
    ),
    Method(
        name="mini-gpt",
        rank="minigpt.methods.mini_gpts:structural",
        paper_form="minigpt.methods.mini_gpts:paper_form",
        prunes=("ffn", "kv_groups", "embedding"),
        paper=_MINI_GPTS,
        paper_form_summary="zeroes weights where mean magnitudes are at most epsilon; its size counts what is not zero",
        options={
            "plan.epsilon": "--paper-form: threshold on mean magnitudes [the one that reaches the size]",
            "plan.epsilon_tokens": "--paper-form: threshold on a token's share of the text, -1 for none [0]",
        },
    ),
    Method(
        name="wanda",
        rank="minigpt.methods.formulas:wanda",
        prunes=WIDTH,
        paper="Sun et al. 2023, Wanda (arXiv 2306.11695)",
        streams=True,
    ),
    Method(
        name="flap",
        rank="minigpt.methods.formulas:flap",
        transform="minigpt.methods.flap:compensated",
        paper_form="minigpt.methods.flap:paper_form",
        config="minigpt.methods.flap:with_biases",
        prunes=WIDTH,
        paper="An et al. 2023, FLAP (arXiv 2312.11983)",
        paper_form_summary=_WHOLE_RANKING,
        loads=f"{UNIFORM}; biases where the family's config has them",
    ),
    Method(
        name="llm-pruner",
        rank="minigpt.methods.llm_pruner:taylor",
        paper_form="minigpt.methods.llm_pruner:paper_form",
        prunes=WIDTH,
        paper="Ma et al. 2023, LLM-Pruner (arXiv 2305.11627)",
        paper_form_summary="first four and last two layers whole, the same share from each of the others",
        needs=("gradients",),
    ),
    Method(
        name="slicegpt",
        paper_form="minigpt.methods.slicegpt:paper_form",
        prunes=("hidden",),
        paper="Ashkboos et al. 2024, SliceGPT (arXiv 2401.15024)",
        paper_form_summary="rotated to principal components and sliced, matrices on the residual connections",
        loads="no: the residual connections need matrices; evaluate it with --paper-form",
        needs=("transformed model",),
    ),
    Method(
        name="magnitude",
        rank="minigpt.methods.formulas:magnitude",
        prunes=WIDTH,
        paper="baseline: weight norms",
        streams=True,
    ),
    Method(
        name="random",
        rank="minigpt.methods.formulas:random",
        prunes=(*WIDTH, *EXPERTS),
        paper="baseline: chance",
        options={"seed": "seed of the random scores"},
        streams=True,
    ),
    Method(
        name="shortgpt",
        layers="minigpt.methods.depth.methods:shortgpt",
        prunes=DEPTH,
        paper="Men et al. 2024, ShortGPT (arXiv 2403.03853)",
        loads=FEWER_LAYERS,
        streams=True,
    ),
    Method(
        name="deeper-layers",
        layers="minigpt.methods.depth.methods:deeper_layers",
        prunes=DEPTH,
        paper=_DEEPER,
        loads=FEWER_LAYERS,
        options={"recipe": "deeper-layers: the paper's QLoRA healing"},
        streams=True,
    ),
    Method(
        name="deepest",
        layers="minigpt.methods.depth.methods:deepest",
        prunes=DEPTH,
        paper=f"{_DEEPER}, the simple strategy",
        loads=FEWER_LAYERS,
        options={"recipe": "deeper-layers: the paper's QLoRA healing"},
        streams=True,
    ),
    Method(
        name="greedy-blocks",
        layers="minigpt.methods.depth.methods:greedy_blocks",
        paper_form="minigpt.methods.depth.methods:greedy_blocks_paper_form",
        prunes=DEPTH,
        paper="Song et al. 2024, SLEB (arXiv 2402.09025); Zhong et al. 2024, BlockPruner (2406.10594)",
        paper_form_summary="attentions and FFNs removed one by one (BlockPruner) instead of whole layers (SLEB)",
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
    Method(
        name="lottery",
        rank="minigpt.methods.lottery:rank",
        prunes=EVERYTHING,
        paper="Frankle and Carbin 2019 (arXiv 1803.03635); Renda et al. 2020, rewinding (2003.02389); structured",
        options={
            "lottery.rounds": "rounds of training and pruning [4]",
            "lottery.steps": "steps of each round [those of healing over the rounds]",
            "lottery.share": "share of a layer's neurons and KV groups that each round removes [0.2]",
            "lottery.layer_share": "share of the layers that each round removes [0]",
            "lottery.criterion": "method that ranks the trained units of each round [magnitude]",
            "lottery.rewind": "step of the parent's training that survivors are rewound to [0]",
            "lottery.rewinding": "weights, or rate for the learning rate alone [weights]",
            "lottery.last": "steps of the training after the last round [as many as of the others]",
        },
        needs=(ROUNDS,),
        repair=True,
    ),
    Method(
        name="reap",
        rank="minigpt.methods.formulas:reap",
        prunes=EXPERTS,
        paper=_REAP,
        loads=f"{STOCK}: fewer experts, as many in each layer",
        streams=True,
    ),
    Method(
        name="expert-frequency",
        rank="minigpt.methods.formulas:expert_frequency",
        prunes=EXPERTS,
        paper=f"baseline of {_REAP}: how often the router takes an expert",
        loads=f"{STOCK}: fewer experts, as many in each layer",
        streams=True,
    ),
    Method(
        name="m-smoe",
        rank="minigpt.methods.merging:by_router",
        transform="minigpt.methods.merging:merged_by_router",
        prunes=EXPERTS,
        paper="Li et al. 2023, M-SMoE (arXiv 2310.01334)",
        loads=f"{STOCK}: fewer experts, each an average",
    ),
    Method(
        name="hc-smoe",
        rank="minigpt.methods.merging:by_outputs",
        transform="minigpt.methods.merging:merged_by_outputs",
        prunes=EXPERTS,
        paper="Chen et al. 2024, HC-SMoE (arXiv 2410.08589)",
        loads=f"{STOCK}: fewer experts, each an average",
    ),
    Method(
        name="expert-width",
        rank="minigpt.methods.expert_width:rank",
        transform="minigpt.methods.expert_width:narrowed",
        prunes=("ffn",),
        paper="neurons inside of experts, ranked as those of dense layers",
        loads=f"{STOCK}: narrower experts, neurons chosen per expert",
    ),
)

METHODS: Mapping[str, Method] = {row.name: row for row in _ROWS}


def method_named(name: str) -> Method:
    """Find a method by its name in the table, or by `package.module:ROW` outside the package.

    Raises:
        UnknownName: there is no such method; the error suggests the nearest name.
        ConfigError: the module cannot be imported, or the name is not a `Method`.
    """
    if ":" in name:
        return _outside_row(name)
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]


def _outside_row(reference: str) -> Method:
    """Import a user's own row, from the current folder or an installed package."""
    with importable_here():
        try:
            row = resolve(reference)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"--method {reference} cannot be imported ({first_line(error)}); name a row as package.module:ROW, in "
                "the current folder or an installed package."
            ) from None
    if not isinstance(row, Method):
        raise ConfigError(f"--method {reference} names a {type(row).__name__}; it must be a minigpt.methods.Method.")
    return row
