"""What an export costs in bits per byte of text that nothing was trained on."""

from __future__ import annotations

from minigpt.evaluation import ItemScores, summarize, text_bits
from minigpt.evaluation.suite import sample_documents
from minigpt.exporting.run import ExportRequest
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
    domain = request.corpus.domain
    documents = sample_documents(request.corpus.heldout, request.quality_bytes, seed=request.seed)
    before, after = (
        ItemScores(
            texts={
                domain: text_bits(
                    scoring_model(runtime),
                    runtime.tokenizer,
                    documents,
                    batch_tokens=BATCH_TOKENS,
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
        source=summarize(before, seed=request.seed),
        exported=summarize(after, parent=before, seed=request.seed),
    )
