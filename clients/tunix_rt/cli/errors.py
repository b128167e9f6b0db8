"""How an error becomes what people and programs read: what happened, and each wrong field by its option."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from tunix_rt.cli.documents import STDERR, ErrorDocument, NoticeDocument, ViolationDocument, document_text
from tunix_rt.escapes import visible

# What other tools call a command, and what it is called here.
_OTHER_WORDS: Final = {
    **dict.fromkeys(("rename", "tag", "untag", "note", "edit", "set"), "update"),
    **dict.fromkeys(("rm", "remove"), "delete"),
    **dict.fromkeys(("get", "describe", "info", "status"), "show"),
    **dict.fromkeys(("logs", "follow"), "watch"),
    **dict.fromkeys(("stop", "kill"), "cancel"),
    **dict.fromkeys(("run", "runs", "job", "jobs", "experiments"), "train"),
    **dict.fromkeys(("eval", "evaluations"), "evaluation"),
    **dict.fromkeys(("eval-set", "evalsets"), "evalset"),
    "ls": "list",
    "create": "build",
    "add": "import",
}
# Typer does not export it.
_UsageError: Any = typer.BadParameter.__mro__[1]


class _Flags:
    """Shows flags without a type: they take no value."""

    def get_params(self, ctx: typer.Context) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in params:
            if getattr(parameter, "is_flag", False) or getattr(parameter, "count", False):
                parameter.metavar = parameter.metavar or ""
        return params


class Command(_Flags, TyperCommand):  # type: ignore[misc]
    """A command whose help is as the others'."""


class Group(_Flags, TyperGroup):  # type: ignore[misc]
    """A group that knows what other tools call its commands, and says what they are called here."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            word = _OTHER_WORDS.get(args[0])
            if word in self.commands:
                error.message = f"No such command {args[0]!r}. Here it is called {word!r}."
            raise


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, for people (``lines``) and for programs (``document``).

    ``message`` and the violations' descriptions call fields by the options that fill them.
    """

    message: str
    code: str = "UNKNOWN"
    reason: str = ""
    violations: Sequence[ViolationDocument] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 1

    def lines(self) -> list[str]:
        """The first says what happened, further ones name each wrong field that the first does not."""
        return [self.message, *self._others()]

    def _others(self) -> Iterator[str]:
        if len(self.violations) == 1 and self.violations[0]["description"] in self.message:
            return
        for violation in self.violations:
            told = f"{violation['option'] or violation['field']}: {violation['description']}"
            if not re.search(rf"(?<![\w.\]]){re.escape(told)}(?!\w)", self.message):
                yield f"  {told}"

    def document(self) -> ErrorDocument:
        """The same for programs."""
        return {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "violations": list(self.violations),
            "metadata": dict(self.metadata),
            "exit_code": self.exit_code,
        }

    def write_json(self) -> None:
        """Write the document to stderr, as one line."""
        write_line(self.document())


def line_of(document: ErrorDocument | NoticeDocument) -> str:
    """A document as a line for stderr."""
    return document_text(document, STDERR, sys.stderr.encoding, indent=None)


def write_line(document: ErrorDocument | NoticeDocument) -> None:
    """Write a document to stderr, as one line."""
    sys.stderr.write(f"{line_of(document)}\n")
    sys.stderr.flush()


def failure_of(error: BaseException, typed: TypedNames | None = None) -> Failure:
    """What one error says. Fields that an option of the command fills are called by it: ``typed`` knows."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Failure(
            missing_module(error.name),
            "FAILED_PRECONDITION",
            "MODULE_MISSING",
            metadata={"module": error.name},
        )
    if _is_own(error):
        return _own(error, typed or TypedNames())
    if type(error).__module__.startswith("pydantic"):
        return _pydantic(error)
    if isinstance(error, OSError):
        return _os_error(error)
    if isinstance(error, ValueError) and "out of range" in str(error):
        return _out_of_range(str(error), typed or TypedNames())
    return Failure(
        f"{type(error).__name__}: {error} (this is a bug; -vv shows where it came from)", "INTERNAL", "BUG"
    )


def failure_outside(error: BaseException) -> Failure | None:
    """What ended a command line before its command began, or from outside; None for a plain exit."""
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", "CANCELLED", "INTERRUPTED", exit_code=128 + signal.SIGINT)
    if isinstance(error, SystemExit):
        if error.code == 128 + signal.SIGTERM:
            return Failure("terminated by SIGTERM", "CANCELLED", "TERMINATED", exit_code=error.code)
        return None
    if isinstance(error, typer.Abort):
        return Failure("aborted", "CANCELLED", "ABORTED")
    return _usage(error) if hasattr(error, "format_message") else failure_of(error)


def _usage(error: Any) -> Failure:
    """What an error of typer says: a wrong option, an argument that is missing."""
    parameter = getattr(error, "param", None)
    option = _shown(parameter) if parameter is not None else getattr(error, "option_name", None)
    message = visible(error.format_message())
    if option is None and (named := re.match(r"--[a-z][a-z-]+(?=\W|$)", error.message)):
        option = named[0]
    violations: list[ViolationDocument] = []
    if option:
        name = parameter.name if parameter is not None else option.lstrip("-").replace("-", "_")
        told = visible(error.message) or message
        violations = [{"field": name, "option": option, "description": told}]
    command = error.ctx.command_path if getattr(error, "ctx", None) else ""
    return Failure(
        message,
        "INVALID_ARGUMENT",
        "USAGE",
        violations,
        {"command": command} if command else {},
        error.exit_code,
    )


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


def _own(error: Any, typed: TypedNames) -> Failure:
    if getattr(error, "reason", "") == "FORMAT_INVALID":
        # The fields are those of a file's line.
        typed = TypedNames()
    # Domain errors of services call them violations.
    given: Sequence[Any] = getattr(error, "field_violations", ()) or getattr(error, "violations", ())
    names = {violation.field: typed.of_field(violation.field) for violation in given if violation.field}
    message = str(error)
    # The longest first: a path may begin as another one does.
    for path in sorted(names, key=len, reverse=True):
        message = message.replace(f"{path}: ", f"{names[path]}: ")
    violations: list[ViolationDocument] = [
        {
            "field": violation.field,
            "option": _other(names.get(violation.field, ""), violation.field),
            "description": typed.in_sentence(violation.description),
        }
        for violation in given
    ]
    return Failure(
        typed.in_sentence(message),
        getattr(error, "code", "") or "UNKNOWN",
        getattr(error, "reason", ""),
        violations,
        {
            # Of a job that failed, the job.
            **({"name": error.resource.name} if hasattr(error, "resource") else {}),
            **{name: str(value) for name, value in getattr(error, "metadata", {}).items()},
        },
    )


def _out_of_range(told: str, typed: TypedNames) -> Failure:
    """What protobuf says of a number that does not fit into its field, which it does not name."""
    number = told.rpartition(" ")[2]
    problem = f"is {number}, {'less' if number.startswith('-') else 'more'} than its field can hold"
    violations: list[ViolationDocument] = [
        {"field": name, "option": option, "description": problem} for name, option in typed.given(number)
    ]
    message = "; ".join(f"{violation['option']}: {problem}" for violation in violations) or told
    return Failure(message, "INVALID_ARGUMENT", "VALUE_OUT_OF_RANGE", violations)


def _other(name: str, field: str) -> str | None:
    return name if name and name != field else None


def _pydantic(error: Any) -> Failure:
    violations: list[ViolationDocument] = [
        {
            "field": ".".join(str(part) for part in problem["loc"]),
            "option": None,
            "description": problem["msg"],
        }
        for problem in error.errors()
    ]
    message = f"{len(violations)} settings are wrong"
    if len(violations) == 1:
        message = ": ".join(filter(None, (violations[0]["field"], violations[0]["description"])))
    return Failure(message, "INVALID_ARGUMENT", "SETTINGS_INVALID", violations)


_CODES: Final = {
    errno.ENOENT: "NOT_FOUND",
    errno.EEXIST: "ALREADY_EXISTS",
    errno.EACCES: "PERMISSION_DENIED",
    errno.EPERM: "PERMISSION_DENIED",
    errno.ENOSPC: "RESOURCE_EXHAUSTED",
    errno.EDQUOT: "RESOURCE_EXHAUSTED",
    errno.ENOTDIR: "FAILED_PRECONDITION",
    errno.EISDIR: "FAILED_PRECONDITION",
    errno.EADDRINUSE: "FAILED_PRECONDITION",
}


def _os_error(error: OSError) -> Failure:
    told = error.strerror or str(error)
    return Failure(
        f"{error.filename}: {told}" if error.filename else told,
        _CODES.get(error.errno or 0, "UNKNOWN"),
        errno.errorcode.get(error.errno or 0, "IO_FAILED"),
        metadata={"file": str(error.filename)} if error.filename else {},
    )


# Parameters that have another name than the field they fill.
_PARAMETERS: Final = {
    "base_evaluation": "base",
    "candidate_evaluation": "candidate",
    "chat_template": "template",
    "base_models": "base_model",
    "created_from": "created_after",
    "dataset_id": "dataset",
    "deduplication.method": "duplicates",
    "deduplication.threshold": "similarity",
    "datasets": "dataset",
    "add_tags": "tag",
    "display_name": "name",
    "display_name_contains": "name",
    "eval_set_id": "eval_set",
    "eval_sets": "eval_set",
    "families": "family",
    "name_contains": "name",
    "metadata": "where",
    "metadata_field": "group_by",
    "models": "model",
    "note_contains": "note",
    "order_by": "sort",
    "page_size": "limit",
    "prompt_contains": "contains",
    "reasoning_style": "style",
    "scores": "min_score",
    "sources": "source",
    "special_tokens": "base_model",
    "split_group.near_duplicate_threshold": "keep_apart",
    "splits": "split",
    "states": "state",
    "system_instruction": "system",
    "remove_tags": "remove_tag",
    "tags": "tag",
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
        values: what was given for them, by name.
    """

    def __init__(self, parameters: Iterable[Any] = (), values: Mapping[str, Any] | None = None) -> None:
        self._values = values or {}
        self._shown = {parameter.name: _shown(parameter) for parameter in parameters}

    def of_field(self, path: str) -> str:
        """What was typed for the field at ``path``, such as ``spec.lora.rank``; else the path."""
        parts = _INDEX.sub("", path).split(".")
        if any(part in _RECORDS for part in parts):
            return path
        return next((shown for name in _tails(parts) if (shown := self._of(name))), path)

    def given(self, value: str) -> Iterator[tuple[str, str]]:
        """Name and option of each parameter whose value reads so."""
        for name, given in self._values.items():
            if str(given) == value and name in self._shown:
                yield name, self._shown[name]

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
