"""A resolved build: everything that its steps share, fixed before the first step runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.assets.parents import check_ties, is_conditional
from minigpt.assets.quiet import quiet_transformers
from minigpt.conditional.folder import load_model
from minigpt.domain.config import DomainConfig, load_domain, resolve_domain
from minigpt.errors import UnsupportedModel
from minigpt.files import fingerprint, open_to_readers, to_plain
from minigpt.machine import measuring_dtype, pick_device, spare_processor
from minigpt.methods import method_named
from minigpt.methods.table import ROUNDS
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.read import source_state
from minigpt.pipeline.settings import Settings, settings_for
from minigpt.pipeline.workspace import Workspace
from minigpt.planning.memory import MemorySettings
from minigpt.progress import Reporter
from minigpt.progress.stages import step
from minigpt.report.text import short_reference
from minigpt.transformer.arch import check_window
from minigpt.transformer.older_readers import open_to_older_readers

# Prompt of the sample generation for a domain without prompts; never the user's text.
NEUTRAL_PROMPT = "In short,"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The record that every step of a build reads.

    Attributes:
        options: the user's options.
        settings: the preset with the user's changes.
        domain: the definition of the field.
        general: the definition of the general text; None where nothing general is measured.
        state: fingerprint of every local file that the build reads.
        device: torch device.
        text_seed: seed of splits, text and tuning; the points of a sweep share it, though their own seeds differ.
        workspace: the folder of this build.
        shared: the folder of steps that the points of a sweep share; None outside a sweep.
        reporter: told about progress.
    """

    options: BuildOptions
    settings: Settings
    domain: DomainConfig
    general: DomainConfig | None
    state: str
    device: str
    text_seed: int
    workspace: Workspace
    shared: Workspace | None
    reporter: Reporter

    @property
    def common(self) -> Workspace:
        """Workspace of steps whose result does not depend on method and size."""
        return self.shared or self.workspace

    @property
    def prompt(self) -> str:
        """Prompt of the sample generations."""
        return self.domain.prompts[0] if self.domain.prompts else NEUTRAL_PROMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model on disk.

    Attributes:
        path: its folder.
        key: fingerprint of everything that it depends on.
    """

    path: Path
    key: str


def resolve_run(
    name: str, options: BuildOptions, reporter: Reporter, *, folder: Path | None = None, shared: Workspace | None = None
) -> Run:
    """Resolve options, settings, domain and the state of their files, once for all steps.

    Args:
        name: the domain's name or file.
        options: the user's options.
        reporter: told about progress.
        folder: the build's folder (None: the folder of the options).
        shared: the workspace that the points of a sweep share.

    Raises:
        ConfigError: an option, a setting or the domain file cannot be used as written.
        UnknownName: there is no such preset or domain.
    """
    settings = settings_for(options.preset, options.overrides, keep_general=options.keep_general)
    if options.delta is not None:
        settings = replace(settings, blend=0.0)  # a ticket starts at the tuned parent itself
    domain = resolve_domain(name, online=options.online)
    general, device = None, pick_device(options.device)
    spare_processor(device)
    if settings.evaluation.general and domain.general != domain.name:
        general = load_domain(domain.general)
    return Run(
        options=options,
        settings=settings,
        domain=domain,
        general=general,
        state=source_state(domain, general, options.base),
        device=device,
        text_seed=options.seed,
        workspace=Workspace(root=folder or options.folder(domain.name), reporter=reporter, device=device),
        shared=shared,
        reporter=reporter,
    )


def build_key(run: Run) -> str:
    """Fingerprint everything that decides a build's model; the settings stand for preset and overrides.

    The conditional form is made of the finished model and has a fingerprint of its own.
    """
    options = {
        name: value for name, value in deciding_options(run.options).items() if name not in ("preset", "overrides")
    }
    settings = {name: value for name, value in to_plain(run.settings).items() if name != "conditional"}
    # How much is in memory changes no bit of the result; its precision may.
    memory = settings.pop("memory")
    defaults = to_plain(MemorySettings())
    settings |= {name: memory[name] for name in ("precision", "healing") if memory[name] != defaults[name]}
    settings |= {name: memory[name] for name in ("teacher", "teacher_top") if memory[name] != defaults[name]}
    if run.options.delta is None:
        del settings["delta"]  # builds of before there were delta tickets keep their names
    if ROUNDS not in method_named(run.options.method).needs:
        del settings["lottery"]  # builds that were made before there were such settings resume
    return fingerprint(run.state, settings, options)


def deciding_options(options: BuildOptions) -> dict[str, object]:
    """Return the options that decide the result; its folder and the progress display do not."""
    ticket = {} if options.delta is None else {"delta": options.delta}
    return ticket | {
        "base": options.base,
        "target": str(options.target),
        "method": options.method,
        "preset": options.preset,
        "device": options.device,
        "dtype": options.dtype,
        "seed": options.seed,
        "kinds": options.kinds,
        "overrides": dict(options.overrides),
        "online": options.online,
        "masked": options.masked,
    }


def load_parent(run: Run) -> assets.Parent:
    """Fetch the parent, convert it if needed, and return it as a plain folder.

    Raises:
        AssetError: the parent cannot be had.
        UnsupportedModel: it has conditional layers.
    """
    with step(run.reporter, "parent") as begins, run.reporter.stage(f"Parent {short_reference(run.options.base)}"):
        begins()
        parent = assets.parent(run.options.base, reporter=run.reporter)
    if is_conditional(parent.path):
        raise UnsupportedModel(f"{parent.path} has conditional layers and cannot be pruned. Give the model beside it.")
    check_ties(parent.path)
    return parent


def load(run: Run, path: Path, *, training: bool = False) -> Any:
    """Load a model on the run's device: in fp32 for training, else in the precision of measurements.

    Raises:
        ConfigError: the model cannot read windows as long as those of the settings.
    """
    import torch

    model = load_model(path, dtype=torch.float32 if training else measuring_dtype(run.device), device=run.device)
    check_window(model, run.settings.heal.window)
    return model


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Save a plain Hugging Face folder with weights of `dtype`; the model in memory is cast too."""
    import torch

    with quiet_transformers():
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        open_to_older_readers(folder)
    open_to_readers(folder)
