"""What a file is that is none of those that can be read, and what to do with it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from tunix_rt.errors import FormatError

EXPECTED: Final = "expected JSON lines, CSV, TSV or Parquet"
_AS_PARQUET: Final = f"{EXPECTED}: write it as one of these, such as with pandas"
# How files begin, and what their owner can do.
_KINDS: Final = (
    (b"%PDF", f"is a PDF; {EXPECTED}"),
    (b"PK\x03\x04", f"is a ZIP archive; unpack it, and give a file of it ({EXPECTED})"),
    (b"\xd0\xcf\x11\xe0", "is an old Office document; save an Excel sheet as CSV (UTF-8), and give that"),
    (b"BZh", "is compressed by bzip2, where gzip and Zstandard are read: pipe `bzip2 -dc FILE` into FILE -"),
    (b"\xfd7zXZ\0", "is compressed by xz, where gzip and Zstandard are read: pipe `xz -dc FILE` into FILE -"),
    (b"7z\xbc\xaf\x27\x1c", f"is a 7z archive; unpack it, and give a file of it ({EXPECTED})"),
    (b"ARROW1", f"is an Arrow file; {_AS_PARQUET}"),
    (b"SQLite format 3\0", f"is an SQLite database; {EXPECTED}: write a table of it as CSV"),
    (b"\x89HDF", f"is an HDF5 file; {_AS_PARQUET}"),
    (b"\x93NUMPY", f"is a NumPy array; {_AS_PARQUET}"),
    (b"Obj\x01", f"is an Avro file; {_AS_PARQUET}"),
    (b"ORC", f"is an ORC file; {_AS_PARQUET}"),
    (b"GGUF", "is a model, not data; `tunix-rt models list` shows how models are named"),
    (b"\x89PNG", f"is an image; {EXPECTED}"),
    (b"\xff\xd8\xff", f"is an image; {EXPECTED}"),
    (b"<!DOCTYPE", f"is a web page; {EXPECTED} (was the download a page that asks for a login?)"),
    (b"<html", f"is a web page; {EXPECTED} (was the download a page that asks for a login?)"),
    (b"<?xml", f"is XML; {EXPECTED}"),
)
_OFFICE: Final = {
    ".xlsx": "is an Excel workbook; save the sheet as CSV (UTF-8), and give that",
    ".xlsm": "is an Excel workbook; save the sheet as CSV (UTF-8), and give that",
    ".ods": "is a spreadsheet; save the sheet as CSV (UTF-8), and give that",
    ".docx": f"is a Word document; {EXPECTED}",
    ".npz": f"is a NumPy archive; {_AS_PARQUET}",
    ".pt": "is a model or a pickle of PyTorch; nothing pickled is read",
}
_TAR_MARK: Final = slice(257, 262)
# Byte values of which a text holds none.
_BINARY: Final = frozenset(range(9)) | frozenset(range(14, 27)) | frozenset(range(28, 32))
_READABLE: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_NAMED: Final = 3
_NATIVE: Final = {"prompt", "metadata", "source", "trace_version", "name", "content_digest", "sequence"}


def check_kind(beginning: bytes, file: str) -> None:
    """Refuse what is no text, by its first bytes, and say what it is; raises FormatError."""
    office = _OFFICE.get(Path(file).suffix.lower())
    for mark, problem in _KINDS:
        if beginning.startswith(mark):
            raise FormatError(0, office if office and mark == b"PK\x03\x04" else problem, file=file)
    if beginning[_TAR_MARK] == b"ustar":
        raise FormatError(0, f"is a tar archive; unpack it, and give a file of it ({EXPECTED})", file=file)
    if _BINARY & set(beginning[:64]):
        raise FormatError(0, f"is no text; {EXPECTED}", file=file)


def folder_refusal(path: str) -> FormatError:
    """The error for a folder where a file was meant; it names what there is to give."""
    try:
        names = sorted(entry.name for entry in Path(path).iterdir())
    except OSError:
        names = []
    if "config.json" in names:
        return FormatError(0, "is the folder of a model, where data was meant", file=path)
    found = [name for name in names if _readable(name)]
    shown = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    there = f"in it are {shown}" if found else f"in it is none that can be read ({EXPECTED})"
    return FormatError(0, f"is a folder; give a file: {there}", file=path)


def _readable(name: str) -> bool:
    plain = name.lower().removesuffix(".gz").removesuffix(".zst")
    return plain.endswith(_READABLE)


def hint_for_traces(keys: Collection[str]) -> str:
    """What takes lines with these keys, for `traces import`; empty if nothing is known to."""
    there = set(keys)
    if there & {"accepted_answers", "grader"} and not there & {"steps", "trace_steps"}:
        return "these are items of an eval set, which `tunix-rt evalset import ID FILE` takes"
    if {"prompt", "chosen"} <= there:
        return (
            "these are preferences; to learn the chosen answers: --format prompt-completion "
            "--column completion=chosen"
        )
    if there == {"text"}:
        return "a text alone has no question and no answer, so that nothing takes it"
    if there - _NATIVE and len(there) > 1:
        return (
            "a question and its answer under other keys: --format prompt-completion --column prompt=KEY "
            "--column completion=KEY"
        )
    return ""


def hint_for_items(keys: Collection[str]) -> str:
    """What takes lines with these keys, for `evalset import`; empty if they may be eval items."""
    there = set(keys)
    if there & {"accepted_answers", "grader"}:
        return ""
    for marks, format_ in (
        ({"steps", "final_answer"}, "native"),
        ({"prompts", "trace_steps"}, "dataset"),
        ({"messages"}, "chat"),
        ({"conversations"}, "chat"),
        ({"question", "answer"}, "gsm8k (where answers end in `#### N`) or prompt-completion"),
        ({"prompt", "completion"}, "prompt-completion"),
    ):
        if marks <= there:
            return f"holds no eval items, but their answers can be the accepted ones: --format {format_}"
    if "prompt" not in there and len(there) > 1:
        return (
            "holds no eval items; questions and answers under other keys: --format prompt-completion "
            "--column prompt=KEY --column accepted_answers=KEY"
        )
    return ""
