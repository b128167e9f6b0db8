"""Whether two expressions are equal, for all values of their variables."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Final

import sympy

from tunix_rt_evaluator.grading.formulas.computing import UNKNOWN_BASE, Computer, TooLarge, Undefined, Value
from tunix_rt_evaluator.grading.formulas.tree import Call, Constant, Node, Number, Symbol, walk

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
