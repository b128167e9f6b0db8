"""Reads which option a text gives.

The grammar is closed. A clause gives the option that it names where each of its other words is one of
those by which people say what they choose (``words.WORDS``), ``I think that the answer is B``; a clause
with any other word only mentions it. What is denied is not given. A conclusion (``so B``), a correction
(``wait, it is C``) and what is set against another option (``not B, but C``) replace what stands before
them. Two options are no answer, nor is one that is asked, given under a condition, doubted, put into
somebody else's mouth, or named beside another one later on. What explains a choice may name other options
where it denies them, or their texts in a sentence of its own that speaks of the matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from string import ascii_uppercase
from typing import Final

from tunix_rt_evaluator.grading.graders.strings import places
from tunix_rt_evaluator.grading.reading.answers import Answer
from tunix_rt_evaluator.grading.reading.context import (
    CERTAIN,
    HEARSAY,
    is_asserted,
    objection,
    pattern,
    unsettled,
    until_next,
)
from tunix_rt_evaluator.grading.reading.spelling import UNSPACED, normalise, without_type, without_variants
from tunix_rt_evaluator.grading.reading.words import (
    CONCLUSION,
    CONDITION,
    CONTRAST,
    CORRECTION,
    NEGATION,
    QUESTION,
    REASON,
    UNSPACED_WORDS,
    WORDS,
)

# In the shape of a line each option that is named is one character, by its place in these two ranges.
_BY_LETTER: Final = 0xE000
_BY_TEXT: Final = 0xE100
L: Final = f"[{chr(_BY_LETTER)}-{chr(_BY_LETTER + 25)}]"
"""An option by its letter, as a part of a regular expression."""
T: Final = f"[{chr(_BY_TEXT)}-{chr(_BY_TEXT + 25)}]"
"""An option by its text."""
M: Final = f"[{L[1:-1]}{T[1:-1]}]"
"""An option by either."""
_NEAR: Final = 48

_ALONE: Final = re.compile(
    r"(?:[-*>#|]+\s+)*(?:(?:option|choice|letter)\s+)?[*_`\"]*[(\[{]?[*_`]*([a-z])[*_`\"]*[)\]}]?[.:]?[*_`\"]*(?:\s*\|)?"
)
_LETTER: Final = re.compile(
    rf"(?<![^\W{UNSPACED}])(?:\(\s*(?P<round>[A-Za-z])\s*\)|\[\s*(?P<square>[A-Za-z])\s*\]"
    rf"|(?<![-+#'\u2019.^/\\!~\u00ac\u00b0])(?P<bare>[A-Z])(?![^\W{UNSPACED}]|-(?!\s)|['\u2019/+#^]\S|[+#'\u2019*=<>]|\.\d|\.[A-Za-z]\b))"
)
_LEAD: Final = r"""
is|are|was|were|be|been|it|that|this|i['\u2019]d|it['\u2019]s|that['\u2019]s|say|says|said|think|believe
  |guess|choose|chose|pick|select|take|go|suggest|leaves?|leaving|means?|matches|choice|options?|letter
  |answer|statement|only|namely|probably|likely|definitely|clearly|certainly|perhaps|maybe|possibly|both
  |either|neither|nor|doubt|of|to|on
  |zweifel|doute|duda|dubbio|dúvida|würde|dirais|diría|lo|il|s['\u2019]agit\ de|or|and|not|than|over|thought
  |prefer|while|although|though|whereas|since|i|between|in|at|with|for|but|except|unlike|because|although|if
  |so|thus|the|an?|correct|right|best|wrong|incorrect|eliminate|reject|rule\ out|actually|instead|rather
  |therefore|hence
  |ist|die|der|das|antwort|lösung|möglichkeit|variante|lautet|wähle|nehme|für|also|sondern|wäre|nicht|oder
  |und|dass|vielleicht|statt
  |est|c['\u2019]est|la|le|les|l|d|de|lettre|choix|choisis|proposition|donc|mais|que|pour|plutôt
  |peut-\u00eatre|r[eé]ponse|pas|ou|et
  |es|el|letra|opci[oó]n|respuesta|elijo|escojo|por|sino|ser|ni|quizás?|no|y|o|é|op[cç][aã]o|resposta|n[aã]o
  |e
  |è|il|lettera|opzione|risposta|non|scelgo|escolho
  |ответ|вариант|это|выбираю|не
"""
_BEFORE: Final = pattern(
    rf"(?: ^ | [^\w\s'\u2019] | [{UNSPACED}{M[1:-1]}] | (?:^|[^\w'\u2019-])(?:{_LEAD}) )\W*$"
)
_BEGINNING: Final = re.compile(r"(?:^|[.!?:]\s+)(?:(?:the|an?)\s+)?$", re.IGNORECASE)
_MARKS: Final = "\uff0c\u3002\uff1b\uff1a\u3001\uff01\uff1f\u2705\u2713\u2714\u2026"
_NAMED: Final = pattern(
    r"\b(?:option|choice|letter|answer|antwort|letra|lettre|opci[oó]n|r[eé]ponse|respuesta)\W*$"
)
_AFTER: Final = pattern(
    rf"""
    [\s"'\u201c\u201d\u2018\u2019*_`$)}}\]|]* (?: $ | [.,;:!?(\u2014\u2013&/<>{_MARKS}]
      | -\s | [{UNSPACED}] | {M}
      | (?:is|are|was|isn['\u2019]t|wasn['\u2019]t|seems?|looks|appears|feels|sounds|would|must|should|can
        |cannot|will|might|may|could|can['\u2019]t|and|or|nor|but|not|rather|instead|it\ is|only|here|too|in
        |on|of|as|to|for|remains|correct|right|wrong|incorrect|false|true|definitely|i|probably|wählen
        |nehmen|sagen|sein|richtig|korrekt|falsch|stimmt|correcte?|exacte?|juste|fausse?|corret[ao]
        |corrett[ao]|incorrect[ao]|correct[ao]|c|ça|ist|wäre|scheint|oder|und|nicht|est|serait|semble|ou|et
        |es|sería|parece|o|y|é|e|è|sino|sondern|mais)\b
      | {REASON} )
    """
)
_UNNAMED: Final = re.compile(
    rf"(?<![\w'\u2019])([A-Z])(?=\W{{1,8}}(?:(?:text\W*)?(?:and|or|nor|y|o|et|ou|und|oder)\b)?\W{{0,6}}{M})"
)
# A small letter at the end of a statement, as in "the answer is b".
_SMALL: Final = pattern(
    r"(?P<lead>\b(?:answer|option|choice|letter|it|that|antwort|respuesta|réponse|opción)"
    r"(?:\s+(?:is|ist|est|es|lautet))?:?\s+[\"'(]?)(?P<small>[a-z])(?=[\"')]*(?:[.!,;]|\s*$))"
)
_COMMAND: Final = re.compile(r"\\(?!text|math|bf|rm|quad|left|big)[a-z]+[^\w\\]*$|[\u00ac~]\s*$")
_PAIR: Final = re.compile(rf"({L})[\s).:,\]\"'*_=\u2013\u2014-]{{1,6}}(?:is\s+)?\(?({T})\)?")
_BEGINS: Final = re.compile(rf"^[\s>|*_\"'`#-]{{0,8}}({L})(?=[).:\]]\s+\w|\s*[-\u2013\u2014]\s+\w|\s+{T})")
# Beside letters of scripts that set no words apart as well.
_BOLD: Final = re.compile(r"(?<!\*)\*{1,3}(\(?[A-Za-z]\)?)\*{1,3}(?!\*)")
_STRUCK: Final = re.compile(r"</?(?:s|del|strike)\b[^<>\n]{0,40}>", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[a-zA-Z|][^<>\n]{0,40}>")

_MAX_LENGTH: Final = 2_000
_SENTENCE: Final = re.compile("(?<=[.!?\u2026])[\\s\"'\u201d\u2019)\\]*_]+|(?<=[\u3002\uff01\uff1f])")
_ASKED: Final = re.compile("[?\uff1f\u061f]")
_CLAUSE: Final = pattern(
    "[,;:.?!()\u2014\u2013\uff0c\uff1b\uff1a\u3001\u3002\u2026] | \\s-\\s"
    rf"| (?={CONTRAST}) | (?={CONCLUSION})"
    r"| (?=\b(?:and\ not|et\ non|y\ no|und\ nicht|rather\ than|instead\ of|as\ opposed\ to|unlike|over)\b)"
)
_JOINS: Final = re.compile("\\s*[:\uff1a\u2013\u2014-]\\s*")
_TRAILS: Final = re.compile(f"{M}[\\s\"')]*(?:\\.{{2,}}|\u2026)")
_OR: Final = "(?:and|or|nor|und|oder|et|ou|y|o|e|和|或|と)"
_LISTED: Final = pattern(rf"({M})\s*[,\u3001\uff0c]\s*(?:{_OR}\s+)?(?:(?:option|choice|letter)\s+)?(?={M})")
_RESTATED: Final = pattern(rf"({M})\s*(?:is|means|=|:|[-\u2013\u2014]|,|\()?\s*[\"'(]*({M})[\"')]*")
_BUT_FOR: Final = pattern(r"\b(?:all|any\w*|every\w*|none|nothing)(?:\s+of\s+\w+)?\s+(?:but|save)\b")
_NO: Final = pattern(r"^\W*(?:no|nope|nein|non|нет)\b\s*[,.!:\u2014\u2013]|^\W*不[\uff0c\u3002,]")
_DENIED: Final = pattern(
    rf"{NEGATION} | \b(?:doubt\w*|unlikely|hardly|avoid\w*|opposite|complement|distractors?"
    r"|zweif\w+|bezweif\w+)\b"
    r"| [\u274c\u2717\u2718\u2716]"
)
_ALSO: Final = pattern(
    r"\b(?:too|also|as\ well|equally|likewise|auch|ebenfalls|aussi|également|también|anche)\b"
    r"| 也 | 同样"
)
_HEARSAY: Final = pattern(HEARSAY)
_CERTAIN: Final = pattern(CERTAIN)
_NEGATED: Final = pattern(NEGATION)
_CONDITION: Final = pattern(CONDITION)
_CONCLUSION: Final = pattern(CONCLUSION)
_CORRECTION: Final = pattern(CORRECTION)
_CONTRAST: Final = pattern(CONTRAST)
_REASON: Final = pattern(rf"(?:^|[\s,;]){REASON}")
_QUESTION: Final = pattern(rf"{QUESTION} | ^[\s\"'(*]*(?:is|are|would|should|ist|est)\s+[\"'(*]*{M}")
_SETTLED: Final = pattern(
    r"\b(?:answer|option|choice|correct|right|antwort|lösung|richtig|réponse|respuesta|risposta|resposta"
    r"|ответ)\b | 答案 | 正确 | 选 | 正解 | 정답"
)
_OTHERS: Final = pattern(
    r"\b(?:others?|the\ rest|remaining|andere\w*|autres|otr[ao]s|altre|outr[ao]s)\b"
    r"| 其他 | 其它"
)
_SIGNS: Final = re.compile(
    "[\\s\"'\u201c\u201d\u2018\u2019\u201e\u00ab\u00bb\u300c\u300d()\\[\\]{}*_`|#>=\u2192.:"
    "\u2705\u2713\u2714\u2611\ufe0f\u00a1\uff1a\u2013\u2014$-]*"
)
_WORD: Final = re.compile(rf"[^\W{UNSPACED}]+(?:'[^\W{UNSPACED}]+)*")
_RUN: Final = re.compile(f"[{UNSPACED}]+")
_UNSPACED: Final = pattern(f"{UNSPACED_WORDS}*")
# A capital one is an option, or an article of what is none.
_ARTICLE: Final = re.compile("\\bA\\b(?!\\s+(?:resposta|opção|alternativa|letra|correta|esta|minha)\\b)")
_PHRASE: Final = pattern(r"\bwhat\s+(?=(?:i|we)\b)|\bthere\s+is\b|\bcan\s+only\s+be\b|100\s?%")
_JUDGES: Final = pattern(
    r"\b(?:i|me|my|we|you|your|ich|je|yo|eu|io|better|best|correct|right|true|answers?|choices?|options?|prefer\w*)\b"
)
_FACT_WORDS: Final = 4
_FEW_WORDS: Final = 4


def place(mark: str) -> int:
    """The place of an option, by its mark in a shape."""
    return (ord(mark) - _BY_LETTER) % (_BY_TEXT - _BY_LETTER)


def index(letter: str) -> int:
    """The place of an option by its letter."""
    return ascii_uppercase.index(letter.upper())


def cleaned(text: str) -> str:
    """A text without markup: tags, LaTeX's text commands, emphasis, variant forms of letters."""
    return without_type(_BOLD.sub(r"\1", _TAG.sub("", _STRUCK.sub("~", without_variants(text)))))


def shape_of(line: str, options: Sequence[str]) -> str:
    """A cleaned line with one character for each option that it names."""
    if (alone := _whole_line(line, options)) is not None:
        return chr(_BY_LETTER + alone)
    for at in sorted(range(len(options)), key=lambda at: -len(options[at])):
        wanted = normalise(options[at])
        if len(wanted) == 1 and wanted.isalpha() and not re.match(f"[{UNSPACED}]", wanted):
            continue
        for start in reversed(list(places(wanted, line.lower(), whole_words=True))) if wanted else ():
            before, behind = line[:start], line[start + len(wanted) :]
            framed = _BEFORE.search(before[-_NEAR:]) and _AFTER.match(behind[:_NEAR])
            if framed or _BEGINNING.search(before):
                line = before + chr(_BY_TEXT + at) + behind
    for letter in reversed(list(_LETTER.finditer(line))):
        at, before, behind = (
            index(letter[letter.lastgroup or 0]),
            line[: letter.start()],
            line[letter.end() :],
        )
        if at >= len(options):
            continue
        if letter["bare"] is None or _names(letter["bare"], before[-_NEAR:], behind[:_NEAR]):
            line = before + chr(_BY_LETTER + at) + behind
        elif letter["bare"] not in "AI" and not _COMMAND.search(before[-_NEAR:]):
            # Of a letter that may be a part of a name, as of vitamin C, no more is said than of a text.
            line = before + chr(_BY_TEXT + at) + behind
    line = _SMALL.sub(lambda one: _small(one, len(options)), line)
    line = _UNNAMED.sub(lambda one: _second(one, len(options)), line)
    return _PAIR.sub(lambda pair: pair[1] if place(pair[1]) == place(pair[2]) else pair[0], line)


def entry(shape: str) -> tuple[int, str] | None:
    """The option that a line lists, as in "B) ...", and the rest of the line; None if it lists none."""
    begins = _BEGINS.match(shape)
    return (place(begins[1]), shape[begins.end() :].lstrip(").:]-\u2013\u2014 ")) if begins else None


def _small(one: re.Match[str], count: int) -> str:
    at = index(one["small"])
    return one["lead"] + (chr(_BY_LETTER + at) if at < count else one["small"])


def _second(letter: re.Match[str], count: int) -> str:
    """A letter beside an option that is named, as in "plans A and B", is one as well; an article is none."""
    article = letter[1] == "A" and re.match(rf"\s+{T}", letter.string[letter.end() : letter.end() + _NEAR])
    return letter[1] if article or index(letter[1]) >= count else chr(_BY_LETTER + index(letter[1]))


def _names(letter: str, before: str, behind: str) -> bool:
    """Whether a letter names an option: not an article, a pronoun or a part of a name."""
    # In French "A car" may be "A because"; in English it is a car.
    follows = {"A": rf"\s+(?:{T}|car\b)", "I": r"\s+\w"}.get(letter)
    if follows and re.match(follows, behind):
        return False
    if _COMMAND.search(before):
        return False
    return bool(
        _NAMED.search(before)
        or (_BEFORE.search(before) and (re.match(r"[).:\]]", behind) or _AFTER.match(behind)))
    )


def _whole_line(line: str, options: Sequence[str]) -> int | None:
    """The option that is all of a line: its text, its letter, or one behind the other."""
    asked = re.search(r"[?\uff1f]", line) is not None
    if asked and not any(option.strip().endswith("?") for option in options):
        return None
    wanted = normalise(line)
    for at, option in enumerate(options):
        letter = ascii_uppercase[at]
        texts = {normalise(f"{letter}{mark} {option}") for mark in ("", ".", ")", ":")}
        if wanted in texts | {normalise(option)}:
            return at
    found = None if asked else _ALONE.fullmatch(wanted)
    return index(found[1]) if found and index(found[1]) < len(options) else None


@dataclass(slots=True)
class _Reading:
    """What was read so far: the option that is chosen, those that are denied or only named, whether several
    are given, and whether the choice is doubted or only quoted."""

    chosen: int | None = None
    refused: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)
    several: bool = False
    doubted: bool = False
    quoted: bool = False

    def give(self, at: int, *, replaces: bool, settles: bool, concludes: bool) -> None:
        if replaces:
            self.chosen, self.several, self.named = at, False, set()
            self.refused.discard(at)
            self.doubted &= not concludes
            self.quoted = False
        elif self.chosen is None:
            self.chosen = at
            self.several |= at in self.refused or bool(self.named - {at} - self.refused and not settles)
        else:
            self.several |= self.chosen != at or at in self.refused

    def deny(self, found: set[int]) -> None:
        self.refused |= found
        self.several |= self.chosen in found

    def mention(self, found: set[int]) -> None:
        if self.chosen is None:
            self.named |= found
        else:
            self.several |= bool(found - {self.chosen} - self.refused)

    def line(self, shape: str) -> None:
        """Read a line on its own."""
        listed = entry(shape)
        if listed is None or self.chosen is None:
            for sentence in _SENTENCE.split(shape):
                self.sentence(sentence)
            return
        # "A. Incorrect, because ..." speaks of an option, behind the answer.
        at, said = listed
        if _DENIED.search(_CLAUSE.split(said)[0]):
            self.deny({at})
        elif at != self.chosen and not _is_fact(said):
            self.mention({at})
        for sentence in _SENTENCE.split(said):
            if re.search(M, sentence) and not _DENIED.search(sentence):
                self.sentence(sentence)

    def sentence(self, text: str) -> None:
        text = _CERTAIN.sub(" ", text)
        found = _places(text)
        if not found:
            self._unmarked(text)
            return
        if _ASKED.search(text):
            self.mention(found)
            self.several |= self.chosen is not None
            return
        reason = next((one for one in _REASON.finditer(text) if re.search(M, text[: one.start()])), None)
        said = text[: reason.start()] if reason else text
        if _CONDITION.search(said) or _TRAILS.search(said):
            self.mention(found)
            self.doubted = True
            return
        corrects = bool(_CORRECTION.search(said))
        said = _RESTATED.sub(_one, _BUT_FOR.sub("except", _NO.sub("", said)))
        for clause in _clauses(_LISTED.sub(r"\1 and ", said)):
            self._clause(clause, corrects=corrects)
        if reason:
            self._because(text[reason.end() :])

    def _because(self, why: str) -> None:
        if re.search(M, why):
            self.sentence(why)
        else:
            self.doubted |= unsettled(why) or bool(_CORRECTION.search(why) or _ASKED.search(why))

    def _unmarked(self, text: str) -> None:
        if not re.search(r"\w", text):
            return
        if self.chosen is None:
            self.doubted |= unsettled(_CORRECTION.sub(" ", text))
        elif not _OTHERS.search(text):
            self.doubted |= bool(objection(text))

    def _clause(self, text: str, *, corrects: bool) -> None:
        found = _places(text)
        bare = _without_correction(text)
        if not found:
            words = len(_WORD.findall(bare)) or len("".join(_RUN.findall(bare))) // 2
            self.quoted |= bool(_HEARSAY.search(bare))
            self.doubted |= unsettled(bare)
            self.doubted |= bool(_NEGATED.search(bare)) and words < _FEW_WORDS and not _OTHERS.search(bare)
        elif self.chosen is not None and _ALSO.search(text) and not _DENIED.search(_ALSO.sub(" ", bare)):
            self.several = True
        elif _DENIED.search(bare):
            self.deny(found)
        elif len(found) > 1:
            self.several = True
            self.mention(found)
        elif _gives(bare):
            concludes = _CONCLUSION.match(text.lstrip()) is not None
            contrast = bool(_CONTRAST.search(bare)) and (self.chosen is None or self.chosen in self.refused)
            settles = _SETTLED.search(bare) is not None
            replaces = corrects or concludes or contrast
            self.give(found.pop(), replaces=replaces, settles=settles, concludes=concludes or corrects)
        elif self.chosen is None or re.search(L, text) or not _is_fact(text):
            self.mention(found)
            self.doubted |= self.chosen is not None and (unsettled(bare) or bool(_HEARSAY.search(bare)))


def choice(answer: Answer, options: Sequence[str]) -> int | None:
    """The place of the option that an answer gives; None if it gives none, or several."""
    if (answer.labelled and not answer.text) or (answer.boxed and not is_asserted(answer.before)):
        return None
    text = answer.text + (f"\n{answer.rest}" if answer.rest else "")
    if answer.in_sentence:
        text = f"{_SENTENCE.split(answer.before)[-1]} {text}"
    text = text[:_MAX_LENGTH] if answer.labelled else text[-_MAX_LENGTH:]
    bare = [cleaned(option) for option in options]
    lines = [line for line in cleaned(until_next(text)).split("\n") if re.search(r"\w", line)]
    reading = _Reading()
    for alone, run in groupby((shape_of(line, bare) for line in lines), key=_alone):
        shapes = list(run)
        found = [place(mark) for shape in shapes for mark in re.findall(M, shape)]
        if alone and len(set(found)) > 1:
            # The options, one after the other, say nothing; some of them are several answers.
            if found != list(range(len(found))):
                reading.mention(set(found))
            continue
        for shape in shapes:
            reading.line(shape)
    return None if reading.several or reading.doubted or reading.quoted else reading.chosen


def _without_correction(clause: str) -> str:
    """Without what begins a correction; behind an option such words deny it."""
    mark = re.search(M, clause)
    begin = clause[: mark.start()] if mark else clause
    return _CORRECTION.sub(" ", begin) + clause[len(begin) :]


def _clauses(said: str) -> Iterator[str]:
    """The clauses of a sentence. A colon or a dash ends one only where an option stands before it."""
    begin = 0
    for cut in _CLAUSE.finditer(said):
        piece = said[begin : cut.start()]
        if not (_JOINS.fullmatch(cut[0]) and not re.search(M, piece)):
            yield piece
            begin = cut.end()
    yield said[begin:]


def _alone(shape: str) -> bool:
    return re.fullmatch(rf"[\W_]*{M}[\W_]*", shape) is not None and not _ASKED.search(shape)


def _places(text: str) -> set[int]:
    return {place(mark) for mark in re.findall(M, text)}


def _one(pair: re.Match[str]) -> str:
    return pair[1] if place(pair[1]) == place(pair[2]) else pair[0]


def _gives(clause: str) -> bool:
    """Whether a clause says nothing but that its option is chosen."""
    said = _PHRASE.sub(" ", clause.replace("\u2019", "'"))
    if _QUESTION.search(said) or _ARTICLE.search(said) or unsettled(said):
        return False
    said = re.sub(M, " ", _CONTRAST.sub(" ", said)).lower()
    words = [word for word in _WORD.findall(said) if word not in WORDS]
    return (
        all(part in WORDS for word in words for part in word.split("'"))
        and all(_UNSPACED.fullmatch(run) for run in _RUN.findall(said))
        and _SIGNS.fullmatch(_RUN.sub(" ", _WORD.sub(" ", said))) is not None
    )


def _is_fact(said: str) -> bool:
    """Whether a sentence speaks of the matter and not of the choice."""
    words = len(_WORD.findall(said)) + len("".join(_RUN.findall(said))) // 2
    return words >= _FACT_WORDS and not (
        _JUDGES.search(said) or unsettled(said) or _CORRECTION.search(said) or _HEARSAY.search(said)
    )
