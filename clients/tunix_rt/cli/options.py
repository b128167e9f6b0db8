"""Options of several commands, and what their values mean: names, templates, filters."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin

import typer

from tunix_rt import Client, v1
from tunix_rt.errors import FailedPreconditionError, NotFoundError
from tunix_rt.files import read_text
from tunix_rt.naming import CHECKPOINTS, COLLECTIONS

# Files and settings are read by a few commands alone, and what reads them takes long to import.
if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from tunix_rt.generate import GeneratedTrace

Options = TypeVar("Options", bound="SpecOptions")

# A tokenizer_config.json lists every special token.
_MAX_TEMPLATE_FILE_BYTES = 8 << 20
_BUILTIN_TEMPLATES = ("gemma-it", "chatml", "llama-3")
_TEMPLATE = "--template"

DatasetFormat = Literal[
    "trace",
    "tunix_sft",
    "training_example",
    "chat",
    "training_example_parquet",
    "chat_parquet",
    "conversation_example",
]
DTYPE_HELP = (
    "Type of weights and activations; auto: float32 where the host's processor has no bfloat16 instructions, "
    "else bfloat16."
)
BosTokenOption = Annotated[str, typer.Option("--bos-token", help="For a Jinja file: text of its bos_token.")]
EosTokenOption = Annotated[str, typer.Option("--eos-token", help="For a Jinja file: text of its eos_token.")]


def _countable(limit: int) -> int:
    return min(limit, sys.maxsize)


LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, callback=_countable, help="Show at most this many.")
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Return at once instead of waiting (with a server only).")
]
FlipsOption = Annotated[
    int,
    typer.Option(
        "--flips",
        min=0,
        help="Show this many items that went wrong, the worst first, and as many that went right.",
    ),
]


class Shown(NamedTuple):
    """How an option that fills a field of a spec is shown.

    Without ``flags`` it has the field's name; a boolean without a default has a `--no-` form too.
    """

    help: str
    panel: str | None = None
    flags: tuple[str, ...] = ()
    default: Any = None
    metavar: str | None = None


class SpecOptions:
    """The options that fill a spec; ``spec_options`` makes its fields."""

    paths: ClassVar[list[tuple[str, ...]]]

    def values(self) -> dict[str, Any]:
        """What was given, as the nested fields of the spec; None where nothing was."""
        found: dict[str, Any] = {}
        for *outer, name in self.paths:
            place = found
            for part in outer:
                place = place.setdefault(part, {})
            place[name] = getattr(self, name)
        return found


def spec_options(
    settings: type[BaseModel], shown: Mapping[str, Shown], *, without: Collection[str] = ()
) -> Callable[[type[Options]], type[Options]]:
    """Make a class with an option for each field of ``settings`` and of its parts.

    Options in ``shown`` come first and look as it says. Any other field has an option too, with the
    contract's comment as its help: a new field of the contract reaches the command line by itself.
    """
    leaves = {path[-1]: (path, entry) for path, entry in _leaves(settings) if path[-1] not in without}
    fields = []
    for name in dict.fromkeys([*shown, *leaves]):
        entry = leaves[name][1]
        annotation, default = _option(name, entry, shown.get(name) or Shown(_help(entry)))
        fields.append((name, annotation, field(default=default)))

    def filled(declared: type[Options]) -> type[Options]:
        own = {"paths": [path for path, _ in leaves.values()], "__doc__": declared.__doc__}
        return make_dataclass(declared.__name__, fields, bases=(declared,), namespace=own, frozen=True)

    return filled


def _leaves(
    settings: type[BaseModel], outer: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    from tunix_rt.schema import model_in

    for name, entry in settings.model_fields.items():
        part = model_in(entry.annotation)
        if part is None:
            yield (*outer, name), entry
        else:
            yield from _leaves(part, (*outer, name))


def _option(name: str, entry: FieldInfo, shown: Shown) -> tuple[Any, Any]:
    """The annotation and the default of the parameter for a field."""
    kind: Any = entry.annotation
    default, may_be_none = entry.default, NoneType in get_args(kind)
    if may_be_none:
        kind = get_args(kind)[0]
    if get_origin(kind) is Annotated:
        kind = kind.__origin__
    if may_be_none or get_origin(kind) is list:
        default = shown.default
    word = name.replace("_", "-")
    flag = f"--{word}/--no-{word}" if kind is bool and may_be_none else f"--{word}"
    option = typer.Option(
        *(shown.flags or (flag,)),
        help=shown.help,
        rich_help_panel=shown.panel,
        metavar=shown.metavar,
        min=0 if kind is int and not may_be_none else None,
    )
    return Annotated[kind | None if default is None else kind, option], default


def _help(entry: FieldInfo) -> str:
    """What the contract says about a field, as help: its default last, and no markup in it."""
    said = " ".join((entry.description or "").replace("`", "").split())
    said = re.sub(r"[.;] [Ll]eft out: (.+?)\.(?= |$)(.*)", r".\2 [default: \1]", said)
    return said.replace("[", "\\[")


def not_empty(value: str | None) -> str | None:
    """Callback of an option that may be left out; raises typer.BadParameter for an empty value."""
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
        help="The marks around reasoning, which is not graded: think, reasoning, THINK, "
        """another name, none, or JSON such as '{"start": "<a>", "end": "</a>"}'. """
        "\\[default: as the chat template has it, else think]",
    ),
]


def marks_of(given: str | None) -> v1.ReasoningMarks | None:
    """The marks of reasoning that ``given`` stands for; raises typer.BadParameter."""
    from tunix_rt.formats import read_marks_text

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
    """The chat template that comes with a base model. Raises typer.BadParameter if it has none."""
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
    """A resource in ``collection`` that was given by name, id, the beginning of an id, or display name, as
    ``lookup.named`` takes it.

    Raises typer.BadParameter for a name of another collection.
    """
    folder, slash, rest = given.partition("/")
    if folder == collection and rest:
        return given
    if not given or CHECKPOINTS in given or (slash and folder in (*COLLECTIONS, "baseModels")):
        raise typer.BadParameter(f"{given!r} is not one of {collection}; give an id, or {collection}/ID")
    return f"{collection}/{given}"


def trace_name(given: str) -> str:
    """A trace given by name or id, or by its content digest or a row's id, whole or shortened, as
    ``lookup.named`` takes it."""
    return resource_name("traces", given.removeprefix("sha256:"))


def dataset_name(given: str) -> str:
    """A dataset given as ID, ID@VERSION or datasets/ID@VERSION, as ``lookup.named`` takes it; there the
    version defaults to 1."""
    return resource_name("datasets", given)


def short_name(name: str) -> str:
    """A resource's name without its collection."""
    return name.partition("/")[2] or name


@dataclass(frozen=True)
class ProblemOptions:
    """A sequence of generated problems, and where in it to begin."""

    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same problems.")] = 0
    families: Annotated[
        list[str] | None,
        typer.Option(
            "--families",
            help="Kinds of problem, joined by commas. Left out: all, but for calculator, unit_converter and "
            "small_talk, which are conversations with tools.",
        ),
    ] = None
    difficulty: Annotated[
        Literal["easy", "medium", "hard"], typer.Option("--difficulty", help="How hard they are.")
    ] = "easy"
    start: Annotated[
        int,
        typer.Option(
            "--start", min=0, help="Skip this many problems; those that follow share no prompt with them."
        ),
    ] = 0

    def generated(self, count: int) -> Iterator[GeneratedTrace]:
        """The first ``count`` of them; raises typer.BadParameter for options that no problem fits."""
        from tunix_rt.generate import generate_traces

        names = [name.strip() for given in self.families or () for name in given.split(",")]
        try:
            return generate_traces(
                count, self.seed, families=names or None, difficulty=self.difficulty, start=self.start
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
