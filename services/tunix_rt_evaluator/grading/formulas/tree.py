"""The tree of a formula as it was read, with nothing computed yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Final, TypeAlias


class Unreadable(ValueError):
    """A text cannot be read as mathematics, or not in one way only; the message says why."""


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational number."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name: a variable with its indices and primes, or an unknown function with its arguments."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """``pi``, ``e``, ``i`` or ``infinity``."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operation or a function of numbers: ``add``, ``power``, ``factorial``, ``sin``."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with a unit, as ``tunix_rt_evaluator.grading.reading.numbers`` writes it."""

    value: Node
    unit: str


@dataclass(frozen=True, slots=True)
class Tuple:
    """Several values in order, in brackets: a pair, a point, an interval."""

    opening: str
    items: tuple[Node, ...]
    closing: str


@dataclass(frozen=True, slots=True)
class Set:
    """Values in braces."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Builder:
    """All ``name`` for which ``condition`` holds, from ``domain``; None stands for the real numbers."""

    name: str
    condition: Node
    domain: Node | None = None


@dataclass(frozen=True, slots=True)
class SetOperation:
    """``union``, ``intersection`` or ``difference`` of two sets."""

    name: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of equal length."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain such as ``a < b = c``: one sign fewer than sides."""

    sides: tuple[Node, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Congruence:
    """A statement modulo a number."""

    statement: Node
    modulus: Node


@dataclass(frozen=True, slots=True)
class Ratio:
    """``a : b``, a ratio or a time."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Several statements without brackets; ``connector`` is ``,``, ``and`` or ``or``."""

    items: tuple[Node, ...]
    connector: str


@dataclass(frozen=True, slots=True)
class Words:
    """A text that is no formula."""

    text: str


@dataclass(frozen=True, slots=True)
class Mixed:
    """Formulas with words between them, whose meaning no rule gives."""

    parts: tuple[Node, ...]


Node: TypeAlias = (
    Number
    | Symbol
    | Constant
    | Call
    | Quantity
    | Tuple
    | Set
    | Builder
    | SetOperation
    | Matrix
    | Relation
    | Congruence
    | Ratio
    | Listing
    | Words
    | Mixed
)
MAX_LEVELS: Final = 150
ALL_REAL: Final = ("all real numbers", "all reals", "the real numbers", "the set of all real numbers")
"""The words that mean the set of all real numbers."""
SCALARS = (Number, Symbol, Constant, Call)
"""What stands for a number."""


def shallow(node: Node) -> Node:
    """The node; raises Unreadable if it nests too deep to be computed with."""
    level, levels = [node], 0
    while level:
        level = [below for each in level for below in _below(each)]
        levels += 1
        if levels > MAX_LEVELS:
            raise Unreadable(f"it nests deeper than {MAX_LEVELS} levels")
    return node


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += _below(node)


def _below(node: Node) -> Iterator[Node]:
    for field in fields(node):
        yield from _nodes(getattr(node, field.name))


def _nodes(value: object) -> Iterator[Node]:
    if isinstance(value, tuple):
        for each in value:
            yield from _nodes(each)
    elif value is not None and not isinstance(value, (str, Fraction)):
        yield value  # type: ignore[misc]
