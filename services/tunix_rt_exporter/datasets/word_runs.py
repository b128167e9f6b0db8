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
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

SHINGLE_WORDS: Final = 3
"""Words of a run by which texts are compared as a whole."""
LEAST_BY_CHARACTERS: Final = 0.15
"""Jaccard similarity from which texts are near by their characters."""
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


class NearestTexts:
    """Finds, of texts that come in batches, those that are nearest to some others.

    Nearness is the Jaccard similarity of the sets of runs of three words; a text of fewer words is one run.
    It is counted, not estimated. A text without any run in common is not near.

    Args:
        wanted: the texts to be near to.
        count: how many are kept for each of them.
        by_characters: runs are of three characters instead, and what is less similar than
            ``LEAST_BY_CHARACTERS`` is not near: some are in any two texts of a language.
    """

    def __init__(self, wanted: Sequence[str], count: int, *, by_characters: bool = False) -> None:
        self._hasher = WordHasher()
        self._count = count
        self._by_characters = by_characters
        shingles = self._shingles(wanted)
        self._known = np.unique(np.concatenate(shingles))
        self._holds = np.zeros((len(wanted), len(self._known)), dtype=np.bool_)
        for row, found in enumerate(shingles):
            self._holds[row, np.searchsorted(self._known, found)] = True
        self._sizes = self._holds.sum(axis=1)
        self._found: list[list[tuple[float, str, int]]] = [[] for _ in wanted]
        self._least = np.full(len(wanted), LEAST_BY_CHARACTERS if by_characters else 0.0)

    def add(self, texts: Sequence[str], ids: Sequence[str], first: int) -> None:
        """Take a batch; ``ids`` decide between equals, and ``first`` is the number of the first text."""
        for place, found in enumerate(self._shingles(texts)):
            entries = np.searchsorted(self._known, found)
            entries[entries == len(self._known)] = 0
            entries = entries[self._known[entries] == found]
            if not len(entries):
                continue
            shared = self._holds[:, entries].sum(axis=1)
            similarity = shared / (self._sizes + len(found) - shared)
            for wanted in np.flatnonzero((shared > 0) & (similarity >= self._least)).tolist():
                nearest = self._found[wanted]
                nearest.append((-float(similarity[wanted]), ids[place], first + place))
                if len(nearest) > self._count:
                    nearest.sort()
                    nearest.pop()
                    self._least[wanted] = -nearest[-1][0]

    def nearest(self) -> list[list[tuple[int, float]]]:
        """For each wanted text the numbers of the nearest ones and their similarities, the nearest first."""
        return [[(number, -negative) for negative, _, number in sorted(found)] for found in self._found]

    def _shingles(self, texts: Sequence[str]) -> list[Hashes]:
        units = [words(text) or [text] for text in texts]
        if self._by_characters:
            units = [list(" ".join(text)) for text in units]
        every = self._hasher.runs(units)
        runs = every.runs(range(1, SHINGLE_WORDS + 1))
        found = []
        for start, end in pairwise(every.starts.tolist()):
            length = min(end - start, SHINGLE_WORDS)
            found.append(np.unique(runs[length][start : end - length + 1]))
        return found
