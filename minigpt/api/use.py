"""Use of a finished model: load it, measure it, export it for another runtime, and read its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.api.memory import Texts, as_documents
from minigpt.api.splits import split_for
from minigpt.conditional.folder import load_model
from minigpt.errors import ConfigError
from minigpt.evaluation import Suite, summarize
from minigpt.evaluation import evaluate as score
from minigpt.exporting import QUALITY_BYTES, ExportRequest, check_options, format_of, rounding_of
from minigpt.exporting import export as write_export
from minigpt.machine import pick_device
from minigpt.models import find
from minigpt.models.evaluate import evaluate_ref
from minigpt.progress import SILENT, Reporter
from minigpt.results import BuildReport, StageReport
from minigpt.runtimes import ExportRecord
from minigpt.types import QuestionSet


def load(model: str | Path, *, device: str = "auto", dtype: Any = None, reporter: Reporter = SILENT) -> tuple[Any, Any]:
    """Load a model and its tokenizer, ready to use.

    Args:
        model: a model folder, a build folder, a folder with conditional layers, a catalog id, a domain (its latest
            build), a Hub id, a GGUF file or a packaged asset.
        device: torch device, or "auto".
        dtype: torch dtype or its name (None: float32, which pruning and healing need).
        reporter: told about downloads and conversions.

    Returns:
        A transformers model in evaluation mode, and its tokenizer.

    Raises:
        AssetError: there is no such model, or it is an export for another runtime.
        ConfigError: `dtype` is no torch dtype.
    """
    import torch

    path = find.find_model(str(model), reporter=reporter).path
    torch_dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(torch_dtype, torch.dtype):
        raise ConfigError(f"{dtype!r} is no torch dtype; write it like float32 or bfloat16.")
    return load_model(path, dtype=torch_dtype, device=pick_device(device)), assets.load_tokenizer(path)


def load_report(name: str | Path) -> BuildReport:
    """Read the report of a build folder, a report.json, a catalog id or a domain (its latest build).

    Raises:
        AssetError: there is no such report.
        MiniGPTError: the file is no report of minigpt.
    """
    return find.find_report(str(name))


def evaluate(
    model: Any,
    on: str | Path | Texts,
    *,
    tokenizer: Any = None,
    questions: Sequence[QuestionSet] = (),
    dev: Texts = (),
    device: str = "auto",
    seed: int | None = None,
    limit: int | None = None,
    online: bool = False,
    reporter: Reporter = SILENT,
) -> StageReport:
    """Measure a model: bits per byte, perplexity and multiple choice, with 95 % intervals.

    Args:
        model: a reference, as for :func:`load`, or an exported folder; or a model in memory.
        on: name or file of a domain, for a reference: its held-out text and questions; or texts, for a model in memory.
        tokenizer: the tokenizer of a model in memory.
        questions: question sets to ask a model in memory.
        dev: texts on which the opening of a model in memory is chosen, the token before every text (none: `bos`, else
            `eos`); never texts that are measured.
        device: torch device, or "auto", for a reference.
        seed: seed of the splits, for a reference (None: that of the build behind it, else 0).
        limit: at most this many documents and questions of each set.
        online: read the domain's Hub data sets too.
        reporter: told about progress.

    Raises:
        ConfigError: the arguments do not belong together.
    """
    if isinstance(model, (str, Path)):
        if not isinstance(on, (str, Path)):
            raise ConfigError("A model by reference is measured on a domain; load it to measure it on texts.")
        split = split_for(str(model), str(on), seed, reporter=reporter)
        return evaluate_ref(
            str(model),
            str(on),
            device=device,
            seed=split.seed,
            max_documents=split.max_documents,
            limit=limit,
            online=online,
            reporter=reporter,
        )
    if isinstance(on, (str, Path)) or tokenizer is None:
        raise ConfigError("A model in memory is measured on a list of texts, with its tokenizer.")
    suite = Suite(
        texts={"texts": tuple(as_documents(on)[:limit])},
        questions={f"texts/{question_set.name}": question_set for question_set in questions},
        dev=tuple(as_documents(dev)) if dev else (),
    )
    started = time.perf_counter()
    scores = score(model, tokenizer, suite, batch_tokens=1024, reporter=reporter)
    parameters = list(model.parameters())
    return StageReport(
        stage="pruned",
        parameters=sum(parameter.numel() for parameter in parameters),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        seconds=time.perf_counter() - started,
        metrics=summarize(scores),
        opening=scores.opening,
    )


def export(
    model: str | Path,
    output_dir: str | Path,
    *,
    format: str,
    precision: str | None = None,
    rounding: str | None = None,
    domain: str | None = None,
    quality_bytes: int | None = QUALITY_BYTES,
    limit: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> ExportRecord:
    """Export a model for another runtime, after a check that the export computes the same.

    Args:
        model: as for :func:`load`.
        output_dir: folder to write.
        format: a name of `minigpt export --help`: onnx, onnx-genai, gguf, torch-4bit, draft, lm-eval.
        precision: precision of the weights (None: the format's first).
        rounding: how int4 weights are rounded (None: the format's first).
        domain: domain whose held-out text the export is measured on (None: the build's domain, else general text).
        quality_bytes: for a format that is a model, bytes of that text to read at most (None: all).
        limit: for `lm-eval`, at most this many documents and questions of each set; for `draft`, prompts to try.
        device: torch device of the source; `lm-eval` has none.
        seed: seed of the held-out split (None: that of the build, else 0).
        force: replace an earlier export.
        reporter: told about progress.

    Raises:
        ConfigError: an option does nothing in this format.
        ExportError: a package is missing, the folder is in use, or the export does not compute what its source does.
    """
    rounding_of(format, format_of(format, precision)[1], rounding)  # refuse before anything is fetched
    check_options(
        format,
        quality_bytes=None if quality_bytes == QUALITY_BYTES else quality_bytes,
        limit=limit,
        device=None if device == "auto" else device,
    )
    domain = domain or find.domain_of_build(str(model)) or "general"
    split = split_for(str(model), domain, seed, reporter=reporter)
    with reporter.stage(f"Finding {model}"):
        source = find.find_model(str(model), reporter=reporter)
    request = ExportRequest(
        source=source,
        format=format,
        precision=precision,
        rounding=rounding,
        output_dir=Path(output_dir),
        domain=domain,
        quality_bytes=quality_bytes,
        limit=limit,
        seed=split.seed,
        max_documents=split.max_documents,
        device=pick_device(device),
        force=force,
    )
    return write_export(request, reporter=reporter)
