"""Writes docs/reference from the protos, from the command line's own help and from what it writes as JSON.

It also adds to examples/loop.yaml the settings of the contract that the example does not show yet.

python docs/generate.py          writes docs/reference and examples/loop.yaml
python docs/generate.py check    fails when the committed files are not what would be written
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import json_schemas
import typer
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import error_details_pb2
from pydantic import BaseModel

from tunix_rt.cli.main import app
from tunix_rt.loop.settings import DecodingSettings, TrainingConfig
from tunix_rt.schema import model_in

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
SCHEMAS = REFERENCE / "json"
EXAMPLE = ROOT / "examples" / "loop.yaml"
FILES_IN_ORDER = [
    *("trace_store", "trace", "exporter", "dataset", "chat_template", "artifact", "progress"),
    *("trainer", "base_model", "training_job", "checkpoint"),
    *("evaluator", "eval_set", "evaluation", "comparison_report"),
]
NOTE = "<!-- Written by docs/generate.py; change the source instead. -->\n"

# Numbers of the fields that a descriptor's comment paths go through.
_MESSAGE, _ENUM, _SERVICE, _FIELD, _NESTED_ENUM, _VALUE, _METHOD = 4, 5, 6, 2, 4, 2, 2


class Page:
    """One proto file as Markdown; comments are found by their path in the descriptor."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }

    def lines(self) -> Iterator[str]:
        for number, service in enumerate(self._file.service):
            yield from self._title(2, service.name, (_SERVICE, number))
            yield from ("| call | request | response | |", "|---|---|---|---|")
            for index, method in enumerate(service.method):
                stream = "stream of " if method.server_streaming else ""
                answer = f"{stream}`{_short(method.output_type)}`"
                comment = self._comment(_SERVICE, number, _METHOD, index)
                yield f"| `{method.name}` | `{_short(method.input_type)}` | {answer} | {comment} |"
            yield ""
        for number, message in enumerate(self._file.message_type):
            yield from self._message(message, (_MESSAGE, number))
        for number, enum in enumerate(self._file.enum_type):
            yield from self._enum(2, enum.name, enum, (_ENUM, number))

    def _comment(self, *path: int) -> str:
        return _cell(self._comments.get(path, ""))

    def _title(self, level: int, name: str, path: tuple[int, ...]) -> Iterator[str]:
        yield from (f"{'#' * level} {name}", "", self._comments.get(path, ""), "")

    def _message(self, message: DescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield from self._title(2, message.name, path)
        if message.field:
            yield from ("| field | type | |", "|---|---|---|")
        for number, field in enumerate(message.field):
            yield f"| `{field.name}` | {_type(field, message)} | {self._comment(*path, _FIELD, number)} |"
        yield ""
        for number, enum in enumerate(message.enum_type):
            yield from self._enum(3, f"{message.name}.{enum.name}", enum, (*path, _NESTED_ENUM, number))

    def _enum(self, level: int, name: str, enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[str]:
        yield from self._title(level, name, path)
        yield from ("| value | |", "|---|---|")
        for number, value in enumerate(enum.value):
            yield f"| `{value.name}` | {self._comment(*path, _VALUE, number)} |"
        yield ""


def contract_files() -> Sequence[FileDescriptorProto]:
    """The contract and what it imports, with comments."""
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image.binpb"
        code = "import build, pathlib, sys; build.write_image(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, image], cwd=ROOT / "protos", check=True)
        files = FileDescriptorSet.FromString(image.read_bytes()).file
    # What the details of an error are, which no file of the contract imports.
    details = FileDescriptorProto.FromString(error_details_pb2.DESCRIPTOR.serialized_pb)
    return [*files, details]


def contract(files: Sequence[FileDescriptorProto]) -> str:
    """The page of all services and messages."""
    own = {Path(file.name).stem: file for file in files if file.package == "tunix_rt.v1"}
    if set(own) != set(FILES_IN_ORDER):
        sys.exit(f"FILES_IN_ORDER and the protos differ: {sorted(set(own) ^ set(FILES_IN_ORDER))}")
    lines = [NOTE, "# The contract: tunix_rt.v1", ""]
    for name in FILES_IN_ORDER:
        lines += Page(own[name]).lines()
    return _document(lines)


def command_line() -> str:
    """The page of all commands."""
    return _document([NOTE, "# The command line", "", *_command(typer.main.get_command(app), "tunix-rt")])


def _command(command: Any, path: str) -> Iterator[str]:
    context = typer.Context(command, info_name=path)
    yield from (f"## {path}", "", _plain(command.help or ""), "")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    if hasattr(command, "list_commands"):
        yield from (f"    {path} COMMAND ...", "")
    else:
        usage = " ".join([path, *(_metavar(one) for one in arguments), "[OPTIONS]"])
        yield from (f"    {usage}", "")
    if arguments or options:
        yield from ("| argument or option | default | |", "|---|---|---|")
    for one in arguments:
        yield f"| `{_metavar(one)}` | | {_cell(_plain(one.help or ''))} |"
    for one in options:
        names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
        yield f"| {names} | {_default(one)} | {_cell(_plain(one.help or ''))}{_choices(one)} |"
    yield ""
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from _command(command.get_command(context, name), f"{path} {name}")


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _choices(option: Any) -> str:
    annotation = option.type_descriptor.annotation
    if get_origin(annotation) is not Literal or option.default is None:
        return ""
    return f" One of {', '.join(f'`{choice}`' for choice in get_args(annotation))}."


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    shown = value is not None and value != "" and not isinstance(value, bool) and not callable(value)
    return f"`{value}`" if shown else ""


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    name = _short(field.type_name) or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    for nested in message.nested_type:
        if nested.options.map_entry and nested.name == name:
            key, value = (_type(part, nested) for part in nested.field)
            return f"map of {key} to {value}"
    several = field.label == FieldDescriptorProto.LABEL_REPEATED
    optional = "optional " if field.proto3_optional else ""
    return f"{'list of ' if several else optional}`{name}`"


def _short(name: str) -> str:
    return name.removeprefix(".").removeprefix("tunix_rt.v1.").removeprefix("google.protobuf.")


def _plain(text: str) -> str:
    """Help without the marks that rich reads."""
    return re.sub(r"\\\[", "[", " ".join(text.split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _document(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def loop_example(text: str) -> str:
    """The example with a line, in comments, for each setting of the contract that it does not show."""
    lines = text.splitlines()
    for section, settings in (("training", TrainingConfig), ("evaluation", DecodingSettings)):
        _complete(lines, 0, 0, section, settings)
    return "\n".join(lines) + "\n"


def _complete(lines: list[str], start: int, level: int, section: str, settings: type[BaseModel]) -> None:
    """Add missing settings to the end of the section that is named at ``level`` after line ``start``."""
    keys = [
        (number, len(found[1]) + len(found[3]), found[4], bool(found[2]))
        for number, line in enumerate(lines)
        if number >= start and (found := re.match(r"( *)(# )?( *)(\w+):", line))
    ]
    at, comment = next(
        (number, hidden) for number, depth, name, hidden in keys if (depth, name) == (level, section)
    )
    after = [number for number, depth, _, _ in keys if number > at and depth <= level]
    inside = [key for key in keys if key[0] > at and not (after and key[0] >= after[0])]
    shown = {name for _, depth, name, _ in inside if depth == level + 2}
    last = inside[-1][0]
    for name, field in settings.model_fields.items():
        part = model_in(field.annotation)
        if name not in shown:
            said = " ".join((field.description or "").replace("`", "").split())
            default = re.search(r"[Ll]eft out: (.+?)\.(?= |$)", said)
            margin = " " * level + "#   " if comment else " " * (level + 2) + "# "
            lines.insert(
                last + 1, f"{margin}{name}: {default[1] if default else 'null'}  # {said.partition('. ')[0]}"
            )
            last += 1
        elif part is not None:
            before = len(lines)
            _complete(lines, at, level + 2, name, part)
            last += len(lines) - before


def main() -> None:
    files = contract_files()
    written = {REFERENCE / "contract.md": contract(files), REFERENCE / "command-line.md": command_line()}
    written[EXAMPLE] = loop_example(EXAMPLE.read_text())
    schemas = json_schemas.documents(typer.main.get_command(app), files)
    written |= {SCHEMAS / name: text for name, text in schemas.items()}
    gone = [path for path in SCHEMAS.glob("*") if path not in written]
    if sys.argv[1:] == ["check"]:
        stale = [path.name for path, text in written.items() if not path.exists() or path.read_text() != text]
        if stale or gone:
            names = ", ".join([*stale, *(path.name for path in gone)])
            sys.exit(f"{names} not up to date; run python docs/generate.py")
        return
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for path in gone:
        path.unlink()
    for path, text in written.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
