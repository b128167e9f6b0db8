"""Logs of model APIs: what was sent, and what came back, as one conversation.

OpenAI's chat completions and responses, and Anthropic's messages; a request and its response stand on a line,
each as an object, as JSON in a text, or in a ``body``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.formats import rows
from tunix_rt.formats.chat import chat_of
from tunix_rt.formats.lines import object_of
from tunix_rt.formats.reading import Builder, Reading

_REQUESTS: Final = ("request", "request_body", "body")
_RESPONSES: Final = ("response", "response_body")
_OFFERED: Final = ("tools", "functions", "system")
# What becomes messages and tools; the rest of a request and of a response are facts.
_SAID: Final = {
    *_OFFERED,
    "messages",
    "input",
    "instructions",
    "choices",
    "output",
    "output_text",
    "content",
    "role",
}
_FAILED: Final = 400


def is_log(keys: set[str]) -> bool:
    """Whether lines with these keys hold a request and its response."""
    return bool(
        (keys & set(_REQUESTS) and keys & set(_RESPONSES))
        or {"messages", "choices"} <= keys
        or {"model", "input", "output"} <= keys
        or {"custom_id", "response"} <= keys
    )


def log_reader(reading: Reading) -> Builder:
    """What makes traces of such lines, and of chats, which hold messages alone."""
    return partial(_logged, reading=reading)


def _logged(line: bytes, number: int, file: str, *, reading: Reading) -> v1.Trace:
    document = object_of(line, number, file)
    if _is_answered(document) or "conversations" in document or not is_log(set(document)):
        return chat_of(document, line, number, file, reading)
    return _Log(document, number, file, reading).trace()


def _is_answered(document: Mapping[str, Any]) -> bool:
    """Whether the messages end with the answer, which ``choices`` beside them may say once more."""
    messages = document.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or not _is_assistants(last):
        return False
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return not isinstance(message, dict) or _said(message) == _said(last)


def _said(message: Mapping[str, Any]) -> tuple[str, Any]:
    parts = _parts(message.get("content") or "")
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str)), message.get("tool_calls") or None


def _is_assistants(item: Any) -> bool:
    return isinstance(item, dict) and item.get("role") == "assistant"


class _Log:
    """One line on its way to a conversation."""

    def __init__(self, document: Mapping[str, Any], number: int, file: str, reading: Reading) -> None:
        self._document = document
        self._number = number
        self._file = file
        self._reading = reading
        self._items: list[Any] = []
        self._named: dict[str, str] = {}

    def trace(self) -> v1.Trace:
        asked, request, answered, response = self._halves()
        self._ask(request, asked)
        self._answer(response, answered)
        made: dict[str, Any] = {"messages": self._items}
        for key in _OFFERED:
            found = request.get(key) or (response.get(key) if key != "system" else None)
            if found:
                made[key] = found
        facts: dict[str, Any] = {"request": _facts(request)}
        if request is not response:
            facts["response"] = _facts(response)
            facts |= {key: value for key, value in self._document.items() if key not in (asked, answered)}
        if request.get("previous_response_id"):
            self._reading.lossy.add(
                "conversation", "whose earlier turns are under previous_response_id, not on its line"
            )
        metadata = {key: value for key, value in facts.items() if value not in (None, {}, [])}
        made["metadata"] = metadata
        return chat_of(made, rows.encoded(made), self._number, self._file, self._reading, self._named)

    def _wrong(self, field: str, problem: str) -> Exception:
        return rows.wrong(field, problem, self._number, self._file)

    def _halves(self) -> tuple[str, dict[str, Any], str, dict[str, Any]]:
        """The request and the response, and the keys that they stand under."""
        asked = next((key for key in _REQUESTS if self._document.get(key)), "")
        answered = next((key for key in _RESPONSES if self._document.get(key)), "")
        if not asked and not answered:
            whole = dict(self._document)
            return "", whole, "", whole
        if not asked:
            raise self._wrong(answered, "is a response without its request, which has the messages")
        if not answered:
            raise self._wrong(_RESPONSES[0], "is missing; the response to the request would be right")
        return asked, self._half(asked), answered, self._half(answered)

    def _half(self, key: str) -> dict[str, Any]:
        found = self._document[key]
        for _ in range(3):
            if isinstance(found, str):
                text, found = found, _parsed(found)
                if not isinstance(found, dict) and key in _RESPONSES:
                    return {"role": "assistant", "content": text}
            if not isinstance(found, dict):
                raise self._wrong(key, "is no object, and no text that holds one")
            status = found.get("status_code", found.get("status"))
            if isinstance(status, int) and status >= _FAILED:
                raise self._wrong(key, f"has status {status}: the call failed, and nothing was answered")
            if not found.get("body"):
                break
            found = found["body"]
        if isinstance(found, dict) and found.get("error"):
            raise self._wrong(f"{key}.error", "is there: the call failed, and nothing was answered")
        if not isinstance(found, dict):
            raise self._wrong(key, "is no object")
        return found

    def _add(self, item: Any, path: str) -> None:
        self._named[f"messages[{len(self._items)}]"] = path
        self._items.append(item)

    def _ask(self, request: Mapping[str, Any], key: str) -> None:
        place = f"{key}." if key else ""
        if request.get("instructions"):
            self._add({"role": "system", "content": request["instructions"]}, f"{place}instructions")
        given = request.get("messages", request.get("input"))
        name = "messages" if "messages" in request else "input"
        if isinstance(given, str):
            self._add({"role": "user", "content": given}, f"{place}{name}")
        elif isinstance(given, list) and given:
            for index, item in enumerate(given):
                self._add(item, f"{place}{name}[{index}]")
        else:
            told = "has no messages and no input; what was asked would be right"
            raise self._wrong(key or "messages", told)

    def _answer(self, response: Mapping[str, Any], key: str) -> None:
        place = f"{key}." if key else ""
        choices, output = response.get("choices"), response.get("output")
        if isinstance(choices, list) and choices:
            self._choose(choices, f"{place}choices")
        elif isinstance(output, list) and output:
            for index, item in enumerate(output):
                self._add(item, f"{place}output[{index}]")
        elif isinstance(output, str) and output:
            self._add({"role": "assistant", "content": output}, f"{place}output")
        elif _is_assistants(response) and response.get("content"):
            self._go_on(response["content"], key)
        else:
            raise self._wrong(key or "choices", "has no choices, no output and no content of the assistant's")

    def _go_on(self, content: Any, key: str) -> None:
        """Add an answer of Anthropic's: it goes on with a request that ends with the assistant's words."""
        last = self._items[-1]
        if _is_assistants(last) and last.get("content"):
            self._items[-1] = {**last, "content": [*_parts(last["content"]), *_parts(content)]}
            self._reading.lossy.add(
                "answer that the request begins",
                "kept as one with its beginning",
                many="answers that the request begins",
            )
        else:
            self._add({"role": "assistant", "content": content}, key)

    def _choose(self, choices: list[Any], place: str) -> None:
        """The first choice; the others are counted."""
        first = choices[0] if isinstance(choices[0], dict) else {}
        message = first.get("message")
        if "delta" in first:
            raise self._wrong(
                f"{place}[0].delta", "is a part of a streamed response; its whole would be right"
            )
        if not isinstance(message, dict):
            raise self._wrong(f"{place}[0].message", "is missing; what the assistant said would be right")
        self._add({"role": "assistant", **message}, f"{place}[0].message")
        if len(choices) > 1:
            self._reading.lossy.add("other choice", count=len(choices) - 1)
        if first.get("logprobs"):
            self._reading.lossy.add("list", "of log probabilities left out")


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _facts(half: Mapping[str, Any]) -> dict[str, Any]:
    facts = {key: value for key, value in half.items() if key not in _SAID and value not in (None, [], {})}
    choices = half.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        reason = choices[0].get("finish_reason")
        facts |= {"finish_reason": reason} if reason else {}
    return facts
