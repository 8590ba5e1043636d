"""Command `minigpt catalog`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigpt.cli.catalog_table import overview
from minigpt.cli.common import Session, examples, facts, standard, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.models.signing import Signature
    from minigpt.packages import Mismatch
    from minigpt.pipeline.rescore import Rescored


@click.group(
    epilog=examples("minigpt catalog list", "minigpt catalog add runs/medical", "minigpt catalog verify --json")
)
def catalog() -> None:
    """Show finished models: where they are, and whether their files are still the ones that were measured."""


@catalog.command(
    "list",
    epilog=examples(
        "minigpt catalog list",
        "minigpt catalog list --domain law --json",
        'minigpt catalog list --page models.html --gate "bits_per_byte@other>1.02x"',
    ),
)
@click.option("--domain", metavar="NAME", help="Domain whose models are listed [all].")
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write an HTML page of the models, which says which one to take for which constraint.",
)
@click.option(
    "--gate",
    "gates",
    metavar="EXPRESSION",
    multiple=True,
    help="With --page: what must not be true of a model that may ship [the default gates].",
)
@standard
def list_entries(session: Session, *, domain: str | None, page: Path | None, gates: tuple[str, ...]) -> None:
    """List the models, oldest first."""
    from minigpt.models import catalog as library

    if gates and page is None:
        raise click.UsageError("--gate judges the models on a page: give --page FILE too.")
    entries = library.entries(domain)
    if page is not None:
        from minigpt.models.page import write_catalog

        write_catalog(page, domain, gates)
        session.reporter.note(f"The page is {page}.")
    session.show({"entries": entries}, lambda: overview(entries, domain))


@catalog.command(epilog=examples("minigpt catalog show medical"))
@click.argument("name")
@standard
def show(session: Session, *, name: str) -> None:
    """Show the report of NAME, which is an id, or a domain (its latest build)."""
    from minigpt import report
    from minigpt.models import find

    finished = find.find_report(name)
    session.show(finished, lambda: report.render(finished))


@catalog.command(epilog=examples("minigpt catalog add runs/medical"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@standard
def add(session: Session, *, folder: str) -> None:
    """Add the finished build in FOLDER, with hashes of its files."""
    from minigpt.models import catalog as library

    entry = library.add(Path(folder))
    session.show(entry, lambda: overview([entry]))


@catalog.command(
    epilog=examples("minigpt catalog remove medical-76-20260101-1a2b3c", "minigpt catalog remove ID --delete-files")
)
@click.argument("entry_id", metavar="ID")
@click.option("--delete-files", is_flag=True, help="Also delete the files that the entry recorded.")
@standard
def remove(session: Session, *, entry_id: str, delete_files: bool) -> None:
    """Remove the entry ID. Its files stay where they are unless --delete-files is given."""
    from minigpt.models import catalog as library

    entry = library.remove(entry_id, delete=delete_files, reporter=session.reporter)
    session.show(entry, lambda: f"Removed {entry.id}; files {'deleted' if delete_files else 'kept'}: {entry.path}")


@catalog.command(
    epilog=examples(
        "minigpt catalog verify",
        "minigpt catalog verify medical-76-20260101-1a2b3c --signed",
        "minigpt catalog verify --packages --constraints constraints.txt",
    )
)
@click.argument("entry_id", metavar="[ID]", required=False)
@click.option("--rescore", is_flag=True, help="Also measure the models again and compare with their reports.")
@click.option("--signed", is_flag=True, help="Also demand signatures by signers of MINIGPT_ALLOWED_SIGNERS.")
@click.option("--packages", is_flag=True, help="Also check what the installed packages require of each other.")
@click.option(
    "--constraints",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also compare the installed packages with the versions that this file pins.",
)
@standard
def verify(
    session: Session,
    *,
    entry_id: str | None,
    rescore: bool,
    signed: bool,
    packages: bool,
    constraints: Path | None,
) -> None:
    """Hash the files of ID, or of all entries, again. The exit code is 1 if one is missing, changed or new.

    A signature that is there is checked, too: it is bad if the bill of materials or a file that it names has changed.
    With --rescore the exit code is 1, too, if a number differs by more than another device or version of a library may
    make. Nothing is fetched: --packages and --constraints read what is installed.
    """
    from minigpt.models import catalog as library
    from minigpt.models.signing import SIGNATURE

    with session.reporter.stage("Hashing"):
        states = library.verify(entry_id)
        signatures = {key: signature_of(key) for key in states}
    for key, signature in signatures.items():
        if signature.state != "unsigned":
            states[key][SIGNATURE] = "changed" if signature.state == "bad" else "ok"
    damaged = {key: {name: state for name, state in files.items() if state != "ok"} for key, files in states.items()}
    measured = {key: second_scores(session, key) for key, files in damaged.items() if rescore and not files}
    wrong, others = installed(list(states), packages=packages, constraints=constraints)
    more = {
        **({"rescored": measured} if rescore else {}),
        **({"signatures": signatures} if signed else {}),
        **({"packages": {"wrong": wrong, "other_versions": others}} if packages or constraints else {}),
    }
    data = {"files": states, **more} if more else states
    session.show(data, lambda: verified(damaged, measured, signatures, (*wrong, *others)))
    refuse(damaged, measured, signatures if signed else {}, wrong)


def refuse(
    damaged: Mapping[str, Mapping[str, str]],
    measured: Mapping[str, Sequence[Rescored]],
    signatures: Mapping[str, Signature],
    wrong: Sequence[Mismatch],
) -> None:
    """End with exit code 1 if something that was looked at is not as it was, or not as it must be.

    Raises:
        AssetError: it is not.
    """
    from minigpt.errors import AssetError

    if bad := [key for key, files in damaged.items() if files]:
        raise AssetError(f"Files of {', '.join(bad)} are missing, changed or new: build again, or remove the entry.")
    if differs := [task for key in damaged for task in measured.get(key, ()) if not task.agrees]:
        names = ", ".join(dict.fromkeys(f"{item.metric} of {item.task}" for item in differs))
        raise AssetError(f"Measured again, {names} differ from the report: see the table, and the versions in it.")
    if strange := [key for key, signature in signatures.items() if signature.state != "trusted"]:
        raise AssetError(
            f"No signer that you trust has signed {', '.join(strange)}: name your list of signers in "
            "MINIGPT_ALLOWED_SIGNERS, and sign with minigpt catalog sign."
        )
    if wrong:
        names = ", ".join(dict.fromkeys(item.package for item in wrong))
        raise AssetError(f"Other versions are wanted of {names}: install those that the table names.")


def signature_of(entry_id: str) -> Signature:
    """Check the signature of an entry's bill of materials."""
    from minigpt.models import catalog as library
    from minigpt.models.signing import check

    entry = library.get(entry_id)
    return check(Path(entry.path), entry.hashes)


def installed(
    entry_ids: Sequence[str], *, packages: bool, constraints: Path | None
) -> tuple[tuple[Mismatch, ...], tuple[Mismatch, ...]]:
    """List the packages that are not as others or the pins want them, and those of other versions than the builds'."""
    if not packages and constraints is None:
        return (), ()
    from minigpt import packages as check
    from minigpt.models import find

    wrong = (*(check.unmet() if packages else ()), *(check.against(constraints) if constraints is not None else ()))
    others = [item for key in entry_ids for item in check.other_versions(find.find_report(key).versions, key)]
    return wrong, tuple(others)


def second_scores(session: Session, entry_id: str) -> Sequence[Rescored]:
    """Measure the model of an entry again."""
    from minigpt.models import catalog as library
    from minigpt.pipeline.rescore import rescore

    return rescore(Path(library.get(entry_id).path), reporter=session.reporter)


def verified(
    damaged: Mapping[str, Mapping[str, str]],
    measured: Mapping[str, Sequence[Rescored]],
    signatures: Mapping[str, Signature],
    packages: Sequence[Mismatch],
) -> RenderableType:
    """Draw the state of each entry's files with its signature, numbers that were measured again, and packages."""
    from rich.console import Group

    parts: list[RenderableType] = [
        facts({key: f"{verdict(files)}; {signatures[key].reason}" for key, files in damaged.items()})
    ]
    if measured:
        scores = table("=id", "task", "metric", ">report", ">now", "agrees")
        for key, items in measured.items():
            for item in items:
                values = f"{item.reported:.5g}", f"{item.measured:.5g}"
                scores.add_row(key, item.task, item.metric, *values, "yes" if item.agrees else "no")
        parts.append(scores)
    if packages:
        rows = table("package", "installed", "wanted", "by")
        for wish in packages:
            rows.add_row(wish.package, wish.installed or "missing", wish.wanted, wish.by)
        parts.append(rows)
    return Group(*parts)


@catalog.command(epilog=examples("minigpt catalog sign medical --key ~/.ssh/id_ed25519"))
@click.argument("name")
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), help="SSH key to sign with [MINIGPT_SIGNING_KEY]."
)
@standard
def sign(session: Session, *, name: str, key: Path | None) -> None:
    """Sign the bill of materials of NAME (an id, or a domain's latest build) with a key of yours.

    The bill holds the hashes of the model's files. ssh-keygen signs it; of a key in the agent, name the .pub file.
    Builds sign their bills themselves if MINIGPT_SIGNING_KEY names a key.
    """
    from minigpt import environment
    from minigpt.models import catalog as library
    from minigpt.models.signing import sign as sign_bill

    used = key or environment.signing_key()
    if used is None:
        raise click.UsageError("Give --key FILE, or set MINIGPT_SIGNING_KEY.")
    folder = Path(name) if Path(name).is_dir() else library.resolve(name)
    signature = sign_bill(folder, used.expanduser())
    session.show({"signature": str(signature)}, lambda: f"Signed: {signature}")


@catalog.command("licenses", epilog=examples("minigpt catalog licenses medical"))
@click.argument("name")
@standard
def show_licenses(session: Session, *, name: str) -> None:
    """List the licenses of everything in NAME (an id, or a domain's latest build): parent, texts and packages."""
    from minigpt.models.bill import licenses_of

    rows = licenses_of(name)

    def drawn() -> RenderableType:
        result = table("license", "kind", "name", "version")
        for row in rows:
            result.add_row(row.license, row.kind, row.name, row.version)
        return result

    session.show({"licenses": rows}, drawn)


@catalog.command(epilog=examples("minigpt catalog sbom medical", "minigpt catalog sbom ID --output bill.json"))
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write it to [none].")
@standard
def sbom(session: Session, *, name: str, output: Path | None) -> None:
    """Write the bill of materials of NAME (an id, or a domain's latest build) as CycloneDX 1.6 JSON.

    It lists the model with the hashes of its files, the parent, the texts, the packages, and their licenses.
    """
    from minigpt.files import dumps, write_text
    from minigpt.models.bill import bill_of

    text = dumps(bill_of(name))
    if output is not None:
        write_text(output, text)
        session.show({"output": str(output)}, lambda: f"Wrote {output}")
    else:
        click.echo(text, nl=False)


def verdict(damaged: Mapping[str, str]) -> str:
    """Format the line of an entry: `ok`, or the files that are not."""
    return ", ".join(f"{name} {state}" for name, state in damaged.items()) or "ok"
