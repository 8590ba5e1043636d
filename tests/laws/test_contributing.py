"""The ways to add something that CONTRIBUTING.md describes work as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minigpt.corpus.sources import read_source
from minigpt.domain.config import SourceConfig
from minigpt.exporting import export, formats
from minigpt.methods import table
from minigpt.methods.material import gather
from minigpt.methods.ranking import rank
from minigpt.runtimes import base, load
from minigpt.transformer import arch, families
from tests.support import tiny
from tests.support.archsuite import random_batch
from tests.support.exports import make_shop

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n# ([^\n]*)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new files of the page as modules."""
    for title, code in BLOCKS:
        if re.fullmatch(r"(minigpt|corpora)/\S+\.py", title):
            name = title.removesuffix(".py").replace("/", ".").replace("corpora.", "minigpt._corpora.")
            module = ModuleType(name)
            exec(code, module.__dict__)
            monkeypatch.setitem(sys.modules, name, module)


def row(title: str, names: dict[str, Any]) -> Any:
    """The row of a table that stands in the block with this title, evaluated beside the table's own names."""
    (code,) = (code for first, code in BLOCKS if title in first)
    return eval(code.strip(), names)


@pytest.mark.usefixtures("modules")
def test_a_method() -> None:
    method = row("methods/table.py", vars(table))
    model = tiny.tiny_model()
    scores = rank(method, gather(model, [random_batch()]))
    assert scores is not None and scores.method == "energy"
    assert scores.ffn.shape == (4, 64) and scores.kv_groups.shape == (4, 2) and scores.layers.shape == (4,)


def test_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = row("ARCHITECTURES", vars(families))
    monkeypatch.setattr(arch, "ARCHITECTURES", {**families.ARCHITECTURES, spec.name: spec})
    config = tiny.tiny_config(spec.name)
    model = tiny.tiny_model(spec.name)
    assert arch.arch_of(config) is spec
    assert arch.parameters_of(config) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.usefixtures("modules")
def test_a_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (code,) = (code for first, code in BLOCKS if "EXPORTERS" in first)
    exporters, loaders = code.split("# a row of LOADERS in minigpt/runtimes/base.py")
    monkeypatch.setattr(formats, "EXPORTERS", formats.EXPORTERS | eval(f"{{{exporters}}}", vars(formats)))
    monkeypatch.setattr(base, "LOADERS", base.LOADERS | eval(f"{{{loaders}}}"))
    shop = make_shop(tmp_path)
    record = export(shop.request("torch-half", "half"))
    assert record.checks and record.quality is not None and record.bytes < record.source.bytes
    assert load(tmp_path / "half").name == "torch-half fp16"


@pytest.mark.usefixtures("modules")
def test_a_reader(tmp_path: Path) -> None:
    (tmp_path / "terms.tsv").write_text("Aorta\tThe main artery.\nVein\tA vessel.\n", encoding="utf-8")
    source = SourceConfig(name="terms", reader="glossary", ref="terms.tsv", license="CC0-1.0")
    documents = list(read_source(source, root=tmp_path))
    assert [document.text for document in documents] == ["Aorta: The main artery.", "Vein: A vessel."]
    assert documents[0].source != documents[1].source
