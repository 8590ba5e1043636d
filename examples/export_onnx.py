"""Write a specialist for ONNX Runtime, verified against PyTorch, and run it without PyTorch.

    python examples/export_onnx.py [MODEL] [OUTPUT FOLDER] [DOMAIN]

MODEL is a build folder, a catalog id or a domain that was built; DOMAIN's held-out text measures the export.
"""

import sys

import numpy as np
import onnxruntime
from transformers import AutoTokenizer

import minigpt

MODEL = sys.argv[1] if len(sys.argv) > 1 else "runs/medical"
FOLDER = sys.argv[2] if len(sys.argv) > 2 else "runs/medical-onnx"
DOMAIN = sys.argv[3] if len(sys.argv) > 3 else None

record = minigpt.export(MODEL, FOLDER, format="onnx", precision="int8", domain=DOMAIN, force=True)
for check in record.checks:
    print(f"{check.name}: largest difference {check.difference:.2g}")
print(f"{record.source.bytes / 1e6:.1f} MB before, {record.bytes / 1e6:.1f} MB as int8")

session = onnxruntime.InferenceSession(f"{FOLDER}/model.onnx")
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
ids = np.array([tokenizer.encode("Cardiomyopathy is")], dtype=np.int64)
inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(ids.shape[1])[None]}
for item in session.get_inputs():
    if item.name.startswith("past_key_values"):  # an empty past is a prefill
        shape = [1, item.shape[1], 0, item.shape[3]]
        inputs[item.name] = np.zeros(shape, dtype=np.float16 if "float16" in item.type else np.float32)
logits = session.run(["logits"], inputs)[0]
print("next token:", repr(tokenizer.decode(int(logits[0, -1].argmax()))))
