"""Rows as lm-eval's templates read them: what a row asks, and what is right."""

from __future__ import annotations

import ast
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.benchmarks import BadRow, Question, Row, choice, mixed

if TYPE_CHECKING:
    from jinja2 import Template

_SECONDS: Final = 2.0
_MAX_RENDERED: Final = 1 << 20
_MAX_POWER: Final = 256
_WIDE: Final = re.compile(r"%[^a-zA-Z%]*\d{4}")
_SHOWN: Final = 60
INSTALL_TEMPLATES: Final = "pip install 'tunix-rt[hub]'"
# Letters in their order, with or without brackets, which the question itself explains.
_LABEL: Final = re.compile(r"\(?([A-Z])[).]?")


class Templates:
    """The templates of a task.

    A text that names a column stands for it, as in lm-eval; any other is a Jinja template over the columns.

    Raises:
        ValueError: a template does not parse, by its key.
        FormatError: Jinja is not installed.
    """

    def __init__(self, text: Any, target: Any, choices: Any, description: str) -> None:
        given = {"doc_to_text": text, "doc_to_target": target, "doc_to_choice": choices}
        self._given = {**given, "description": description}
        self._compiled: dict[str, Template] = {}
        for key, value in self._given.items():
            if isinstance(value, str):
                self._compiled[key] = _compiled(key, value)

    @property
    def has_choices(self) -> bool:
        """Whether the task has options."""
        return self._given["doc_to_choice"] is not None

    @property
    def same_target(self) -> bool:
        """Whether the target is the same for all rows."""
        target = self._given["doc_to_target"]
        return not isinstance(target, str) or target.strip().isdigit()

    def question(self, row: Row) -> str:
        """What is asked; raises BadRow."""
        text = self._value("doc_to_text", row)
        if not isinstance(text, str) or (self.has_choices and text.isdigit()):
            # lm-eval then asks a question for each option.
            raise BadRow(f"doc_to_text: is {_shown(text)} for it; a text would be right")
        description = str(self._value("description", row)) if self._given["description"] else ""
        return description + text

    def target(self, row: Row) -> Any:
        """What is right: a text, a number, or a list of those; raises BadRow."""
        given = self._given["doc_to_target"]
        value = self._value("doc_to_target", row)
        if isinstance(given, str) and given not in row and isinstance(value, str):
            if value.isdigit() and self.has_choices:
                return int(value)
            if len(value) >= 2 and value[0] == "[" and value[-1] == "]":
                return _literal(value, value)
        return value

    def choices(self, row: Row) -> list[str]:
        """The options; raises BadRow."""
        given = self._given["doc_to_choice"]
        value = self._value("doc_to_choice", row)
        if isinstance(given, str) and given not in row:
            value = _literal(value, None)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise BadRow(f"doc_to_choice: is {_shown(value)} for it; a list of texts would be right")
        return value

    def _value(self, key: str, row: Row) -> Any:
        given = self._given[key]
        if not isinstance(given, str):
            return given
        if given in row:
            return row[given]
        return _rendered(key, self._compiled[key], row)


def choice_question(templates: Templates, row: Row) -> Question:
    """A row of a multiple-choice task; raises BadRow."""
    question, options, target = templates.question(row), templates.choices(row), templates.target(row)
    right = []
    for one in target if isinstance(target, list) else [target]:
        if isinstance(one, str) and options.count(one) == 1:
            one = options.index(one)
        if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < len(options):
            raise BadRow(
                f"doc_to_target: is {_shown(target)} for it; one of its {len(options)} options, or its "
                "place from 0, would be right"
            )
        right.append(one)
    if not right:
        raise BadRow("doc_to_target: is an empty list for it: no option is right")
    letters = [found[1] for option in options if (found := _LABEL.fullmatch(option.strip()))]
    if "".join(letters) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(options)] and len(options) > 1:
        grader = v1.Grader(multiple_choice=v1.MultipleChoiceGrader(options=letters))
        return Question(question, question, [letters[one] for one in right], grader)
    order = list(range(len(options)))
    if templates.same_target:
        # Where the right one has the same place in all rows, its letter would be right everywhere.
        order = mixed(question, options)
    made = choice(question, [options[at] for at in order], order.index(right[0]))
    letter = [chr(ord("A") + order.index(one)) for one in right]
    return Question(made.bare, made.asked, letter, made.grader)


def target_question(templates: Templates, row: Row) -> Question:
    """A row whose answer is compared with a text; raises BadRow."""
    question, target = templates.question(row), templates.target(row)
    if templates.has_choices:
        options = templates.choices(row)
        if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < len(options):
            raise BadRow(f"doc_to_target: is {_shown(target)} for it; the place of an option would be right")
        target = options[target]
    accepted = target if isinstance(target, list) else [target]
    if not isinstance(target, list) and type(target) in (int, float):
        accepted = [str(target)]
    for one in accepted:
        if not isinstance(one, str) or not one:
            raise BadRow(f"doc_to_target: is {_shown(target)} for it; a text would be right")
    if not accepted:
        raise BadRow("doc_to_target: is an empty list for it")
    return Question(question, question, accepted)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _literal(text: str, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return otherwise


def _compiled(key: str, source: str) -> Template:
    try:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError:
        raise FormatError(
            0, f"a task file needs Jinja, which is not installed: {INSTALL_TEMPLATES}"
        ) from None

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
            if any(isinstance(one, int) and abs(one) > _MAX_RENDERED for one in args):
                raise OverflowError("a call makes too much")
            return super().call(context, called, *args, **kwargs)

    environment = Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = _regex_replace
    # Two would give one row different texts, and two can make any number of spaces.
    for name in ("random", "format", "center"):
        del environment.filters[name]
    del environment.globals["lipsum"]
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"{key}: is no template: {' '.join(str(error).split())[:200]}") from None


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raise OverflowError for an operation that may fill the memory."""
    if operator == "%":
        too_much = isinstance(left, str) and (_WIDE.search(left) is not None or "*" in left)
    elif operator == "**":
        too_much = abs(right) > _MAX_POWER
    else:
        sizes = [len(one) if hasattr(one, "__len__") else one for one in (left, right)]
        too_much = sizes != [left, right] and abs(sizes[0] * sizes[1]) > _MAX_RENDERED
    if too_much:
        raise OverflowError(f"{operator} makes too much")


def _regex_replace(text: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, text, count=count)


def _rendered(key: str, template: Template, row: Mapping[str, Any]) -> str:
    pieces, size = [], 0
    try:
        with _limited(_SECONDS):
            for piece in template.generate(**row):
                size += len(piece)
                if size > _MAX_RENDERED:
                    raise BadRow(f"{key}: makes more than {_MAX_RENDERED:,} characters of it")
                pieces.append(piece)
    except BadRow:
        raise
    except Exception as error:
        # Whatever a template can make Python raise.
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadRow(f"{key}: fails for it: {why}") from None
    return "".join(pieces)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End a block after so much CPU time, where that can be done: in the main thread, on Unix."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise TimeoutError(f"it is not done after {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
