"""Tasks with free answers for lm-evaluation-harness: greedy answers, scored by a copy of our own scoring module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigpt.evaluation import scoring
from minigpt.evaluation.answers import metrics_of, shown_prompt
from minigpt.files import dumps, write_text
from minigpt.types import AnswerTask

# Name of the copy of the scoring module in the folder of tasks.
MODULE = "scoring"
# Aggregation of the metrics that are no means over prompts.
AGGREGATIONS = {
    "label_f1": f"!function {MODULE}.aggregate_labels",
    "constraints_followed": f"!function {MODULE}.aggregate_shares",
}


def answer_task(task: AnswerTask, ends: Sequence[str]) -> dict[str, Any]:
    """Define a task whose answers are generated greedily.

    Args:
        task: The task.
        ends: Texts of the tokens that end a text.
    """
    metrics = [
        {"metric": name, "aggregation": AGGREGATIONS.get(name, "mean"), "higher_is_better": True}
        for name in metrics_of(task)
    ]
    return {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answers[0] if answers else ''}}",
        "generation_kwargs": {
            "until": [*([] if task.chat else ["\n"]), *ends],
            "max_gen_toks": task.max_tokens,
            "do_sample": False,
        },
        "process_results": f"!function {MODULE}.process_results",
        "metric_list": metrics,
    }


def answer_rows(task: AnswerTask, tokenizer: Any) -> list[dict[str, Any]]:
    """List one row for each prompt, which holds the examples or the chat template already."""
    labels = list(dict.fromkeys(label for item in task.prompts for label in (item.choices or item.answers)))
    return [
        {
            "prompt": shown_prompt(task, item, tokenizer),
            "answers": list(item.answers),
            "choices": list(item.choices),
            "labels": labels if "label_f1" in task.metrics else [],
            "regex": item.regex,
            # Values are numbers in some rows and texts in others, which a table cannot hold.
            "constraints": dumps([asdict(entry) for entry in item.constraints]),
            "metrics": list(metrics_of(task)),
            "whole": task.chat,
        }
        for item in task.prompts
    ]


def write_scoring(folder: Path) -> None:
    """Copy the scoring module, which needs the standard library alone, beside the tasks."""
    write_text(folder / f"{MODULE}.py", Path(scoring.__file__).read_text("utf-8"))


def with_functions(text: str) -> str:
    """Turn the quoted names of functions in YAML into lm-eval's `!function` tags."""
    return re.sub(r"'(!function [\w.]+)'", r"\1", text)
