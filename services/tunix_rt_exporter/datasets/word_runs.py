"""Texts as words, and words as numbers: what near-duplicates and leaks are found by.

Words are compared in Unicode NFKC, case folded, without punctuation. A number keeps its decimals and loses
its thousands separators, and the signs of arithmetic are words: "3 + 4" and "3 - 4" are different questions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

_LETTERS: Final = r"[^\W\d_]"
_WORD: Final = re.compile(
    rf"\d+(?:[.,]\d+)*|{_LETTERS}+(?:'{_LETTERS}+)*|[+*/=<>^%\xd7\xf7]"
    # A hyphen beside a letter joins words; elsewhere it is a minus.
    rf"|(?<!{_LETTERS})-(?!{_LETTERS})"
)
_NOT_A_LETTER: Final = re.compile(r"[\d+*/=<>^%\xd7\xf7-]")
_TYPOGRAPHIC: Final = str.maketrans({"\u2019": "'", "\u2212": "-"})
_THOUSANDS: Final = re.compile(r",(?=\d{3}(?:\D|$))")
# Odd, so that no information is lost modulo 2**64 (Knuth, TAOCP 3.3.4, table 1).
_MULTIPLIER: Final = np.uint64(6364136223846793005)
_MAX_KNOWN: Final = 1 << 18


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_TYPOGRAPHIC)
    found: list[str] = _WORD.findall(plain)
    if "," not in plain:
        return found
    return [_THOUSANDS.sub("", word) if "," in word else word for word in found]


def is_arithmetic(word: str) -> bool:
    """Whether a word is a number or a sign of arithmetic."""
    return _NOT_A_LETTER.match(word) is not None


@dataclass(frozen=True, slots=True)
class WordRuns:
    """The words of several texts one after the other.

    ``hashes`` [words] holds a number for each word, ``left`` [words] how many words its text has from it on,
    ``starts`` [texts + 1] where each text begins.
    """

    hashes: Hashes
    left: Integers
    starts: Integers

    def runs(self, lengths: Sequence[int]) -> dict[int, Hashes]:
        """For each length, a number for each run of so many words, [words].

        Only where ``left`` is at least the length does the run stay inside its text.
        """
        found, padded = {}, np.concatenate([self.hashes, np.zeros(max(lengths), dtype=np.uint64)])
        run = np.zeros(len(self.hashes), dtype=np.uint64)
        for length in range(1, max(lengths) + 1):
            run = run * _MULTIPLIER + padded[length - 1 : length - 1 + len(run)]
            if length in lengths:
                found[length] = run
        return found


class WordHasher:
    """Gives words their numbers: 64 bits of BLAKE2b, the same on every machine."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def runs(self, texts: Sequence[Sequence[str]]) -> WordRuns:
        """The words of texts, each text a list of words."""
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        known = self._known
        numbers: list[int] = []
        for text in texts:
            for word in text:
                number = known.get(word)
                if number is None:
                    number = known[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
                numbers.append(number)
        lengths = np.fromiter(map(len, texts), dtype=np.int64)
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        left = np.repeat(starts[1:], lengths) - np.arange(starts[-1])
        return WordRuns(np.array(numbers, dtype=np.uint64), left, starts)
