"""Reads the tree of a whole text, if it can be read in just one way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from tunix_rt_evaluator.grading.formulas import tree
from tunix_rt_evaluator.grading.formulas.expressions import Expressions, call, determinant, scalar
from tunix_rt_evaluator.grading.formulas.tokens import SCALES, Token, tokens_of
from tunix_rt_evaluator.grading.reading.numbers import unit_of

_ENDS: Final = 2
_MATRICES: Final = frozenset(["matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array", "vmatrix"])
_FULL_STOP: Final = re.compile(r"(?<!\.)\.(\s*(?:\$+|\\[)\]])?\s*)$")
_PROSE: Final = re.compile(r"(?=.*[^\W\d_]{2})[^\W\d_]+(?:[\s,.'\u2019-]+[^\W\d_]+)*[.]?", re.DOTALL)
_SEPARATORS: Final = frozenset((",", ";", "comma", "and", "or"))
_CLOSED_BY: Final = ") ] } rset rangle end & row rfloor rceil norm | over choose ["
_CLOSERS: Final = frozenset(_CLOSED_BY.split())
_RELATIONS: Final = frozenset(("=", "!=", "<", ">", "<=", ">=", "~", "equiv", "in"))
_SIGNS: Final = frozenset(("+", "-", "=", "<", ">", "<=", ">=", ",", ":", "*", "/"))


def read(text: str) -> tree.Node:
    """The tree of a text, without one full stop at its end; raises Unreadable."""
    text = _FULL_STOP.sub(r"\1", text.strip())
    if text.casefold() in tree.ALL_REAL:
        return tree.Words(text)
    try:
        tokens = _without_braces(tokens_of(text))
        if not tokens:
            raise tree.Unreadable("it is empty")
        return tree.shallow(_Statements(tokens).whole())
    except RecursionError:
        raise tree.Unreadable("it nests too deep") from None
    except tree.Unreadable:
        if _PROSE.fullmatch(text):
            return tree.Words(text)
        raise


def same_spelling(left: str, right: str) -> bool:
    """Whether two texts are spelled the same, layout aside."""
    try:
        # A space between two exclamation marks makes two factorials of a double one.
        spelled = [
            [(token.kind, token.text, token.spaced and token.kind == "!") for token in tokens_of(text)]
            for text in (left, right)
        ]
    except tree.Unreadable:
        return left.split() == right.split()
    return spelled[0] == spelled[1]


def _without_braces(tokens: list[Token]) -> list[Token]:
    """Without braces around nothing or around one sign, as in ``{-}5``."""
    kept: list[Token] = []
    for token in tokens:
        kept.append(token)
        kinds = [each.kind for each in kept[-3:]]
        if kinds[-2:] == ["{", "}"]:
            del kept[-2:]
        elif kinds[0] == "{" and kinds[-1] == "}" and kinds[1] in _SIGNS:
            del kept[-1], kept[-2]
    return kept


class _Statements(Expressions):
    """Reads statements: lists, relations, sets, quantities and words."""

    def whole(self) -> tree.Node:
        """All tokens as one."""
        node = self._divided(_as_one(*self._listing()))
        if self._at < len(self._tokens):
            self._fail()
        return node

    def _listing(self) -> tuple[list[tree.Node], str]:
        items = [self._statement()]
        connectors = set()
        while self._next_is(*_SEPARATORS):
            while separator := self._accept(*_SEPARATORS):
                connectors.add("," if separator.kind in (";", "comma") else separator.kind)
            items.append(self._statement())
        if {"and", "or"} <= connectors:
            raise tree.Unreadable("it has both 'and' and 'or'")
        return items, (connectors - {","} or {","}).pop()

    def _statement(self) -> tree.Node:
        parts: list[tree.Node] = []
        while not (self._next_is(*_SEPARATORS, *_CLOSERS) and parts) and self._at < len(self._tokens):
            token = self._peek()
            if token.kind == "word" and (len(token.text) > 1 or parts):
                words = []
                while word := self._accept("word"):
                    words.append(word.text)
                parts.append(tree.Words(" ".join(words)))
            else:
                if token.kind == "word":
                    self._tokens[self._at] = Token("name", token.text, spaced=token.spaced)
                if parts and not isinstance(parts[-1], (tree.Words, tree.Quantity)):
                    self._fail()
                parts.append(self._relation())
        if not parts:
            self._fail()
        return parts[0] if len(parts) == 1 else tree.Mixed(tuple(parts))

    def _relation(self) -> tree.Node:
        # "= 5" leaves out what is 5.
        self._accept("=", "~")
        sides, signs = [self._side()], []
        while sign := self._accept(*_RELATIONS):
            signs.append(sign.kind)
            sides.append(self._side())
        modulus = self._modulus()
        if (
            "equiv" in signs
            and modulus is None
            and isinstance(sides[-1], tree.Call)
            and sides[-1].name == "mod"
        ):
            sides[-1], modulus = sides[-1].arguments
        node = tree.Relation(tuple(sides), tuple(signs)) if signs else sides[0]
        return node if modulus is None else tree.Congruence(node, modulus)

    def _modulus(self) -> tree.Node | None:
        if self._accept("pmod"):
            return self._atom()
        if self._ahead(2) == ["(", "mod"]:
            self._at += 2
            modulus = self._sum()
            self._take(")")
            return modulus
        return None

    def _side(self) -> tree.Node:
        node = self._term()
        while sign := self._accept("union", "intersection", "difference", "mod"):
            right = self._term()
            node = (
                call("mod", node, right) if sign.kind == "mod" else tree.SetOperation(sign.kind, node, right)
            )
        items = [node]
        while self._accept(":"):
            minutes, begin = self._peek(), self._at
            items.append(self._term())
            if minutes.text.startswith("0") and self._at > begin + 1:
                raise tree.Unreadable("what stands behind the time in it is not read")
        return node if len(items) == 1 else tree.Ratio(tuple(items))

    def _term(self) -> tree.Node:
        if self._next_is("]"):
            return self._outward_interval()
        if self._next_is("currency") or (self._next_is("-", "+") and self._peek(1).kind == "currency"):
            return self._amount()
        node = self._sum()
        if currency := self._accept("currency"):
            return tree.Quantity(scalar(node), f"{currency.text}^1")
        while self._next_is("word") and isinstance(node, tree.SCALARS):
            word = self._peek().text
            if word in SCALES:
                self._take()
                node = call("multiply", node, tree.Number(Fraction(SCALES[word])))
            elif word == "percent" or [word, self._peek(1).text] == ["per", "cent"]:
                self._at += 1 if word == "percent" else 2
                node = call("percent", node)
            else:
                return self._with_unit(node)
        return node

    def _amount(self) -> tree.Node:
        """A currency sign and a number, the sign of the number before or behind it."""
        sign = self._accept("-", "+")
        unit = self._take("currency").text
        number = scalar(self._signed_power())
        while self._next_is("word") and self._peek().text in SCALES:
            number = call("multiply", number, tree.Number(Fraction(SCALES[self._take().text])))
        return tree.Quantity(call("negative", number) if sign and sign.kind == "-" else number, f"{unit}^1")

    def _with_unit(self, node: tree.Node) -> tree.Node:
        begin, spelled, best, end = self._at, "", None, self._at
        while (
            self._next_is("word")
            or (spelled and self._next_is("/", "name"))
            or (spelled and self._next_is("*") and self._peek(1).kind == "word")
        ):
            self._accept("*")
            token = self._take()
            if token.kind == "name" and not spelled.endswith("/"):
                break
            spelled += "/" if token.kind == "/" else f" {token.text}"
            if not spelled.endswith("/") and self._accept("^"):
                exponent = self._exponent()
                sign = "-" if isinstance(exponent, tree.Call) and exponent.name == "negative" else ""
                exponent = exponent.arguments[0] if sign and isinstance(exponent, tree.Call) else exponent
                if not isinstance(exponent, tree.Number):
                    break
                spelled += f"^{sign}{exponent.value}"
            if (unit := unit_of(spelled)) is not None:
                best, end = unit, self._at
        self._at = begin if best is None else end
        return node if best is None else tree.Quantity(node, best)

    def _outward_interval(self) -> tree.Node:
        """``]0, 1[`` is what others write as (0, 1)."""
        self._take("]")
        first = self._sum()
        self._take(",", ";")
        last = self._sum()
        closing = self._take("[", "]", ")").kind
        return tree.Tuple("(", (first, last), ")" if closing == "[" else closing)

    def _inside(self) -> tuple[list[tree.Node], str]:
        """What stands between brackets; bars around them are not closed there."""
        bars, self._bars = self._bars, 0
        found = self._listing()
        self._bars = bars
        self._open_ended = False
        return found

    def _bracketed(self) -> tree.Node:
        readers: Mapping[str, Callable[[], tree.Node]] = {
            "(": self._brackets,
            "[": self._brackets,
            "{": self._group,
            "lset": self._set,
            "emptyset": self._empty_set,
            "langle": self._vector,
            "|": self._absolute,
            "lfloor": lambda: self._between("floor", "rfloor"),
            "lceil": lambda: self._between("ceil", "rceil"),
            "norm": lambda: self._between("norm", "norm"),
            "begin": self._matrix,
        }
        return readers.get(self._peek().kind, self._fail)()

    def _brackets(self) -> tree.Node:
        opening = self._take().kind
        items, connector = self._inside()
        closing = self._take(")", "]", "[").kind
        if closing == "[":
            # [0, 1[ is what others write as [0, 1).
            if len(items) != _ENDS:
                self._fail()
            closing = ")"
        if connector in ("and", "or"):
            return tree.Listing(tuple(items), connector)
        if len(items) > 1:
            return tree.Tuple(opening, tuple(items), closing)
        if opening == "(" and closing == ")":
            return items[0]
        if opening + closing != "[]":
            raise tree.Unreadable("its brackets do not match")
        return items[0] if isinstance(items[0], tree.Matrix) else tree.Tuple("[", tuple(items), "]")

    def _group(self) -> tree.Node:
        self._take("{")
        node = self._divided(_as_one(*self._inside()))
        self._take("}")
        return node

    def _divided(self, above: tree.Node) -> tree.Node:
        """What ``above`` is, or with what stands below it behind \\over or \\choose."""
        if not (sign := self._accept("over", "choose")):
            return above
        return call("divide" if sign.kind == "over" else "binomial", above, self._sum())

    def _set(self) -> tree.Node:
        self._take("lset")
        if self._accept("rset"):
            return tree.Set(())
        if self._next_is("name") and self._peek(1).kind in ("mid", "|", ":", "in"):
            return self._builder()
        items, _ = self._inside()
        self._take("rset")
        return tree.Set(tuple(items))

    def _empty_set(self) -> tree.Node:
        self._take()
        return tree.Set(())

    def _builder(self) -> tree.Node:
        name = self._take("name").text
        domain = self._atom() if self._accept("in") else None
        self._take("mid", "|", ":")
        condition = _as_one(*self._inside())
        self._take("rset")
        return tree.Builder(name, condition, None if domain == tree.Symbol("mathbb R") else domain)

    def _vector(self) -> tree.Node:
        self._take("langle")
        items, _ = self._inside()
        self._take("rangle")
        return tree.Tuple("<", tuple(items), ">")

    def _absolute(self) -> tree.Node:
        self._take("|")
        self._bars += 1
        inner = self._sum()
        self._bars -= 1
        self._take("|")
        self._open_ended = False
        return determinant(inner) if isinstance(inner, tree.Matrix) else call("absolute", inner)

    def _between(self, name: str, closing: str) -> tree.Node:
        self._take()
        items, _ = self._inside()
        self._take(closing)
        if len(items) != 1:
            self._fail()
        return call(name, items[0])

    def _matrix(self) -> tree.Node:
        name = self._take().text
        if name not in _MATRICES:
            raise tree.Unreadable(f"the environment {name} is not read")
        rows: list[list[tree.Node]] = [[]]
        while not self._next_is("end"):
            items, _ = self._inside()
            if len(items) != 1:
                self._fail()
            rows[-1].append(items[0])
            if self._next_is("&", "row"):
                if self._take().kind == "row" and not self._next_is("end"):
                    rows.append([])
            elif not self._next_is("end"):
                self._fail()
        if self._take().text != name or len({len(row) for row in rows}) != 1 or not rows[0]:
            raise tree.Unreadable("the rows of the matrix in it are not of one length")
        matrix = tree.Matrix(tuple(tuple(row) for row in rows))
        return determinant(matrix) if name == "vmatrix" else matrix


def _as_one(items: list[tree.Node], connector: str) -> tree.Node:
    return items[0] if len(items) == 1 else tree.Listing(tuple(items), connector)
