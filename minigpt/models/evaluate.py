"""Evaluation of any causal model on a domain, for `minigpt eval`."""

from __future__ import annotations

import time
from dataclasses import replace

from minigpt.corpus import build_corpus
from minigpt.domain.config import DomainConfig, load_domain, resolve_domain
from minigpt.evaluation import Suite, evaluate, suite_for, summarize
from minigpt.evaluation.loops import loops_of
from minigpt.machine import measuring_dtype, pick_device
from minigpt.models.find import export_folder, open_model
from minigpt.progress import SILENT, Reporter
from minigpt.progress.loops import Looped
from minigpt.results import StageReport


def evaluate_ref(
    ref: str,
    domain: str,
    *,
    device: str = "auto",
    seed: int = 0,
    max_documents: int | None = None,
    limit: int | None = None,
    online: bool = False,
    reporter: Reporter = SILENT,
) -> StageReport:
    """Measure perplexity and multiple choice of a model on a domain's held-out split and on general text.

    Texts stand behind the opening that suits the model best on the domain's dev text.

    Args:
        ref: A model folder, build folder, export folder, catalog id, Hub id, GGUF file or `pypi:` asset.
        domain: Name or file of a domain.
        device: A torch device or "auto".
        seed: Seed of the split; a build with the same seed has the same held-out documents.
        max_documents: Number of the domain's documents to sample; with the build's, its held-out documents are read.
        limit: Most passages of each text and questions of each set; None measures all.
        online: Also use the domain's Hub data sets.
        reporter: Receives the progress.

    Returns:
        The results as a stage: `exported` for an export folder, `parent` for any other model.
    """
    from minigpt.runtimes.scoring import scoring_model

    started = time.perf_counter()
    suite = build_suite(
        resolve_domain(domain, online=online), seed=seed, max_documents=max_documents, limit=limit, reporter=reporter
    )
    target = pick_device(device)
    runtime = open_model(ref, device=target, dtype=measuring_dtype(target), reporter=reporter)
    model, batch = scoring_model(runtime), 16384 if target != "cpu" else 1024
    looped = Looped(reporter, loops_of(suite))
    scores = evaluate(model, runtime.tokenizer, suite, batch_tokens=batch, reporter=looped)
    return StageReport(
        stage="exported" if export_folder(ref) else "parent",
        parameters=runtime.parameters,
        bytes=runtime.bytes,
        seconds=time.perf_counter() - started,
        metrics=summarize(scores),
        opening=scores.opening,
    )


def build_suite(
    domain: DomainConfig,
    *,
    seed: int,
    limit: int | None,
    max_documents: int | None = None,
    reporter: Reporter = SILENT,
) -> Suite:
    """Build the suite of a domain and of its general text.

    Args:
        domain: Definition of the domain.
        seed: Seed of the split and of the sample of questions.
        limit: Most passages and questions of each task; None takes all.
        max_documents: Number of the domain's documents to sample; None takes all. General text is never sampled.
        reporter: Receives the progress.
    """
    corpus = build_corpus(domain, seed=seed, max_documents=max_documents, reporter=reporter)
    general = None
    if domain.general != domain.name:
        general = build_corpus(load_domain(domain.general), seed=seed, reporter=reporter)
    suite = suite_for(corpus, general, max_questions=limit, max_answers=limit, seed=seed)
    if limit is None:
        return suite
    return replace(suite, texts={task: documents[:limit] for task, documents in suite.texts.items()})
