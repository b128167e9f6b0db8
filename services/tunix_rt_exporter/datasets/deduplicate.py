"""Which rows are duplicates or near-duplicates of others, and which of them stays.

Duplicates have equal texts after normalisation. Near-duplicates have similar ones: a text is the set of its
runs of three words, and similarity is the Jaccard similarity of two sets, as MinHash of 128 permutations
estimates it (Broder 1997). Locality-sensitive hashing finds the pairs that are compared, by bands that catch
at least 80% of the pairs at the threshold, and nearly all above it. Where many texts share a bucket, each is
compared with the first ``BUCKET_ROWS`` alone, so that the time grows with the rows and not with their square.
"""

from __future__ import annotations

import itertools
import math
import mmap
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.datasets.model import Report
from tunix_rt_exporter.datasets.rows import Replaced, RowStore, TemporaryFile
from tunix_rt_exporter.datasets.word_runs import SHINGLE_WORDS, Integers, WordHasher, words
from tunix_rt_kit.artifacts import storage_errors
from tunix_rt_kit.canonical import normalised
from tunix_rt_kit.values import Progress, TimeLeft

DUPLICATE: Final = "duplicate"
NEAR_DUPLICATE: Final = "near_duplicate"
PERMUTATIONS: Final = 128
BUCKET_ROWS: Final = 256
_SEED: Final = 1
# A missed pair costs more than a comparison: false positives are compared and found out.
_WEIGHTS: Final = (0.1, 0.9)
_CHUNK: Final = 1 << 14
_COMPARED_AT_ONCE: Final = 64
# A row of many large buckets takes about a millisecond.
_ROWS_A_REPORT: Final = 128
_MULTIPLIER: Final = np.uint64(6364136223846793005)

Numbers = npt.NDArray[np.int32]
Signature = npt.NDArray[np.uint32]


def by_precedence(candidates: Integers, rows: RowStore, parent: bytes) -> Integers:
    """``candidates`` with the rows of the parent first: of rows that are like each other, the first stays.

    Args:
        candidates: numbers of rows, in the order of their content digests.
        rows: the rows.
        parent: the content digests of the parent's rows, 32 bytes each.
    """
    if not parent:
        return candidates
    inherited = np.isin(rows.keys["digest"][candidates], np.frombuffer(parent, dtype="S32"))
    return np.concatenate([candidates[inherited], candidates[~inherited]])


def without_duplicates(candidates: Integers, rows: RowStore) -> tuple[Integers, Replaced]:
    """The first of the candidates of each text, and those that the others were replaced by."""
    return replace(DUPLICATE, candidates, _first_of_each(rows.keys["text"][candidates], candidates))


def without_near_duplicates(
    candidates: Integers, texts: Signatures, report: Report
) -> tuple[Integers, Replaced]:
    """The candidates of which none is a near-duplicate of one before it; ``report`` may raise to end it."""
    told = comparing("comparing texts", len(candidates), report)
    return replace(NEAR_DUPLICATE, candidates, texts.replacements(candidates, report=told))


def replace(stage: str, candidates: Integers, instead: Integers) -> tuple[Integers, Replaced]:
    """Drop candidates; ``instead`` [candidates] names the row that stays instead of each, or is -1."""
    dropped = instead >= 0
    return candidates[~dropped], Replaced(stage, candidates[dropped], instead[dropped])


def comparing(stage: str, total: int, report: Report) -> Callable[[int], None]:
    """What tells ``report`` how many of ``total`` rows were compared."""
    left = TimeLeft()

    def compared(count: int) -> None:
        eta_s = left.after(count, total, time.monotonic())
        report(Progress(stage=stage, completed=count, total=total, unit="rows", eta_s=eta_s))

    return compared


def _first_of_each(keys: npt.NDArray[np.bytes_], rows: Integers) -> Integers:
    """For each row the first one of the same key, or -1 for the first itself."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    instead = rows[first[group]]
    instead[first] = -1
    return instead


class Signatures(TemporaryFile):
    """The signatures of rows, one after the other in a file; 512 bytes a row there, none in memory.

    Args:
        path: the file; it must not exist.
        threshold: the similarity from which texts are near-duplicates.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        # With it comes SciPy: 60 MB and half a second that most exporters never need.
        from datasketch import MinHash, MinHashLSH

        super().__init__(path)
        self._needed = math.ceil(threshold * PERMUTATIONS - 1e-9)
        banding = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=_WEIGHTS)
        self._bands, self._band_width = banding.b, banding.r
        self._blank = MinHash(num_perm=PERMUTATIONS, seed=_SEED, hashfunc=int)
        self._hasher = WordHasher()

    def add(self, texts: Sequence[str]) -> None:
        """Take the texts of the next rows."""
        every = self._hasher.runs([words(text) or [normalised(text)] for text in texts])
        runs = every.runs(range(1, SHINGLE_WORDS + 1))
        signatures = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
        for row, (start, end) in enumerate(itertools.pairwise(every.starts.tolist())):
            # A text of fewer words is one shingle, that of all its words.
            length = min(end - start, SHINGLE_WORDS)
            shingles = runs[length][start : end - length + 1]
            signature = self._blank.copy()
            signature.update_batch((shingles >> np.uint64(32)).tolist())
            signatures[row] = signature.hashvalues
        self._append(signatures.tobytes())

    def replacements(
        self, rows: Integers, labels: Integers | None = None, report: Callable[[int], None] = lambda _: None
    ) -> Integers:
        """Which rows must go so that no two near-duplicates with different labels are left.

        A row goes when a row before it that stays is its near-duplicate and has another label.

        Args:
            rows: numbers of rows in the order of ``add``, [n]; those that come first here stay first.
            labels: the label of each of ``rows``, [n], few and from 0 on; None when all are different.
            report: is told several times a second how many rows were gone through, and may raise to end it.

        Returns:
            For each of ``rows`` the row that stays instead of it, or -1 where it stays itself, [n].
        """
        instead = np.full(len(rows), -1)
        classes = 1 if labels is None else int(labels.max(initial=0)) + 1
        if len(rows) < 2 or (labels is not None and classes < 2):
            return instead
        with self._mapped() as signatures:
            places, buckets = self._buckets(signatures, rows, report)
            kept = _KeptRows(places, buckets, classes)
            bounds = np.flatnonzero(np.diff(places, prepend=-1, append=-1)).tolist()
            for count, (start, end) in enumerate(itertools.pairwise(bounds)):
                place = int(places[start])
                if not count % _ROWS_A_REPORT:
                    report(place)
                label = None if labels is None else int(labels[place])
                rivals = (rows[part] for part in kept.rivals(start, end, label))
                near = self._first_near(signatures, int(rows[place]), rivals)
                if near is None:
                    kept.keep(start, end, label or 0)
                else:
                    instead[place] = near
        return instead

    def _buckets(
        self, signatures: _MappedSignatures, rows: Integers, report: Callable[[int], None]
    ) -> tuple[Numbers, Numbers]:
        """Places in ``rows`` and the buckets that they share with others, sorted by place."""
        places: list[Numbers] = []
        buckets: list[Numbers] = []
        first = 0
        # In the order of the file, since the order of ``rows`` would read it all at random.
        order = np.argsort(rows)
        for band in range(self._bands):
            columns = slice(band * self._band_width, (band + 1) * self._band_width)
            keys = np.zeros(len(rows), dtype=np.uint64)
            for start in range(0, len(rows), _CHUNK):
                report(0)
                chunk = order[start : start + _CHUNK]
                for column in signatures.of(rows[chunk], columns).T:
                    keys[chunk] = keys[chunk] * _MULTIPLIER + column
            _, bucket, counts = np.unique(keys, return_inverse=True, return_counts=True)
            shared = np.flatnonzero(counts[bucket] > 1)
            # Numbered without gaps.
            numbers = np.cumsum(counts > 1) - 1 + first
            places.append(shared.astype(np.int32))
            buckets.append(numbers[bucket[shared]].astype(np.int32))
            first += int((counts > 1).sum())
        by_place = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(places)[by_place], np.concatenate(buckets)[by_place]

    def _first_near(self, signatures: _MappedSignatures, row: int, others: Iterator[Integers]) -> int | None:
        """The first of ``others``, which come by parts, that is a near-duplicate of ``row``."""
        for part in others:
            both = signatures.of(np.concatenate([[row], part]))
            equal = (both[1:] == both[0]).sum(axis=1)
            near = np.flatnonzero(equal >= self._needed)
            if len(near):
                return int(part[near[0]])
        return None

    @contextmanager
    def _mapped(self) -> Iterator[_MappedSignatures]:
        self.flush()
        with (
            storage_errors(str(self._path)),
            self._path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping,
        ):
            signatures = _MappedSignatures(mapping)
            try:
                yield signatures
            finally:
                signatures.close()


class _MappedSignatures:
    """Reads signatures from a mapped file.

    It gives the file's pages back to the system from time to time: they are read again for next to nothing,
    and do not count as memory of this process.
    """

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._signatures = np.frombuffer(mapping, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        self._read = 0

    def of(self, rows: Integers, columns: slice = slice(None)) -> Signature:
        """The signatures of rows, or some columns of them, [rows, columns]."""
        self._read += len(rows)
        if self._read > _CHUNK:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._read = len(rows)
        return self._signatures[rows, columns]

    def close(self) -> None:
        """Let the mapping go; nothing can be read any more."""
        del self._signatures


class _KeptRows:
    """The first rows that were kept of each bucket and label, as linked lists in flat arrays.

    Args:
        places, buckets: the entries, sorted by place: which row is in which bucket.
        classes: how many labels there are.
    """

    def __init__(self, places: Numbers, buckets: Numbers, classes: int) -> None:
        count = int(buckets.max(initial=-1)) + 1
        self._places = array("i", places.tobytes())
        self._buckets = array("i", buckets.tobytes())
        self._classes = classes
        self._heads = array("i", [-1]) * (count * classes)
        self._nexts = array("i", [0]) * len(places)
        self._lengths = array("h", [0]) * (count * classes)

    def rivals(self, start: int, end: int, label: int | None) -> Iterator[list[int]]:
        """Places of rows that were kept in one of the buckets of these entries under another label."""
        found: set[int] = set()
        part: list[int] = []
        for entry in range(start, end):
            slot = self._buckets[entry] * self._classes
            for other in range(self._classes):
                if other == label:
                    continue
                member = self._heads[slot + other]
                while member >= 0:
                    place = self._places[member]
                    if place not in found:
                        found.add(place)
                        part.append(place)
                    member = self._nexts[member]
                if len(part) >= _COMPARED_AT_ONCE:
                    yield part
                    part = []
        if part:
            yield part

    def keep(self, start: int, end: int, label: int) -> None:
        """The row of these entries stays."""
        for entry in range(start, end):
            slot = self._buckets[entry] * self._classes + label
            if self._lengths[slot] == BUCKET_ROWS:
                continue
            self._lengths[slot] += 1
            self._nexts[entry] = self._heads[slot]
            self._heads[slot] = entry
