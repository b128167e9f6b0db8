"""Messages as chat APIs and datasets write them, one by one, as the turns of a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.formats.content import Content, ContentReader, Wrong
from tunix_rt.formats.learned import mark_of
from tunix_rt.formats.reading import Reading
from tunix_rt.thoughts import split_thoughts
from tunix_rt.turns import text_of

ROLES: Final = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
# What servers and datasets call the reasoning that stands beside the answer.
REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_CALLS: Final = ("tool_calls", "function_call")
SPOKEN: Final = (*REASONING, *_CALLS, "refusal")
"""What only a message of the assistant's has."""
_RESULT_IDS: Final = ("tool_call_id", "tool_use_id", "call_id")
_TRAIN: Final = {None: v1.Message.TRAIN_UNSPECIFIED, True: v1.Message.TRAIN_YES, False: v1.Message.TRAIN_NO}
_CALL_MARK: Final = "<tool_call>"
# How Hermes writes calls and results into texts.
_WRITTEN_CALL: Final = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_WRITTEN_RESULT: Final = re.compile(r"\s*<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)
# Items of OpenAI's Responses that stand beside its messages.
_ITEMS: Final = {
    "function_call": "call",
    "custom_tool_call": "call",
    "function_call_output": "tool",
    "custom_tool_call_output": "tool",
    "reasoning": "thought",
}
_NOT_READ: Final = ("audio", "images", "image", "video", "videos", "audios")


class Turns:
    """The messages of one conversation, made of items that are added in order.

    ``messages`` and ``paths`` (where each stands in its file) grow together; ``beside`` has what else stood
    on a message, by its place.
    """

    def __init__(self, reading: Reading, wrong: Wrong) -> None:
        self._reading = reading
        self._lossy = reading.lossy
        self._wrong = wrong
        self._content = ContentReader(reading, wrong)
        self._thoughts: list[str] = []
        self.messages: list[v1.Message] = []
        self.paths: list[str] = []
        self.beside: dict[str, dict[str, Any]] = {}

    def add(self, item: Any, path: str) -> None:
        """Add what ``item``, which stands at ``path``, says. Raises what ``wrong`` makes."""
        if not isinstance(item, dict):
            raise self._wrong(path, "is no object; a role and its content would be right")
        key = "role" if item.get("role") is not None else "from"
        kind = item.get("type")
        if item.get(key) is None and isinstance(kind, str) and kind != "message":
            self._item(item, kind, path)
            return
        role = self._role(item.get(key), f"{path}.{key if key in item else 'role'}")
        if role == "call":
            self._call_turn(item, path)
        elif role == "tool":
            self._result(item, path)
        else:
            self._message(role, item, path)

    def end(self) -> None:
        """Count what no message followed."""
        if self._thoughts:
            self._lossy.add("thought", "that nothing follows left out", len(self._thoughts))
            self._thoughts = []

    def _role(self, given: Any, path: str) -> str:
        role = ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            told = "is missing" if given is None else f"is {str(given)[:60]!r}"
            raise self._wrong(path, f"{told}; system, developer, user, assistant or tool would be right")
        return role

    def _item(self, item: Mapping[str, Any], kind: str, path: str) -> None:
        match _ITEMS.get(kind):
            case "call":
                self._join([self._content.call(item, path)], path)
            case "tool":
                self._result(item, path, "output")
            case "thought":
                found = self._content.read(item.get("content") or item.get("summary"), f"{path}.summary")
                self._thoughts += [*found.texts, *found.thoughts]
                if item.get("encrypted_content"):
                    self._lossy.add("encrypted thought")
            case _:
                self._lossy.add("item", f"of type {kind[:60]} left out")

    def _join(self, calls: list[v1.ToolCall], path: str, text: str = "", reasoning: str = "") -> None:
        """Calls that stand for themselves belong to the assistant's message right before them, if any."""
        last = self.messages[-1] if self.messages else None
        alone = bool(text or reasoning or self._thoughts)
        if last is None or last.role != v1.Message.ROLE_ASSISTANT or alone:
            last = v1.Message(role=v1.Message.ROLE_ASSISTANT, reasoning=self._reasoned(reasoning))
            last.content.extend([v1.ContentPart(text=text)] if text else [])
            self._append(last, path)
        last.tool_calls.extend(calls)

    def _call_turn(self, item: Mapping[str, Any], path: str) -> None:
        """A turn of ShareGPT that is a call, or a list of calls, as JSON."""
        value = item.get("value", item.get("content"))
        where = f"{path}.{'value' if 'value' in item else 'content'}"
        reasoning = ""
        if isinstance(value, str):
            try:
                reasoning, written = split_thoughts(value)
                value = json.loads(written)
            except ValueError:
                raise self._wrong(where, "is no JSON; a name and its arguments would be right") from None
        calls = value if isinstance(value, list) else [value]
        made = [self._content.call(call, where) for call in calls]
        mark = self._mark("assistant", item, path)
        self._join(made, path, reasoning=reasoning)
        if mark is not None:
            self.messages[-1].train = _TRAIN[mark]
        self._keep_rest(item, ())

    def _result(self, item: Mapping[str, Any], path: str, key: str = "") -> None:
        key = key or next((one for one in ("content", "value", "output") if one in item), "content")
        call_id = next((item[one] for one in _RESULT_IDS if item.get(one)), "")
        name = item.get("name") or ""
        for field, value in (("tool_call_id", call_id), ("name", name)):
            if not isinstance(value, str):
                raise self._wrong(f"{path}.{field}", "is no string")
        texts = self._content.result(item.get(key), f"{path}.{key}")
        self._part_written_calls()
        written = [text for whole in texts for text in _WRITTEN_RESULT.findall(whole)]
        if written and all(not _WRITTEN_RESULT.sub("", whole) for whole in texts):
            # Hermes has the results of several calls in one message.
            for text in written:
                self._append(_tool_message([text], call_id, name), path)
        else:
            self._append(_tool_message(texts, call_id, name), path)
        self._mark("tool", item, path)
        self._keep_rest(item, (key, *_RESULT_IDS, "name"))

    def _part_written_calls(self) -> None:
        """Before a result: calls that the assistant's message has in its text become calls."""
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != v1.Message.ROLE_ASSISTANT or last.tool_calls:
            return
        text = text_of(last)
        if _CALL_MARK not in text:
            return
        where = f"{self.paths[-1]}.content"
        for place, written in enumerate(_WRITTEN_CALL.findall(text)):
            try:
                call = json.loads(written)
            except ValueError:
                raise self._wrong(where, f"has a {_CALL_MARK} that holds no JSON") from None
            last.tool_calls.append(self._content.call(call, f"{where}.tool_call[{place}]"))
        rest = _WRITTEN_CALL.sub("", text).strip()
        del last.content[:]
        last.content.extend([v1.ContentPart(text=rest)] if rest else [])

    def _message(self, role: str, item: Mapping[str, Any], path: str) -> None:
        key = "value" if "value" in item and "content" not in item else "content"
        for media in _NOT_READ:
            if item.get(media):
                self._content.leave_out_media(
                    "audio clip" if "audio" in media else "image", f"{path}.{media}"
                )
        found = self._content.read(item.get(key), f"{path}.{key}")
        for place, result in found.results:
            self._result(result, place)
        if role == "assistant":
            self._assistant(item, found, path, key)
        elif found.texts or not found.results:
            if found.had_media and not found.texts:
                raise self._wrong(f"{path}.{key}", "holds no text beside what is left out")
            if found.calls or found.thoughts:
                raise self._wrong(f"{path}.{key}", "has what only a message of the assistant's may have")
            self._append(self._plain(role, item, found, path), path)
        if role != "assistant":
            self._mark(role, item, path)
        self._keep_rest(item, (key, "name", *SPOKEN, *_NOT_READ))

    def _plain(self, role: str, item: Mapping[str, Any], found: Content, path: str) -> v1.Message:
        if found.texts and not "".join(found.texts).strip():
            raise self._wrong(f"{path}.content", "is white space alone")
        message = v1.Message(role=v1.Message.Role.Value(f"ROLE_{role.upper()}"))
        message.content.extend(v1.ContentPart(text=text) for text in found.texts)
        name = item.get("name") or ""
        if not isinstance(name, str):
            raise self._wrong(f"{path}.name", "is no string")
        message.name = name
        return message

    def _assistant(self, item: Mapping[str, Any], found: Content, path: str, key: str) -> None:
        if item.get("refusal") and isinstance(item["refusal"], str) and not found.texts:
            found.texts.append(item["refusal"])
            self._lossy.add("refusal", "kept as the text of its message")
        inside = ""
        if found.texts:
            try:
                inside, answer = split_thoughts("".join(found.texts))
            except ValueError as problem:
                raise self._wrong(f"{path}.{key}", str(problem)) from None
            found.texts = ([answer] if answer else []) if answer != "".join(found.texts) else found.texts
        beside = self._reasoning(item, path) or "\n\n".join(found.thoughts)
        if beside.strip() and inside.strip():
            raise self._wrong(path, "has its reasoning twice: beside the answer, and between marks in it")
        calls = found.calls + self._calls(item, path)
        if calls and not "".join(found.texts).strip():
            found.texts = []
        message = self._plain("assistant", item, found, path)
        reasoning = beside or inside
        message.reasoning = self._reasoned(reasoning if reasoning.strip() else "")
        message.tool_calls.extend(calls)
        message.train = _TRAIN[self._mark("assistant", item, path)]
        self._append(message, path)

    def _reasoned(self, own: str) -> str:
        thoughts, self._thoughts = self._thoughts, []
        return "\n\n".join([*thoughts, own] if own else thoughts)

    def _reasoning(self, item: Mapping[str, Any], path: str) -> str:
        found = {key: item[key] for key in REASONING if item.get(key)}
        for key, value in found.items():
            if not isinstance(value, str):
                raise self._wrong(f"{path}.{key}", "is no string")
        if len(set(found.values())) > 1:
            raise self._wrong(path, f"has {' and '.join(found)}, which differ")
        return next(iter(found.values()), "")

    def _calls(self, item: Mapping[str, Any], path: str) -> list[v1.ToolCall]:
        made = []
        for key in _CALLS:
            given = item.get(key)
            if isinstance(given, str) and given.strip():
                try:
                    given = json.loads(given)
                except ValueError:
                    raise self._wrong(f"{path}.{key}", "is no JSON; a list of calls would be right") from None
            if isinstance(given, list):
                made += [self._content.call(one, f"{path}.{key}[{at}]") for at, one in enumerate(given)]
            elif given:
                made.append(self._content.call(given, f"{path}.{key}"))
        return made

    def _mark(self, role: str, item: Mapping[str, Any], path: str) -> bool | None:
        """Whether the message is marked as learned; of what is not the assistant's nothing ever is."""
        marks: dict[str, bool] = {}
        for key, value in item.items():
            try:
                mark = mark_of(key, value)
            except ValueError as right:
                if role == "assistant":
                    raise self._wrong(f"{path}.{key}", f"is {repr(value)[:60]}; {right}") from None
                continue
            if mark is not None:
                marks[key] = mark
        if len(set(marks.values())) > 1:
            raise self._wrong(path, f"has {' and '.join(marks)}, which differ")
        mark = next(iter(marks.values()), None)
        if role != "assistant" and mark:
            self._lossy.add("mark", "to learn what is not the assistant's left out")
        return mark

    def _keep_rest(self, item: Mapping[str, Any], known: tuple[str, ...]) -> None:
        rest = {
            key: value
            for key, value in item.items()
            if key not in (*known, "role", "from", "type", "value", "content")
            and value not in (None, [], "", {})
            and not _says_of_learning(key, value)
        }
        if rest and self.messages:
            place = str(len(self.messages) - 1)
            self.beside[place] = self.beside.get(place, {}) | rest

    def _append(self, message: v1.Message, path: str) -> None:
        if self._thoughts and message.role != v1.Message.ROLE_ASSISTANT:
            self.end()
        self.messages.append(message)
        self.paths.append(path)


def _tool_message(texts: list[str], call_id: str, name: str) -> v1.Message:
    message = v1.Message(role=v1.Message.ROLE_TOOL, tool_call_id=call_id, name=name)
    message.content.extend(v1.ContentPart(text=text) for text in texts if text)
    return message


def _says_of_learning(key: str, value: Any) -> bool:
    try:
        return mark_of(key, value) is not None
    except ValueError:
        return False
