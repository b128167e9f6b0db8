"""Claude Code's session files: JSON lines of `~/.claude/projects`, and of `--output-format stream-json`.

Read are the layouts of versions 1.0 to 2.1. A session is one conversation: of branches that the user took
back the last one counts, sub-agents are left out (their own files, `agent-*.jsonl`, are conversations of
their own), and what was said before a compaction stays, so that its summary is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.dialogue import Call, Dialogue, arguments_text
from tunix_rt.formats.reading import Lossy, Reading

_SPOKEN: Final = ("user", "assistant")
# What Claude Code writes for itself; nothing of it was said to the model or by it.
_BOOKKEEPING: Final = frozenset(
    {
        *("summary", "system", "progress", "result", "rate_limit_event", "stream_event", "tool_progress"),
        *("file-history-snapshot", "queue-operation", "last-prompt", "ai-title", "custom-title"),
        *("agent-name", "mode", "permission-mode", "worktree-state", "pr-link", "bridge-session", "tag"),
    }
)
_SYNTHETIC: Final = "<synthetic>"


def is_claude_code(row: Mapping[str, Any]) -> bool:
    """Whether the first line of a file is one of a session."""
    if not isinstance(row.get("type"), str) or "messages" in row:
        return False
    if row["type"] in _SPOKEN:
        return isinstance(row.get("message"), dict) and not row.keys().isdisjoint(
            {"sessionId", "session_id", "parentUuid", "uuid"}
        )
    return row["type"] in _BOOKKEEPING and not row.keys().isdisjoint(
        {"sessionId", "session_id", "leafUuid", "uuid", "snapshot"}
    )


@dataclass(slots=True)
class _Session:
    """The records of one session; those that were said in the order of the file."""

    number: int
    records: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


def claude_code(
    rows: Iterable[tuple[int, dict[str, Any]]], file: str, reading: Reading
) -> Iterator[tuple[int, v1.Trace | FormatError]]:
    """Yield the conversation of each session, or why it is none, with the number of its first line."""
    for session in _sessions(rows, reading.lossy):
        try:
            yield session.number, _conversation(session, file, reading)
        except FormatError as error:
            yield session.number, error


def _sessions(rows: Iterable[tuple[int, dict[str, Any]]], lossy: Lossy) -> list[_Session]:
    """What was said, by session: records that follow one another, or that name the same session, are one."""
    by_name: dict[str, _Session] = {}
    by_uuid: dict[str, _Session] = {}
    found: list[_Session] = []
    for number, row in rows:
        kind = str(row.get("type"))
        uuid = _text(row.get("uuid"))
        if uuid and uuid in by_uuid:
            # A session that was resumed has copies of the first one's records.
            continue
        name = _text(row.get("sessionId") or row.get("session_id"))
        parent = _text(row.get("parentUuid") or row.get("logicalParentUuid"))
        session = by_uuid.get(parent) or by_name.get(name) if parent or name else None
        if kind not in (*_SPOKEN, *_BOOKKEEPING, "attachment"):
            lossy.add(f"record {kind[:40]!r}")
        if kind not in _SPOKEN and not uuid:
            # With an id it may be what the next record follows.
            continue
        if session is None:
            session = _Session(number)
            found.append(session)
        by_uuid |= {uuid: session} if uuid else {}
        by_name |= {name: session} if name else {}
        session.records.append((number, row))
    return [session for session in found if any(row.get("type") in _SPOKEN for _, row in session.records)]


def _conversation(session: _Session, file: str, reading: Reading) -> v1.Trace:
    said = _line([row for _, row in session.records], reading.lossy)
    first = said[0] if said else {}
    name = _text(first.get("sessionId") or first.get("session_id"))
    what = f"session {name[:60]}" if name else "the session"
    dialogue = Dialogue(reading, what, session.number, file)
    answer: _Answer | None = None
    for row in said:
        blocks = _blocks(row["message"].get("content"))
        if row["type"] == "assistant":
            key = _text(row["message"].get("id")) or _text(row.get("uuid"))
            if answer is None or answer.key != key:
                _end(answer, dialogue)
                answer = _Answer(key)
            answer.take(blocks, dialogue)
            continue
        results, texts = _heard(blocks, dialogue)
        if texts:
            _end(answer, dialogue)
            answer = None
        for call_id, text in results:
            # An answer of several calls is written a call at a time, each with its result behind it.
            if answer is not None:
                answer.results.append((call_id, text))
            else:
                dialogue.result(call_id, text)
        for text in texts:
            dialogue.say("user", text)
    _end(answer, dialogue)
    models = (_text(row["message"].get("model")) for row in said if row["type"] == "assistant")
    return dialogue.trace(
        source="claude-code",
        metadata={
            "session_id": name,
            "agent_id": _text(first.get("agentId")),
            "model": next(models, ""),
            "version": _text(first.get("version")),
            "start_time": _text(first.get("timestamp")),
        },
    )


@dataclass(slots=True)
class _Answer:
    """One message of the model's, of which each block is a record of its own."""

    key: str
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    results: list[tuple[str, str]] = field(default_factory=list)

    def take(self, blocks: list[dict[str, Any]], dialogue: Dialogue) -> None:
        """Add the parts of a record."""
        for block in blocks:
            kind = block.get("type")
            if kind == "text":
                self.texts.append(_text(block.get("text")))
            elif kind == "thinking" and _text(block.get("thinking")):
                self.thoughts.append(_text(block.get("thinking")))
            elif kind in ("thinking", "redacted_thinking"):
                dialogue.left_out("encrypted thought")
            elif kind == "tool_use":
                name, given = _text(block.get("name")), arguments_text(block.get("input"))
                self.calls.append(Call(_text(block.get("id")), name, given))
            else:
                dialogue.left_out(f"part {str(kind)[:40]!r}")


def _end(answer: _Answer | None, dialogue: Dialogue) -> None:
    if answer is None:
        return
    dialogue.answer("".join(answer.texts), "\n\n".join(answer.thoughts), answer.calls)
    for call_id, text in answer.results:
        dialogue.result(call_id, text)


def _line(rows: list[dict[str, Any]], lossy: Lossy) -> list[dict[str, Any]]:
    """The records that were said on the session's last line, in order."""
    own = [row for row in rows if row["type"] not in _SPOKEN or not _beside(row)]
    if not any(row["type"] in _SPOKEN for row in own):
        # The file of a sub-agent alone.
        own = rows
    elif len(own) < len(rows):
        lossy.add("message of a sub-agent", count=len(rows) - len(own), many="messages of sub-agents")
    kept = _last_line(own)
    said = []
    for row in own:
        asked = _asked_meanwhile(row)
        if row["type"] not in _SPOKEN and asked is None:
            if row["type"] == "attachment":
                lossy.add("attachment")
        elif asked is not None and (kept is None or id(row) in kept):
            said.append({**row, "type": "user", "message": {"role": "user", "content": asked}})
        elif asked is not None:
            lossy.add("message that was taken back", many="messages that were taken back")
        elif not isinstance(row.get("message"), dict):
            lossy.add("record without a message", many="records without a message")
        elif kept is not None and id(row) not in kept:
            lossy.add("message that was taken back", many="messages that were taken back")
        elif row.get("isCompactSummary"):
            lossy.add("summary of a compaction", many="summaries of compactions")
        elif row.get("isVisibleInTranscriptOnly"):
            lossy.add("note that the model was not shown", many="notes that the model was not shown")
        elif row.get("isApiErrorMessage") or row["message"].get("model") == _SYNTHETIC:
            lossy.add("message of the program itself", many="messages of the program itself")
        else:
            said.append(row)
    return said


def _asked_meanwhile(row: Mapping[str, Any]) -> Any:
    """What was asked while the model worked, which was shown to it then; no record of the user's has it."""
    attached = row.get("attachment")
    if row["type"] != "attachment" or _beside(row) or not isinstance(attached, dict):
        return None
    return attached.get("prompt") if attached.get("type") == "queued_command" else None


def _beside(row: Mapping[str, Any]) -> bool:
    return bool(row.get("isSidechain") or row.get("parent_tool_use_id"))


def _last_line(rows: list[dict[str, Any]]) -> set[int] | None:
    """The records from which the last one follows; None where records do not say what they follow.

    A call, and the result of it, are records beside the line where several calls are made at once.
    """
    by_uuid = {row["uuid"]: row for row in rows if isinstance(row.get("uuid"), str)}
    places = {id(row): place for place, row in enumerate(rows)}
    leaves = [row for row in rows if row["type"] in _SPOKEN]
    if not any(row.get("parentUuid") for row in rows):
        return None
    kept: set[int] = set()
    row: dict[str, Any] | None = leaves[-1]
    while row is not None and id(row) not in kept:
        kept.add(id(row))
        row = _before(row, places[id(row)], rows, by_uuid)
    answers = {_message_id(row) for row in rows if id(row) in kept} - {""}
    calls: set[str] = set()
    for row in rows:
        if row["type"] == "assistant" and (id(row) in kept or _message_id(row) in answers):
            kept.add(id(row))
            calls |= {
                _text(block.get("id")) for block in _blocks(_content(row)) if block.get("type") == "tool_use"
            }
    for row in rows:
        blocks = _blocks(_content(row)) if row["type"] == "user" else []
        if any(
            block.get("type") == "tool_result" and _text(block.get("tool_use_id")) in calls
            for block in blocks
        ):
            kept.add(id(row))
    return kept


def _before(
    row: Mapping[str, Any], place: int, rows: list[dict[str, Any]], by_uuid: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """The record that one follows: that which it names, or where that is not there the one above it."""
    parent = _text(row.get("parentUuid") or row.get("logicalParentUuid"))
    if parent in by_uuid:
        return by_uuid[parent]
    compacted = row.get("isCompactSummary") or row.get("subtype") == "compact_boundary"
    return rows[place - 1] if place and (parent or compacted) else None


def _message_id(row: Mapping[str, Any]) -> str:
    message = row.get("message")
    return _text(message.get("id")) if row["type"] == "assistant" and isinstance(message, dict) else ""


def _content(row: Mapping[str, Any]) -> Any:
    message = row.get("message")
    return message.get("content") if isinstance(message, dict) else None


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _heard(blocks: list[dict[str, Any]], dialogue: Dialogue) -> tuple[list[tuple[str, str]], list[str]]:
    """The results of calls in a message of the user's, and its texts."""
    results, texts = [], []
    for block in blocks:
        if block.get("type") == "tool_result":
            text = "\n".join(_part_text(part, dialogue) for part in _blocks(block.get("content")))
            results.append((_text(block.get("tool_use_id")), text))
        elif text := _part_text(block, dialogue):
            texts.append(text)
    return results, texts


def _part_text(part: Mapping[str, Any], dialogue: Dialogue) -> str:
    kind = part.get("type")
    if kind == "text":
        return _text(part.get("text"))
    if kind in ("image", "document"):
        return dialogue.media(str(kind))
    dialogue.left_out(f"part {str(kind)[:40]!r}")
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
