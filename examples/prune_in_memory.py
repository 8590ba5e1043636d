"""Prune a model in memory, heal it for a few steps, and measure what that cost: no corpus, no folder, no catalog.

python examples/prune_in_memory.py [MODEL] [FOLDER of .txt files]
"""

import copy
import sys
from pathlib import Path

import minigpt
from minigpt.assets import DEFAULT_BASE

MODEL = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_BASE
FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("texts")

texts = [path.read_text("utf-8") for path in sorted(FOLDER.glob("*.txt"))]
train, dev, heldout = texts[:-8], texts[-8:-4], texts[-4:]  # never measure on text that was trained or decided on

model, tokenizer = minigpt.load(MODEL)
parent = copy.deepcopy(model)
before = minigpt.evaluate(parent, heldout, tokenizer=tokenizer)

plan = minigpt.plan(model, tokenizer, train, size=0.75)
model, short = minigpt.prune(model, tokenizer, plan, repair=train)
pruned = minigpt.evaluate(model, heldout, tokenizer=short)

training = minigpt.heal(model, short, train, dev=dev, steps=10, teacher=parent, plan=plan)
healed = minigpt.evaluate(model, heldout, tokenizer=short)

print(f"{plan.parameters_before:,} parameters, {plan.parameters_after:,} after pruning")
for name, stage in (("parent", before), ("pruned", pruned), (f"healed, {training.steps} steps", healed)):
    bits = next(metric for metric in stage.metrics if metric.metric == "bits_per_byte")
    print(f"{name}: {bits.value:.3f} bits per byte (95 %: {bits.low:.3f} to {bits.high:.3f}, {bits.n} texts)")

model.save_pretrained("specialist")
short.save_pretrained("specialist")
