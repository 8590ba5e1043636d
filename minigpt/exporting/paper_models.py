"""Models that the papers behind this program measured, and whether a user can point it at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from minigpt.transformer.families import ARCHITECTURES, UNDESCRIBED

MINI_GPTS = "Mini-GPTs (arXiv 2312.12682)"
SHORTGPT = "ShortGPT (arXiv 2403.03853)"
DEEPER = "The Unreasonable Ineffectiveness of the Deeper Layers (arXiv 2403.17887)"
ULTRAFAST = "UltraFastBERT (arXiv 2311.10770)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperModel:
    """Model of a paper.

    Attributes:
        paper: the paper.
        model: what the paper calls the model.
        family: the `model_type` of its config.
        works: whether `--base` takes it.
        note: what is special, or why it is refused; empty if there is nothing to say.
    """

    paper: str
    model: str
    family: str
    works: bool
    note: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the row as plain values."""
        return asdict(self)


# Models by paper, with the types of their configs.
_MODELS: Mapping[str, Mapping[str, str]] = {
    MINI_GPTS: {"Phi-1.5": "phi", "OPT-1.3B": "opt", "Llama-1.3B": "llama"},
    SHORTGPT: {"Llama-2": "llama", "Baichuan2": "baichuan", "RWKV-7B": "rwkv", "Mamba-2.8B": "mamba"},
    DEEPER: {"Llama-2": "llama", "Qwen": "qwen", "Mistral-7B": "mistral", "Phi-2": "phi"},
    ULTRAFAST: {"BERT": "bert"},
}
# What is to be said of models that work.
_NOTES: Mapping[str, str] = {
    "mamba": "the form that transformers writes (`state-spaces/mamba-2.8b-hf`); its layers and tokens are pruned",
    "rwkv": "RWKV-4, the kind that transformers has a class for, with `rescale_every` 0 in its config.json, which "
    "computes the same; its layers are pruned, all but the first",
}
# What is to be taken in place of models that do not work.
_INSTEAD: Mapping[str, str] = {
    "qwen": "Qwen2 and later (`qwen2`, `qwen3`) are taken",
}


def paper_models() -> list[PaperModel]:
    """List the papers' models; the table of families decides which of them work."""
    return [_row(paper, model, family) for paper, models in _MODELS.items() for model, family in models.items()]


def _row(paper: str, model: str, family: str) -> PaperModel:
    """Look a model up in the tables of families."""
    if family in ARCHITECTURES:
        return PaperModel(paper=paper, model=model, family=family, works=True, note=_NOTES.get(family, ""))
    reason = UNDESCRIBED[family] + (f"; {_INSTEAD[family]}" if family in _INSTEAD else "")
    return PaperModel(paper=paper, model=model, family=family, works=False, note=reason)
