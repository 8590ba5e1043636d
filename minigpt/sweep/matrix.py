"""Cross-domain matrix: every specialist on the held-out text of every domain, compared with its own parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt import assets, report
from minigpt.assets import Parent
from minigpt.corpus import build_corpus
from minigpt.domain.config import DomainConfig, load_domain
from minigpt.errors import ConfigError
from minigpt.evaluation import Suite, TextItems, evaluate
from minigpt.evaluation.opening import sample_for_opening
from minigpt.evaluation.paired import averaged, metric_interval, paired
from minigpt.files import fingerprint, read_json, write_json
from minigpt.machine import measuring_dtype, pick_device, release
from minigpt.models import find
from minigpt.pipeline.read import document_limit
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT, Reporter
from minigpt.report.figures import HEADLINE
from minigpt.results import BuildReport
from minigpt.sweep.records import Matrix, MatrixCell

ITEMS = "items.json"
BATCH_TOKENS = {"cpu": 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialist:
    """A finished build: its name in the matrix, its folder and its report."""

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
    """Measure every build on the domains of all builds, and on their general text.

    The item scores stay under `output_dir`, so that the same call resumes, and one more specialist costs one more row.
    A domain's held-out split is that of the first build that was made for it: its definition, seed and number of
    documents. So no specialist is measured on text that it was trained on, unless another domain's training text shares
    documents with it, or the builds have different seeds, which a note says.

    Args:
        names: Build folders, catalog ids or domains (their latest build).
        output_dir: Folder for item scores, `matrix.json` and the picture.
        device: A torch device or "auto".
        limit: Most held-out passages of each domain; None takes all.
        pictures: Draw the heat map (needs matplotlib).
        reporter: Receives the progress.

    Raises:
        ConfigError: A name does not lead to a build folder, or pictures are wanted without matplotlib.
    """
    if pictures:
        from minigpt.sweep.plots import need_matplotlib

        need_matplotlib()
    specialists = [_specialist(name) for name in dict.fromkeys(names)]
    if len(seeds := sorted({specialist.report.seed for specialist in specialists})) > 1:
        reporter.note(
            f"The builds have the seeds {', '.join(map(str, seeds))}, so that one may have been trained on text that "
            "another holds out and both are measured on. Build them with one --seed to compare them."
        )
    texts = _texts(specialists, limit, reporter)
    workspace, target = Workspace(root=output_dir, reporter=reporter), pick_device(device)
    bases = dict.fromkeys(specialist.report.base_model for specialist in specialists)
    parents = {base: assets.parent(base, reporter=reporter) for base in bases}
    parent_items = {base: _measure(workspace, parent, texts, target, reporter) for base, parent in parents.items()}
    cells: list[MatrixCell] = []
    for specialist in specialists:
        model = find.find_model(str(specialist.folder), reporter=reporter)
        items = _measure(workspace, model, texts, target, reporter)
        base = specialist.report.base_model
        cells += [_cell(specialist, domain, items[domain], parent_items[base][domain]) for domain in texts]
    models = tuple(specialist.name for specialist in specialists)
    matrix = Matrix(models=models, domains=tuple(texts), cells=tuple(cells))
    if pictures:
        matrix = replace(matrix, files=_draw(matrix, output_dir))
    write_json(output_dir / "matrix.json", matrix)
    return matrix


def _specialist(name: str) -> Specialist:
    """Find the build behind a name.

    Raises:
        ConfigError: The name does not lead to a build folder.
    """
    folder = find.place_of(name)
    if not folder.is_dir() or not (folder / "domain.yaml").exists():
        raise ConfigError(f"{name} is not a build folder: the matrix needs a model and its domain.yaml.")
    return Specialist(name=name, folder=folder, report=report.load(folder))


def _texts(specialists: Sequence[Specialist], limit: int | None, reporter: Reporter) -> dict[str, Suite]:
    """Collect the held-out text of each domain, then the general texts; the first build of a domain sets its split."""
    texts: dict[str, Suite] = {}
    general_texts: dict[str, tuple[DomainConfig, int]] = {}
    for specialist in specialists:
        domain, seed = load_domain(str(specialist.folder)), specialist.report.seed
        if domain.name not in texts:
            texts[domain.name] = _suite(domain, seed, limit, reporter, document_limit(specialist.report))
        if domain.general != domain.name:
            general = load_domain(domain.general)
            general_texts.setdefault(general.name, (general, seed))
    for name, (general, seed) in general_texts.items():
        if name not in texts:
            texts[name] = _suite(general, seed, limit, reporter)
    return texts


def _suite(
    domain: DomainConfig, seed: int, limit: int | None, reporter: Reporter, max_documents: int | None = None
) -> Suite:
    """Collect a domain's held-out passages, and the dev text on which each model's opening is chosen."""
    corpus = build_corpus(domain, seed=seed, max_documents=max_documents, reporter=reporter)
    return Suite(texts={domain.name: corpus.heldout[:limit]}, dev=sample_for_opening(corpus.dev))


def _measure(
    workspace: Workspace, model: Parent, texts: Mapping[str, Suite], device: str, reporter: Reporter
) -> dict[str, TextItems]:
    """Measure one model on every domain, behind its best opening; item scores in the workspace are read from there."""
    # The model is loaded only when the first item scores are missing.
    loaded: list[tuple[object, object]] = []
    scores = {}
    for domain, suite in texts.items():

        def make(folder: Path, domain: str = domain, suite: Suite = suite) -> None:
            if not loaded:
                network = assets.load_model(model.path, dtype=measuring_dtype(device), device=device)
                loaded.append((network, assets.load_tokenizer(model.path)))
            scores = evaluate(*loaded[0], suite, batch_tokens=BATCH_TOKENS.get(device, 16384), reporter=reporter)
            write_json(folder / ITEMS, scores.texts[domain])

        key = fingerprint(model.fingerprint, suite, device)
        folder, _ = workspace.stage(f"{model.fingerprint}-{domain}", key, make)
        scores[domain] = read_json(folder / ITEMS, TextItems)
    if loaded:
        loaded.clear()
        release()
    return scores


def _cell(specialist: Specialist, domain: str, items: TextItems, parent: TextItems) -> MatrixCell:
    """Compare a specialist with its parent on one domain."""
    ours, baseline = averaged([items], HEADLINE), averaged([parent], HEADLINE)
    return MatrixCell(
        model=specialist.name,
        domain=domain,
        own=domain == specialist.report.domain,
        value=metric_interval(ours, HEADLINE),
        parent=parent.bits_per_byte,
        ratio=paired(ours, baseline, HEADLINE, how="ratio"),
        n=len(ours),
    )


def _draw(matrix: Matrix, root: Path) -> tuple[str, ...]:
    """Draw the heat map, and return the paths of its files from `root`."""
    from minigpt.sweep.plots import matrix as matrix_figure
    from minigpt.sweep.plots import save_figure

    return tuple(path.relative_to(root).as_posix() for path in save_figure(matrix_figure(matrix), root, "matrix"))
