"""Everything the stages of one build share, fixed before the first of them runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.domain.config import DomainConfig
from minigpt.evaluation import Suite
from minigpt.files import fingerprint
from minigpt.healing import TokenText
from minigpt.machine import measuring_dtype
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.read import clear_of_tests
from minigpt.pipeline.sampling import sampled_documents, sampled_key
from minigpt.pipeline.settings import Settings
from minigpt.pipeline.text import (
    calibration_batches,
    definition_documents,
    dev_sample,
    in_turns,
    token_counts,
    token_text,
    training_documents,
)
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import Reporter
from minigpt.transformer.batches import Batch
from minigpt.types import Corpus, Document

NEUTRAL_PROMPT = "In short,"
READABLE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One build: what was asked for, what it works on, where it writes and to whom it reports.

    `shared` is where the builds of a sweep keep what they have in common; a build of its own has none. `text_seed` is
    the seed of the text: the points of a sweep have seeds of their own and read what their one control read. `asked`
    remembers what :meth:`asked_documents` made, by the key of the text, for the points of a sweep, too.
    """

    options: BuildOptions
    settings: Settings
    domain: DomainConfig
    corpus: Corpus
    general: Corpus | None
    suite: Suite
    parent: assets.Parent
    device: str
    text_seed: int
    workspace: Workspace
    reporter: Reporter
    shared: Workspace | None = None
    asked: dict[str, tuple[Document, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def common(self) -> Workspace:
        """Where stages go whose result does not depend on method and size."""
        return self.shared or self.workspace

    @property
    def prompt(self) -> str:
        """What the sample generations start from; never the user's own text unless they chose it as a prompt."""
        return self.domain.prompts[0] if self.domain.prompts else NEUTRAL_PROMPT

    def load(self, path: Path, *, training: bool = False) -> Any:
        """A model on the build's device: fp32 weights for training, the device's measuring precision otherwise."""
        import torch

        return assets.load_model(
            path, dtype=torch.float32 if training else measuring_dtype(self.device), device=self.device
        )

    @property
    def bounded(self) -> Corpus | None:
        """The general text, if its loss is bounded."""
        return self.general if self.settings.keep_general is not None else None

    @property
    def plan_text_key(self) -> str:
        """Names the text that decides what is kept."""
        return (
            self.corpus.fingerprint
            if self.bounded is None
            else fingerprint(self.corpus.fingerprint, self.bounded.fingerprint)
        )

    def probe_documents(self, limit: int) -> list[Document]:
        """About `limit` bytes of dev text, half of them general where its loss is bounded."""
        own = dev_sample(self.corpus.dev, limit if self.bounded is None else limit // 2)
        return own if self.bounded is None else [*own, *dev_sample(self.bounded.dev, limit // 2)]

    def calibration(self, tokenizer: Any, tokens: int) -> list[Batch]:
        """Packed calibration text of about `tokens` tokens, half of it general where its loss is bounded."""
        documents = list(self.corpus.calibration)
        if self.bounded is not None:
            documents = in_turns(documents, self.bounded.calibration)
        return calibration_batches(
            tokenizer,
            documents,
            window=self.settings.heal.window,
            tokens=tokens,
            batch_tokens=self.settings.evaluation.batch_tokens,
        )

    def token_counts(self, tokenizer: Any) -> Counter[int]:
        """How often the domain's own text, held-out and dev text aside, uses each token.

        Where general loss is bounded, as much general text is counted along.
        """
        documents = [*self.corpus.calibration, *self.corpus.train]
        if self.bounded is not None:
            size = sum(len(document.text.encode()) for document in documents)
            documents += dev_sample([*self.bounded.calibration, *self.bounded.train], size)
        return token_counts(tokenizer, documents)

    @property
    def real_text_key(self) -> str:
        """Names the text that is trained and decided on, as far as no model wrote it."""
        general = self.general.fingerprint if self.general else ""
        made = (replace(self.settings.text, sampled=0), self.text_seed)
        return fingerprint(self.corpus.fingerprint, general, self.bounded is not None, made)

    @property
    def text_key(self) -> str:
        """Names the text that is trained and decided on."""
        key = self.real_text_key
        return fingerprint(key, sampled_key(self)) if self.settings.text.sampled else key

    @property
    def general_share(self) -> float:
        """Bytes of general text that are trained on, relative to the domain's own; at least 1 where it is bounded."""
        if self.general is None:
            return 0.0
        return self.settings.text.general if self.bounded is None else max(1.0, self.settings.text.general)

    def read_documents(self) -> list[Document]:
        """The training documents: the domain's and the general text mixed in."""
        return training_documents(self.corpus, self.general, self.general_share)

    def asked_documents(self) -> tuple[Document, ...]:
        """The definitions that stand in them, as questions and answers; none that a test asks in the same words."""
        key = self.real_text_key
        if key not in self.asked:
            made = definition_documents(self.read_documents(), self.settings.text.definitions, self.text_seed)
            self.asked[key] = tuple(clear_of_tests(made, self.corpus, self.general))
        return self.asked[key]

    def real_documents(self) -> list[Document]:
        """What is trained on and was not sampled from a model."""
        return [*self.read_documents(), *self.asked_documents()]

    def training_text(self, tokenizer: Any, window: int) -> tuple[TokenText, TokenText]:
        """Training and dev text, tokenized: the same documents for the control and for the specialist."""
        documents = [*self.real_documents(), *sampled_documents(self)]
        dev = dev_sample(self.corpus.dev, self.settings.text.dev_bytes)
        return token_text(tokenizer, documents, window), token_text(tokenizer, dev, window)


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Save a plain Hugging Face folder with weights of `dtype`; the model in memory is cast too."""
    import torch

    from minigpt.assets.quiet import quiet_transformers

    with quiet_transformers():
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(READABLE)
