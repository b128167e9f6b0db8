"""Families of bare arithmetic: numbers and operators, worded in a few ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt.generate.family import (
    Family,
    Problem,
    Step,
    divided,
    minus,
    plus,
    times,
    times_by_parts,
)

_ASKING: Final = ("What is {}?", "Work out {}.", "Calculate {}.", "How much is {}?", "Find {}.")


def _addition(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    prompt = words[0].format(" + ".join(map(str, numbers)))
    if len(numbers) == 3:
        first = plus(numbers[0], numbers[1])
        return Problem(prompt, (first, plus(first.result, numbers[2])))
    left, right = numbers
    if left <= 20 and right <= 20:
        return Problem(prompt, (plus(left, right),))
    tens, ones = plus(left // 10 * 10, right // 10 * 10), plus(left % 10, right % 10)
    return Problem(prompt, (tens, ones, plus(tens.result, ones.result)))


def _subtraction(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    right, difference = numbers
    left = right + difference
    prompt = words[0].format(f"{left} - {right}")
    if right < 100:
        return Problem(prompt, (minus(left, right),))
    hundreds = minus(left, right // 100 * 100)
    return Problem(prompt, (hundreds, minus(hundreds.result, right % 100)))


def _multiplication(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    left, right = numbers
    return Problem(words[0].format(f"{left} * {right}"), times_by_parts(left, right))


def _division(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    quotient, divisor = numbers
    dividend = quotient * divisor
    return Problem(words[0].format(f"{dividend} / {divisor}"), (divided(dividend, divisor),))


def _two_operations(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    kind, first, second, third = numbers
    if kind == 0:
        product = times(first, second)
        text, steps = f"{first} * {second} + {third}", (product, plus(product.result, third))
    elif kind == 1:
        product = times(first, second)
        text, steps = f"{first} * {second} - {third}", (product, minus(product.result, third))
    else:
        total = plus(first, third)
        text, steps = f"({first} + {third}) * {second}", (total, times(total.result, second))
    return Problem(words[0].format(text), steps)


_SIMPLE_PERCENTAGES: Final = {10: 10, 20: 5, 25: 4, 50: 2}


def _percent(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    percentage, scale = numbers
    whole = scale * 20
    prompt = words[0].format(f"{percentage}% of {whole}")
    if percentage in _SIMPLE_PERCENTAGES:
        divisor = _SIMPLE_PERCENTAGES[percentage]
        known = Step("recall", f"{percentage} / 100 = 1 / {divisor}", divisor)
        return Problem(prompt, (known, divided(whole, divisor)))
    one_percent_of_hundred = times(whole, percentage)
    return Problem(prompt, (one_percent_of_hundred, divided(one_percent_of_hundred.result, 100)))


ARITHMETIC: Final = (
    Family(
        "addition",
        {
            "easy": (range(2, 21), range(2, 21)),
            "medium": (range(21, 90), range(11, 90)),
            "hard": (range(100, 900), range(100, 900), range(10, 100)),
        },
        (_ASKING,),
        _addition,
    ),
    Family(
        "subtraction",
        {
            "easy": (range(2, 21), range(2, 21)),
            "medium": (range(11, 60), range(11, 60)),
            "hard": (range(101, 500), range(100, 500)),
        },
        (_ASKING,),
        _subtraction,
    ),
    Family(
        "multiplication",
        {
            "easy": (range(2, 21), range(2, 11)),
            "medium": (range(12, 60), range(3, 10)),
            "hard": (range(21, 100), range(6, 16)),
        },
        (_ASKING,),
        _multiplication,
    ),
    Family(
        "division",
        {
            "easy": (range(2, 21), range(2, 11)),
            "medium": (range(11, 41), range(3, 13)),
            "hard": (range(21, 100), range(6, 26)),
        },
        (_ASKING,),
        _division,
    ),
    Family(
        "two_operations",
        {
            "easy": (range(3), range(4, 13), range(5, 10), range(2, 11)),
            "medium": (range(3), range(11, 21), range(5, 10), range(11, 41)),
            "hard": (range(3), range(21, 60), range(11, 20), range(21, 90)),
        },
        (_ASKING,),
        _two_operations,
    ),
    Family(
        "percent",
        {
            "easy": ((10, 20, 25, 50), range(1, 41)),
            "medium": ((5, 10, 15, 20, 25, 30, 40, 50, 60, 75), range(2, 41)),
            "hard": (range(5, 100, 5), range(11, 61)),
        },
        (_ASKING,),
        _percent,
    ),
)
"""All of them, in the order in which they are listed."""
