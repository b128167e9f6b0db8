"""Built-in criteria: pure functions from a trace to a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_kit.text import normalised
from tunix_rt_trace_store.traces.model import Criterion, TraceContent

FULL_STEPS: Final = 10
FULL_STEP_CHARACTERS: Final = 500
REFERENCE_KEY: Final = "reference_answer"


def structure(content: TraceContent) -> tuple[float, dict[str, Any]]:
    """0 to 100: half for up to 10 steps, half for a mean step length of up to 500 characters."""
    count = len(content["steps"])
    mean = sum(len(step["content"]) for step in content["steps"]) / count
    value = 50 * min(count / FULL_STEPS, 1.0) + 50 * min(mean / FULL_STEP_CHARACTERS, 1.0)
    return value, {"step_count": count, "mean_step_characters": mean}


def answer(content: TraceContent) -> tuple[float, dict[str, Any]]:
    """100 when the final answer is the metadata's ``reference_answer``, both normalised; else 0.

    Raises FailedPrecondition(REFERENCE_ANSWER_MISSING) if the metadata has none that is a text or a number.
    """
    reference = content["metadata"].get(REFERENCE_KEY)
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        raise FailedPrecondition(
            f"criterion 'answer' needs metadata.{REFERENCE_KEY}, a text or a number, and the trace has none",
            reason="REFERENCE_ANSWER_MISSING",
        )
    given, wanted = normalised(content["final_answer"]), normalised(str(reference))
    return (100.0 if given == wanted else 0.0), {"final_answer": given, REFERENCE_KEY: wanted}


CRITERIA: Final[Mapping[Criterion, Callable[[TraceContent], tuple[float, dict[str, Any]]]]] = {
    "structure": structure,
    "answer": answer,
}


def checked_criteria(criteria: Sequence[str]) -> list[Criterion]:
    """The criteria of a request, "structure" for none; raises InvalidArgument(CRITERION_INVALID)."""
    violations = Violations()
    chosen: list[Criterion] = []
    for index, name in enumerate(criteria or ["structure"]):
        known = next((criterion for criterion in CRITERIA if criterion == name), None)
        if known is None:
            violations.add(f"criteria[{index}]", f"is {name!r}; one of {', '.join(CRITERIA)} would be right")
        elif known in chosen:
            violations.add(f"criteria[{index}]", f"is {name!r}, which stands there already")
        else:
            chosen.append(known)
    violations.raise_if_any("CRITERION_INVALID")
    return chosen
