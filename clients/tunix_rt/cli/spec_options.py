"""Values of options that several commands take: chat templates, choices."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import Client, v1
from tunix_rt.errors import FailedPreconditionError, NotFoundError
from tunix_rt.files import read_text
from tunix_rt.formats import read_marks_text

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
