"""How LaTeX, Unicode and people at a keyboard spell the signs of mathematics."""

from __future__ import annotations

from typing import Final


def _table(lines: str) -> dict[str, tuple[str, str]]:
    """From lines such as ``kind:text spelling spelling``, the kind and text of each spelling."""
    found = {}
    for line in lines.split("\n"):
        meaning, *spellings = line.split()
        kind, _, text = meaning.rpartition(":") if meaning[:-1] else ("", "", meaning)
        found.update(dict.fromkeys(spellings, (kind or text, text if kind else "")))
    return found


_FUNCTIONS: Final = """
sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp gcd lcm max min det
"""
FUNCTIONS: Final = frozenset(_FUNCTIONS.split())
"""Functions by the name that LaTeX and people give them."""

COMMANDS: Final = {name: ("function", name) for name in FUNCTIONS} | _table(
    r"""frac frac dfrac tfrac cfrac
binom binom dbinom tbinom
sqrt sqrt
surd:2 surd
surd:3 cubesurd
* cdot times ast
/ div
< lt
> gt
<= le leq leqslant
>= ge geq geqslant
!= ne neq
~ approx
equiv equiv
pm pm
mp mp
in in
union cup
intersection cap
difference setminus backslash
emptyset emptyset varnothing
constant:infinity infty
constant:pi pi
' prime
circ circ
degree degree
mid mid
: colon
pmod pmod
mod bmod mod
and land wedge
or lor vee
| vert lvert rvert
norm Vert lVert rVert |
lfloor lfloor
rfloor rfloor
lceil lceil
rceil rceil
langle langle
rangle rangle
lset lbrace {
rset rbrace }
[ lbrack
] rbrack
% %
currency:dollar $
currency:gbp pounds
currency:euro euro
comma quad qquad
over over
choose choose
function:tan tg
function:cot ctg
function:arctan arctg
function:csc cosec
name:T top
name:l ell"""
)
"""What a command means: the kind and the text of its token."""

TYPED: Final = {name: ("function", name) for name in FUNCTIONS} | _table(
    """function:arcsin asin
function:arccos acos
function:arctan atan
function:abs abs
function:floor floor
function:ceil ceil
sqrt sqrt
constant:pi pi
constant:infinity infinity infty inf
and and
or or
in in
mod mod
union union"""
)
"""What a word without a backslash means."""

_GREEK: Final = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi
psi omega
"""
GREEK: Final = frozenset(_GREEK.split())

CURRENCIES: Final = {"$": "dollar", "\u20ac": "euro", "\u00a3": "gbp", "\u00a5": "yen", "\u20b9": "rupee"}

_TEXTS: Final = """
text textbf textit textrm textnormal textsf mbox hbox mathrm mathbf mathit mathsf mathnormal operatorname
boldsymbol bm underline boxed fbox
"""
TEXTS: Final = frozenset(_TEXTS.split())
"""Commands that change only the looks of what they hold."""

_ACCENTS: Final = "vec hat bar overline tilde dot ddot mathbb mathcal mathfrak mathscr"
ACCENTS: Final = {
    **{name: name for name in _ACCENTS.split()},
    "widehat": "hat",
    "widetilde": "tilde",
    "overrightarrow": "vec",
    "overleftrightarrow": "line",
}
"""Commands that make another symbol of what they hold."""

SIGNS: Final = {
    **{sign: sign for sign in "+-*/^_=<>|,;:%'&()[]{}!~"},
    "<=": "<=",
    "=<": "<=",
    ">=": ">=",
    "==": "=",
    "**": "^",
    "+/-": "pm",
}
"""What signs at a keyboard mean, the longest first."""


def _signs() -> dict[int, str]:
    spelled = {
        "-": "\u2212\ufe63",
        "*": "\u2217",
        "/": "\u2215\u2044",
        "|": "\u2223",
        ":": "\u2236",
        r"\text{cent}": "\u00a2",
        r"\angle ": "\u2220",
        r"\triangle ": "\u25b3",
        "'": "\u2032\u2019",
        "''": "\u2033",
        r"\cdot ": "\u00b7\u22c5\u2219",
        r"\times ": "\u00d7",
        r"\div ": "\u00f7",
        r"\le ": "\u2264\u2a7d",
        r"\ge ": "\u2265\u2a7e",
        r"\ne ": "\u2260",
        r"\approx ": "\u2248",
        r"\equiv ": "\u2261",
        r"\infty ": "\u221e",
        r"\cup ": "\u222a",
        r"\cap ": "\u2229",
        r"\setminus ": "\u2216",
        r"\in ": "\u2208",
        r"\notin ": "\u2209",
        r"\emptyset ": "\u2205",
        r"\pi ": "\u03c0",
        r"\phi ": "\u03d5",
        r"\epsilon ": "\u03f5",
        r"\theta ": "\u03d1",
        r"\surd ": "\u221a",
        r"\cubesurd ": "\u221b",
        r"^\circ ": "\u00b0",
        r"\pm ": "\u00b1",
        r"\mp ": "\u2213",
        r"\lfloor ": "\u230a",
        r"\rfloor ": "\u230b",
        r"\lceil ": "\u2308",
        r"\rceil ": "\u2309",
        r"\langle ": "\u27e8\u3008\u2329",
        r"\rangle ": "\u27e9\u3009\u232a",
        r"\| ": "\u2016",
        r"\land ": "\u2227",
        r"\lor ": "\u2228",
        r"\mathbb{R}": "\u211d",
        r"\mathbb{Z}": "\u2124",
        r"\mathbb{N}": "\u2115",
        r"\mathbb{Q}": "\u211a",
        r"\mathbb{C}": "\u2102",
    }
    return {ord(sign): latex for latex, signs in spelled.items() for sign in signs}


UNICODE: Final = _signs()
"""Unicode's signs in LaTeX, for ``str.translate``."""
