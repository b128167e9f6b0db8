"""A function of the user's own, in Python. ``python_worker`` runs it, in processes that can only compute."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import Field

from tunix_rt_evaluator.grading import python_worker
from tunix_rt_evaluator.grading.model import (
    CannotGrade,
    GraderSettings,
    Problem,
    Question,
    Threshold,
    Verdict,
    grader,
)
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs.line_child import ChildGone, ChildNotStarted, ChildTooSlow, LineChild

PythonPolicy = Literal["off", "sandboxed", "trusted"]
"""Whose functions are run: nobody's; anybody's, where the kernel closes the process that runs them; or those
of people who could run what they like on this computer anyway, on any platform."""

MAX_SOURCE_BYTES: Final = 64 << 10
CPU_S: Final = 5
_START_S: Final = 10.0
# Source codes that are kept in memory, as each of many answers needs its own.
_MOST_KNOWN: Final = 64
_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"


class PythonGrader(GraderSettings):
    """Right when the function ``function`` of a source code says so, or gives ``threshold`` or more.

    A stored one names its source by ``source_digest``; ``source`` is what a caller sends.
    """

    added = frozenset({"source"})

    kind: Literal["python"] = "python"
    source: str = ""
    source_digest: Annotated[str, Field(pattern=rf"{_DIGEST}|^$")] = ""
    function: Annotated[str, Field(min_length=1, max_length=128)] = "grade"
    threshold: Threshold = 0.5

    def stored(self) -> PythonGrader:
        """The same one without its source."""
        return self.model_copy(update={"source": "", "source_digest": self.digest})

    @property
    def digest(self) -> str:
        """Digest of the source."""
        return digest_bytes(self.source.encode()) if self.source else self.source_digest


class Sources(Protocol):
    """Where the source codes of graders are kept, each by its digest."""

    def put_source(self, digest: str, source: str) -> None: ...
    def source(self, digest: str) -> str | None: ...


class PythonGraders:
    """Runs graders that users wrote, each answer twice, in two processes that have nothing in common.

    Args:
        policy: whose graders are run.
        sources: where their source codes are kept; left out, a grader must bring its own.
        cpu_s: CPU time of one answer, in seconds.
    """

    def __init__(
        self, policy: PythonPolicy = "off", sources: Sources | None = None, *, cpu_s: int = CPU_S
    ) -> None:
        self._cpu_s = cpu_s
        self._policy = policy
        self._sources = sources
        self._known: dict[str, str] = {}
        self._workers = [LineChild(Path(python_worker.__file__)) for _ in range(2)]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What this computer cannot keep a grader from, a sentence each."""
        unkept = python_worker.unkept()
        return (f"this computer cannot keep a grader from {unkept}",) if unkept else ()

    def require_allowed(self) -> None:
        """Raise FailedPrecondition: PYTHON_GRADERS_OFF, PYTHON_GRADERS_NOT_CONFINED."""
        if self._policy == "off":
            raise FailedPrecondition(
                "this evaluator runs no graders written in Python; start it with "
                "TUNIX_RT_EVALUATOR_PYTHON_GRADERS=sandboxed for those of anybody who may call it, =trusted "
                "for one's own (`tunix-rt up` reads that variable, an evaluator of its own has the option "
                "--python-graders too)",
                reason="PYTHON_GRADERS_OFF",
                metadata={"setting": "python_graders"},
            )
        if self._policy == "sandboxed" and (unkept := python_worker.unkept()):
            raise _not_confined(unkept)

    def source_of(self, settings: PythonGrader) -> str | None:
        """The source code of a grader; None if it is not known."""
        digest = settings.digest
        if settings.source or digest in self._known:
            return settings.source or self._known[digest]
        found = self._sources.source(digest) if self._sources else None
        if found is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[digest] = found
        return found

    def problem(self, settings: PythonGrader) -> str:
        """What is wrong with a grader before it has graded anything; "" if nothing is."""
        source = self.source_of(settings)
        if source is None:
            return f"is not known here: {settings.source_digest}; send the source itself"
        return str(self._ask(self._workers[0], settings, source).get("error", ""))

    def keep(self, settings: PythonGrader) -> None:
        """Keep the source of a grader, by its digest."""
        if settings.source and self._sources is not None:
            self._sources.put_source(settings.digest, settings.source)

    def run(self, settings: PythonGrader, output: str, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the function returned for an answer: score, graded, answer, explanation.

        Raises CannotGrade, FailedPrecondition(GRADER_NOT_DETERMINISTIC).
        """
        self.require_allowed()
        source = self.source_of(settings)
        if source is None:
            raise CannotGrade(f"the source code {settings.source_digest} of its grader is not kept here")
        first = self._ask(self._workers[0], settings, source, output, item)
        # One that ran into a limit may be lucky the second time.
        if not first.get("limit"):
            second = self._ask(self._workers[1], settings, source, output, item)
            if not second.get("limit") and first != second:
                raise FailedPrecondition(
                    f"the grader {settings.function} ({settings.digest}) graded one answer to item "
                    f"{item['id']!r} twice and differently: {_told(first)}, then {_told(second)}; without "
                    "random, clock and addresses of objects it gives the same grade each time",
                    reason="GRADER_NOT_DETERMINISTIC",
                    metadata={"item": item["id"], "grader": settings.digest, "function": settings.function},
                )
        if "error" in first:
            raise CannotGrade(f"the grader {settings.function} gave no grade: {first['error']}")
        return first

    def close(self) -> None:
        """End the processes, if there are any."""
        for worker in self._workers:
            worker.close()

    def _ask(
        self,
        worker: LineChild,
        settings: PythonGrader,
        source: str,
        output: str | None = None,
        item: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        request = {
            "source": source,
            "function": settings.function,
            "trusted": self._policy == "trusted",
            "cpu_s": self._cpu_s,
        }
        if output is not None:
            request |= {"output": output, "item": item}
        try:
            reply = json.loads(worker.exchange(json.dumps(request).encode(), _START_S + python_worker.WALL_S))
        except (ChildTooSlow, ChildGone, ChildNotStarted):
            return {"error": "the process that runs graders ended; the server's log says why", "limit": True}
        if "unkept" in reply:
            raise _not_confined(_clean(reply["unkept"])[:200])
        if output is None:
            return _no_grade(reply) if "error" in reply else {}
        return reply if _is_grade(reply) else _no_grade(reply)


def _is_grade(reply: Mapping[str, Any]) -> bool:
    """Whether a reply has the form of a grade: what runs in the process might write what it likes."""
    score, graded = reply.get("score"), reply.get("graded")
    texts = [reply.get("answer"), reply.get("explanation")]
    return (
        isinstance(score, float)
        and math.isfinite(score)
        and 0 <= score <= 1
        and isinstance(graded, bool)
        and all(isinstance(text, str) and text == _clean(text) for text in texts)
    )


def _no_grade(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    error = _clean(reply.get("error", "its process wrote what is no grade"))
    # Where an object lies differs from call to call, and makes no other grade.
    return {"error": python_worker.ADDRESS.sub("0x...", error), "limit": bool(reply.get("limit"))}


def _clean(text: object) -> str:
    """A text that messages and tables can hold: no half characters, no NUL, not too long."""
    return python_worker.storable(str(text))


def _told(reply: Mapping[str, Any]) -> str:
    if "error" in reply:
        return str(reply["error"])[:200]
    explanation = reply["explanation"][:100]
    return f"{reply['score']:.6g}" + (f" ({explanation})" if explanation else "")


def _not_confined(unkept: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"this evaluator's computer cannot keep a grader from {unkept}, so it runs none; one's own are run "
        "with TUNIX_RT_EVALUATOR_PYTHON_GRADERS=trusted",
        reason="PYTHON_GRADERS_NOT_CONFINED",
        metadata={"setting": "python_graders"},
    )


def _version(settings: PythonGrader) -> str:
    """The version, the source code, its function, and the Python that runs it."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"python/1 source={settings.digest} function={settings.function} python={python}"


def _problems(settings: PythonGrader, _accepted: Sequence[str]) -> Iterator[Problem]:
    size = len(settings.source.encode())
    if not settings.source and not settings.source_digest:
        yield ("grader", "source"), "is empty; the source code of a Python module would be right"
    elif settings.source and settings.source_digest not in ("", settings.digest):
        yield ("grader", "source_digest"), f"is not that of the source, which is {settings.digest}"
    elif size > MAX_SOURCE_BYTES:
        yield ("grader", "source"), f"has {size:,} bytes; at most {MAX_SOURCE_BYTES:,} would be right"
    elif "\0" in settings.source:
        yield ("grader", "source"), "holds a NUL character"
    if not settings.function.isidentifier():
        yield ("grader", "function"), f"is {settings.function!r}, which is no name of a Python function"


@grader(
    PythonGrader,
    12,
    _version,
    needs=("python",),
    needs_accepted=False,
    marked=lambda _, __: True,
    problems=_problems,
)
def grade(settings: PythonGrader, question: Question, output: str, python: PythonGraders) -> Verdict:
    """Right when the function says so, or gives the threshold or more."""
    item = {
        **question.facts,
        "prompt": question.prompt,
        "accepted_answers": list(question.accepted),
        "truncated": question.cut,
    }
    found = python.run(settings, output, item)
    # At the server's start only the class is needed, and not the readers' patterns.
    from tunix_rt_evaluator.grading.reading.answers import read_answer

    return Verdict(
        extracted_answer=found["answer"] or read_answer(output).first_line,
        correct=found["score"] >= settings.threshold if found["graded"] else found["score"] == 1,
        score=found["score"] if found["graded"] else None,
        explanation=found["explanation"],
    )
