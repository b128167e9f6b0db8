"""Which number comes where in a seeded sequence: the same everywhere, and kept in no table."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_ROUNDS = 6


def keyed_number(*key: int | str) -> int:
    """A number of 64 bits that only ``key`` decides, the same in every process and on every machine."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def permuted(place: int, size: int, *key: int | str) -> int:
    """Where ``place`` lands in the permutation of ``range(size)`` that ``key`` names.

    A Feistel network over the next even power of two, walked until it lands inside (Black and Rogaway,
    "Ciphers with Arbitrary Finite Domains", 2002): distinct places land on distinct numbers, and no table is
    kept.
    """
    if not 0 <= place < size:
        raise ValueError(f"place is {place}; a number from 0 to {size - 1} would be right")
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = place >> half_bits, place & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (keyed_number(*key, turn, right) & mask)
        place = left << half_bits | right
        if place < size:
            return place


def mixed_radix(number: int, choices: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """One of each of ``choices``, by the digits of ``number``: another one for each number."""
    picked = []
    for options in choices:
        number, digit = divmod(number, len(options))
        picked.append(options[digit])
    return tuple(picked)
