"""What a dataset is: its spec, its state, and what came of the build."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Final, Literal, Protocol, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tunix_rt_kit.values import (
    ChatTemplateFields,
    DeleteTime,
    JobError,
    JobState,
    Labelled,
    ListFilter,
    Progress,
    Seed,
    StoredFile,
    Value,
    Wanted,
)

MAX_COUNT: Final = (1 << 53) - 1
TRAIN: Final = "train"
MODEL_ANSWERS_SOURCE: Final = "evaluation"
"""The source of traces that were made of a model's answers."""

ReasoningStyle = Literal["numbered", "answer-only"]
UnwritableRows = Literal["drop", "refuse"]
ModelAnswers = Literal["drop", "keep"]
TrainOn = Literal["all_assistants", "last_assistant", "marked"]
ChangedHistory = Literal["each_turn", "refuse"]
NoticeKind = Literal["reference_answer", "eval_prompt", "eval_sets_unknown"]
DeduplicationMethod = Literal["exact", "near", "identical"]
DatasetFormat = Literal[
    "trace",
    "tunix_sft",
    "training_example",
    "chat",
    "training_example_parquet",
    "chat_parquet",
    "conversation_example",
]
FORMATS: Final[tuple[DatasetFormat, ...]] = ("trace", "tunix_sft", "training_example")
"""Written when a dataset is built, and named by its manifest; the others are derived from these."""
CONVERSATION_EXAMPLE: Final = "conversation_example"
"""Written too if there is a conversation in the dataset."""

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Filter = Mapping[str, Any]
"""Which traces are meant, in the JSON form of the trace store's contract."""
Report = Callable[[Progress], None]
"""Is told how far a build has come, and may raise to end it."""

DEFAULT_THRESHOLD: Final = 0.8
_MIN_NGRAM_WORDS: Final = 8


class Selection(Value):
    """Which of the traces are taken: all, the newest ``count``, or ``count`` at random."""

    strategy: Literal["all", "latest", "random"] = "all"
    count: Count | None = None


class SplitFraction(Value):
    """A split and its share of the rows."""

    split: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
    fraction: Annotated[float, Field(gt=0, le=1)]


def _enough_words(count: int) -> int:
    if 0 < count < _MIN_NGRAM_WORDS:
        raise PydanticCustomError(
            "ngram_words",
            "is {count}; 0 (only equal prompts) or {least} to 64 would be right",
            {"count": count, "least": _MIN_NGRAM_WORDS},
        )
    return count


# Beyond it MinHash of 128 permutations no longer tells similar texts from equal ones.
Threshold = Annotated[float, Field(ge=0.5, le=0.95)]


class Deduplication(Value):
    """Which traces are duplicates; ``threshold`` is a Jaccard similarity, for ``near`` alone."""

    method: DeduplicationMethod = "exact"
    threshold: Threshold | None = None

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        if self.method != "near" and self.threshold is not None:
            raise PydanticCustomError(
                "threshold", "is set, but only the method near takes one", {"path": ("threshold",)}
            )
        if self.method == "near" and self.threshold is None:
            object.__setattr__(self, "threshold", DEFAULT_THRESHOLD)
        return self


class SplitGroup(Value):
    """Which rows share a split: those with the same normalised prompt, or value of a metadata field."""

    metadata_field: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    near_duplicate_threshold: Threshold | None = None


class Decontamination(Value):
    """How traces are compared with eval items; 0 words means that only equal prompts match."""

    ngram_words: Annotated[int, Field(ge=0, le=64), AfterValidator(_enough_words)] = 13


def _whole(splits: tuple[SplitFraction, ...]) -> tuple[SplitFraction, ...]:
    for index, split in enumerate(splits):
        first = next(k for k, other in enumerate(splits) if other.split == split.split)
        if first != index:
            raise PydanticCustomError(
                "duplicate_split",
                "is {split}, which splits[{first}] is already",
                {"split": repr(split.split), "first": first, "path": (index, "split")},
            )
    total = math.fsum(split.fraction for split in splits)
    if abs(total - 1) > 1e-9:
        raise PydanticCustomError(
            "fractions", "have fractions that add to {total}; they must add to 1", {"total": f"{total:.12g}"}
        )
    return splits


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if names.index(name) != index:
            raise PydanticCustomError(
                "duplicate_name", "is {name}, which stands there already", {"name": name, "path": (index,)}
            )
    return names


DEFAULT_SPLITS: Final = (
    SplitFraction(split="train", fraction=0.8),
    SplitFraction(split="validation", fraction=0.1),
    SplitFraction(split="test", fraction=0.1),
)
EvalSetName = Annotated[str, Field(pattern=r"^evalSets/[a-z0-9][a-z0-9._-]{0,63}$")]


class DatasetSpec(Value):
    """What a dataset is made of. ``filter`` is in the JSON form of the trace store's contract."""

    dataset_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")] = "1"
    filter: Mapping[str, Any] = Field(default_factory=dict)
    as_of: Annotated[int, Field(ge=0, le=MAX_COUNT)] = 0
    selection: Selection = Selection()
    splits: Annotated[tuple[SplitFraction, ...], Field(max_length=16), AfterValidator(_whole)] = (
        DEFAULT_SPLITS
    )
    seed: Seed = 0
    chat_template: ChatTemplateFields = ChatTemplateFields(builtin="gemma-it")
    reasoning_style: ReasoningStyle = "numbered"
    eval_sets: Annotated[tuple[EvalSetName, ...], Field(max_length=100), AfterValidator(_unique)] = ()
    deduplication: Deduplication = Deduplication()
    split_group: SplitGroup = SplitGroup()
    decontamination: Decontamination = Decontamination()
    parent: Annotated[
        str, Field(pattern=r"^(datasets/[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,31})?$")
    ] = ""

    unwritable_rows: UnwritableRows = "drop"
    # As it was before there was a choice; whoever asks now gets another default from ``convert``.
    model_answers: ModelAnswers = "keep"
    special_tokens: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...],
        Field(max_length=4_096),
        AfterValidator(lambda texts: tuple(sorted(set(texts)))),
    ] = ()
    train_on: TrainOn = "all_assistants"
    changed_history: ChangedHistory = "each_turn"

    @property
    def key(self) -> str:
        """``{dataset_id}@{version}``."""
        return f"{self.dataset_id}@{self.version}"


class SplitFiles(Value):
    """A split and its file in each format."""

    split: str
    row_count: int
    files: Mapping[DatasetFormat, StoredFile]


class DroppedRows(Value):
    """Rows that one stage left out, and why."""

    stage: str
    reason: str
    row_count: int


class Distribution(Value):
    """The spread of a number over all rows; the 95th percentile is the nearest rank."""

    minimum: float
    mean: float
    median: float
    p95: float
    maximum: float


class Statistics(Value):
    """Figures over all the rows of a dataset."""

    steps: Distribution
    prompt_characters: Distribution
    response_characters: Distribution


class Notice(Value):
    """Rows of one split, kept, that a person should know of: how many, and the ids of the first."""

    kind: NoticeKind
    split: str
    reason: str
    row_count: int
    example_row_ids: tuple[str, ...]


class TraceUse(Value):
    """What became of a trace in a dataset: the row ``row_number`` (from 1) of ``split``, or left out by
    ``stage``."""

    dataset: str
    dataset_digest: str
    row_id: str
    split: str = ""
    row_number: int = 0
    stage: str = ""
    reason: str = ""
    kept_row_id: str = ""
    eval_set: str = ""
    eval_item: str = ""


class TemplateFacts(Value):
    """What the build found out about its chat template.

    ``required_tokens`` must each be one token of a model that the dataset is for, ``control_texts`` stand in
    no row, and ``losses`` says in words which hostile texts the template does not write as they are.
    """

    required_tokens: tuple[str, ...] = ()
    control_texts: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


class BuildResult(Value):
    """What a build made. ``digest`` is that of the manifest, and so the dataset's."""

    digest: str
    manifest: StoredFile
    splits: tuple[SplitFiles, ...]
    trace_count: int
    dropped: tuple[DroppedRows, ...]
    statistics: Statistics
    dropped_rows: StoredFile | None = None
    parent_digest: str = ""
    builder_versions: Mapping[str, str] = Field(default_factory=dict)
    template_facts: TemplateFacts = TemplateFacts()
    notices: tuple[Notice, ...] = ()


class Dataset(Labelled):
    """A dataset as it is kept. ``build_id`` names the present attempt to build it, ``number`` is its place in
    lists. ``snapshot_open``: all who asked for it left the snapshot to the exporter, which may take a newer
    one while it builds. ``bound_digest``: it was deleted, and built again it must have this digest."""

    number: int
    build_id: str
    spec: DatasetSpec
    state: JobState
    snapshot_open: bool = False
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    progress: Progress | None = None
    failure: JobError | None = None
    result: BuildResult | None = None
    delete_time: DeleteTime = None
    bound_digest: str | None = None

    @property
    def is_bound(self) -> bool:
        """Whether its name and version mean one content, for ever."""
        made = self.state not in (JobState.FAILED, JobState.CANCELLED)
        return made or self.bound_digest is not None


class DatasetFilter(ListFilter):
    """Which datasets a list has."""

    order_fields = ("create_time", "display_name", "state", "name")

    states: tuple[JobState, ...] = ()
    datasets: Wanted = ()
    parents: Wanted = ()
    eval_sets: Wanted = ()


def learned_turns(messages: Sequence[Mapping[str, Any]], train_on: TrainOn) -> list[int]:
    """The numbers, from 0, of the messages that are learned.

    One that the trace marks as not to be learned never is.
    """
    replies = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    chosen = replies[-1:] if train_on == "last_assistant" else replies
    unsaid = train_on != "marked"
    return [number for number in chosen if messages[number].get("train", unsaid)]


@dataclass(frozen=True, slots=True)
class SourceTrace:
    """A trace as the trace store gives it; ``digest`` is that of its content, 32 bytes.

    A conversation, see ``conversation``, has ``messages`` and no steps; its ``prompt`` is all that the user
    says, its ``final_answer`` what the assistant says last.
    """

    sequence: int
    digest: bytes
    prompt: str
    steps: list[dict[str, Any]]
    final_answer: str
    metadata: dict[str, Any]
    source: str = ""
    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[str] = ()

    @classmethod
    def conversation(
        cls, messages: Sequence[Mapping[str, Any]], tools: Sequence[str], **fields: Any
    ) -> SourceTrace:
        """A conversation of ``messages``, each as a line of the format ``trace`` has it, with the definitions
        of its ``tools``, each a text; ``fields`` are those that other traces have too."""
        asked = [content_text(message) for message in messages if message["role"] == "user"]
        replies = (content_text(message) for message in reversed(messages) if message["role"] == "assistant")
        return cls(
            prompt="\n".join(asked),
            steps=[],
            final_answer=next(replies, ""),
            messages=messages,
            tools=tools,
            **fields,
        )

    def learned_turns(self, train_on: TrainOn) -> list[int]:
        """The numbers, from 0, of the messages of a conversation that are learned."""
        return learned_turns(self.messages, train_on)

    @property
    def questions(self) -> list[str]:
        """What the user asks, turn by turn: each may be an item of an eval set."""
        if not self.messages:
            return [self.prompt]
        return [content_text(message) for message in self.messages if message["role"] == "user"]

    @property
    def texts(self) -> list[str]:
        """All texts in which an item of an eval set may stand, the prompt first."""
        if not self.messages:
            return [self.prompt, *[step["content"] for step in self.steps], self.final_answer]
        found = [self.prompt]
        for message in self.messages:
            found += _texts(message)
        found += self.tools
        return [*found, *chain.from_iterable(map(_strings, found))]

    @property
    def said(self) -> str:
        """What makes it like another trace: what user, assistant and tools say.

        All conversations of an application may begin with the same instruction and offer the same tools, and
        are no more like each other for that.
        """
        if not self.messages:
            return "\n".join(self.texts)
        spoken = (message for message in self.messages if message["role"] not in ("system", "developer"))
        return "\n".join(chain.from_iterable(map(_texts, spoken)))


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a conversation's message, its parts joined."""
    content: str | list[str] = message.get("content", "")
    return content if isinstance(content, str) else "".join(content)


def _texts(message: Mapping[str, Any]) -> list[str]:
    """The texts of a conversation's message: thoughts, content, and the calls with their arguments."""
    found = [message.get("reasoning", ""), content_text(message)]
    for call in message.get("tool_calls", ()):
        found += (call["name"], call["arguments"])
    return [text for text in found if text]


def _strings(text: str) -> list[str]:
    """The texts in ``text`` if it is JSON, in which they stand with escapes."""
    if not text.lstrip().startswith(("{", "[")):
        return []
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return []
    found = []
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
    return found


@dataclass(frozen=True, slots=True)
class EvalPrompts:
    """What is asked in an eval set, by the ids of its items: a prompt, or a conversation's user turns."""

    name: str
    digest: str
    prompts: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Parent:
    """The dataset that another one is derived from, and the content digests of its rows, 32 bytes each."""

    digest: str
    rows: bytes


@dataclass(frozen=True, slots=True)
class Download:
    """A file to send: its facts, a name for it, and its bytes from the offset on."""

    file: StoredFile
    file_name: str
    chunks: Iterator[bytes]


class TraceSource(Protocol):
    """The trace store."""

    def resolve(self, wanted: Filter, as_of: int) -> int:
        """The number of the snapshot, the newest for 0.

        Raises InvalidArgument for a filter or snapshot that the store refuses, Unavailable.
        """

    def unchanged_since(self, wanted: Filter, as_of: int) -> bool:
        """Whether the newest snapshot holds exactly the matching traces of the snapshot ``as_of``."""

    def added_since(self, wanted: Filter, as_of: int, most: int) -> int:
        """How many traces match that were stored after the snapshot ``as_of``, up to ``most``."""

    def traces(
        self, wanted: Filter, as_of: int, pause: Callable[[float], None]
    ) -> Iterator[Sequence[SourceTrace]]:
        """The matching traces of a snapshot in the order of commits, by parts.

        While the store is away, ``pause`` is called with seconds to wait, and may raise to give up. Raises
        Unavailable after too long a time, FailedPrecondition if traces of the snapshot were deleted.
        """


class EvalSetSource(Protocol):
    """The evaluator."""

    def names(self) -> Iterator[str]:
        """The names of all eval sets, newest first; raises Unavailable."""

    def prompts(self, name: str) -> EvalPrompts:
        """The prompts of an eval set; raises NotFound (EVAL_SET_NOT_FOUND), Unavailable."""
