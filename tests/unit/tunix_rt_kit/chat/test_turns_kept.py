"""Turns of conversations that are the same with names: found once, and as well as alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from support.arbitrary_conversations import made
from support.chat_templates import template
from tunix_rt_kit.chat import ChatTemplate, Conversation, ConversationRenderer, Message, ToolCall, turns
from tunix_rt_kit.chat.turns import PlacedTurn, TurnFinder

Asked = list[tuple[Conversation, list[str]]]
Found = list[list[tuple[PlacedTurn, ...] | None]]
QWEN = template("qwen3_like")
WITH_IDS = ChatTemplate.from_jinja(
    "{%- for m in messages -%}<|im_start|>{{ m.role }} {{ m.tool_call_id }}\n{{ m.content }}"
    "{%- for c in m.tool_calls -%}{{ c.id }}({{ c.function.arguments | tojson }}){%- endfor -%}<|im_end|>\n"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant \n{%- endif -%}",
    eos_token="<|im_end|>",
)


def asked(chosen: ChatTemplate, conversations: Sequence[Conversation]) -> Asked:
    """The conversations that the template can write, each with the texts of its training examples."""
    rendered = ConversationRenderer(chosen).masks(conversations)
    return [
        (each, [example.text for example in examples])
        for each, examples in zip(conversations, rendered, strict=True)
        if isinstance(examples, tuple)
    ]


def adding(number: int, question: str = "Add.", tools: Sequence[str] = ()) -> Conversation:
    """A call and its result; the texts and the id of the call are others for each number."""
    call = ToolCall(id=f"id{number:07}", name="add", arguments=f'{{"a": {number}}}')
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content=f"{number}", tool_call_id=call.id),
        Message(role="assistant", content=f"It is {number}."),
    ]
    return Conversation(messages, [1, 3], tools)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many conversations were rendered each time."""
    counts: list[int] = []
    masks = ConversationRenderer.masks

    def counted(renderer: ConversationRenderer, conversations: Sequence[Conversation]) -> object:
        counts.append(len(conversations))
        return masks(renderer, conversations)

    monkeypatch.setattr(ConversationRenderer, "masks", counted)
    return counts


def test_what_is_kept_changes_nothing(monkeypatch: pytest.MonkeyPatch, rendered: list[int]) -> None:
    talks = [made(number, hostile=True).conversation for number in range(80)]
    wanted = asked(QWEN, [*talks, *(adding(number) for number in range(5))])
    alone: Found = [TurnFinder(QWEN).conversations([each])[0] for each in wanted]
    finder = TurnFinder(QWEN)
    # The second time all of them are known.
    assert finder.conversations(wanted) == finder.conversations(wanted) == alone
    # Room for a few of them.
    monkeypatch.setattr(turns, "_KEPT_BYTES", 20_000)
    finder = TurnFinder(QWEN)
    assert [finder.conversations([each])[0] for each in wanted] == alone
    for others, count in ([], 0), (wanted[:40], 1):
        finder.conversations(others)
        rendered.clear()
        assert finder.conversations(wanted[-1:]) == alone[-1:]
        assert sum(rendered) == count
    assert len(wanted) > 40


def test_conversations_of_one_form_are_rendered_once(rendered: list[int]) -> None:
    wanted = asked(QWEN, [adding(number) for number in range(100)])
    rendered.clear()
    finder = TurnFinder(QWEN)
    found = [*finder.conversations(wanted[:50]), *finder.conversations(wanted[50:])]
    assert sum(rendered) == 1
    for (_, texts), own in zip(wanted, found, strict=True):
        for text, each in zip(texts, own, strict=True):
            assert each is not None
            said = ["".join(text[slice(*span)] for span in turn.spans) for turn in each]
            assert said[0] == "Add."
            assert all(turn.end_mark and text[slice(*turn.end_mark)] == "<|im_end|>" for turn in each[1::2])


def test_a_template_that_writes_the_ids_of_calls_is_given_them(rendered: list[int]) -> None:
    wanted = asked(WITH_IDS, [adding(number) for number in range(4)])
    rendered.clear()
    finder = TurnFinder(WITH_IDS)
    for (_, (text,)), (each,) in zip(wanted, finder.conversations(wanted), strict=True):
        assert each is not None
        assert [turn.role for turn in each] == ["user", "assistant", "tool", "assistant"]
        (call,) = each[1].calls
        assert text[slice(*call)].startswith('a": ')
    assert sum(rendered) == 1 + len(wanted)
    # Now it is known that they are written.
    more = asked(WITH_IDS, [adding(number) for number in range(10, 13)])
    rendered.clear()
    assert all(each is not None for (each,) in finder.conversations(more))
    assert sum(rendered) == len(more)


def test_a_text_that_holds_a_name_is_no_name() -> None:
    name = "Zq00000x000000qZ"
    hostile = adding(2, question=f"{name}{name}91700000000001 Zq00000 {name[:-2]}")
    # A tool's description stands in the rendering with names as it is.
    tool = json.dumps({"type": "function", "function": {"name": "add", "description": f"Adds {name}."}})
    wanted = asked(QWEN, [adding(1), hostile, adding(3, question=name), adding(4, tools=[tool])])
    finder = TurnFinder(QWEN)
    for (conversation, texts), own in zip(wanted, finder.conversations(wanted), strict=True):
        for text, each in zip(texts, own, strict=True):
            assert each is not None
            assert text[slice(*each[0].spans[0])] == conversation.messages[0].content


def test_a_text_that_is_not_the_conversations_has_no_turns() -> None:
    wanted = asked(QWEN, [adding(1), adding(2)])
    (first, texts), (second, others) = wanted
    finder = TurnFinder(QWEN)
    assert all(each is not None for own in finder.conversations(wanted) for each in own)
    swapped = finder.conversations([(first, others), (second, texts), (first, texts * 2)])
    assert [each for own in swapped for each in own] == [None] * (2 * len(texts) + 2 * len(texts))
