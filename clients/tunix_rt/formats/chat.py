"""Chats as traces.

Messages are OpenAI's (``role``, ``content``) or ShareGPT's (``from``, ``value``). One question that is
reasoned about and answered once is a trace in the first form; everything else is a conversation. White space
is content: texts are kept to the byte, except for line breaks that touch a mark of the reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.formats import rows
from tunix_rt.formats.learned import is_not_whole, mark_of, says_no
from tunix_rt.formats.lines import object_of, parse_line
from tunix_rt.formats.reading import Reading
from tunix_rt.formats.rows import paragraphs
from tunix_rt.formats.talks import CHATS, conversation, named_field
from tunix_rt.formats.turns import REASONING
from tunix_rt.thoughts import CLOSE, OPEN, split_thoughts

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_PLAIN: Final = (["user", "assistant"], ["system", "user", "assistant"])
# What makes a conversation of a message that has it.
_MORE: Final = ("tool_calls", "function_call", "tool_call_id", "audio", "images", "refusal")
_TOOLS: Final = ("tools", "functions")
_BESIDE: Final = {
    **dict.fromkeys(("images", "image"), "image"),
    **dict.fromkeys(("videos", "video"), "video"),
    **dict.fromkeys(("audios", "audio"), "audio clip"),
}
_MARK: Final = {"image": "image", "video": "video", "audio clip": "audio"}
_PAIR: Final = ("prompt", "completion")
_UNREASONED: Final = (
    "has no reasoning; if these are questions and answers alone, import them with --answers-only "
    f"(reasoning would be in reasoning_content, in {OPEN}...{CLOSE} before the answer, in a line `#### N` at "
    "its end, or in a column: --column steps=COLUMN)"
)


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    role: Annotated[str, Field(validation_alias=AliasChoices("role", "from"))]
    content: Annotated[Any, Field(validation_alias=AliasChoices("content", "value"))] = None


class _ChatRow(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    messages: Annotated[
        list[_Message], Field(min_length=1, validation_alias=AliasChoices("messages", "conversations"))
    ]
    metadata: dict[str, Any] | None = None
    source: str | None = None


def chat(line: bytes, number: int, file: str, *, reading: Reading) -> v1.Trace:
    """One chat; raises FormatError that names what is wrong or could not be kept.

    The reasoning is ``reasoning_content`` of the assistant's message, or ``<think>...</think>`` before its
    answer; each paragraph becomes a step. A question without reasoning, several turns, and what has tools is
    a conversation. With ``reading.answers_only`` an answer without reasoning is a step of its own.
    """
    document = object_of(line, number, file)
    return chat_of(document, line, number, file, reading)


def chat_of(
    document: Mapping[str, Any],
    line: bytes,
    number: int,
    file: str,
    reading: Reading,
    named: Mapping[str, str] | None = None,
) -> v1.Trace:
    """As ``chat``, of a line that was read; ``named`` has other names of its messages for errors."""
    if media := _media_beside(document):
        if reading.media == "refuse":
            told = "holds media, and a trace holds text alone; --media leave-out leaves it out"
            raise rows.wrong(next(iter(media)), told, number, file)
        for key, count in media.items():
            reading.lossy.add(_BESIDE[key], count=count)
        document = {key: value for key, value in document.items() if key not in media}
        line = rows.encoded(document)
    messages = next((document[key] for key in CHATS if key in document), None)
    if not isinstance(messages, list) or not messages or _is_plain(document, messages, reading):
        row = parse_line(_ChatRow, line, number, file)
        return _Chat(row, number, file, reading.answers_only, named).trace(line)
    return conversation(document, line, number, file, reading, named)


def _media_beside(document: Mapping[str, Any]) -> dict[str, int]:
    """How many images and the like a line has under a key of its own, as data sets for vision models do."""
    found: dict[str, int] = {}
    for key in _BESIDE:
        value = document.get(key)
        if isinstance(value, list) and key.endswith("s"):
            found |= {key: len(value)} if value else {}
        elif value and f"<{_MARK[_BESIDE[key]]}>" in json.dumps(document, ensure_ascii=False):
            # The text says where it belongs; without that it is a fact like others.
            found[key] = 1
    return found


def _is_plain(document: Mapping[str, Any], messages: list[Any], reading: Reading) -> bool:
    """Whether messages are a question and one answer with its reasoning, right or with a mistake in it."""
    if not all(isinstance(message, dict) for message in messages):
        return False
    given = [message.get("role", message.get("from")) for message in messages]
    roles = [_ROLES.get(role) if isinstance(role, str) else None for role in given]
    if roles not in _PLAIN or any(document.get(key) not in _NO_TOOLS for key in _TOOLS):
        return False
    if any(message.get(key) for message in messages for key in _MORE):
        return False
    if not all(_is_text(message.get("content", message.get("value"))) for message in messages):
        return False
    answer = messages[-1]
    return not _is_unlearned(answer) and (reading.answers_only or _may_reason(answer))


_NO_TOOLS: Final[tuple[Any, ...]] = (None, "", "[]", [], {})


def _is_text(content: Any) -> bool:
    """Whether a content is a text, texts, or none that could be one."""
    if not isinstance(content, list):
        return not isinstance(content, dict)
    return all(
        isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
        for part in content
    )


def _is_unlearned(answer: Mapping[str, Any]) -> bool:
    """Whether a message is marked as not to be learned, without any doubt."""
    try:
        return any(mark_of(key, value) is False for key, value in answer.items())
    except ValueError:
        return False


def _may_reason(answer: Mapping[str, Any]) -> bool:
    beside = [answer[key] for key in REASONING if answer.get(key)]
    if any(not isinstance(text, str) or text.strip() for text in beside):
        return True
    content = answer.get("content", answer.get("value"))
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content
    if not isinstance(text, str):
        return False
    try:
        return bool(split_thoughts(text)[0].strip())
    except ValueError:
        return True


def pair(row: Mapping[str, Any], number: int, file: str, *, reading: Reading) -> v1.Trace:
    """A ``prompt`` and its ``completion``, each a text or, as TRL has them too, a list of messages.

    Beside them there may be ``metadata`` and ``source``. A completion that ends in a line `#### N` is read as
    GSM8K's answers are, any other one as an assistant's message of a chat. Raises FormatError.
    """
    prompt, completion = ([] if row.get(key) is None else row[key] for key in _PAIR)
    beside = {key: row[key] for key in ("metadata", "source") if key in row}
    if isinstance(prompt, str) and isinstance(completion, str) and rows.ends_in_result(completion):
        line = json.dumps({"question": prompt, "answer": completion, **beside}).encode()
        return rows.gsm8k(line, number, file, names=_PAIR)
    messages: list[Any] = []
    named: dict[str, str] = {}
    for key, role, given in ((_PAIR[0], "user", prompt), (_PAIR[1], "assistant", completion)):
        for place, message in enumerate(given if isinstance(given, list) else [None]):
            named[f"messages[{len(messages)}]"] = key if message is None else f"{key}[{place}]"
            messages.append({"role": role, "content": given} if message is None else message)
        if not given:
            raise rows.wrong(key, "is missing or empty", number, file)
    document = {"messages": messages, **beside}
    line = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if isinstance(prompt, str) and isinstance(completion, str):
        chat_row = parse_line(_ChatRow, line, number, file)
        return _Chat(chat_row, number, file, reading.answers_only, named).trace(line)
    return chat_of(document, line, number, file, reading, named)


class _Chat:
    """One line on its way to a trace."""

    def __init__(
        self,
        row: _ChatRow,
        number: int,
        file: str,
        answers_only: bool,
        named: Mapping[str, str] | None = None,
    ) -> None:
        self._row = row
        self._number = number
        self._file = file
        self._answers_only = answers_only
        self._named = named or {}

    def trace(self, line: bytes) -> v1.Trace:
        roles = [self._role(index) for index in range(len(self._row.messages))]
        self._check_learned(roles)
        user, assistant = len(roles) - 2, len(roles) - 1
        prompt = self._text(user)
        reasoning, answer = self._split(assistant)
        steps, kind = (paragraphs(reasoning), "reason") if reasoning else ([answer], "answer")
        where = f"messages[{assistant}]"
        for text in steps:
            if len(text) > rows.MAX_STEP:
                raise self._wrong(
                    f"{where}.reasoning",
                    f"has {len(text):,} characters without a blank line between paragraphs; a step has up to "
                    f"{rows.MAX_STEP:,}",
                )
        for index, text in ((user, prompt), (assistant, answer)):
            if len(text) > rows.MAX_TEXT:
                raise self._wrong(
                    f"messages[{index}].content",
                    f"has {len(text):,} characters; at most {rows.MAX_TEXT:,} are allowed",
                )
        source, metadata = self._facts(roles)
        trace = v1.Trace(
            trace_version=rows.TRACE_VERSION,
            prompt=prompt,
            steps=[v1.TraceStep(i=i, type=kind, content=text) for i, text in enumerate(steps)],
            final_answer=answer,
            source=source,
            metadata=rows.metadata_of(metadata, self._number, self._file),
        )
        return rows.checked(trace, line, self._number, self._file)

    def _role(self, index: int) -> str:
        given = self._row.messages[index].role
        role = _ROLES.get(given)
        if role is None:
            raise self._wrong(
                f"messages[{index}].role",
                f"is {given[:60]!r}; a trace is made of a system, a user and an assistant turn",
            )
        return role

    def _check_learned(self, roles: list[str]) -> None:
        for index, role in enumerate(roles):
            extra = self._row.messages[index].model_extra or {}
            for key, value in extra.items() if role == "assistant" else ():
                if is_not_whole(key, value):
                    raise self._unlearnable(f"messages[{index}].{key}", value)
        for key, value in (self._row.model_extra or {}).items():
            if says_no(key, value):
                raise self._unlearnable(key, value)

    def _unlearnable(self, field: str, value: Any) -> Exception:
        return self._wrong(
            field,
            f"is {repr(value)[:60]}, but the answer of a trace is learned whole; leave out what is not to be "
            "learned",
        )

    def _text(self, index: int, may_be_empty: bool = False) -> str:
        message = self._row.messages[index]
        where = f"messages[{index}]"
        content = message.content
        if isinstance(content, list):
            content = "".join(self._part(part, f"{where}.content[{at}]") for at, part in enumerate(content))
        if not isinstance(content, str):
            raise self._wrong(
                f"{where}.content", "is missing" if content is None else "is no string and no list of texts"
            )
        if not content.strip() and not may_be_empty:
            raise self._wrong(f"{where}.content", "is empty" if not content else "is white space alone")
        return content

    def _part(self, part: Any, where: str) -> str:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str) or part.get("type", "text") != "text":
            raise self._wrong(where, "is no text; a trace holds text alone")
        return text

    def _split(self, index: int) -> tuple[str, str]:
        """The reasoning of the assistant's turn, and its answer."""
        where = f"messages[{index}]"
        content = self._text(index)
        beside = self._reasoning(index)
        try:
            inside, answer = split_thoughts(content)
        except ValueError as problem:
            raise self._wrong(f"{where}.content", str(problem)) from None
        if beside and inside.strip():
            raise self._wrong(where, f"has its reasoning twice: beside the answer, and in {OPEN}")
        reasoning = beside or inside
        if not reasoning.strip():
            if not self._answers_only:
                raise self._wrong(where, _UNREASONED)
            reasoning = ""
        if not answer.strip():
            raise self._wrong(f"{where}.content", "has no answer behind the reasoning")
        return reasoning, answer

    def _reasoning(self, index: int) -> str:
        extra = self._row.messages[index].model_extra or {}
        found = {key: extra[key] for key in REASONING if extra.get(key)}
        for key, value in found.items():
            if not isinstance(value, str):
                raise self._wrong(f"messages[{index}].{key}", "is no string")
        if len(set(found.values())) > 1:
            raise self._wrong(f"messages[{index}]", f"has {' and '.join(found)}, which differ")
        return next(iter(found.values()), "")

    def _facts(self, roles: list[str]) -> tuple[str, dict[str, Any]]:
        """The source, and the metadata: the line's own, the system message, and all else on the line."""
        metadata = dict(self._row.metadata or {})
        facts = {key: value for key, value in (self._row.model_extra or {}).items() if value is not None}
        source = self._row.source or ""
        if len(source) > rows.MAX_LABEL:
            facts["source"], source = source, ""
        if roles[0] == "system":
            self._add(metadata, "system", self._text(0, may_be_empty=True))
        beside = {role: self._beside(index) for index, role in enumerate(roles)}
        if any(beside.values()):
            facts["message_fields"] = {role: fields for role, fields in beside.items() if fields}
        for key, value in facts.items():
            self._add(metadata, key, value)
        return source, metadata

    def _add(self, metadata: dict[str, Any], key: str, value: Any) -> None:
        if key in metadata and metadata[key] != value:
            raise self._wrong(key, "stands twice with different values, and the metadata has room for one")
        metadata[key] = value

    def _beside(self, index: int) -> dict[str, Any]:
        extra = self._row.messages[index].model_extra or {}
        return {
            key: value
            for key, value in extra.items()
            if key not in REASONING and value is not None and value != [] and value != ""
        }

    def _wrong(self, field: str, problem: str) -> Exception:
        field = named_field(field, self._named)
        return rows.wrong(field, problem, self._number, self._file)
