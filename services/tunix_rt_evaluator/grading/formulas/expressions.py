"""Reads expressions that stand for a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final, NoReturn

from tunix_rt_evaluator.grading.formulas import tree
from tunix_rt_evaluator.grading.formulas.tokens import Token

MAX_DEPTH: Final = 40
_BEGINS_FACTOR: Final = frozenset(
    ["name", "constant", "function", "(", "{", "frac", "sqrt", "surd", "binom", "lfloor", "lceil"]
)
_CONTINUES_ARGUMENT: Final = frozenset(["name", "constant", "frac"])
_AMBIGUOUS_BEHIND_ARGUMENT: Final = frozenset(["(", "{", "sqrt", "surd", "binom", "lfloor", "lceil", "|"])
_INVERSE: Final = frozenset(["sin", "cos", "tan"])
_OF_SEVERAL: Final = frozenset(["gcd", "lcm", "max", "min"])
_IN_PARENTHESES: Final = frozenset(["abs", "floor", "ceil", "gcd", "lcm", "max", "min"])
_UNKNOWN_FUNCTIONS: Final = frozenset("fghFGH")
_TEMPERATURES: Final = {"C": "celsius", "F": "fahrenheit"}
_ZERO: Final = tree.Number(Fraction(0))
_END: Final = Token("end")


def call(name: str, *arguments: tree.Node) -> tree.Node:
    """The call of ``name`` with numbers as arguments; raises Unreadable if one is no number."""
    return tree.Call(name, tuple(scalar(argument) for argument in arguments))


def scalar(node: tree.Node) -> tree.Node:
    """The node, if it stands for a number; raises Unreadable if not."""
    if isinstance(node, tree.Tuple) and (node.opening, node.closing, len(node.items)) == ("[", "]", 1):
        node = node.items[0]
    if not isinstance(node, tree.SCALARS):
        raise tree.Unreadable("it computes with what is no number")
    return node


def determinant(matrix: tree.Matrix) -> tree.Node:
    rows = matrix.rows
    if len(rows) != len(rows[0]):
        raise tree.Unreadable("a matrix in it with a determinant is not square")
    return call("determinant", *(entry for row in rows for entry in row))


class Expressions:
    """Reads expressions off a list of tokens; a subclass adds what stands in brackets."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        # Bars of an absolute value that are open; whether the last factor was a function without brackets.
        self._bars = 0
        self._open_ended = False

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

    def _accept(self, *kinds: str) -> Token | None:
        """Takes the next token if it is of one of some kinds."""
        return self._take() if self._next_is(*kinds) else None

    def _ahead(self, count: int) -> list[str]:
        """The kinds of the next tokens."""
        return [self._peek(ahead).kind for ahead in range(count)]

    def _fail(self) -> NoReturn:
        token = self._peek()
        if token is _END:
            raise tree.Unreadable("it ends too early")
        raise tree.Unreadable(f"{token.text or token.kind!r} is not expected where it stands in it")

    def _sum(self) -> tree.Node:
        left = self._signed()
        while sign := self._accept("+", "-", "pm", "mp"):
            right = self._signed() if self._next_is("+", "-") else self._product()
            if sign.kind == "-" and isinstance(right, tree.Set) and _is_set(left):
                left = tree.SetOperation("difference", left, right)
            elif sign.kind == "-":
                left = call("add", left, call("negative", right))
            else:
                left = call("add" if sign.kind == "+" else sign.kind, left, right)
        return left

    def _signed(self) -> tree.Node:
        if not (sign := self._accept("+", "-", "pm", "mp")):
            return self._product()
        inner = self._signed() if self._next_is("+", "-") else self._product()
        if sign.kind == "+":
            return scalar(inner)
        return call("negative", inner) if sign.kind == "-" else call(sign.kind, _ZERO, inner)

    def _product(self) -> tree.Node:
        left = self._power()
        divided = False
        while True:
            if self._accept("*"):
                left, divided = call("multiply", left, self._signed_power()), False
            elif self._accept("cross"):
                left = call("the product of vectors or sets", left, self._signed_power())
            elif self._next_is("/"):
                if self._open_ended and self._peek(1).kind != "function":
                    raise tree.Unreadable(
                        "the slash behind the function in it may divide its argument or its value"
                    )
                self._take()
                left, divided = call("divide", left, self._signed_power()), True
            elif self._begins_factor():
                if divided:
                    raise tree.Unreadable("what stands behind the divisor in it may belong to it or not")
                left = call("multiply", left, self._power())
            else:
                return left

    def _begins_factor(self) -> bool:
        if self._next_is("(") and self._peek(1).kind == "mod":
            return False
        return self._peek().kind in _BEGINS_FACTOR or (self._next_is("|") and not self._bars)

    def _signed_power(self) -> tree.Node:
        if sign := self._accept("-", "+"):
            inner = self._signed_power()
            return call("negative", inner) if sign.kind == "-" else inner
        return self._power()

    def _power(self) -> tree.Node:
        self._open_ended = False
        node = self._atom()
        powered = False
        while True:
            if self._accept("^"):
                if self._is_degree():
                    node = self._degrees(node)
                elif isinstance(node, tree.Matrix):
                    node = self._transposed(node)
                elif isinstance(node, tree.Symbol) and self._ahead(5) == ["{", "(", "number", ")", "}"]:
                    raise tree.Unreadable(
                        "the number in brackets in it may be an exponent or count derivatives"
                    )
                else:
                    node, powered = call("power", node, self._exponent()), True
            elif self._accept("degree"):
                node = self._degrees(node)
            elif self._next_is("!"):
                if powered:
                    raise tree.Unreadable(
                        "the factorial behind the power in it may be of the exponent or of the whole"
                    )
                node = self._factorial(node)
            elif self._accept("%"):
                node = call("percent", node)
            else:
                return node

    def _is_degree(self) -> bool:
        length = 3 if self._ahead(3) == ["{", "circ", "}"] else int(self._next_is("circ"))
        self._at += length
        return length > 0

    def _degrees(self, node: tree.Node) -> tree.Node:
        if self._next_is("name") and self._peek().text in _TEMPERATURES:
            return call(_TEMPERATURES[self._take().text], node)
        return call("degrees", node)

    def _transposed(self, matrix: tree.Matrix) -> tree.Node:
        braced = self._accept("{")
        if self._take("name").text != "T":
            raise tree.Unreadable("it computes with a matrix")
        if braced:
            self._take("}")
        return tree.Matrix(tuple(zip(*matrix.rows, strict=True)))

    def _exponent(self) -> tree.Node:
        if sign := self._accept("-", "+"):
            inner = self._exponent()
            return call("negative", inner) if sign.kind == "-" else inner
        node = self._single()
        return call("power", node, self._exponent()) if self._accept("^") else node

    def _factorial(self, node: tree.Node) -> tree.Node:
        marks = 0
        while self._next_is("!") and not (marks and self._peek().spaced):
            self._take()
            marks += 1
        if marks > 2:
            raise tree.Unreadable("it has more than two exclamation marks")
        return call("factorial" if marks == 1 else "double_factorial", node)

    def _atom(self) -> tree.Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise tree.Unreadable(f"it nests deeper than {MAX_DEPTH} levels")
        readers: Mapping[str, Callable[[], tree.Node]] = {
            "number": self._number,
            "name": self._name,
            "constant": lambda: tree.Constant(self._take().text),
            "frac": lambda: self._of_two("divide"),
            "binom": lambda: self._of_two("binomial"),
            "sqrt": self._root,
            "surd": self._surd,
            "function": self._function,
        }
        node = readers.get(self._peek().kind, self._bracketed)()
        self._depth -= 1
        return node

    def _bracketed(self) -> tree.Node:
        """What begins with a bracket; fails at anything else."""
        raise NotImplementedError

    def _inside(self) -> tuple[list[tree.Node], str]:
        """What stands between brackets: statements, and what connects them."""
        raise NotImplementedError

    def _number(self) -> tree.Node:
        whole = self._take()
        number = tree.Number(whole.value)
        if not whole.literal:
            return number
        begin = self._at
        if self._next_is("frac"):
            fraction = self._atom()
            assert isinstance(fraction, tree.Call)
            top, bottom = fraction.arguments
            if not (isinstance(top, tree.Number) and isinstance(bottom, tree.Number)):
                self._at = begin
                return number
        elif self._ahead(3) == ["number", "/", "number"]:
            top, bottom = tree.Number(self._peek().value), tree.Number(self._peek(2).value)
            self._at += 3
        else:
            return number
        if not 0 < top.value < bottom.value or top.value.denominator * bottom.value.denominator != 1:
            raise tree.Unreadable("a whole number beside a fraction in it may be added or multiplied")
        if self._next_is("^", "!", "/") or self._begins_factor():
            raise tree.Unreadable(
                "what stands behind the mixed number in it may belong to its fraction or not"
            )
        return tree.Number(whole.value + top.value / bottom.value)

    def _single(self) -> tree.Node:
        """A factor, of letters only one."""
        return self._letter() if self._next_is("name") else self._atom()

    def _letter(self) -> tree.Node:
        """A symbol by itself: an index, primes and arguments behind it belong to something else."""
        text = self._take("name").text
        return tree.Constant(text) if text in ("e", "i") else tree.Symbol(text)

    def _name(self) -> tree.Node:
        text = letter = self._take("name").text
        while True:
            if self._accept("_"):
                text += f"_{self._index()}"
            elif primes := self._primes():
                text += "'" * primes
            else:
                break
        if text in _UNKNOWN_FUNCTIONS and self._is_inverse():
            text += "^-1"
        if self._is_unknown_function(text) and self._accept("("):
            arguments, _ = self._inside()
            self._take(")")
            return tree.Symbol(f"{text}{arguments!r}")
        return tree.Constant(text) if text in ("e", "i") and text == letter else tree.Symbol(text)

    def _is_inverse(self) -> bool:
        """Whether -1 in braces and a bracket follow, as in f^{-1}(x)."""
        if self._ahead(6) != ["^", "{", "-", "number", "}", "("] or self._peek(3).text != "1":
            return False
        self._at += 5
        return True

    def _is_unknown_function(self, text: str) -> bool:
        if text[0] in _UNKNOWN_FUNCTIONS or text.endswith("'"):
            return True
        ahead = self._ahead(4)
        alone = ahead[1] in ("name", "number") and ahead[2] == ")"
        return alone and (text.isupper() or ahead[3] == "=")

    def _primes(self) -> int:
        """How many primes stand here, as signs or as an exponent."""
        begin, count = self._at, 0
        braced = None
        if self._next_is("^") and self._peek(1).kind in ("'", "{"):
            self._take()
            braced = self._accept("{")
        while self._accept("'"):
            count += 1
        if not count or (braced and not self._accept("}")):
            self._at = begin
            return 0
        return count

    def _index(self) -> str:
        if token := self._accept("number", "name"):
            return token.text
        self._take("{")
        parts = []
        while not self._accept("}"):
            token = self._take("number", "name", "word", ",", "+", "-", "constant", "*", "/", "(", ")")
            parts.append(token.text or token.kind)
        return "".join(parts)

    def _of_two(self, name: str) -> tree.Node:
        self._take()
        first, second = self._argument(), self._argument()
        if _begins_with_d(first) and _begins_with_d(second):
            raise tree.Unreadable("a derivative is not read")
        return call(name, first, second)

    def _argument(self) -> tree.Node:
        token = self._peek()
        if token.kind == "number" and not (token.literal and len(token.text) == 1):
            raise tree.Unreadable("a command in it takes one digit, and several stand there without braces")
        return self._single()

    def _root(self) -> tree.Node:
        self._take()
        degree: tree.Node = tree.Number(Fraction(2))
        if self._accept("["):
            degree = self._sum()
            self._take("]")
        return call("root", self._single(), degree)

    def _surd(self) -> tree.Node:
        degree = tree.Number(Fraction(int(self._take().text)))
        radicand = self._single()
        if isinstance(radicand, tree.Number) and self._next_is("name") and not self._peek().spaced:
            raise tree.Unreadable("the root in it may end before the letter or behind it")
        return call("root", radicand, degree)

    def _function(self) -> tree.Node:
        name = self._take().text
        base = exponent = None
        while mark := self._accept("_", "^"):
            if mark.kind == "_" and name == "log" and base is None:
                base = self._single()
            elif mark.kind == "^" and exponent is None:
                exponent = self._exponent()
            else:
                self._fail()
        arguments = self._arguments(name)
        if exponent in (tree.Number(Fraction(-1)), tree.Call("negative", (tree.Number(Fraction(1)),))):
            if name not in _INVERSE:
                raise tree.Unreadable(f"{name}^-1 in it may be the inverse or the reciprocal")
            name, exponent = f"arc{name}", None
        node = self._applied(name, arguments, base)
        return node if exponent is None else call("power", node, exponent)

    def _arguments(self, name: str) -> list[tree.Node]:
        if opening := self._accept("(", "{", "lset"):
            arguments, _ = self._inside()
            self._take({"(": ")", "{": "}", "lset": "rset"}[opening.kind])
            if opening.kind == "lset" and name not in _OF_SEVERAL:
                self._fail()
            return arguments
        if name in _IN_PARENTHESES:
            self._fail()
        if self._next_is("|", "sqrt", "surd", "lfloor", "lceil"):
            return [self._atom()]
        argument = self._power()
        while self._peek().kind in _CONTINUES_ARGUMENT:
            argument = call("multiply", argument, self._power())
        if self._peek().kind in _AMBIGUOUS_BEHIND_ARGUMENT and not (self._next_is("|") and self._bars):
            raise tree.Unreadable("what stands behind the function's argument in it may belong to it or not")
        self._open_ended = True
        return [argument]

    def _applied(self, name: str, arguments: list[tree.Node], base: tree.Node | None) -> tree.Node:
        if name == "det" and len(arguments) == 1 and isinstance(arguments[0], tree.Matrix):
            return determinant(arguments[0])
        if len(arguments) != 1 and name not in _OF_SEVERAL:
            raise tree.Unreadable(f"{name} in it has {len(arguments)} arguments")
        if name == "exp":
            return call("power", tree.Constant("e"), *arguments)
        if name == "lg" or base is not None:
            return call("log", *arguments, base if base is not None else tree.Number(Fraction(10)))
        return call({"abs": "absolute"}.get(name, name), *arguments)


def _is_set(node: tree.Node) -> bool:
    named = isinstance(node, tree.Symbol) and node.name.startswith("mathbb")
    return named or isinstance(node, (tree.Set, tree.SetOperation, tree.Tuple))


def _begins_with_d(node: tree.Node) -> bool:
    while isinstance(node, tree.Call) and node.name in ("multiply", "power"):
        node = node.arguments[0]
    return node == tree.Symbol("d")
