"""Lines of JSON that hold a question, in both of its forms: as `evalset generate` writes them."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from tunix_rt.cli.trace_lines import TurnLine


class _EvalLine(TypedDict):
    id: Annotated[str, "Its id in the eval set."]
    accepted_answers: Annotated[list[str], "Each of these is right."]
    category: Annotated[str, "What it is counted under."]
    difficulty: Annotated[str, "How hard it is, which goes into its metadata."]


class EvalItemLine(_EvalLine):
    """A question on one line, as `evalset import` takes it."""

    prompt: Annotated[str, "The question."]
    grader: Annotated[str, "The kind of its grader."]


class EvalConversationLine(_EvalLine):
    """A turn of a conversation that is asked for, on one line."""

    messages: Annotated[list[TurnLine], "The turns before the one that is asked for."]
    tools: Annotated[list[dict[str, Any]], "Definitions of the tools that the model is offered."]
    grader: Annotated[dict[str, Any], "Its grader: a kind, and the settings of that."]
