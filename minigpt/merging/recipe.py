"""Recipe files of merges of delta tickets: the keys, and reading and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from minigpt.ranges import above, at_least, check_ranges
from minigpt.recipes import beside, read_strictly, with_comments
from minigpt.tickets.delta_settings import MERGED_RATE

# Bytes of dev text of each domain that decide.
DEV_BYTES = 65_536
# Comment at the top of a recipe file.
HEAD = """\
# The recipe of a merge of delta tickets. This repeats it:
#   minigpt merge recipe.yaml --output-dir DIR
# Keys that are left out take their defaults. Paths are relative to this file.
"""
# Comment above each key of a recipe file.
COMMENTS = {
    "tickets": "Builds of delta tickets, as folders or catalog ids.",
    "device": "Torch device; auto takes an accelerator if there is one.",
    "dev_bytes": "Most bytes of dev text of each domain that decide.",
    "heal": "Training steps behind the merge, in which each ticket teaches its own domain's text; 0 takes none.",
    "learning_rate": "Peak learning rate of these steps.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRecipe:
    """Keys of a recipe file of a merge, with their defaults; `COMMENTS` explains them.

    Raises:
        ConfigError: a value is outside its range.
    """

    tickets: tuple[str, ...]
    device: str = "auto"
    dev_bytes: int = DEV_BYTES
    heal: int = 0
    learning_rate: float = MERGED_RATE

    def __post_init__(self) -> None:
        check_ranges(self, {"dev_bytes": at_least(1), "heal": at_least(0), "learning_rate": above(0, 1e6)})


def recipe_text(recipe: MergeRecipe, builds: Sequence[Path]) -> str:
    """Write the recipe that repeats a merge; its tickets are named by the folders of their builds."""
    return with_comments(HEAD, asdict(recipe) | {"tickets": [str(folder.resolve()) for folder in builds]}, COMMENTS)


def read_merge_recipe(path: Path) -> MergeRecipe:
    """Read the recipe file of a merge strictly; tickets beside it are found there.

    Raises:
        ConfigError: there is no such file, or a key or a value is wrong.
        MiniGPTError: it lies where a merge left it, and is not what the merge wrote.
    """
    recipe = read_strictly(path, MergeRecipe, "`tickets: [runs/medical, runs/law]`; every merge writes one")
    return replace(recipe, tickets=tuple(beside(path, name) for name in recipe.tickets))
