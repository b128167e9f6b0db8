"""Brings texts to one spelling.

For numbers and options (``plain``, ``without_type``): digits of any script, full-width signs, LaTeX's spaces
and text commands, Markdown's emphasis. For texts as they are compared (``normalise``): without what carries
no meaning, and with all that does.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Any, Final

from tunix_rt_evaluator.grading.reading.words import COPULA, MINUS, UNSPACED_MINUS

CURRENCY: Final = "$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u20ab\u20aa\u0e3f\u20b4\u20b1"
SPACES: Final = "\u00a0\u2009\u202f"
UNSPACED: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
"""Letters of scripts that stand beside a number without a space, as parts of a character class."""
LETTER: Final = rf"[^\W{UNSPACED}]"
"""A character of a word, a digit included, in a script that sets words apart."""

_INVISIBLE: Final = "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u2061\u2062\u2063\u2064"
_PLAIN: Final = {
    **{
        "": _INVISIBLE,
        "-": "\u2212\u2013\u2012\u2010\u2011\ufe63",
        "/": "\u2044\u2215",
        ".": "\u3002\uff61\u066b",
    },
    **{
        ",": "\u3001\u060c\u066c\ufe50",
        "\u00d7": "\u22c5\u00b7\u2219\u2217",
        "\u2009": "\u2007\u2008\u2005\u2006\u205f",
    },
    **{"%": "\u066a", ";": "\u061b", "?": "\u061f", ":": "\u2236", " ": "\u3000", "'": "\u02bc"},
}
_SIGNS: Final = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | {sign: usual for usual, signs in _PLAIN.items() for sign in signs}
)
_OTHER_DIGIT: Final = re.compile(r"(?![0-9])\d")
_VULGAR: Final = re.compile(r"(\d?)([\u00bc-\u00be\u2150-\u215e\u2189])")
_SUPERSCRIPTS: Final = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_SUPERSCRIPT_POWER: Final = re.compile(rf"(?<=10)([\u207b\u207a]?)([{_SUPERSCRIPTS}]+)")
_ABROAD: Final = re.compile(rf"\b(?:US|AU?|CA?|HK|NZ|NT|S|R)(?=[{CURRENCY}])")
_CODE: Final = re.compile(r"\b(USD|EUR|GBP|CHF|INR|JPY|CNY|RMB|RM|Rs\.?)(?=\d)")

# GSM8K's annotations, as in <<9*2=18>>18.
_CALCULATOR: Final = re.compile(r"<<[-+*/=().,\d\s]{1,200}>>")
_HALF_OF_DAY: Final = re.compile(r"\b([apAP])\.\s?[mM]\.")

_TEXT_COMMAND: Final = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mathtt|mbox|hbox|bm|boldsymbol|underline|emph)"
    r"\s*\{([^{}]*)\}"
)
_LATEX_FRACTION: Final = re.compile(
    r"(\d?)\\[cdt]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}|(\d)\s*(\d)(?!\d))"
)
_LATEX_SPACE: Final = re.compile(r"\\(?:[ ,;:>]|thinspace|nobreakspace\b)|(?<=\d)~(?=[\s\d\\])")
_LATEX_NOTHING: Final = re.compile(
    r"\\(?:!|left|right|displaystyle|textstyle|q?quad|[Bb]igg?[lr]?|phantom\{\})(?![A-Za-z])|\\\\\s*$"
)
_LATEX_MATH: Final = re.compile(
    r"\\\((.{0,1000}?)\\\)|\\\[(.{0,1000}?)\\\]|\$\$([^$]{0,1000})\$\$|\$(?![\s$])([^$\n]*?)(?<![\s\\])\$(?!\d)",
    re.DOTALL,
)
_LATEX_SIGN: Final = re.compile(r"\\([A-Za-z]+)(?![A-Za-z])\s*")
_LATEX_NAMES: Final = """
\u00d7 times cdot ast; \u2248 approx simeq sim thickapprox; \u2260 ne neq; \u2264 le leq leqslant lt;
\u2265 ge geq geqslant gt; \u21d2 to implies rightarrow longrightarrow Rightarrow Longrightarrow;
\u2026 ldots dots cdots; \u00b1 pm; \u2213 mp; \u00f7 div; \u03c0 pi; \u221a sqrt; \u221e infty; : colon;
\u00b0 degree; \u00a3 pounds; \u20ac euro
"""
_LATEX_SIGNS: Final = {"therefore": "\u2234 "} | {
    name: sign for sign, *names in map(str.split, _LATEX_NAMES.split(";")) for name in names
}
_BRACED_DEGREES: Final = re.compile(r"\{(-?\d[\d.,]*)\}(?=\s*[\u00b0%])")
_DEGREES: Final = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_RELATIONS: Final = (
    (re.compile(r"<=(?!>)|=<"), "\u2264"),
    (re.compile(r">="), "\u2265"),
    (re.compile(r"!=|=/=|<>"), "\u2260"),
    (re.compile(r"[-=]+>"), "\u21d2"),
    (re.compile(r"\+/-|\+-|-\+"), "\u00b1"),
)
_EMPHASIS: Final = (
    re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]*?)(?<=[^\s*])\1(?![\w*])"),
    re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])([^_\n]*?)(?<=[^\s_])\1(?!\w)"),
    re.compile(r"(`{1,3})([^`\n]*)\1"),
)
# A space separates thousands only where nothing else in the text is a number.
_SPACED: Final = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
_NEGATIVE: Final = re.compile(rf"(?:\b(?i:negative)\s+|{UNSPACED_MINUS}\s*)(?=[{CURRENCY}]?\.?\d)")
_LEADING_MINUS: Final = re.compile(
    rf"""
    (^\W{{0,12}} | (?:[:(\u2248] | {COPULA})[ \t]*)
    (?:{MINUS}[ \t]* | -[ \t]+)
    (?=[{CURRENCY}]?\.?\d)
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)

_QUOTES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_ENCLOSING: Final = (
    *zip("\"'`\u00ab\u00bb\u201e\u300c\u300e", '"\'`\u00bb\u00ab"\u300d\u300f', strict=True),
    *((mark, mark) for mark in ("***", "**", "*", "__", "_", "$")),
)
_UNSEEN: Final = re.compile("[\u00ad\u200b\u2060\ufeff]")
# A lower index behind a letter, as in a chemical formula. Behind a digit it tells a base.
_LOWER_INDEX: Final = re.compile("(?<=[^\\W\\d_])[\u2080-\u2089]+")
# Ways to write the same characters. Raised digits, fractions and digits in circles are others.
_SAME: Final = ("<wide>", "<narrow>", "<small>", "<compat>", "<noBreak>", "<vertical>")
_SENTENCE_MARKS: Final = ".!?\u3002\uff01\uff1f"
_FACTORIAL: Final = re.compile(r"(?:[\d)\]}]|\b\w)[!\uff01]$")
# Python's names such as __init__ are no emphasis.
_NAME: Final = re.compile(r"__[a-z0-9_]+__")
SENTENCE_END: Final = re.compile(r"(?:\.|(?<![\d)\]}])(?<!\b\w)!)(?=\s|$)")
"""Where a statement ends. An exclamation mark behind a digit, a bracket or a single letter is a factorial;
what ends in a question mark states nothing."""


def plain(text: str) -> str:
    """``text`` without markup, and with digits, fractions, powers, signs and thousands in plain spelling."""
    text = _CALCULATOR.sub("", text)
    if not text.isascii():
        text = _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text.translate(_SIGNS))
        text = _VULGAR.sub(lambda m: _joined(m[1], unicodedata.normalize("NFKC", m[2])), text)
        text = _SUPERSCRIPT_POWER.sub(_power, text)
    if "\\" in text or "$" in text or "{" in text or "~" in text:
        text = _without_latex(text)
    for mark in _EMPHASIS:
        text = mark.sub(r"\2", text)
    for relation, sign in _RELATIONS:
        text = relation.sub(sign, text)
    text = _HALF_OF_DAY.sub(r"\1m", text)
    text = _CODE.sub(r"\1 ", _ABROAD.sub("", text))
    text = _LEADING_MINUS.sub(r"\1-", _NEGATIVE.sub("-", text))
    return _without_spaces_of_thousands(text)


def _without_latex(text: str) -> str:
    for _ in range(3):
        text = _TEXT_COMMAND.sub(lambda m: " " + m[1].replace("~", " "), text)
    text = _LATEX_NOTHING.sub("", _LATEX_SPACE.sub("\u2009", text))
    text = _DEGREES.sub("\u00b0", text.replace("{,}", ",").replace(r"\%", "%"))
    text = _BRACED_DEGREES.sub(r"\1", text)
    # What is a dollar's sign must not be taken for the begin of a formula.
    text = _LATEX_MATH.sub(
        lambda m: next(filter(None, m.groups()), "").strip(), text.replace(r"\$", "\ue8ff")
    )
    text = _LATEX_FRACTION.sub(lambda m: _joined(m[1], f"{m[2] or m[4]}/{m[3] or m[5]}"), text)
    text = _LATEX_SIGN.sub(lambda m: _LATEX_SIGNS.get(m[1], m[0]), text)
    return text.replace("\ue8ff", "$")


def _without_spaces_of_thousands(text: str) -> str:
    spaced = _SPACED.search(text)
    if (
        spaced is None
        or _has_digit(text[: spaced.start()])
        or _has_digit(text[spaced.end() :].lstrip(".,0123456789"))
    ):
        return text
    return text[: spaced.start()] + spaced.group().replace(" ", "\u2009") + text[spaced.end() :]


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _power(match: re.Match[str]) -> str:
    sign = "-" if match[1] == "\u207b" else ""
    return f"^{sign}{''.join(str(_SUPERSCRIPTS.index(digit)) for digit in match[2])}"


def _joined(whole: str, fraction: str) -> str:
    return f"{whole} {fraction}".lstrip().replace("\u2044", "/")


def without_type(text: str) -> str:
    """``text`` without LaTeX's text commands, formula signs and emphasis; all else stays."""
    for _ in range(3):
        text = _TEXT_COMMAND.sub(r"\1", text)
    text = _LATEX_MATH.sub(lambda m: next(filter(None, m.groups()), "").strip(), text)
    for mark in _EMPHASIS:
        text = mark.sub(r"\2", text)
    return text


def normalise(text: str) -> str:
    """``text`` for comparison: case folded, with single spaces, without marks around the whole.

    Those are quotation marks, Markdown emphasis and dollar signs. One sentence mark at the end goes as well.
    """
    folded = unicodedata.normalize("NFC", without_variants(text).translate(_QUOTES).casefold())
    # Folded first: of one letter that becomes two, a mark behind it is no factorial.
    bare = " ".join(folded.split())
    while (inside := _without_mark(_without_enclosing(bare))) != bare:
        bare = inside
    return bare


def without_variants(text: str) -> str:
    """``text`` with each character in its usual form, and without invisible ones.

    Ligatures, wide and narrow forms, and the lower indices of chemical formulas become plain characters.
    """
    text = unicodedata.normalize("NFC", _UNSEEN.sub("", text))
    if text.isascii():
        return text
    text = "".join(_plain(character) for character in text)
    return _LOWER_INDEX.sub(lambda index: unicodedata.normalize("NFKC", index[0]), text)


def _plain(character: str) -> str:
    if character.isascii() or not unicodedata.decomposition(character).startswith(_SAME):
        return character
    return unicodedata.normalize("NFKC", character)


def _without_enclosing(text: str) -> str:
    """Without the marks of one kind around the whole, all layers of them at once: there may be thousands."""
    for begin, end in _ENCLOSING:
        inside = text[len(begin) : -len(end)]
        if (
            text.startswith(begin)
            and text.endswith(end)
            and inside.strip()
            and not any(mark in inside.strip(begin[0] + end[0]) for mark in (begin, end))
            and not _NAME.fullmatch(text)
        ):
            layers = _layers(text, begin, end)
            inside = text[layers : len(text) - layers].strip()
            # The innermost marks stay where there is nothing in them.
            return inside or text[layers - len(begin) : len(text) - layers + len(end)]
    return text


def _layers(text: str, begin: str, end: str) -> int:
    """How many characters on either side of a text are ``begin`` and ``end``, in one order or the other."""
    size, taken = len(begin), 0
    while 2 * (taken + size) < len(text) and (
        (text[taken : taken + size], text[len(text) - taken - size : len(text) - taken]) in _ENCLOSING
        and {text[taken], text[-1 - taken]} == {begin[0], end[0]}
    ):
        taken += size
    return taken


def _without_mark(text: str) -> str:
    """Without one sentence mark; several in a row say more than that a sentence ends."""
    before = text[:-1].rstrip()
    if not before or text[-1] not in _SENTENCE_MARKS or before[-1] in _SENTENCE_MARKS:
        return text
    return text if _FACTORIAL.search(text) else before


def f1(given: Counter[Any], wanted: Counter[Any]) -> float:
    """The harmonic mean of precision and recall, 2 * shared / (given + wanted); 1 for two empty bags."""
    total = given.total() + wanted.total()
    return 2 * (given & wanted).total() / total if total else 1.0
