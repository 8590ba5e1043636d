"""Training and sampling on all processes: what the first process has been given travels to the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minigpt.distributed import current
from minigpt.distributed.group import Group
from minigpt.healing.data import Bound, TokenText
from minigpt.healing.fused import fused_kernels
from minigpt.healing.masks import Mask
from minigpt.healing.recipe import Recipe
from minigpt.healing.sharded import is_to_be_sharded
from minigpt.healing.stored import StoredTeacher
from minigpt.healing.teacher import Teacher
from minigpt.progress import SILENT, Reporter
from minigpt.results import Training
from minigpt.transformer.sampling import Prompts, sample
from minigpt.transformer.shipping import can_ship, ship

# Stands for the checkpoint in processes that neither read nor write one.
ELSEWHERE = Path("checkpoint-of-the-first-process")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Everything that a training run is given.

    The fields are the arguments of :func:`minigpt.healing.train`, and whether several processes divide the weights.
    `watch` stays in the first process, which asks it alone.
    """

    model: Any
    text: TokenText
    dev: TokenText
    recipe: Recipe
    teacher: Teacher | StoredTeacher | None = None
    bound: Bound | None = None
    mask: Mask | None = None
    seed: int = 0
    backs_off: bool = False
    saves_memory: bool = False
    portions: int = 1
    checkpoint: Path | None = None
    title: str = "Healing"
    watch: Callable[[], Callable[[Any], bool]] | None = None
    keeps_last: bool = False
    sharded: bool = False


def together(
    work: Assignment, carry_out: Callable[[Assignment, Group | None, Reporter], Training], reporter: Reporter
) -> Training:
    """Train on all processes that there are; alone if there are none, or if a model is more than its config says.

    Args:
        work: what the run is given.
        carry_out: trains, with or without a group.
        reporter: receives the progress.
    """
    group = current()
    models = [work.model, *(work.teacher.models if work.teacher is not None else [])]
    if group is None or not work.recipe.steps or not all(can_ship(model) for model in models):
        return carry_out(work, None, reporter)
    group.announce("train")
    if is_to_be_sharded(work.model, work.recipe, work.mask is not None):
        work = replace(work, sharded=True, watch=None)
        reporter.note(f"{work.title}: the weights are divided among {group.world} processes, and AdamW moves them.")
    _shared(group, work)
    return carry_out(work, group, reporter)


def received(group: Group) -> Assignment:
    """Return the first process's assignment in another process."""
    return _shared(group, None)


def _shared(group: Group, work: Assignment | None) -> Assignment:
    """Return the first process's assignment in every process, where models lie on the process's own device."""
    words = group.share(None if work is None else _words(work))
    model = ship(group, None if work is None else work.model)
    text, dev = (_shared_text(group, None if work is None else getattr(work, name)) for name in ("text", "dev"))
    bound = None
    if words["limit"] is not None:
        bound = Bound(text=_shared_text(group, work.bound.text if work and work.bound else None), limit=words["limit"])
    teacher = _shared_teacher(group, words, work.teacher if work else None)
    mask = _shared_mask(group, words["mask"], work.mask if work else None)
    if work is not None:
        return work
    return Assignment(
        model=model,
        text=text,
        dev=dev,
        recipe=Recipe(**words["recipe"]),
        teacher=teacher,
        bound=bound,
        mask=mask,
        seed=words["seed"],
        backs_off=words["backs_off"],
        saves_memory=words["saves_memory"],
        portions=words["portions"],
        keeps_last=words["keeps_last"],
        checkpoint=ELSEWHERE if words["keeps"] else None,
        sharded=words["sharded"],
    )


def _words(work: Assignment) -> dict[str, Any]:
    """Return what is no tensor in an assignment."""
    names = sorted(work.mask.free) if work.mask is not None else []
    return {
        "recipe": {name: value for name, value in asdict(work.recipe).items() if name in Recipe.__dataclass_fields__},
        "seed": work.seed,
        "backs_off": work.backs_off,
        "saves_memory": work.saves_memory,
        "portions": work.portions,
        "keeps_last": work.keeps_last,
        "keeps": work.checkpoint is not None,
        "sharded": work.sharded,
        "limit": None if work.bound is None else work.bound.limit,
        "taught": work.teacher is not None,
        "stored": _place(work.teacher),
        "translated": work.teacher is not None and work.teacher.parent_ids is not None,
        "mask": None if work.mask is None else {"names": names, "trains_others": work.mask.trains_others},
    }


def _shared_text(group: Group, text: TokenText | None) -> TokenText:
    """Return the first process's tokenized text in every process."""
    lengths = group.share_tensor(None if text is None else torch.tensor([len(window) for window in text.windows]))
    tokens = [token for window in text.windows for token in window] if text is not None else []
    flat = group.share_tensor(None if text is None else torch.tensor(tokens, dtype=torch.long))
    size = group.share(None if text is None else text.bytes)
    if text is not None:
        return text
    windows = tuple(tuple(part.tolist()) for part in torch.split(flat, lengths.tolist()))
    return TokenText(windows=windows, bytes=size)


def _shared_teacher(
    group: Group, words: dict[str, Any], teacher: Teacher | StoredTeacher | None
) -> Teacher | StoredTeacher | None:
    """Return the first process's teacher in every process, if there is one."""
    if not words["taught"]:
        return None
    stored: list[str] | None = words["stored"]
    model: Any = None
    if stored is None:
        model = ship(group, teacher.model if isinstance(teacher, Teacher) else None)
    ids = None
    if words["translated"]:
        ids = group.share_tensor(None if teacher is None else teacher.parent_ids)
    if teacher is not None:
        return teacher
    if stored is not None:  # every process reads the files, so their folder has to be one that all of them see
        return StoredTeacher(Path(stored[0]), stored[1], ids)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return Teacher(model=model, parent_ids=None if ids is None else ids.to(group.device))


def _place(teacher: Teacher | StoredTeacher | None) -> list[str] | None:
    """Return folder and key of stored answers; None for any other teacher."""
    return [str(teacher.folder.absolute()), teacher.key] if isinstance(teacher, StoredTeacher) else None


def _shared_mask(group: Group, words: dict[str, Any] | None, mask: Mask | None) -> Mask | None:
    """Return the first process's mask in every process, if there is one."""
    if words is None:
        return None
    free = {name: group.share_tensor(None if mask is None else mask.free[name]) for name in words["names"]}
    return mask if mask is not None else Mask(free=free, trains_others=words["trains_others"])


def sample_together(
    model: Any,
    prompts: Prompts,
    *,
    length: int,
    seed: int = 0,
    ends: Collection[int] = (),
    reporter: Reporter = SILENT,
) -> list[list[int]]:
    """Sample texts (:func:`minigpt.transformer.sampling.sample`) with fused kernels, on all processes that there are.

    Texts are decoded in blocks, each with a seed of its own, so the number of processes changes no draw.
    """
    group = current()
    if group is None or not can_ship(model):
        with fused_kernels(model):
            return sample(model, prompts, length=length, seed=seed, ends=ends, reporter=reporter)
    group.announce("sample")
    ship(group, model)
    return _sample(group, model, [list(map(int, prompt)) for prompt in prompts], length, seed, ends, reporter)


def help_to_sample(group: Group) -> None:
    """Take part in :func:`sample_together`."""
    _sample(group, ship(group), (), 0, 0, (), SILENT)


def _sample(
    group: Group,
    model: Any,
    prompts: Sequence[Sequence[int]],
    length: int,
    seed: int,
    ends: Collection[int],
    reporter: Reporter,
) -> list[list[int]]:
    """Sample this process's blocks, and return all texts in the order of the prompts."""
    prompts, length, seed, ends = group.share([list(prompts), length, seed, sorted(ends)])
    turn = (group.rank, group.world)
    with fused_kernels(model):
        own = sample(model, prompts, length=length, seed=seed, ends=ends, turn=turn, reporter=reporter)
    # A text is empty in every process but the one that decoded it.
    return [max(texts, key=len) for texts in zip(*group.gather(own), strict=True)]
