"""GGUF files of each family that is understood, as Hugging Face folders."""

from __future__ import annotations

import json
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from support.tiny_gguf import write_gguf
from support.tiny_model import make_tiny_model
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.models.config import Rope
from tunix_rt_kit.models.gguf_convert import convert_gguf
from tunix_rt_kit.models.hf_folder import check_weights, read_config
from tunix_rt_kit.models.pull import GgufSource
from tunix_rt_kit.models.tokenizer import load_tokenizer


def converted(tmp_path: Path, family: str, config: dict[str, Any], **metadata: Any) -> tuple[Path, Path]:
    model = make_tiny_model(tmp_path / "model", family=family, config=config)
    path = write_gguf(model, tmp_path / "model.gguf", **metadata)
    (tmp_path / "out").mkdir()
    convert_gguf(path, tmp_path / "out", lambda _done, _total: None)
    return model, tmp_path / "out"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("family", "pre", "config"),
    [
        ("llama", "llama-bpe", {"rope_theta": 500000.0}),
        ("qwen2", "qwen2", {"rope_theta": 1000000.0}),
        ("qwen3", "qwen2", {"head_dim": 32, "num_key_value_heads": 1}),
    ],
)
def test_a_model_comes_back_in_bfloat16(
    tmp_path: Path, family: str, pre: str, config: dict[str, Any], tied: bool
) -> None:
    model, out = converted(tmp_path, family, config | {"tie_word_embeddings": tied}, pre=pre)
    assert read_config(out) == read_config(model)
    check_weights(out, read_config(out))
    before, after = load_file(model / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor.astype(ml_dtypes.bfloat16))
    assert load_tokenizer(out).encode("<|im_start|>a") == load_tokenizer(model).encode("<|im_start|>a")


def test_the_scaling_of_llama_31_is_known_by_its_factors(tmp_path: Path) -> None:
    scaled = Rope(500000.0, "llama3", 32.0, 1.0, 4.0, 8192.0)
    plain = Rope(500000.0).inverse_frequencies(16)
    factors = [a / b for a, b in zip(plain, scaled.inverse_frequencies(16), strict=True)]
    config = {"rope_theta": 500000.0}
    model, out = converted(tmp_path, "llama", config, pre="llama-bpe", rope_factors=factors)
    assert read_config(out) == replace(read_config(model), rope=scaled)


def test_linear_scaling_is_kept(tmp_path: Path) -> None:
    model, out = converted(tmp_path, "qwen2", {}, pre="qwen2", rope_scaling="linear")
    assert read_config(out) == replace(read_config(model), rope=Rope(10000.0, "linear", 4.0))


@pytest.mark.parametrize(
    ("pre", "text", "parts"),
    [
        ("smollm", "It's 1234", ["It", "'s", " ", "1", "2", "3", "4"]),
        ("qwen2", "It's 1234\n\nnew", ["It", "'s", " ", "1", "2", "3", "4", "\n\n", "new"]),
        ("llama-bpe", "It's 1234\n\nnew", ["It", "'s", " ", "123", "4", "\n\n", "new"]),
    ],
)
def test_text_is_cut_as_its_family_cuts_it(tmp_path: Path, pre: str, text: str, parts: list[str]) -> None:
    _, out = converted(tmp_path, "llama", {}, pre=pre)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    found = [text[slice(*span)] for _, span in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert found == parts
    assert json.loads((out / "tokenizer.json").read_text())["model"]["ignore_merges"] == (pre == "llama-bpe")


def test_a_damaged_file_is_refused_by_what_is_wrong(tmp_path: Path) -> None:
    whole = write_gguf(make_tiny_model(tmp_path / "model"), tmp_path / "whole.gguf").read_bytes()
    file, refused = tmp_path / "x.gguf", set[str]()

    @settings(max_examples=80, derandomize=True)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        # Behind the vocabulary, whose tokens are all alike, the numbers of the tensors follow.
        place = data.draw(st.integers(0, 1_100) | st.integers(len(whole) - 300_000, len(whole)))
        wild = data.draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from([b"\xff" * 8, bytes(7) + b"\x40", bytes(8), b"\x09\0\0\0"])
        )
        damaged = bytearray(whole)
        damaged[place : place + len(wild)] = wild
        if data.draw(st.booleans()):
            del damaged[data.draw(st.integers(0, len(damaged))) :]
        file.write_bytes(damaged)
        out = Path(tempfile.mkdtemp(dir=tmp_path))
        try:
            GgufSource(file, "sha256:0").fetch(out, lambda *_: None)
        except (InvalidArgument, FailedPrecondition) as error:
            assert error.reason in ("GGUF_UNSUPPORTED", "BASE_MODEL_UNSUPPORTED")
            assert str(out) not in error.message
            refused.add(error.message.replace(str(file), ""))

    check()
    assert len(refused) > 10


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ((1 << 60, 1), "promises 1 entries and"),
        ((0, 1 << 60), "promises 1152921504606846976 entries"),
        ((1, 0), "lies outside the file"),
    ],
)
def test_a_header_that_promises_too_much_is_refused_at_once(
    tmp_path: Path, counts: tuple[int, int], problem: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts))
    with pytest.raises(InvalidArgument, match=problem):
        convert_gguf(tmp_path / "x.gguf", tmp_path, lambda _done, _total: None)
    endless = struct.pack("<Q1sIIQ", 1, b"a", 9, 4, 1 << 40)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + endless)
    with pytest.raises(InvalidArgument, match="arrays of 1099511627776 values"):
        convert_gguf(tmp_path / "x.gguf", tmp_path, lambda _done, _total: None)


def test_a_tensor_that_the_family_has_no_place_for_is_named(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", family="qwen2")
    path = write_gguf(model, tmp_path / "x.gguf", architecture="llama")
    (tmp_path / "out").mkdir()
    with pytest.raises(
        InvalidArgument, match=r"tensor 'blk\.0\.attn_k\.bias' of shape \[32\] is not understood"
    ):
        convert_gguf(path, tmp_path / "out", lambda _done, _total: None)
