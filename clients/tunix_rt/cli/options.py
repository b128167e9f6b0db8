"""Options that several commands take, and what their values stand for: names, templates, filters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from tunix_rt import Client, v1
from tunix_rt.errors import FailedPreconditionError, NotFoundError
from tunix_rt.files import read_text
from tunix_rt.formats import read_marks_text
from tunix_rt.generate import GeneratedTrace, generate_traces

# A tokenizer_config.json lists every special token.
_MAX_TEMPLATE_FILE_BYTES = 8 << 20
_BUILTIN_TEMPLATES = ("gemma-it", "chatml", "llama-3")
_TEMPLATE = "--template"


class Dtype(StrEnum):
    """A floating-point type of weights and activations; ``auto`` is what is fast on the computing host."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class ReasoningStyle(StrEnum):
    """How a trace's steps are written in the text that a model learns."""

    NUMBERED = "numbered"
    ANSWER_ONLY = "answer-only"


class Method(StrEnum):
    """Which weights are learned."""

    LORA = "lora"
    QLORA = "qlora"
    FULL = "full"


class Remat(StrEnum):
    """What of a layer is kept for the backward pass."""

    NONE = "none"
    DOTS = "dots"
    FULL = "full"


class Schedule(StrEnum):
    """How the learning rate goes over the steps."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class DatasetFormat(StrEnum):
    """A format in which rows are written."""

    TRACE = "trace"
    TUNIX_SFT = "tunix_sft"
    TRAINING_EXAMPLE = "training_example"
    CHAT = "chat"
    TRAINING_EXAMPLE_PARQUET = "training_example_parquet"
    CHAT_PARQUET = "chat_parquet"


DTYPES = {
    Dtype.AUTO: v1.DTYPE_AUTO,
    Dtype.BFLOAT16: v1.DTYPE_BFLOAT16,
    Dtype.FLOAT32: v1.DTYPE_FLOAT32,
}
DTYPE_HELP = (
    "Type of weights and activations; auto: float32 where the host's processor has no bfloat16 instructions, "
    "else bfloat16."
)
METHODS = {
    Method.LORA: v1.TUNING_METHOD_LORA,
    Method.QLORA: v1.TUNING_METHOD_QLORA,
    Method.FULL: v1.TUNING_METHOD_FULL,
}
REMATS = {
    Remat.NONE: v1.REMAT_POLICY_NONE,
    Remat.DOTS: v1.REMAT_POLICY_DOTS,
    Remat.FULL: v1.REMAT_POLICY_FULL,
}
REASONING_STYLES = {
    ReasoningStyle.NUMBERED: v1.REASONING_STYLE_NUMBERED,
    ReasoningStyle.ANSWER_ONLY: v1.REASONING_STYLE_ANSWER_ONLY,
}
SCHEDULES = {
    Schedule.CONSTANT: v1.LEARNING_RATE_SCHEDULE_CONSTANT,
    Schedule.LINEAR: v1.LEARNING_RATE_SCHEDULE_LINEAR,
    Schedule.COSINE: v1.LEARNING_RATE_SCHEDULE_COSINE,
}
DATASET_FORMATS = {
    DatasetFormat.TRACE: v1.DATASET_FORMAT_TRACE,
    DatasetFormat.TUNIX_SFT: v1.DATASET_FORMAT_TUNIX_SFT,
    DatasetFormat.TRAINING_EXAMPLE: v1.DATASET_FORMAT_TRAINING_EXAMPLE,
    DatasetFormat.CHAT: v1.DATASET_FORMAT_CHAT,
    DatasetFormat.TRAINING_EXAMPLE_PARQUET: v1.DATASET_FORMAT_TRAINING_EXAMPLE_PARQUET,
    DatasetFormat.CHAT_PARQUET: v1.DATASET_FORMAT_CHAT_PARQUET,
}


def filled(value: str | None) -> str | None:
    """The value of an option that may be left out, as its callback; raises typer.BadParameter if it is
    empty."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty; give a value, or leave the option out")
    return value


def chat_template(
    client: Client, given: str, *, system_instruction: str = "", bos_token: str = "", eos_token: str = ""
) -> v1.ChatTemplate:
    """The chat template that ``given`` stands for.

    ``given`` is `gemma-it`, `chatml`, `llama-3`, `model:NAME` (that base model's own; NAME may be a folder
    on the trainer's host) or `file:PATH` (Jinja source with ``bos_token`` and ``eos_token``, or a
    `tokenizer_config.json` that holds all three). Raises typer.BadParameter for anything else, a model
    without a template and a file that cannot be read as one.
    """
    kind, _, value = given.partition(":")
    if given in _BUILTIN_TEMPLATES:
        template = v1.ChatTemplate(builtin=given)
    elif kind == "model" and value:
        template = model_template(known_base_model(client, value, _TEMPLATE))
    elif kind == "file" and value:
        template = _file_template(Path(value), bos_token, eos_token)
    else:
        raise typer.BadParameter(
            f"{given!r} is no chat template; give {', '.join(_BUILTIN_TEMPLATES)}, model:NAME or file:PATH",
            param_hint=_TEMPLATE,
        )
    template.system_instruction = system_instruction
    return template


ReasoningMarksOption = Annotated[
    str | None,
    typer.Option(
        "--reasoning-marks",
        metavar="NAME|JSON",
        help="What opens and closes reasoning, which is not graded: think, reasoning, THINK, "
        """another name, none, or JSON such as '{"start": "<a>", "end": "</a>"}'. """
        "\\[default: as the chat template has it, else think]",
    ),
]


def marks_of(given: str | None) -> v1.ReasoningMarks | None:
    """The marks of reasoning that ``given`` stands for; raises typer.BadParameter."""
    try:
        return None if given is None else read_marks_text(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--reasoning-marks") from None


def known_base_model(client: Client, name: str, option: str = "--base-model") -> v1.BaseModel:
    """The base model of that id, or in that folder of the trainer's host, as ``option`` names it.

    Raises typer.BadParameter if there is none, if its files are not fit, or if it is not on the host yet.
    """
    try:
        model = client.trainer.get_base_model(name)
    except (NotFoundError, FailedPreconditionError) as error:
        raise typer.BadParameter(error.message, param_hint=option) from None
    if not model.available:
        raise typer.BadParameter(
            f"{name} is not on the trainer's host yet, so its chat template and its tokenizer are not known; "
            f"fetch it with: tunix-rt models pull {name}",
            param_hint=option,
        )
    return model


def model_template(model: v1.BaseModel) -> v1.ChatTemplate:
    """The own chat template of a base model. Raises typer.BadParameter if it has none."""
    if not model.HasField("chat_template"):
        raise typer.BadParameter(
            f"{model.base_model} has no chat template of its own; give another",
            param_hint=_TEMPLATE,
        )
    template = v1.ChatTemplate()
    template.CopyFrom(model.chat_template)
    template.ClearField("digest")
    return template


def _file_template(path: Path, bos_token: str, eos_token: str) -> v1.ChatTemplate:
    try:
        source = read_text(path, _MAX_TEMPLATE_FILE_BYTES)
    except OSError as error:
        raise typer.BadParameter(
            f"the chat template {path} cannot be read: {error.strerror or error}", param_hint=_TEMPLATE
        ) from None
    if path.suffix == ".json":
        try:
            config = json.loads(source)
            source = config["chat_template"]
            if isinstance(source, list):
                source = {entry["name"]: entry["template"] for entry in source}["default"]
            # Half of a character is no text that a message could carry.
            str.encode(source)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise typer.BadParameter(
                f"{path} is no tokenizer_config.json with a chat_template in it", param_hint=_TEMPLATE
            ) from None
        bos_token = bos_token or _token(config.get("bos_token"))
        eos_token = eos_token or _token(config.get("eos_token"))
    return v1.ChatTemplate(jinja=source, bos_token=bos_token, eos_token=eos_token)


def _token(value: object) -> str:
    # A tokenizer's configuration holds a token as text or as an object with its text and flags.
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def resource_name(collection: str, given: str) -> str:
    """The name of a resource in ``collection`` that was given by name or id.

    Raises typer.BadParameter for a name of another collection.
    """
    if given.startswith(f"{collection}/"):
        return given
    if not given or "/" in given:
        raise typer.BadParameter(f"{given!r} is not one of {collection}; give an id, or {collection}/ID")
    return f"{collection}/{given}"


def trace_name(given: str) -> str:
    """The name of a trace given by name or id, or by its content digest or a row's id, whole or shortened."""
    return resource_name("traces", given.removeprefix("sha256:"))


def dataset_name(given: str) -> str:
    """The name of a dataset given as ID, ID@VERSION or datasets/ID@VERSION; the version defaults to 1."""
    name = resource_name("datasets", given)
    return name if "@" in name else f"{name}@1"


def checkpoint_name(client: Client, given: str) -> str:
    """The name of a checkpoint that was given whole, or as a training job: then its best one is meant, if it
    was asked to keep that, else its latest.

    Raises typer.BadParameter when the job has none, TunixRtError when there is no such job.
    """
    if "/checkpoints/" in given:
        return given
    job = client.trainer.get_training_job(name=resource_name("trainingJobs", given))
    if not job.checkpoint:
        raise typer.BadParameter(f"{job.name} has no checkpoint yet")
    return job.best_checkpoint or job.checkpoint


def short_name(name: str) -> str:
    """A resource's name without its collection."""
    return name.partition("/")[2] or name


_AGE = re.compile(r"(\d+)\s*(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_WHICH = "Which traces"


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """The options of every command that takes a trace filter."""

    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", help="Only traces of this source (may be repeated).", rich_help_panel=_WHICH
        ),
    ] = None
    contains: Annotated[
        str,
        typer.Option("--contains", help="Only traces whose prompt holds this text.", rich_help_panel=_WHICH),
    ] = ""
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="KEY[=VALUE]",
            help="Only traces with this in their metadata (may be repeated).",
            rich_help_panel=_WHICH,
        ),
    ] = None
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="KEY",
            help="Only traces without this key in their metadata (may be repeated).",
            rich_help_panel=_WHICH,
        ),
    ] = None
    created_after: Annotated[
        str | None,
        typer.Option(
            "--created-after",
            metavar="TIME",
            help="Only traces stored then or later: 2026-01-31, 2026-01-31T12:00, or 2d, 3h, 10min ago.",
            rich_help_panel=_WHICH,
        ),
    ] = None
    created_before: Annotated[
        str | None,
        typer.Option(
            "--created-before",
            metavar="TIME",
            help="Only traces stored before then.",
            rich_help_panel=_WHICH,
        ),
    ] = None
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            "--min-score",
            metavar="CRITERION=VALUE",
            help="Only traces whose latest score is at least this (may be repeated).",
            rich_help_panel=_WHICH,
        ),
    ] = None

    def filter(self) -> v1.TraceFilter | None:
        """The filter; None when no option was given. Raises typer.BadParameter."""
        return trace_filter(
            self.source or (),
            self.contains,
            self.where or (),
            without=self.without or (),
            created_after=self.created_after,
            created_before=self.created_before,
            min_score=self.min_score or (),
        )


def trace_filter(
    sources: Iterable[str] = (),
    contains: str = "",
    where: Iterable[str] = (),
    *,
    without: Iterable[str] = (),
    created_after: str | None = None,
    created_before: str | None = None,
    min_score: Iterable[str] = (),
) -> v1.TraceFilter | None:
    """The filter for the options of ``FilterOptions``; None when none was given.

    A VALUE of `--where KEY=VALUE` that reads as a JSON number, boolean or null is one, all others are texts;
    KEY alone asks that it is there. Raises typer.BadParameter for what is no condition, time or score.
    """
    conditions = [_condition(text) for text in where]
    conditions += [v1.MetadataCondition(key=key, exists=False) for key in without]
    made = v1.TraceFilter(
        sources=sources,
        prompt_contains=contains,
        metadata=conditions,
        created_from=_moment("--created-after", created_after),
        created_before=_moment("--created-before", created_before),
        scores=[_score(given) for given in min_score],
    )
    return made if made.ByteSize() else None


def _moment(option: str, given: str | None) -> Timestamp | None:
    if given is None:
        return None
    age = _AGE.fullmatch(given.strip())
    try:
        if age:
            moment = datetime.now(UTC) - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        else:
            # Without a zone, it is this computer's time.
            moment = datetime.fromisoformat(given.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{option} {given!r} is no time; give 2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00Z, or an age "
            "such as 10min, 3h or 2d"
        ) from None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _score(given: str) -> v1.ScoreCondition:
    criterion, _, text = given.partition("=")
    try:
        minimum = float(text)
    except ValueError:
        minimum = math.nan
    if not criterion or not math.isfinite(minimum):
        raise typer.BadParameter(f"--min-score takes CRITERION=VALUE, such as structure=80, not {given!r}")
    return v1.ScoreCondition(criterion=criterion, minimum=minimum)


def _condition(given: str) -> v1.MetadataCondition:
    key, equals, text = given.partition("=")
    if not key:
        raise typer.BadParameter(f"--where takes KEY=VALUE or KEY, not {given!r}")
    if not equals:
        return v1.MetadataCondition(key=key, exists=True)
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = text
    if isinstance(parsed, dict | list):
        parsed = text
    try:
        return v1.MetadataCondition(key=key, equals=ParseDict(parsed, Value()))
    except ParseError:
        raise typer.BadParameter(f"--where {given}: {text} is not a value of metadata") from None


class Difficulty(StrEnum):
    """How hard generated problems are."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


@dataclass(frozen=True)
class ProblemOptions:
    """A sequence of generated problems, and where in it to begin."""

    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same problems.")] = 0
    families: Annotated[
        list[str] | None,
        typer.Option("--families", help="Kinds of problem, joined by commas. Left out: all."),
    ] = None
    difficulty: Annotated[Difficulty, typer.Option("--difficulty", help="How hard they are.")] = (
        Difficulty.EASY
    )
    start: Annotated[
        int,
        typer.Option("--start", min=0, help="Leave out this many: what follows shares no prompt with them."),
    ] = 0

    def generated(self, count: int) -> Iterator[GeneratedTrace]:
        """That many of them; raises typer.BadParameter where there are none such."""
        names = [name.strip() for given in self.families or () for name in given.split(",")]
        try:
            return generate_traces(
                count, self.seed, families=names or None, difficulty=self.difficulty.value, start=self.start
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
