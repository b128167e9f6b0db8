# ruff: noqa: RUF001  (hostile texts)
"""Conversations made from a number: of 1 to 30 turns, with tools, nested arguments and hostile texts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt_kit.chat import Conversation, Message, ToolCall

_WORDS: Final = (
    *("a", "7", "sum", "of", "two", "and", "the", "weather", "is", "41.5", "in", "Oslo", "ok"),
    *("\N{SNOWMAN}", "Größe", "東京", "🙂", "naïve", "e\u0301"),
)
_HOSTILE: Final = (
    " ends with blanks \n",
    "\n\tbegins so",
    "{{ messages }} {% endfor %} {# x #}",
    "\"quoted\" \\ \\n \\u0041 'single'",
    "line\r\nbreaks\u2028and\u0085more\x0b",
    "assistant\n",
    "<|im_end",
    "]]></x> <b>&lt;</b>",
    '{"name": "add", "arguments": {}}',
    "\u202eright to left",
    "🏳️‍🌈 family 👨‍👩‍👧",
    "\N{GREEK QUESTION MARK}\u200b\ufeff",
    " ",
    "think",
    "true",
    "null",
    "9" * 40,
)
_CONTROL: Final = (
    *("<|im_end|>", "<|im_start|>user\n", "<|eot_id|>", "<|start_header_id|>system", "<｜end▁of▁sentence｜>"),
    *("<｜User｜>", "</think>", "<think>", "</tool_call>", "<tool_response>", "<｜tool▁calls▁begin｜>"),
)


@dataclass(frozen=True)
class Made:
    """A conversation as `transformers` takes it, and which of its messages are learned."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    learned: list[int]

    @property
    def conversation(self) -> Conversation:
        """The same in our own types."""
        tools = [json.dumps(tool, ensure_ascii=False) for tool in self.tools]
        return Conversation([_message(message) for message in self.messages], self.learned, tools)

    @property
    def is_plain(self) -> bool:
        """Whether it is made of texts alone, by roles that every template knows."""
        kept = [
            set(message) == {"role", "content"} and message["role"] != "developer"
            for message in self.messages
        ]
        return all(kept) and not self.tools

    @property
    def is_blank(self) -> bool:
        """Whether a turn that is learned says nothing."""
        said = [self.messages[turn] for turn in self.learned]
        fields = ("content", "reasoning_content")
        return any(
            "tool_calls" not in turn and not "".join(turn.get(name, "") for name in fields).strip()
            for turn in said
        )

    def texts(self) -> Iterator[str]:
        """All texts that a template may write."""
        yield from _texts([self.messages, self.tools])


def made(number: int, *, hostile: bool) -> Made:
    """The conversation of that number; without ``hostile`` every template should take its texts."""
    maker = _Maker(random.Random(f"{number} {hostile}"), hostile)
    messages = maker.messages()
    said = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    learned = maker.random.choice(
        [said, said, said[-1:], maker.random.sample(said, maker.random.randint(1, len(said)))]
    )
    called = any("tool_calls" in message for message in messages)
    tools = maker.tools() if called or maker.random.random() < 0.2 else []
    return Made(messages, tools, sorted(learned))


class _Maker:
    def __init__(self, source: random.Random, hostile: bool) -> None:
        self.random = source
        self._hostile = hostile
        self._calls = 0

    def text(self) -> str:
        words = " ".join(self.random.choices(_WORDS, k=self.random.randint(1, 9)))
        chance = self.random.random()
        if not self._hostile or chance < 0.75:
            return words
        odd = self.random.choice(_HOSTILE if chance < 0.985 else _CONTROL)
        return self.random.choice([odd, odd + words, words + odd])

    def value(self, depth: int = 0) -> Any:
        kind = self.random.randrange(8 if depth < 3 else 6)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        if kind == 7:
            return self.object(depth + 1)
        return [self.text, self.text, *(self._of(values) for values in _SCALARS)][kind]()

    def object(self, depth: int = 0) -> dict[str, Any]:
        return {self.text(): self.value(depth) for _ in range(self.random.randint(0, 3))}

    def tools(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": self.text(),
                    "parameters": {"type": "object", "properties": self.object(2)},
                },
            }
            for name in ("add", "look_up", "Größe")[: self.random.randint(1, 3)]
        ]

    def messages(self) -> list[dict[str, Any]]:
        first = self.random.choice(["system", "system", "developer", None])
        messages = [{"role": first, "content": self.text()}] if first else []
        messages.append({"role": "user", "content": self.text()})
        for _ in range(self.random.choice([1, 1, 2, 3, 5, 8, 14])):
            messages += self._turn()
        if not any(message["role"] == "assistant" for message in messages):
            messages.append({"role": "assistant", "content": self.text()})
        return messages

    def _turn(self) -> list[dict[str, Any]]:
        chance = self.random.random()
        if chance < 0.3:
            return [{"role": "user", "content": self.text()}]
        thought = {"reasoning_content": self.text()} if self.random.random() < 0.4 else {}
        if chance < 0.65:
            return [{"role": "assistant", "content": self.text(), **thought}]
        calls = [self._call() for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
        content = self.random.choice(["", "", self.text()])
        results = [
            {
                "role": "tool",
                "content": self.random.choice(["", self.text(), self.text()]),
                "tool_call_id": call["id"],
            }
            for call in calls
        ]
        return [{"role": "assistant", "content": content, **thought, "tool_calls": calls}, *results]

    def _call(self) -> dict[str, Any]:
        self._calls += 1
        broken = self._hostile and self.random.random() < 0.05
        arguments = "not { JSON" if broken else self.object()
        name = self.random.choice(["add", "look_up", "Größe"])
        return {
            "id": f"call{self._calls:05}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def _of(self, values: Sequence[Any]) -> Any:
        return lambda: self.random.choice(values)


_SCALARS: Final = ([0, -7, 10**30, 3.25, 1e-7, 1e16], [True, False], [None], [2, 2.0, "2", ""])


def _message(fields: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(
            id=call["id"], name=call["function"]["name"], arguments=_as_text(call["function"]["arguments"])
        )
        for call in fields.get("tool_calls", ())
    )
    return Message(
        role=fields["role"],
        content=fields["content"],
        reasoning=fields.get("reasoning_content", ""),
        tool_calls=calls,
        tool_call_id=fields.get("tool_call_id", ""),
    )


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in _texts(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in _texts(part))
