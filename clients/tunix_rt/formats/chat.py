"""Chats as traces: a question, reasoned about and answered once.

Messages are OpenAI's (``role``, ``content``) or ShareGPT's (``from``, ``value``). A trace holds one question
and one answer; a chat of several turns is refused, because nothing of its earlier turns would reach the
model. White space is content: texts are kept to the byte, except for line breaks that touch a mark of the
reasoning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.formats import rows
from tunix_rt.formats.lines import parse_line
from tunix_rt.formats.reading import Builder, Reading
from tunix_rt.formats.rows import paragraphs

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
# What servers and datasets call the reasoning that stands beside the answer.
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
# What a message may carry that a trace has no place for, and that changes what the message means.
_NOT_KEPT: Final = ("tool_calls", "function_call", "tool_call_id", "audio", "images", "refusal")
_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"
# They belong to the mark that they touch, not to the text: templates write them, and take them away again.
_BREAKS: Final = "\r\n"
# What datasets say beside a message, or a line, about whether it is learned: OpenAI and Mistral write
# `weight`, axolotl `train`, ms-swift `loss`, torchtune `masked`, and others have words of their own.
_LEARNED: Final = frozenset(
    {
        *("weight", "loss", "loss_weight", "loss_scale", "loss_mask"),
        *("train", "training", "trainable", "train_on_turn", "learn", "learnable", "supervised"),
    }
)
_MASKED: Final = frozenset({"mask", "masked"})
_ABOUT_LEARNING: Final = frozenset(
    {
        *("weight", "weights", "loss", "losses", "mask", "masks", "masked", "unmasked"),
        *("train", "trained", "trainable", "training", "untrained", "learn", "learned", "learnable"),
        *("supervise", "supervised", "supervision"),
    }
)
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_WORDS_OF_TABLES: Final = {"false": False, "no": False, "0": 0, "0.0": 0, "true": True, "yes": True, "1": 1}
_PAIR: Final = ("prompt", "completion")


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


def chat_reader(reading: Reading) -> Builder:
    """What makes traces of chats."""
    return partial(chat, answers_only=reading.answers_only)


def chat(line: bytes, number: int, file: str, *, answers_only: bool = False) -> v1.Trace:
    """One chat; raises FormatError that names what is wrong or could not be kept.

    The reasoning is ``reasoning_content`` of the assistant's message, or ``<think>...</think>`` before its
    answer; each paragraph becomes a step. With ``answers_only`` an answer without reasoning is a step of its
    own. A system message, and whatever else stands on the line, goes into the metadata. A field that says
    that the answer or the line is not to be learned is refused, because traces are learned.
    """
    return _Chat(parse_line(_ChatRow, line, number, file), number, file, answers_only).trace(line)


def pair(row: Mapping[str, Any], number: int, file: str, *, answers_only: bool = False) -> v1.Trace:
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
    line = json.dumps({"messages": messages, **beside}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return _Chat(parse_line(_ChatRow, line, number, file), number, file, answers_only, named).trace(line)


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
        self._check_turns(roles)
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
                if _unlearned(key, value):
                    raise self._unlearnable(f"messages[{index}].{key}", value)
        for key, value in (self._row.model_extra or {}).items():
            if _says_no(key, value):
                raise self._unlearnable(key, value)

    def _unlearnable(self, field: str, value: Any) -> Exception:
        return self._wrong(
            field,
            f"is {repr(value)[:60]}, but the answer of a trace is learned whole; leave out what is not to be "
            "learned",
        )

    def _check_turns(self, roles: list[str]) -> None:
        if roles in (["user", "assistant"], ["system", "user", "assistant"]):
            return
        if "assistant" not in roles:
            problem = "has no assistant turn; a trace needs the answer with its reasoning"
        elif "user" not in roles:
            problem = "has no user turn; a trace needs the question"
        elif roles.count("user") > 1 and roles.count("assistant") > 1:
            problem = (
                f"has {roles.count('assistant')} assistant turns; a trace holds one question and one answer, "
                "and the turns before the last would be lost"
            )
        else:
            problem = f"has the turns {', '.join(roles[:8])}; expected system (or none), user, assistant"
        raise self._wrong("messages", problem)

    def _text(self, index: int, may_be_empty: bool = False) -> str:
        message = self._row.messages[index]
        where = f"messages[{index}]"
        for key in _NOT_KEPT:
            if (message.model_extra or {}).get(key):
                raise self._wrong(f"{where}.{key}", "cannot be kept in a trace, which holds text alone")
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
        inside, answer = self._think(content, f"{where}.content")
        if beside and inside.strip():
            raise self._wrong(where, f"has its reasoning twice: beside the answer, and in {_OPEN}")
        reasoning = beside or inside
        if not reasoning.strip():
            if self._answers_only:
                reasoning = ""
            else:
                raise self._wrong(where, self._unreasoned)
        if not answer.strip():
            raise self._wrong(f"{where}.content", "has no answer behind the reasoning")
        return reasoning, answer

    @property
    def _unreasoned(self) -> str:
        others = (
            ", in a line `#### N` at its end, or in a column: --column steps=COLUMN" if self._named else ""
        )
        return (
            "has no reasoning; if these are questions and answers alone, import them with --answers-only "
            f"(reasoning would be in reasoning_content, in {_OPEN}...{_CLOSE} before the answer{others})"
        )

    def _reasoning(self, index: int) -> str:
        extra = self._row.messages[index].model_extra or {}
        found = {key: extra[key] for key in _REASONING if extra.get(key)}
        for key, value in found.items():
            if not isinstance(value, str):
                raise self._wrong(f"messages[{index}].{key}", "is no string")
        if len(set(found.values())) > 1:
            raise self._wrong(f"messages[{index}]", f"has {' and '.join(found)}, which differ")
        return next(iter(found.values()), "")

    def _think(self, content: str, where: str) -> tuple[str, str]:
        opened, closed = content.count(_OPEN), content.count(_CLOSE)
        if not opened and not closed:
            return "", content
        if opened > closed:
            raise self._wrong(where, f"opens {_OPEN} and never closes it")
        if closed > 1:
            raise self._wrong(where, f"has {_CLOSE} {closed} times; once is right")
        before, mark, rest = content.partition(_OPEN) if opened else ("", "", content)
        if before.strip():
            raise self._wrong(where, f"has text before {mark}; the reasoning comes first")
        # Some models are given the opening mark with the question, and write the closing one alone.
        reasoning, _, answer = rest.partition(_CLOSE)
        return reasoning.strip(_BREAKS), answer.lstrip(_BREAKS)

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
            if key not in _REASONING and value is not None and value != [] and value != ""
        }

    def _wrong(self, field: str, problem: str) -> Exception:
        message, dot, rest = field.partition(".")
        if message in self._named:
            named = self._named[message]
            field = named if named in _PAIR and rest == "content" else f"{named}{dot}{rest}"
        return rows.wrong(field, problem, self._number, self._file)


def _unlearned(key: str, value: Any) -> bool:
    """Whether a field of an answer says, or may say, that not all of the answer is to be learned.

    A field whose name is not known, but speaks of training, weights, losses or masks, may say anything.
    """
    if value is None:
        return False
    if key in _LEARNED:
        return not _is_number(value, 1)
    if key in _MASKED:
        return not _is_number(value, 0)
    return not _ABOUT_LEARNING.isdisjoint(word.lower() for word in _WORD.findall(key))


def _says_no(key: str, value: Any) -> bool:
    """Whether a field of a whole line says that the line is not to be learned.

    Other facts may stand there: a weight in grams, the loss that some model had.
    """
    if key in _MASKED:
        return _is_number(value, 1)
    return key in _LEARNED and (value is False or (key != "loss" and _is_number(value) and value <= 0))


def says_not_learned(key: str, value: Any) -> bool:
    """Whether a fact beside an answer says that the answer is not to be learned; tables say it in words."""
    if isinstance(value, str):
        word = value.strip().casefold()
        value = _WORDS_OF_TABLES.get(word, value)
    return _says_no(key, value)


def _is_number(value: Any, wanted: int | None = None) -> bool:
    return isinstance(value, int | float) and (wanted is None or value == wanted)
