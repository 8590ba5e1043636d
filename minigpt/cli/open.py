"""Command `minigpt open`."""

from __future__ import annotations

import webbrowser

import click

from minigpt.cli.common import Session, examples, standard
from minigpt.cli.params import HourPrice
from minigpt.costs import Price


@click.command(
    "open",
    epilog=examples(
        "minigpt open runs/medical",
        'minigpt open medical --gate "bits_per_byte>0.95x" --gate "bits_per_byte@other>1.0x"',
    ),
)
@click.argument("name")
@click.option(
    "--gate",
    "gates",
    metavar="EXPRESSION",
    multiple=True,
    help="What must not be true, as in `minigpt compare --fail-if`; the page then decides by these gates.",
)
@click.option(
    "--price-per-hour",
    type=HourPrice(),
    metavar="PRICE",
    help="Price of an hour of the machine, e.g. '2.50 EUR': the page then states the money [that of the build].",
)
@click.option("--no-browser", is_flag=True, help="Only write the page and print where it is.")
@standard
def open_page(
    session: Session, *, name: str, gates: tuple[str, ...], price_per_hour: Price | None, no_browser: bool
) -> None:
    """Show the page of NAME, which is a build folder, a catalog id, or a domain (its latest build).

    The page is one HTML file, `report.html` in the folder of the build, which works offline.
    """
    from minigpt.models.page import refresh_page

    page, decision = refresh_page(name, gates, price=price_per_hour)
    session.show(
        {"page": str(page), "decision": decision}, lambda: f"{page}\n{decision.answer.capitalize()}, by its gates."
    )
    if not (no_browser or session.json):
        webbrowser.open(page.resolve().as_uri())
