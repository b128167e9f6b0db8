"""The content of a message, in the parts that APIs write: texts, thoughts, calls, results, and media."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.formats.conversations import json_text
from tunix_rt.formats.reading import Reading

_TEXTS: Final = ("text", "input_text", "output_text", "summary_text", "reasoning_text")
_MEDIA: Final = {
    **dict.fromkeys(("image", "image_url", "input_image", "image_file"), "image"),
    **dict.fromkeys(("audio", "input_audio", "audio_url", "output_audio"), "audio clip"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("file", "input_file", "document", "container_upload"), "file"),
}
_OF_SERVER: Final = ("server_tool_use", "mcp_tool_use")
_FREE: Final = ("custom", "custom_tool_call")
_SIGNED: Final = "signature"
_MAX_DEPTH: Final = 30

Wrong = Callable[[str, str], Exception]


@dataclass(slots=True)
class Content:
    """What a message's content holds; ``results`` are the tool results in it, each with its place."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[v1.ToolCall] = field(default_factory=list)
    results: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    had_media: bool = False


class ContentReader:
    """Reads contents; ``wrong`` makes the error of a field and its problem."""

    def __init__(self, reading: Reading, wrong: Wrong) -> None:
        self._reading = reading
        self._lossy = reading.lossy
        self._wrong = wrong

    def read(self, value: Any, place: str) -> Content:
        """The content at ``place``, a text or a list of parts."""
        found = Content()
        if isinstance(value, str):
            found.texts.append(value)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                self._part(part, f"{place}[{index}]", found)
        elif isinstance(value, dict) and "type" in value:
            self._part(value, place, found)
        elif value is not None:
            raise self._wrong(place, "is no string and no list of texts")
        found.texts = [text for text in found.texts if text]
        return found

    def _part(self, part: Any, place: str, found: Content) -> None:
        if isinstance(part, str):
            found.texts.append(part)
            return
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise self._wrong(place, "is no text; a trace holds text alone")
        self._count_rest(part, kind)
        if kind in _TEXTS:
            found.texts.append(self._text(part, ("text",), place))
        elif kind in ("thinking", "reasoning"):
            found.thoughts.append(self._text(part, ("thinking", "reasoning", "text"), place))
        elif kind == "redacted_thinking":
            self._lossy.add("redacted thought")
        elif kind == "refusal":
            found.texts.append(self._text(part, ("refusal",), place))
            self._lossy.add("refusal", "kept as the text of its message")
        elif kind == "tool_use":
            found.calls.append(self.call(part, place))
        elif kind == "tool_result":
            found.results.append((place, part))
        elif kind in _MEDIA:
            found.had_media = True
            self.leave_out_media(_MEDIA[kind], place)
        elif kind in _OF_SERVER or kind.endswith("_tool_result"):
            self._lossy.add("part", f"of type {kind} left out")
        else:
            raise self._wrong(place, f"is no text, but of type {kind[:60]!r}; a trace holds text alone")

    def _count_rest(self, part: Mapping[str, Any], kind: str) -> None:
        if part.get(_SIGNED) and kind == "thinking":
            self._lossy.add("signature", "of a thought left out")
        for key in ("cache_control", "citations", "annotations", "logprobs"):
            if part.get(key):
                self._lossy.add("field", f"{key} of a part left out")

    def _text(self, part: Mapping[str, Any], keys: tuple[str, ...], place: str) -> str:
        text = next((part[key] for key in keys if key in part), None)
        if not isinstance(text, str):
            raise self._wrong(f"{place}.{keys[0]}", "is missing" if text is None else "is no string")
        return text

    def leave_out_media(self, what: str, place: str) -> None:
        """Count what is no text, or refuse it by name."""
        if self._reading.media == "refuse":
            a = "an" if what[0] in "aeiou" else "a"
            option = self._reading.option("--media leave-out leaves it out")
            raise self._wrong(place, f"is {a} {what}, and a trace holds text alone{option}")
        self._lossy.add(what)

    def call(self, given: Any, place: str) -> v1.ToolCall:
        """A call as APIs write one: OpenAI's of both kinds, Anthropic's, or a name with its arguments."""
        if not isinstance(given, dict):
            raise self._wrong(place, "is no object; a name and its arguments would be right")
        inner, where = given, place
        for key in ("function", "custom"):
            if isinstance(given.get(key), dict):
                inner, where = given[key], f"{place}.{key}"
        name = inner.get("name")
        if not isinstance(name, str) or not name:
            raise self._wrong(
                f"{where}.name",
                "is missing; the name of the tool would be right" if not name else "is no string",
            )
        call_id = next((given[key] for key in ("call_id", "id") if given.get(key)), "")
        if not isinstance(call_id, str):
            raise self._wrong(f"{place}.id", "is no string")
        key = next((key for key in ("arguments", "input", "args", "parameters") if key in inner), "arguments")
        value = inner.get(key)
        if given.get("type") in _FREE and isinstance(value, str):
            # Such a tool takes a text, and arguments of a call are an object.
            self._lossy.add("free text of a call", "kept as its argument input", many="free texts of calls")
            value = {"input": value}
        return v1.ToolCall(id=call_id, name=name, arguments_text=self.arguments(value, f"{where}.{key}"))

    def arguments(self, value: Any, place: str) -> str:
        """The text of a call's arguments, to the character where they are given as text."""
        if value is None:
            return "{}"
        text = value if isinstance(value, str) else json_text(value)
        if is_object(text):
            return text
        if self._reading.bad_arguments == "refuse":
            option = self._reading.option("--bad-arguments keep takes it")
            raise self._wrong(place, f"is {text[:60]!r}, which is no JSON object{option}")
        if not text:
            self._lossy.add("call", "with an empty text for its arguments, kept as {}")
            return "{}"
        self._lossy.add("call", "whose arguments are no JSON object, kept as text")
        return text

    def result(self, value: Any, place: str) -> list[str]:
        """The texts of a tool's result; what is data is its JSON."""
        if value is None:
            return []
        parts = isinstance(value, list) and all(
            isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("type"), str))
            for part in value
        )
        if not isinstance(value, str) and not parts:
            return [json_text(value)]
        return self.read(value, place).texts


def is_object(text: str) -> bool:
    """Whether a text is a JSON object that the trace store takes as one."""
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and _fits(found, 1)


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _fits(value: Any, depth: int) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth <= _MAX_DEPTH and all(_fits(entry, depth + 1) for entry in inner)
    return not isinstance(value, float) or math.isfinite(value)
