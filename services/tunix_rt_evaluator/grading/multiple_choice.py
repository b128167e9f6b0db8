"""One of several options, named by its letter or by its text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Final

from tunix_rt_evaluator.grader_settings import MultipleChoiceGrader
from tunix_rt_evaluator.grading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.contract import GraderKind, Problem, Question
from tunix_rt_evaluator.grading.normal_text import normalise
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "multiple_choice/2"

_MARKUP: Final = r"[\s*_$\"'`]{0,8}"
# "A" alone, "(A)", "A." and the like; not the article of "A banana", which has a word behind it.
_LETTER: Final = re.compile(
    rf"{_MARKUP}(?:(?:option|choice|letter)\s+)?{_MARKUP}"
    rf"(?:\((?P<round>[A-Za-z])\)|\[(?P<square>[A-Za-z])\]|(?P<marked>[A-Za-z])[).:\]]|(?P<bare>[A-Z])(?![\w'])|(?P<small>[a-z])(?={_MARKUP}$))",
    re.IGNORECASE,
)
_ANOTHER: Final = re.compile(r"(?:^|\s|,|/|&)(?:or|and|&|/|,)\s*(?:option\s+)?\(?([A-Z])\)?(?![\w'])")
_MARKED: Final = re.compile(
    r"\(([A-Z])\)|(?<![\w'])([A-Z])[).:](?=\s|$)|^\W{0,8}([A-Z])\W{0,8}$", re.MULTILINE
)


def grade(settings: MultipleChoiceGrader, question: Question, output: str) -> Verdict:
    """Right when the one option that the answer names is an accepted one."""
    answer = read_answer(output)
    chosen = choice(answer, settings.options)
    if chosen is None:
        return Verdict(extracted_answer="", correct=False)
    accepted = {_meant(entry, settings.options) for entry in question.accepted}
    return Verdict(extracted_answer=ascii_uppercase[chosen], correct=chosen in accepted)


def choice(answer: Answer, options: Sequence[str]) -> int | None:
    """The place of the option that an answer names; None if it names none, or several."""
    if (named := _by_text(answer.first_line, options)) is not None:
        return named
    if (letter := _leading_letter(answer.first_line, len(options))) is not None:
        return letter if letter >= 0 else None
    marked = {_index(next(filter(None, found))) for found in _MARKED.findall(answer.text)}
    marked = {index for index in marked if index < len(options)}
    if marked:
        return marked.pop() if len(marked) == 1 else None
    text = normalise(answer.text)
    contained = [at for at, option in enumerate(options) if _occurs(normalise(option), text)]
    return contained[0] if len(contained) == 1 else None


def _by_text(line: str, options: Sequence[str]) -> int | None:
    """The option whose text stands alone, or behind its own letter."""
    wanted = normalise(line)
    for at, option in enumerate(options):
        texts = {normalise(option), normalise(f"{ascii_uppercase[at]} {option}")}
        texts |= {normalise(f"{ascii_uppercase[at]}{mark} {option}") for mark in (".", ")", ":")}
        if wanted in texts:
            return at
    return None


def _leading_letter(line: str, count: int) -> int | None:
    """The place of the letter that a line begins with; -1 if it names a second one, None if there is none."""
    match = _LETTER.match(line)
    if match is None:
        return None
    if (
        match["bare"] is not None
        and re.match(r"\s+\w", line[match.end() :])
        and not _ANOTHER.match(line[match.end() :])
    ):
        return None
    index = _index(next(group for group in match.groups() if group))
    if index >= count:
        return None
    others = {_index(letter) for letter in _ANOTHER.findall(line[match.end() :])} - {index}
    return -1 if any(other < count for other in others) else index


def _occurs(option: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text) is not None


def _index(letter: str) -> int:
    return ascii_uppercase.index(letter.upper())


def _meant(accepted: str, options: Sequence[str]) -> int | None:
    """The place of the option that an accepted answer means."""
    if accepted in options:
        return options.index(accepted)
    bare = accepted.strip().strip("().:").upper()
    if len(bare) == 1 and bare in ascii_uppercase[: len(options)]:
        return _index(bare)
    return next((at for at, option in enumerate(options) if normalise(option) == normalise(accepted)), None)


def _problems(settings: MultipleChoiceGrader, accepted: Sequence[str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for at, option in enumerate(settings.options):
        if not option.strip():
            yield ("grader", "options", at), "is empty; a text would be right"
        earlier = first.setdefault(normalise(option), at)
        if earlier != at:
            yield ("grader", "options", at), f"is the same as options[{earlier}]; each must be different"
    letters = ascii_uppercase[: len(settings.options)]
    for number, entry in enumerate(accepted):
        if _meant(entry, settings.options) is None:
            yield (
                ("accepted_answers", number),
                f"is {entry[:60]!r}; a letter from {letters[0]} to {letters[-1]} or an option would be right",
            )


KIND: Final = GraderKind(version=lambda _: VERSION, grade=grade, problems=_problems)
