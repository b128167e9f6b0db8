"""Finds contaminated rows: those that contain an item of an eval set.

Of an item that is a conversation, see ``asked_texts``. A row contains an item if
- its prompt, or a user's turn of it, is equal to the item's after normalisation;
- one of its texts has all the item's words in a row, where the item has fewer than ``n``: it needs five words
  at least, and what stands around them must not be a number or a sign: "What is 3 + 4 - 1" is not "What is
  3 + 4";
- one of its texts shares ``n`` words in a row with the item (13 in Brown et al. 2020, arXiv:2005.14165,
  appendix C);
- its prompt has the item's numbers and signs in the same order and three quarters of its other words, where
  the item has eight words or more: names and turns of phrase were changed, the problem was not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from tunix_rt_exporter.datasets.model import EvalPrompts
from tunix_rt_exporter.datasets.word_runs import Hashes, Integers, WordHasher, WordRuns, is_arithmetic, words
from tunix_rt_kit.canonical import normalised

CONTAMINATED: Final = "contaminated"
MIN_CONTAINED_WORDS: Final = 5
MIN_REWORDED_WORDS: Final = 8
REWORDED_SHARE: Final = 0.75
# Words have any length, and eval sets may share very many numbers with a row.
MAX_MATCHED_CHARACTERS: Final = 1_000


class MatchKind(IntEnum):
    """How a row and an item match, the surest way first."""

    EXACT = 1
    CONTAINED = 2
    NGRAM = 3
    NUMBERS = 4


@dataclass(frozen=True, slots=True)
class EvalMatch:
    """The item that a row contains.

    ``eval_set`` is the number of its set, ``text`` the shared words, up to ``MAX_MATCHED_CHARACTERS``.
    """

    eval_set: int
    item: str
    kind: MatchKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of one length: sorted hashes, and for each the item's number and where in the item it stands."""

    hashes: Hashes
    items: Integers
    places: Integers


def asked_texts(turns: Sequence[str]) -> list[str]:
    """The texts of an item that rows must not hold: all that is asked in one, and each turn that asks alone.

    Turns of fewer words than ``MIN_CONTAINED_WORDS`` and without a number do not: "Hello" and "Thank you" are
    in many conversations.
    """
    split = [(text, words(text)) for text in turns]
    asked = [text for text, of in split if len(of) >= MIN_CONTAINED_WORDS or any(map(is_arithmetic, of))]
    return list(dict.fromkeys(("\n".join(turns), *asked)))


class EvalIndex:
    """The items of some eval sets, ready to be compared with many rows.

    Args:
        eval_sets: a row that contains items of several counts for the first set, and in it for the first id.
        ngram_words: how many words in a row make a match; 0 compares whole prompts alone.
    """

    def __init__(self, eval_sets: Sequence[EvalPrompts], ngram_words: int) -> None:
        self._ngram_words = ngram_words
        self._hasher = WordHasher()
        self._exact: dict[str, tuple[int, str]] = {}
        self._names: list[tuple[int, str]] = []
        self._words: list[list[str]] = []
        for number, eval_set in enumerate(eval_sets):
            for item, asked in sorted(eval_set.prompts.items()):
                for text in asked_texts(asked):
                    self._exact.setdefault(normalised(text), (number, item))
                    self._names.append((number, item))
                    self._words.append(words(text))
        self._runs = self._index() if ngram_words else {}
        self._reworded: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, item_words in enumerate(self._words):
            numbers = _numbers(item_words)
            if numbers and len(item_words) >= MIN_REWORDED_WORDS:
                self._reworded[numbers].append(place)

    def matches(
        self, rows: Sequence[Sequence[str]], questions: Sequence[Sequence[str]] | None = None
    ) -> list[EvalMatch | None]:
        """The surest match of each row, None for a row that contains no item.

        Args:
            rows: the texts of each row, its prompt first; runs of words do not go from one to the next.
            questions: what is asked in each row, turn by turn, and is compared as its prompt is.
        """
        asked: list[Sequence[str]] = [texts[:1] for texts in rows]
        if questions is not None:
            asked = [
                list(dict.fromkeys((*first, *more))) for first, more in zip(asked, questions, strict=True)
            ]
        found = [self._equal(prompts) for prompts in asked]
        if not self._ngram_words:
            return found
        split = [[words(text) for text in texts] for texts in rows]
        shared = self._shared(split) if self._runs else {}
        return [
            match or shared.get(row) or self._reworded_in([split[row][0], *map(words, asked[row][1:])])
            for row, match in enumerate(found)
        ]

    def _equal(self, prompts: Sequence[str]) -> EvalMatch | None:
        known = [place for text in prompts if (place := self._exact.get(normalised(text)))]
        return EvalMatch(*min(known), MatchKind.EXACT) if known else None

    def _reworded_in(self, prompts: Sequence[Sequence[str]]) -> EvalMatch | None:
        return next((match for prompt in prompts if (match := self._same_numbers(prompt))), None)

    def _index(self) -> dict[int, _Runs]:
        entries: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for item, item_words in enumerate(self._words):
            if len(item_words) >= self._ngram_words:
                places = range(len(item_words) - self._ngram_words + 1)
                entries[self._ngram_words] += [(item, place) for place in places]
            elif len(item_words) >= MIN_CONTAINED_WORDS:
                entries[len(item_words)].append((item, 0))
        if not entries:
            return {}
        every = self._hasher.runs(self._words)
        hashed = every.runs(list(entries))
        index = {}
        for length, pairs in entries.items():
            items, places = np.array(pairs).T
            hashes = hashed[length][every.starts[items] + places]
            # Of equal runs the first item's comes first.
            order = np.argsort(hashes, kind="stable")
            index[length] = _Runs(hashes[order], items[order], places[order])
        return index

    def _same_numbers(self, prompt: Sequence[str]) -> EvalMatch | None:
        candidates = self._reworded.get(_numbers(prompt))
        if not candidates:
            return None
        counts = Counter(prompt)
        for item in candidates:
            wanted = [word for word in self._words[item] if not is_arithmetic(word)]
            share = (Counter(wanted) & counts).total() / max(len(wanted), 1)
            if share >= REWORDED_SHARE:
                return EvalMatch(*self._names[item], MatchKind.NUMBERS, _joined(_numbers(prompt)))
        return None

    def _shared(self, rows: Sequence[Sequence[list[str]]]) -> dict[int, EvalMatch]:
        """By number of row, the surest run of words that it shares with an item."""
        owners = [row for row, texts in enumerate(rows) for _ in texts]
        split = [text for texts in rows for text in texts]
        every = self._hasher.runs(split)
        best: dict[int, tuple[MatchKind, int, int, str]] = {}
        for length, hashes in every.runs(list(self._runs)).items():
            for place, entry in self._hits(every, hashes, length):
                text = int(np.searchsorted(every.starts, place, side="right")) - 1
                match = self._confirmed(split[text], place - int(every.starts[text]), length, entry)
                if match is not None:
                    row = owners[text]
                    best[row] = min(best.get(row, match), match)
        return {row: EvalMatch(*self._names[item], kind, text) for row, (kind, item, _, text) in best.items()}

    def _hits(self, every: WordRuns, hashes: Hashes, length: int) -> list[tuple[int, int]]:
        known = self._runs[length].hashes
        entries = np.searchsorted(known, hashes)
        entries[entries == len(known)] = 0
        places = np.flatnonzero((known[entries] == hashes) & (every.left >= length))
        return list(zip(places.tolist(), entries[places].tolist(), strict=True))

    def _confirmed(
        self, text: list[str], place: int, length: int, entry: int
    ) -> tuple[MatchKind, int, int, str] | None:
        runs = self._runs[length]
        item, start = int(runs.items[entry]), int(runs.places[entry])
        shared = text[place : place + length]
        if self._words[item][start : start + length] != shared:
            return None
        if length == self._ngram_words:
            return MatchKind.NGRAM, item, start, _joined(shared)
        around = [*text[max(place - 1, 0) : place], *text[place + length : place + length + 1]]
        if any(map(is_arithmetic, around)):
            return None
        return MatchKind.CONTAINED, item, start, _joined(shared)


def _joined(shared: Sequence[str]) -> str:
    return " ".join(shared)[:MAX_MATCHED_CHARACTERS]


def _numbers(text: Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(is_arithmetic, text))
