"""What a log recorded, turn by turn, on its way to a conversation that keeps the store's rules.

Logs are not written to be learned from: results come late or never, a program speaks between the turns, text
was cut in the middle of a character. What is changed or left out for that is counted, one count a kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.content import is_object
from tunix_rt.formats.conversations import MAX_MESSAGE_TEXT, MAX_MESSAGES, json_text
from tunix_rt.formats.lines import check_values
from tunix_rt.formats.reading import Lossy, Reading
from tunix_rt.formats.rows import MAX_LABEL, MAX_TRACE_BYTES, TRACE_VERSION, metadata_of
from tunix_rt.thoughts import leading_thoughts

BAD_CALL: Final = "call whose arguments are no JSON object"
BAD_CALLS: Final = "calls whose arguments are no JSON object"
"""What is counted of calls, and several of them."""
UNANSWERED: Final = "[no result: the call was interrupted]"
_NAME: Final = 256
_FIRST: Final = ("system", "developer")
_UNTOLD: Final = re.compile("[\0\ud800-\udfff]")


@dataclass(slots=True)
class Call:
    """A call that the assistant made; ``arguments`` are JSON text, whatever the log has."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class _Turn:
    role: str
    text: str
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    results: dict[int, v1.Message] = field(default_factory=dict)


class Mark(NamedTuple):
    """A place in a conversation: how many turns it had there, and how long the last one was."""

    turns: int
    characters: int


class Dialogue:
    """The turns of one conversation, added in the order in which the log has them.

    Args:
        reading: what to do about what a trace cannot hold.
        what: how errors call the conversation, such as "session 3f1b0c6a".
        number: the line that it begins on.
        file: the file's name.
    """

    def __init__(self, reading: Reading, what: str, number: int, file: str) -> None:
        self._reading = reading
        self._lossy = reading.lossy
        self.what = what
        self._number = number
        self._file = file
        self._turns: list[_Turn] = []
        self._calls: dict[str, list[tuple[_Turn, int]]] = {}
        self._begun = False

    def __len__(self) -> int:
        return len(self._turns)

    def mark(self) -> Mark:
        """Where the conversation is now, for ``cut``."""
        return Mark(len(self._turns), len(self._turns[-1].text) if self._turns else 0)

    def cut(self, mark: Mark) -> None:
        """Take back what was said since ``mark``."""
        for turn in self._turns[mark.turns :]:
            turn.calls.clear()
        del self._turns[mark.turns :]
        if self._turns:
            self._turns[-1].text = self._turns[-1].text[: mark.characters]
        self._begun = any(turn.role == "user" for turn in self._turns)

    def wrong(self, problem: str) -> FormatError:
        """The error that the conversation has a problem."""
        return FormatError(self._number, f"{self.what} {problem}", file=self._file)

    def media(self, kind: str) -> str:
        """What stands for an image or another medium; raises FormatError where these are refused."""
        if self._reading.media == "refuse":
            raise self.wrong(
                f"holds media ({kind[:40]}), and a trace holds text alone; --media leave-out reads the rest"
            )
        self._lossy.add(kind, f"left out, with [{kind}] in its place")
        return f"[{kind}]"

    def left_out(self, what: str, count: int = 1, *, many: str = "") -> None:
        """Count what is left out of the conversation."""
        if count:
            self._lossy.add(what, count=count, many=many)

    def say(self, role: str, text: str) -> None:
        """Add what the user, or a system or developer message, says. Turns of one side are joined."""
        if not text.strip():
            return
        if self._begun and role in _FIRST:
            self._lossy.add(
                f"{role} message in the middle", "kept as the user's", many=f"{role} messages in the middle"
            )
            role = "user"
        self._begun = self._begun or role == "user"
        if self._turns and self._turns[-1].role == role:
            self._turns[-1].text += "\n\n" + text
        else:
            self._turns.append(_Turn(role, text))

    def answer(self, text: str, reasoning: str = "", calls: Iterable[Call] = ()) -> None:
        """Add a turn of the assistant's; one without text and calls is left out."""
        if not reasoning:
            try:
                reasoning, text = leading_thoughts(text)
            except ValueError as problem:
                raise self.wrong(f"has an answer that {problem}") from None
        made = [self._checked(call) for call in calls]
        if not self._begun:
            self._lossy.add("answer before the first question", many="answers before the first question")
        elif not text.strip() and not made:
            if text or reasoning:
                self._lossy.add("thought without an answer", many="thoughts without an answer")
        else:
            turn = _Turn("assistant", text, reasoning, made)
            self._turns.append(turn)
            for number, call in enumerate(made):
                self._calls.setdefault(call.id, []).append((turn, number))

    def result(self, call_id: str, text: str, name: str = "") -> None:
        """Add what came of a call: of that with the id, or without one of the first that waits."""
        place = self._waiting(call_id)
        if place is None:
            self._lossy.add("result without a call", many="results without a call")
            return
        turn, number = place
        turn.results[number] = v1.Message(
            role=v1.Message.ROLE_TOOL,
            content=[v1.ContentPart(text=self._clean(text))],
            tool_call_id=self._clean(turn.calls[number].id),
            name=self._clean(name or turn.calls[number].name),
        )

    def _checked(self, call: Call) -> Call:
        if not call.name:
            raise self.wrong("has a call without a name")
        fits = is_object(call.arguments)
        if not fits and self._reading.bad_arguments == "refuse":
            raise self.wrong(f"has a call of {call.name[:60]} whose arguments are no JSON object")
        if not fits:
            self._lossy.add(BAD_CALL, "kept as text", many=BAD_CALLS)
        return call

    def _waiting(self, call_id: str) -> tuple[_Turn, int] | None:
        if call_id:
            made = self._calls.get(call_id, [])
        else:
            newest = next((turn for turn in reversed(self._turns) if turn.calls), None)
            made = [(newest, number) for number in reversed(range(len(newest.calls)))] if newest else []
        for turn, number in reversed(made):
            if number < len(turn.calls) and number not in turn.results:
                return turn, number
        return None

    def waits(self) -> bool:
        """Whether a call of the newest turn has no result yet."""
        return bool(self._turns) and len(self._turns[-1].results) < len(self._turns[-1].calls)

    def trace(
        self,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        source: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> v1.Trace:
        """The conversation.

        Args:
            tools: definitions of the tools that were offered; one that was offered twice counts once.
            source: where it comes from.
            metadata: free-form facts; what cannot be kept is left out.

        Raises FormatError for a conversation without an answer, or one that is too large.
        """
        messages = self._messages()
        if not any(message.role == v1.Message.ROLE_ASSISTANT for message in messages):
            raise self.wrong("holds no answer of the assistant's")
        if len(messages) > MAX_MESSAGES:
            raise self.wrong(f"has {len(messages):,} messages; at most {MAX_MESSAGES:,} are allowed")
        for message in messages:
            for text in (message.reasoning, *(part.text for part in message.content)):
                if len(text) > MAX_MESSAGE_TEXT:
                    raise self.wrong(
                        f"has a text of {len(text):,} characters; at most {MAX_MESSAGE_TEXT:,} are allowed"
                    )
        trace = v1.Trace(
            trace_version=TRACE_VERSION,
            messages=messages,
            tools=[v1.Tool(definition_text=self._clean(text)) for text in _once(tools, self._lossy)],
            source=self._clean(source)[:MAX_LABEL],
            metadata=metadata_of(self._facts(metadata or {}), self._number, self._file),
        )
        if trace.ByteSize() > MAX_TRACE_BYTES:
            raise self.wrong(f"has {trace.ByteSize():,} bytes; at most 1 MiB is allowed")
        return trace

    def _messages(self) -> list[v1.Message]:
        messages: list[v1.Message] = []
        for index, turn in enumerate(self._turns):
            messages.append(
                v1.Message(
                    role=v1.Message.Role.Value(f"ROLE_{turn.role.upper()}"),
                    content=[v1.ContentPart(text=self._clean(turn.text))] if turn.text.strip() else [],
                    reasoning=self._clean(turn.reasoning),
                    tool_calls=[
                        v1.ToolCall(
                            id=self._clean(call.id),
                            name=self._clean(call.name),
                            arguments_text=self._clean(call.arguments),
                        )
                        for call in turn.calls
                    ],
                )
            )
            # In the order of the calls, which is all that a template without ids shows.
            for number, call in enumerate(turn.calls):
                if number in turn.results:
                    messages.append(turn.results[number])
                elif index + 1 < len(self._turns):
                    messages.append(self._unanswered(call))
        return messages

    def _unanswered(self, call: Call) -> v1.Message:
        self._lossy.add("call without a result", f"answered {UNANSWERED!r}", many="calls without a result")
        return v1.Message(
            role=v1.Message.ROLE_TOOL,
            content=[v1.ContentPart(text=UNANSWERED)],
            tool_call_id=self._clean(call.id),
            name=self._clean(call.name),
        )

    def _clean(self, text: str) -> str:
        return mended(text, self._lossy)

    def _facts(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in metadata.items():
            if value in (None, "", [], {}):
                continue
            text = self._clean(value) if isinstance(value, str) else value
            if check_values(text, ("metadata", key)) is None:
                kept[key] = text
            else:
                self._lossy.add("fact that cannot be kept", many="facts that cannot be kept")
        return kept


def mended(text: str, lossy: Lossy) -> str:
    """``text`` without what no text can hold, NUL and halves of characters; what is changed is counted."""
    if not _UNTOLD.search(text):
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    if whole != text:
        what = "with NUL or half of a character"
        lossy.add(f"text {what}", "with U+FFFD instead", many=f"texts {what}")
    return whole


def arguments_text(value: Any) -> str:
    """Arguments of a call as JSON text: a text as it is, an object in the order of its keys."""
    if value is None or value == "":
        return "{}"
    return value if isinstance(value, str) else json_text(value)


def shown(value: Any) -> str:
    """A value that is no text as a result of a tool has it."""
    return value if isinstance(value, str) else json_text(value)


def function_tool(name: str, description: str, parameters: Any) -> dict[str, Any]:
    """A tool's definition in the form that templates take."""
    fields: dict[str, Any] = {"name": name}
    if description:
        fields["description"] = description
    if isinstance(parameters, Mapping):
        fields["parameters"] = parameters
    return {"type": "function", "function": fields}


def _once(tools: Sequence[Mapping[str, Any]], lossy: Lossy) -> list[str]:
    """The definitions of tools, each name once; one that is none is left out."""
    found: dict[str, str] = {}
    for tool in tools:
        inner = tool.get("function")
        wrapped = tool.get("type") == "function" and isinstance(inner, Mapping)
        function = inner if wrapped else {key: value for key, value in tool.items() if key != "type"}
        assert isinstance(function, Mapping)
        name, parameters = function.get("name"), function.get("parameters", {})
        described = isinstance(function.get("description", ""), str) and isinstance(parameters, Mapping)
        if isinstance(name, str) and 0 < len(name) <= _NAME and described:
            found.setdefault(name, json_text(tool if wrapped else {"type": "function", "function": function}))
        else:
            lossy.add("tool without a name or a schema", many="tools without a name or a schema")
    return list(found.values())
