"""Of generated pairs of an accepted answer and an output no unequal one is right, and the equal ones are.

``--pairs 3000`` makes as many as the table in the guide says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random
from string import ascii_uppercase
from typing import Any, Final

import pytest
import regex

from support.choice_texts import OPTION_SETS, gives, gives_none
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.service import Grading

GRADING = Grading()
_WORDS: Final = "Paris London red green water oxygen gold dog cat house C C# C++ x y Node Node.js"
WORDS: Final = _WORDS.split()
MARKED: Final = (
    "Answer: {}",
    "**Answer:** {}",
    "Final answer: {}",
    r"\boxed{{{}}}",
    "<answer>{}</answer>",
    "#### 1\nAnswer: {}",
)
BEHIND: Final = ("", "\n\nThis is what the table in the text says.", "\n\nHope this helps!")
DOUBTS: Final = (
    "\nI am not sure.",
    "\nWait, that is wrong.",
    "\nActually, it is something else.",
    "\nOr is it?",
    "\nIch bin nicht sicher.",
    "\nJe doute que ce soit vrai.",
    "\nNo estoy seguro.",
    "\n\u6211\u4e0d\u786e\u5b9a\u3002",
    "\nJust kidding!",
)
Pair = tuple[dict[str, Any], list[str], str]
"""The settings of a grader, the accepted answers, and an output."""


def _marked(random: Random, text: str) -> str:
    form = random.choice(MARKED)
    if "{" in text or "\n" in text:
        form = MARKED[0]
    return form.format(text) + (random.choice(BEHIND) if form in MARKED[:3] else "")


def _number(random: Random) -> Fraction:
    return Fraction(random.randint(-60, 60), random.choice((1, 1, 1, 2, 4, 10)))


def _spelled(random: Random, number: Fraction) -> str:
    if number.denominator == 1:
        return random.choice((str(number), f"{float(number):.1f}", f"{number}.00"))
    return random.choice((str(float(number)), f"{number.numerator}/{number.denominator}"))


def _text(random: Random, *, equal: bool) -> Pair:
    accepted = " ".join(random.sample(WORDS, random.randint(1, 3)))
    if equal:
        forms = (
            "{}",
            "{}.",
            "**{}**",
            '"{}"',
            "`{}`",
            "  {}  ",
            "_{}_",
            "\u00ab{}\u00bb",
            "\u201c{}\u201d",
            "{}\u3002",
        )
        written = random.choice(forms).format(random.choice((accepted, accepted.upper(), accepted.lower())))
        return (
            {},
            [accepted],
            random.choice(("Answer: {}", "Final answer: {}")).format(written) + random.choice(BEHIND),
        )
    changed = (
        "not {}",
        "{}?",
        "{}, not Rome",
        "-{}",
        "{}'",
        "{} or Rome",
        "{}%",
        "{}!?",
        "#{}",
        "({})",
        "{}\nRome",
        "~~{}~~",
        "no {}",
        "{} Rome",
        "maybe {}",
        "{}2",
        "{}\u00b2",
        "<{}",
        "{} x",
        "the {}",
    )
    doubted = f"Answer: {accepted}{random.choice(DOUBTS)}"
    return {}, [accepted], random.choice((_marked(random, random.choice(changed).format(accepted)), doubted))


def _set(random: Random, *, equal: bool) -> Pair:
    numbers = random.random() < 0.6
    count = random.randint(2, 4)
    values: list[Any] = (
        list(dict.fromkeys(_number(random) for _ in range(count)))
        if numbers
        else random.sample(WORDS[:10], count)
    )
    spell: Callable[[Any], str] = (lambda value: _spelled(random, value)) if numbers else str
    accepted = [", ".join(map(spell, values))]
    given = random.sample(values, len(values))
    if equal:
        form = random.choice(("{}", "{{{}}}", r"\{{{}\}}", "{}."))
        joined = random.choice((", ", "; ", " and ")).join(map(spell, given))
        return {}, accepted, "Answer: " + form.format(joined) + random.choice(BEHIND)
    other = _number(random) if numbers else random.choice(("blue", "tin", "ice"))
    if len(values) < 2 or other in values:
        return {}, accepted, f"Answer: {spell(values[0])}, 1000001"
    joined = ", ".join(map(spell, given))
    listed = f"[{joined}]" if numbers and len(values) == 2 else f"({joined})"
    wrong = (
        ", ".join(map(spell, given[1:])),
        ", ".join(map(spell, [*given, other])),
        ", ".join(map(spell, [*given[1:], other])),
        f"({joined})",
        listed,
        f"{joined}\n{spell(other)}",
        f"{joined}{random.choice(DOUBTS)}",
        f"not {joined}",
        f"{joined}, ...",
        f"{joined}?",
    )
    return {}, accepted, f"Answer: {random.choice(wrong)}"


def _contains(random: Random, *, equal: bool) -> Pair:
    wanted = str(random.choice((random.randint(-99, 999), random.randint(0, 99) / 10)))
    sentences = (
        "It is {}.",
        "So {}, as they say",
        "({})",
        "x = {}",
        "**{}**",
        "{} it is",
        "about {} kg of it",
        "{}",
    )
    if equal:
        return {}, [wanted], "Answer: " + random.choice(sentences).format(wanted)
    bare = wanted.lstrip("-")
    another = (
        f"1{bare}",
        f"{wanted}1",
        f"-{bare}" if bare == wanted else bare,
        f"{wanted}%",
        f"{wanted}x",
        f"\u00bd{bare}",
        f"{wanted}\u00bd",
        f"{wanted}/7",
        f"7/{bare}",
        f"{wanted}.5" if "." not in wanted else f"{wanted}5",
        f"{wanted}^2",
        f"x^{bare}",
        f"{wanted}\u00b2",
        f"{wanted},000",
        f"{wanted}k",
        f"{wanted} million",
        f"minus {bare}" if bare == wanted else f"7{wanted}",
        f"{wanted}e3",
        f"{wanted}:30",
        f"\u221a{bare}",
        f"{wanted}M",
        f"{wanted}\u4e07",
        f"a{bare}",
        f"{wanted}_2",
        f"{wanted}(x)",
        f"0.{bare.replace('.', '')}",
        f"{wanted}\u00d710^3",
        f"{wanted} percent",
    )
    return {}, [wanted], "Answer: " + random.choice(sentences).format(random.choice(another))


def _token_f1(random: Random, *, equal: bool) -> Pair:
    words = random.sample(WORDS[:10], random.randint(2, 4))
    accepted = " ".join(words)
    if equal:
        given = random.choice(("{}", "the {}", "{}.", '"{}"', "a {}!")).format(
            " ".join(random.sample(words, len(words))).upper()
        )
        return {"threshold": 1.0}, [accepted], f"Answer: {given}"
    other = random.choice(("blue", "5", "not", "-x", "C#", "no"))
    changed = (
        [*words, other],
        words[1:],
        [*words[1:], other],
        [*words, words[0]],
        [f"{words[0]}s", *words[1:]],
    )
    return {"threshold": 1.0}, [accepted], f"Answer: {' '.join(random.choice(changed))}"


def _regex(random: Random, *, equal: bool) -> Pair:
    digits = "".join(random.choices("123456789", k=random.randint(2, 5)))
    pattern = random.choice((regex.escape(digits), rf"{digits[0]}\d{{{len(digits) - 1}}}", rf"0*{digits}"))
    given = (
        digits
        if equal
        else random.choice((f"{digits}0", f"0.{digits}", f"-{digits}", f"{digits} or 1", "0", f"{digits}?"))
    )
    return {"full_match": True}, [pattern], f"Answer: {given}"


def _json(random: Random, *, equal: bool) -> Pair:
    value = _value(random, 2)
    schema = {"schema": {"title": "anything"}}
    written = json.dumps(_shuffled(random, value), indent=random.choice((None, 1)))
    if equal:
        return (
            schema,
            [json.dumps(value)],
            random.choice(("Answer: {}", "```json\n{}\n```", "{}")).format(written),
        )
    other = random.choice((_value(random, 2), [value], {"a": value}, not value, f"{value}"))
    other = [other, 0] if _same(other, value) else other
    return schema, [json.dumps(value)], f"Answer: {json.dumps(other)}"


def _value(random: Random, depth: int) -> Any:
    simple = (random.randint(-3, 3), True, False, None, 0.5, 1.0, "", "a", "1", "true")
    if depth == 0 or random.random() < 0.4:
        return random.choice(simple)
    if random.random() < 0.5:
        return [_value(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {random.choice("abc"): _value(random, depth - 1) for _ in range(random.randint(0, 3))}


def _shuffled(random: Random, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shuffled(random, value[key]) for key in random.sample(sorted(value), len(value))}
    return [_shuffled(random, each) for each in value] if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    """By the rule of JSON: numbers by value, and true is none."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return (type(one) in (int, float) and type(other) in (int, float) and one == other) or (
        type(one),
        one,
    ) == (type(other), other)


def _choice(random: Random, *, equal: bool) -> Pair:
    options = random.choice(OPTION_SETS)
    x, y = random.sample(range(len(options)), 2)
    settings = {"options": options}
    if equal:
        return settings, [ascii_uppercase[x]], gives(random, x, y, options)
    if random.random() < 0.5:
        return settings, [ascii_uppercase[y]], gives(random, x, y, options)
    return settings, [ascii_uppercase[random.choice((x, y))]], gives_none(random, x, y, options)


KINDS: Final[dict[str, Callable[..., Pair]]] = {
    "multiple_choice": _choice,
    "text": _text,
    "set": _set,
    "contains": _contains,
    "token_f1": _token_f1,
    "regex": _regex,
    "json_schema": _json,
}


def _wrongly(kind: str, count: int, *, equal: bool) -> Sequence[Pair]:
    random = Random(f"{kind} {equal}")
    pairs = [KINDS[kind](random, equal=equal) for _ in range(count)]
    return [pair for pair in pairs if _is_right(kind, pair) is not equal]


def _is_right(kind: str, pair: Pair) -> bool:
    settings, accepted, output = pair
    item = EvalItem(id="q", prompt="?", accepted_answers=tuple(accepted), grader={"kind": kind, **settings})
    assert list(GRADING.problems(item)) == []
    verdict = GRADING.grade(item, output)
    assert verdict.error == ""
    return verdict.correct


@pytest.mark.parametrize("kind", KINDS)
def test_no_unequal_pair_is_right(kind: str, pytestconfig: pytest.Config) -> None:
    assert _wrongly(kind, pytestconfig.getoption("--pairs"), equal=False) == []


@pytest.mark.parametrize("kind", KINDS)
def test_99_of_100_equal_pairs_are_right(kind: str, pytestconfig: pytest.Config) -> None:
    count = pytestconfig.getoption("--pairs")
    assert len(wrong := _wrongly(kind, count, equal=True)) <= count // 100, wrong
