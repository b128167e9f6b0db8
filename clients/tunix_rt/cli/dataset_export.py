"""`tunix-rt dataset export` and `dropped`: the rows of a dataset, and those that it left out, as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

import typer

from tunix_rt import Client, v1
from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.console import output_stream
from tunix_rt.cli.datasets import DatasetArgument, app
from tunix_rt.cli.documents import Lines
from tunix_rt.cli.lookup import named
from tunix_rt.cli.options import DatasetFormat, dataset_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.trace_lines import StepLine, TurnLine
from tunix_rt.errors import FailedPreconditionError

Conversations = Literal["last-turn", "refuse"]
# Formats that have one answer a row: of a conversation, they hold the last turn that is learned.
_ONE_TURN: Final = ("training_example", "training_example_parquet", "tunix_sft")

_Id = Annotated[str, "Content digest of its trace: 64 hex digits."]
_Metadata = Annotated[dict[str, Any], "Free-form facts of its trace."]


class DroppedRowLine(TypedDict):
    """A row that was left out of a dataset: its stage, and what is known of why."""

    id: _Id
    stage: Annotated[
        str,
        "What left it out: unrenderable, target_lost, model_answer, unmarked, contaminated, selection, "
        "duplicate, near_duplicate or split_conflict.",
    ]
    kept: NotRequired[Annotated[str, "The id of the row that stays instead of it."]]
    eval_set: NotRequired[Annotated[str, "The eval set that it would give away."]]
    eval_item: NotRequired[Annotated[str, "The item of the eval set."]]
    match: NotRequired[Annotated[str, "How it was recognised."]]
    matched_text: NotRequired[Annotated[str, "The text that both have."]]
    control_text: NotRequired[Annotated[str, "The control text that it holds."]]
    problem: NotRequired[Annotated[str, "Why the template refuses it."]]
    lost: NotRequired[Annotated[list[str], "What of it the template does not write as it is."]]


class TrainingExampleLine(TypedDict):
    """A row of a dataset in the format `training_example`: the text that training uses."""

    id: _Id
    prompt: Annotated[str, "The text that the model is shown."]
    response: Annotated[str, "The text that it learns."]
    metadata: _Metadata


class TunixSftLine(TypedDict):
    """A row of a dataset in the format `tunix_sft`."""

    id: _Id
    prompts: Annotated[str, "The whole text, in the turns of Gemma-IT."]
    final_answer: Annotated[str, "The answer."]
    metadata: _Metadata


class SegmentLine(TypedDict):
    """A part of the text of a training example."""

    text: Annotated[str, "The text."]
    learned: Annotated[bool, "Whether the model learns it."]


class ConversationExampleLine(TypedDict):
    """A training example in the format `conversation_example`."""

    id: Annotated[str, "Its row's id; `ID:NUMBER` of one of several, for the turn of that number."]
    segments: Annotated[list[SegmentLine], "The parts of its text, in order."]
    metadata: _Metadata


class DatasetTraceLine(TypedDict):
    """A row of a dataset in the format `trace`."""

    id: _Id
    prompts: Annotated[str, "The question."]
    trace_steps: Annotated[list[StepLine], "The reasoning, in order."]
    final_answer: Annotated[str, "The answer."]
    metadata: _Metadata


class DatasetConversationLine(TypedDict):
    """A conversation that is a row of a dataset, in the format `trace`."""

    id: _Id
    messages: Annotated[list[TurnLine], "The turns, in order."]
    tools: Annotated[list[str], "Definitions of the tools that the model was offered, each a text."]
    metadata: _Metadata


class ChatFunctionLine(TypedDict):
    """What is called in a chat."""

    name: Annotated[str, "The tool's name."]
    arguments: Annotated[dict[str, Any] | str, "The arguments; a text where they are no JSON object."]


class ChatCallLine(TypedDict):
    """A call of a tool in a chat."""

    id: NotRequired[Annotated[str, "Names the call."]]
    type: Annotated[str, "function."]
    function: Annotated[ChatFunctionLine, "The tool, and its arguments."]


class ChatMessageLine(TypedDict):
    """A message of a chat. All but the first two are in conversations alone."""

    role: Annotated[str, "Who says it: system, developer, user, assistant or tool."]
    content: Annotated[str, "What is said."]
    reasoning_content: NotRequired[Annotated[str, "What the assistant thought before it spoke."]]
    tool_calls: NotRequired[Annotated[list[ChatCallLine], "The calls that the assistant makes."]]
    tool_call_id: NotRequired[Annotated[str, "The call that a tool's message answers."]]
    name: NotRequired[Annotated[str, "Name of the speaker, or of the tool."]]
    weight: NotRequired[Annotated[int, "0 for a turn of the assistant's that the dataset does not teach."]]


class ChatLine(TypedDict):
    """A row of a dataset in the format `chat`."""

    id: _Id
    messages: Annotated[list[ChatMessageLine], "The messages, in order."]
    tools: NotRequired[
        Annotated[list[dict[str, Any]], "Of a conversation, definitions of the tools that were offered."]
    ]
    metadata: _Metadata


@command(
    app,
    "dropped",
    example="tunix-rt dataset dropped gsm8k@3 > dropped.jsonl",
    prints=Lines(DroppedRowLine),
)
def dropped(
    session: Session,
    dataset: DatasetArgument,
) -> None:
    """Write each row that was left out, and what it matched, as JSON lines.

    Rows are written as they arrive. After exit code 1 they are incomplete.
    """
    with session.connect() as client, output_stream(Path("-")) as stdout:
        name = named(session, client, dataset_name(dataset))
        client.exporter.read_dropped_rows_into(name, stdout)


class DownloadedFile(TypedDict):
    """A split that was written into a file."""

    dataset: Annotated[str, "The dataset's name."]
    split: Annotated[str, "The split."]
    format: Annotated[str, "The format of its rows."]
    size_bytes: Annotated[int, "Bytes of the file."]
    digest: Annotated[str, "Digest of the file: `sha256:` and 64 hex digits."]
    file: Annotated[str, "The file, as it was given."]


@command(
    app,
    "export",
    example=(
        "tunix-rt dataset export arithmetic@1 --split train --format training_example -o train.jsonl",
        "tunix-rt dataset export arithmetic@1 --format chat_parquet -o train.parquet",
        "tunix-rt dataset export arithmetic@1 --split test | head -1",
    ),
    prints=(
        DownloadedFile,
        Lines(TrainingExampleLine),
        Lines(TunixSftLine),
        Lines(DatasetTraceLine),
        Lines(DatasetConversationLine),
        Lines(ChatLine),
        Lines(ConversationExampleLine),
    ),
)
def export(
    session: Session,
    dataset: DatasetArgument,
    split: Annotated[str, typer.Option("--split", help="Which split.")] = "train",
    format: Annotated[
        DatasetFormat, typer.Option("--format", "-f", help="Format of the rows.")
    ] = "training_example",
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file; - is stdout.")] = Path("-"),
    conversations: Annotated[
        Conversations,
        typer.Option(
            "--conversations",
            help="What training_example and tunix_sft do about conversations; last-turn: the last turn that "
            "is learned is the response, and all before it the prompt.",
        ),
    ] = "last-turn",
) -> None:
    """Write one split as JSON lines or Parquet.

    A file appears only when it is complete. On stdout, rows are written as they arrive; after exit code 1
    they are incomplete.
    """
    name = dataset_name(dataset)
    wanted = v1.DatasetFormat.Value(f"DATASET_FORMAT_{format.upper()}")
    if str(output) == "-" and format.endswith("_parquet") and _on_terminal():
        raise typer.BadParameter(f"{format} is not text; give -o FILE, or redirect the output")
    with session.connect() as client:
        name = named(session, client, name)
        if format in _ONE_TURN:
            _look_for_conversations(session, client, name, format, conversations)
        if str(output) == "-":
            with output_stream(output) as stdout:
                client.exporter.read_dataset_into(name, split, stdout, format=wanted)
        else:
            with session.progress() as progress:
                # A format that nobody asked for before is made first.
                writing = progress.bar(f"{format} of {split}")
                header = client.exporter.download_dataset(name, split, output, format=wanted)
                writing.finish()
            if session.as_json:
                document = {"size_bytes": header.size_bytes, "digest": header.digest, "file": str(output)}
                session.print_json({"dataset": name, "split": split, "format": format} | document)
            else:
                session.say(f"{text.size(header.size_bytes)} written to {output}")


def _look_for_conversations(
    session: Session, client: Client, name: str, format: str, conversations: Conversations
) -> None:
    """Say what a format lacks of the dataset's conversations, if it has any; raises FailedPreconditionError
    where these are refused."""
    splits = client.exporter.get_dataset(name).splits
    written = {file.format for split in splits for file in split.files}
    if v1.DATASET_FORMAT_CONVERSATION_EXAMPLE not in written:
        return
    told = (
        f"{name} has conversations, of which {format} holds the last turn alone as what is learned; "
        "--format conversation_example or chat has them whole"
    )
    if conversations == "refuse":
        raise FailedPreconditionError(told)
    session.notify(told)


def _on_terminal() -> bool:
    return sys.stdout.isatty()
