"""What a grader is and gives, how the kinds of graders register themselves, and what an answer is.

A kind is the class of its settings, and the function that grades, with ``grader`` as its decorator. It stands
in a file of ``graders`` that has its name; the kinds that compare texts are in ``strings``. Whatever lists
kinds reads ``kinds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol, TypeAlias, Union

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


CallForm = Literal["hermes", "llama-3"]
"""How calls of tools are written. Hermes: a JSON object with ``name`` and ``arguments`` in ``<tool_call>``
and ``</tool_call>`` each, text beside them. Llama 3: the output is JSON objects with ``name`` and
``parameters``, ``;`` between them, or ends with them after a text and an empty line."""


class CannotGrade(Exception):
    """An answer could not be graded; the message says why in one line."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a grader is told besides its settings and the output's text.

    ``prompt`` is what was asked last, ``transcript`` all that the model was shown: the same where an item is
    no conversation. ``cut`` says that the output was cut at the most new tokens; ``facts`` are the item's
    other fields. ``call_form`` is how calls of tools are written, None where that is not known.
    """

    prompt: str
    accepted: Sequence[str]
    cut: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    transcript: str = ""
    call_form: CallForm | None = None


class Sandbox(Protocol):
    """Does in a child process with limits what may never end."""

    def run(self, task: str, **values: Any) -> Mapping[str, Any]:
        """The answer of ``sandbox_worker`` to a task; raises CannotGrade if it takes too long or fails."""


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
        needs: any of ``sandbox`` (a `Sandbox`), ``judge`` (a `JudgeEndpoint`) and ``python`` (a
            `PythonGraders`).
        needs_accepted: whether an item must have an accepted answer.
        marked: whether a mark in the output shows its answer; left out, whether `read_answer` finds one. An
            unmarked answer does not count in an output that was cut, so kinds that look at the whole output
            say that it is marked.
        problems: what is wrong with an item's settings and accepted answers.
        unfit: what is wrong with one accepted answer, as the end of a sentence that begins with the answer,
            such as ", which holds no text"; "" if nothing is.
        unoffered: what is wrong with an item's settings where it offers tools, those of these names.
        expected: what is right, for people, of a kind that has that in its settings.
    """

    settings: type[GraderSettings]
    number: int
    version: str | Callable[[Any], str]
    needs: Sequence[str] = ()
    needs_accepted: bool = True
    marked: Callable[[Any, str], bool] | None = None
    problems: Callable[[Any, Sequence[str]], Iterable[Problem]] = lambda _, __: ()
    unfit: Callable[[Any, str], str] = lambda _, __: ""
    unoffered: Callable[[Any, Sequence[str]], Iterable[Problem]] = lambda _, __: ()
    expected: Callable[[Any], Sequence[str]] = lambda _: ()
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


FinishReason = Literal["stop", "length", "failed"]
ReasoningState = Literal["none", "closed", "unclosed"]
"""Whether an output holds reasoning, and whether that came to its end."""

Span = tuple[int, int]
"""A part of a text: its first character, and the one behind its last."""


class ReasoningMarks(Grown):
    """The marks that open and close reasoning: a pair by ``name``, or a caller's own ``start`` and ``end``.

    ``opened`` says that the prompt opens reasoning already, so that outputs begin within it; None leaves that
    to the chat template. ``revision`` is that of the rule by which outputs were split, 0 before they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    added = frozenset({"start", "end", "opened", "revision"})

    name: str = ""
    start: str = ""
    end: str = ""
    opened: bool | None = None
    revision: int = 0


class Split(BaseModel):
    """Where the reasoning (in one or two parts) and the answer stand in an output.

    Reasoning that is not ``closed`` has no answer behind it. ``tokens`` counts everything but the answer; it
    is None if that could not be counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning: tuple[Span, ...]
    answer: Span
    closed: bool = True
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """Reasoning and answer as texts; ``tokens`` as in a `Split`, 0 without reasoning."""

    reasoning: str
    answer: str
    state: ReasoningState
    tokens: int | None


class Answer(Grown, Value):
    """One text that a model wrote; ``log_probabilities`` of its tokens only if they were asked for.

    ``reasoning`` and ``reasoning_tokens`` are what an endpoint returned apart from the text.
    """

    added = frozenset({"log_probabilities", "reasoning", "reasoning_tokens"})

    output: str
    output_tokens: int
    finish_reason: FinishReason
    log_probabilities: tuple[float, ...] = ()
    reasoning: str = ""
    reasoning_tokens: int | None = None

    def parts(self, found: Split | None) -> Parts:
        """Its reasoning and its answer as texts; ``found`` is how it was split."""
        if found is None:
            return Parts("", self.output, "none", 0)
        own = [self.output[begin:end] for begin, end in found.reasoning]
        return Parts(
            "\n\n".join(filter(None, [self.reasoning, *own])),
            self.output[found.answer[0] : found.answer[1]],
            "closed" if found.closed else "unclosed",
            found.tokens,
        )
