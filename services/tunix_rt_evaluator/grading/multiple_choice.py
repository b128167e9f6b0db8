r"""One of several options, named by its letter or by its text.

What names an option stands alone, or where a sentence gives it: behind what leads to an answer ("it is",
"option", a preposition), and before a verb, a reason or the end of a clause. What a clause denies is not
given (``It is not B, it is D``). The first sentence that names an option counts; a conclusion ("so B") and a
correction ("Wait, it is C") replace what stands before them. Two options are no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Final

from tunix_rt_evaluator.grader_settings import MultipleChoiceGrader
from tunix_rt_evaluator.grading.answers import Answer, read_answer
from tunix_rt_evaluator.grading.contains import places
from tunix_rt_evaluator.grading.contract import GraderKind, Problem, Question
from tunix_rt_evaluator.grading.languages import CONCLUSION, CONDITION, CORRECTION, NEGATION, REASON
from tunix_rt_evaluator.grading.neighbours import pattern
from tunix_rt_evaluator.grading.normal_text import normalise
from tunix_rt_evaluator.grading.spelling import UNSPACED
from tunix_rt_evaluator.model import Verdict

VERSION: Final = "multiple_choice/3"

# In the shape of a line each option that is named is one character, by its place in these two ranges.
_BY_LETTER: Final = 0xE000
_BY_TEXT: Final = 0xE100
_L: Final = f"[{chr(_BY_LETTER)}-{chr(_BY_LETTER + 25)}]"
_T: Final = f"[{chr(_BY_TEXT)}-{chr(_BY_TEXT + 25)}]"
_M: Final = f"[{_L[1:-1]}{_T[1:-1]}]"
_MAX_LENGTH: Final = 2_000
_NEAR: Final = 48

_ALONE: Final = re.compile(
    r"(?:[-*>#|]+\s+)*(?:(?:option|choice|letter)\s+)?[*_`\"]*[(\[{]?[*_`]*([a-z])[*_`\"]*[)\]}]?[.:]?[*_`\"]*(?:\s*\|)?"
)
_LETTER: Final = re.compile(
    rf"(?<![^\W{UNSPACED}])(?:\(\s*(?P<round>[A-Za-z])\s*\)|\[\s*(?P<square>[A-Za-z])\s*\]"
    rf"|(?<![-+#'\u2019.^/\\])(?P<bare>[A-Z])(?![^\W{UNSPACED}]|[-'\u2019/+#^]\S|[+#'\u2019*=<>]))"
)
_LEAD: Final = r"""
    is|are|was|were|be|been|it|that|this|i['\u2019]d|it['\u2019]s|that['\u2019]s
  | say|says|said|think|believe|guess|choose|chose|pick|select|take|go|suggest
  | leaves?|leaving|means?|matches|choice|options?|letter|answer|statement|only|namely|probably|likely
  | definitely|clearly|certainly|perhaps|maybe|both|either|neither|nor
  | or|and|not|between|in|at|with|for|but|except|unlike|because|although|if|so|thus|the|an?
  | correct|right|best|wrong|incorrect|eliminate|reject|rule\ out|actually|therefore|hence
  | ist|die|der|das|antwort|nicht|oder|und | est|c['\u2019]est|la|le|les|lettre|choix
  | r[e\u00e9]ponse|pas|ou|et
  | es|el|letra|opci[o\u00f3]n|respuesta|no|y|o | \u00e9|op[c\u00e7][a\u00e3]o|resposta|n[a\u00e3]o|e
  | \u00e8|il|lettera|opzione|risposta|non
"""
_BEFORE: Final = pattern(
    rf"(?: ^ | [^\w\s'\u2019] | [{UNSPACED}{_M[1:-1]}] | (?:^|[^\w'\u2019-])(?:{_LEAD}) )\W*$"
)
_MARKS: Final = "\uff0c\u3002\uff1b\uff1a\u3001\uff01\uff1f\u2705\u2713\u2714"
_NAMED: Final = pattern(r"\b(?:option|choice|letter|letra|lettre|opci[o\u00f3]n)\W*$")
_AFTER: Final = pattern(
    rf"""
    [\s"'\u201c\u201d\u2018\u2019*_`$)}}\]|]* (?: $ | [.,;:!?(\u2014\u2013&/<>{_MARKS}]
      | -\s | [{UNSPACED}] | {_M}
      | (?:is|are|was|isn['\u2019]t|wasn['\u2019]t|seems?|looks|appears|would|must|should|can|cannot
          |can['\u2019]t|and|or|nor|but|not|rather|instead|it\ is|only|here|too|in|on|of
          |correct|right|wrong|incorrect
          |ist|oder|und|nicht|est|ou|et|es|o|y|\u00e9|e|\u00e8)\b
      | {REASON} )
    """
)
_UNNAMED: Final = re.compile(
    rf"(?<![\w'\u2019])([A-Z])(?=\W{{1,8}}(?:(?:text\W*)?(?:and|or|nor|y|o|et|ou|und|oder)\b)?\W{{0,6}}{_M})"
)
_COMMAND: Final = re.compile(r"\\(?!text|math|bf|rm|quad|left|big)[a-z]+[^\w\\]*$|[\u00ac~]\s*$")
_PAIR: Final = re.compile(rf"({_L})[\s).:,\]\"'*_=\u2013\u2014-]{{1,6}}\(?({_T})\)?")
_BUT_FOR: Final = pattern(r"\b(?:all|any\w*|every\w*|none|nothing)(?:\s+of\s+\w+)?\s+(?:but|save)\b")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
_CLAUSE: Final = pattern(
    r"[,;:.?!()\u2014\u2013\uff0c\uff1b\uff1a\u3001\u3002] | \s-\s | (?=\b(?:but|sondern|sino|mais|mas|ma)\b)"
    rf"| (?=\b(?:and\ not|rather\ than|instead\ of|as\ opposed\ to|unlike|over)\b) | (?={CONCLUSION})"
)
_LIST_GOES_ON: Final = pattern(rf"\s*(?:(?:and|or|nor|und|oder|et|ou|y|o|e)\b\s*)?(?:option\s+)?{_M}\s*")
_DENIED: Final = pattern(
    rf"{NEGATION} | \b(?:doubt\w*|unlikely|hardly|avoid\w*|opposite|complement)\b"
    r"| [\u274c\u2717\u2718\u2716]"
)
_ALSO: Final = pattern(r"\b(?:also|too|as\ well|equally)\b")
_CONDITION: Final = pattern(CONDITION)
_CONCLUSION: Final = pattern(CONCLUSION)
_CORRECTION: Final = pattern(CORRECTION)
_NO: Final = pattern(r"^\W*(?:no|nope|nein|non|\u043d\u0435\u0442)\b\s*[,.!:]")
_REASON: Final = pattern(rf"(?:^|[\s,;]){REASON}")
_ENTRY: Final = re.compile(rf"[\s>|*_\"'`#-]{{0,8}}({_M})[\s.,;:)*_\"'`|]*")
_SEVERAL: Final = frozenset((-1, -2))


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
    text = answer.text[:_MAX_LENGTH] if answer.labelled else answer.text[-_MAX_LENGTH:]
    lines = [_shape(line, options) for line in text.split("\n") if re.search(r"\w", line)]
    entries = [_ENTRY.fullmatch(line) for line in lines]
    named = {_place(entry[1]) for entry in entries if entry}
    if len(lines) > 1 and entries[0] and entries[1] and entries[0][1] != entries[1][1]:
        return None
    if not answer.labelled and lines and entries[0] and len(named) == 1:
        # An option on a line of its own, and what explains it.
        given = named | _given(lines[1:], first=True, corrections=True)
        return named.pop() if len(given) == 1 else None
    given = _given(lines, first=answer.labelled)
    return given.pop() if len(given) == 1 and min(given) >= 0 else None


def _given(lines: Sequence[str], *, first: bool, corrections: bool = False) -> set[int]:
    """The options that shapes give: the ``first`` sentence that gives any, or all; with ``corrections`` only
    sentences that correct what was said before count."""
    given: set[int] = set()
    corrected = not corrections
    for sentence in (sentence for line in lines for sentence in _SENTENCE.split(line)):
        found = _of_sentence(sentence)
        if _CORRECTION.search(sentence):
            given, corrected = found, True
        elif not corrected:
            continue
        elif first and not (given and _ALSO.search(sentence)):
            given = given or found
        else:
            given = found if found and _CONCLUSION.search(sentence) else given | found
    return given


def _of_sentence(sentence: str) -> set[int]:
    reason = next((one for one in _REASON.finditer(sentence) if re.search(_M, sentence[: one.start()])), None)
    sentence = sentence[: reason.start()] if reason else sentence
    if not re.search(_M, sentence):
        return set()
    if _CONDITION.search(sentence):
        return set(_SEVERAL)
    given: set[int] = set()
    refused: set[int] = set()
    denied = False
    for clause in _CLAUSE.split(_BUT_FOR.sub("except", _NO.sub("", sentence))):
        found = {_place(mark) for mark in re.findall(_M, clause)}
        denied = bool(_DENIED.search(clause)) or (denied and bool(_LIST_GOES_ON.fullmatch(clause)))
        if found and denied:
            refused |= found
        elif found:
            given = found if _CONCLUSION.match(clause.lstrip()) else given | found
    return set(_SEVERAL) if given & refused else given


def _shape(line: str, options: Sequence[str]) -> str:
    """A line with one character for each option that it names."""
    if (alone := _alone(line, options)) is not None:
        return chr(_BY_LETTER + alone)
    for at in sorted(range(len(options)), key=lambda at: -len(options[at])):
        wanted = normalise(options[at])
        if len(wanted) == 1 and wanted.isalpha():
            continue
        for start in reversed(list(places(wanted, line.lower(), whole_words=True))) if wanted else ():
            before, behind = line[:start], line[start + len(wanted) :]
            if _BEFORE.search(before[-_NEAR:]) and _AFTER.match(behind[:_NEAR]):
                line = before + chr(_BY_TEXT + at) + behind
    for letter in reversed(list(_LETTER.finditer(line))):
        at, before, behind = (
            _index(letter[letter.lastgroup or 0]),
            line[: letter.start()],
            line[letter.end() :],
        )
        if at < len(options) and (
            letter["bare"] is None or _names(letter["bare"], before[-_NEAR:], behind[:_NEAR])
        ):
            line = before + chr(_BY_LETTER + at) + behind
    line = _UNNAMED.sub(lambda one: _second(one, len(options)), line)
    return _PAIR.sub(
        lambda pair: pair[1] if _place(pair[1]) == _place(pair[2]) else f"{pair[1]} {pair[2]}", line
    )


def _second(letter: re.Match[str], count: int) -> str:
    """A letter beside an option that is named, as in "plans A and B", is one as well; an article is none."""
    article = letter[1] == "A" and re.match(rf"\s+{_T}", letter.string[letter.end() : letter.end() + _NEAR])
    return letter[1] if article or _index(letter[1]) >= count else chr(_BY_LETTER + _index(letter[1]))


def _names(letter: str, before: str, behind: str) -> bool:
    """Whether a letter names an option: not an article, a pronoun or a part of a name."""
    if (letter == "A" and re.match(rf"\s+{_T}", behind)) or (letter == "I" and re.match(r"\s+\w", behind)):
        return False
    if _COMMAND.search(before):
        return False
    return bool(
        _NAMED.search(before)
        or (_BEFORE.search(before) and (re.match(r"[).:\]]", behind) or _AFTER.match(behind)))
    )


def _place(mark: str) -> int:
    return (ord(mark) - _BY_LETTER) % (_BY_TEXT - _BY_LETTER)


def _alone(line: str, options: Sequence[str]) -> int | None:
    """The option that is all of a line: its text, its letter, or one behind the other."""
    wanted = normalise(line)
    for at, option in enumerate(options):
        letter = ascii_uppercase[at]
        texts = {normalise(f"{letter}{mark} {option}") for mark in ("", ".", ")", ":")}
        if wanted in texts | {normalise(option)}:
            return at
    found = _ALONE.fullmatch(wanted)
    return _index(found[1]) if found and _index(found[1]) < len(options) else None


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
