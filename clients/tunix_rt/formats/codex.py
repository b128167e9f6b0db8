"""Codex's session files: `rollout-*.jsonl` of `~/.codex/sessions`.

Read are the lines of `timestamp`, `type` and `payload` that the CLI writes since 0.40, and the bare items of
earlier versions. A session is one conversation: what was said before a compaction stays, so that the history
that replaced it is not needed, and turns that the user took back are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.dialogue import Call, Dialogue, Mark, arguments_text, function_tool, shown
from tunix_rt.formats.reading import Reading

_ITEMS: Final = frozenset(
    {
        *("message", "reasoning", "function_call", "function_call_output", "local_shell_call"),
        *("custom_tool_call", "custom_tool_call_output", "web_search_call"),
    }
)
# What Codex writes for itself: what happened and when, beside the items, which say the same.
_BOOKKEEPING: Final = frozenset(
    {"turn_context", "ghost_snapshot", "compaction", "compaction_summary", "state"}
)


def is_codex(row: Mapping[str, Any]) -> bool:
    """Whether the first line of a file is one of a session."""
    if isinstance(row.get("payload"), dict):
        return row.get("type") in ("session_meta", "response_item", "event_msg", "turn_context", "compacted")
    return {"id", "timestamp", "instructions"} <= row.keys() and "type" not in row


def codex(
    rows: Iterable[tuple[int, dict[str, Any]]], file: str, reading: Reading
) -> Iterator[tuple[int, v1.Trace | FormatError]]:
    """Yield the conversation of each session, or why it is none, with the number of its first line."""
    session: _Session | None = None
    for number, row in rows:
        if session is None or (_begins(row) and session.is_other(row)):
            if session is not None:
                yield session.number, session.ended()
            session = _Session(reading, number, file)
        session.take(row)
    if session is not None:
        yield session.number, session.ended()


def _begins(row: Mapping[str, Any]) -> bool:
    return row.get("type") == "session_meta" or (is_codex(row) and "payload" not in row)


class _Session:
    def __init__(self, reading: Reading, number: int, file: str) -> None:
        self.number = number
        self._dialogue = Dialogue(reading, "the session", number, file)
        self._error: FormatError | None = None
        self._meta: dict[str, Any] = {}
        self._begun = False
        self._tools: list[dict[str, Any]] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[Call] = []
        self._results: list[tuple[str, str]] = []
        self._asked: list[Mark] = []
        self._heard = self._dialogue.mark()

    def is_other(self, row: Mapping[str, Any]) -> bool:
        """Whether a first line is of another session: a fork repeats the first line of its parent."""
        meta = row.get("payload")
        name = meta.get("id") if isinstance(meta, dict) else row.get("id")
        return self._begun and name != self._meta.get("id")

    def take(self, row: Mapping[str, Any]) -> None:
        """Add a line of the file; what is wrong with it is told at the end."""
        if self._error is None:
            try:
                self._take(row)
            except FormatError as error:
                self._error = error

    def _take(self, row: Mapping[str, Any]) -> None:
        payload = row.get("payload")
        kind = str(row.get("type", ""))
        if not isinstance(payload, dict):
            # An item of the first versions, or their first line.
            if kind in _ITEMS:
                self._item(row)
            elif not kind and "id" in row:
                self._begin(row)
            elif kind not in _BOOKKEEPING and "record_type" not in row:
                self._dialogue.left_out(f"record {kind[:40]!r}")
        elif kind == "session_meta":
            self._begin(payload)
        elif kind == "response_item":
            self._item(payload)
        elif kind == "event_msg":
            self._event(payload)
        elif kind == "turn_context":
            self._meta.setdefault("model", payload.get("model"))
        elif kind == "compacted":
            self._dialogue.left_out("summary of a compaction", many="summaries of compactions")
        else:
            self._dialogue.left_out(f"record {str(kind)[:40]!r}")

    def ended(self) -> v1.Trace | FormatError:
        """The conversation, or why it is none."""
        if self._error is not None:
            return self._error
        try:
            self._end()
            return self._dialogue.trace(
                tools=self._tools,
                source="codex",
                metadata={
                    "session_id": _text(self._meta.get("id")),
                    "model": _text(self._meta.get("model")),
                    "version": _text(self._meta.get("cli_version")),
                    "start_time": _text(self._meta.get("timestamp")),
                },
            )
        except FormatError as error:
            return error

    def _begin(self, meta: Mapping[str, Any]) -> None:
        self._meta = {**meta, **self._meta}
        if _text(self._meta.get("id")):
            self._dialogue.what = f"session {self._meta['id'][:60]}"
        instructions = meta.get("base_instructions")
        if isinstance(instructions, dict):
            instructions = instructions.get("text")
        if isinstance(instructions, str) and not len(self._dialogue):
            self._dialogue.say("system", instructions)
        for tool in meta.get("dynamic_tools") or ():
            if isinstance(tool, dict) and _text(tool.get("name")):
                schema = tool.get("input_schema", tool.get("inputSchema"))
                self._tools.append(function_tool(tool["name"], _text(tool.get("description")), schema))

    def _event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "user_message":
            self._asked.append(self._heard)
        elif kind == "thread_rolled_back":
            turns = event.get("num_turns")
            for _ in range(turns if isinstance(turns, int) else 0):
                if self._asked:
                    self._end()
                    self._dialogue.cut(self._asked.pop())
                    self._dialogue.left_out("turn that was taken back", many="turns that were taken back")

    def _item(self, item: Mapping[str, Any]) -> None:
        # The instructions of the first line are no item.
        self._begun = True
        kind = str(item.get("type"))
        if kind == "message":
            self._message(item)
        elif kind == "reasoning":
            self._think(item)
        elif kind in ("function_call", "custom_tool_call", "local_shell_call"):
            if self._results:
                self._end()
            if item.get("namespace"):
                self._dialogue.left_out(
                    "namespace of a tool that was called", many="namespaces of tools that were called"
                )
            self._calls.append(_call(item))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._results.append((_text(item.get("call_id")), self._output(item.get("output"))))
        elif kind not in _BOOKKEEPING:
            self._dialogue.left_out(f"item {kind[:40]!r}")

    def _message(self, item: Mapping[str, Any]) -> None:
        role, text = item.get("role"), self._parts(item.get("content"))
        if role == "assistant":
            if self._results or (self._texts and not self._calls):
                self._end()
            self._texts.append(text)
        elif role in ("user", "system", "developer"):
            self._end()
            self._heard = self._dialogue.mark()
            self._dialogue.say(role, text)
        else:
            self._dialogue.left_out(
                f"message of role {str(role)[:40]!r}", many=f"messages of role {str(role)[:40]!r}"
            )

    def _think(self, item: Mapping[str, Any]) -> None:
        if self._results or (self._texts and not self._calls):
            self._end()
        thought = _joined(item.get("content")) or _joined(item.get("summary"))
        if thought:
            self._thoughts.append(thought)
        else:
            self._dialogue.left_out("encrypted thought")

    def _end(self) -> None:
        """The model's answer is whole, with the results of its calls."""
        texts, thoughts, calls, results = self._texts, self._thoughts, self._calls, self._results
        self._texts, self._thoughts, self._calls, self._results = [], [], [], []
        if texts or thoughts or calls:
            self._dialogue.answer("\n\n".join(texts), "\n\n".join(thoughts), calls)
        for call_id, text in results:
            self._dialogue.result(call_id, text)

    def _output(self, output: Any) -> str:
        if isinstance(output, list):
            return self._parts(output)
        if isinstance(output, dict) and isinstance(output.get("content"), str):
            return str(output["content"])
        return "" if output is None else shown(output)

    def _parts(self, content: Any) -> str:
        if isinstance(content, str):
            return content
        texts = []
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("input_text", "output_text", "text"):
                texts.append(_text(part.get("text")))
            elif kind == "input_image":
                texts.append(self._dialogue.media("image"))
            else:
                self._dialogue.left_out(f"part {str(kind)[:40]!r}")
        return "\n".join(texts)


def _call(item: Mapping[str, Any]) -> Call:
    call_id = _text(item.get("call_id") or item.get("id"))
    if item["type"] == "local_shell_call":
        action = item.get("action")
        given = (
            {key: value for key, value in action.items() if key != "type"} if isinstance(action, dict) else {}
        )
        return Call(call_id, "local_shell", arguments_text(given))
    name = _text(item.get("name"))
    if item["type"] == "custom_tool_call":
        # Its input is free text, and arguments of a call are an object.
        return Call(call_id, name, arguments_text({"input": item.get("input")}))
    return Call(call_id, name, arguments_text(item.get("arguments")))


def _joined(parts: Any) -> str:
    texts = (
        [_text(part.get("text")) for part in parts if isinstance(part, dict)]
        if isinstance(parts, list)
        else []
    )
    return "\n\n".join(text for text in texts if text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
