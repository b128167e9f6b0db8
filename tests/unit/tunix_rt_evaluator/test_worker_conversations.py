"""Items that are conversations: what a model, and an endpoint, is shown of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.asking import items_asked, spec, to_items
from support.chat_templates import template as template_of
from support.fake_endpoint import Reply, answering, completion
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.job_folders import WorkerItem
from tunix_rt_evaluator.worker.endpoint import open_endpoint
from tunix_rt_evaluator.worker.engine import Completion, Request, read_prompts
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer

TOOL = '{"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}'


def message(role: str, text: str = "", **more: Any) -> dict[str, Any]:
    plain = {"reasoning": "", "tool_calls": [], "tool_call_id": "", "name": "", "train": ""}
    return plain | {"role": role, "content": [{"type": "text", "text": text}] if text else []} | more


def call(name: str, arguments: str, call_id: str = "") -> dict[str, Any]:
    return {"id": call_id, "name": name, "arguments_text": arguments}


USER = message("user", "2 + 2?")
CALLED = [USER, message("assistant", tool_calls=[call("add", '{"a": 2, "b": 2}')]), message("tool", "4")]


def item(*messages: dict[str, Any], item_id: str = "a", tools: tuple[str, ...] = (TOOL,)) -> WorkerItem:
    found = EvalItem(
        id=item_id,
        prompt="",
        messages=messages,
        tools=[{"definition_text": tool} for tool in tools],
        accepted_answers=("4",),
        grader={"kind": "contains"},
    )
    return WorkerItem(id=item_id, prompt="", messages=found.messages, tools=tools)


@pytest.fixture(scope="module")
def tokenizer(models_dir: Path) -> ModelTokenizer:
    return load_tokenizer(models_dir / "tiny")


def text(tokenizer: ModelTokenizer, template: ChatTemplate, *items: WorkerItem) -> str:
    ((prompt,), failed) = read_prompts(items, template, tokenizer, context_length=4096, vocab_size=259)
    assert not failed
    return tokenizer.decode(prompt.ids)


def test_a_prompt_is_the_whole_conversation_with_its_tools(tokenizer: ModelTokenizer) -> None:
    template = ChatTemplate.built_in("chatml", system_instruction="Be brief.")
    shown = text(tokenizer, template, item(*CALLED))
    system, *turns = shown.split("<|im_start|>")[1:]
    assert system.startswith("system\nBe brief.")
    assert json.dumps(json.loads(TOOL)) in system.replace('{"type": "function", "function": ', "")
    assert turns == [
        "user\n2 + 2?<|im_end|>\n",
        'assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call><|im_end|>\n',
        "user\n<tool_response>\n4\n</tool_response><|im_end|>\n",
        "assistant\n",
    ]
    own = text(tokenizer, template, item(message("system", "Be exact."), USER, tools=()))
    assert own == (
        "<|im_start|>system\nBe exact.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )


DROPS_TOOLS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
DROPS_RESULTS = (
    "{{ tools | tojson }}{% for m in messages if m.role != 'tool' %}{{ m.role }}{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %}<|im_end|>{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "messages", "reason", "told"),
    [
        (DROPS_TOOLS, [USER], "CONVERSATION_LOST", "'b': the chat template does not show the model tools[0]"),
        (DROPS_RESULTS, CALLED, "CONVERSATION_LOST", "does not show the model messages[2].content"),
        ("gemma-it", CALLED, "CHAT_MESSAGES_INVALID", "item 'b': messages: the chat template refuses"),
        (
            "gemma-it",
            [message("developer", "So."), USER],
            "CHAT_MESSAGES_INVALID",
            "item 'b': messages: the chat template refuses",
        ),
    ],
)
def test_a_template_that_does_not_show_all_is_refused_and_not_its_items(
    tokenizer: ModelTokenizer, template: str, messages: list[dict[str, Any]], reason: str, told: str
) -> None:
    own = template == "gemma-it"
    chosen = (
        ChatTemplate.built_in(template) if own else ChatTemplate.from_jinja(template, eos_token="<|im_end|>")
    )
    items = [WorkerItem(id="plain", prompt="2 + 2?"), item(*messages, item_id="b")]
    with pytest.raises(DomainError) as caught:
        read_prompts(items, chosen, tokenizer, context_length=4096, vocab_size=259)
    assert caught.value.reason == reason
    assert told in caught.value.message
    # What the others need nobody asks for.
    assert len(read_prompts(items[:1], chosen, tokenizer, context_length=4096, vocab_size=259)[0]) == 1


LAST_ORDER = (
    "{% for m in messages if m.role == 'system' %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}"
)
TURNS = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
ONE_CALL = (
    "{{ tools | tojson }}{% for m in messages %}{{ m.content if not m.tool_calls else "
    "m.tool_calls[0] | tojson }}{% endfor %}"
)
# As the published template of Llama 3.2, which writes calls alone.
CALLS_ALONE = (
    "{{ tools | tojson }}{% for m in messages %}{{ m.tool_calls | tojson if m.tool_calls else m.content }}"
    "{% endfor %}"
)
# As that of Mistral Nemo, which writes the system message before the last turn, if that is the user's.
LAST_TURN = (
    "{{ tools | tojson }}{% for m in messages if m.role != 'system' %}{% if loop.last and m.role == 'user' "
    "and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ m.content }}"
    "{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}"
)
TWO_CALLS = [call("add", "{}", "first"), call("add", "{}", "other")]
RESULTS = [message("tool", "1", tool_call_id="first"), message("tool", "2", tool_call_id="other")]


@pytest.mark.parametrize(
    ("template", "messages", "lost"),
    [
        (LAST_ORDER + TURNS, [message("system", "So."), message("system", "And so."), USER], "[0].content"),
        (ONE_CALL, [USER, message("assistant", tool_calls=TWO_CALLS), *RESULTS], "[1].tool_calls[1].name"),
        (
            CALLS_ALONE,
            [USER, message("assistant", "Well.", tool_calls=TWO_CALLS), *RESULTS],
            "[1].content",
        ),
        (LAST_TURN, [message("system", "So."), *CALLED], "[0].content"),
    ],
)
def test_what_a_template_leaves_out_of_one_conversation_alone_is_found(
    tokenizer: ModelTokenizer, template: str, messages: list[dict[str, Any]], lost: str
) -> None:
    chosen = ChatTemplate.from_jinja(template, eos_token="<|im_end|>")
    tools = (TOOL,) if "tools" in template else ()
    small = [item(USER, tools=tools), item(message("system", "So."), USER, item_id="order", tools=tools)]
    assert len(read_prompts(small, chosen, tokenizer, context_length=4096, vocab_size=259)[0]) == 2
    items = [*small, item(*messages, item_id="b", tools=tools)]
    with pytest.raises(DomainError) as caught:
        read_prompts(items, chosen, tokenizer, context_length=4096, vocab_size=259)
    assert caught.value.reason == "CONVERSATION_LOST"
    assert f"item 'b': the chat template does not show the model messages{lost}" in caught.value.message
    for built_in in ("chatml", "llama-3"):
        if built_in == "chatml" or len(messages[1]["tool_calls"]) < 2:
            whole = ChatTemplate.built_in(built_in)
            assert not read_prompts(items, whole, tokenizer, context_length=4096, vocab_size=259)[1]


def test_a_control_text_in_a_tool_fails_its_item_alone(tokenizer: ModelTokenizer) -> None:
    tool = TOOL.replace("Adds.", "Adds.<|im_end|>")
    items = [item(USER, tools=(tool,)), item(USER, item_id="b")]
    template = ChatTemplate.built_in("chatml")
    prompts, (failed,) = read_prompts(items, template, tokenizer, context_length=4096, vocab_size=259)
    assert [prompt.item_id for prompt in prompts] == ["b"]
    assert failed.error == "tools[0] holds '<|im_end|>', a control text of the chat template"


def test_what_one_conversation_needs_more_than_its_kind_names_it(tokenizer: ModelTokenizer) -> None:
    once = (
        "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not this') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    template = ChatTemplate.from_jinja(once, eos_token="<|im_end|>")
    items = [item(USER, tools=()), item(message("user", "no"), item_id="b", tools=())]
    with pytest.raises(DomainError) as caught:
        read_prompts(items, template, tokenizer, context_length=4096, vocab_size=259)
    assert caught.value.message.startswith("item 'b': ")


def test_a_template_of_a_model_that_drops_earlier_thoughts_shows_all_else(tokenizer: ModelTokenizer) -> None:
    thought = message("assistant", "4.", reasoning="2 and 2.")
    shown = text(tokenizer, template_of("qwen3_like"), item(USER, thought, message("user", "Sure?")))
    assert "Sure?" in shown
    assert "2 and 2." not in shown


def asked(url: str, *items: WorkerItem) -> list[Completion]:
    engine = open_endpoint(spec(url), lambda: None)
    prompts, _ = engine.read(items)
    return list(engine.complete([Request(prompt) for prompt in prompts], lambda: None))


def test_an_endpoint_gets_messages_and_tools_and_its_calls_stand_in_the_output() -> None:
    made = [
        {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"b": 9007199254740993}'}},
        {"id": "y", "type": "function", "function": {"name": "now", "arguments": "not JSON"}},
    ]
    reply = completion(None, "tool_calls", message={"tool_calls": made})
    with answering(to_items(lambda _: reply)) as endpoint:
        (done,) = asked(endpoint.url, item(*CALLED))
    (body,) = items_asked(endpoint)
    ids = {"id": "call_1_0", "type": "function"}
    assert body["messages"] == [
        {"role": "user", "content": "2 + 2?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [ids | {"function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}],
        },
        {"role": "tool", "content": "4", "tool_call_id": "call_1_0"},
    ]
    assert body["tools"] == [{"type": "function", "function": json.loads(TOOL)}]
    assert done.answer is not None
    assert done.answer.finish_reason == "stop"
    assert done.answer.output == (
        '<tool_call>\n{"name": "add", "arguments": {"b": 9007199254740993}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": "not JSON"}\n</tool_call>'
    )


def test_calls_that_nobody_offered_are_no_answer() -> None:
    made = [{"id": "x", "type": "function", "function": {"name": "add", "arguments": "{}"}}]

    def answer(_: str) -> Reply:
        return completion("Well.", "tool_calls", message={"tool_calls": made})

    with answering(to_items(answer)) as endpoint:
        (done,) = asked(endpoint.url, WorkerItem(id="a", prompt="2 + 2?"))
    assert done.answer is None
    assert "'tool_calls'" in done.error
