"""A family of conversations in which tools are offered and none is to be called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tunix_rt.generate.conversation import Asked, Conversation, Dice, Turns
from tunix_rt.generate.family import Difficulty
from tunix_rt.generate.sequence import mixed_radix
from tunix_rt.generate.tool_calls import CALCULATE, CONVERT, offered

_NAMES: Final = ("Ana", "Ben", "Chloe", "Dan", "Eva", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kim", "Leo")
_THINGS: Final = ("cats", "dogs", "books", "lamps", "plants", "shells", "kites", "drums", "boats", "hats")
_TOWNS: Final = ("Oslo", "Paris", "Lima", "Cairo", "Rome", "Delhi", "Quito", "Accra", "Hanoi", "Dublin")

# What is said and asked, and the answer.
_TALKS: Final = (
    ("{name} from {town} has {n} {things}. What does {name} have?", "{name} has {things}."),
    ("{name} moved {n} {things} to {town}. Who moved them?", "{name} moved them."),
    ("{name} took {n} {things} to {town}. Where are they now?", "They are in {town}."),
    ("I am {name} from {town}, and I own {n} {things}. What is my name?", "Your name is {name}."),
    ("Hello! I am {name}. I sell {things} in {town}, {n} a day.", "Hello, {name}! Nice to meet you."),
    ("{name} lost {n} {things} in {town}. In which town was that?", "That was in {town}."),
)
_ENDINGS: Final = ("", " Thank you.", " Just wondering.", " I hope that you know.")


@dataclass(frozen=True)
class TalkFamily:
    """Questions with numbers in them that need no tool."""

    name: str
    numbers: Mapping[Difficulty, range]

    def problems(self, difficulty: Difficulty) -> int:
        """How many questions there are, but for their last words."""
        return math.prod(map(len, self._choices(difficulty)))

    @property
    def wordings(self) -> int:
        """How many ways there are to end one."""
        return len(_ENDINGS)

    def solved(self, difficulty: Difficulty, problem: int, wording: int) -> Conversation:
        """The conversation that begins with a question."""
        dice = Dice((self.name, difficulty, problem, wording))
        place, number, name, things, town = mixed_radix(problem, self._choices(difficulty))
        facts = {"n": number, "name": _NAMES[name], "things": _THINGS[things], "town": _TOWNS[town]}
        question, answer = (part.format(**facts) for part in _TALKS[place])
        turns = Turns()
        turns.system(dice)
        turns.say("user", question + _ENDINGS[wording])
        asked = Asked(len(turns.messages), {"kind": "tool_call", "no_calls": True}, ())
        turns.say("assistant", answer)
        return Conversation(
            tuple(turns.messages), offered(dice, dice.pick("tool", (CALCULATE, CONVERT))), asked
        )

    def _choices(self, difficulty: Difficulty) -> tuple[Sequence[int], ...]:
        kinds = (_TALKS, _NAMES, _THINGS, _TOWNS)
        talks, *others = (range(len(kind)) for kind in kinds)
        return (talks, self.numbers[difficulty], *others)


SMALL_TALK: Final = TalkFamily(
    "small_talk", {"easy": range(2, 100), "medium": range(101, 1_000), "hard": range(1_001, 10_000)}
)
"""The only one."""
