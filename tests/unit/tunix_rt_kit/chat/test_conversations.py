# ruff: noqa: RUF001  (some models mark turns with full-width characters)
"""What a model learns of a conversation: written as by `transformers`, and nothing but what it should say."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from support.arbitrary_conversations import Made, made
from support.chat_templates import template
from tunix_rt_kit.chat import ConversationRenderer, RenderedConversation, Unrendered
from tunix_rt_kit.loss_mask import ExampleEncoder, TextExample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

COUNT = int(os.environ.get("TUNIX_RT_CONVERSATIONS", "60"))
"""Conversations of each kind for each template; 5,000 take some minutes."""
TURNS = {
    "chatml": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>\n)",
    "qwen3_like": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>\n)",
    "llama-3": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    "r1_like": r"(?:<｜Assistant｜>|<｜tool▁output▁end｜>(?!<｜tool▁output▁begin｜>|<｜User｜>))"
    r"(.*?<｜end▁of▁sentence｜>)",
}
"""Where an assistant's turn stands in a text, as a reader finds it."""
HERMES = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>")
CONTROL = {
    "chatml": (("<|im_start|>", "<|im_end|>"), HERMES),
    "qwen3_like": (("<|im_start|>", "<|im_end|>", "<think>", "</think>"), HERMES),
    "llama-3": (("<|eot_id|>", "<|start_header_id|>"), ("<think>", "</think>")),
    "r1_like": (
        ("<｜end▁of▁sentence｜>", "<｜User｜>"),
        ("<｜tool▁calls▁begin｜>", "<think>", "</think>"),
    ),
}
"""Texts that no conversation may hold, and those that only one of plain texts may."""
SPECIAL = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "qwen3_like": ("<|im_start|>", "<|im_end|>"),
    "llama-3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "r1_like": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    "marked_like": ("<|im_start|>", "<|im_end|>"),
}


class TrainedTokenizer:
    """A byte-level tokenizer with some merges, which knows the special tokens of a template."""

    def __init__(self, name: str) -> None:
        self.inner = Tokenizer(models.BPE())
        self.inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.inner.decoder = decoders.ByteLevel()
        learned_from = [text for number in range(40) for text in made(number, hostile=False).texts()]
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(SPECIAL[name]),
            show_progress=False,
        )
        self.inner.train_from_iterator([*learned_from, "assistant\n\n<think>\n\n</think>"], trainer)

    @property
    def special_tokens(self) -> Mapping[int, str]:
        return {id: token.content for id, token in self.inner.get_added_tokens_decoder().items()}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.inner.encode_batch(list(texts), add_special_tokens=False)]

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        return self.inner.decode_batch([list(ids) for ids in sequences], skip_special_tokens=False)


@functools.cache
def tokenizer_of(name: str) -> TrainedTokenizer:
    return TrainedTokenizer(name)


@functools.cache
def by_transformers(name: str) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    known = template(name)
    tokens = {"eos_token": known.end_of_turn, "bos_token": known.start_of_text}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer_of(name).inner,
        chat_template=known.jinja_source(),
        **{key: text for key, text in tokens.items() if text},
    )


def written(name: str, given: Made, count: int, opened: bool = False) -> str:
    text = by_transformers(name).apply_chat_template(
        given.messages[:count], tools=given.tools or None, tokenize=False, add_generation_prompt=opened
    )
    assert isinstance(text, str)
    return text


def rendered(name: str, given: Sequence[Made]) -> list[tuple[RenderedConversation, ...] | Unrendered]:
    return list(ConversationRenderer(template(name)).render([each.conversation for each in given]))


def turns_read(name: str, text: str) -> list[tuple[int, int]]:
    return [match.span(1) for match in re.finditer(TURNS[name], text, re.DOTALL)]


def check_examples(name: str, given: Made, examples: tuple[RenderedConversation, ...]) -> None:
    """The text is that of `transformers`, and what is learned are whole turns, read from the text."""
    said = _said(given)
    whole = len(given.messages)
    if len(examples) == 1 and examples[0].text == written(name, given, whole):
        (example,) = examples
        read = turns_read(name, example.text)
        assert len(read) == len(said)
        expected = [(turn, *read[said.index(turn)]) for turn in given.learned]
        assert [(turn.message, turn.start, turn.end) for turn in example.turns] == expected
    else:
        assert [turn.message for example in examples for turn in example.turns] == given.learned
        for example in examples:
            (turn,) = example.turns
            assert example.text == written(name, given, turn.message + 1)
            assert example.last_turn[0] == written(name, given, turn.message, opened=True)
            assert (turn.start, turn.end) == turns_read(name, example.text)[-1]
    for example in examples:
        assert "".join(segment.text for segment in example.segments) == example.text
        for turn in example.turns:
            taught = example.text[turn.start : turn.end]
            assert taught.count(template(name).end_of_turn) == 1
            for text in spoken(given.messages[turn.message]):
                assert text in taught


def spoken(message: Mapping[str, Any]) -> list[str]:
    """What must stand in a turn: its text, its thoughts and its calls."""
    calls = [call["function"] for call in message.get("tool_calls", ())]
    arguments = [call["arguments"] for call in calls]
    return [
        message["content"],
        message.get("reasoning_content", ""),
        *(call["name"] for call in calls),
        *(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) for given in arguments),
    ]


def takes(name: str, given: Made) -> bool:
    """Whether a template can write the conversation, its texts aside."""
    if name == "llama-3":
        return all(len(message.get("tool_calls", ())) <= 1 for message in given.messages)
    if name == "qwen3_like" and any(
        given.messages[turn - 1]["role"] == "assistant"
        and "reasoning_content" not in given.messages[turn - 1]
        for turn in given.learned
    ):
        # What it asks with depends on which turn is the last.
        return False
    return name == "chatml" or given.messages[0]["role"] != "developer"


@pytest.mark.parametrize("name", TURNS)
def test_what_is_learned_is_what_transformers_writes_of_the_turns(name: str) -> None:
    given = [made(number, hostile=False) for number in range(COUNT)]
    each_turn = 0
    for row, examples in zip(given, rendered(name, given), strict=True):
        if isinstance(examples, Unrendered):
            assert not takes(name, row), examples
            continue
        check_examples(name, row, examples)
        each_turn += len(examples) > 1
    assert (each_turn > 0) == (name in ("qwen3_like", "r1_like"))
    assert sum(takes(name, row) for row in given) > COUNT // 3


@pytest.mark.parametrize("name", TURNS)
def test_hostile_texts_are_learned_as_they_are_or_refused(name: str) -> None:
    given = [made(number, hostile=True) for number in range(COUNT)]
    taken = 0
    for row, examples in zip(given, rendered(name, given), strict=True):
        never, beside_plain = CONTROL[name]
        controls = never if row.is_plain else (*never, *beside_plain)
        held = any(control in text for control in controls for text in row.texts())
        if isinstance(examples, Unrendered):
            # ChatML changes no text.
            assert name != "chatml" or held or row.is_blank, examples
            assert not held or examples.reason == "CHAT_MARKER_IN_CONTENT"
        else:
            assert not (held or row.is_blank)
            check_examples(name, row, examples)
            taken += 1
    assert taken > COUNT // 10


@pytest.mark.parametrize("name", TURNS)
def test_the_mask_is_the_one_that_places_in_the_whole_text_give(name: str) -> None:
    tokenizer = tokenizer_of(name)
    encoder = ExampleEncoder(tokenizer, template(name).frame)
    end_id = tokenizer.inner.token_to_id(template(name).end_of_turn)
    given = [made(number, hostile=number % 2 == 1) for number in range(COUNT)]
    examples = [each for row in rendered(name, given) if not isinstance(row, Unrendered) for each in row]
    rows = encoder.encode(
        [
            TextExample(str(number), each.segments, of_conversation=True)
            for number, each in enumerate(examples)
        ]
    )
    same = 0
    for example, row in zip(examples, rows, strict=True):
        assert row.fault is None
        assert row.ends_learned(end_id)
        assert [row.ids[first:behind].count(end_id) for first, behind in row.learned] == [1] * len(
            example.turns
        )
        whole = tokenizer.inner.encode(example.text, add_special_tokens=False)
        inside = [[turn.start <= a and b <= turn.end for turn in example.turns] for a, b in whole.offsets]
        touching = [[a < turn.end and turn.start < b for turn in example.turns] for a, b in whole.offsets]
        if inside != touching:
            continue
        learned = [index for index, turns in enumerate(inside) if any(turns)]
        ours = [index for first, behind in row.learned for index in range(first, behind)]
        assert [whole.ids[index] for index in learned] == [row.ids[index] for index in ours]
        assert learned == ours
        same += 1
    assert same > len(examples) * 3 // 4


def test_the_mask_of_a_template_that_has_one_is_that_of_transformers() -> None:
    name = "marked_like"
    tokenizer = tokenizer_of(name)
    encoder = ExampleEncoder(tokenizer, template(name).frame)
    given = [made(number, hostile=False) for number in range(COUNT // 2)]
    given = [Made(row.messages, [], _said(row)) for row in given]
    compared = 0
    for row, examples in zip(given, rendered(name, given), strict=True):
        assert not isinstance(examples, Unrendered), examples
        (found,) = encoder.encode([TextExample("row", examples[0].segments, of_conversation=True)])
        ours = {index for first, behind in found.learned for index in range(first, behind)}
        theirs = by_transformers(name).apply_chat_template(
            row.messages, return_assistant_tokens_mask=True, return_dict=True
        )
        if list(found.ids) == theirs["input_ids"]:
            assert [index in ours for index in range(len(found.ids))] == [
                *map(bool, theirs["assistant_masks"])
            ]
            compared += 1
    assert compared > len(given) // 2


def _said(given: Made) -> list[int]:
    return [index for index, message in enumerate(given.messages) if message["role"] == "assistant"]
