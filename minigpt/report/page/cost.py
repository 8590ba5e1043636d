"""Values of the page's section on cost: time and energy of every step, and money at the price that the user stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minigpt.costs import Cost, Price
from minigpt.report.facts import time_of_steps
from minigpt.results import BuildReport

# Names of steps that do not speak for themselves, by the beginning of the name.
TITLES = {
    "corpus": "reading and splitting the text",
    "statistics": "activation statistics",
    "sensitivity": "sensitivity of each axis",
    "sampled": "sampling text from the parent",
    "tuned_first": "tuning the parent, short runs",
    "tuned": "tuning the parent on all text",
    "distilled": "training the distilled twin",
    "measured_parent_tuned": "measuring: tuned parent",
    "measured_parent_distilled": "measuring: distilled twin",
    "measured_healed": "measuring: specialist",
    "measured_": "measuring: ",
    "plan": "planning",
    "pruned": "pruning",
    "healed": "healing",
    "blended": "blending the parent",
    "chat": "chat probe",
}
COUNTERS = {"processor": "processors", "gpu": "GPU"}
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One step as the page shows it; `share` is that of the time of all steps."""

    name: str
    title: str
    seconds: float
    share: float
    energy: str


def cost_values(report: BuildReport, price: Price | None = None) -> dict[str, Any]:
    """Compute what the section shows.

    Args:
        report: Report of the build.
        price: Price of an hour of the machine; None takes that of the report.
    """
    cost = report.cost or Cost()
    if price is not None:
        cost = replace(cost, price=price)
    joules, seconds = cost.joules, time_of_steps(report)
    return {
        "cost_steps": [
            CostRow(
                name=step.name,
                title=title_of(step.name),
                seconds=step.seconds,
                share=step.seconds / seconds if seconds else 0.0,
                energy=energy_text(step.joules, joules),
            )
            for step in cost.steps
        ],
        "cost_seconds": seconds,
        "energy": energy_text(joules, joules) if joules else "",
        "energy_sentence": energy_sentence(cost),
        "money_sentence": money_sentence(cost, seconds, given=price is not None),
    }


def title_of(name: str) -> str:
    """Name a step for people."""
    for beginning, title in TITLES.items():
        if name.startswith(beginning):
            rest = name.removeprefix(beginning)
            return f"{title}{rest.replace('_', ' ')}" if title.endswith(": ") else title
    return name.replace("_", " ")


def energy_text(joules: Mapping[str, float], counters: Mapping[str, float]) -> str:
    """Write the sum of some counters: in watt hours, and in kilowatt hours from one on."""
    hours = sum(joules[name] for name in counters if name in joules) / 3600
    return f"{hours / 1000:.2f} kWh" if hours >= 1000 else f"{hours:.1f} Wh"


def energy_sentence(cost: Cost) -> str:
    """Say how much energy was counted and by what, or that it was not."""
    if not cost.joules:
        return "not measured, because no counter could be read throughout; a wattmeter tells."
    parts = ", ".join(f"{COUNTERS.get(name, name)} {energy_text({name: 1.0 * value}, {name: value})}"
                      for name, value in cost.joules.items())  # fmt: skip
    return f"{parts}, by the counters of the whole devices, whatever else ran on them; nothing else was measured."


def money_sentence(cost: Cost, seconds: float, *, given: bool) -> str:
    """Say what the time costs at a price, or how to state one."""
    if cost.price is None:
        return "no price was stated; minigpt open NAME --price-per-hour '2.50 EUR' computes it from yours."
    amount, currency = cost.price.amount, cost.price.currency
    source = "the price given to minigpt open" if given else "the price given to minigpt build"
    return f"{amount * seconds / 3600:.2f} {currency}, at {amount:g} {currency} an hour ({source})."
