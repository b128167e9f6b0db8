"""Trees in the form in which they are compared: both signs spelled out, names and units told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final, TypeAlias, cast

from tunix_rt_evaluator.grading.formulas.regions import region_of
from tunix_rt_evaluator.grading.formulas.scalars import equal_values, names_in, sign_of_infinity
from tunix_rt_evaluator.grading.formulas.tree import (
    SCALARS,
    Call,
    Listing,
    Matrix,
    Node,
    Quantity,
    Relation,
    Set,
    Symbol,
    Tuple,
    Unreadable,
    Words,
    walk,
)

DEGREE: Final = "degree^1"
_UNITS: Final = {"degrees": DEGREE, "celsius": "degree_celsius^1", "fahrenheit": "degree_fahrenheit^1"}
# Other letters with numbers are rather the terms of a sequence.
_SOLVED_FOR: Final = re.compile(r"(?:x|z|t|lambda)(?=_)")
_OPPOSITE: Final = {"pm": "mp", "mp": "pm"}


@dataclass(frozen=True, slots=True)
class Named:
    """What ``name = value`` says: a value, and what has it."""

    name: Node
    value: Meaning


@dataclass(frozen=True, slots=True)
class Values:
    """Several values in no order, as of an equation with several solutions."""

    items: tuple[Meaning, ...]


Meaning: TypeAlias = Node | Named | Values


def meaning(node: Node) -> Meaning:
    """What a tree means; raises Unreadable where both signs stand in it in more ways than one."""
    if isinstance(node, Listing):
        return _of_listing(node)
    if isinstance(node, Set):
        return Set(cast("tuple[Node, ...]", tuple(_flat([meaning(item) for item in node.items]))))
    signs = [part.name for part in walk(node) if isinstance(part, Call) and part.name in _OPPOSITE]
    if signs:
        if signs.count("pm") > 1 and "mp" not in signs:
            raise Unreadable("it has two signs of plus or minus, which may go together or not")
        return _gathered(_flat([meaning(_with_sign(node, upper=upper)) for upper in (True, False)]))
    if isinstance(node, Relation):
        return _of_relation(node)
    return _with_unit(node) if isinstance(node, SCALARS) else node


def _of_listing(listing: Listing) -> Meaning:
    items = _flat([meaning(item) for item in listing.items])
    if listing.connector == "or" and all(isinstance(item, (Symbol, Words)) for item in items):
        # Of numbers all are meant, of statements and of things one.
        return listing
    if listing.connector == "or" and any(map(_is_interval, items)) and region_of(listing):
        return listing
    if isinstance(items[0], Named):
        # x = 1, 2 gives both to x.
        first = items[0].name
        bare = [not isinstance(item, (Named, Relation)) for item in items[1:]]
        if all(bare):
            items = [items[0], *(Named(first, item) for item in items[1:])]
    return listing if any(isinstance(item, Relation) for item in items) else _gathered(items)


def _is_interval(item: Meaning) -> bool:
    """Whether it is an interval, and can be no pair."""
    if not isinstance(item, Tuple):
        return False
    return item.opening + item.closing != "()" or any(map(sign_of_infinity, item.items))


def without_numbers(found: Meaning) -> Named | None:
    """What x may be, of values that are only numbered, as in x_1 = 2, x_2 = 3; None of any others."""
    if not isinstance(found, Values):
        return None
    values = {
        item.name.name: item.value
        for item in found.items
        if isinstance(item, Named) and isinstance(item.name, Symbol)
    }
    letter = _SOLVED_FOR.match(min(values, default=""))
    if letter is None or set(values) != {f"{letter[0]}_{at}" for at in range(1, len(found.items) + 1)}:
        return None
    return Named(Symbol(letter[0]), Values(tuple(values.values())))


def _gathered(items: Sequence[Meaning]) -> Meaning:
    """Several values; those of one name are its values."""
    names = {item.name if isinstance(item, Named) else None for item in items}
    if len(names) == 1 and (name := names.pop()) is not None:
        return Named(name, Values(tuple(item.value for item in items if isinstance(item, Named))))
    return Values(tuple(items))


def _flat(items: Sequence[Meaning]) -> list[Meaning]:
    return [inner for item in items for inner in _spread(item)]


def _spread(item: Meaning) -> Iterator[Meaning]:
    if isinstance(item, Values):
        yield from item.items
    elif isinstance(item, Named) and isinstance(item.value, Values):
        yield from (Named(item.name, value) for value in item.value.items)
    else:
        yield item


def _with_sign(node: Node, *, upper: bool) -> Node:
    """The tree with plus for each sign of plus or minus, or minus."""
    if isinstance(node, Call) and node.name in _OPPOSITE:
        left, right = (_with_sign(argument, upper=upper) for argument in node.arguments)
        plus = upper == (node.name == "pm")
        return Call("add", (left, right if plus else Call("negative", (right,))))
    changed: dict[str, Any] = {
        field.name: _changed(getattr(node, field.name), upper=upper) for field in fields(node)
    }
    return type(node)(**changed)


def _changed(value: Any, *, upper: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_changed(each, upper=upper) for each in value)
    return value if value is None or isinstance(value, (str, Fraction)) else _with_sign(value, upper=upper)


def _with_unit(node: Node) -> Node:
    """A number of degrees as a quantity; within a formula degrees are a number."""
    inner, negative = node, False
    if isinstance(node, Call) and node.name == "negative":
        inner, negative = node.arguments[0], True
    if not isinstance(inner, Call) or inner.name not in _UNITS:
        return node
    value = inner.arguments[0]
    return Quantity(Call("negative", (value,)) if negative else value, _UNITS[inner.name])


def _of_relation(relation: Relation) -> Meaning:
    if relation.signs == ("in",) and _is_name(relation.sides[0]) and isinstance(relation.sides[1], Set):
        found = meaning(relation.sides[1])
        assert isinstance(found, Set)
        return Named(relation.sides[0], Values(found.items))
    if not set(relation.signs) <= {"=", "~"}:
        return relation
    sides = _exact_sides(relation)
    if len(sides) == 1:
        return meaning(sides[0])
    if _is_name(sides[0]) and not names_in(sides[0]) & names_in(*sides[1:]) and _all_equal(sides[1:]):
        return Named(sides[0], meaning(sides[1]))
    if _is_name(sides[-1]) and not names_in(*sides[:-1]) and _all_equal(sides[:-1]):
        return Named(sides[-1], meaning(sides[0]))
    if not names_in(*sides) and _all_equal(sides):
        return meaning(sides[0])
    return Relation(tuple(sides), ("=",) * (len(sides) - 1))


def _exact_sides(relation: Relation) -> Sequence[Node]:
    """The sides without those that only come near to one before them."""
    sides = [relation.sides[0]]
    for sign, side in zip(relation.signs, relation.sides[1:], strict=True):
        if sign == "~" and not (len(sides) == 1 and _is_name(sides[0])):
            break
        sides.append(side)
    return sides


def _is_name(node: Node) -> bool:
    if isinstance(node, Tuple):
        return node.opening + node.closing == "()" and all(isinstance(item, Symbol) for item in node.items)
    return isinstance(node, Symbol)


def _all_equal(sides: Sequence[Node]) -> bool:
    first = sides[0]
    return all(
        side == first
        or (isinstance(side, SCALARS) and isinstance(first, SCALARS) and equal_values(first, side))
        for side in sides[1:]
    )


def rows_of(matrix: Matrix) -> Sequence[Node]:
    """The entries of a matrix, row by row."""
    return [entry for row in matrix.rows for entry in row]
