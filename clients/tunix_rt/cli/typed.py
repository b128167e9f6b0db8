"""What a person typed for a field of the contract: an option of the command, or an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

# Parameters that have another name than the field they fill.
_PARAMETERS: Final = {
    "base_evaluation": "base",
    "candidate_evaluation": "candidate",
    "chat_template": "template",
    "checkpoint_interval_steps": "checkpoint_interval",
    "created_from": "created_after",
    "dataset_id": "dataset",
    "deduplication.method": "duplicates",
    "deduplication.threshold": "similarity",
    "eval_set_id": "eval_set",
    "eval_sets": "eval_set",
    "gradient_accumulation_steps": "gradient_accumulation",
    "keep_best_checkpoint": "keep_best",
    "log_probabilities": "logprobs",
    "metadata": "where",
    "metadata_field": "group_by",
    "page_size": "limit",
    "patience": "early_stopping",
    "prompt_contains": "contains",
    "reasoning_style": "style",
    "scores": "min_score",
    "sources": "source",
    "special_tokens": "base_model",
    "split_group.near_duplicate_threshold": "keep_apart",
    "splits": "split",
    "system_instruction": "system",
    "target_modules": "target_module",
    "unwritable_rows": "unwritable",
    "validation_interval_steps": "validation_interval",
    "waivers": "waive",
}
# What was read out of a file, where its own fields have these names.
_RECORDS: Final = ("items", "traces")
_INDEX: Final = re.compile(r"\[[^\]]*\]")
# A field's name in a sentence. In quotation marks it is a value, and with a dot a path.
_NAME: Final = re.compile(r"(?<![\w'\"./`-])[a-z0-9]+(?:_[a-z0-9]+)+(?![\w'\"/`(-]|\.\w)")


# The path of a field before what is wrong with it, as the error of a job that failed has it.
_PATH: Final = re.compile(r"(?<![\w'\"./`-])spec(?:\.[a-z0-9_]+)+(?=: )")


class TypedNames:
    """Says options of one command in place of the fields of the contract that they fill.

    Args:
        parameters: the parameters of the command, as typer has them.
    """

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        self._shown = {parameter.name: _shown(parameter) for parameter in parameters}

    def of_field(self, path: str) -> str:
        """What was typed for the field at ``path``, such as ``spec.lora.rank``; else the path."""
        parts = _INDEX.sub("", path).split(".")
        if any(part in _RECORDS for part in parts):
            return path
        return next((shown for name in _tails(parts) if (shown := self._of(name))), path)

    def in_sentence(self, sentence: str) -> str:
        """The sentence with options in place of fields' names."""
        sentence = _PATH.sub(lambda match: self.of_field(match[0]), sentence)
        return _NAME.sub(lambda match: self._of(match[0]) or match[0], sentence)

    def _of(self, field: str) -> str:
        return self._shown.get(_PARAMETERS.get(field, field), "")


def _tails(parts: list[str]) -> Iterator[str]:
    """The last field by its name and its parent's, then by its name alone, then its parent the same way."""
    for end in range(len(parts), 0, -1):
        if end > 1:
            yield f"{parts[end - 2]}.{parts[end - 1]}"
        yield parts[end - 1]


def _shown(parameter: Any) -> str:
    long: str | None = next((flag for flag in parameter.opts if flag.startswith("--")), None)
    return long or (parameter.metavar or parameter.name.upper()).strip("[]").partition("[")[0]
