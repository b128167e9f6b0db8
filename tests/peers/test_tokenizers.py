"""Text is cut for Qwen as transformers cuts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from support.tiny_gguf import write_gguf
from support.tiny_model import make_tiny_model
from tunix_rt_kit.models.gguf_convert import convert_gguf

TEXTS = (
    "It's 1234 + 5678 = 6912,\n\n  isn't it?\t\r\n",
    "Zażółć gęślą jaźń; e\u0301 is é. 第3章 — ¿qué?",
    "def f(x):\n    return x ** 2  # ½ \u00a0\u2003 WE'LL see",
)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_converted_qwen_cuts_text_as_transformers_does(tmp_path: Path, text: str) -> None:
    model = make_tiny_model(tmp_path / "model", family="qwen2")
    convert_gguf(write_gguf(model, tmp_path / "x.gguf", pre="qwen2"), model, lambda _done, _total: None)
    ours, theirs = Tokenizer.from_file(str(model / "tokenizer.json")), Qwen2Tokenizer().backend_tokenizer
    assert ours.normalizer.normalize_str(text) == theirs.normalizer.normalize_str(text)
    assert ours.pre_tokenizer.pre_tokenize_str(text) == theirs.pre_tokenizer.pre_tokenize_str(text)
