# ruff: noqa: RUF001 (signs that look alike are meant)
"""The spellings of mathematical signs: LaTeX's, Unicode's, and those typed at a keyboard."""

from __future__ import annotations

from typing import Final


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
