"""Quality of an export: bits per byte on held-out text, beside its source."""

from __future__ import annotations

from minigpt.evaluation import ItemScores, choose_opening, summarize, text_bits
from minigpt.evaluation.suite import sample_documents
from minigpt.exporting.request import ExportRequest, read_corpus
from minigpt.files import fingerprint
from minigpt.progress import Reporter
from minigpt.runtimes import Quality, Runtime
from minigpt.runtimes.scoring import scoring_model

# Tokens of a batch, small enough for every runtime.
BATCH_TOKENS = 1024


def measure_quality(source: Runtime, exported: Runtime, request: ExportRequest, reporter: Reporter) -> Quality:
    """Measure source and export on the same held-out passages of `request.domain`.

    Both read them behind the opening that suits the source best on dev text.

    Returns:
        Bits per byte of both, with the paired difference.

    Raises:
        CorpusError: the domain has no held-out text.
    """
    corpus = request.corpus or read_corpus(request, reporter=reporter)
    domain = corpus.domain
    documents = sample_documents(corpus.heldout, request.quality_bytes, seed=request.seed)
    opening = choose_opening(
        scoring_model(source), source.tokenizer, corpus.dev, batch_tokens=BATCH_TOKENS, reporter=reporter
    )
    before, after = (
        ItemScores(
            texts={
                domain: text_bits(
                    scoring_model(runtime),
                    runtime.tokenizer,
                    documents,
                    batch_tokens=BATCH_TOKENS,
                    opening=opening.token,
                    title=f"Reading {domain} with {runtime.name}",
                    reporter=reporter,
                )
            }
        )
        for runtime in (source, exported)
    )
    return Quality(
        domain=domain,
        fingerprint=fingerprint(documents),
        source=summarize(before),
        exported=summarize(after, parent=before),
        opening=opening.text,
    )
