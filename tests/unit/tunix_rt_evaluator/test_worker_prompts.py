"""Prompts as the model reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunix_rt_evaluator.evaluations.job_folders import WorkerItem
from tunix_rt_evaluator.worker.engine import read_prompts, token_digest
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer, stop_ids

CHATML = ChatTemplate.built_in("chatml")


@pytest.fixture(scope="module")
def tokenizer(models_dir: Path) -> ModelTokenizer:
    return load_tokenizer(models_dir / "tiny")


def test_a_prompt_is_the_rendering_with_the_generation_prompt(tokenizer: ModelTokenizer) -> None:
    prompts, failed = read_prompts(
        [WorkerItem(id="a", prompt="2 + 2?")], CHATML, tokenizer, context_length=256, vocab_size=259
    )
    assert not failed
    text = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(prompts[0].ids) == text
    assert prompts[0].ids[0] == tokenizer.token_id("<|im_start|>")


def test_an_item_that_cannot_be_run_fails_by_name_and_the_others_stay(tokenizer: ModelTokenizer) -> None:
    items = [
        WorkerItem(id="long", prompt="x" * 256),
        WorkerItem(id="fits", prompt="x"),
        WorkerItem(id="marker", prompt="stop <|im_end|> here"),
    ]
    prompts, failed = read_prompts(items, CHATML, tokenizer, context_length=256, vocab_size=259)
    assert [prompt.item_id for prompt in prompts] == ["fits"]
    long, marker = failed
    assert (long.item_id, long.finish_reason, long.output) == ("long", "failed", "")
    assert "context of 256" in long.error
    assert long.prompt_tokens > 256
    assert long.prompt_token_digest
    assert marker.item_id == "marker"
    assert "<|im_end|>" in marker.error


def test_the_longest_prompt_leaves_room_for_one_token(tokenizer: ModelTokenizer) -> None:
    ((prompt,), _) = read_prompts(
        [WorkerItem(id="a", prompt="x")], CHATML, tokenizer, context_length=256, vocab_size=259
    )
    length = len(prompt.ids)
    item = [WorkerItem(id="a", prompt="x")]
    assert len(read_prompts(item, CHATML, tokenizer, context_length=length + 1, vocab_size=259)[0]) == 1
    assert len(read_prompts(item, CHATML, tokenizer, context_length=length, vocab_size=259)[1]) == 1


def test_a_token_without_an_embedding_fails_its_item_by_name(tokenizer: ModelTokenizer) -> None:
    items = [WorkerItem(id="a", prompt="a"), WorkerItem(id="z", prompt="\x7f")]
    last = max(tokenizer.encode("user\nassistant"))
    assert tokenizer.encode("a")[0] <= last < tokenizer.encode("\x7f")[0]
    prompts, failed = read_prompts(items, CHATML, tokenizer, context_length=256, vocab_size=last + 1)
    assert [prompt.item_id for prompt in prompts] == ["a"]
    assert [(item.item_id, item.finish_reason, item.output) for item in failed] == [("z", "failed", "")]
    token = tokenizer.encode("\x7f")[0]
    assert failed[0].error == (
        f"the prompt has token {token}; the model, which knows {last + 1}, has no embedding for it"
    )


def test_a_prompt_of_nothing_fails_its_item(tokenizer: ModelTokenizer) -> None:
    silent = ChatTemplate.from_jinja("{{ '' }}", eos_token="<|im_end|>")
    item = [WorkerItem(id="a", prompt="x")]
    prompts, failed = read_prompts(item, silent, tokenizer, context_length=256, vocab_size=259)
    assert (prompts, failed[0].error) == ([], "the prompt has no tokens")


def test_a_broken_template_is_not_the_items_fault(tokenizer: ModelTokenizer) -> None:
    broken = ChatTemplate.from_jinja("{{ messages[0].nothing.at.all }}", eos_token="<|im_end|>")
    with pytest.raises(InvalidArgument) as caught:
        read_prompts([WorkerItem(id="a", prompt="x")], broken, tokenizer, context_length=256, vocab_size=259)
    assert caught.value.reason == "CHAT_TEMPLATE_INVALID"


def test_generation_stops_at_the_end_of_turn_and_at_the_models_own_end(tokenizer: ModelTokenizer) -> None:
    own = ChatTemplate.from_jinja("{{ messages }}", eos_token="<|endoftext|>")
    assert stop_ids(CHATML, tokenizer) == (tokenizer.token_id("<|im_end|>"),)
    assert set(stop_ids(own, tokenizer)) == {
        tokenizer.token_id("<|im_end|>"),
        tokenizer.token_id("<|endoftext|>"),
    }


def test_a_template_of_another_model_is_refused(tokenizer: ModelTokenizer) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        stop_ids(ChatTemplate.built_in("gemma-it"), tokenizer)
    assert caught.value.reason == "CHAT_TEMPLATE_MISMATCH"
    assert "<bos>" in caught.value.message or "<start_of_turn>" in caught.value.message


def test_the_digest_of_tokens_tells_sequences_apart() -> None:
    assert token_digest([1, 23]) != token_digest([12, 3])
    assert token_digest((1, 23)) == token_digest([1, 23])
