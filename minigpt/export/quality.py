"""What an export costs in bits per byte of text that nothing was trained on."""

from __future__ import annotations

from minigpt.config import load_domain
from minigpt.corpus import build_corpus
from minigpt.evaluate import ItemScores, summarize, text_bits
from minigpt.evaluate.suite import sample_documents
from minigpt.export.run import ExportRequest
from minigpt.files import fingerprint
from minigpt.progress import Reporter
from minigpt.runtimes import Quality, Runtime
from minigpt.runtimes.scoring import scoring_model

BATCH_TOKENS = 1024


def measure_quality(source: Runtime, exported: Runtime, request: ExportRequest, reporter: Reporter) -> Quality:
    """Bits per byte of both on the same held-out passages of `request.domain`, with the paired difference.

    Raises:
        CorpusError: the domain has no held-out text.
    """
    domain = load_domain(request.domain)
    corpus = build_corpus(domain, seed=request.seed, reporter=reporter)
    documents = sample_documents(corpus.heldout, request.quality_bytes, seed=request.seed)
    before, after = (
        ItemScores(
            texts={
                domain.name: text_bits(
                    scoring_model(runtime),
                    runtime.tokenizer,
                    documents,
                    batch_tokens=BATCH_TOKENS,
                    title=f"Reading {domain.name} with {runtime.name}",
                    reporter=reporter,
                )
            }
        )
        for runtime in (source, exported)
    )
    return Quality(
        domain=domain.name,
        fingerprint=fingerprint(documents),
        source=summarize(before, seed=request.seed),
        exported=summarize(after, parent=before, seed=request.seed),
    )
