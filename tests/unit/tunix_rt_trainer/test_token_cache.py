"""Tokens that are kept for the next job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.loss_mask import TokenExample
from tunix_rt_trainer.worker.data import TokenCache

examples = st.lists(
    st.builds(
        TokenExample,
        st.text(max_size=6).filter(lambda text: text.isprintable()),
        st.lists(st.integers(0, 2**31 - 1), max_size=9).map(tuple),
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple),
    ),
    max_size=8,
)


@given(examples)
def test_what_was_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[TokenExample]) -> None:
    cache = TokenCache(tmp_path_factory.mktemp("tokens"))
    path = cache.path("sha256:file", "sha256:tokenizer")
    assert cache.read(path) is None
    cache.write(path, rows)
    assert cache.read(path) == rows


def test_another_file_or_tokenizer_has_tokens_of_its_own(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    pairs = [("a", "t"), ("b", "t"), ("a", "u")]
    assert len({cache.path(*pair) for pair in pairs}) == 3


def test_a_damaged_file_is_not_read_and_is_replaced(tmp_path: Path) -> None:
    cache, rows = TokenCache(tmp_path), [TokenExample.answering("a", (1, 2, 3), 1)]
    path = cache.path("f", "t")
    cache.write(path, rows)
    whole = path.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-3], b"", b"\xff" * 40):
        path.write_bytes(damaged)
        assert cache.read(path) is None
    cache.write(path, rows)
    assert cache.read(path) == rows


def test_jobs_that_write_and_read_at_once_see_whole_files(tmp_path: Path) -> None:
    rows = [TokenExample.answering(f"{number}", tuple(range(number)), 0) for number in range(300)]
    cache = TokenCache(tmp_path)
    path = cache.path("f", "t")

    def write_and_read(_: int) -> bool:
        cache.write(path, rows)
        return cache.read(path) == rows

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_read, range(20)))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
