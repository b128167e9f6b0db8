"""How an error becomes what a person reads: one clear line, and one for each wrong field, by its option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final


def describe(error: BaseException, typed: TypedNames | None = None) -> list[str]:
    """The lines for one error; the first says what happened, further ones name each wrong field.

    Fields that an option of the command fills are called by the option, which ``typed`` knows.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return [missing_module(error.name)]
    if _is_own(error):
        # Domain errors of services call them violations.
        violations: Any = getattr(error, "field_violations", ()) or getattr(error, "violations", ())
        return list(_with_fields(str(error), violations, typed or TypedNames()))
    if type(error).__module__.startswith("pydantic"):
        return list(_pydantic(error))
    if isinstance(error, OSError):
        return [_os_error(error)]
    if isinstance(error, ValueError) and "out of range" in str(error):
        # What protobuf says of a number that does not fit into its field.
        return [str(error)]
    return [f"{type(error).__name__}: {error} (this is a bug; -vv shows where it came from)"]


def missing_module(name: str) -> str:
    """One line for a module that is not installed: its name, and the command that installs it."""
    package = name.partition(".")[0]
    if package == "torch":
        return "torch is not installed; install it with: pip install torch"
    return (
        f"{package} is not installed; install what the embedded server needs with: "
        "pip install 'tunix-rt[local]' (or use a running server: --server HOST:PORT)"
    )


def _is_own(error: BaseException) -> bool:
    return any(base.__module__.partition(".")[0].startswith("tunix_rt") for base in type(error).__mro__)


def _with_fields(message: str, violations: Sequence[Any], typed: TypedNames) -> Iterator[str]:
    names = {violation.field: typed.of_field(violation.field) for violation in violations if violation.field}
    # The longest first: a path may begin as another one does.
    for field in sorted(names, key=len, reverse=True):
        message = message.replace(f"{field}: ", f"{names[field]}: ")
    yield typed.in_sentence(message)
    if len(violations) == 1 and violations[0].description in message:
        return
    for violation in violations:
        name = names.get(violation.field, violation.field)
        yield f"  {name}: {typed.in_sentence(violation.description)}"


def _pydantic(error: Any) -> Iterator[str]:
    problems = [
        (".".join(str(part) for part in problem["loc"]), problem["msg"]) for problem in error.errors()
    ]
    if len(problems) == 1:
        field, message = problems[0]
        yield f"{field}: {message}" if field else message
        return
    yield f"{len(problems)} settings are wrong"
    for field, message in problems:
        yield f"  {field}: {message}"


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


# Parameters that have another name than the field they fill.
_PARAMETERS: Final = {
    "base_evaluation": "base",
    "candidate_evaluation": "candidate",
    "chat_template": "template",
    "created_from": "created_after",
    "dataset_id": "dataset",
    "deduplication.method": "duplicates",
    "deduplication.threshold": "similarity",
    "eval_set_id": "eval_set",
    "eval_sets": "eval_set",
    "metadata": "where",
    "metadata_field": "group_by",
    "page_size": "limit",
    "prompt_contains": "contains",
    "reasoning_style": "style",
    "scores": "min_score",
    "sources": "source",
    "special_tokens": "base_model",
    "split_group.near_duplicate_threshold": "keep_apart",
    "splits": "split",
    "system_instruction": "system",
    "unwritable_rows": "unwritable",
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
    """Names the options of one command in place of the fields of the contract that they fill.

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
