"""Whether two expressions, or two sets of real numbers, are equal, for all values of their variables."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cmp_to_key, lru_cache
from itertools import product
from typing import Final, TypeAlias

import sympy

from tunix_rt_evaluator.grading.formulas.computing import UNKNOWN_BASE, Computer, TooLarge, Undefined, Value
from tunix_rt_evaluator.grading.formulas.tree import (
    ALL_REAL,
    SCALARS,
    Builder,
    Call,
    Constant,
    Listing,
    Node,
    Number,
    Relation,
    Set,
    SetOperation,
    Symbol,
    Tuple,
    Words,
    walk,
)

_BITS: Final = 512
_MAX_BITS: Final = 200_000
_SEED: Final = 20_011
_POINTS: Final = 6
_POINTS_OF_PIECES: Final = 24
_MAX_TRIES: Final = 60
# Functions that are one formula on one side of a point and another on the other side.
_PIECES: Final = """
absolute norm floor ceil root ln log max min mod gcd lcm arcsin arccos double_factorial binomial
"""
_OF_PIECES: Final = frozenset(_PIECES.split())
_FAR: Final = 1e-9
_INFINITY: Final = Constant("infinity")

SECONDS: Final = 3.0
"""Of computing, for one proof."""
_MAX_NAMES: Final = 3
_CONSTANTS: Final = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
_UNKNOWN_BASE: Final = sympy.Symbol("log", positive=True)
_OF_ONE_NAME: Final = "sin cos tan cot sec csc sinh cosh tanh coth gcd lcm floor factorial binomial"
_FUNCTIONS: Final = {
    **{name: getattr(sympy, name) for name in _OF_ONE_NAME.split()},
    **{"arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "ceil": sympy.ceiling},
    **{"add": sympy.Add, "multiply": sympy.Mul, "absolute": sympy.Abs, "norm": sympy.Abs, "ln": sympy.log},
    **{"max": sympy.Max, "min": sympy.Min, "mod": sympy.Mod},
    "power": lambda base, exponent: (
        sympy.real_root(base, exponent.q) ** exponent.p
        if isinstance(exponent, sympy.Rational) and exponent.q % 2 and exponent.q > 1
        else sympy.Pow(base, exponent)
    ),
    "divide": lambda left, right: left / right,
    "negative": lambda value: -value,
    "percent": lambda value: value / 100,
    "degrees": lambda value: value * sympy.pi / 180,
    "root": lambda value, degree: sympy.real_root(value, degree) if degree % 2 else sympy.root(value, degree),
    "log": lambda value, base=None: sympy.log(value) / (_UNKNOWN_BASE if base is None else sympy.log(base)),
}


class Unproven(ArithmeticError):
    """Two expressions agree wherever they were computed, but their equality is not proved."""

    def __init__(self) -> None:
        super().__init__("both agree wherever they were computed, but that they are equal is not proved")


def names_in(*nodes: Node) -> frozenset[str]:
    """The variables of some trees."""
    return frozenset(part.name for node in nodes for part in walk(node) if isinstance(part, Symbol))


def sign_of_infinity(node: Node) -> int:
    """1 or -1 for an infinity, 0 for a number."""
    if node == _INFINITY:
        return 1
    return -1 if node == Call("negative", (_INFINITY,)) else 0


def equal_values(left: Node, right: Node) -> bool:
    """Whether two expressions are equal; raises Undefined, TooLarge, Unproven."""
    if left == right:
        return True
    infinite = sign_of_infinity(left), sign_of_infinity(right)
    if any(infinite):
        return infinite[0] == infinite[1]
    if not (names := names_in(left, right)) and not _has_unknown_base(left, right):
        return order(left, right, real=False) == 0
    pieces = _is_of_pieces(left) or _is_of_pieces(right)
    compared = 0
    for computer, given, wanted in _samples([left, right], names, pieces=pieces):
        if given is None or wanted is None or not computer.near(given, wanted):
            return False
        compared += 1
    if not compared:
        raise Undefined("it has no value")
    if pieces and not proved(left, right):
        raise Unproven
    return True


def proportional(left: Node, right: Node, *, positive: bool) -> bool:
    """Whether one expression is a constant times the other, and a ``positive`` one."""
    names = names_in(left, right)
    if not names or _is_of_pieces(left) or _is_of_pieces(right):
        return False
    first: Value = None
    for computer, given, wanted in _samples([left, right], names, pieces=False):
        if given is None or wanted is None:
            return False
        zeros = [computer.near(value, Fraction(0)) for value in (given, wanted)]
        if all(zeros):
            continue
        if any(zeros):
            return False
        ratio = computer.quotient(given, wanted)
        if positive and not (computer.is_real(ratio) and computer.order(ratio, Fraction(0)) > 0):
            return False
        first = ratio if first is None else first
        if not computer.near(ratio, first):
            return False
    return first is not None


def order(left: Node, right: Node, *, real: bool = True) -> int:
    """-1, 0 or 1 if ``left`` is less than, equal to or greater than ``right``; raises Undefined, TooLarge.

    Without ``real``, unequal numbers of which one is not real give 1.
    """
    first, second = _float(left), _float(right)
    if first is not None and second is not None and abs(first - second) > _FAR * (1 + abs(first)):
        if first.imag == second.imag == 0:
            return -1 if first.real < second.real else 1
        if not real:
            return 1
    computer, values = _computed((left, right), {UNKNOWN_BASE: Fraction(0)}, Computer.__call__)
    if not real and not all(computer.is_real(value) for value in values):
        return 0 if computer.near(*values) else 1
    return computer.order(*values)


@lru_cache(maxsize=2048)
def _float(node: Node) -> complex | None:
    """About what a number is; None where that takes more than a few digits to say."""
    computer = Computer(_BITS, {UNKNOWN_BASE: Fraction(0)})
    try:
        value = complex(computer(node))
    except (Undefined, TooLarge, OverflowError):
        return None
    return value if computer.largest - computer.smallest < _BITS // 8 else None


def is_real_number(node: Node) -> bool:
    """Whether an expression is one real number."""
    if names_in(node) or _has_unknown_base(node):
        return False
    computer = Computer(_BITS, {})
    try:
        return computer.is_real(computer(node))
    except (Undefined, TooLarge):
        return False


def _computed(
    nodes: Sequence[Node], point: Mapping[str, Value], value_of: Callable[[Computer, Node], Value]
) -> tuple[Computer, list[Value]]:
    """Values to as many digits as tell apart what differs by the smallest number that occurred; raises
    TooLarge."""
    bits = _BITS
    while True:
        computer = Computer(bits, point)
        values = [value_of(computer, node) for node in nodes]
        needed = 8 * (computer.largest - computer.smallest) + _BITS // 2
        if needed > _MAX_BITS:
            raise TooLarge
        # What seems to be undefined may only have too few digits.
        if bits >= needed or all(isinstance(value, Fraction) for value in values):
            return computer, values
        # Powers of 2, of which there are few.
        bits = 1 << needed.bit_length()


def _samples(
    nodes: Sequence[Node], names: frozenset[str], *, pieces: bool
) -> Iterator[tuple[Computer, Value, Value]]:
    """Values of two expressions at some points; None where only the other one has a value."""
    rng = random.Random(_SEED)
    found = tries = 0
    too_large = False
    while found < (_POINTS_OF_PIECES if pieces else _POINTS) and tries < _MAX_TRIES:
        tries += 1
        try:
            computer, values = _computed(nodes, _point(rng, names, wide=pieces and tries % 2 == 0), _value)
        except TooLarge:
            too_large = True
            continue
        if any(value is not None for value in values):
            found += 1
            yield computer, values[0], values[1]
    if not found and too_large:
        raise TooLarge


def _value(computer: Computer, node: Node) -> Value:
    try:
        return computer(node)
    except Undefined:
        return None


def _point(rng: random.Random, names: frozenset[str], *, wide: bool) -> Mapping[str, Fraction]:
    """A value for each name: near 1, or of any size."""
    point = {UNKNOWN_BASE: Fraction(rng.randint(20, 60), 17)}
    for name in sorted(names):
        size = Fraction(10) ** rng.randint(-2, 5) if wide else 1
        point[name] = size * rng.choice((-1, 1)) * Fraction(rng.randint(11, 120), rng.choice((41, 43, 47)))
    return point


def _has_unknown_base(*nodes: Node) -> bool:
    return any(
        isinstance(part, Call) and part.name == "log" and len(part.arguments) == 1
        for node in nodes
        for part in walk(node)
    )


def _is_of_pieces(node: Node) -> bool:
    return any(
        isinstance(part, Call) and _takes_pieces(part) and names_in(*part.arguments) for part in walk(node)
    )


def _takes_pieces(node: Call) -> bool:
    if node.name != "power":
        return node.name in _OF_PIECES
    base, exponent = node.arguments
    whole = isinstance(exponent, Call) and exponent.name == "negative" and len(exponent.arguments) == 1
    exponent = exponent.arguments[0] if whole and isinstance(exponent, Call) else exponent
    return bool(names_in(base)) and not (isinstance(exponent, Number) and exponent.value.denominator == 1)


class _Late(BaseException):
    """The time for a proof is over."""


def proved(left: Node, right: Node) -> bool:
    """Whether SymPy proves in time that two expressions of real variables are equal."""
    try:
        with _bounded():
            difference = _expression(left) - _expression(right)
            if _vanishes(difference):
                return True
            factorials = difference.has(sympy.binomial, sympy.factorial)
            if factorials and _vanishes(sympy.gammasimp(difference.rewrite(sympy.gamma))):
                return True
            return _vanishes_by_signs(difference)
    except (KeyError, _Late):
        return False


def _vanishes(difference: sympy.Expr) -> bool:
    return bool(difference == 0 or sympy.simplify(difference) == 0)


def _vanishes_by_signs(difference: sympy.Expr) -> bool:
    """Whether it is zero whatever signs its variables have."""
    names = sorted(difference.free_symbols - {_UNKNOWN_BASE}, key=str)
    if not 0 < len(names) <= _MAX_NAMES:
        return False
    sizes = [sympy.Symbol(f"{name}+", positive=True) for name in names]
    signed = [dict(zip(names, values, strict=True)) for values in product(*((size, -size) for size in sizes))]
    return all(_vanishes(difference.subs(values)) for values in signed)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Ends what takes too long; only in a process's main thread, as the sandbox's, where it may."""

    def end(*_: object) -> None:
        raise _Late

    try:
        before = signal.signal(signal.SIGVTALRM, end)
    except ValueError:
        yield
        return
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _expression(node: Node) -> sympy.Expr:
    if isinstance(node, Number):
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Symbol):
        return sympy.Symbol(f"{node.name} ", real=True)
    if isinstance(node, Constant):
        return _CONSTANTS[node.name]
    assert isinstance(node, Call)
    return _FUNCTIONS[node.name](*map(_expression, node.arguments))


Cut: TypeAlias = tuple[Node, int]
"""A place on the line: just before a number (0) or just behind it (1)."""

_MINUS_INFINITY: Final = Call("negative", (_INFINITY,))
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
            _compare_cuts(mine, theirs) == 0 for mine, theirs in zip(self.cuts, other.cuts, strict=True)
        )


def region_of(node: Node) -> Region | None:
    """The numbers that a tree describes; None if it is no set of real numbers."""
    if isinstance(node, Tuple):
        return _interval(node)
    if isinstance(node, Set):
        points = [_region_of_point(item) for item in node.items]
        return None if None in points else _joined_regions("", [point for point in points if point], "union")
    if node == Symbol("mathbb R") or (isinstance(node, Words) and node.text.casefold() in ALL_REAL):
        return Region("", _LINE)
    if isinstance(node, SetOperation):
        return _of_two_regions(region_of(node.left), region_of(node.right), node.name)
    if isinstance(node, Builder):
        if node.domain is not None:
            return None
        found = region_of(node.condition)
        return Region("", found.cuts) if found and found.name == node.name else None
    if isinstance(node, Listing) and node.connector != ",":
        regions = [_region_of_statement(item) for item in node.items]
        found = regions[0]
        for region in regions[1:]:
            found = _of_two_regions(found, region, node.connector)
        return found
    return _region_of_relation(node) if isinstance(node, Relation) else None


def _interval(node: Tuple) -> Region | None:
    if len(node.items) != _PAIR or node.opening not in "([" or node.closing not in ")]":
        return None
    begin, end = node.items
    cuts = ((begin, int(node.opening == "(")), (end, int(node.closing == "]")))
    if not (_is_place(begin) and _is_place(end)) or _compare_cuts((begin, 0), (end, 0)) >= 0:
        return None
    # What is closed at infinity is no interval of real numbers.
    if (sign_of_infinity(begin) and cuts[0][1] == 0) or (sign_of_infinity(end) and cuts[1][1] == 1):
        return None
    return Region("", cuts)


def _is_place(node: Node) -> bool:
    return isinstance(node, SCALARS) and (bool(sign_of_infinity(node)) or is_real_number(node))


def _region_of_point(node: Node) -> Region | None:
    if not _is_place(node) or sign_of_infinity(node):
        return None
    return Region("", ((node, 0), (node, 1)))


def _region_of_statement(node: Node) -> Region | None:
    """As a part of a list an equation is a point."""
    if isinstance(node, Relation) and node.signs == ("=",) and isinstance(node.sides[0], Symbol):
        point = _region_of_point(node.sides[1])
        return point and Region(node.sides[0].name, point.cuts)
    return region_of(node)


def _region_of_relation(node: Relation) -> Region | None:
    if node.signs == ("in",) and isinstance(node.sides[0], Symbol):
        found = region_of(node.sides[1])
        return found and Region(node.sides[0].name, found.cuts)
    names = {side.name for side in node.sides if isinstance(side, Symbol)}
    if len(names) != 1:
        return None
    name = names.pop()
    line: Region | None = Region(name, _LINE)
    for left, sign, right in zip(node.sides, node.signs, node.sides[1:], strict=False):
        line = _of_two_regions(line, _half_line(left, sign, right), "intersection")
    return line


def _half_line(left: Node, sign: str, right: Node) -> Region | None:
    if not isinstance(left, Symbol):
        left, right = right, left
        sign = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
    if not isinstance(left, Symbol) or not _is_place(right):
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


def _of_two_regions(left: Region | None, right: Region | None, operation: str) -> Region | None:
    if left is None or right is None or (left.name and right.name and left.name != right.name):
        return None
    return _joined_regions(left.name or right.name, [left, right], operation)


def _joined_regions(name: str, regions: Sequence[Region], operation: str) -> Region:
    cuts: Sequence[Cut] = regions[0].cuts if regions else ()
    for region in regions[1:]:
        cuts = _swept(cuts, region.cuts, _OPERATIONS[operation])
    return Region(name, cuts)


def _swept(left: Sequence[Cut], right: Sequence[Cut], holds: Callable[[bool, bool], bool]) -> Sequence[Cut]:
    """The cuts at which ``holds`` changes, from left to right."""
    by_place = cmp_to_key(_compare_cuts)
    sides = [(cut, 0) for cut in left] + [(cut, 1) for cut in right]
    places = sorted(sides, key=lambda place: by_place(place[0]))
    inside, before, cuts = [False, False], False, []
    for at, (cut, side) in enumerate(places):
        inside[side] = not inside[side]
        if at + 1 < len(places) and _compare_cuts(cut, places[at + 1][0]) == 0:
            continue
        if (now := holds(*inside)) != before:
            cuts.append(cut)
            before = now
    return cuts


def _compare_cuts(left: Cut, right: Cut) -> int:
    infinite = sign_of_infinity(left[0]), sign_of_infinity(right[0])
    by_place = infinite[0] - infinite[1] if any(infinite) else order(left[0], right[0])
    return by_place or left[1] - right[1]
