"""Proves by SymPy that two expressions are equal where sampling does not settle it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from itertools import product
from typing import Final

import sympy

from tunix_rt_evaluator.grading.formulas.tree import Call, Constant, Node, Number, Symbol

SECONDS: Final = 3.0
"""Of computing, for one proof."""
_MAX_NAMES: Final = 3
_CONSTANTS: Final = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
_UNKNOWN_BASE: Final = sympy.Symbol("log", positive=True)
_FUNCTIONS: Final = {
    **{
        name: getattr(sympy, name)
        for name in ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "gcd", "lcm"]
    },
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "add": sympy.Add,
    "multiply": sympy.Mul,
    "power": lambda base, exponent: (
        sympy.real_root(base, exponent.q) ** exponent.p
        if isinstance(exponent, sympy.Rational) and exponent.q % 2 and exponent.q > 1
        else sympy.Pow(base, exponent)
    ),
    "divide": lambda left, right: left / right,
    "negative": lambda value: -value,
    "percent": lambda value: value / 100,
    "degrees": lambda value: value * sympy.pi / 180,
    "absolute": sympy.Abs,
    "norm": sympy.Abs,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "ln": sympy.log,
    "max": sympy.Max,
    "min": sympy.Min,
    "mod": sympy.Mod,
    "factorial": sympy.factorial,
    "binomial": sympy.binomial,
    "root": lambda value, degree: sympy.real_root(value, degree) if degree % 2 else sympy.root(value, degree),
    "log": lambda value, base=None: sympy.log(value) / (_UNKNOWN_BASE if base is None else sympy.log(base)),
}


class _Late(BaseException):
    """The time for a proof is over."""


def proved(left: Node, right: Node) -> bool:
    """Whether SymPy finds, in time, that two expressions of real variables do not differ."""
    try:
        with _bounded():
            difference = _expression(left) - _expression(right)
            return (
                difference == 0
                or any(_vanishes(each) for each in (difference, *_by_factorials(difference)))
                or _vanishes_by_signs(difference)
            )
    except (KeyError, _Late):
        return False


def _by_factorials(difference: sympy.Expr) -> Iterator[sympy.Expr]:
    if difference.has(sympy.binomial, sympy.factorial):
        yield sympy.gammasimp(difference.rewrite(sympy.gamma))


def _vanishes(difference: sympy.Expr) -> bool:
    return bool(difference == 0 or sympy.simplify(difference) == 0)


def _vanishes_by_signs(difference: sympy.Expr) -> bool:
    """Whether it is zero whatever signs its variables have."""
    names = sorted(difference.free_symbols - {_UNKNOWN_BASE}, key=str)
    if not 0 < len(names) <= _MAX_NAMES:
        return False
    sizes = [sympy.Symbol(f"{name}+", positive=True) for name in names]
    return all(
        _vanishes(
            difference.subs({name: sign * size for name, size, sign in zip(names, sizes, signs, strict=True)})
        )
        for signs in product((1, -1), repeat=len(names))
    )


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Ends what takes too long; only in a process's main thread, as the sandbox's, where it may."""
    try:
        before = signal.signal(signal.SIGVTALRM, _end)
    except ValueError:
        yield
        return
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _end(*_: object) -> None:
    raise _Late


def _expression(node: Node) -> sympy.Expr:
    if isinstance(node, Number):
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Symbol):
        return sympy.Symbol(f"{node.name} ", real=True)
    if isinstance(node, Constant):
        return _CONSTANTS[node.name]
    assert isinstance(node, Call)
    return _FUNCTIONS[node.name](*map(_expression, node.arguments))
