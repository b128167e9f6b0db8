"""Grades answers: reads them out of a model's text and compares them with the accepted ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from tunix_rt_evaluator.grading.graders.judge import JudgeEndpoint
from tunix_rt_evaluator.grading.graders.python import PythonGrader, PythonGraders
from tunix_rt_evaluator.grading.model import (
    CallForm,
    CannotGrade,
    GraderSettings,
    Problem,
    Question,
    Verdict,
    kinds,
)
from tunix_rt_kit.conversations import tool_names
from tunix_rt_kit.jobs.line_child import ChildGone, ChildNotStarted, ChildTooSlow, LineChild

MAX_EXPLANATION: Final = 2_000
SANDBOX_S: Final = 10.0
"""Wall time of one task in the sandbox."""
_CUT: Final = "the output was cut before a mark showed an answer"


class GradedItem(Protocol):
    """An item of an eval set, as far as grading needs it."""

    @property
    def id(self) -> str: ...
    @property
    def asked(self) -> str: ...
    @property
    def transcript(self) -> str: ...
    @property
    def accepted_answers(self) -> Sequence[str]: ...
    @property
    def grader(self) -> GraderSettings: ...
    @property
    def category(self) -> str: ...
    @property
    def difficulty(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def messages(self) -> Sequence[Any]: ...
    @property
    def tools(self) -> Sequence[Any]: ...


class GivenAnswer(NamedTuple):
    """An output to be graded; see ``Grading.grade``."""

    item: GradedItem
    output: str
    cut: bool
    call_form: CallForm | None = None


class Grading:
    """Grades by every kind of grader.

    Args:
        endpoint: where judges run; left out, judge graders fail.
        python: runs graders that users wrote; left out, none is run.
    """

    def __init__(self, endpoint: JudgeEndpoint | None = None, python: PythonGraders | None = None) -> None:
        self._endpoint = endpoint or JudgeEndpoint()
        self._sandbox = GradingSandbox()
        self.python = python or PythonGraders()
        self._tools = {"judge": self._endpoint, "sandbox": self._sandbox, "python": self.python}

    @property
    def unknown_kind(self) -> str:
        """The description of the error for an unknown kind."""
        return f"names no kind of grader that this server knows; one of {', '.join(kinds())} would be right"

    @property
    def concurrency(self) -> int:
        """How many answers are graded at once."""
        return self._endpoint.concurrency

    @property
    def has_judge(self) -> bool:
        """Whether judges can be asked."""
        return bool(self._endpoint.url)

    def version(self, grader: GraderSettings) -> str:
        """The grader's kind and everything else that its verdict depends on besides the item."""
        version = kinds()[grader.kind].version
        return version if isinstance(version, str) else version(grader)

    def accepted(self, item: GradedItem) -> tuple[str, ...]:
        """The accepted answers of an item, or what its grader's settings say is right, for people."""
        return tuple(item.accepted_answers or kinds()[item.grader.kind].expected(item.grader))

    def problems(self, item: GradedItem) -> Iterable[Problem]:
        """What is wrong with an item's grader, and with its accepted answers for that grader."""
        kind = kinds()[item.grader.kind]
        if kind.needs_accepted and not item.accepted_answers:
            yield (
                ("accepted_answers",),
                f"is empty; the {item.grader.kind} grader of {item.id!r} needs at least one",
            )
        yield from self.settings_problems(item.grader, item.accepted_answers)
        if item.tools:
            yield from _in_contract(item.grader, kind.unoffered(item.grader, tool_names(item.tools)))
        for place, accepted in enumerate(item.accepted_answers):
            if why := kind.unfit(item.grader, accepted):
                yield ("accepted_answers", place), f"is {accepted[:60]!r}{why}"

    def settings_problems(self, grader: GraderSettings, accepted: Sequence[str]) -> Iterable[Problem]:
        """What is wrong with a grader, and with accepted answers because of its settings."""
        yield from _in_contract(grader, kinds()[grader.kind].problems(grader, accepted))

    def admitted(
        self, graders: Iterable[GraderSettings], *, keep: bool = True
    ) -> Iterator[tuple[GraderSettings, str]]:
        """Each grader, and what is wrong with its source code: "" if nothing is, or if that was said already.

        With ``keep`` sources are stored, and graders name them by digest.

        Raises FailedPrecondition: PYTHON_GRADERS_OFF, PYTHON_GRADERS_NOT_CONFINED.
        """
        looked_at: set[tuple[str, str]] = set()
        for one in graders:
            if not isinstance(one, PythonGrader):
                yield one, ""
                continue
            self.python.require_allowed()
            key, problem = (one.digest, one.function), ""
            if key not in looked_at:
                looked_at.add(key)
                problem = self.python.problem(one)
                if keep and not problem:
                    self.python.keep(one)
            yield one.stored() if keep else one, problem

    def sources(self, items: Iterable[GradedItem]) -> tuple[str, ...]:
        """The source codes of the items' graders, each once, ordered by digest."""
        named = {item.grader.digest: item.grader for item in items if isinstance(item.grader, PythonGrader)}
        return tuple(self.python.source_of(named[digest]) or "" for digest in sorted(named))

    def grade(
        self, item: GradedItem, output: str, *, cut: bool = False, call_form: CallForm | None = None
    ) -> Verdict:
        """The verdict on a model's whole output; ``cut`` says that it was cut at the most new tokens, and
        ``call_form`` how calls are written, where that is known.

        What cannot be graded is wrong, and the verdict's ``error`` says why.
        """
        # The readers' many patterns take half a second to compile: not at the server's start.
        from tunix_rt_evaluator.grading.reading.answers import read_answer

        kind = kinds()[item.grader.kind]
        marked = kind.marked(item.grader, output) if kind.marked else read_answer(output).labelled
        if cut and not marked:
            return Verdict(extracted_answer="", correct=False, explanation=_CUT)
        facts = {
            "id": item.id,
            "category": item.category,
            "difficulty": item.difficulty,
            "metadata": dict(item.metadata),
        }
        if item.messages:
            facts |= {"messages": list(item.messages), "tools": list(item.tools)}
        question = Question(item.asked, item.accepted_answers, cut, facts, item.transcript, call_form)
        try:
            verdict = kind.grade(
                item.grader, question, output, **{need: self._tools[need] for need in kind.needs}
            )
        except CannotGrade as error:
            return Verdict(extracted_answer="", correct=False, error=str(error)[:MAX_EXPLANATION])
        return verdict.model_copy(
            update={
                "explanation": verdict.explanation[:MAX_EXPLANATION],
                "unmarked": not marked and bool(verdict.extracted_answer),
            }
        )

    def grade_all(self, answers: Sequence[GivenAnswer]) -> list[Verdict]:
        """The verdicts on many answers, in order. Judges are asked several at a time."""
        if not any("judge" in kinds()[item.grader.kind].needs for item, *_ in answers):
            return list(map(self._grade, answers))
        with ThreadPoolExecutor(self._endpoint.concurrency, "grading") as pool:
            return list(pool.map(self._grade, answers))

    def _grade(self, answer: GivenAnswer) -> Verdict:
        return self.grade(answer.item, answer.output, cut=answer.cut, call_form=answer.call_form)

    def close(self) -> None:
        """End the child processes."""
        self._sandbox.close()
        self.python.close()


def _in_contract(grader: GraderSettings, problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems with their places in the contract, where settings stand in the field of their kind."""
    for path, description in problems:
        yield (path[0], grader.kind, *path[1:]) if path[0] == "grader" else path, description


class GradingSandbox:
    """Runs symbolic mathematics and foreign schemas, which may never end, in a child with limits.

    The child serves all tasks; it starts at the first, and again after it was killed. Thread-safe.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = SANDBOX_S if seconds is None else seconds
        self._child = LineChild(Path(__file__).with_name("sandbox_worker.py"))

    def run(self, task: str, **values: Any) -> Mapping[str, Any]:
        """The answer of ``sandbox_worker`` to a task; raises CannotGrade if it takes too long or fails."""
        request = json.dumps({"task": task, **values}).encode()
        try:
            reply: Mapping[str, Any] = json.loads(self._child.exchange(request, self._seconds))
        except ChildTooSlow:
            raise CannotGrade(f"it is not done after {self._seconds:g} s") from None
        except ChildGone:
            raise CannotGrade("the process that does it ended, most likely for want of memory") from None
        except ChildNotStarted:
            raise CannotGrade("the process that does it did not start; the server's log says why") from None
        if "error" in reply:
            raise CannotGrade(str(reply["error"]))
        return reply

    def close(self) -> None:
        """End the child, if there is one."""
        self._child.close()
