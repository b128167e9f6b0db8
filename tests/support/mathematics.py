"""Random mathematical values, and many ways to write each."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

UNITS = {
    "cm": ("cm", r"\text{ cm}", "centimeters", r"\,\mathrm{cm}"),
    "kg": ("kg", r"\text{ kg}", "kilograms"),
}
WORDS = ("Monday", "red", "Paris", "no solution", "Evelyn", "isosceles")


@dataclass(frozen=True)
class Value:
    """A value: two are equal where kind and content are; ``spell`` writes it in a random way."""

    kind: str
    content: Any

    def spell(self, draw: random.Random) -> str:
        """One of its spellings, as an answer may have it around."""
        text = SPELLED[self.kind](draw, self.content)
        if self.kind == "words":
            return draw.choice((text, rf"\text{{{text}}}", rf"\mathrm{{{text}}}", f"{text}."))
        return draw.choice(
            (text, text, f"${text}$", rf"\({text}\)", f" {text} ", f"{text}.", rf"\[{text}\]", f"${text}$.")
        )


def number(draw: random.Random) -> Fraction:
    """A rational number, not 0."""
    top = draw.choice((1, 2, 3, 5, 7, 8, 10, 12, 25, 36, 100, 144, 1000, 1234, 12_345, 1_000_000))
    return Fraction(draw.choice((1, -1)) * top, draw.choice((1, 1, 1, 2, 3, 4, 5, 7, 8, 10, 100)))


def spelled_number(draw: random.Random, value: Fraction, *, simple: bool = False) -> str:
    """A rational number; where it is part of something, ``simple``: as digits or a LaTeX fraction."""
    minus = draw.choice(("-", "-", "\u2212", "- ")) if value < 0 else draw.choice(("", "", "", "+"))
    if simple:
        minus = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    forms: list[str] = []
    if bottom == 1:
        forms.append(str(top))
        if not simple:
            forms += [f"{top}.0", f"{top}.00", rf"\frac{{{top * 3}}}{{3}}", f"{top * 100}\\%", f"{top * 2}/2"]
            if top >= 1000:
                forms += [
                    f"{top:,}".replace(",", between)
                    for between in (",", "{,}", r"\,", r",\!", " ", "~", "\u202f")
                ]
    else:
        forms += [rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{top}}}{{{bottom}}}", f"{top}/{bottom}"]
        if not simple:
            forms += [
                rf"\tfrac{{{2 * top}}}{{{2 * bottom}}}",
                rf"{{{top} \over}}"[:0] or rf"\frac{{{top}}}{{{bottom}}}",
            ]
            if top < 10 and bottom < 10:
                forms += [rf"\frac{top}{bottom}", rf"\frac {top} {bottom}"]
            if top > bottom and top % bottom:
                forms += [
                    rf"{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}",
                    f"{top // bottom} {top % bottom}/{bottom}",
                ]
    if (decimal := _decimal(Fraction(top, bottom))) is not None and bottom > 1:
        forms.append(decimal)
        if not simple:
            forms += [f"{decimal}0", decimal.removeprefix("0")]
            if (percent := _decimal(Fraction(top * 100, bottom))) is not None:
                forms += [f"{percent}\\%", f"{percent}%", f"{percent} percent"]
    text = minus + draw.choice(forms)
    if simple:
        return text
    return draw.choice((text, text, text, rf"\left({text}\right)", f"({text})", rf"\displaystyle {text}"))


def _decimal(value: Fraction) -> str | None:
    for places in range(7):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(scaled.numerator).rjust(places + 1, "0")
            return f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return None


def _surd(draw: random.Random, content: tuple[Fraction, int, Fraction]) -> str:
    factor, radicand, summand = content
    root = draw.choice(
        (rf"\sqrt{{{radicand}}}", rf"\sqrt {{{radicand}}}", f"\u221a{radicand}", f"sqrt({radicand})")
    )
    scaled = factor * factor * radicand
    if scaled.denominator == 1 and draw.random() < 0.4:
        term = rf"{'-' if factor < 0 else ''}\sqrt{{{scaled.numerator}}}"
    elif factor.denominator != 1:
        sign = "-" if factor < 0 else ""
        term = rf"{sign}\frac{{{abs(factor.numerator)}{root}}}{{{factor.denominator}}}"
    else:
        times = draw.choice(("", r"\cdot ", r" \times "))
        term = {1: root, -1: f"-{root}"}.get(int(factor), f"{factor}{times}{root}")
    if not summand:
        return term
    other = spelled_number(draw, summand, simple=True)
    if draw.random() < 0.5:
        return f"{other}{'' if term.startswith('-') else '+'}{term}"
    return f"{term}{'' if other.startswith('-') else ' + '}{other}"


def _pi(draw: random.Random, content: Fraction) -> str:
    pi = draw.choice((r"\pi", "\u03c0", r"{\pi}", "pi" if abs(content) == 1 else r"\pi"))
    sign = "-" if content < 0 else ""
    top, bottom = abs(content.numerator), content.denominator
    times = "" if top == 1 else draw.choice((f"{top}", rf"{top}\cdot ", f"{top} "))
    if bottom == 1:
        return f"{sign}{times}{pi}"
    return draw.choice(
        (
            rf"{sign}\frac{{{times}{pi}}}{{{bottom}}}",
            rf"{sign}\frac{{{top}}}{{{bottom}}}{pi}",
            f"{sign}{times}{pi}/{bottom}",
        )
    )


def _polynomial(draw: random.Random, content: tuple[int, int, int]) -> str:
    factor, first, second = content
    variable, scale = "x", {1: "", -1: "-"}.get(factor, str(factor))
    roots = [
        f"({variable}{_signed(-root)})" if root else variable for root in draw.sample((first, second), 2)
    ]
    middle, last = -factor * (first + second), factor * first * second
    square = draw.choice(("x^2", "x^{2}", "x\u00b2", r"x \cdot x"))
    expanded = f"{scale}{square}{_signed(middle, 'x')}{_signed(last)}"
    turned = f"{last}{_signed(middle, 'x')}{_signed(factor, square)}"
    product = scale + draw.choice(("", r"\cdot ")).join(roots)
    return draw.choice((product, expanded, turned))


def _signed(value: int, variable: str = "") -> str:
    if value == 0:
        return "" if variable else "+0"
    digits = "" if variable and abs(value) == 1 else str(abs(value))
    return f"{'+' if value > 0 else '-'}{digits}{variable}"


def _ends(draw: random.Random, content: tuple[Any, ...]) -> str:
    opening, low, high, closing = content
    space = draw.choice(("", " ", r"\, "))
    sized = draw.choice((("", ""), (r"\left", r"\right"), (r"\bigl", r"\bigr")))
    low, high = (_place(draw, place) for place in (low, high))
    return f"{sized[0]}{opening}{low},{space}{high}{sized[1]}{closing}"


def _place(draw: random.Random, place: Any) -> str:
    if isinstance(place, str):
        sign, infinity = place[0], draw.choice((r"\infty", "\u221e"))
        return f"-{infinity}" if sign == "-" else draw.choice((infinity, f"+{infinity}"))
    return spelled_number(draw, place, simple=True)


def _interval(draw: random.Random, content: tuple[Any, ...]) -> str:
    opening, low, high, closing = content
    if isinstance(low, str) or isinstance(high, str) or draw.random() < 0.7:
        return draw.choice(("", r"x \in ", "x\u2208")) + _ends(draw, content)
    less = {"[": (r"\le", r"\leq", "<=", "\u2264"), "(": ("<", r"\lt")}
    left = draw.choice(less[opening])
    right = draw.choice(less["[" if closing == "]" else "("])
    return f"{_place(draw, low)} {left} x {right} {_place(draw, high)}"


def _union(draw: random.Random, content: tuple[Any, ...]) -> str:
    parts = [_ends(draw, part) for part in draw.sample(content, len(content))]
    return draw.choice((r" \cup ", " \u222a ", r"\cup")).join(parts)


def _set(draw: random.Random, content: frozenset[Fraction]) -> str:
    items = [spelled_number(draw, item, simple=True) for item in draw.sample(sorted(content), len(content))]
    if draw.random() < 0.2:
        items.append(items[0])
    brackets = draw.choice(((r"\{", r"\}"), (r"\left\{", r"\right\}"), (r"\lbrace ", r" \rbrace")))
    inside = draw.choice((",", ", ")).join(items)
    return f"{brackets[0]}{inside}{brackets[1]}"


def _tuple(draw: random.Random, content: tuple[Fraction, ...]) -> str:
    items = [spelled_number(draw, item, simple=True) for item in content]
    brackets = draw.choice((("(", ")"), (r"\left(", r"\right)"), (r"\big(", r"\big)")))
    inside = draw.choice((",", ", ", r",\ ")).join(items)
    return f"{brackets[0]}{inside}{brackets[1]}"


def _values(draw: random.Random, content: frozenset[Fraction]) -> str:
    items = [spelled_number(draw, item, simple=True) for item in draw.sample(sorted(content), len(content))]
    between = draw.choice((", ", r" \text{ or } ", " and ", r",\; "))
    form = draw.randrange(3)
    if form == 0:
        return between.join(f"x = {item}" for item in items)
    return ("x = " if form == 1 and "," in between else "") + between.join(items)


def _matrix(draw: random.Random, content: tuple[tuple[Fraction, ...], ...]) -> str:
    rows = r" \\ ".join(
        " & ".join(spelled_number(draw, item, simple=True) for item in row) for row in content
    )
    if draw.random() < 0.3:
        return rf"\left(\begin{{array}}{{cc}} {rows} \end{{array}}\right)"
    name = draw.choice(("pmatrix", "bmatrix"))
    return rf"\begin{{{name}}} {rows} \end{{{name}}}"


def _complex(draw: random.Random, content: tuple[int, int]) -> str:
    real, imaginary = content
    i = {1: "+i", -1: "-i"}.get(imaginary, f"{imaginary:+d}i")
    return draw.choice((f"{real}{i}", f"{i.removeprefix('+')}{real:+d}", f"{real} {i[0]} {i[1:]}"))


def _factorial(draw: random.Random, content: tuple[int, int]) -> str:
    of, times = content
    factor = "" if times == 1 else draw.choice((rf"{times}\cdot ", rf"{times} \times "))
    return draw.choice(
        (f"{factor}{of}!", f"{factor}({of})!", f"{factor}{of} !", rf"{factor}{of}\cdot {of - 1}!")
    )


def _named(draw: random.Random, content: tuple[str, Fraction]) -> str:
    name, value = content
    equals = draw.choice(("=", " = "))
    text = spelled_number(draw, value, simple=True)
    return draw.choice((f"{name}{equals}{text}", f"{text}{equals}{name}"))


def _inequality(draw: random.Random, content: tuple[str, Fraction]) -> str:
    sign, value = content
    signs = {
        "<": ("<", r"\lt"),
        "<=": (r"\le", r"\leq", "\u2264", "<="),
        ">": (">", r"\gt"),
        ">=": (r"\ge", r"\geq", "\u2265", ">="),
    }
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    text = spelled_number(draw, value, simple=True)
    if draw.random() < 0.5:
        return f"x {draw.choice(signs[sign])} {text}"
    return f"{text} {draw.choice(signs[turned[sign]])} x"


def _quantity(draw: random.Random, content: tuple[Fraction, str]) -> str:
    value, unit = content
    spelled = draw.choice(UNITS[unit])
    return spelled_number(draw, value, simple=True) + (spelled if spelled.startswith("\\") else f" {spelled}")


def _prime(draw: random.Random, content: tuple[str, int]) -> str:
    name, primes = content
    return draw.choice((name + "'" * primes, name + "^{" + r"\prime" * primes + "}")) if primes else name


def _words(draw: random.Random, content: str) -> str:
    return draw.choice((content, content.lower(), content.replace(" ", "  ")))


SPELLED: dict[str, Callable[[random.Random, Any], str]] = {
    "number": spelled_number,
    "surd": _surd,
    "pi": _pi,
    "polynomial": _polynomial,
    "interval": _interval,
    "union": _union,
    "set": _set,
    "tuple": _tuple,
    "values": _values,
    "matrix": _matrix,
    "complex": _complex,
    "factorial": _factorial,
    "named": _named,
    "inequality": _inequality,
    "quantity": _quantity,
    "prime": _prime,
    "words": _words,
}


def _fractions(draw: random.Random, count: int) -> list[Fraction]:
    found: list[Fraction] = []
    while len(found) < count:
        value = Fraction(draw.randint(-9, 9), draw.choice((1, 1, 1, 2, 3)))
        if value not in found and value:
            found.append(value)
    return found


def _draw_interval(draw: random.Random) -> tuple[Any, ...]:
    low, high = sorted(_fractions(draw, 2))
    unbounded = draw.random()
    if unbounded < 0.2:
        return ("(", "-infinity", high, draw.choice("])"))
    if unbounded < 0.4:
        return (draw.choice("[("), low, "+infinity", ")")
    return (draw.choice("[("), low, high, draw.choice(")]"))


def _draw_union(draw: random.Random) -> tuple[Any, ...]:
    places = sorted(_fractions(draw, 4))
    return (
        (draw.choice("[("), *places[:2], draw.choice("])")),
        (draw.choice("[("), *places[2:], draw.choice("])")),
    )


DRAWN: dict[str, Callable[[random.Random], Any]] = {
    "number": number,
    "surd": lambda draw: (
        Fraction(draw.choice((1, -1, 2, -2, 3, 5)), draw.choice((1, 1, 2, 3))),
        draw.choice((2, 3, 5, 7, 11)),
        draw.choice((Fraction(0), Fraction(0), *_fractions(draw, 1))),
    ),
    "pi": lambda draw: Fraction(draw.choice((1, -1)) * draw.randint(1, 12), draw.randint(1, 6)),
    "polynomial": lambda draw: (draw.choice((1, -1, 2, -3)), *sorted(draw.sample(range(-6, 7), 2))),
    "interval": _draw_interval,
    "union": _draw_union,
    "set": lambda draw: frozenset(_fractions(draw, draw.randint(1, 4))),
    "tuple": lambda draw: tuple(_fractions(draw, draw.randint(2, 4))),
    "values": lambda draw: frozenset(_fractions(draw, draw.randint(2, 3))),
    "matrix": lambda draw: tuple(tuple(_fractions(draw, 2)) for _ in range(2)),
    "complex": lambda draw: (
        draw.choice((1, -1)) * draw.randint(1, 9),
        draw.choice((1, -1)) * draw.randint(1, 9),
    ),
    "factorial": lambda draw: (draw.randint(3, 12), draw.choice((1, 1, 2, 3))),
    "named": lambda draw: (draw.choice("xyn"), *_fractions(draw, 1)),
    "inequality": lambda draw: (draw.choice(("<", "<=", ">", ">=")), *_fractions(draw, 1)),
    "quantity": lambda draw: (abs(_fractions(draw, 1)[0]), draw.choice(sorted(UNITS))),
    "prime": lambda draw: (draw.choice("fgy"), draw.randint(0, 2)),
    "words": lambda draw: draw.choice(WORDS),
}
KINDS = tuple(DRAWN)


def value_of(draw: random.Random, kind: str) -> Value:
    """A random value of a kind."""
    return Value(kind, DRAWN[kind](draw))


def _negated(values: Sequence[Any], at: int) -> tuple[Any, ...]:
    return tuple(-value if place == at else value for place, value in enumerate(values))


def _near(draw: random.Random, value: Value) -> Value:
    """A value that looks much like another one."""
    kind, content = value.kind, value.content
    if kind == "number":
        return Value(
            kind,
            draw.choice((-content, content * 10, content / 100, content * 100, content + 1, 1 / content)),
        )
    if kind in ("surd", "complex"):
        return Value(kind, _negated(content, draw.choice((0, -1 % len(content)))))
    if kind == "pi":
        return draw.choice((Value(kind, -content), Value(kind, 1 / content), Value("number", content)))
    if kind == "polynomial":
        factor, first, second = content
        return Value(
            kind,
            draw.choice(
                (
                    (-factor, first, second),
                    (factor, *sorted((-first, second))),
                    (factor, *sorted((first, second + 1))),
                )
            ),
        )
    if kind == "interval":
        opening, low, high, closing = content
        if isinstance(low, str) or isinstance(high, str):
            other = {"(": "[", "[": "(", ")": "]", "]": ")"}
            return Value(
                kind,
                (opening, low, high, other[closing])
                if isinstance(low, str)
                else (other[opening], low, high, closing),
            )
        return draw.choice(
            (
                Value(kind, ("[" if opening == "(" else "(", low, high, closing)),
                Value(kind, (opening, low, high, ")" if closing == "]" else "]")),
                Value("set", frozenset((low, high))),
                Value("tuple", (high, low)),
                Value("values", frozenset((low, high))),
            )
        )
    if kind == "union":
        (first, low, middle, last), second = content
        return Value(kind, ((first, low, middle, "]" if last == ")" else ")"), second))
    if kind in ("set", "values"):
        items = sorted(content)
        if len(items) > 1 and draw.random() < 0.5:
            return draw.choice(
                (
                    Value(kind, frozenset(items[1:])),
                    Value("tuple", tuple(items)),
                    Value("interval", ("[", *items[:2], "]")),
                )
            )
        return Value(kind, frozenset((-items[0], *items[1:])))
    if kind == "tuple":
        if draw.random() < 0.5:
            return Value(kind, tuple(reversed(content)))
        return draw.choice(
            (
                Value(kind, _negated(content, 0)),
                Value("set", frozenset(content)),
                Value("values", frozenset(content)),
            )
        )
    if kind == "matrix":
        return draw.choice(
            (Value(kind, tuple(zip(*content, strict=True))), Value(kind, tuple(reversed(content))))
        )
    if kind == "factorial":
        of, times = content
        return draw.choice(
            (
                Value("number", Fraction(of * times)),
                Value(kind, (of + 1, times)),
                Value(kind, (of, times + 1)),
            )
        )
    if kind == "named":
        name, number_ = content
        return draw.choice(
            (Value(kind, (name, -number_)), Value(kind, ("z", number_)), Value("inequality", ("<=", number_)))
        )
    if kind == "inequality":
        sign, bound = content
        others = [other for other in ("<", "<=", ">", ">=") if other != sign]
        return draw.choice(
            (Value(kind, (draw.choice(others), bound)), Value(kind, (sign, -bound)), Value("number", bound))
        )
    if kind == "quantity":
        amount, unit = content
        return Value(kind, draw.choice(((amount, "cm" if unit == "kg" else "kg"), (amount + 1, unit))))
    if kind == "prime":
        return Value(kind, (content[0], content[1] + 1))
    return Value(kind, draw.choice([word for word in WORDS if word != content]))


# What a value of one kind may equal of another kind.
_ALIKE = (
    {"number", "named", "quantity", "surd", "pi", "factorial", "complex"},
    {"set", "values", "named"},
    {"interval", "union", "inequality"},
)


def unequal(draw: random.Random, value: Value) -> Value:
    """Another value: much like it, any of its kind, or one of a kind that it can never equal."""
    while True:
        way = draw.random()
        if way < 0.6:
            other = _near(draw, value)
        elif way < 0.8:
            other = value_of(draw, value.kind)
        else:
            other = value_of(draw, draw.choice(KINDS))
            if any({value.kind, other.kind} <= alike for alike in _ALIKE):
                continue
        # (1, 2) is a pair or an interval, whichever the other one is.
        pair = {value.kind: value.content, other.kind: other.content}
        if other != value and not ({"tuple", "interval"} <= pair.keys() and len(pair["tuple"]) == 2):
            return other
