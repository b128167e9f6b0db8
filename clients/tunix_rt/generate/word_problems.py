"""Families of short word problems: a story, and one line of calculation for each thing to find out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tunix_rt.generate.family import Family, Problem, divided, minus, plus, times

_NAMES: Final = ("Ana", "Ben", "Chloe", "Dan", "Eva", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kim", "Leo")
_PAIRS: Final = (
    *("Ada and Bob", "Cleo and Dave", "Mia and Noah", "Olga and Paul"),
    *("Rosa and Sam", "Tara and Umar", "Vera and Will", "Yan and Zoe"),
)
_GOODS: Final = ("pens", "cups", "books", "toys", "plants", "caps", "mugs", "lamps")
_EXTRAS: Final = ("bag", "card", "drink", "map", "box")
_SWEETS: Final = ("sweets", "nuts", "grapes", "stickers", "marbles", "beads", "shells", "coins")
_VEHICLES: Final = ("bus", "train", "van", "car", "lorry", "coach")
_PLACES: Final = ("hall", "cinema", "theatre", "school", "tent")


def _shopping(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    count, price, extra_price = numbers[:3]
    name, goods, extra = words
    story = f"{name} buys {count} {goods} at {price} dollars each and a {extra} for {extra_price} dollars."
    spent = times(count, price, goods.capitalize())
    total = plus(spent.result, extra_price, "Total")
    if len(numbers) == 3:
        return Problem(f"{story} How many dollars does {name} pay?", (spent, total))
    note = total.result + numbers[3]
    prompt = f"{story} {name} pays with {note} dollars. How many dollars come back?"
    return Problem(prompt, (spent, total, minus(note, total.result, "Change")))


def _sharing(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    each, friends, more = numbers[:3]
    name, things = words
    held = each * friends
    story = f"{name} shares {held} {things} equally among {friends} friends"
    share = divided(held, friends, "Each")
    if len(numbers) == 3:
        prompt = f"{story} and then gives each friend {more} more. How many {things} has each friend?"
        return Problem(prompt, (share, plus(share.result, more, "Then")))
    found = each + numbers[3]
    asking = f"How many {things} has that friend now?"
    prompt = f"{story}. One friend finds {found} more and then loses {more}. {asking}"
    grown = plus(share.result, found, "Found")
    return Problem(prompt, (share, grown, minus(grown.result, more, "Left")))


def _distance(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    speed, hours, more = numbers[:3]
    name, vehicle = words
    story = f"{name} drives a {vehicle} at {speed} km an hour for {hours} hours and then {more} km more."
    driven = times(speed, hours, "Driven")
    total = plus(driven.result, more, "Total")
    if len(numbers) == 3:
        return Problem(f"{story} How many km is that?", (driven, total))
    planned = total.result + numbers[3]
    prompt = f"{story} The whole way is {planned} km. How many km are left?"
    return Problem(prompt, (driven, total, minus(planned, total.result, "Left")))


def _ages(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    age, older, years = numbers[:3]
    first, second = words[0].split(" and ")
    story = f"{first} is {age} years old. {second} is {older} years older."
    now = plus(age, older, f"{second} now")
    later = plus(now.result, years, "Later")
    if len(numbers) == 3:
        return Problem(f"{story} How old will {second} be in {years} years?", (now, later))
    born = numbers[3]
    parent = plus(later.result, born, "Parent")
    prompt = (
        f"{story} Their mother was {born} when {second} was born. "
        f"How old will the mother be in {years} years?"
    )
    return Problem(prompt, (now, later, parent))


def _rows(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    rows, seats, taken = numbers[:3]
    place, day = words
    story = f"On {day} a {place} has {rows} rows of {seats} seats, and {taken} seats are taken."
    total = times(rows, seats, "Seats")
    free = minus(total.result, taken, "Free")
    if len(numbers) == 3:
        return Problem(f"{story} How many seats are free?", (total, free))
    prompt = f"{story} Then {numbers[3]} more people sit down. How many seats are free?"
    return Problem(prompt, (total, free, minus(free.result, numbers[3], "Then")))


def _times_as_many(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    count, factor = numbers[:2]
    first, second = words[0].split(" and ")
    things = words[1]
    story = f"{first} has {count} {things}. {second} has {factor} times as many."
    more = times(count, factor, second)
    total = plus(count, more.result, "Both")
    if len(numbers) == 2:
        return Problem(f"{story} How many {things} do they have in all?", (more, total))
    prompt = f"{story} They lose {numbers[2]} {things}. How many {things} do they have left in all?"
    return Problem(prompt, (more, total, minus(total.result, numbers[2], "Left")))


_UNITS: Final = {
    "weeks": ("days", 7),
    "hours": ("minutes", 60),
    "feet": ("inches", 12),
    "days": ("hours", 24),
    "minutes": ("seconds", 60),
}


def _units(numbers: Sequence[int], words: Sequence[str]) -> Problem:
    big, small = numbers[:2]
    unit, asking = words
    smaller, size = _UNITS[unit]
    whole = times(big, size, f"{unit.capitalize()} to {smaller}")
    total = plus(whole.result, small, "Total")
    if len(numbers) == 2:
        return Problem(asking.format(smaller, f"{big} {unit} and {small} {smaller}"), (whole, total))
    amount = f"{numbers[2]} times {big} {unit} and {small} {smaller}"
    return Problem(asking.format(smaller, amount), (whole, total, times(total.result, numbers[2], "All")))


WORD_PROBLEMS: Final = (
    Family(
        "shopping",
        {
            "easy": (range(2, 10), range(2, 13), range(2, 20)),
            "medium": (range(3, 13), range(11, 31), range(5, 40)),
            "hard": (range(6, 16), range(12, 40), range(11, 50), range(2, 60)),
        },
        (_NAMES, _GOODS, _EXTRAS),
        _shopping,
    ),
    Family(
        "sharing",
        {
            "easy": (range(2, 13), range(2, 10), range(2, 10)),
            "medium": (range(6, 25), range(3, 12), range(4, 20)),
            "hard": (range(12, 40), range(6, 15), range(5, 12), range(6, 30)),
        },
        (_NAMES, _SWEETS),
        _sharing,
    ),
    Family(
        "distance",
        {
            "easy": (range(20, 91, 5), range(2, 6), range(2, 20)),
            "medium": (range(35, 120, 5), range(3, 9), range(11, 60)),
            "hard": (range(41, 120), range(4, 12), range(15, 90), range(10, 90)),
        },
        (_NAMES, _VEHICLES),
        _distance,
    ),
    Family(
        "ages",
        {
            "easy": (range(3, 20), range(2, 10), range(2, 11)),
            "medium": (range(8, 50), range(3, 20), range(5, 30)),
            "hard": (range(8, 40), range(3, 15), range(5, 25), range(18, 30)),
        },
        (_PAIRS,),
        _ages,
    ),
    Family(
        "rows",
        {
            "easy": (range(4, 13), range(4, 11), range(2, 15)),
            "medium": (range(8, 21), range(7, 16), range(11, 50)),
            "hard": (range(12, 31), range(12, 26), range(21, 80), range(5, 60)),
        },
        (_PLACES, ("Monday", "Tuesday", "Friday", "Sunday")),
        _rows,
    ),
    Family(
        "times_as_many",
        {
            "easy": (range(3, 31), range(2, 7)),
            "medium": (range(11, 60), range(3, 10)),
            "hard": (range(21, 90), range(4, 13), range(5, 40)),
        },
        (_PAIRS, _SWEETS),
        _times_as_many,
    ),
    Family(
        "units",
        {
            "easy": (range(2, 13), range(1, 7)),
            "medium": (range(4, 31), range(1, 7)),
            "hard": (range(6, 31), range(1, 7), range(3, 10)),
        },
        (tuple(_UNITS), ("How many {} are {}?", "Write as {}: {}.", "Change to {}: {}.")),
        _units,
    ),
)
"""All of them, in the order in which they are listed."""
