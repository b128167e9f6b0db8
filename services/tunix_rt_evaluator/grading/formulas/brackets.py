"""Reads what stands in brackets: pairs, intervals, sets, absolute values and matrices."""

from __future__ import annotations

from typing import Final, NoReturn

from tunix_rt_evaluator.grading.formulas.spelling import Token
from tunix_rt_evaluator.grading.formulas.tree import (
    SCALARS,
    Builder,
    Call,
    Listing,
    Matrix,
    Node,
    Set,
    Symbol,
    Tuple,
    Unreadable,
)

_END: Final = Token("end")
_ENDS: Final = 2
_MATRICES: Final = frozenset(["matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array", "vmatrix"])


def call(name: str, *arguments: Node) -> Node:
    """``name`` of arguments that are numbers; raises Unreadable."""
    return Call(name, tuple(scalar(argument) for argument in arguments))


def scalar(node: Node) -> Node:
    """The node, if it stands for a number; raises Unreadable."""
    if isinstance(node, Tuple) and (node.opening, node.closing, len(node.items)) == ("[", "]", 1):
        node = node.items[0]
    if not isinstance(node, SCALARS):
        raise Unreadable("it computes with what is no number")
    return node


class Brackets:
    """Reads brackets off a list of tokens; a subclass adds what stands in them."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        # Bars of an absolute value that are open; whether the last factor was a function without brackets.
        self._bars = 0
        self._open_ended = False

    def _listing(self) -> tuple[list[Node], str]:
        """Statements up to a closing bracket, and what connects them."""
        raise NotImplementedError

    def _sum(self) -> Node:
        raise NotImplementedError

    def _atom(self) -> Node:
        raise NotImplementedError

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else _END

    def _take(self, *kinds: str) -> Token:
        token = self._peek()
        if kinds and token.kind not in kinds:
            self._fail()
        self._at += 1
        return token

    def _next_is(self, *kinds: str) -> bool:
        return self._peek().kind in kinds

    def _fail(self) -> NoReturn:
        token = self._peek()
        if token is _END:
            raise Unreadable("it ends too early")
        raise Unreadable(f"{token.text or token.kind!r} is not expected where it stands in it")

    def _inside(self) -> tuple[list[Node], str]:
        """What stands between brackets; bars around them are not closed there."""
        bars, self._bars = self._bars, 0
        found = self._listing()
        self._bars = bars
        self._open_ended = False
        return found

    def _brackets(self) -> Node:
        opening = self._take().kind
        items, connector = self._inside()
        closing = self._take(")", "]", "[").kind
        if closing == "[":
            # [0, 1[ is what others write as [0, 1).
            if len(items) != _ENDS:
                self._fail()
            closing = ")"
        if connector in ("and", "or"):
            return Listing(tuple(items), connector)
        if len(items) > 1:
            return Tuple(opening, tuple(items), closing)
        if opening == "(" and closing == ")":
            return items[0]
        if opening + closing != "[]":
            raise Unreadable("its brackets do not match")
        return items[0] if isinstance(items[0], Matrix) else Tuple("[", tuple(items), "]")

    def _group(self) -> Node:
        self._take("{")
        items, connector = self._inside()
        node = self._divided(items[0] if len(items) == 1 else Listing(tuple(items), connector))
        self._take("}")
        return node

    def _divided(self, above: Node) -> Node:
        """What ``above`` is, or with what stands below it behind \\over or \\choose."""
        if not self._next_is("over", "choose"):
            return above
        kind = self._take().kind
        return call("divide" if kind == "over" else "binomial", above, self._sum())

    def _set(self) -> Node:
        self._take("lset")
        if self._next_is("rset"):
            self._take()
            return Set(())
        if self._next_is("name") and self._peek(1).kind in ("mid", "|", ":", "in"):
            return self._builder()
        items, _ = self._inside()
        self._take("rset")
        return Set(tuple(items))

    def _builder(self) -> Node:
        name = self._take("name").text
        domain: Node | None = None
        if self._next_is("in"):
            self._take()
            domain = self._atom()
        self._take("mid", "|", ":")
        items, connector = self._inside()
        self._take("rset")
        condition = items[0] if len(items) == 1 else Listing(tuple(items), connector)
        return Builder(name, condition, None if domain == Symbol("mathbb R") else domain)

    def _vector(self) -> Node:
        self._take("langle")
        items, _ = self._inside()
        self._take("rangle")
        return Tuple("<", tuple(items), ">")

    def _absolute(self) -> Node:
        self._take("|")
        self._bars += 1
        inner = self._sum()
        self._bars -= 1
        self._take("|")
        self._open_ended = False
        return determinant(inner) if isinstance(inner, Matrix) else call("absolute", inner)

    def _between(self, name: str, closing: str) -> Node:
        self._take()
        items, _ = self._inside()
        self._take(closing)
        if len(items) != 1:
            self._fail()
        return call(name, items[0])

    def _matrix(self) -> Node:
        name = self._take().text
        if name not in _MATRICES:
            raise Unreadable(f"the environment {name} is not read")
        rows: list[list[Node]] = [[]]
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
            raise Unreadable("the rows of the matrix in it are not of one length")
        matrix = Matrix(tuple(tuple(row) for row in rows))
        return determinant(matrix) if name == "vmatrix" else matrix


def determinant(matrix: Matrix) -> Node:
    rows = matrix.rows
    if len(rows) != len(rows[0]):
        raise Unreadable("a matrix in it with a determinant is not square")
    return call("determinant", *(entry for row in rows for entry in row))
