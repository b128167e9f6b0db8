"""Computes the value of a tree: exactly if it is rational, else to the precision that is asked for."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, TypeAlias

import mpmath
from mpmath.libmp import NoConvergence
from sympy import integer_nthroot

from tunix_rt_evaluator.grading.formulas.tree import Call, Constant, Node, Number, Symbol

Value: TypeAlias = Any
"""A Fraction where it is exact, else one of mpmath's numbers."""

UNKNOWN_BASE: Final = "log"
"""The name of what a logarithm without a base is divided by: some say e, and others 10."""
MAX_BITS: Final = 60_000
"""Of an exact number, above and below the line, and of the exponent of 2 of any other."""
_MAX_FACTORIAL: Final = 4_000
_MAX_GAMMA_BITS: Final = 1_024  # more take seconds
_MAX_DETERMINANT: Final = 25
# By the name that mpmath gives them.
_TRIGONOMETRIC: Final = {
    **{name: name for name in ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"]},
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
}
_OF_ONE: Final[Mapping[str, Callable[[Value], Value]]] = {
    "negative": operator.neg,
    "percent": lambda value: value / 100,
    "absolute": abs,
    "norm": abs,
}
_ZERO_AT_ZERO: Final = frozenset(("sin", "tan", "arcsin", "arctan", "sinh", "tanh"))


class Undefined(ArithmeticError):
    """An expression has no value, such as 1/0."""


class TooLarge(ArithmeticError):
    """A number on the way is too large, or too small, to be computed."""

    def __init__(self) -> None:
        super().__init__("a number in it is too large or too small to be computed")


class Computer:
    """Computes trees with ``bits`` of precision.

    ``largest`` and ``smallest`` are the exponents of 2 of the numbers that occurred; the largest one
    decides how large rounding errors are.

    Args:
        bits: precision of what is not rational.
        values: the value of each symbol.
    """

    def __init__(self, bits: int, values: Mapping[str, Value]) -> None:
        self._context = _context(bits)
        self._values = values
        self.largest = 0
        self.smallest = 0

    def __call__(self, node: Node) -> Value:
        """The value of a tree; raises Undefined, TooLarge."""
        try:
            return self._noted(self._value(node))
        except (ZeroDivisionError, ValueError, NoConvergence) as error:
            raise Undefined(str(error)) from None
        except OverflowError:
            raise TooLarge from None

    def near(self, left: Value, right: Value) -> bool:
        """Whether two values are equal up to rounding errors."""
        if _exact(left, right):
            return bool(left == right)
        difference = abs(self._number(left) - self._number(right))
        return bool(difference <= self._context.ldexp(1, self.largest - self._context.prec // 2))

    def order(self, left: Value, right: Value) -> int:
        """-1, 0 or 1 if ``left`` is less than, equal to or greater than ``right``.

        Raises Undefined if one is not real.
        """
        if self.near(left, right):
            return 0
        return -1 if self._of_both(operator.lt, self._real(left), self._real(right)) else 1

    def is_real(self, value: Value) -> bool:
        """Whether a value has no imaginary part."""
        return isinstance(value, Fraction) or self.near(self._number(value).imag, Fraction(0))

    def quotient(self, left: Value, right: Value) -> Value:
        """``left`` divided by ``right``; raises Undefined."""
        return self._noted(self._of_divide(left, right))

    def _value(self, node: Node) -> Value:
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Symbol):
            return self._values[node.name]
        if isinstance(node, Constant):
            if node.name == "infinity":
                raise Undefined("it computes with infinity")
            return self._context.mpc(0, 1) if node.name == "i" else +getattr(self._context, node.name)
        assert isinstance(node, Call)
        if node.name == "power" and node.arguments[0] == Constant("e"):
            return self._exponential(self(node.arguments[1]))
        arguments = [self(argument) for argument in node.arguments]
        if node.name in _TRIGONOMETRIC:
            return self._trigonometric(node.name, *arguments)
        if node.name in _OF_ONE:
            return _OF_ONE[node.name](*arguments)
        operation = getattr(self, f"_of_{node.name}", None)
        if operation is None:
            raise Undefined(f"it computes with {node.name}")
        return operation(*arguments)

    def _noted(self, value: Value) -> Value:
        """A value, its size noted."""
        if isinstance(value, Fraction):
            top, bottom = value.numerator.bit_length(), value.denominator.bit_length()
            if max(top, bottom) > MAX_BITS:
                raise TooLarge
            if value:
                self._note(top - bottom)
            return value
        size = abs(value)
        if not self._context.isfinite(size):
            raise Undefined("it is not finite")
        if size:
            self._note(int(self._context.mag(size)))
        return value

    def _note(self, exponent: int) -> None:
        if abs(exponent) > MAX_BITS:
            raise TooLarge
        self.largest, self.smallest = max(self.largest, exponent), min(self.smallest, exponent)

    def _number(self, value: Value) -> Any:
        if isinstance(value, Fraction):
            return self._context.mpf(value.numerator) / value.denominator
        return value

    def _real(self, value: Value) -> Value:
        if not self.is_real(value):
            raise Undefined("it is not real")
        return value if isinstance(value, Fraction) else value.real

    def _of_both(self, operation: Callable[[Any, Any], Any], left: Value, right: Value) -> Value:
        if _exact(left, right):
            return operation(left, right)
        return operation(self._number(left), self._number(right))

    def _of_add(self, left: Value, right: Value) -> Value:
        return self._of_both(operator.add, left, right)

    def _of_multiply(self, left: Value, right: Value) -> Value:
        return self._of_both(operator.mul, left, right)

    def _of_divide(self, left: Value, right: Value) -> Value:
        if self.near(right, Fraction(0)):
            raise Undefined("it divides by zero")
        return self._of_both(operator.truediv, left, right)

    def _of_degrees(self, value: Value) -> Value:
        return self._number(value) * self._context.pi / 180

    def _of_power(self, base: Value, exponent: Value) -> Value:
        if _is_whole(exponent):
            return self._whole_power(base, int(exponent))
        if isinstance(exponent, Fraction) and exponent.denominator <= MAX_BITS:
            # Of a negative number it is the real root, where there is one, as for the root's own sign.
            root = self._of_root(base, Fraction(exponent.denominator))
            return self._whole_power(root, exponent.numerator)
        if self.near(base, Fraction(0)):
            raise Undefined("it is a power of zero that is not whole")
        return self._exponential(self._of_multiply(exponent, self._context.log(self._number(base))))

    def _whole_power(self, base: Value, exponent: int) -> Value:
        if exponent <= 0 and self.near(base, Fraction(0)):
            raise Undefined("it is zero to the power of zero or less")
        if isinstance(base, Fraction):
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
            size = 0 if abs(base) == 1 else size
        else:
            size = 1 + abs(int(self._context.mag(abs(base)))) if base else 0
        if size * abs(exponent) > 2 * MAX_BITS:
            raise TooLarge
        return base**exponent

    def _exponential(self, exponent: Value) -> Value:
        if exponent == 0:
            return Fraction(1)
        number = self._number(exponent)
        if abs(number) > MAX_BITS:
            raise TooLarge
        return self._context.exp(number)

    def _of_root(self, radicand: Value, degree: Value) -> Value:
        if not _is_whole(degree) or not 0 < degree <= MAX_BITS:
            raise Undefined("the degree of a root is no whole number")
        times = int(degree)
        odd = bool(times % 2)
        if isinstance(radicand, Fraction) and (radicand >= 0 or odd):
            root = _exact_root(abs(radicand), times)
            if root is not None:
                return -root if radicand < 0 else root
        if odd and self.is_real(radicand):
            real = self._real(self._number(radicand))
            root = self._context.root(abs(real), times)
            return -root if real < 0 else root
        return self._context.root(self._number(radicand), times)

    def _of_factorial(self, value: Value) -> Value:
        if abs(self._number(value)) > _MAX_FACTORIAL:
            raise TooLarge
        if not _is_whole(value):
            if self._context.prec > _MAX_GAMMA_BITS:
                raise TooLarge
            return self._noted(self._context.gamma(self._number(value) + 1))
        if value < 0:
            raise Undefined("it is the factorial of a negative number")
        return Fraction(math.factorial(int(value)))

    def _of_double_factorial(self, value: Value) -> Value:
        if not _is_whole(value) or value < 0:
            raise Undefined("it is the double factorial of what is no whole number")
        if value > _MAX_FACTORIAL:
            raise TooLarge
        return Fraction(math.prod(range(int(value), 0, -2)))

    def _of_binomial(self, top: Value, bottom: Value) -> Value:
        if _is_whole(top) and _is_whole(bottom):
            if max(abs(top), abs(bottom)) > _MAX_FACTORIAL:
                raise TooLarge
            if top >= 0 and bottom >= 0:
                return Fraction(math.comb(int(top), int(bottom)))
        rest = self._of_factorial(self._of_add(top, -bottom))
        below = self._of_multiply(self._of_factorial(bottom), rest)
        return self._of_divide(self._of_factorial(top), below)

    def _of_floor(self, value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(math.floor(value))
        real = self._real(value)
        nearest = Fraction(int(self._context.nint(real)))
        return nearest if self.near(real, nearest) else Fraction(int(self._context.floor(real)))

    def _of_ceil(self, value: Value) -> Value:
        return -self._of_floor(-value)

    def _of_ln(self, value: Value) -> Value:
        if self.near(value, Fraction(0)):
            raise Undefined("it is the logarithm of zero")
        return Fraction(0) if value == 1 else self._context.log(self._number(value))

    def _of_log(self, value: Value, base: Value | None = None) -> Value:
        divisor = self._values[UNKNOWN_BASE] if base is None else self._of_ln(base)
        return self._of_divide(self._of_ln(value), divisor)

    def _of_gcd(self, *values: Value) -> Value:
        return Fraction(math.gcd(*map(_whole, values)))

    def _of_lcm(self, *values: Value) -> Value:
        return Fraction(math.lcm(*map(_whole, values)))

    def _of_max(self, *values: Value) -> Value:
        best = values[0]
        for value in values[1:]:
            best = value if self.order(value, best) > 0 else best
        return best

    def _of_min(self, *values: Value) -> Value:
        return -self._of_max(*(-value for value in values))

    def _of_mod(self, value: Value, modulus: Value) -> Value:
        if not (_exact(value, modulus) and modulus > 0):
            raise Undefined("it is a remainder of what is not rational")
        return value % modulus

    def _of_determinant(self, *entries: Value) -> Value:
        size = math.isqrt(len(entries))
        if len(entries) > _MAX_DETERMINANT:
            raise TooLarge
        if size == 1:
            return entries[0]
        total: Value = Fraction(0)
        for column in range(size):
            minor = [entries[row * size + at] for row in range(1, size) for at in range(size) if at != column]
            term = self._of_multiply(entries[column], self._of_determinant(*minor))
            total = self._of_add(total, -term if column % 2 else term)
        return total

    def _trigonometric(self, name: str, value: Value) -> Value:
        if value == 0 and name in _ZERO_AT_ZERO:
            return Fraction(0)
        found = getattr(self._context, _TRIGONOMETRIC[name])(self._number(value))
        if abs(found) > self._context.ldexp(1, self._context.prec // 4):
            raise Undefined(f"it is a pole of {name}")
        return found


@lru_cache(maxsize=16)
def _context(bits: int) -> mpmath.MPContext:
    # To make one takes as long as hundreds of operations.
    context = mpmath.MPContext()
    context.prec = bits
    return context


def _exact(*values: Value) -> bool:
    return all(isinstance(value, Fraction) for value in values)


def _is_whole(value: Value) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _whole(value: Value) -> int:
    if not _is_whole(value):
        raise Undefined("it is a divisor or a multiple of what is no whole number")
    return int(value)


def _exact_root(radicand: Fraction, degree: int) -> Fraction | None:
    """The root of a number that is not negative, where it is rational."""
    roots = [integer_nthroot(whole, degree) for whole in (radicand.numerator, radicand.denominator)]
    return Fraction(*(root for root, _ in roots)) if all(exact for _, exact in roots) else None
