"""Templates against `transformers`, and what must hold of every template."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from support.reading_turns import read_turns
from tunix_rt_kit.chat import BUILTIN_NAMES, ChatTemplate, Message, Role, trace_messages
from tunix_rt_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BUILT_IN = {name: ChatTemplate.built_in(name) for name in BUILTIN_NAMES}
SMOLLM2_SOURCE = (Path(__file__).parent / "templates" / "smollm2.jinja").read_text()
SOURCES = {"smollm2": SMOLLM2_SOURCE, **{name: entry.jinja_source() for name, entry in BUILT_IN.items()}}
TOKENS = {
    "smollm2": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
    **{
        name: {"bos_token": entry.start_of_text or entry.markers[0], "eos_token": entry.end_of_turn}
        for name, entry in BUILT_IN.items()
    },
}
SMOLLM2 = ChatTemplate.from_jinja(SOURCES["smollm2"], **TOKENS["smollm2"])
GEMMA_JINJA = ChatTemplate.from_jinja(SOURCES["gemma-it"], **TOKENS["gemma-it"])
LLAMA3_JINJA = ChatTemplate.from_jinja(SOURCES["llama-3"], **TOKENS["llama-3"])
GEMMA = ChatTemplate.built_in("gemma-it")
CHATML = ChatTemplate.built_in("chatml")
LLAMA3 = ChatTemplate.built_in("llama-3")
TEMPLATES = {
    "smollm2": SMOLLM2,
    "gemma-jinja": GEMMA_JINJA,
    "llama3-jinja": LLAMA3_JINJA,
    "gemma-it": GEMMA,
    "chatml": CHATML,
    "llama-3": LLAMA3,
}
SOURCE_OF = {
    "smollm2": "smollm2",
    "gemma-jinja": "gemma-it",
    "llama3-jinja": "llama-3",
    "gemma-it": "gemma-it",
    "chatml": "chatml",
    "llama-3": "llama-3",
}
TRIMMING = {"gemma-jinja", "gemma-it", "llama3-jinja", "llama-3"}
FOLDING = {"gemma-jinja", "gemma-it"}

MARKERS = sorted({marker for template in TEMPLATES.values() for marker in template.markers})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(
    lambda text: not any(marker in text for marker in MARKERS)
)


@functools.cache
def transformers_tokenizer(source: str) -> PreTrainedTokenizerFast:
    return tokenizer_with(SOURCES[source], TOKENS[source])


def tokenizer_with(jinja: str, tokens: dict[str, str]) -> PreTrainedTokenizerFast:
    # A second, which each process that collects the tests would take.
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
        chat_template=jinja,
        **tokens,
    )


@st.composite
def conversations(draw: st.DrawFn, *, ends_with: Role | None = None) -> list[Message]:
    roles: list[Role] = ["user", "assistant"] * draw(st.integers(1, 3))
    if ends_with == "user" or (ends_with is None and draw(st.booleans())):
        roles.pop()
    system: list[Role] = ["system"] if draw(st.booleans()) else []
    return [Message(role=role, content=draw(TEXTS)) for role in [*system, *roles]]


def texts_by_transformers(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], opened: bool
) -> object:
    return tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], tokenize=False, add_generation_prompt=opened
    )


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=conversations(), opened=st.booleans())
@settings(max_examples=60, deadline=None)
def test_text_equals_transformers(name: str, messages: list[Message], opened: bool) -> None:
    expected = texts_by_transformers(transformers_tokenizer(SOURCE_OF[name]), messages, opened)
    assert TEMPLATES[name].render(messages, opened) == expected


@pytest.mark.parametrize("name", ["smollm2", "gemma-it", "chatml", "llama-3"])
@given(messages=conversations(), opened=st.booleans(), instruction=TEXTS.filter(bool))
@settings(max_examples=40, deadline=None)
def test_the_jinja_source_knows_the_system_instruction(
    name: str, messages: list[Message], opened: bool, instruction: str
) -> None:
    template = TEMPLATES[name].model_copy(update={"system_instruction": instruction})
    tokenizer = tokenizer_with(template.jinja_source(), TOKENS[SOURCE_OF[name]])
    assert texts_by_transformers(tokenizer, messages, opened) == template.render(messages, opened)


@pytest.mark.parametrize("system_instruction", ["", " Think. \ue000 \n"])
@pytest.mark.parametrize("name", TEMPLATES)
@given(asked=TEXTS, reply=TEXTS)
@settings(max_examples=30, deadline=None)
def test_turns_are_split_as_conversations_are(
    name: str, system_instruction: str, asked: str, reply: str
) -> None:
    template = ChatTemplate(**{**TEMPLATES[name].model_dump(), "system_instruction": system_instruction})
    turns = [(asked, reply), (reply, asked)]
    conversations = [
        (Message(role="user", content=user), Message(role="assistant", content=model))
        for user, model in turns
    ]
    assert template.split_turns(turns) == template.split_examples(conversations)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_turns_that_hold_a_control_text_are_refused(name: str, place: int) -> None:
    template = ChatTemplate.built_in(name)
    turn = ["6 * 7?", "42"]
    turn[place] += template.end_of_turn
    with pytest.raises(InvalidArgument) as caught:
        template.split_turns([("6 * 7?", "42"), (turn[0], turn[1])])
    assert caught.value.reason == "CHAT_MARKER_IN_CONTENT"
    assert caught.value.metadata["message"] == str(place)


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=conversations(ends_with="assistant"))
@settings(max_examples=40, deadline=None)
def test_an_example_is_its_prompt_and_its_response(name: str, messages: list[Message]) -> None:
    template = TEMPLATES[name]
    prompt, response = template.split_example(messages)
    assert prompt == template.render(messages[:-1], add_generation_prompt=True)
    assert prompt + response == template.render(messages)
    assert response.rstrip("\n").endswith(template.end_of_turn)
    assert response.count(template.end_of_turn) == 1


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=conversations(ends_with="user"), reply=TEXTS)
@settings(max_examples=40, deadline=None)
def test_another_turn_extends_the_text(name: str, messages: list[Message], reply: str) -> None:
    template = TEMPLATES[name]
    longer = [*messages, Message(role="assistant", content=reply)]
    assert template.render(longer).startswith(template.render(messages))


def as_written(name: str, messages: Sequence[Message]) -> list[Message]:
    """What a template's text still tells of a conversation."""
    turns = [
        Message(role=message.role, content=message.content.strip() if name in TRIMMING else message.content)
        for message in messages
    ]
    if name in FOLDING and turns[0].role == "system":
        folded = f"{messages[0].content}\n\n{turns[1].content}"
        return [Message(role="user", content=folded), *turns[2:]]
    return turns


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=conversations(), opened=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_turns_can_be_read_back(name: str, messages: list[Message], opened: bool) -> None:
    template = TEMPLATES[name]
    assert read_turns(template, template.render(messages, opened)) == as_written(name, messages)


def test_what_a_template_adds_by_itself_is_not_a_turn() -> None:
    template = ChatTemplate.built_in("llama-3", system_instruction="Be brief.")
    question = Message(role="user", content="Why?")
    assert read_turns(template, template.render([question], add_generation_prompt=True)) == [question]
    own = [Message(role="system", content="Be long."), question]
    assert read_turns(template, template.render(own)) == own
    assert read_turns(LLAMA3, template.render([question])) == [
        Message(role="system", content="Be brief."),
        question,
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at character 0 no turn of the chat template begins: ''"),
        ("<|im_start|>user\nHi", "at character 17 the turn of 'user' does not end"),
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>tool\nx", "at character 30 no turn"),
    ],
)
def test_a_text_that_no_conversation_gives(text: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match="text: ") as caught:
        read_turns(CHATML, text)
    assert problem in caught.value.message
    assert caught.value.reason == "CHAT_TEXT_INVALID"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_known_templates_pass_their_check(template: ChatTemplate) -> None:
    template.check()


def test_many_examples_at_once_equal_one_at_a_time() -> None:
    traces = [trace_messages(f"{n} + 1?", [f"{n} + 1 = {n + 1}"], str(n + 1)) for n in range(20)]
    assert SMOLLM2.split_examples(traces) == [SMOLLM2.split_example(trace) for trace in traces]


def test_the_system_instruction_goes_first_unless_the_conversation_has_its_own() -> None:
    template = ChatTemplate.built_in("chatml", system_instruction="Be brief.")
    question = Message(role="user", content="Why?")
    own = Message(role="system", content="Be long.")
    assert template.render([question]).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert template.render([own, question]) == CHATML.render([own, question])
    assert template.render([question]) != CHATML.render([question])


def test_digest_names_everything_that_changes_the_text() -> None:
    variants = [
        *(ChatTemplate.built_in(name) for name in BUILTIN_NAMES),
        ChatTemplate.built_in("chatml", system_instruction="Be brief."),
        SMOLLM2,
        SMOLLM2.model_copy(update={"bos_token": ""}),
        SMOLLM2.model_copy(update={"eos_token": "</s>"}),
        SMOLLM2.model_copy(update={"jinja": SOURCES["chatml"]}),
    ]
    digests = [ChatTemplate.model_validate(variant.model_dump()).digest for variant in variants]
    assert len(set(digests)) == len(variants)
    assert ChatTemplate.model_validate_json(SMOLLM2.model_dump_json()).digest == SMOLLM2.digest


def test_built_in_digests_stay() -> None:
    """They stand in the manifests of datasets and checkpoints; a changed text needs another revision."""
    assert {name: ChatTemplate.built_in(name).digest for name in BUILTIN_NAMES} == {
        "gemma-it": "sha256:825405540b456bf05414077ff93f2d5ccc2dd70f14610160b4f3953fbe88478a",
        "chatml": "sha256:8bc8ae0e29c7792e152814f50b97c31a5414188d26b4607c4b390db9b09c4643",
        "llama-3": "sha256:6855b9e4575b61f0c675b0c42aedef802db279910798d36d7a2c1c70ebe997a6",
    }


def test_markers_are_what_a_tokenizer_must_know() -> None:
    assert GEMMA.markers == ("<bos>", "<start_of_turn>", "<end_of_turn>")
    assert LLAMA3.markers == ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    assert CHATML.markers == SMOLLM2.markers == ("<|im_start|>", "<|im_end|>")
    assert ChatTemplate.from_jinja("{{ messages }}", eos_token="</s>").markers == ("</s>",)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_text_that_would_close_its_own_turn_is_refused(template: ChatTemplate) -> None:
    attack = [Message(role="user", content=f"Hi{template.end_of_turn}")]
    with pytest.raises(InvalidArgument, match=r"messages\[0\]\.content holds") as caught:
        template.render(attack)
    assert caught.value.reason == "CHAT_MARKER_IN_CONTENT"


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["user", "system"], ["system"]])
@pytest.mark.parametrize("template", [GEMMA, GEMMA_JINJA], ids=["gemma-it", "gemma-jinja"])
def test_gemma_wants_roles_in_turn(template: ChatTemplate, roles: list[Role]) -> None:
    if template is GEMMA_JINJA and roles == ["system"]:
        roles = ["system", "assistant"]
    with pytest.raises(InvalidArgument, match="messages") as caught:
        template.render([Message(role=role, content="x") for role in roles])
    assert caught.value.reason == "CHAT_MESSAGES_INVALID"


@pytest.mark.parametrize("messages", [[], [Message(role="user", content="x")]], ids=["none", "no-reply"])
def test_an_example_ends_with_the_assistant(messages: list[Message]) -> None:
    with pytest.raises(InvalidArgument, match="last message") as caught:
        CHATML.split_example(messages)
    assert caught.value.reason == "CHAT_MESSAGES_INVALID"


def test_no_message_at_all() -> None:
    with pytest.raises(InvalidArgument, match="at least one message"):
        CHATML.render([])


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    source = "{{ messages | length }}{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    with pytest.raises(InvalidArgument, match="does not begin with its generation prompt") as caught:
        ChatTemplate.from_jinja(source, eos_token="</s>").check()
    assert caught.value.reason == "CHAT_TEMPLATE_PREFIX"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% for m in messages %}{{ m.role }}</s>{% endfor %}", "drops the text"),
        ("{% for m in messages %}{{ m.content }}<end>{% endfor %}", "does not close the model's turn"),
    ],
)
def test_check_names_what_is_wrong(source: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as caught:
        ChatTemplate.from_jinja(source, eos_token="</s>").check()
    assert caught.value.reason == "CHAT_TEMPLATE_INVALID"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "exactly one of builtin and jinja"),
        ({"builtin": "chatml", "jinja": "x", "eos_token": "</s>"}, "exactly one"),
        ({"builtin": "chatml", "eos_token": "</s>"}, "takes no bos_token"),
        ({"jinja": " \n", "eos_token": "</s>"}, "jinja is empty"),
        ({"jinja": "{{ messages }}"}, "eos_token is empty"),
        ({"builtin": "chatml", "system_instruction": "x" * 20_001}, "20001 characters; at most 20000"),
    ],
)
def test_fields_that_do_not_fit_together(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as caught:
        ChatTemplate.model_validate(fields)
    assert caught.value.reason == "CHAT_TEMPLATE_INVALID"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"'gemma'; one of gemma-it, chatml, llama-3") as caught:
        ChatTemplate.built_in("gemma")
    assert caught.value.reason == "CHAT_TEMPLATE_UNKNOWN"
