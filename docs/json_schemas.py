"""JSON Schemas of what commands write with `--json`: from the protos, their comments, and the commands."""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import typer
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from tunix_rt.cli.documents import STDERR, Extended, Lines, kind_name

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_INTEGERS = {
    FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_UINT32,
}  # fmt: skip
_PLAIN: dict[Any, Schema] = {
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptorProto.TYPE_UINT64: {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"},
    FieldDescriptorProto.TYPE_DOUBLE: {"$ref": "#/$defs/number"},
    FieldDescriptorProto.TYPE_FLOAT: {"$ref": "#/$defs/number"},
    **{kind: {"type": "integer"} for kind in _INTEGERS},
}
_NUMBER: Schema = {
    "description": "A number; one that is not finite is a string.",
    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}],
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
}
# What the details of an error are.
_DETAILS = {
    "google.rpc.ErrorInfo": "The cause of an error.",
    "google.rpc.BadRequest": "The fields of the input that are wrong.",
}
_MESSAGE, _ENUM, _FIELD, _NESTED, _NESTED_ENUM = 4, 5, 2, 3, 4


class Schemas:
    """Makes the schemas of documents.

    Args:
        files: the contract with what it imports, and with its comments.
    """

    def __init__(self, files: Sequence[FileDescriptorProto]) -> None:
        self._messages: dict[str, tuple[DescriptorProto, Comments]] = {}
        self._enums: dict[str, tuple[EnumDescriptorProto, str]] = {}
        for file in files:
            comments = Comments(file)
            for number, message in enumerate(file.message_type):
                self._add(f"{file.package}.{message.name}", message, comments.below(_MESSAGE, number))
            for number, enum in enumerate(file.enum_type):
                self._enums[f"{file.package}.{enum.name}"] = enum, comments.below(_ENUM, number).own()

    def _add(self, name: str, message: DescriptorProto, comments: Comments) -> None:
        self._messages[name] = message, comments
        for number, nested in enumerate(message.nested_type):
            self._add(f"{name}.{nested.name}", nested, comments.below(_NESTED, number))
        for number, enum in enumerate(message.enum_type):
            self._enums[f"{name}.{enum.name}"] = enum, comments.below(_NESTED_ENUM, number).own()

    def document(self, kind: Any) -> Schema:
        """The schema of one kind of document, which needs no other file."""
        found: Schema = {}
        schema = self._kind(kind, found)
        title = kind_name(kind).replace("-", " ")
        return {"$schema": DIALECT, "title": title, **schema, "$defs": dict(sorted(found.items()))}

    def _kind(self, kind: Any, found: Schema) -> Schema:
        """The schema of a value of this type. What it refers to comes into ``found``."""
        if get_origin(kind) is Annotated:
            inner, said = get_args(kind)
            return {**self._kind(inner, found), "description": said}
        if get_origin(kind) in (Union, types.UnionType):
            schemas = [self._kind(one, found) for one in get_args(kind) if one is not type(None)]
            null = [{"type": "null"}] if type(None) in get_args(kind) else []
            return _or_null(schemas[0]) if len(schemas) == 1 else {"anyOf": [*schemas, *null]}
        if get_origin(kind) is list:
            return {"type": "array", "items": self._kind(get_args(kind)[0], found)}
        if get_origin(kind) is dict:
            return {"type": "object", "additionalProperties": self._kind(get_args(kind)[1], found)}
        if get_origin(kind) is Literal:
            return {"enum": list(get_args(kind))}
        if isinstance(kind, Extended):
            return self._extended(kind, found)
        if is_typeddict(kind):
            return self._reference(kind_name(kind), found, lambda: self._typed(kind, found))
        if hasattr(kind, "DESCRIPTOR"):
            return self._message(kind.DESCRIPTOR.full_name, found)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [value.value for value in kind]}
        plain = {str: "string", bool: "boolean", int: "integer", float: "number"}
        return {} if kind is Any else {"type": plain[kind]}

    def _extended(self, kind: Extended, found: Schema) -> Schema:
        schema = dict(self._fields(kind.message.DESCRIPTOR.full_name, found))
        added = self._typed(kind.added, found)
        schema["properties"] = {**schema["properties"], **added["properties"]}
        schema["required"] = [*schema["required"], *added["required"]]
        return schema

    def _typed(self, kind: Any, found: Schema) -> Schema:
        hints = get_type_hints(kind, include_extras=True)
        properties = {
            name: self._kind(get_args(hint)[0] if get_origin(hint) is NotRequired else hint, found)
            for name, hint in hints.items()
        }
        # Annotations are texts, which the class's own set of required keys does not look into.
        required = [name for name, hint in hints.items() if get_origin(hint) is not NotRequired]
        return _object(" ".join((inspect.getdoc(kind) or "").split()), properties, required)

    def _reference(self, name: str, found: Schema, make: Any) -> Schema:
        if name not in found:
            # It may refer to itself.
            found[name] = {}
            found[name] = make()
        return {"$ref": f"#/$defs/{name}"}

    def _message(self, name: str, found: Schema) -> Schema:
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        if name == "google.protobuf.Any":
            return {"anyOf": [self._detail(detail, found) for detail in _DETAILS]}
        return self._reference(_short(name), found, lambda: self._fields(name, found))

    def _detail(self, name: str, found: Schema) -> Schema:
        fields = self._fields(name, found)
        mark = {"@type": {"const": f"type.googleapis.com/{name}"}}
        return _object(_DETAILS[name], mark | fields["properties"], ["@type", *fields["required"]])

    def _fields(self, name: str, found: Schema) -> Schema:
        message, comments = self._messages[name]
        properties, required = {}, []
        for number, field in enumerate(message.field):
            schema = self._field(field, message, found)
            if said := comments.below(_FIELD, number).own():
                schema["description"] = said
            properties[field.name] = schema
            if not _is_kind(field, message):
                required.append(field.name)
        return _object(comments.own(), properties, required)

    def _field(self, field: FieldDescriptorProto, message: DescriptorProto, found: Schema) -> Schema:
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                return {"type": "object", "additionalProperties": self._single(nested.field[1], found)}
        schema = self._single(field, found)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return {"type": "array", "items": schema}
        struct = field.type_name == ".google.protobuf.Struct"
        told = field.type == FieldDescriptorProto.TYPE_MESSAGE or field.HasField("oneof_index")
        return _or_null(schema) if told and not struct and not _is_kind(field, message) else schema

    def _single(self, field: FieldDescriptorProto, found: Schema) -> Schema:
        name = field.type_name.removeprefix(".")
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            return self._message(name, found)
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            return self._reference(_short(name), found, lambda: self._enum(name))
        if field.type in (FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_FLOAT):
            found["number"] = _NUMBER
        return dict(_PLAIN[field.type])

    def _enum(self, name: str) -> Schema:
        enum, said = self._enums[name]
        schema: Schema = {"enum": [value.name for value in enum.value]}
        return {"description": said, **schema} if said else schema


class Comments:
    """The comments of a file; of one place and of those inside it."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._texts: Mapping[tuple[int, ...], str] = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        self._path: tuple[int, ...] = ()

    def below(self, *path: int) -> Comments:
        """Those of a place inside this one."""
        inside = object.__new__(Comments)
        inside._texts, inside._path = self._texts, (*self._path, *path)
        return inside

    def own(self) -> str:
        """The comment of this place."""
        return self._texts.get(self._path, "")


def _object(said: str, properties: Schema, required: Sequence[str]) -> Schema:
    return {
        **({"description": said} if said else {}),
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else {}


def _is_kind(field: FieldDescriptorProto, message: DescriptorProto) -> bool:
    """Whether the field is one of several messages of which one is chosen: the others are absent."""
    if not field.HasField("oneof_index"):
        return False
    choice = [
        one for one in message.field if one.HasField("oneof_index") and one.oneof_index == field.oneof_index
    ]
    return len(choice) > 1 and all(one.type == FieldDescriptorProto.TYPE_MESSAGE for one in choice)


def _short(name: str) -> str:
    parts = name.removeprefix("tunix_rt.v1.").split(".")
    return "-".join(
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", part).lower() for part in parts if part != "google"
    )


def commands(root: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each command of the command line, and the kinds of what it writes with `--json`."""
    context = typer.Context(root, info_name="tunix-rt")
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from ((f"{name} {word}", kinds) for word, kinds in commands(command))
        else:
            yield name, command.callback.prints


def documents(root: Any, files: Sequence[FileDescriptorProto]) -> dict[str, str]:
    """The files of docs/reference/json by their names: a schema of each kind, and the table of commands."""
    schemas = Schemas(files)
    written: dict[str, str] = {}
    table = []
    for command, kinds in sorted(commands(root)):
        if not kinds:
            sys.exit(f"tunix-rt {command}: its @command lacks prints=KIND, which --json writes")
        table.append(f"| `{command}` | {_cell(kinds)} |")
        for kind in kinds:
            kind = kind.kind if isinstance(kind, Lines) else kind
            written[f"{kind_name(kind)}.json"] = _text(schemas.document(kind))
    for kind in STDERR:
        written[f"{kind_name(kind)}.json"] = _text(schemas.document(kind))
    return {**dict(sorted(written.items())), "README.md": "\n".join([*_HEAD, *table]) + "\n"}


_HEAD = (
    "<!-- Written by docs/generate.py; change the source instead. -->",
    "",
    "# What each command writes with --json",
    "",
    "One document on stdout, of a form that is named here, or lines where the command streams. The",
    "[guide](../../guide/programs.md) says how documents are written, and what stands on stderr.",
    "",
    "| command | document |",
    "|---|---|",
)


def _cell(kinds: Sequence[Any]) -> str:
    documents = [_link(kind) for kind in kinds if not isinstance(kind, Lines)]
    lines = [_link(kind.kind) for kind in kinds if isinstance(kind, Lines)]
    return ", ".join(
        [*documents, *([f"to stdout: JSON lines, each a {' or '.join(lines)}"] if lines else [])]
    )


def _link(kind: Any) -> str:
    return f"[{kind_name(kind)}]({kind_name(kind)}.json)"


def _text(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
