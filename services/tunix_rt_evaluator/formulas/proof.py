"""Proves by SymPy that two expressions are equal where sampling does not settle it."""

from __future__ import annotations

from typing import Final

import sympy

from tunix_rt_evaluator.formulas.tree import Call, Constant, Node, Number, Symbol

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


def proved(left: Node, right: Node) -> bool:
    """Whether SymPy finds that two expressions of real variables do not differ."""
    try:
        difference = _expression(left) - _expression(right)
    except KeyError:
        return False
    return bool(difference == 0 or sympy.simplify(difference) == 0)


def _expression(node: Node) -> sympy.Expr:
    if isinstance(node, Number):
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Symbol):
        return sympy.Symbol(f"{node.name} ", real=True)
    if isinstance(node, Constant):
        return _CONSTANTS[node.name]
    assert isinstance(node, Call)
    return _FUNCTIONS[node.name](*map(_expression, node.arguments))
