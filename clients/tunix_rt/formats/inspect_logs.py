"""Logs of Inspect AI: `.eval` archives and `.json`, of version 2 of the layout.

Each sample, of each epoch, is one conversation. The tools are those of its model calls, as far as the log has
them.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, cast

import ijson

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.compression import import_zstandard
from tunix_rt.formats.dialogue import Call, Dialogue, arguments_text, function_tool
from tunix_rt.formats.reading import OpenFile, Reading, Record

ZIP: Final = b"PK\x03\x04"
NAMES: Final = (b"_journal/start.json", b"header.json")
"""How archives begin, and what a log's holds, the one or the other."""
_SAMPLE: Final = re.compile(r"samples/[^/]+\.json")
_CHUNKED: Final = re.compile(r"samples/[^/]+/sample\.json")
_ATTACHED: Final = "attachment://"
# A sample with its events and attachments; a conversation of it has 1 MiB at most.
_MOST_BYTES: Final = 128 * 1024 * 1024
_MOST_RATIO: Final = 500
_MOST_ENTRIES: Final = 1_000_000
_ZSTANDARD: Final = 93
# The header before an entry; its last two fields are the lengths of what comes before the data.
_HEADER: Final = struct.Struct("<4s5H3L2H")


def read_log(file: OpenFile, reading: Reading) -> Iterator[Record]:
    """The samples of a log, one at a time, in either layout; raises FormatError as the two below do."""
    return _archive(file, reading) if file.head.startswith(ZIP) else _document(file, reading)


def _archive(file: OpenFile, reading: Reading) -> Iterator[Record]:
    """The samples of an `.eval` archive; raises FormatError for one that is none, or not to be trusted."""
    if not file.path:
        raise FormatError(
            0, "is a ZIP archive, which cannot be read from a pipe; give the file's name", file=file.name
        )
    try:
        with zipfile.ZipFile(file.path) as archive:
            yield from _samples(archive, file.name, reading)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        problem = f"is a damaged ZIP archive ({error}); was it copied while it was written?"
        raise FormatError(0, problem, file=file.name) from None


def _samples(archive: zipfile.ZipFile, file: str, reading: Reading) -> Iterator[Record]:
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(entries) > _MOST_ENTRIES:
        raise FormatError(0, f"is an archive of {len(entries):,} files; expected an Inspect log", file=file)
    if names.isdisjoint(name.decode() for name in NAMES):
        raise FormatError(
            0, "is a ZIP archive, but no log of Inspect AI's; unpack it, and give a file of it", file=file
        )
    for entry in entries:
        _check(entry, file)
    if "header.json" not in names:
        reading.lossy.add(
            "log of an evaluation that has not ended", "read as far as it goes", many="unfinished logs"
        )
    start = _load(archive, "header.json" if "header.json" in names else "_journal/start.json", file)
    samples = [entry.filename for entry in entries if _SAMPLE.fullmatch(entry.filename)]
    chunked = [entry.filename for entry in entries if _CHUNKED.fullmatch(entry.filename)]
    # A sample that was run again is there twice; the directory's last entry of a name counts.
    for number, name in enumerate(dict.fromkeys(samples + chunked), 1):
        try:
            sample = _load(archive, name, file)
            if name in chunked:
                sample = _whole(archive, name, sample, names, file)
            trace = _conversation(sample, _object(start.get("eval")), file, reading)
        except FormatError as error:
            yield Record(number, b"", None, error)
        else:
            yield Record(number, b"", trace, None)


def _check(entry: zipfile.ZipInfo, file: str) -> None:
    """Refuse what no log of Inspect's holds: links, paths out of it, and little that unpacks to much."""
    name, mode = entry.filename, entry.external_attr >> 16
    problem = ""
    if (mode & 0o170000) == 0o120000:
        problem = "is a link"
    elif name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
        problem = "lies outside of the archive"
    elif entry.flag_bits & 1:
        problem = "is encrypted"
    elif entry.file_size > 1 << 20 and entry.file_size > _MOST_RATIO * max(entry.compress_size, 1):
        problem = f"unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes"
    if problem:
        raise FormatError(0, f"holds {name[:80]!r}, which {problem}; nothing of it is read", file=file)


def _load(archive: zipfile.ZipFile, name: str, file: str) -> Any:
    entry = archive.getinfo(name)
    # Whatever the directory says of its size.
    if entry.compress_type == _ZSTANDARD:
        data = _unpacked(archive, entry, file)
    else:
        with archive.open(entry) as stream:
            data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise FormatError(0, f"holds {name[:80]!r}, which has more than {_MOST_BYTES:,} bytes", file=file)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(0, f"holds {name[:80]!r}, which is not JSON: {error}", file=file) from None


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: str) -> bytes:
    """What an entry holds that is compressed by Zstandard, as Inspect's are by now; Python's own reader of
    archives knows that from 3.14 on."""
    zstandard = import_zstandard(file)
    stream = cast("IO[bytes]", archive.fp)
    stream.seek(entry.header_offset)
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(ZIP):
        raise zipfile.BadZipFile(f"no entry at the place of {entry.filename[:80]!r}")
    name_length, extra_length = _HEADER.unpack(header)[-2:]
    stream.seek(name_length + extra_length, 1)
    packed = stream.read(entry.compress_size)
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            data = cast("bytes", reader.read(_MOST_BYTES + 1))
    except zstandard.ZstdError as error:
        raise zipfile.BadZipFile(f"{entry.filename[:80]!r}: {error}") from None
    if len(data) <= _MOST_BYTES and zlib.crc32(data) != entry.CRC:
        raise zipfile.BadZipFile(f"{entry.filename[:80]!r} differs from its checksum")
    return data


def _whole(archive: zipfile.ZipFile, name: str, shell: Any, names: set[str], file: str) -> dict[str, Any]:
    """A sample that is kept in pieces: its messages are ranges of a sequence, its long texts another one."""
    folder = name.removesuffix("sample.json")
    sample = dict(_object(shell))

    def sequence(kind: str) -> list[Any]:
        found = (entry.removeprefix(f"{folder}{kind}/").removesuffix(".json") for entry in names)
        starts = sorted(int(start) for start in found if start.isdigit())
        return [item for start in starts for item in _load(archive, f"{folder}{kind}/{start}.json", file)]

    pool = sequence("messages")
    ranges = sample.get("message_refs")
    try:
        sample["messages"] = [message for start, end in ranges or () for message in pool[start:end]]
    except (TypeError, ValueError):
        raise FormatError(0, f"holds {name[:80]!r}, whose message_refs are no ranges", file=file) from None
    sample["attachments"] = {str(number): text for number, text in enumerate(sequence("attachments"))}
    sample["events"] = sequence("events")
    return sample


def _document(file: OpenFile, reading: Reading) -> Iterator[Record]:
    """The samples of a log in `.json`, one at a time."""
    head = _facts(file.head)
    number = 0
    try:
        for sample in ijson.items(file.stream, "samples.item", use_float=True):
            number += 1
            try:
                trace = _conversation(sample, head, file.name, reading)
            except FormatError as error:
                yield Record(number, b"", None, error)
            else:
                yield Record(number, b"", trace, None)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        told = str(error).splitlines()[0]
        raise FormatError(0, f"is not JSON behind its sample {number:,}: {told}", file=file.name) from None


def _facts(head: bytes) -> dict[str, Any]:
    """What the beginning of a log says of its evaluation."""
    facts: dict[str, Any] = {}
    try:
        for prefix, event, value in ijson.parse(head, use_float=True):
            if prefix in ("eval.task", "eval.model", "eval.run_id") and event == "string":
                facts[prefix.removeprefix("eval.")] = value
    except (ijson.JSONError, UnicodeDecodeError):
        pass
    return facts


def _conversation(sample: Any, evaluation: Mapping[str, Any], file: str, reading: Reading) -> v1.Trace:
    sample = _object(sample)
    name = f"{sample.get('id')}, epoch {sample.get('epoch', 1)}"
    # It is named by its id: samples are not on lines.
    dialogue = Dialogue(reading, f"sample {name[:80]}", 0, file)
    attachments = _object(sample.get("attachments"))
    messages = sample.get("messages")
    if not isinstance(messages, list):
        raise dialogue.wrong("has no messages")
    for message in messages:
        _message(_object(message), attachments, dialogue)
    scores = {
        scorer: score.get("value")
        for scorer, score in _object(sample.get("scores")).items()
        if isinstance(score, dict)
    }
    target = sample.get("target")
    return dialogue.trace(
        tools=_tools(sample.get("events")),
        source=_text(evaluation.get("task")) or "inspect",
        metadata={
            "sample": str(sample.get("id")),
            "epoch": sample.get("epoch"),
            "target": target,
            "scores": scores,
            "model": _text(evaluation.get("model")),
            "run_id": _text(evaluation.get("run_id")),
        },
    )


def _message(message: Mapping[str, Any], attachments: Mapping[str, Any], dialogue: Dialogue) -> None:
    role = message.get("role")
    text, thoughts = _content(message.get("content"), attachments, dialogue)
    if role in ("system", "user"):
        dialogue.say(role, text)
    elif role == "assistant":
        calls = message.get("tool_calls")
        made = (
            [_call(call, attachments, dialogue) for call in calls if isinstance(call, dict)]
            if isinstance(calls, list)
            else []
        )
        dialogue.answer(text, thoughts, made)
    elif role == "tool":
        error = _text(_object(message.get("error")).get("message"))
        name = _text(message.get("function"))
        dialogue.result(_text(message.get("tool_call_id")), text or error, name)
    else:
        raise dialogue.wrong(f"has a message of role {str(role)[:40]!r}")


def _call(call: Mapping[str, Any], attachments: Mapping[str, Any], dialogue: Dialogue) -> Call:
    # Before 0.3.80 a call had `function` and `type`; the name was always the former.
    if call.get("parse_error") and not call.get("arguments"):
        what = "that Inspect could not read and the log does not hold"
        dialogue.left_out(f"argument text {what},", many=f"argument texts {what},")
        return Call(_text(call.get("id")), _text(call.get("function")), "{}")
    given = call.get("arguments")
    whole = (
        {key: _attached(value, attachments) for key, value in given.items()}
        if isinstance(given, dict)
        else given
    )
    return Call(_text(call.get("id")), _text(call.get("function")), arguments_text(whole))


def _content(content: Any, attachments: Mapping[str, Any], dialogue: Dialogue) -> tuple[str, str]:
    """The text of a message, and what was thought."""
    if isinstance(content, str):
        return _attached(content, attachments), ""
    texts, thoughts = [], []
    for part in content if isinstance(content, list) else ():
        part = _object(part)
        kind = part.get("type")
        if kind == "text":
            texts.append(_attached(_text(part.get("text")), attachments))
        elif kind == "reasoning":
            thought = part.get("summary") if part.get("redacted") else part.get("reasoning")
            if _text(thought):
                thoughts.append(_attached(thought, attachments))
            else:
                dialogue.left_out("encrypted thought")
        elif kind in ("image", "audio", "video", "document"):
            texts.append(dialogue.media(str(kind)))
        else:
            dialogue.left_out(f"part {str(kind)[:40]!r}")
    return "\n".join(texts), "\n\n".join(thoughts)


def _attached(value: Any, attachments: Mapping[str, Any]) -> Any:
    """A long text stands once in a sample, and elsewhere by its name."""
    if isinstance(value, str) and value.startswith(_ATTACHED):
        found = attachments.get(value.removeprefix(_ATTACHED))
        return found if isinstance(found, str) else value
    return value


def _tools(events: Any) -> list[dict[str, Any]]:
    found = []
    for event in events if isinstance(events, list) else ():
        event = _object(event)
        tools = event.get("tools") if event.get("event") == "model" else None
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and _text(tool.get("name")):
                description = _text(tool.get("description"))
                found.append(function_tool(tool["name"], description, tool.get("parameters")))
    return found


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
