"""Variants of the healing benchmarks: a shape and a recipe each, read from JSON lines and checked."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from minigpt.errors import ConfigError
from minigpt.files import read_jsonl
from minigpt.healing import Recipe
from minigpt.pipeline.overrides import apply_overrides

Form = Literal["parent", "tuned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A shape and a healing recipe that are measured together; the neurons are those that the size leaves room for.

    Attributes:
        tag: name of the variant.
        vocab_size: tokens that are kept.
        layers: layers that are kept.
        kv_groups: KV groups that each layer keeps (None: all).
        kept: share of the parent's parameters that is kept.
        general: share of general text that is mixed into the training text.
        definitions: how many times the definitions of the training text are put as questions.
        sampled: passages from the tuned parent that are added to the training text.
        source: the model that is cut, the parent as it is or tuned on the domain.
        teacher: the model that teaches, the parent as it is or tuned on the domain.
        via: earlier cuts, each healed before the next, with `layers`, `kept` and the `steps` of the healing.
        repair: options of the repair.
        heal: fields of the healing recipe.
    """

    tag: str
    vocab_size: int
    layers: int
    kv_groups: int | None = None
    kept: float = 0.75
    general: float = 0.0
    definitions: int = 0
    sampled: int = 0
    source: Form = "tuned"
    teacher: Form = "tuned"
    via: list[dict[str, Any]] = field(default_factory=list)
    repair: dict[str, Any] = field(default_factory=dict)
    heal: dict[str, str] = field(default_factory=dict)

    def cuts(self) -> list[Variant]:
        """List the earlier cuts and then the variant itself; all have the vocabulary of the variant."""
        found = []
        for row in self.via:
            heal = {**self.heal, "steps": str(row["steps"])}
            found.append(replace(self, layers=row["layers"], kept=row["kept"], via=[], heal=heal))
        return [*found, self]

    def recipe(self) -> Recipe:
        """Build the healing recipe, which is pure distillation unless `heal` says otherwise.

        Raises:
            ConfigError: `heal` names no field or has a value outside its range.
        """
        return apply_overrides(Recipe(distill=1.0, evaluate_every=100), self.heal)


def variants_in(path: Path) -> list[Variant]:
    """Read the variants of a file and check them before anything is computed.

    Raises:
        ConfigError: a field is unknown, a recipe is not valid, a source or teacher is neither parent nor tuned, or a
            tag is there twice.
    """
    known, found = {each.name for each in fields(Variant)}, []
    for row in read_jsonl(path):
        if strange := row.keys() - known:
            raise ConfigError(
                f"{path}: a variant has no {', '.join(sorted(strange))}; it has {', '.join(sorted(known))}."
            )
        found.append(variant := Variant(**row))
        if any(each.keys() != {"layers", "kept", "steps"} for each in variant.via):
            raise ConfigError(f"{path}: each cut on the way of {variant.tag} has layers, kept and steps, nothing else.")
        for cut in variant.cuts():
            cut.recipe()
            if cut.layers < variant.layers or cut.kept < variant.kept:
                raise ConfigError(f"{path}: {variant.tag} cuts less than a cut on its way.")
        if not {variant.source, variant.teacher} <= {"parent", "tuned"}:
            raise ConfigError(f'{path}: source and teacher of {variant.tag} must be "parent" or "tuned".')
    if len({variant.tag for variant in found}) < len(found):
        raise ConfigError(f"{path} has a tag twice; results are known by their tags.")
    return found
