"""Training examples: read, tokenised, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny_model import make_tiny_model
from support.training import exporting, rows, write_rows
from tunix_rt import v1
from tunix_rt.wire import open_channel
from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.loss_mask import ExampleEncoder, TextExample, TokenExample
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer
from tunix_rt_trainer.base_models import require_single_tokens
from tunix_rt_trainer.upstream import ExporterDatasets
from tunix_rt_trainer.worker.data import check_examples, read_examples, tokenize


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return load_tokenizer(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def tokens_of(
    tokenizer: ModelTokenizer, *examples: TextExample, max_length: int = 64, vocab_size: int = 259
) -> list[TokenExample]:
    told: list[tuple[int, int]] = []
    encoder = ExampleEncoder(tokenizer, ChatTemplate.built_in("chatml").frame)
    made = tokenize(examples, encoder, progress=lambda done, total: told.append((done, total)))
    check_examples(
        made, max_length=max_length, vocab_size=vocab_size, end_id=tokenizer.eos_id(), split="train"
    )
    assert told[-1] == (len(examples), len(examples))
    return made


def refused(*arguments: TextExample, tokenizer: ModelTokenizer, **options: int) -> DomainError:
    with pytest.raises(DomainError) as caught:
        tokens_of(tokenizer, *arguments, **options)
    return caught.value


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = rows(3)
    digest = write_rows(tmp_path / "train.jsonl", written)
    read = read_examples(tmp_path / "train.jsonl", digest)
    assert read == [TextExample.answering(row["id"], row["prompt"], row["response"]) for row in written]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    digest = write_rows(path, rows(3))
    path.write_bytes(path.read_bytes().replace(b"Answer", b"answer", 1))
    with pytest.raises(DomainError) as caught:
        read_examples(path, digest)
    assert (caught.value.code, caught.value.reason) == ("DATA_LOSS", "EXAMPLES_CORRUPT")


@pytest.mark.parametrize(
    "line", ['{"id": "a", "prompt": "b"}', "[]", "{", '{"id":1,"prompt":"","response":""}']
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    write_rows(path, rows(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DomainError, match="line 2"):
        read_examples(path, digest_file(path))


def test_prompt_and_response_are_tokenised_apart(tokenizer: ModelTokenizer) -> None:
    (row,) = tokens_of(tokenizer, TextExample.answering("x", "<|im_start|>user\nHi", "Yo<|im_end|>"))
    assert row.ids == (*tokenizer.encode("<|im_start|>user\nHi"), *tokenizer.encode("Yo<|im_end|>"))
    assert row.learned[0][0] == len(tokenizer.encode("<|im_start|>user\nHi"))
    assert row.ids[-1] == tokenizer.eos_id()
    assert row.supervised_tokens == 3


def test_examples_beyond_the_length_are_counted_and_the_first_are_named(tokenizer: ModelTokenizer) -> None:
    long = [TextExample.answering(f"long-{number}", "p" * 60, "r" * 5) for number in range(7)]
    error = refused(TextExample.answering("short", "p", "r"), *long, tokenizer=tokenizer)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EXAMPLE_TOO_LONG")
    assert error.message.startswith("7 examples")
    assert "long-0 (65 tokens)" in error.message
    assert "long-4" in error.message and "long-5" not in error.message and "and 2 more" in error.message
    assert error.metadata == {"split": "train", "count": "7", "first_id": "long-0"}
    assert len(tokens_of(tokenizer, TextExample.answering("fits", "p" * 59, "rrrr<|im_end|>"))) == 1


def test_a_response_with_nothing_to_learn_is_refused(tokenizer: ModelTokenizer) -> None:
    error = refused(TextExample.answering("mute", "p", ""), tokenizer=tokenizer)
    assert (error.reason, error.metadata["first_id"]) == ("EXAMPLE_WITHOUT_RESPONSE", "mute")
    assert (
        refused(TextExample.answering("lone", "", "r"), tokenizer=tokenizer).reason
        == "EXAMPLE_WITHOUT_RESPONSE"
    )


def test_a_response_that_does_not_end_its_turn_is_refused(tokenizer: ModelTokenizer) -> None:
    error = refused(TextExample.answering("open", "<|im_end|>", "r"), tokenizer=tokenizer)
    assert (error.reason, error.metadata["first_id"]) == ("END_NOT_SUPERVISED", "open")
    assert refused(TextExample.answering("bare", "", "<|im_end|>"), tokenizer=tokenizer).reason == (
        "EXAMPLE_WITHOUT_RESPONSE"
    )


def test_a_token_that_the_model_does_not_know_is_refused(tokenizer: ModelTokenizer) -> None:
    error = refused(TextExample.answering("odd", "p", "ÿ"), tokenizer=tokenizer, vocab_size=100)
    assert (error.reason, error.metadata["first_id"]) == ("TOKEN_OUT_OF_VOCABULARY", "odd")


def test_a_text_with_a_special_token_is_refused(tokenizer: ModelTokenizer) -> None:
    prompt, response = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Yo<|im_end|>\n"
    assert tokens_of(tokenizer, TextExample.answering("fine", prompt, response))
    for row in (
        TextExample.answering("asked", prompt.replace("Hi", "Hi<|endoftext|>"), response),
        TextExample.answering(
            "answered", prompt, response.replace("Yo", "Yo<|im_end|>\n<|im_start|>user\nAnd?")
        ),
    ):
        error = refused(
            TextExample.answering("fine", prompt, response), row, tokenizer=tokenizer, max_length=99
        )
        assert (error.reason, error.metadata["first_id"]) == ("SPECIAL_TOKEN_IN_TEXT", row.id)


def test_a_response_that_is_its_end_alone_is_refused(tokenizer: ModelTokenizer) -> None:
    error = refused(
        TextExample.answering("mute", "<|im_start|>user\nHi", "<|im_end|>\n"), tokenizer=tokenizer
    )
    assert (error.reason, error.metadata["first_id"]) == ("TARGET_LOST", "mute")


def test_turn_markers_must_be_single_tokens(tokenizer: ModelTokenizer) -> None:
    require_single_tokens(["<|im_start|>", "<|im_end|>"], tokenizer, "tiny")
    with pytest.raises(DomainError, match="<end_of_turn>") as caught:
        require_single_tokens(["<|im_end|>", "<end_of_turn>"], tokenizer, "tiny")
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISMATCH")
    assert caught.value.metadata == {"base_model": "tiny", "marker": "<end_of_turn>"}


def test_where_there_are_conversations_the_file_that_says_what_is_learned_is_taken(tmp_path: Path) -> None:
    with exporting(tmp_path) as (fake, address), open_channel(address) as channel:
        name = fake.add(train=rows(3), test=rows(1))
        datasets = ExporterDatasets(channel)
        (train, _) = fake.datasets[name].splits
        plain = train.files[1].file.digest
        assert datasets.get(name).splits["train"].digest == plain
        told = v1.ArtifactFile(path="train/conversation_example.jsonl", digest="sha256:" + "7" * 64)
        train.files.append(v1.DatasetFile(format=v1.DATASET_FORMAT_CONVERSATION_EXAMPLE, file=told))
        assert datasets.get(name).splits["train"].digest == told.digest
