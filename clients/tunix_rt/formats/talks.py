"""A line with messages and tools as a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.formats import rows
from tunix_rt.formats.content import ContentReader, is_object
from tunix_rt.formats.conversations import MAX_CALLS, json_text
from tunix_rt.formats.learned import mark_of, says_no
from tunix_rt.formats.reading import Reading
from tunix_rt.formats.turn_order import first_fault
from tunix_rt.formats.turns import ROLES, SPOKEN, Turns
from tunix_rt.turns import in_call_order, text_of

CHATS: Final = ("messages", "conversations")
_TOOLS: Final = ("tools", "functions")
_SYSTEM: Final = "system"
_NOT_KEPT: Final = "is nothing that a message of an eval item has; leave it out"
# Fields that hold a message's text, not a message.
_TEXT_FIELD: Final = re.compile(
    r"prompt|completion|instruction|output|system|history\[\d+\]\[\d\]|(?:.*\.)?(?:instructions|input)"
)


def named_field(field: str, named: Mapping[str, str]) -> str:
    """A field of a message under the name that it has in the file."""
    message, dot, rest = field.partition(".")
    if message not in named:
        return field
    name = named[message]
    return name if rest == "content" and _TEXT_FIELD.fullmatch(name) else f"{name}{dot}{rest}"


def conversation(
    document: Mapping[str, Any],
    line: bytes,
    number: int,
    file: str,
    reading: Reading,
    named: Mapping[str, str] | None = None,
) -> v1.Trace:
    """The conversation of a document with ``messages`` (or ``conversations``), ``tools`` and ``system``.

    Everything else in it becomes metadata. A question, reasoning and an answer alone become a trace in the
    first form. ``named`` has other names of messages for errors. Raises FormatError.
    """
    return _Talk(document, number, file, reading, named or {}).trace(line)


def history(document: Mapping[str, Any], number: int, file: str) -> tuple[list[v1.Message], list[v1.Tool]]:
    """The messages before a turn that a model is asked for, and the tools that it is offered.

    They are read as ``conversation`` reads them, but nothing is left out, marked or kept beside them: a line
    for which that would be needed is refused. Definitions of tools that are given as text are kept to the
    character. Raises FormatError.
    """
    reading = Reading(bad_arguments="refuse", names_options=False)
    return _Talk(document, number, file, reading, {}, asked=True).history()


class _Talk:
    """One document on its way to a trace, or to an item of an eval set (``asked``)."""

    def __init__(
        self,
        document: Mapping[str, Any],
        number: int,
        file: str,
        reading: Reading,
        named: Mapping[str, str],
        *,
        asked: bool = False,
    ) -> None:
        self._asked = asked
        self._document = document
        self._key = next(key for key in CHATS if key in document)
        self._number = number
        self._file = file
        self._reading = reading
        self._named = named
        self._turns = Turns(reading, self._wrong)

    def trace(self, line: bytes) -> v1.Trace:
        self._check_learned()
        self._add_system()
        for index, item in enumerate(self._document[self._key]):
            self._turns.add(item, f"{self._key}[{index}]")
        self._turns.end()
        tools = self._tools()
        self._check()
        order = in_call_order(self._turns.messages)
        source, metadata = self._facts(order)
        trace = v1.Trace(
            trace_version=rows.TRACE_VERSION,
            messages=[self._turns.messages[place] for place in order],
            tools=tools,
            source=source,
            metadata=rows.metadata_of(metadata, self._number, self._file),
        )
        return rows.checked(as_question(trace), line, self._number, self._file)

    def history(self) -> tuple[list[v1.Message], list[v1.Tool]]:
        given = self._document[self._key]
        if not isinstance(given, list) or not given:
            raise self._wrong(self._key, "is no list of messages" if given else "is empty")
        for index, item in enumerate(given):
            path = f"{self._key}[{index}]"
            if isinstance(item, dict):
                self._check_asked(item, path)
            self._turns.add(item, path)
        self._turns.end()
        tools = self._tools()
        self._check()
        for place, beside in self._turns.beside.items():
            raise self._wrong(f"{self._turns.paths[int(place)]}.{next(iter(beside))}", _NOT_KEPT)
        self._reading.lossy.keep()
        for told in self._reading.lossy.lines():
            raise self._wrong(self._key, f"cannot be kept whole, as an eval item is: {told}")
        return self._turns.messages, tools

    def _check_asked(self, item: Mapping[str, Any], path: str) -> None:
        """Refuse what says that a message is learned, and what only the assistant's may have."""
        role = item.get("role", item.get("from"))
        for key, value in item.items():
            try:
                learned = mark_of(key, value) is not None
            except ValueError:
                learned = True
            if learned:
                raise self._wrong(f"{path}.{key}", "is given, and nothing of an eval item is learned")
            spoken = value and key in SPOKEN and isinstance(role, str)
            if spoken and ROLES.get(role, "assistant") not in ("assistant", "call"):
                raise self._wrong(
                    f"{path}.{key}", f"is given in a message of role {role}; only the assistant's have it"
                )

    def _wrong(self, field: str, problem: str) -> Exception:
        return rows.wrong(named_field(field, self._named), problem, self._number, self._file)

    def _check_learned(self) -> None:
        for key, value in self._document.items():
            if says_no(key, value):
                raise self._wrong(
                    key, f"is {repr(value)[:60]}, so that nothing of the line is to be learned; leave it out"
                )

    def _add_system(self) -> None:
        """The system message that stands beside the messages, as Anthropic and ShareGPT write it."""
        given = self._document.get(_SYSTEM)
        if not given:
            return
        texts = ContentReader(self._reading, self._wrong).read(given, _SYSTEM).texts
        first = self._document[self._key][0]
        if isinstance(first, dict) and first.get("role", first.get("from")) in (_SYSTEM, "developer"):
            said = first.get("content", first.get("value"))
            if said == given or said == "".join(texts):
                return
            raise self._wrong(_SYSTEM, f"stands twice with different values, here and in {self._key}[0]")
        if texts:
            self._turns.add({"role": _SYSTEM, "content": texts}, _SYSTEM)

    def _tools(self) -> list[v1.Tool]:
        """The tools that were offered, each as {"type": "function", "function": {...}}."""
        made: list[v1.Tool] = []
        seen: dict[str, str] = {}
        for key in _TOOLS:
            for index, tool in enumerate(self._listed(key)):
                path = f"{key}[{index}]"
                given = tool if isinstance(tool, str) else ""
                if isinstance(tool, str):
                    tool = self._parsed(tool, path)
                function = self._function(tool, path)
                if function is None:
                    continue
                name = function["name"]
                if name in seen:
                    raise self._wrong(f"{path}.name", f"is {name[:60]!r}, which {seen[name]} is already")
                seen[name] = path
                text = self._definition(tool, function, given)
                if not is_object(text):
                    raise self._wrong(path, "holds what JSON has no number for, or is too deep")
                made.append(v1.Tool(definition_text=text))
        if len(made) > MAX_CALLS:
            raise self._wrong("tools", f"has {len(made):,} tools; at most {MAX_CALLS} are allowed")
        return made

    def _definition(self, tool: Mapping[str, Any], function: Mapping[str, Any], given: str) -> str:
        """The text of a tool's definition; of a trace always the function alone, wrapped."""
        if self._asked and tool.get("type", "function") == "function" and "function" in tool:
            whole = {"type": "function", **tool, "function": function}
            return given if given and whole == tool else json_text(whole)
        if self._asked and given and function == tool:
            return given
        return json_text({"type": "function", "function": function})

    def _listed(self, key: str) -> list[Any]:
        given = self._document.get(key)
        if isinstance(given, str) and given.strip():
            given = self._parsed(given, key)
        if given in (None, "", {}) or (isinstance(given, str) and not given.strip()):
            return []
        if isinstance(given, dict):
            given = [given]
        if not isinstance(given, list):
            raise self._wrong(key, "is no list of tools")
        return given

    def _parsed(self, text: str, path: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._wrong(path, f"is {text[:40]!r}, which is no JSON") from None

    def _function(self, tool: Any, path: str) -> dict[str, Any] | None:
        """The function of a tool; None for a tool that the server of the API runs, which is counted."""
        if not isinstance(tool, dict):
            raise self._wrong(path, "is no object; the definition of a tool would be right")
        function = tool.get("function") if isinstance(tool.get("function"), dict) else None
        kind = tool.get("type")
        if function is None:
            if isinstance(kind, str) and kind not in ("function", "custom", "object"):
                self._reading.lossy.add("tool", f"of type {kind[:60]} left out")
                return None
            function = {key: value for key, value in tool.items() if key not in ("type", "cache_control")}
            for other in ("input_schema", "inputSchema"):
                if other in function and "parameters" not in function:
                    # In the place where it stood, for the order of keys is what a template shows.
                    function = {("parameters" if k == other else k): v for k, v in function.items()}
        for field, right, may_lack in (
            ("name", str, False),
            ("description", str, True),
            ("parameters", dict, True),
        ):
            value = function.get(field)
            if value is None and may_lack:
                function = {key: entry for key, entry in function.items() if key != field}
            elif not isinstance(value, right) or (field == "name" and not 0 < len(value) <= 256):
                told = "is missing" if value in (None, "") else f"is {repr(value)[:60]}"
                expected = "an object" if right is dict else "a text"
                raise self._wrong(f"{path}.{field}", f"{told}; {expected} would be right")
        return function

    def _check(self) -> None:
        fault = first_fault(self._turns.messages, asked=self._asked)
        if fault is None:
            return
        if fault.index is None:
            raise self._wrong(self._key, fault.problem)
        names = {"role": "from", "content": "value"} if self._key == "conversations" else {}
        field = names.get(fault.field, fault.field)
        raise self._wrong(f"{self._turns.paths[fault.index]}.{field}", fault.problem)

    def _facts(self, order: Sequence[int]) -> tuple[str, dict[str, Any]]:
        """The source, and the metadata: the line's own, and all else on the line; ``order`` is that in which
        the messages are kept."""
        known = {self._key, _SYSTEM, *_TOOLS, "metadata", "source"}
        given = self._document.get("metadata")
        if given is not None and not isinstance(given, dict):
            raise self._wrong("metadata", "is no object")
        metadata = dict(given or {})
        source = self._document.get("source") or ""
        facts = {
            key: value for key, value in self._document.items() if key not in known and value is not None
        }
        if not isinstance(source, str) or len(source) > rows.MAX_LABEL:
            facts["source"], source = source, ""
        if beside := self._turns.beside:
            kept = {str(new): beside.get(str(old)) for new, old in enumerate(order)}
            facts["message_fields"] = {place: fields for place, fields in kept.items() if fields}
        for key, value in facts.items():
            if key in metadata and metadata[key] != value:
                raise self._wrong(
                    key, "stands twice with different values, and the metadata has room for one"
                )
            metadata[key] = value
        return source, metadata


def as_question(trace: v1.Trace) -> v1.Trace:
    """A conversation of a question, reasoning and an answer alone in the first form; any other as it is."""
    messages = list(trace.messages)
    if trace.tools or [message.role for message in messages] != [
        v1.Message.ROLE_USER,
        v1.Message.ROLE_ASSISTANT,
    ]:
        return trace
    question, answer = messages
    steps = rows.paragraphs(answer.reasoning)
    plain = not (answer.tool_calls or question.name or answer.name) and answer.train != v1.Message.TRAIN_NO
    texts = (text_of(question), text_of(answer))
    fits = all(0 < len(text) <= rows.MAX_TEXT for text in texts)
    if not (plain and fits and steps) or any(len(step) > rows.MAX_STEP for step in steps):
        return trace
    return v1.Trace(
        trace_version=trace.trace_version,
        prompt=texts[0],
        steps=[v1.TraceStep(i=at, type="reason", content=step) for at, step in enumerate(steps)],
        final_answer=texts[1],
        source=trace.source,
        metadata=trace.metadata,
    )
