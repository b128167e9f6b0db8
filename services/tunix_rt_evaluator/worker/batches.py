"""Which prompts are generated together, and in arrays of which shape: a pure function of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHUNK = 32
"""Prompts are read this many tokens at a time; a padded prompt is a multiple of it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that can be run: its item's id and its token ids."""

    item_id: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """Array shape of a batch: rows, tokens of the padded prompts, most new tokens."""

    rows: int
    prompt_length: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts that are generated together; the last batch may hold fewer than ``shape.rows``."""

    prompts: tuple[Prompt, ...]
    shape: Shape


def plan_batches(prompts: Sequence[Prompt], *, batch_size: int, max_new_tokens: int) -> list[Batch]:
    """Group prompts of like length.

    Rounding depends on the shape of a batch, so the grouping depends on nothing but the prompts and the
    arguments: not on their order, and not on which of them are done already.

    Args:
        prompts: in any order.
        batch_size: rows of every batch.
        max_new_tokens: most new tokens of a row.
    """
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.ids), prompt.item_id))
    groups = [tuple(ordered[at : at + batch_size]) for at in range(0, len(ordered), batch_size)]
    return [Batch(group, Shape(batch_size, _bucket(len(group[-1].ids)), max_new_tokens)) for group in groups]


def _bucket(length: int) -> int:
    """The least of 32, 64, 96, 128, 192, 256, 384, ... that is not below ``length``.

    Few shapes mean few compilations, and steps of at most a half mean that little of the cache is padding.
    """
    bucket = CHUNK
    while bucket < length:
        grown = bucket * 3 // 2 if bucket & (bucket - 1) == 0 else bucket * 4 // 3
        bucket = -(-grown // CHUNK) * CHUNK
    return bucket
