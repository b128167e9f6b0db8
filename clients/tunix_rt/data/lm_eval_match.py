"""Grades answers as lm-eval does by its `exact_match`, behind the filters of a task file.

It is sent to the evaluator with the task's settings behind it, and the digest of both is in the grader's
version.
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any


def found(text: str, pattern: str, group: int, fallback: str) -> str:
    matches = re.findall(pattern, text)
    # lm-eval breaks off where there are fewer matches than that; nothing was found either way.
    if not -len(matches) <= group < len(matches):
        return fallback
    match = matches[group]
    parts = [part for part in match if part] if isinstance(match, tuple) else [match]
    return parts[0].strip() if parts else fallback


def filtered(text: str, filters: Sequence[Mapping[str, Any]]) -> str | None:
    """What the filters leave of an answer; None where a map does not know it."""
    for one in filters:
        function = one["function"]
        if function == "regex":
            text = found(text, one["regex_pattern"], one["group_select"], one["fallback"])
        elif function == "map":
            mapped = one["mapping_dict"].get(text, one["default_value"])
            if mapped is None:
                return None
            text = mapped
        elif function == "lowercase":
            text = text.lower()
        elif function == "uppercase":
            text = text.upper()
        else:
            text = text.strip()
    return text


def compared(text: str, rules: Mapping[str, Any]) -> str:
    """A text without what the metric does not look at."""
    for pattern in rules["regexes_to_ignore"]:
        text = re.sub(pattern, "", text)
    if rules["ignore_case"]:
        text = text.lower()
    if rules["ignore_punctuation"]:
        text = text.translate(str.maketrans("", "", string.punctuation))
    if rules["ignore_numbers"]:
        text = text.translate(str.maketrans("", "", string.digits))
    return text


def grade(output: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Right when what the filters leave of the answer equals a target."""
    for stop in SETTINGS["until"]:
        output = output.split(stop)[0]
    answer = filtered(output, SETTINGS["filters"])
    if answer is None:
        return {"score": False, "explanation": "the task's map does not know the answer"}
    rules = SETTINGS["rules"]
    right = any(compared(answer, rules) == compared(target, rules) for target in item["accepted_answers"])
    return {"score": right, "answer": answer[:1000]}


SETTINGS: dict[str, Any] = {
    "until": [],
    "filters": [],
    "rules": {
        "regexes_to_ignore": [],
        "ignore_case": False,
        "ignore_punctuation": False,
        "ignore_numbers": False,
    },
}
