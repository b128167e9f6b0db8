"""Whether two trees mean the same: the same kind of object, with equal parts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import chain
from typing import Any, Final, TypeAlias, cast

from tunix_rt_evaluator.grading.formulas import tree
from tunix_rt_evaluator.grading.formulas.values import (
    equal_values,
    names_in,
    proportional,
    region_of,
    sign_of_infinity,
)

DEGREE: Final = "degree^1"
_UNITS: Final = {"degrees": DEGREE, "celsius": "degree_celsius^1", "fahrenheit": "degree_fahrenheit^1"}
# Other letters with numbers are rather the terms of a sequence.
_SOLVED_FOR: Final = re.compile(r"(?:x|z|t|lambda)(?=_)")
_OPPOSITE: Final = {"pm": "mp", "mp": "pm"}

_TURNED: Final = {">": "<", ">=": "<="}
_SYMMETRIC: Final = frozenset(("=", "!=", "equiv"))


@dataclass(frozen=True, slots=True)
class Named:
    """A statement such as ``name = value``."""

    name: tree.Node
    value: Meaning


@dataclass(frozen=True, slots=True)
class Values:
    """Several values in no order, such as the solutions of an equation."""

    items: tuple[Meaning, ...]


Meaning: TypeAlias = tree.Node | Named | Values


def meaning(node: tree.Node) -> Meaning:
    """What a tree means; raises Unreadable if two signs of plus or minus in it may go together or not."""
    if isinstance(node, tree.Listing):
        return _of_listing(node)
    if isinstance(node, tree.Set):
        return tree.Set(cast("tuple[tree.Node, ...]", tuple(_flat([meaning(item) for item in node.items]))))
    signs = [part.name for part in tree.walk(node) if isinstance(part, tree.Call) and part.name in _OPPOSITE]
    if signs:
        if signs.count("pm") > 1 and "mp" not in signs:
            raise tree.Unreadable("it has two signs of plus or minus, which may go together or not")
        return _gathered(_flat([meaning(_with_sign(node, upper=upper)) for upper in (True, False)]))
    if isinstance(node, tree.Relation):
        return _of_relation(node)
    return _with_unit(node) if isinstance(node, tree.SCALARS) else node


def _of_listing(listing: tree.Listing) -> Meaning:
    items = _flat([meaning(item) for item in listing.items])
    if listing.connector == "or" and all(isinstance(item, (tree.Symbol, tree.Words)) for item in items):
        # Of numbers all are meant, of statements and of things one.
        return listing
    if listing.connector == "or" and any(map(_is_interval, items)) and region_of(listing):
        return listing
    if isinstance(items[0], Named):
        # x = 1, 2 gives both to x.
        first = items[0].name
        bare = [not isinstance(item, (Named, tree.Relation)) for item in items[1:]]
        if all(bare):
            items = [items[0], *(Named(first, item) for item in items[1:])]
    return listing if any(isinstance(item, tree.Relation) for item in items) else _gathered(items)


def _is_interval(item: Meaning) -> bool:
    """Whether it is an interval, and can be no pair."""
    if not isinstance(item, tree.Tuple):
        return False
    return item.opening + item.closing != "()" or any(map(sign_of_infinity, item.items))


def without_numbers(found: Meaning) -> Named | None:
    """The values of x in x_1 = 2, x_2 = 3, where the numbers only count; None for anything else."""
    if not isinstance(found, Values):
        return None
    values = {
        item.name.name: item.value
        for item in found.items
        if isinstance(item, Named) and isinstance(item.name, tree.Symbol)
    }
    letter = _SOLVED_FOR.match(min(values, default=""))
    if letter is None or set(values) != {f"{letter[0]}_{at}" for at in range(1, len(found.items) + 1)}:
        return None
    return Named(tree.Symbol(letter[0]), Values(tuple(values.values())))


def _gathered(items: Sequence[Meaning]) -> Meaning:
    """Several values; those of one name are its values."""
    names = {item.name if isinstance(item, Named) else None for item in items}
    if len(names) == 1 and (name := names.pop()) is not None:
        return Named(name, Values(tuple(item.value for item in items if isinstance(item, Named))))
    return Values(tuple(items))


def _flat(items: Sequence[Meaning]) -> list[Meaning]:
    """The items, several values of one item each by itself."""
    flat: list[Meaning] = []
    for item in items:
        match item:
            case Values():
                flat += item.items
            case Named(name, Values(values)):
                flat += [Named(name, value) for value in values]
            case _:
                flat.append(item)
    return flat


def _with_sign(node: tree.Node, *, upper: bool) -> tree.Node:
    """The tree with plus for each sign of plus or minus, or minus."""
    if isinstance(node, tree.Call) and node.name in _OPPOSITE:
        left, right = (_with_sign(argument, upper=upper) for argument in node.arguments)
        plus = upper == (node.name == "pm")
        return tree.Call("add", (left, right if plus else tree.Call("negative", (right,))))
    changed = {field.name: _changed(getattr(node, field.name), upper=upper) for field in fields(node)}
    return replace(node, **changed)


def _changed(value: Any, *, upper: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_changed(each, upper=upper) for each in value)
    return value if value is None or isinstance(value, (str, Fraction)) else _with_sign(value, upper=upper)


def _with_unit(node: tree.Node) -> tree.Node:
    """A number of degrees as a quantity; within a formula degrees are a number."""
    inner, negative = node, False
    if isinstance(node, tree.Call) and node.name == "negative":
        inner, negative = node.arguments[0], True
    if not isinstance(inner, tree.Call) or inner.name not in _UNITS:
        return node
    value = inner.arguments[0]
    return tree.Quantity(tree.Call("negative", (value,)) if negative else value, _UNITS[inner.name])


def _of_relation(relation: tree.Relation) -> Meaning:
    if relation.signs == ("in",) and _is_name(relation.sides[0]) and isinstance(relation.sides[1], tree.Set):
        found = meaning(relation.sides[1])
        assert isinstance(found, tree.Set)
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
    return tree.Relation(tuple(sides), ("=",) * (len(sides) - 1))


def _exact_sides(relation: tree.Relation) -> Sequence[tree.Node]:
    """The sides without those that only come near to one before them."""
    sides = [relation.sides[0]]
    for sign, side in zip(relation.signs, relation.sides[1:], strict=True):
        if sign == "~" and not (len(sides) == 1 and _is_name(sides[0])):
            break
        sides.append(side)
    return sides


def _is_name(node: tree.Node) -> bool:
    if isinstance(node, tree.Tuple):
        return node.opening + node.closing == "()" and all(
            isinstance(item, tree.Symbol) for item in node.items
        )
    return isinstance(node, tree.Symbol)


def _all_equal(sides: Sequence[tree.Node]) -> bool:
    first = sides[0]
    return all(
        side == first
        or (isinstance(side, tree.SCALARS) and isinstance(first, tree.SCALARS) and equal_values(first, side))
        for side in sides[1:]
    )


def equal(left: tree.Node, right: tree.Node) -> bool:
    """Whether two trees mean the same.

    Raises Unreadable if one is ambiguous, Undefined if one has no value, TooLarge if one cannot be computed,
    and Unproven if neither equality nor difference could be shown.
    """
    return left == right or _same(meaning(left), meaning(right))


def _same(left: Meaning, right: Meaning) -> bool:
    if left == right:
        return True
    numbered = without_numbers(left), without_numbers(right)
    if None in numbered:
        left, right = numbered[0] or left, numbered[1] or right
    for compare in (_by_region, _by_name, _as_values, _as_quantities):
        if (found := compare(left, right)) is not None:
            return found
    if isinstance(left, tree.SCALARS) and isinstance(right, tree.SCALARS):
        return equal_values(left, right)
    if isinstance(left, (tree.Words, tree.Mixed)) or isinstance(right, (tree.Words, tree.Mixed)):
        return _same_words(left, right)
    if type(left) is not type(right):
        return False
    return _same_structure(left, right)


def _same_structure(left: Meaning, right: Meaning) -> bool:
    """Of two of one kind."""
    match left, right:
        case tree.Tuple(), tree.Tuple():
            brackets = (left.opening, left.closing) == (right.opening, right.closing)
            return brackets and _all_same(left.items, right.items)
        case tree.Matrix(), tree.Matrix():
            same_width = len(left.rows[0]) == len(right.rows[0])
            return same_width and _all_same([*chain(*left.rows)], [*chain(*right.rows)])
        case tree.Ratio(), tree.Ratio():
            return _all_same(left.items, right.items)
        case tree.Congruence(), tree.Congruence():
            return equal(left.modulus, right.modulus) and _same_residues(left, right)
        case tree.Builder(), tree.Builder():
            same_set = (left.name, left.domain) == (right.name, right.domain)
            return same_set and equal(left.condition, right.condition)
        case tree.SetOperation(), tree.SetOperation():
            pairs = [(left.left, right.left), (left.right, right.right)]
            turned = [(left.left, right.right), (left.right, right.left)]
            either = [pairs] if left.name == "difference" else [pairs, turned]
            return left.name == right.name and any(all(equal(*pair) for pair in each) for each in either)
        case tree.Relation(), tree.Relation():
            return _matched(_links(left), _links(right), _same_link)
        case tree.Listing(), tree.Listing():
            return left.connector == right.connector and _matched(left.items, right.items)
    return False


def _same_residues(left: tree.Congruence, right: tree.Congruence) -> bool:
    """Of one modulus: x is 2 modulo 5 where it is 7."""
    modulus = left.modulus
    match left.statement, right.statement:
        case tree.Relation((name, mine), ("equiv",)), tree.Relation((other, theirs), ("equiv",)):
            numbers = isinstance(mine, tree.SCALARS) and isinstance(theirs, tree.SCALARS)
            if numbers and name == other and not names_in(mine, theirs, modulus):
                return equal_values(tree.Call("mod", (mine, modulus)), tree.Call("mod", (theirs, modulus)))
    return equal(left.statement, right.statement)


def _by_region(left: Meaning, right: Meaning) -> bool | None:
    """Sets of real numbers that are described in two ways."""
    if type(left) is type(right) and isinstance(left, (tree.Tuple, tree.Set)):
        return None
    if isinstance(left, (*tree.SCALARS, Named, Values)) and isinstance(right, (*tree.SCALARS, Named, Values)):
        return None
    regions = [None if isinstance(side, (Named, Values)) else region_of(side) for side in (left, right)]
    return regions[0].equals(regions[1]) if regions[0] and regions[1] else None


def _by_name(left: Meaning, right: Meaning) -> bool | None:
    """``x = 5`` is what 5 is, unless the other names something else."""
    match left, right:
        case Named(), Named():
            same_name = left.name == right.name
            return _same(left.value, right.value) if same_name else _same_equations(left, right)
        case _, Named():
            return _by_name(right, left)
        case Named(), tree.Relation():
            return _same_equations(left, right)
        case Named(tree.Tuple(items=names), tree.Tuple(items=values)), Values():
            each = [Named(*pair) for pair in zip(names, values, strict=False)]
            return len(names) == len(values) and _matched(each, right.items)
        case Named(), Values() if any(isinstance(item, Named) for item in right.items):
            return False
        case Named(), _:
            return _same(left.value, right)
    return None


def _same_equations(left: Meaning, right: Meaning) -> bool:
    relations = []
    for side in (left, right):
        if isinstance(side, Named):
            if not isinstance(side.value, tree.SCALARS):
                return False
            side = tree.Relation((side.name, side.value), ("=",))
        relations.append(side)
    return all(isinstance(each, tree.Relation) for each in relations) and _same_structure(*relations)


def _as_values(left: Meaning, right: Meaning) -> bool | None:
    """Several values in any order; a set holds each of them once."""
    match left, right:
        case tree.Set(), tree.Set():
            return _matched(_distinct(left.items), _distinct(right.items))
        case Values(), tree.Set():
            once = _distinct(left.items)
            return len(once) == len(left.items) and _matched(left.items, _distinct(right.items))
        case Values(), Values():
            named = {isinstance(item, Named) for item in (*left.items, *right.items)}
            return len(named) == 1 and _matched(left.items, right.items)
        case Values(), _:
            return False
        case _, Values():
            return _as_values(right, left)
    return None


def _as_quantities(left: Meaning, right: Meaning) -> bool | None:
    """A unit counts where both have one; degrees are a number as well."""
    if isinstance(right, tree.Quantity) and not isinstance(left, tree.Quantity):
        return _as_quantities(right, left)
    if not isinstance(left, tree.Quantity):
        return None
    if isinstance(right, tree.Quantity):
        return left.unit == right.unit and equal_values(left.value, right.value)
    if not isinstance(right, tree.SCALARS):
        return False
    if equal_values(left.value, right) or _same_letters(left, right):
        return True
    return left.unit == DEGREE and equal_values(tree.Call("degrees", (left.value,)), right)


def _same_letters(quantity: tree.Quantity, other: tree.Node) -> bool:
    """Whether the letters of a unit were read as variables, as in 9.8 m/s^2."""
    product = quantity.value
    for part in quantity.unit.split("*"):
        name, _, power = part.partition("^")
        product = tree.Call(
            "multiply", (product, tree.Call("power", (tree.Symbol(name), tree.Number(Fraction(power)))))
        )
    return all(len(name) == 1 for name in names_in(product)) and equal_values(product, other)


def _same_words(left: Meaning, right: Meaning) -> bool:
    if isinstance(left, tree.Words) and isinstance(right, tree.Words):
        return _folded(left.text) == _folded(right.text)
    if isinstance(left, tree.Mixed) and isinstance(right, tree.Mixed):
        return _all_same(left.parts, right.parts)
    words, other = (left, right) if isinstance(left, tree.Words) else (right, left)
    return (
        isinstance(words, tree.Words)
        and isinstance(other, (tree.Symbol, tree.Constant))
        and words.text == other.name
    )


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).removesuffix(".")


def _all_same(left: Sequence[tree.Node], right: Sequence[tree.Node]) -> bool:
    return len(left) == len(right) and all(map(equal, left, right))


def _matched(
    left: Sequence[Any], right: Sequence[Any], same: Callable[[Any, Any], bool] | None = None
) -> bool:
    """Whether each of one has another equal one of the other."""
    rest = list(right)
    for mine in left:
        found = next((at for at, theirs in enumerate(rest) if (same or _same)(mine, theirs)), None)
        if found is None:
            return False
        del rest[found]
    return not rest


def _distinct(items: Sequence[Meaning]) -> Sequence[Meaning]:
    kept: list[Meaning] = []
    for item in items:
        if not any(_same(item, other) for other in kept):
            kept.append(item)
    return kept


def _links(relation: tree.Relation) -> list[tuple[str, tree.Node, tree.Node]]:
    """The signs of a chain with what stands left and right of each, "greater" turned to "less"."""
    links = []
    for left, sign, right in zip(relation.sides, relation.signs, relation.sides[1:], strict=False):
        links.append((_TURNED[sign], right, left) if sign in _TURNED else (sign, left, right))
    return links


def _same_link(mine: tuple[str, tree.Node, tree.Node], theirs: tuple[str, tree.Node, tree.Node]) -> bool:
    sign, left, right = mine
    if sign != theirs[0]:
        return False
    if equal(left, theirs[1]) and equal(right, theirs[2]):
        return True
    if sign in _SYMMETRIC and equal(left, theirs[2]) and equal(right, theirs[1]):
        return True
    if sign in ("equiv", "in") or not all(
        isinstance(side, tree.SCALARS) for side in (left, right, *theirs[1:])
    ):
        return False
    differences = [tree.Call("add", (a, tree.Call("negative", (b,)))) for a, b in ((left, right), theirs[1:])]
    return proportional(*differences, positive=sign not in _SYMMETRIC)
