"""`minigpt build`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigpt.cli.common import Session, examples, facts, online, standard
from minigpt.cli.fit import Fit, check_fit, finished, fit_options, fitted, outcome, take_fit, without_target
from minigpt.cli.params import Amount, Fraction, HourPrice, Names, at_most_one, crew_of, given_of, overrides, workers
from minigpt.cli.processes import together

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.pipeline import BuildOptions, PlanSummary
    from minigpt.results import BuildReport, Coverage
    from minigpt.workers import Workers

# Axes of a plan in plain words.
AXIS_NAMES = {
    "ffn": "neurons",
    "experts": "experts",
    "kv_groups": "KV groups",
    "layers": "whole layers",
    "vocab": "vocabulary",
}


@click.command(
    epilog=examples(
        "minigpt build --domain medical --preset quick",
        "minigpt build --domain medical --domain law --target-params 100M --output-dir runs/two",
        "minigpt build --domain ./mine.yaml --base HuggingFaceTB/SmolLM2-360M --device cuda",
        "minigpt build --domain finance --target-size 0.6 --plan-only",
        "minigpt build --domain medical --delta 0.05",
        'minigpt build --domain medical --fit "50MB" --fit "60 tokens/s" --runtime llama.cpp',
        "minigpt build --domain all --output-dir runs/all --workers 4",
        "torchrun --nproc-per-node 4 -m minigpt build --domain medical --preset thorough",
        "minigpt build runs/medical/recipe.yaml --output-dir runs/again",
    )
)
@click.argument("recipe", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--domain",
    "domains",
    multiple=True,
    metavar="NAME|FILE|all",
    help="Domain to build: a name from `minigpt domains list`, a YAML file, or `all`. Repeat for several.",
)
@click.option("--base", metavar="REF", help="Parent: folder, Hub id, GGUF file or pypi: asset [SmolLM2-135M-Instruct].")
@click.option("--target-size", type=Fraction(), help="Fraction of the parameters to keep [0.75].")
@click.option("--target-params", type=Amount("count"), help="Number of parameters to keep, e.g. 100M.")
@click.option("--target-bytes", type=Amount("bytes", unit="B"), help="Size of model.safetensors, e.g. 150MB.")
@fit_options
@click.option(
    "--method",
    metavar="NAME",
    help="Pruning method: a name from `minigpt methods`, or package.module:ROW for one of your own [contextual].",
)
@click.option(
    "--delta",
    type=Fraction(),
    metavar="SHARE",
    help="Remove nothing; change at most this share of the weights, and store the changes alone, e.g. 0.05 or 5%.",
)
@click.option("--preset", type=click.Choice(["quick", "standard", "thorough"]), help="Amount of work [quick].")
@click.option(
    "--keep-general",
    type=click.FloatRange(min=1, min_open=True),
    metavar="X",
    help="Bound on general text: at most X times the parent's bits per byte; exit code 3 beyond.",
)
@click.option(
    "--conditional",
    is_flag=False,
    flag_value="topk",
    metavar="[KIND]",
    help="Make a conditional form of the finished model, too: topk, threshold, relu, trees or fff [topk].",
)
@click.option(
    "--kinds",
    type=Names("linear", "activation", "embedding", "experts"),
    help="Kinds of pruning that are allowed [all, and whole layers].",
)
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder to write [runs/DOMAIN].")
@click.option("--device", metavar="NAME", help="Device: auto, cpu, cuda, cuda:1 or mps [auto].")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), help="Type of saved weights [bfloat16]."
)
@click.option("--seed", type=click.IntRange(min=0), help="Random seed [0].")
@overrides("heal.steps=50")
@click.option(
    "--log",
    type=click.Choice(["tensorboard", "trackio", "wandb"]),
    help="Program that gets the curves of all trainings; only numbers go there.",
)
@click.option(
    "--log-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/logs"),
    show_default=True,
    help="Folder for the files of --log.",
)
@click.option(
    "--price-per-hour",
    type=HourPrice(),
    metavar="PRICE",
    help="Price of an hour of this machine, e.g. '2.50 EUR': the report then states the money [none].",
)
@workers("the domains")
@online
@click.option("--plan-only", "--dry-run", "plan_only", is_flag=True, help="Show what would be removed, and stop.")
@click.option(
    "--paper-form", "--masked", "masked", is_flag=True, help="Evaluate the method's paper form; write no model."
)
@click.option("--force", is_flag=True, help="Start over instead of resuming.")
@standard
def build(session: Session, **options: Any) -> None:
    """Build a smaller specialist for one or more domains.

    RECIPE is a recipe.yaml that a build left; options given beside it take precedence.

    Corpus, activation statistics, plan, pruning, healing, evaluation, report, catalog. The same command again
    resumes; with everything done it prints the report at once.
    """
    at_most_one(**{name: options[name] for name in ("target_size", "target_params", "target_bytes", "delta")})
    recipe, plan_only, fit = options.pop("recipe"), options.pop("plan_only"), take_fit(options)
    log = (options.pop("log"), options.pop("log_dir"))
    crew = crew_of(options.pop("workers"), options.pop("worker_options"))
    if recipe is None and not options["domains"]:
        raise click.UsageError("Give --domain NAME or a recipe file. `minigpt domains list` shows the domains.")
    if plan_only and (options["masked"] or options["delta"]):
        other = "--paper-form" if options["masked"] else "--delta"
        raise click.UsageError(f"--plan-only and {other} exclude each other.")
    check_names(options["domains"], options["method"])
    given = given_of(options)
    build_options = options_of(recipe, given)
    if fit.constraints:
        if crew is not None:
            raise click.UsageError("--fit and --workers exclude each other.")
        build_options = without_target(build_options, given)
    if crew is not None:
        share_out(session, build_options, crew, plan_only=plan_only)
    with together(build_options.device) as leads:
        if leads:
            run(session, build_options, plan_only=plan_only, log=log, fit=fit)


def share_out(session: Session, options: BuildOptions, crew: Workers, *, plan_only: bool) -> None:
    """Let workers build the domains; the build that follows only reads what they leave."""
    from minigpt.pipeline.crew import build_by_workers

    if plan_only:
        raise click.UsageError("--plan-only and --workers exclude each other.")
    build_by_workers(options, crew, session.reporter)


def options_of(recipe: Path | None, given: dict[str, Any]) -> BuildOptions:
    """The options of a recipe, if there is one, with those given beside it put in."""
    from minigpt.pipeline import BuildOptions
    from minigpt.pipeline.rebasing import rebased
    from minigpt.pipeline.recipe import read_recipe, with_changes

    return BuildOptions(**given) if recipe is None else with_changes(rebased(read_recipe(recipe), given), given)


def run(session: Session, options: BuildOptions, *, plan_only: bool, log: tuple[str | None, Path], fit: Fit) -> None:
    """Plan or build, and show the result; a bound that does not hold is an error after the reports are shown."""
    import minigpt
    from minigpt import pipeline
    from minigpt.errors import GateFailed
    from minigpt.healing.tracking import tracked

    fitting = None
    if fit.constraints:
        options, fitting = fitted(session, fit, options)
    if plan_only:
        plans = pipeline.plan_specialists(options, session.reporter)
        session.show(alone(plans), lambda: stacked([*map(outline, plans), *decision(plans)]))
        return
    if fitting is not None:
        check_fit(session, fitting[0])
    broken: GateFailed | None = None
    try:
        name = "-".join(Path(domain).stem for domain in options.domains)
        with tracked(session.reporter, log[0], name, log[1]) as reporter:
            reports: Sequence[Any] = minigpt.build(options, reporter=reporter)
    except GateFailed as error:
        if not error.reports:
            raise
        reports, broken = error.reports, error
    data, fits = alone(reports), []
    if fitting is not None:
        fits = finished(session, *fitting, options, reports)
        reports = [minigpt.load_report(options.folder(report.domain)) for report in reports]  # each with its fit
        data = {"report": alone(reports), "fit": alone(fits)}
    parts = [
        *(partial(ending, report, options, session) for report in reports),
        *(partial(outcome, result) for result in fits),
    ]
    session.show(data, lambda: stacked(part() for part in parts))
    if broken is not None:
        raise broken


def ending(report: BuildReport, options: BuildOptions, session: Session) -> RenderableType:
    """Draw the report of a build and, unless the user wants quiet, where the model is and what to do with it."""
    from minigpt.report import next_steps, render

    folder = options.folder(report.domain)
    if session.quiet or not any((folder / product).is_dir() for product in ("model", "delta")):  # a paper form
        return render(report)
    return stacked([render(report), next_steps(report, folder)])


def check_names(domains: Sequence[str], method: str | None) -> None:
    """Refuse a domain or a method that does not exist before the first domain has cost an hour.

    Raises:
        UnknownName: no such domain or method.
        ConfigError: a domain's file cannot be used.
    """
    from minigpt.domain.config import load_domain
    from minigpt.methods import method_named

    if method is not None:
        method_named(method)
    for name in domains:
        if name != "all":
            load_domain(name)


def outline(plan: PlanSummary) -> RenderableType:
    """List what a plan would keep and remove, as name and value."""
    from minigpt.report.pictures import by_kind, kinds_of
    from minigpt.report.text import count, percent, short_reference, size

    gone = ", ".join(str(layer) for layer in plan.removed_layers)
    rows: dict[str, object] = {
        "domain": plan.domain,
        "parent": short_reference(plan.base_model),
        "method": plan.method,
        "parameters": f"{count(plan.parameters_before)} to {count(plan.parameters_after)}"
        f" ({percent(plan.parameters_after / plan.parameters_before)} kept)",
        "layers": f"{plan.layers} (without {gone})" if gone else plan.layers,
        **({"FFN width": f"{plan.intermediate_size:,}"} if "ffn" in plan.axes else {}),
        **({"experts": plan.experts} if plan.experts is not None else {}),
        **({"KV groups": plan.kv_groups} if "kv_groups" in plan.axes else {}),
        "weights in 16 bits": f"{size(2 * plan.parameters_before)} to {size(2 * plan.parameters_after)}",
        "vocabulary": "untouched" if plan.tokens is None else f"{plan.tokens:,}",
    }
    removed = kinds_of(plan.removed_parameters)
    rows |= {f"removed, {kind}": count(parameters) for kind, parameters in removed.items() if parameters}
    rows["removed, by --kinds"] = by_kind(plan.removed_parameters)
    rows |= {
        f"expected cost, {AXIS_NAMES.get(axis, axis)}": f"+{2**cost - 1:.1%} bits per byte".replace("%", " %")
        for axis, cost in plan.predicted_cost.items()
        if cost
    }
    rows |= {f"{item.task} seen in training text": percent(item.share) + repeated(item) for item in plan.coverage}
    return facts(rows | needed(plan))


def needed(plan: PlanSummary) -> dict[str, object]:
    """List the time and the disk that building a plan takes, as far as they are known."""
    from minigpt.progress.rates import roughly
    from minigpt.report.text import size

    rows: dict[str, object] = {}
    if plan.seconds_to_build is not None:
        rows["time to build"] = f"about {roughly(plan.seconds_to_build)}, at the speeds measured here"
    if plan.disk_needed is not None and plan.disk_free is not None:
        rows["disk while building"] = f"about {size(plan.disk_needed)}; {size(plan.disk_free)} are free"
    return rows


def decision(plans: Sequence[PlanSummary]) -> list[str]:
    """Say of each plan whether its report could judge a specialist, and how to go on."""
    from minigpt.corpus.survey import COMFORTABLE, documents_remark

    counts = {plan.domain: item.documents for plan in plans for item in plan.coverage if item.task == plan.domain}
    remarks = [f"{name}: {documents_remark(count)}" for name, count in counts.items() if count < COMFORTABLE]
    return [*remarks, "The same command without --plan-only builds it."]


def repeated(coverage: Coverage) -> str:
    """Warn of a text of which so much stands in the training text that its figures tell little."""
    from minigpt.corpus.coverage import WARN

    return " of its 8-word runs: figures on it may only measure repeated wording" if coverage.share >= WARN else ""


def alone(results: Sequence[Any]) -> Any:
    """One result as itself, several as a list: what `--json` prints."""
    return results[0] if len(results) == 1 else results


def stacked(parts: Iterable[RenderableType]) -> RenderableType:
    """Several renderables below each other."""
    from rich.console import Group

    return Group(*parts)
