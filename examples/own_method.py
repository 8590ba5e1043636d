"""A pruning method of your own, without touching minigpt.

A method is a function `(Material) -> Scores` and a row that names it. Use it from the command line,

    minigpt build --domain medical --method own_method:ROW        (in the folder of this file)

or from Python: `minigpt.plan(..., method=ROW)`. This one ranks a neuron by how much its output varies over the text,
and a KV group by the norm of its weights.

    python examples/own_method.py [MODEL] [FOLDER of .txt files]
"""

import sys
from pathlib import Path

import minigpt
from minigpt.assets import DEFAULT_BASE
from minigpt.methods import Material, Method, Scores


def deviation(material: Material) -> Scores:
    """Standard deviation of a neuron's output times the norm of the column of down that carries it on."""
    statistics, norms = material.statistics, material.norms
    variance = (statistics.ffn_sq - statistics.ffn_mean.square()).clamp_min(0)
    return Scores(
        ffn=(variance * norms.down).sqrt(),  # [layers, neurons]
        kv_groups=norms.group.sqrt(),  # [layers, KV groups]
        layers=statistics.layer_cos,  # [layers]
    )


ROW = Method(
    name="deviation",
    rank=deviation,
    prunes=("ffn", "kv_groups"),  # the planner cuts only these axes
    paper="an example",
    repair=True,  # refit what is left by least squares
)

if __name__ == "__main__":
    base = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_BASE
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("texts")
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))]
    for method in ("random", "wanda", ROW):
        model, tokenizer = minigpt.load(base)
        plan = minigpt.plan(model, tokenizer, texts[:-4], size=0.85, method=method)
        model, tokenizer = minigpt.prune(model, tokenizer, plan, method=method, repair=texts[:-4])
        bits = minigpt.evaluate(model, texts[-4:], tokenizer=tokenizer).metrics[0]
        name = method if isinstance(method, str) else method.name
        print(f"{name}: {bits.value:.3f} bits per byte (95 %: {bits.low:.3f} to {bits.high:.3f})")
