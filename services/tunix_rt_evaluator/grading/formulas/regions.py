"""Sets of real numbers that intervals, inequalities and excluded numbers describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Final, TypeAlias

from tunix_rt_evaluator.grading.formulas import tree
from tunix_rt_evaluator.grading.formulas.scalars import is_real_number, order, sign_of_infinity

Cut: TypeAlias = tuple[tree.Node, int]
"""A place on the line: just before a number (0) or just behind it (1)."""

_INFINITY: Final = tree.Constant("infinity")
_MINUS_INFINITY: Final = tree.Call("negative", (_INFINITY,))
_BEGIN: Final = (_MINUS_INFINITY, 1)
_END: Final = (_INFINITY, 0)
_LINE: Final = (_BEGIN, _END)
_OPERATIONS: Final[dict[str, Callable[[bool, bool], bool]]] = {
    "union": lambda left, right: left or right,
    "intersection": lambda left, right: left and right,
    "difference": lambda left, right: left and not right,
    "or": lambda left, right: left or right,
    "and": lambda left, right: left and right,
}
_PAIR: Final = 2


@dataclass(frozen=True, slots=True)
class Region:
    """The numbers between each even cut and the next one; ``name`` is their variable, if one is named."""

    name: str
    cuts: Sequence[Cut]

    def equals(self, other: Region) -> bool:
        """Whether both hold the same numbers, for the same variable."""
        if self.name and other.name and self.name != other.name:
            return False
        return len(self.cuts) == len(other.cuts) and all(
            _compare(mine, theirs) == 0 for mine, theirs in zip(self.cuts, other.cuts, strict=True)
        )


def region_of(node: tree.Node) -> Region | None:
    """The numbers that a tree describes; None if it is no set of real numbers."""
    if isinstance(node, tree.Tuple):
        return _interval(node)
    if isinstance(node, tree.Set):
        points = [_point(item) for item in node.items]
        return None if None in points else _joined("", [point for point in points if point], "union")
    if node == tree.Symbol("mathbb R") or (
        isinstance(node, tree.Words) and node.text.casefold() in tree.ALL_REAL
    ):
        return Region("", _LINE)
    if isinstance(node, tree.SetOperation):
        return _of_both(region_of(node.left), region_of(node.right), node.name)
    if isinstance(node, tree.Builder):
        if node.domain is not None:
            return None
        found = region_of(node.condition)
        return Region("", found.cuts) if found and found.name == node.name else None
    if isinstance(node, tree.Listing) and node.connector != ",":
        regions = [_of_statement(item) for item in node.items]
        found = regions[0]
        for region in regions[1:]:
            found = _of_both(found, region, node.connector)
        return found
    return _of_relation(node) if isinstance(node, tree.Relation) else None


def _interval(node: tree.Tuple) -> Region | None:
    if len(node.items) != _PAIR or node.opening not in "([" or node.closing not in ")]":
        return None
    begin, end = node.items
    cuts = ((begin, int(node.opening == "(")), (end, int(node.closing == "]")))
    if not (_is_place(begin) and _is_place(end)) or _compare((begin, 0), (end, 0)) >= 0:
        return None
    # What is closed at infinity is no interval of real numbers.
    if (sign_of_infinity(begin) and cuts[0][1] == 0) or (sign_of_infinity(end) and cuts[1][1] == 1):
        return None
    return Region("", cuts)


def _is_place(node: tree.Node) -> bool:
    return isinstance(node, tree.SCALARS) and (bool(sign_of_infinity(node)) or is_real_number(node))


def _point(node: tree.Node) -> Region | None:
    if not _is_place(node) or sign_of_infinity(node):
        return None
    return Region("", ((node, 0), (node, 1)))


def _of_statement(node: tree.Node) -> Region | None:
    """As a part of a list an equation is a point."""
    if isinstance(node, tree.Relation) and node.signs == ("=",) and isinstance(node.sides[0], tree.Symbol):
        point = _point(node.sides[1])
        return point and Region(node.sides[0].name, point.cuts)
    return region_of(node)


def _of_relation(node: tree.Relation) -> Region | None:
    if node.signs == ("in",) and isinstance(node.sides[0], tree.Symbol):
        found = region_of(node.sides[1])
        return found and Region(node.sides[0].name, found.cuts)
    names = {side.name for side in node.sides if isinstance(side, tree.Symbol)}
    if len(names) != 1:
        return None
    name = names.pop()
    line: Region | None = Region(name, _LINE)
    for left, sign, right in zip(node.sides, node.signs, node.sides[1:], strict=False):
        line = _of_both(line, _half_line(left, sign, right), "intersection")
    return line


def _half_line(left: tree.Node, sign: str, right: tree.Node) -> Region | None:
    if not isinstance(left, tree.Symbol):
        left, right = right, left
        sign = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
    if not isinstance(left, tree.Symbol) or not _is_place(right):
        return None
    if infinite := sign_of_infinity(right):
        # All numbers are below infinity; none is more than it, or it.
        return Region(left.name, _LINE) if (sign, infinite) in (("<", 1), (">", -1)) else None
    cuts: dict[str, Sequence[Cut]] = {
        "<": (_BEGIN, (right, 0)),
        "<=": (_BEGIN, (right, 1)),
        ">": ((right, 1), _END),
        ">=": ((right, 0), _END),
        "!=": (_BEGIN, (right, 0), (right, 1), _END),
    }
    return Region(left.name, cuts[sign]) if sign in cuts else None


def _of_both(left: Region | None, right: Region | None, operation: str) -> Region | None:
    if left is None or right is None or (left.name and right.name and left.name != right.name):
        return None
    return _joined(left.name or right.name, [left, right], operation)


def _joined(name: str, regions: Sequence[Region], operation: str) -> Region:
    cuts: Sequence[Cut] = regions[0].cuts if regions else ()
    for region in regions[1:]:
        cuts = _swept(cuts, region.cuts, _OPERATIONS[operation])
    return Region(name, cuts)


def _swept(left: Sequence[Cut], right: Sequence[Cut], holds: Callable[[bool, bool], bool]) -> Sequence[Cut]:
    """The cuts at which ``holds`` changes, from left to right."""
    places = sorted([(cut, 0) for cut in left] + [(cut, 1) for cut in right], key=_BY_PLACE)
    inside, before, cuts = [False, False], False, []
    for at, (cut, side) in enumerate(places):
        inside[side] = not inside[side]
        if at + 1 < len(places) and _compare(cut, places[at + 1][0]) == 0:
            continue
        if (now := holds(*inside)) != before:
            cuts.append(cut)
            before = now
    return cuts


def _compare(left: Cut, right: Cut) -> int:
    infinite = sign_of_infinity(left[0]), sign_of_infinity(right[0])
    by_place = infinite[0] - infinite[1] if any(infinite) else order(left[0], right[0])
    return by_place or left[1] - right[1]


def _by_place(left: tuple[Cut, int], right: tuple[Cut, int]) -> int:
    return _compare(left[0], right[0])


_BY_PLACE: Final = cmp_to_key(_by_place)
