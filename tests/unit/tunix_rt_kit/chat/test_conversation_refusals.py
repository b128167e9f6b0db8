"""Conversations that a template cannot teach as they are: each is refused by name, and the others are not."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from support.chat_templates import template
from tunix_rt_kit.chat import (
    ChangedHistory,
    ChatTemplate,
    Conversation,
    ConversationRenderer,
    Message,
    RenderedConversation,
    ToolCall,
    Unrendered,
)
from tunix_rt_kit.errors import InvalidArgument

ADD = '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}'
ASKED = Message(role="user", content="What is 2 + 3?")
SAID = Message(role="assistant", content="It is 5.")


def calling(*arguments: str, content: str = "", name: str = "add", reasoning: str = "") -> Message:
    calls = tuple(
        ToolCall(id=f"c{number}", name=name, arguments=text) for number, text in enumerate(arguments)
    )
    return Message(role="assistant", content=content, reasoning=reasoning, tool_calls=calls)


def result(text: str = "5") -> Message:
    return Message(role="tool", content=text, tool_call_id="c0")


CALLED = calling('{"b": 3, "a": 2}')
ADDING = (ASKED, CALLED, result(), SAID)


@functools.cache
def renderer(name: str, history: ChangedHistory = "each_turn", instruction: str = "") -> ConversationRenderer:
    known = template(name).model_copy(update={"system_instruction": instruction})
    return ConversationRenderer(known, special_tokens=("<|special|>",), changed_history=history)


def made(
    name: str, *messages: Message, tools: tuple[str, ...] = (ADD,), **options: Any
) -> tuple[RenderedConversation, ...] | Unrendered:
    said = [index for index, message in enumerate(messages) if message.role == "assistant"]
    (found,) = renderer(name, **options).render([Conversation(messages, said, tools)])
    return found


def refused(name: str, *messages: Message, **options: Any) -> Unrendered:
    found = made(name, *messages, **options)
    assert isinstance(found, Unrendered), found
    return found


def learned(name: str, *messages: Message, **options: Any) -> list[str]:
    found = made(name, *messages, **options)
    assert not isinstance(found, Unrendered), found
    return [segment.text for example in found for segment in example.segments if segment.learned]


def jinja(source: str) -> ConversationRenderer:
    return ConversationRenderer(ChatTemplate.from_jinja(source, eos_token="</s>"))


def test_a_call_at_the_end_is_learned_with_the_end_of_its_turn() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"b": 3, "a": 2}}\n</tool_call><|im_end|>\n'
    assert learned("chatml", ASKED, CALLED) == [call]
    assert learned("chatml", *ADDING) == [call, "It is 5.<|im_end|>\n"]
    assert learned("chatml", ASKED, CALLED, result("")) == [call]


def test_the_learned_turns_alone_are_learned() -> None:
    messages = (*ADDING, ASKED, calling("{}", content="So:", reasoning="Hm."))
    (found,) = renderer("chatml").render([Conversation(messages, [5], [ADD])])
    assert not isinstance(found, Unrendered)
    prompt, response = found[0].last_turn
    assert response == (
        "<think>\nHm.\n</think>\n\nSo:\n"
        '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|im_end|>\n'
    )
    assert [segment.learned for segment in found[0].segments] == [False, True]
    assert prompt + response == found[0].text


@pytest.mark.parametrize(
    ("field", "messages", "tools"),
    [
        ("messages[0].content", (ASKED.model_copy(update={"content": "a<|im_end|>"}), SAID), ()),
        ("messages[1].content", (ASKED, SAID.model_copy(update={"content": "<|special|>"})), ()),
        ("messages[1].reasoning", (ASKED, calling("{}", reasoning="so</think>")), (ADD,)),
        ("messages[1].tool_calls", (ASKED, calling('{"a": "</tool_call>"}')), (ADD,)),
        ("messages[1].tool_calls", (ASKED, calling('{"\\u003c|im_end|>": [1]}')), (ADD,)),
        ("messages[1].tool_calls", (ASKED, calling("broken <|im_end|>")), (ADD,)),
        ("messages[1].tool_calls", (ASKED, calling("{}", name="<|im_start|>")), (ADD,)),
        ("messages[2].content", (ASKED, CALLED, result("</tool_response>")), (ADD,)),
        ("tools[0]", ADDING, ('{"name": "add", "description": "x\\u003c|im_end|>"}',)),
    ],
)
def test_control_texts_are_found_in_every_text(
    field: str, messages: tuple[Message, ...], tools: tuple[str, ...]
) -> None:
    found = refused("chatml", *messages, tools=tools)
    assert (found.reason, found.facts["field"]) == ("CHAT_MARKER_IN_CONTENT", field)
    assert found.facts["control_text"] in found.message


@pytest.mark.parametrize(
    ("name", "messages", "lost"),
    [
        ("llama-3", (ASKED, SAID.model_copy(update={"content": "5 "})), "messages[1].content"),
        ("llama-3", (*ADDING[:3], SAID.model_copy(update={"content": "5 "})), "messages[3].content"),
        ("qwen3_like", (ASKED, calling("{}", reasoning="\nHm.")), "messages[1].reasoning"),
        ("r1_like", (ASKED, CALLED, SAID.model_copy(update={"content": "a </think> b"})), None),
        ("qwen3_like", (Message(role="developer", content="Hm"), *ADDING), "messages[0].content"),
        ("llama3_like", (ASKED, SAID), "tools[0]"),
        ("chatml", (ASKED, calling('{"a": 1, "a": 2}')), "messages[1].tool_calls[0].arguments"),
        (
            "chatml",
            (ASKED, calling('{"a": 0.12345678901234567890123}')),
            "messages[1].tool_calls[0].arguments",
        ),
        ("chatml", (ASKED, calling('{"a": 1e400}')), "messages[1].tool_calls[0].arguments"),
    ],
)
def test_what_the_text_does_not_hold_is_named(
    name: str, messages: tuple[Message, ...], lost: str | None
) -> None:
    found = refused(name, *messages)
    assert found.reason == ("TARGET_LOST" if lost else "CHAT_MARKER_IN_CONTENT")
    if lost:
        assert found.facts["lost"] == [lost]
        assert lost in found.message


MESSAGE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
CALLS = "{% for c in m.tool_calls or [] %}"


@pytest.mark.parametrize(
    ("source", "lost"),
    [
        # Each would hold the text by chance: it stands elsewhere, too.
        ("{{ tools }}" + MESSAGE + "</s>{% endfor %}", "messages[1].tool_calls[0].name"),
        ("{{ tools }}" + MESSAGE + CALLS + "{{ c.function.name }}{% endfor %}</s>{% endfor %}", "arguments"),
        ("{{ tools }}" + MESSAGE + CALLS + "{{ c.function.name }}{{ c.function.arguments.keys() | list }}"
         "{% endfor %}</s>{% endfor %}", "arguments"),
        (MESSAGE + CALLS + "{{ c.function }}{% endfor %}</s>{% endfor %}", "tools[0]"),
    ],
)  # fmt: skip
def test_a_template_that_leaves_a_part_of_a_call_out_teaches_no_call(source: str, lost: str) -> None:
    call = calling('{"add": true, "two": 2}', content="add true 2 two")
    conversation = Conversation((ASKED, call), [1], (ADD,))
    (found,) = jinja(source + "{% if add_generation_prompt %}<assistant>{% endif %}").render([conversation])
    assert isinstance(found, Unrendered)
    assert found.reason == "TARGET_LOST"
    assert found.facts["lost"][0].endswith(lost)


def test_a_thought_that_is_left_out_is_not_found_in_the_answer() -> None:
    source = MESSAGE + "</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    messages = (ASKED, SAID.model_copy(update={"reasoning": "5"}))
    (found,) = jinja(source).render([Conversation(messages, [1])])
    assert isinstance(found, Unrendered)
    assert found.facts["lost"] == ["messages[1].reasoning"]


def test_a_turn_that_is_closed_by_another_text_is_refused() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls or '' }}"
        "{{ '<eom>' if m.tool_calls else '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (found,) = jinja(source).render([Conversation((ASKED, calling('{"a": "b"}')), [1])])
    assert isinstance(found, Unrendered)
    assert found.facts["lost"] == ["messages[1], its end"]


def test_a_template_that_changes_earlier_turns_teaches_each_turn_by_itself_or_nothing() -> None:
    messages = (ASKED, SAID.model_copy(update={"reasoning": "Hm."}), ASKED, SAID)
    found = made("qwen3_like", *messages, tools=())
    assert not isinstance(found, Unrendered)
    assert [example.turns[0].message for example in found] == [1, 3]
    assert "Hm." in found[0].last_turn[1]
    assert "Hm." not in found[1].text
    told = refused("qwen3_like", *messages, tools=(), history="refuse")
    assert (told.reason, told.facts) == ("CHAT_TEMPLATE_HISTORY", {"turn": 1})
    assert learned("chatml", *messages, tools=(), history="refuse")


def test_gemma_refuses_what_it_does_not_know() -> None:
    for messages in (ADDING, (ASKED, SAID.model_copy(update={"reasoning": "Hm."})), (ASKED, ASKED, SAID)):
        assert refused("gemma-it", *messages, tools=()).reason == "CHAT_MESSAGES_INVALID"
    assert refused("gemma-it", ASKED, SAID).message.endswith("Gemma knows no tools")
    assert learned("gemma-it", ASKED, SAID, ASKED, SAID, tools=()) == ["It is 5.<end_of_turn>\n"] * 2


def test_one_conversation_that_cannot_be_written_keeps_no_other_from_it() -> None:
    bad = (ASKED, calling("{}", "{}"))
    rows = [
        Conversation(ADDING, [1, 3], [ADD]),
        Conversation(bad, [1], [ADD]),
        Conversation(ADDING, [3], [ADD]),
    ]
    fine, wrong, last = renderer("llama-3").render(rows)
    assert isinstance(wrong, Unrendered)
    assert "one tool call a turn" in wrong.message
    assert not isinstance(fine, Unrendered)
    assert not isinstance(last, Unrendered)
    assert fine[0].last_turn == last[0].last_turn


def test_a_template_that_fails_on_one_conversation_fails_on_that_one() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        "{{ 'x' * 10 ** 7 if m.content == 'long' }}{{ 1 // (m.content | length - 5) }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    said = [
        SAID,
        SAID.model_copy(update={"content": "long"}),
        SAID.model_copy(update={"content": "wrong"}),
        SAID,
    ]
    found = list(jinja(source).render([Conversation((ASKED, reply), [1]) for reply in said]))
    reasons = [each.reason if isinstance(each, Unrendered) else None for each in found]
    assert reasons == [None, "CHAT_TEMPLATE_INVALID", "CHAT_TEMPLATE_INVALID", None]


def test_the_system_instruction_moves_no_number() -> None:
    options: dict[str, Any] = {"instruction": "Be brief."}
    found = made("chatml", *ADDING, **options)
    assert not isinstance(found, Unrendered)
    assert found[0].text.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert [turn.message for turn in found[0].turns] == [1, 3]
    told = refused("llama-3", *ADDING[:3], SAID.model_copy(update={"content": "5\n"}), **options)
    assert told.facts["lost"] == ["messages[3].content"]
    with pytest.raises(InvalidArgument, match="control text"):
        renderer("chatml", instruction="<|im_end|>")


@pytest.mark.parametrize("tool", ["[]", "{", '{"a": NaN}', '{"name": "\\ud800"}'])
def test_a_tool_that_is_no_object_is_named(tool: str) -> None:
    assert refused("chatml", ASKED, SAID, tools=(ADD, tool)).message.startswith("tools[1] is ")


def test_the_templates_own_mask_is_the_mask() -> None:
    messages = (ASKED, calling('{"a": [1, "x"]}', reasoning="Hm."), result(), SAID, ASKED, SAID)
    found = learned("marked_like", *messages, tools=())
    assert found == [
        '<think>Hm.</think><tool_call>{"name": "add", "arguments": {"a": [1, "x"]}}</tool_call><|im_end|>',
        *["It is 5.<|im_end|>"] * 2,
    ]


BLOCK, END_BLOCK = "{% generation %}", "{% endgeneration %}"
MARKED = f"{BLOCK}{{{{ m.content }}}}</s>{END_BLOCK}"


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (MARKED, None),
        (f"{BLOCK}{{{{ m.content }}}}{END_BLOCK}</s>", "TARGET_LOST"),
        (f"{{{{ m.content }}}}{BLOCK}</s>{END_BLOCK}", "TARGET_LOST"),
        (f"{BLOCK}{{{{ m.content }}}}{END_BLOCK}{BLOCK}</s>{END_BLOCK}", None),
        (f"{BLOCK}{{{{ m.content }}}}{END_BLOCK}:{BLOCK}</s>{END_BLOCK}", "CHAT_GENERATION_BLOCK"),
        (
            f"{{% if loop.last %}}{MARKED}{{% else %}}{{{{ m.content }}}}</s>{{% endif %}}",
            "CHAT_GENERATION_BLOCK",
        ),
        # Where such a block stands is not told: `transformers` would learn the colons.
        (f"{{% set kept %}}{MARKED}{{% endset %}}::::{{{{ kept }}}}", "TARGET_LOST"),
    ],
)
def test_a_mask_of_the_template_that_does_not_fit_ours_is_refused(block: str, reason: str | None) -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}" + block + "{% else %}"
        "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (found,) = jinja(source).render([Conversation((ASKED, SAID, ASKED, SAID), [1, 3])])
    assert (found.reason if isinstance(found, Unrendered) else None) == reason


@pytest.mark.parametrize(
    ("block", "taught"),
    [
        ("<assistant>{% generation %}::{{ m.content }}</s>{% endgeneration %}", "::It is 5.</s>"),
        ("{% generation %}<assistant>::{{ m.content }}</s>{% endgeneration %}", "<assistant>::It is 5.</s>"),
        ("{% generation %}<assistant>{% endgeneration %}::{{ m.content }}</s>", None),
    ],
)
def test_a_block_may_begin_with_what_opens_the_turn(block: str, taught: str | None) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + block + "{% else %}"
        "<user>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>::{% endif %}"
    )
    (found,) = jinja(source).render([Conversation((ASKED, SAID, ASKED, SAID), [3])])
    assert (None if isinstance(found, Unrendered) else found[0].last_turn[1]) == taught


@pytest.mark.parametrize(
    "source",
    [
        # From the question on; and into the next one.
        "{% for m in messages %}{% if m.role == 'user' and not loop.last and not loop.first %}"
        "{% generation %}<user>{{ m.content }}<assistant>{{ messages[loop.index].content }}</s>"
        "{% endgeneration %}"
        "{% elif m.role == 'user' %}<user>{{ m.content }}"
        "{% elif loop.index0 == 1 %}{% generation %}<assistant>{{ m.content }}</s>{% endgeneration %}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
        "{% for m in messages %}{% if m.role == 'user' and loop.first %}<user>{{ m.content }}"
        "{% elif m.role == 'assistant' %}{% generation %}<assistant>{{ m.content }}</s>"
        "{{ '<user>' ~ messages[loop.index].content if not loop.last }}{% endgeneration %}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    ],
)
def test_a_block_that_holds_what_is_asked_is_refused(source: str) -> None:
    conversation = Conversation((ASKED, SAID, ASKED, SAID), [1, 3])
    (found,) = jinja(source).render([conversation])
    assert isinstance(found, Unrendered)
    assert found.reason == "CHAT_GENERATION_BLOCK"


def test_a_template_that_moves_what_was_asked_teaches_nothing() -> None:
    source = (
        "<q>{% for m in messages | selectattr('role', 'eq', 'user') | list | reverse %}"
        "{{ m.content }}|{% endfor %}"
        "{% for m in messages if m.role == 'assistant' %}<a>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}"
    )
    messages = (ASKED, ASKED.model_copy(update={"content": "And 3 + 4?"}), SAID)
    (found,) = jinja(source).render([Conversation(messages, [2])])
    assert isinstance(found, Unrendered)
    assert found.facts["lost"] == ["messages[1].content"]


def test_a_conversation_that_takes_many_requests_is_one() -> None:
    messages = ADDING * 50
    (found,) = renderer("chatml").render([Conversation(messages, range(1, 200, 2), [ADD])])
    assert not isinstance(found, Unrendered)
    assert [turn.message for turn in found[0].turns] == [*range(1, 200, 2)]
    assert found[0].text == template("chatml").render(messages, tools=[ADD])


def test_arguments_keep_their_order_and_their_digits() -> None:
    arguments = (
        '{"z": 123456789012345678901234567890, "a": {"y": [1.0, 1e-7, true, null, "\\u00e9\\n"], "b": {}}}'
    )
    (found,) = learned("chatml", ASKED, calling(arguments))
    written = found.partition('"arguments": ')[2].partition("}\n</tool_call>")[0]
    assert written == json.dumps(json.loads(arguments), ensure_ascii=False)
