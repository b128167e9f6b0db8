# ruff: noqa: RUF001 (signs that look alike are meant)
r"""Splits a text into tokens: LaTeX, typed mathematics and Unicode's signs alike.

Only layout is dropped, such as ``\left``, ``\,`` and dollar signs around a formula.
Numbers are read exactly: thousands may be grouped by commas or spaces, LaTeX's included; a decimal point, a
period that repeats (``0.1\overline{6}``), a power of ten (``1.5e3``) and a base (``101_2``) may follow.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.grading.formulas.tree import Unreadable
from tunix_rt_evaluator.grading.reading.numbers import unit_of


def _table(entries: str) -> dict[str, tuple[str, str]]:
    """From entries such as ``kind:text spelling spelling``, the kind and text of each spelling."""
    found = {}
    for entry in entries.split(";"):
        meaning, *spellings = entry.split()
        kind, _, text = meaning.rpartition(":") if meaning[:-1] else ("", "", meaning)
        found.update(dict.fromkeys(spellings, (kind or text, text if kind else "")))
    return found


_NAMES: Final = """
sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp gcd lcm max min det
"""
_FUNCTIONS: Final = {name: ("function", name) for name in _NAMES.split()}
COMMANDS: Final = _FUNCTIONS | _table(
    r"""
    frac frac dfrac tfrac cfrac; binom binom dbinom tbinom; sqrt sqrt; surd:2 surd; surd:3 cubesurd;
    over over; choose choose; * cdot times ast; / div; pm pm; mp mp; % %; ' prime; circ circ; degree degree;
    < lt; > gt; <= le leq leqslant; >= ge geq geqslant; != ne neq; ~ approx; equiv equiv; in in; mid mid;
    : colon; pmod pmod; mod bmod mod; and land wedge; or lor vee; union cup; intersection cap;
    difference setminus backslash; emptyset emptyset varnothing; constant:infinity infty; constant:pi pi;
    | vert lvert rvert; norm Vert lVert rVert |; lfloor lfloor; rfloor rfloor; lceil lceil; rceil rceil;
    langle langle; rangle rangle; lset lbrace {; rset rbrace }; [ lbrack; ] rbrack; comma quad qquad;
    currency:dollar $; currency:gbp pounds; currency:euro euro; name:T top; name:l ell;
    function:tan tg; function:cot ctg; function:arctan arctg; function:csc cosec
    """
)
"""What a command means: the kind and the text of its token."""

TYPED: Final = _FUNCTIONS | _table(
    """
    function:arcsin asin; function:arccos acos; function:arctan atan; function:abs abs; function:floor floor;
    function:ceil ceil; sqrt sqrt; constant:pi pi; constant:infinity infinity infty inf; and and; or or;
    in in; mod mod; union union
    """
)
"""What a word without a backslash means."""

_GREEK: Final = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi
psi omega
"""
GREEK: Final = frozenset(_GREEK.split())

CURRENCIES: Final = {"$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee"}

_TEXTS: Final = """
text textbf textit textrm textnormal textsf mbox hbox mathrm mathbf mathit mathsf mathnormal operatorname
boldsymbol bm underline boxed fbox
"""
TEXTS: Final = frozenset(_TEXTS.split())
"""Commands that change only the looks of what they hold."""

_ACCENTS: Final = "vec hat bar overline tilde dot ddot mathbb mathcal mathfrak mathscr"
ACCENTS: Final = {
    **{name: name for name in _ACCENTS.split()},
    **{"widehat": "hat", "widetilde": "tilde", "overrightarrow": "vec", "overleftrightarrow": "line"},
}
"""Commands that make another symbol of what they hold."""

SIGNS: Final = {
    **{sign: sign for sign in "+-*/^_=<>|,;:%'&()[]{}!~"},
    **{"<=": "<=", "=<": "<=", ">=": ">=", "==": "=", "**": "^", "+/-": "pm"},
}
"""What signs at a keyboard mean, the longest first."""

_LATEX: Final = r"""
- −﹣; * ∗; / ∕⁄; | ∣; : ∶; ' ′’; '' ″; \text{cent} ¢; \angle ∠; \triangle △; \cdot ·⋅∙; \times ×; \div ÷;
\le ≤⩽; \ge ≥⩾; \ne ≠; \approx ≈; \equiv ≡; \infty ∞; \cup ∪; \cap ∩; \setminus ∖; \in ∈; \notin ∉;
\emptyset ∅; \pi π; \phi ϕ; \epsilon ϵ; \theta ϑ; \surd √; \cubesurd ∛; ^\circ °; \pm ±; \mp ∓; \lfloor ⌊;
\rfloor ⌋; \lceil ⌈; \rceil ⌉; \langle ⟨〈; \rangle ⟩〉; \| ‖; \land ∧; \lor ∨; \mathbb{R} ℝ; \mathbb{Z} ℤ;
\mathbb{N} ℕ; \mathbb{Q} ℚ; \mathbb{C} ℂ
"""
UNICODE: Final = {
    ord(sign): latex + " " * ("\\" in latex and not latex.endswith("}"))
    for latex, signs in (entry.split() for entry in _LATEX.split(";"))
    for sign in signs
} | {0x2329: r"\langle ", 0x232A: r"\rangle "}
"""Unicode's signs in LaTeX, for ``str.translate``."""

MAX_CHARACTERS: Final = 2_000
SCALES: Final = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}

_VULGAR: Final = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_RAISED: Final = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
_RAISED_FRACTION: Final = re.compile(f"([{_RAISED}]+)[/\u2044]([\u2080-\u2089]+)")
_RAISED_RUN: Final = re.compile(f"[{_RAISED}\u207a\u207b\u207d\u207e\u207f\u2071]+")
_LOWERED_RUN: Final = re.compile("[\u2080-\u208e\u2090-\u209c]+")
_OTHER_FORMS: Final = ("<wide>", "<narrow>", "<font>")
_BARE_FRACTION: Final = re.compile(r"\\([dtc]?frac|[dt]?binom)\s*(\d)\s*(\d)(?![\d.])")
_BARE_NUMERATOR: Final = re.compile(r"\\([dtc]?frac|[dt]?binom)\s*(\d)\s*(?=[{\\])")
_BRACED_POINT: Final = re.compile(r"(?<=\d)\{\.\}(?=\d)")
_TYPED_VECTOR: Final = re.compile(r"\s*<([^<>=]*,[^<>=]*)>\s*")
_BASED_IN_BRACKETS: Final = re.compile(
    r"(?<![A-Za-z}])(?:\\left)?\(\s*(\d[0-9A-F]*)\s*(?:\\right)?\)\s*(?=_\s*\{?\s*\d)"
)
_HEXADECIMAL: Final = re.compile(r"([A-F][0-9A-F]+)\s*_\s*(?:\{\s*16\s*\}|16)(?!\d)")
_HALF_OF_DAY: Final = re.compile(r"([aApP])\.?([mM])(?![a-zA-Z])\.?")
_BEHIND_TIME: Final = re.compile(r"\d:\d\d\s*$")
_OBJECT: Final = r"\\(?:vec|overrightarrow|hat|mathbf|boldsymbol|bm|mathbb|mathcal)(?![a-zA-Z])"
_BEHIND_OBJECT: Final = re.compile(rf"{_OBJECT}\s*(?:\{{[^{{}}]*\}}|\w)\s*\Z")
_BEFORE_OBJECT: Final = re.compile(rf"\s*{_OBJECT}")
_NEAR: Final = 60
_CODES: Final = {"USD": "dollar", "EUR": "euro", "GBP": "gbp"}
_BEFORE_NUMBER: Final = re.compile(r"[\s~]*\\?\$?\s*\d")
_LAYOUT: Final = re.compile(
    r"""(?: \s | ~ | \\[,;:!>\ ] | \\[()\[\]]
      | \\(?:left|middle|right)(?![a-zA-Z])(?!\s*\.)
      | \\(?:[bB]igg?[lrm]?|(?:display|text|script)style|(?:thin|med|thick)space|(?:no)?limits|(?:math)?strut
          |hfill|rm|bf|it|hline|nonumber)(?![a-zA-Z])
      | \\hspace\*?\{[^{}]*\}
    )+""",
    re.VERBOSE,
)
_ROW: Final = re.compile(r"\\\\(?:\[[^\[\]]*\])?")
_COMMAND: Final = re.compile(r"\\(?:([a-zA-Z]+)|(.))", re.DOTALL)
_ENVIRONMENT: Final = re.compile(r"\s*\{([a-zA-Z]+)\*?\}(?:\s*\{[lcr|\s]*\})?")
_FIGURE: Final = re.compile(r"\s*([A-Z]{1,4})(?![a-zA-Z])")
_AMOUNT: Final = re.compile(r"[-+]?[\d.,/]+[\s~\\]*")
_LATIN: Final = re.compile("[a-zA-Z]+")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_GLUED: Final = re.compile(r"(a(?:rc)?(?:sin|cos|tan)|sinh?|cosh?|tanh?|ln|log)([a-zA-Z])")
_NUMBER: Final = re.compile(r"\.?\d")
_ENDS_ITEM: Final = re.compile(r"\s*(?:$|[,;)\]}]|and\b|or\b|\\text\{)")
_OPENS: Final = re.compile(r"\s*(?:\\left\s*)?[(\[{\\]")
_VOWELS: Final = frozenset("eiouEIOU")
_PRODUCT: Final = 3
_OPENING: Final = frozenset(("(", "[", "lset", "{", "langle"))
_CLOSING: Final = frozenset((")", "]", "rset", "}", "rangle"))
_ENDS_OPERAND: Final = frozenset(
    ("number", "name", "constant", ")", "]", "}", "rset", "!", "'", "|", "%", "rfloor", "rceil", "word")
)
_STANDS_ALONE: Final = frozenset((",", ";", "and", "or", "word", "(", "[", "lset"))
_MAX_DIGITS: Final = 4_000
_MAX_EXPONENT: Final = 4_000
_GROUPED: Final = re.compile(
    r"[1-9]\d{0,2}(?P<comma>,|\{,\}|,\\!|\\,|\\;|\\:|\\ |~|[ \u00a0\u2009\u202f])"
    r"\d{3}(?:(?P=comma)\d{3})*(?!\d)(?!(?P=comma)\d)"
)
_DIGITS: Final = re.compile(r"\d+")
_DECIMALS: Final = re.compile(r"\.(\d+)")
_REPEATING: Final = re.compile(r"\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))")
_GOES_ON: Final = re.compile(r"\.(\d{3,60})\s*(?:\.{3}|\u2026|\\[lc]?dots(?:[bc](?![a-z]))?)(?!\s*\d)")
# As many periods as leave no doubt of what goes on.
_PERIODS: Final = re.compile(r"(\d*?)(?:(\d{1,2}?)\2{2,}|(\d{3,}?)\3+)")
_POWER_OF_TEN: Final = re.compile(r"(?:[eE]\d|E[-+]\d)\d*(?![\w.])")
_POWER_BEHIND_DECIMALS: Final = re.compile(r"[eE][-+]?\d+(?![\w.])")
_IN_BASE: Final = re.compile(
    r"(\d+|\d[0-9A-F]*(?=\s*_\s*\{?\s*1[1-6]))\s*_\s*(?:\{\s*(\d{1,2})\s*\}|(\d{1,2}))(?!\d)"
)
_BASES: Final = range(2, 37)
_DIVIDED: Final = re.compile(r"\s*/")
_ZEROS: Final = re.compile(r"\d,0\d\d(?!\d)")
_SEPARATOR: Final = re.compile(r"\d,")
_GROUP_OF_ZERO: Final = re.compile(r",0")


@dataclass(frozen=True, slots=True)
class Token:
    """One sign, number or word.

    The ``kind`` of a sign is the sign itself. ``text`` is a function's name, letters or words, ``value`` the
    value of a number. ``literal`` says that it is a bare whole number, ``spaced`` that a space stands before.
    """

    kind: str
    text: str = ""
    value: Fraction = Fraction(0)
    literal: bool = False
    spaced: bool = False


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text; raises Unreadable."""
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"it has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    return _Cutter(_plain(text)).run()


def _plain(text: str) -> str:
    """The text with Unicode's signs as LaTeX writes them, and without dollar signs around formulas."""
    text = text.replace("\u2013", "-") if text.lstrip("$( ").startswith("\u2013") else text
    text = _RAISED_FRACTION.sub(lambda m: rf"\frac{{{_digits(m[1])}}}{{{_digits(m[2])}}}", text)
    text = _VULGAR.sub(lambda m: "\\frac{{{}}}{{{}}}".format(*_digits(m[0]).split("\u2044")), text)
    text = _RAISED_RUN.sub(lambda m: f"^{{{_digits(m[0])}}}", text)
    text = _LOWERED_RUN.sub(lambda m: f"_{{{_digits(m[0])}}}", text)
    text = text.translate(UNICODE)
    if not text.isascii():
        text = "".join(_usual(character) for character in text)
    text = text.replace("\\left<", "\\langle ").replace("\\right>", "\\rangle ")
    text = re.sub(r"\\not\s*=", r"\\ne ", text)
    if "\\begin" not in text:
        # As it is written in JSON and in programs.
        text = re.sub(r"\\\\(?=[a-zA-Z{}])", r"\\", text)
    text = _BRACED_POINT.sub(".", text)
    if typed := _TYPED_VECTOR.fullmatch(text):
        text = rf"\langle {typed[1]} \rangle"
    text = _BASED_IN_BRACKETS.sub(r"\1", text)
    text = _BARE_FRACTION.sub(r"\\\1{\2}{\3}", text)
    text = _BARE_NUMERATOR.sub(r"\\\1{\2}", text)
    dollars = re.findall(r"(?<!\\)\$", text)
    return re.sub(r"(?<!\\)\$", " ", text) if len(dollars) % 2 == 0 else text


def _digits(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-")


def _usual(character: str) -> str:
    if unicodedata.decomposition(character).startswith(_OTHER_FORMS):
        return unicodedata.normalize("NFKC", character)
    return character


class _Cutter:
    """Splits one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tokens: list[Token] = []
        self._open: list[str] = []
        self._spaced = False

    def run(self) -> list[Token]:
        """All tokens, to the end of the text."""
        while True:
            if layout := _LAYOUT.match(self._text, self._at):
                self._spaced, self._at = True, layout.end()
            if self._at >= len(self._text):
                return self._tokens
            self._step()

    def _step(self) -> None:
        text, at = self._text, self._at
        if row := _ROW.match(text, at):
            self._add("row", end=row.end())
        elif command := _COMMAND.match(text, at):
            self._command(command)
        elif _NUMBER.match(text, at):
            value, end = read_numeral(text, at, in_brackets=bool(self._open) and self._open[-1] != "{")
            self._add("number", text[at:end], end=end, value=value, literal=text[at:end].isdigit())
        elif (in_hex := _HEXADECIMAL.match(text, at)) and not self._behind("name", "number"):
            self._add("number", in_hex[0], end=in_hex.end(), value=Fraction(int(in_hex[1], 16)))
        elif (half := _HALF_OF_DAY.match(text, at)) and self._is_time(half[0]):
            self._add("word", f"{half[1]}m".lower(), end=half.end())
        elif letters := _LETTERS.match(text, at):
            self._letters(letters[0])
        else:
            self._sign()

    def _behind(self, *kinds: str) -> bool:
        return bool(self._tokens) and self._tokens[-1].kind in kinds

    def _is_time(self, half: str) -> bool:
        """Whether am or pm says which half of a day is meant; ``2am`` is a product."""
        if _BEHIND_TIME.search(self._text, max(0, self._at - _NEAR), self._at):
            return True
        return self._behind("number") and (self._spaced or half.isupper() or "." in half)

    def _add(
        self, kind: str, text: str = "", *, end: int, value: Fraction = Fraction(0), literal: bool = False
    ) -> None:
        if kind in _OPENING:
            self._open.append(kind)
        elif kind in _CLOSING and self._open:
            self._open.pop()
        self._tokens.append(Token(kind, text, value, literal, self._spaced))
        self._spaced, self._at = False, end

    def _command(self, command: re.Match[str]) -> None:
        name, end = command[1] or command[2], command.end()
        if name in TEXTS:
            self._held(name, end)
        elif name in ACCENTS:
            content, end = self._content(end)
            accent = "bar" if name == "overline" and len(content) == 1 else ACCENTS[name]
            self._add("name", f"{accent} {content}", end=end)
        elif name == "times" and self._is_between_objects(end):
            self._add("cross", end=end)
        elif name in ("begin", "end"):
            if (environment := _ENVIRONMENT.match(self._text, end)) is None:
                raise Unreadable(f"no environment stands behind \\{name}")
            self._add(name, environment[1], end=environment.end())
        elif name in ("angle", "triangle") and (figure := _FIGURE.match(self._text, end)):
            self._add("name", f"{name} {figure[1]}", end=figure.end())
        elif name in COMMANDS:
            self._add(*COMMANDS[name], end=end)
        elif name.removeprefix("var").lower() in (*GREEK, "pi"):
            self._add("name", name.removeprefix("var"), end=end)
        else:
            raise Unreadable(f"\\{name} is not read")

    def _is_between_objects(self, end: int) -> bool:
        """Whether vectors or sets stand on both sides, whose order then matters."""
        before = _BEHIND_OBJECT.search(self._text, max(0, self._at - _NEAR), self._at)
        return before is not None and _BEFORE_OBJECT.match(self._text, end) is not None

    def _content(self, at: int) -> tuple[str, int]:
        """What a command holds, in braces or one letter, without spaces around it."""
        text = self._text
        begin = at + len(text[at:]) - len(text[at:].lstrip())
        if text[begin : begin + 1] != "{":
            if not text[begin : begin + 1].isalnum():
                raise Unreadable("a command in it holds nothing")
            return text[begin], begin + 1
        depth = 0
        for end in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                return " ".join(text[begin + 1 : end].split()), end + 1
        raise Unreadable("a brace in it is not closed")

    def _held(self, name: str, at: int) -> None:
        """What a command such as \\text holds: words, a unit, or mathematics in other letters."""
        content, end = self._content(at)
        if half := _HALF_OF_DAY.fullmatch(content):
            self._add("word", f"{half[1]}m".lower(), end=end)
            return
        if name == "operatorname" and COMMANDS.get(content, ("",))[0] == "function":
            self._add(*COMMANDS[content], end=end)
            return
        words = name not in ("boxed", "fbox", "underline") and (
            unit_of(content) or (_holds_words(content) and content not in TYPED)
        )
        try:
            inner = tokens_of(content) if content else []
        except Unreadable:
            if not words and not name.startswith("text"):
                raise
            inner, words = [], content
        if words and not _is_formula(content, inner):
            self._add("word", content, end=end)
            return
        self._tokens += [Token("{", spaced=self._spaced), *inner, Token("}")] if len(inner) > 1 else inner
        self._spaced, self._at = not inner, end

    def _letters(self, run: str) -> None:
        if run in _CODES and _BEFORE_NUMBER.match(self._text, self._at + len(run)):
            self._add("currency", _CODES[run], end=self._text.index(run, self._at) + len(run))
            return
        latin = _LATIN.match(run)
        if latin and len(latin[0]) < len(run) and _greek(run[len(latin[0])]):
            run = latin[0]
        end = self._at + len(run)
        if run in TYPED or run.lower() == "infinity":
            self._add(*TYPED[run if run in TYPED else run.lower()], end=end)
        elif not run.isascii():
            greek = _greek(run[0])
            self._add("name" if greek else "word", greek or run, end=self._at + 1 if greek else end)
        elif len(run) == 1:
            self._letter(run)
        elif run in GREEK and len(run) >= _PRODUCT:
            self._add("name", run, end=end)
        elif self._is_word(run, end):
            self._add("word", run, end=end)
        elif glued := _GLUED.fullmatch(run):
            self._add("function", TYPED[glued[1]][1], end=self._at + len(glued[1]))
        else:
            self._letter(run[0])

    def _letter(self, letter: str) -> None:
        end = self._at + 1
        union = letter == "U" and self._behind(*_CLOSING) and _OPENS.match(self._text, end)
        self._add("union" if union else "name", "" if union else letter, end=end)

    def _is_word(self, run: str, end: int) -> bool:
        """Whether a run of letters is a word, and not a product such as xy."""
        before = self._tokens[-1].kind if self._tokens else ","
        if before in _ENDS_OPERAND and (unit_of(run) is not None or run.lower() in ("sq", "cu")):
            return True
        if len(run) > _PRODUCT:
            return not _GLUED.fullmatch(run)
        alone = before in _STANDS_ALONE and _ENDS_ITEM.match(self._text, end) is not None
        beside = before == "word" or _LETTERS.match(self._text[end:].lstrip()[: _PRODUCT + 1]) is not None
        return (alone or beside) and not _VOWELS.isdisjoint(run)

    def _sign(self) -> None:
        text, at = self._text, self._at
        if text.startswith("!=", at):
            if self._behind(*_ENDS_OPERAND) and not self._spaced:
                raise Unreadable("'!=' in it may mean a factorial or 'not equal'")
            self._add("!=", end=at + 2)
        elif text[at] in CURRENCIES:
            self._add("currency", CURRENCIES[text[at]], end=at + 1)
        elif text.startswith(("+-", "-+"), at):
            raise Unreadable(f"{text[at : at + 2]!r} in it may mean two signs, or both of them")
        else:
            sign = next((text[at : at + size] for size in (3, 2, 1) if text[at : at + size] in SIGNS), None)
            if sign is None:
                raise Unreadable(f"{text[at]!r} is not read")
            self._add(SIGNS[sign], end=at + len(sign))


def _is_formula(text: str, tokens: Sequence[Token]) -> bool:
    """Whether words in a command are those of a quantity, or of a list, and not prose."""
    if tokens and (amount := _AMOUNT.match(text)) and unit_of(text[amount.end() :]):
        return True
    kinds = {token.kind for token in tokens}
    return bool(kinds & {"and", "or"}) and kinds <= {"number", "word", "and", "or", ","}


def _holds_words(text: str) -> bool:
    words = (run for run in _LETTERS.findall(text) if len(run) > 1)
    return text in SCALES or any(run not in TYPED and run not in GREEK for run in words)


def _greek(letter: str) -> str:
    """The name of a Greek letter; "" for another one."""
    alphabet, _, name = unicodedata.name(letter, "").partition(" LETTER ")
    if alphabet not in ("GREEK SMALL", "GREEK CAPITAL"):
        return ""
    name = {"lamda": "lambda", "final sigma": "sigma"}.get(name.lower(), name.lower())
    known = name in (*GREEK, "pi")
    return (name if alphabet == "GREEK SMALL" else name.capitalize()) if known else ""


def read_numeral(text: str, at: int, *, in_brackets: bool) -> tuple[Fraction, int]:
    """The number that begins at ``at``, where a digit or a point stands, and where it ends.

    ``in_brackets`` says that a comma separates values, unless what follows it can be no value, as in 1,000.
    """
    if base := _IN_BASE.match(text, at):
        return _in_base(base), base.end()
    grouped = _GROUPED.match(text, at)
    if grouped and grouped["comma"] == ",":
        in_list = in_brackets and not _GROUP_OF_ZERO.search(grouped[0])
        if in_list or _SEPARATOR.match(text, max(0, at - 2), at):
            grouped = None
    if grouped is None and _ZEROS.match(text, max(0, at - 2)) and at > 1:
        raise Unreadable("its thousands are grouped in more than one way")
    if grouped and not grouped["comma"].strip("\\ ") and _DIVIDED.match(text, grouped.end()):
        raise Unreadable("it may have a mixed number or one of thousands before its slash")
    whole = grouped or _DIGITS.match(text, at)
    digits = re.sub(r"\D", "", whole[0]) if whole else ""
    end = whole.end() if whole else at
    if repeating := _REPEATING.match(text, end):
        return _repeating(digits, repeating[1], repeating[2] or repeating[3]), repeating.end()
    if (goes_on := _GOES_ON.match(text, end)) and (periods := _PERIODS.fullmatch(goes_on[1])):
        return _repeating(digits, periods[1], periods[2] or periods[3]), goes_on.end()
    decimals = _DECIMALS.match(text, end)
    if decimals:
        end = decimals.end()
    if len(digits) + (len(decimals[1]) if decimals else 0) > _MAX_DIGITS:
        raise Unreadable(f"a number in it has more than {_MAX_DIGITS:,} digits")
    value = Fraction(f"{digits or 0}.{decimals[1] if decimals else 0}")
    if power := (_POWER_BEHIND_DECIMALS if decimals else _POWER_OF_TEN).match(text, end):
        exponent = int(power[0][1:])
        if abs(exponent) > _MAX_EXPONENT:
            raise Unreadable(f"a power of ten in it is beyond 10^{_MAX_EXPONENT:,}")
        return value * Fraction(10) ** exponent, power.end()
    return value, end


def _in_base(numeral: re.Match[str]) -> Fraction:
    base = int(numeral[2] or numeral[3])
    try:
        if base not in _BASES or len(numeral[1]) > _MAX_DIGITS:
            raise ValueError
        return Fraction(int(numeral[1], base))
    except ValueError:
        raise Unreadable(f"{numeral[0][:60]!r} is no number in a base from 2 to 36") from None


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    if len(whole) + len(fixed) + len(period) > _MAX_DIGITS:
        raise Unreadable(f"a number in it has more than {_MAX_DIGITS:,} digits")
    start = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
    return start + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
