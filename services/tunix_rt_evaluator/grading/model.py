"""What a grader is and gives, and how the kinds of graders register themselves.

A kind is one file in ``graders``: the class of its settings, and the function that grades, with ``grader``
as its decorator. Whatever lists kinds reads ``kinds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, ClassVar, Final, TypeAlias, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
)

from tunix_rt_kit.values import Value

Problem: TypeAlias = tuple[tuple[str | int, ...], str]
"""What is wrong with an item, and where: a path below it, such as ``("grader", "options", 1)``."""
Threshold: TypeAlias = Annotated[float, Field(gt=0, le=1)]


class Grown(BaseModel):
    """A value that got further fields, those in ``added``, after values of its kind had been stored.

    They are not written while they have their default, so that digests of older values do not change.
    """

    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {name for name in self.added if getattr(self, name) == fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unused}


class Verdict(Grown, Value):
    """The grade of one output: the answer that was read from it ("" if none), and whether it is right.

    ``score`` is between 0 and 1; None for graders that know only right and wrong. ``error`` says why the
    output could not be graded, which counts as wrong. ``explanation`` is what the grader says of the answer.
    ``unmarked`` says that no mark showed the answer.
    """

    added = frozenset({"unmarked"})

    extracted_answer: str
    correct: bool
    score: float | None = None
    error: str = ""
    explanation: str = ""
    unmarked: bool = False

    @property
    def value(self) -> float:
        """The score; 1 or 0 where there is none."""
        return float(self.correct) if self.score is None else self.score


class CannotGrade(Exception):
    """An answer could not be graded; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a grader is told besides its settings and the output's text.

    ``cut`` says that the output was cut at the most new tokens.
    """

    prompt: str
    accepted: Sequence[str]
    cut: bool = False


class GraderSettings(Grown):
    """The settings of a grader, held to the contract's limits.

    Each kind has a class of its own, whose ``kind`` has the kind's name as its type and default. Its other
    fields have the names of those of the kind's message in the contract.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str


@dataclass(slots=True)
class GraderKind:
    """A kind of grader, and the decorator that registers its function.

    The function gets the settings, a `Question` and the model's whole output, and what the kind ``needs`` as
    keyword arguments. It returns a `Verdict`, or raises `CannotGrade`.

    Args:
        settings: the class of the kind's settings, which names the kind.
        number: the number of the kind's field in the contract's ``Grader``, by which kinds are listed.
        version: the kind and everything besides the item that a verdict depends on, such as ``numeric/3``. It
            is part of an evaluation's identity, so it must change whenever a verdict could.
        needs: any of ``sandbox`` (a `GradingSandbox`) and ``judge`` (a `JudgeEndpoint`).
        needs_accepted: whether an item must have an accepted answer.
        marked: whether a mark in the output shows its answer; left out, whether `read_answer` finds one. An
            unmarked answer does not count in an output that was cut, so kinds that look at the whole output
            say that it is marked.
        problems: what is wrong with an item's settings and accepted answers.
        unfit: what is wrong with one accepted answer, as the end of a sentence that begins with the answer,
            such as ", which holds no text"; "" if nothing is.
    """

    settings: type[GraderSettings]
    number: int
    version: str | Callable[[Any], str]
    needs: Sequence[str] = ()
    needs_accepted: bool = True
    marked: Callable[[Any, str], bool] | None = None
    problems: Callable[[Any, Sequence[str]], Iterable[Problem]] = lambda _, __: ()
    unfit: Callable[[Any, str], str] = lambda _, __: ""
    grade: Callable[..., Verdict] = field(init=False)

    def __call__(self, grade: Callable[..., Verdict]) -> Callable[..., Verdict]:
        """Registers ``grade`` as the function of this kind."""
        self.grade = grade
        _KINDS[self.settings.model_fields["kind"].default] = self
        return grade


grader = GraderKind
_KINDS: Final[dict[str, GraderKind]] = {}


@cache
def kinds() -> Mapping[str, GraderKind]:
    """Every kind of grader by its name, in the order of the contract."""
    package = import_module("tunix_rt_evaluator.grading.graders")
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_KINDS.items(), key=lambda entry: entry[1].number))


@cache
def _of_any_kind() -> TypeAdapter[GraderSettings]:
    settings = tuple(kind.settings for kind in kinds().values())
    return TypeAdapter(Annotated[Union[settings], Field(discriminator="kind")])  # type: ignore[arg-type]  # noqa: UP007


def _validated(settings: Any) -> GraderSettings:
    return _of_any_kind().validate_python(settings)


Grader: TypeAlias = Annotated[SerializeAsAny[GraderSettings], PlainValidator(_validated)]
"""The settings of a grader of any kind. The kinds are imported at the first validation, so that code which
only holds settings does not load the graders."""
