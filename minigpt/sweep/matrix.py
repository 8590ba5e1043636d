"""The cross-domain matrix: every specialist read on the held-out text of every domain, against its own parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt import assets, report
from minigpt.assets import Parent
from minigpt.corpus import build_corpus
from minigpt.domain.config import DomainConfig, load_domain
from minigpt.errors import ConfigError
from minigpt.evaluation import TextItems, text_bits
from minigpt.evaluation.paired import averaged, metric_interval, paired
from minigpt.files import fingerprint, read_json, write_json
from minigpt.machine import measuring_dtype, pick_device, release
from minigpt.models import catalog, find
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT, Reporter
from minigpt.report.figures import HEADLINE
from minigpt.sweep.records import Matrix, MatrixCell
from minigpt.types import BuildReport, Document

ITEMS = "items.json"
BATCH_TOKENS = {"cpu": 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialist:
    """A finished build: what it is called here, its folder and its report."""

    name: str
    folder: Path
    report: BuildReport


def cross_domain(
    names: Sequence[str],
    *,
    output_dir: Path,
    device: str = "auto",
    limit: int | None = None,
    pictures: bool = True,
    reporter: Reporter = SILENT,
) -> Matrix:
    """Measure each build on the domain of each, and on the general controls.

    What was read stays under `output_dir`, so that the same call resumes and one more specialist costs one more row.
    A domain's held-out split is that of the build that was made for it (its definition and seed), so no specialist is
    read on text that it was trained on, unless another domain's training text shares documents with it.

    Args:
        names: build folders, catalog ids or domains (their latest build).
        output_dir: where items, `matrix.json` and the picture go.
        device: a torch device or "auto".
        limit: at most this many held-out passages of each domain.
        pictures: draw the heat map (needs matplotlib).
        reporter: told about progress.

    Raises:
        ConfigError: a name stands for no build with its folder, or pictures are wanted without matplotlib.
    """
    if pictures:
        from minigpt.sweep.plots import need_matplotlib

        need_matplotlib()
    specialists = [_specialist(name) for name in dict.fromkeys(names)]
    texts = _texts(specialists, limit, reporter)
    workspace, target = Workspace(root=output_dir), pick_device(device)
    parents = {one.report.base_model: assets.parent(one.report.base_model, reporter=reporter) for one in specialists}
    before = {base: _read(workspace, parent, texts, target, reporter) for base, parent in parents.items()}
    cells: list[MatrixCell] = []
    for one in specialists:
        model = find.find_model(str(one.folder), reporter=reporter)
        items = _read(workspace, model, texts, target, reporter)
        cells += [_cell(one, domain, items[domain], before[one.report.base_model][domain]) for domain in texts]
    found = Matrix(models=tuple(one.name for one in specialists), domains=tuple(texts), cells=tuple(cells))
    if pictures:
        found = replace(found, files=_draw(found, output_dir))
    write_json(output_dir / "matrix.json", found)
    return found


def _specialist(name: str) -> Specialist:
    path = Path(name).expanduser()
    folder = path if path.exists() or not find.in_catalog(name) else catalog.resolve(name)
    if not folder.is_dir() or not (folder / "domain.yaml").exists():
        raise ConfigError(f"{name} is no build folder: the matrix needs its model and its domain.yaml.")
    return Specialist(name=name, folder=folder, report=report.load(folder))


def _texts(specialists: Sequence[Specialist], limit: int | None, reporter: Reporter) -> dict[str, list[Document]]:
    """Held-out text of each domain, then of each control, by name; the first build of a domain decides its split."""
    found: dict[str, list[Document]] = {}
    controls: dict[str, tuple[DomainConfig, int]] = {}
    for one in specialists:
        domain, seed = load_domain(str(one.folder)), one.report.seed
        if domain.name not in found:
            found[domain.name] = list(build_corpus(domain, seed=seed, reporter=reporter).heldout[:limit])
        if domain.general != domain.name:
            control = load_domain(domain.general)
            controls.setdefault(control.name, (control, seed))
    for name, (control, seed) in controls.items():
        if name not in found:
            found[name] = list(build_corpus(control, seed=seed, reporter=reporter).heldout[:limit])
    return found


def _read(
    workspace: Workspace, model: Parent, texts: Mapping[str, list[Document]], device: str, reporter: Reporter
) -> dict[str, TextItems]:
    """Items of one model on every domain, from the folder if they are there; the model is loaded only if not."""
    loaded: list[tuple[object, object]] = []
    found = {}
    for domain, documents in texts.items():

        def make(folder: Path, domain: str = domain, documents: list[Document] = documents) -> None:
            if not loaded:
                network = assets.load_model(model.path, dtype=measuring_dtype(device), device=device)
                loaded.append((network, assets.load_tokenizer(model.path)))
            items = text_bits(
                *loaded[0],
                documents,
                batch_tokens=BATCH_TOKENS.get(device, 16384),
                title=f"Reading {domain}",
                reporter=reporter,
            )
            write_json(folder / ITEMS, items)

        key = fingerprint(model.fingerprint, documents, device)
        folder, _ = workspace.stage(f"{model.fingerprint}-{domain}", key, make)
        found[domain] = read_json(folder / ITEMS, TextItems)
    if loaded:
        loaded.clear()
        release()
    return found


def _cell(one: Specialist, domain: str, items: TextItems, parent: TextItems) -> MatrixCell:
    ours, theirs = averaged([items], HEADLINE), averaged([parent], HEADLINE)
    return MatrixCell(
        model=one.name,
        domain=domain,
        own=domain == one.report.domain,
        value=metric_interval(ours, HEADLINE),
        parent=parent.bits_per_byte,
        ratio=paired(ours, theirs, HEADLINE, how="ratio"),
        n=len(ours),
    )


def _draw(found: Matrix, root: Path) -> tuple[str, ...]:
    from minigpt.sweep.plots import matrix, save_figure

    return tuple(path.relative_to(root).as_posix() for path in save_figure(matrix(found), root, "matrix"))
