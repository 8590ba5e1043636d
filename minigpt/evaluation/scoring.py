"""Scores of free answers: exact match, token F1, ROUGE-L, label F1, form and verifiable constraints.

It needs the standard library alone: `minigpt export --format lm-eval` puts a copy beside its tasks, so that both
programs score answers by the same code. Its version of SQuAD's rules follows Rajpurkar et al. 2016, "SQuAD: 100,000+
Questions for Machine Comprehension of Text" (arXiv 1606.05250, section 6.1); ROUGE-L is that of Lin 2004, "ROUGE: A
Package for Automatic Evaluation of Summaries" (section 3), without stemming; constraints are of the kind of Zhou et al.
2023, "Instruction-Following Evaluation for Large Language Models" (arXiv 2311.07911), with checks of our own.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Label of an answer that is none of the labels.
NO_LABEL = -1

_SENTENCE = re.compile(r"[^.!?]*[^\W_][^.!?]*(?:[.!?]+|$)")


def answer_of(text: str, *, whole: bool) -> str:
    """Take the answer from what a model wrote: its first line, or all of it.

    Args:
        text: Text that the model wrote after the prompt.
        whole: Take all of it.
    """
    return text.strip() if whole else text.partition("\n")[0].strip()


def normalized(text: str) -> str:
    """Write a text in lower case, without punctuation, English articles and double spaces, as SQuAD's script does."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
    """Return 1 if an answer equals one of the right ones, both normalized, else 0."""
    return float(normalized(answer) in {normalized(text) for text in right})


def token_f1(answer: str, right: Sequence[str]) -> float:
    """Compute F1 over the words of an answer and a right one, both normalized; the best of all right ones."""
    return max(_overlap(normalized(answer).split(), normalized(text).split()) for text in right)


def _overlap(ours: Sequence[str], right: Sequence[str]) -> float:
    """Compute F1 over two bags of words; two empty ones are equal."""
    if not ours or not right:
        return float(list(ours) == list(right))
    return _f1(sum((Counter(ours) & Counter(right)).values()), len(ours), len(right))


def _f1(common: int, ours: int, right: int) -> float:
    """Compute the harmonic mean of precision and recall: 2 common / (ours + right)."""
    return 2 * common / (ours + right)


def rouge_l(answer: str, right: Sequence[str]) -> float:
    """Compute F1 over the longest common subsequence of words of an answer and a right one; the best of all."""
    ours = re.findall(r"[^\W_]+", answer.lower())
    others = [re.findall(r"[^\W_]+", text.lower()) for text in right]
    return max(
        _f1(_common_subsequence(ours, other), len(ours), len(other)) if ours and other else 0.0 for other in others
    )


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Count the words of the longest common subsequence, by dynamic programming over one row."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for place, other in enumerate(right, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def label_of(answer: str, labels: Sequence[str]) -> int:
    """Find the index of the label that an answer equals, both normalized; `NO_LABEL` if there is none."""
    wanted = normalized(answer)
    return next((index for index, label in enumerate(labels) if normalized(label) == wanted), NO_LABEL)


def label_f1(right: Sequence[int], answers: Sequence[int]) -> float:
    """Compute macro F1: the mean, over the labels that are right somewhere, of 2 TP / (2 TP + FP + FN).

    Args:
        right: Index of each right label.
        answers: Index of each answer's label, `NO_LABEL` for an answer that is none.
    """
    labels = sorted(set(right))
    pairs = list(zip(right, answers, strict=True))
    return sum(2 * pairs.count((label, label)) / (right.count(label) + answers.count(label)) for label in labels) / len(
        labels
    )


def complies(answer: str, choices: Sequence[str], regex: str) -> float:
    """Return 1 if an answer has the form that was asked for, to the letter: one of the choices, the whole pattern."""
    is_choice = not choices or answer in choices
    return float(is_choice and (not regex or re.fullmatch(regex, answer) is not None))


def followed(answer: str, constraints: Sequence[Mapping[str, Any]]) -> int:
    """Count the constraints that an answer follows; an empty answer follows none.

    Args:
        answer: The answer.
        constraints: Records of `kind` and `value`.
    """
    if not answer.strip():
        return 0
    return sum(CHECKS[item["kind"]](answer.strip(), item["value"]) for item in constraints)


def _is_json(answer: str, _value: Any) -> bool:
    """Check for a JSON object or list and nothing else."""
    try:
        return isinstance(json.loads(answer), (dict, list))
    except (ValueError, RecursionError):
        return False


def _words(answer: str) -> list[str]:
    """Return the words of an answer in lower case."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", answer.lower())


def _lines(answer: str) -> list[str]:
    """Return the lines of an answer that are not empty."""
    return [line.strip() for line in answer.splitlines() if line.strip()]


def _has_bullets(answer: str, value: Any) -> bool:
    """Check for so many bullets and no other line."""
    lines = _lines(answer)
    return len(lines) == value and all(re.match(r"[-*•]\s+\S", line) for line in lines)


def _contains(answer: str, value: Any) -> bool:
    """Check for a word or a phrase, in any case."""
    return re.search(rf"(?<!\w){re.escape(str(value).lower())}(?!\w)", answer.lower()) is not None


CHECKS: Mapping[str, Callable[[str, Any], bool]] = {
    "json": _is_json,
    "sentences": lambda answer, value: len(_SENTENCE.findall(answer)) == value,
    "words_at_most": lambda answer, value: len(_words(answer)) <= value,
    "words_at_least": lambda answer, value: len(_words(answer)) >= value,
    "bullets": _has_bullets,
    "lines": lambda answer, value: len(_lines(answer)) == value,
    "contains": _contains,
    "avoids": lambda answer, value: not _contains(answer, value),
    "starts_with": lambda answer, value: answer.startswith(str(value)),
    "ends_with": lambda answer, value: answer.endswith(str(value)),
    "one_of": lambda answer, value: answer.rstrip(".") in str(value).split("|"),
    "lower_case": lambda answer, _value: answer == answer.lower() and answer != answer.upper(),
    "upper_case": lambda answer, _value: answer == answer.upper() and answer != answer.lower(),
    "number": lambda answer, _value: re.fullmatch(r"[-+]?\d+(?:[.,]\d+)*", answer.rstrip(".")) is not None,
    "no_commas": lambda answer, _value: "," not in answer,
    "quoted": lambda answer, _value: len(answer) > 2 and answer[0] == answer[-1] == '"',
}
"""Checks of constraints by kind: `check(answer, value)`."""


def process_results(row: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one answer for lm-evaluation-harness, which finds this function by its name in a task's YAML.

    Args:
        row: A row of the task's data.
        results: The text that the model wrote.
    """
    answer = answer_of(results[0], whole=row["whole"])
    right, choices = row["answers"], row["choices"]
    constraints = json.loads(row["constraints"])
    counted = followed(answer, constraints)
    scores: dict[str, Callable[[], Any]] = {
        "exact_match": lambda: exact_match(answer, right),
        "token_f1": lambda: token_f1(answer, right),
        "rouge_l": lambda: rouge_l(answer, right),
        "label_f1": lambda: (label_of(right[0], row["labels"]), label_of(answer, row["labels"])),
        "format_compliance": lambda: complies(answer, choices, row["regex"]),
        "instructions_followed": lambda: float(counted == len(constraints)),
        "constraints_followed": lambda: (counted, len(constraints)),
    }
    return {name: scores[name]() for name in row["metrics"]}


def aggregate_labels(pairs: Sequence[tuple[int, int]]) -> float:
    """Compute macro F1 from pairs of right label and answer's label, for lm-evaluation-harness."""
    return label_f1([right for right, _ in pairs], [answer for _, answer in pairs])


def aggregate_shares(pairs: Sequence[tuple[int, int]]) -> float:
    """Divide the sum of the first numbers by that of the second ones, for lm-evaluation-harness."""
    return sum(count for count, _ in pairs) / sum(size for _, size in pairs)
