"""Near-duplicates: MinHash signatures in a file, and the rows that stand too near to each other.

Texts are sets of runs of three words, compared by Jaccard similarity as MinHash of 128 permutations estimates
it (Broder 1997). Locality-sensitive hashing finds the pairs that are compared, by bands that catch at least
80% of the pairs at the threshold, and nearly all above it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from tunix_rt_exporter.words import Hashes, Integers, WordHasher, words
from tunix_rt_kit.artifacts.store import storage_error

PERMUTATIONS: Final = 128
SHINGLE_WORDS: Final = 3
_SEED: Final = 1
# A missed pair costs more than a comparison: false positives are compared and found out.
_WEIGHTS: Final = (0.1, 0.9)
_BUFFER_BYTES: Final = 1 << 20
_CHUNK: Final = 1 << 14
_MULTIPLIER: Final = np.uint64(6364136223846793005)

Signature = npt.NDArray[np.uint32]


class Signatures:
    """The signatures of rows, one after the other in a file; 512 bytes a row there, none in memory.

    Args:
        path: the file; it must not exist, and is removed at the end.
        threshold: the similarity from which texts are near-duplicates.

    Raises ResourceExhausted, FailedPrecondition or Unavailable when the file system fails.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        # With it comes SciPy: 60 MB and half a second that most exporters never need.
        from datasketch import MinHash, MinHashLSH

        self._path = path
        self._needed = math.ceil(threshold * PERMUTATIONS - 1e-9)
        banding = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, weights=_WEIGHTS)
        self._bands, self._band_width = banding.b, banding.r
        self._blank = MinHash(num_perm=PERMUTATIONS, seed=_SEED, hashfunc=int)
        self._hasher = WordHasher()
        try:
            self._file = path.open("xb", buffering=_BUFFER_BYTES)
        except OSError as error:
            raise storage_error(error, str(path)) from error

    def __enter__(self) -> Signatures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)

    def add(self, texts: Sequence[str]) -> None:
        """Take the texts of the next rows."""
        every = self._hasher.runs([words(text) for text in texts])
        shingles = every.runs([SHINGLE_WORDS])[SHINGLE_WORDS]
        signatures = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
        for row, (start, end) in enumerate(zip(every.starts, every.starts[1:], strict=False)):
            # A text of fewer words is one shingle, that of all its words.
            last = max(start + 1, end - SHINGLE_WORDS + 1)
            signatures[row] = self._signature(shingles[start:last] if end > start else shingles[:0])
        try:
            self._file.write(signatures.tobytes())
        except OSError as error:
            raise storage_error(error, str(self._path)) from error

    def rivals_kept(self, rows: Integers, labels: Integers) -> Integers:
        """Which rows must go so that no two near-duplicates with different labels are left.

        A row goes when a row before it that stays is its near-duplicate and has another label.

        Args:
            rows: numbers of rows in the order of ``add``, [n]; those that come first here stay first.
            labels: the label of each of ``rows``, [n].

        Returns:
            For each of ``rows`` the row that stays instead of it, or -1 where it stays itself, [n].
        """
        instead = np.full(len(rows), -1, dtype=np.int64)
        if len(rows) < 2:
            return instead
        self._flush()
        signatures = np.memmap(self._path, dtype=np.uint32, mode="r").reshape(-1, PERMUTATIONS)
        places, buckets = self._buckets(signatures, rows)
        kept: dict[int, dict[int, list[int]]] = defaultdict(dict)
        bounds = np.flatnonzero(np.diff(places, prepend=-1, append=-1)).tolist()
        for start, end in itertools.pairwise(bounds):
            place, own = int(places[start]), buckets[start:end].tolist()
            label = int(labels[place])
            rivals = {
                rival
                for bucket in own
                for other, members in kept[bucket].items()
                if other != label
                for rival in members
            }
            near = self._first_near(signatures, int(rows[place]), rows[sorted(rivals)])
            if near is not None:
                instead[place] = near
                continue
            for bucket in own:
                kept[bucket].setdefault(label, []).append(place)
        return instead

    def _signature(self, shingles: Hashes) -> Signature:
        blank = self._blank.copy()
        blank.update_batch((shingles >> np.uint64(32)).tolist())
        return np.asarray(blank.hashvalues, dtype=np.uint32)

    def _buckets(self, signatures: Signature, rows: Integers) -> tuple[Integers, Integers]:
        """Places in ``rows`` and the buckets that they share with others, sorted by place."""
        places, buckets, first = [], [], 0
        for band in range(self._bands):
            columns = slice(band * self._band_width, (band + 1) * self._band_width)
            keys = np.zeros(len(rows), dtype=np.uint64)
            for start in range(0, len(rows), _CHUNK):
                part = signatures[rows[start : start + _CHUNK], columns].astype(np.uint64)
                for column in part.T:
                    keys[start : start + _CHUNK] *= _MULTIPLIER
                    keys[start : start + _CHUNK] += column + np.uint64(1)
            _, bucket, counts = np.unique(keys, return_inverse=True, return_counts=True)
            shared = np.flatnonzero(counts[bucket] > 1)
            places.append(shared)
            buckets.append(bucket[shared] + first)
            first += len(counts)
        place, bucket = np.concatenate(places), np.concatenate(buckets)
        order = np.argsort(place, kind="stable")
        return place[order], bucket[order]

    def _first_near(self, signatures: Signature, row: int, others: Integers) -> int | None:
        """The first of ``others`` that is a near-duplicate of ``row``."""
        if not len(others):
            return None
        equal = (signatures[others] == signatures[row]).sum(axis=1)
        near = np.flatnonzero(equal >= self._needed)
        return int(others[near[0]]) if len(near) else None

    def _flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise storage_error(error, str(self._path)) from error
