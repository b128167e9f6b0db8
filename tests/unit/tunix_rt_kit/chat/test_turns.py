"""Who speaks where in a rendered conversation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.arbitrary_conversations import Made, made
from support.chat_templates import template
from tunix_rt_kit.chat import ConversationRenderer, RenderedConversation, Unrendered, trace_messages
from tunix_rt_kit.chat.turns import PlacedTurn, TurnFinder

TEMPLATES = ("gemma-it", "chatml", "llama-3", "qwen3_like", "r1_like", "llama3_like", "trainer_like")


def check_turns(found: Made, example: RenderedConversation, turns: Sequence[PlacedTurn], end: str) -> None:
    """Each turn has its own text, and no other's."""
    said = {
        role: ["".join(each["content"].split()) for each in found.messages if each["role"] == role]
        for role in ("system", "developer", "user", "tool")
    }
    for turn in turns:
        text = "".join(example.text[start:behind] for start, behind in turn.spans)
        if turn.role != "assistant":
            assert "".join(text.split()) in said[turn.role]
            assert (turn.taught, turn.end_mark, turn.calls) == (False, None, ())
        elif turn.end_mark is not None:
            assert example.text[slice(*turn.end_mark)] == end
            assert text.count(end) == 1
        names = {call["function"]["name"] for each in found.messages for call in each.get("tool_calls", ())}
        for first, behind in turn.calls:
            assert any(name in example.text[first:behind] for name in names)
    taught = [(turn.spans, turn.end_mark is not None) for turn in turns if turn.taught]
    assert taught == [(((turn.start, turn.end),), True) for turn in example.turns]


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_turn_stands_where_its_texts_do(name: str) -> None:
    chosen = template(name)
    conversations = [made(number, hostile=number % 2 == 0) for number in range(60)]
    rendered = ConversationRenderer(chosen).render([each.conversation for each in conversations])
    pairs = [
        (each, examples)
        for each, examples in zip(conversations, rendered, strict=True)
        if not isinstance(examples, Unrendered)
    ]
    asked = [(each.conversation, [one.text for one in examples]) for each, examples in pairs]
    unproved, seen = 0, 0
    for (each, examples), found in zip(pairs, TurnFinder(chosen).conversations(asked), strict=True):
        for example, turns in zip(examples, found, strict=True):
            seen += 1
            unproved += turns is None
            if turns is not None:
                check_turns(each, example, turns, chosen.end_of_turn)
    assert seen >= 4
    # A text that is broken JSON, or holds what the template looks for, in a turn that is not learned.
    assert unproved <= seen // 20


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("instruction", ["", " Be brief.\n"])
def test_a_question_and_its_answer_are_two_turns(name: str, instruction: str) -> None:
    chosen = template(name).model_copy(update={"system_instruction": instruction})
    asked, reply = "  Is it 5? ", "Answer: 5"
    prompt, response = chosen.split_example(trace_messages(asked, [], "5"))
    turns = TurnFinder(chosen).exchange(asked, reply, prompt + response)
    assert turns is not None
    text = {turn.role: "".join((prompt + response)[slice(*span)] for span in turn.spans) for turn in turns}
    assert text["user"].strip() == asked.strip()
    assert text["assistant"] == response
    assert text.get("system", "").strip() == instruction.strip()
    mark = turns[-1].end_mark
    assert mark is not None
    assert (prompt + response)[slice(*mark)] == chosen.end_of_turn
    assert TurnFinder(chosen).exchange("Is it 6?", reply, prompt + response) is None
    assert TurnFinder(chosen).exchange(asked, "Answer: 6", prompt + response) is None
