"""What an eval set is: questions with their accepted answers and graders. Plain values, free of transport."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError, PydanticKnownError

from tunix_rt_evaluator.grading.model import Grader, Grown
from tunix_rt_kit.conversations import (
    MAX_CALLS,
    MAX_MESSAGES,
    CheckedMessage,
    CheckedTool,
    Message,
    Tool,
    in_order,
    text_of,
    tool_names,
    unique_tools,
    whole_text,
)
from tunix_rt_kit.values import DeleteTime, Labelled, ListFilter, Value

EVAL_SET_NAME: Final = "evalSets/{eval_set}"
MAX_ITEMS: Final = 10_000
MAX_TEXT: Final = 50_000
MAX_ACCEPTED_ANSWERS: Final = 256
MAX_DESCRIPTION: Final = 1_000
MAX_EVAL_SET_BYTES: Final = 15 << 18

_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
_Label = Annotated[str, Field(max_length=64)]


def eval_set_name(eval_set_id: str) -> str:
    """The resource name of an eval set."""
    return f"evalSets/{eval_set_id}"


def _in_one_part(message: Message) -> Message:
    """How a text is cut into parts makes no other question."""
    text = text_of(message)
    return {**message, "content": [{"type": "text", "text": text}] if text else []}


def _open(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """``messages``, which end where a model is to speak."""
    if not messages:
        return messages
    in_order(messages)
    last = len(messages) - 1
    for index, message in enumerate(messages):
        if message["train"]:
            raise _wrong(index, "train", "is given, and nothing of an eval item is learned")
    if messages[last]["role"] not in ("user", "tool"):
        role = messages[last]["role"]
        raise _wrong(
            last, "role", f"is {role}; the last message, which the model answers, is a user's or a tool's"
        )
    caller = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    calls, results = len(messages[caller]["tool_calls"]), last - caller
    if messages[last]["role"] == "tool" and results < calls:
        raise _wrong(caller, "tool_calls", f"are {calls}, of which {results} have results; all need one")
    return messages


def _wrong(index: int, field: str, problem: str) -> PydanticCustomError:
    return PydanticCustomError("history", "{problem}", {"path": (index, field), "problem": problem})


def _beside_messages(tools: tuple[Tool, ...], info: ValidationInfo) -> tuple[Tool, ...]:
    if tools and not info.data.get("messages", True):
        raise PydanticCustomError("tools", "are given without messages; a conversation alone has tools", {})
    return tools


def _one_of_two(prompt: str, info: ValidationInfo) -> str:
    if not prompt and not info.data.get("messages", True):
        raise PydanticKnownError("string_too_short", {"min_length": 1})
    if prompt and info.data.get("messages"):
        raise PydanticCustomError("prompt", "is given beside messages; an item has one of the two", {})
    return prompt


class EvalItem(Grown, Value):
    """One question with its accepted answers: a prompt, or the messages before the turn that is asked for."""

    model_config = ConfigDict(strict=True)

    added = frozenset({"messages", "tools"})

    messages: Annotated[
        tuple[Annotated[CheckedMessage, AfterValidator(_in_one_part)], ...],
        Field(strict=False, max_length=MAX_MESSAGES),
        AfterValidator(_open),
    ] = ()
    tools: Annotated[
        tuple[CheckedTool, ...],
        Field(strict=False, max_length=MAX_CALLS),
        AfterValidator(unique_tools),
        AfterValidator(_beside_messages),
    ] = ()
    # No NUL: the id is a column of its own, and PostgreSQL keeps none.
    id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
    prompt: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_one_of_two)]
    accepted_answers: Annotated[tuple[_Text, ...], Field(strict=False)]
    grader: Grader
    category: _Label = ""
    difficulty: _Label = ""
    cluster: Annotated[str, Field(max_length=128)] = ""
    metadata: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What is asked last: the prompt, or the last of the user's messages."""
        spoken = (text_of(message) for message in reversed(self.messages) if message["role"] == "user")
        return self.prompt or next(spoken, "")

    @property
    def transcript(self) -> str:
        """All that the model is shown, of tools the names alone; the prompt where that is all."""
        tools = [f"tools: {', '.join(tool_names(self.tools))}"] if self.tools else []
        turns = [f"{message['role']}: {whole_text(message)}" for message in self.messages]
        return self.prompt or "\n\n".join([*tools, *turns])

    @property
    def question(self) -> str:
        """What tells one question from another: the prompt, or the messages and tools as JSON."""
        return self.prompt or json.dumps([self.messages, self.tools], sort_keys=True)


class EvalSetFile(Value):
    """A file that an eval set was made of."""

    file_name: Annotated[str, Field(max_length=256)]
    size_bytes: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class EvalSetOrigin(Value):
    """The published benchmark that an eval set was made of, and how; a caller says so."""

    benchmark: _Label = ""
    mapping: _Label = ""
    hub_id: Annotated[str, Field(max_length=256)] = ""
    config: Annotated[str, Field(max_length=256)] = ""
    split: _Label = ""
    revision: Annotated[str, Field(max_length=128)] = ""
    license: Annotated[str, Field(max_length=128)] = ""
    citation: Annotated[str, Field(max_length=4_000)] = ""
    files: Annotated[tuple[EvalSetFile, ...], Field(max_length=64, strict=False)] = ()
    row_count: Annotated[int, Field(ge=0)] = 0
    selection: Annotated[str, Field(max_length=128)] = ""


@dataclass(frozen=True, slots=True)
class EvalSetDraft:
    """An eval set as a caller gives it, unchecked; ``size_bytes`` is its encoded size."""

    id: str
    description: str
    items: Sequence[Mapping[str, Any]]
    size_bytes: int
    labels: Mapping[str, Any] = field(default_factory=dict)
    python_sources: Sequence[str] = ()
    origin: Mapping[str, Any] | None = None


class EvalSet(Labelled):
    """A stored eval set; ``items`` is None where only its facts were asked for."""

    id: str
    description: str
    digest: str
    item_count: int
    create_time: datetime
    items: tuple[EvalItem, ...] | None = None
    python_sources: tuple[str, ...] = ()
    origin: EvalSetOrigin | None = None
    delete_time: DeleteTime = None


class EvalSetFilter(ListFilter):
    """Which eval sets a list has."""

    order_fields = ("create_time", "display_name", "name", "item_count")
