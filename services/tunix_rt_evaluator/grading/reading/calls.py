"""Reads the calls of tools out of a model's output, in the forms in which chat templates write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, NoReturn, get_args

from tunix_rt_evaluator.grading.model import CallForm, Span
from tunix_rt_kit.chat import ChatTemplate, Message, ToolCall
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.values import ChatTemplateFields

CALL_FORMS: Final[tuple[CallForm, ...]] = get_args(CallForm)

_OPENING: Final = "<tool_call>"
_CLOSING: Final = "</tool_call>"
_MARK: Final = re.compile(rf"{_OPENING}|{_CLOSING}")
_LLAMA_MARK: Final = "<|python_tag|>"
_LLAMA_FIELDS: Final = (re.compile(r'"name"\s*:'), re.compile(r'"(?:parameters|arguments)"\s*:'))
_BEFORE_CALLS: Final = re.compile(r"\n\n(?=\{)")
_MOST_GAPS: Final = 128
_BETWEEN: Final = re.compile(r"\s*;\s*")
_SPACE: Final = re.compile(r"\s*")
_OBJECT: Final = re.compile(r"\{")
# Of those that are opened before the end of the answer, the last ones.
_MOST_OBJECTS: Final = 1_000
_BESIDE: Final = frozenset({"id", "type"})


@dataclass(frozen=True, slots=True)
class Call:
    """A call: its arguments as JSON values, and ``exact`` as they are compared (see ``exactly``)."""

    name: str
    arguments: dict[str, Any]
    exact: Any

    def __str__(self) -> str:
        return f"{self.name}({json.dumps(self.arguments, ensure_ascii=False)})"


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of an output, the text beside them, and what is wrong with its calls: "" if nothing is."""

    calls: tuple[Call, ...]
    text: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CallProbe:
    """A form of calls, and a turn with a call in it as a chat template writes that."""

    form: CallForm
    turn: str

    def is_read_from(self, text: str) -> bool:
        """Whether the call is read from a text that has come of the turn."""
        return _is_probe(read_calls(text, self.form))


_ASKED: Final = Message(role="user", content="What is 2 + 3?")
_ARGUMENTS: Final = '{"a": 2, "more": {"b": [3, "three"]}}'
_CALLED: Final = Message(
    role="assistant", content="", tool_calls=(ToolCall(id="call00001", name="add", arguments=_ARGUMENTS),)
)
_TOOL: Final = '{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}'


@lru_cache(maxsize=64)
def call_probe(fields: ChatTemplateFields) -> CallProbe | None:
    """How a chat template writes calls; None if it takes none, or if that is no form that is read."""
    template = ChatTemplate.of(fields)
    try:
        whole = template.render([_ASKED, _CALLED], tools=[_TOOL])
        asked = template.render([_ASKED], tools=[_TOOL])
        opened = template.render([_ASKED], add_generation_prompt=True, tools=[_TOOL])
    except InvalidArgument:
        return None
    # Where a prompt opens reasoning, a turn of the history does not begin as it does.
    before = opened if whole.startswith(opened) else asked
    if not whole.startswith(before):
        return None
    turn = whole[len(before) :].partition(template.end_of_turn)[0]
    probes = (CallProbe(form, turn) for form in CALL_FORMS)
    return next((probe for probe in probes if probe.is_read_from(turn)), None)


def call_form(fields: ChatTemplateFields | None) -> CallForm:
    """The form of a chat template's calls; raises FailedPrecondition(TOOL_CALLS_UNREADABLE)."""
    probe = None if fields is None else call_probe(fields)
    if probe is None:
        raise unreadable("writes calls of tools in no form that is read, or takes none")
    return probe.form


def unreadable(problem: str) -> FailedPrecondition:
    """The error for calls that cannot be told from other text, so that they are not graded."""
    return FailedPrecondition(
        f"the grader tool_call: the chat template {problem}; Hermes' form, as the built-in chatml has it, or "
        "Llama 3's would be right",
        reason="TOOL_CALLS_UNREADABLE",
    )


def _is_probe(read: Calls) -> bool:
    return not read.problem and [(call.name, call.exact) for call in read.calls] == [
        (_CALLED.tool_calls[0].name, exactly(_ARGUMENTS))
    ]


def read_calls(output: str, form: CallForm | None = None) -> Calls:
    """The calls of an output in a form; without one, in the form that the output shows.

    A call that is begun and not well formed is a problem: what a program would make of it is not known.
    """
    if form is None:
        form = "hermes" if _MARK.search(output) else "llama-3"
    return _hermes(output) if form == "hermes" else _llama_3(output)


def is_cut(output: str, answer: Span) -> bool:
    """Whether the answer of an output begins or ends inside of a JSON object.

    A mark of reasoning is then a text in it, such as an argument of a call, or the object was never one.
    """
    begin, end = answer
    opened = [found.start() for found in _OBJECT.finditer(output, 0, end)][-_MOST_OBJECTS:]
    for at in opened:
        try:
            behind = json.JSONDecoder().raw_decode(output, at)[1]
        except (ValueError, RecursionError):
            continue
        if at < begin < behind or at < end < behind:
            return True
    return False


def written(name: str, arguments_text: str) -> str:
    """A call as Hermes' block; arguments that are no JSON object are a JSON text in it, and no right call."""
    try:
        is_object = isinstance(_json(arguments_text), dict)
    except (ValueError, RecursionError):
        is_object = False
    arguments = arguments_text.strip() if is_object else json.dumps(arguments_text)
    return f'{_OPENING}\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n{_CLOSING}'


def exactly(text: str) -> Any:
    """JSON as it is compared: numbers by all of their digits, and ``true`` is not 1.

    Raises ValueError for what is no JSON, or nests too deep or has too large an exponent to be compared.
    """
    try:
        return _distinct(
            json.loads(
                text, parse_int=_number, parse_float=_number, parse_constant=refuse, object_pairs_hook=once
            )
        )
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _number(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise ValueError(f"the exponent of {digits[:40]} is too large") from None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON object of these pairs; raises ValueError where a name stands twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def refuse(constant: str) -> NoReturn:
    """Raise ValueError for ``NaN`` and ``Infinity``, which Python takes for JSON."""
    raise ValueError(f"{constant} is not JSON")


def _hermes(output: str) -> Calls:
    calls: list[Call] = []
    beside: list[str] = []
    at = 0
    while mark := _MARK.search(output, at):
        beside.append(output[at : mark.start()])
        number = len(calls) + 1
        if mark[0] == _CLOSING:
            return Calls(tuple(calls), "".join(beside), f"{_CLOSING} closes what was not opened")
        begin = _begin(output, mark.end())
        try:
            end = json.JSONDecoder().raw_decode(output, begin)[1]
            calls.append(_call(output[begin:end], "arguments"))
        except (ValueError, RecursionError) as error:
            return Calls(tuple(calls), "".join(beside), f"call {number} is malformed: {_said(error)}")
        at = _begin(output, end)
        if not output.startswith(_CLOSING, at):
            return Calls(tuple(calls), "".join(beside), f"call {number} is not closed by {_CLOSING}")
        at += len(_CLOSING)
    return Calls(tuple(calls), "".join([*beside, output[at:]]).strip())


def _llama_3(output: str) -> Calls:
    text = output.strip()
    whole = len(text) - len(text.removeprefix(_LLAMA_MARK).lstrip())
    gaps = [gap.end() for gap in _BEFORE_CALLS.finditer(text)]
    begins = (whole, *gaps[-_MOST_GAPS:])
    found = ((at, parts) for at in begins if (parts := _call_texts(text, at)))
    begin, parts = next(found, (len(text), list[str]()))
    beside = "" if parts and begin == whole else text[:begin].strip()
    if _LLAMA_MARK in beside or all(field.search(beside) for field in _LLAMA_FIELDS):
        # Programs that read this form differ in whether they find a call there.
        return Calls((), text, "a call is begun that is malformed, or that other text stands around")
    calls: list[Call] = []
    for part in parts:
        try:
            calls.append(_call(part, "parameters"))
        except (ValueError, RecursionError) as error:
            return Calls(tuple(calls), beside, f"call {len(calls) + 1} is malformed: {_said(error)}")
    return Calls(tuple(calls), beside)


def _call_texts(text: str, at: int) -> list[str]:
    """The objects that a text is made of from a place on, if each looks like a call; else none."""
    try:
        parts = list(_objects(text, at))
        are_calls = all({"name", "parameters"} <= json.loads(part).keys() for part in parts)
    except (ValueError, RecursionError):
        return []
    return parts if are_calls else []


def _objects(text: str, at: int) -> Iterator[str]:
    """The JSON objects that a text is made of from a place on; raises ValueError if it is anything else."""
    while True:
        if not text.startswith("{", at):
            raise ValueError("no object begins here")
        end = json.JSONDecoder().raw_decode(text, at)[1]
        yield text[at:end]
        if end == len(text):
            return
        between = _BETWEEN.match(text, end)
        if between is None:
            raise ValueError("something else stands between two objects")
        at = between.end()


def _call(text: str, field: str) -> Call:
    found = _json(text)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004
    name, arguments = found.get("name"), found.get(field)
    if not isinstance(name, str) or not name:
        raise ValueError("it has no name")
    if not isinstance(arguments, dict):
        raise ValueError(f"its {field} are no JSON object")  # noqa: TRY004
    if more := sorted(found.keys() - _BESIDE - {"name", field}):
        raise ValueError(f"it has {more[0]!r} beside name and {field}")
    if not _is_text(found):
        raise ValueError("it has half of a surrogate pair, which is no text")
    return Call(name, arguments, exactly(text)[field])


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def _is_text(value: Any) -> bool:
    """Whether what a JSON value holds can be stored."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _begin(text: str, at: int) -> int:
    """Where the white space that stands at a place ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _said(error: Exception) -> str:
    return "it nests too deep" if isinstance(error, RecursionError) else str(error)


def _distinct(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _distinct(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_distinct(each) for each in value]
    return ("boolean", value) if isinstance(value, bool) else value
