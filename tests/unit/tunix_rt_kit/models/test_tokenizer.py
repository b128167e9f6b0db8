"""Tokenizers, held against llama.cpp's on SmolLM2's own vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from support.base_model import Pulled
from support.tiny_model import make_tiny_model
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer, parse_tokenizer

LLAMA_CPP = json.loads((Path(__file__).parents[3] / "goldens" / "smollm2_llama_cpp.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tokenizer(smollm2: Pulled) -> ModelTokenizer:
    return load_tokenizer(smollm2.folder)


@pytest.fixture(scope="module")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return load_tokenizer(make_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize("prompt", LLAMA_CPP["prompts"], ids=range(len(LLAMA_CPP["prompts"])))
def test_smollm2_tokens_are_those_of_llama_cpp(tokenizer: ModelTokenizer, prompt: dict[str, object]) -> None:
    text = str(prompt["text"])
    assert tokenizer.encode(text) == prompt["tokens"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text, ""]) == [prompt["tokens"], []]


def test_smollm2_chat_markers_and_digits_are_single_tokens(tokenizer: ModelTokenizer) -> None:
    assert tokenizer.encode("<|im_start|>") == [tokenizer.token_id("<|im_start|>")] == [1]
    assert tokenizer.encode("<|im_end|>\n") == [2, 198]
    assert len(tokenizer.encode("12345")) == 5
    assert tokenizer.vocab_size == 49152


def test_padding_of_smollm2_is_not_its_end_of_turn(tokenizer: ModelTokenizer) -> None:
    assert (tokenizer.eos_id(), tokenizer.pad_id()) == (2, 0)


def test_smollm2_tokenizer_json_stands_alone(smollm2: Pulled, tokenizer: ModelTokenizer) -> None:
    plain = Tokenizer.from_file(str(smollm2.folder / "tokenizer.json"))
    for prompt in LLAMA_CPP["prompts"]:
        assert plain.encode(prompt["text"]).ids == tokenizer.encode(prompt["text"])


@given(st.text(max_size=60))
def test_any_text_comes_back(tiny_tokenizer: ModelTokenizer, text: str) -> None:
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


def set_tokens(folder: Path, **tokens: str | None) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | tokens))


def test_padding_is_declared_or_else_unknown_or_else_free(tiny: Path) -> None:
    assert load_tokenizer(tiny).pad_id() == 0
    set_tokens(tiny, pad_token="<|im_end|>", unk_token="<|endoftext|>")
    assert load_tokenizer(tiny).pad_id() == 0
    set_tokens(tiny, pad_token=None, unk_token=None)
    assert load_tokenizer(tiny).pad_id() == 0
    set_tokens(tiny, pad_token="!", unk_token=None)
    assert load_tokenizer(tiny).decode([load_tokenizer(tiny).pad_id()]) == "!"


def test_model_without_a_token_for_padding_is_refused(tiny: Path) -> None:
    set_tokens(tiny, bos_token="<|endoftext|>", pad_token="<|im_end|>")
    with pytest.raises(FailedPrecondition, match=r"declare a pad_token other than eos_token '<\|im_end\|>'"):
        load_tokenizer(tiny)


@pytest.mark.parametrize(
    ("field", "value"), [("eos_token", None), ("eos_token", "<end>"), ("bos_token", "<s>")]
)
def test_special_token_that_is_not_there_is_named(tiny: Path, field: str, value: str | None) -> None:
    set_tokens(tiny, **{field: value})
    with pytest.raises(FailedPrecondition, match=field) as caught:
        load_tokenizer(tiny)
    assert caught.value.metadata["field"] == field


def test_a_file_that_makes_the_library_panic_is_invalid(tmp_path: Path) -> None:
    document = json.loads((make_tiny_model(tmp_path) / "tokenizer.json").read_text("utf-8"))
    document["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(InvalidArgument, match="that can be read: Precompiled") as caught:
        parse_tokenizer(json.dumps(document).encode())
    assert caught.value.reason == "TOKENIZER_INVALID"


def test_an_interruption_is_not_taken_for_an_invalid_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: bytes) -> Tokenizer:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunix_rt_kit.models.tokenizer.Tokenizer.from_buffer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parse_tokenizer(b"{}")


def add_token(folder: Path, content: str, *, special: bool) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    size = len(tokenizer["model"]["vocab"])
    tokenizer["added_tokens"].append({"id": size, "content": content, **flags})
    path.write_text(json.dumps(tokenizer))


def test_a_vocabulary_bigger_than_the_embedding_is_refused_with_a_token(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "small", config={"vocab_size": 200})
    with pytest.raises(FailedPrecondition) as caught:
        load_tokenizer(folder)
    assert caught.value.metadata["field"].startswith("tokenizer.json: id of ")
    assert "is 200; config.json has vocab_size 200, and 59 tokens have no embedding" in str(caught.value)


def test_a_token_that_only_text_could_write_must_have_an_embedding(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    add_token(folder, "<image>", special=True)
    assert load_tokenizer(folder).vocab_size == 260
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<image>"}))
    with pytest.raises(FailedPrecondition, match="id of '<image>' is 259"):
        load_tokenizer(folder)
    add_token(make_tiny_model(tmp_path / "plain"), "word", special=False)
    with pytest.raises(FailedPrecondition, match="id of 'word' is 259"):
        load_tokenizer(tmp_path / "plain")
