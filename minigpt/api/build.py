"""Build a specialist from Python, with the same options as the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt.assets import DEFAULT_BASE
from minigpt.costs import parse_price
from minigpt.pipeline import BuildOptions, build_specialists
from minigpt.pipeline.recipe import flatten_settings
from minigpt.progress import SILENT, Reporter


def build(
    domain: str | Path | Sequence[str | Path] | BuildOptions,
    *,
    base: str | Path = DEFAULT_BASE,
    size: float | None = None,
    params: int | None = None,
    bytes: int | None = None,
    method: str = "contextual",
    delta: float | None = None,
    preset: str = "quick",
    settings: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    device: str = "auto",
    dtype: str = "bfloat16",
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    keep_general: float | None = None,
    conditional: str | None = None,
    online: bool = False,
    paper_form: bool = False,
    force: bool = False,
    price_per_hour: str | None = None,
    reporter: Reporter = SILENT,
) -> Any:
    """Build a smaller specialist for a domain; the same call again resumes.

    The folder holds `model/`, a plain Hugging Face folder, with report, plan, domain and recipe beside it.

    Args:
        domain: name or YAML file of a domain; several of them; or all options, as from :func:`minigpt.read_recipe`.
        base: the parent: a folder, a Hub id, a GGUF file or a packaged asset.
        size: fraction of the parameters to keep (0.75 where no target is given).
        params: parameters to keep, instead of `size`.
        bytes: bytes of `model.safetensors`, instead of `size`.
        method: a name of `minigpt methods`, or `package.module:ROW`.
        delta: share of the weights that a delta ticket, in `delta/`, may change; it is made instead of pruning.
        preset: the amount of work: quick, standard or thorough.
        settings: settings to change: `{"heal": {"steps": 50}}` or `{"heal.steps": 50}`.
        output_dir: folder to write (None: `runs/DOMAIN`).
        device: torch device, or "auto".
        dtype: type of the saved weights.
        seed: random seed.
        kinds: kinds of pruning that are allowed, of linear, activation, embedding.
        keep_general: bound on general text, as a multiple of the parent's bits per byte on it.
        conditional: kind of conditional layers to make of the finished model: topk, threshold, relu, trees or fff.
        online: read the domain's Hub data sets too.
        paper_form: evaluate the method's paper form in memory; no model is written.
        force: start over instead of resuming.
        price_per_hour: price of an hour, e.g. "2.50 EUR".
        reporter: told about progress.

    Returns:
        The :class:`minigpt.BuildReport`; for several domains, or for `BuildOptions`, a tuple of reports.

    Raises:
        GateFailed: general text costs more than `keep_general` allows; the error's `reports` hold the builds' reports.
        MiniGPTError: the build failed; the message says in one sentence what is wrong and what to do.
    """
    if isinstance(domain, BuildOptions):
        return build_specialists(domain, reporter)
    price = parse_price(price_per_hour) if price_per_hour else None
    options = BuildOptions(
        domains=tuple(map(str, [domain] if isinstance(domain, (str, Path)) else domain)), base=str(base), method=method,
        target_size=size, target_params=params, target_bytes=bytes, delta=delta, preset=preset, online=online,
        overrides=flatten_settings(settings or {}), device=device, dtype=dtype, seed=seed, force=force,
        output_dir=None if output_dir is None else Path(output_dir), conditional=conditional, masked=paper_form,
        kinds=None if kinds is None else tuple(kinds), keep_general=keep_general, price_per_hour=price,
    )  # fmt: skip
    reports = build_specialists(options, reporter)
    return reports[0] if isinstance(domain, (str, Path)) and len(reports) == 1 else reports
