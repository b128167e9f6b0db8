"""Alpaca's lines: an instruction, what it is about, and the output; with earlier turns if there are any."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.formats import rows
from tunix_rt.formats.chat import chat_of
from tunix_rt.formats.lines import object_of
from tunix_rt.formats.reading import Builder, Reading

KEYS: Final = {"instruction", "output"}
_KNOWN: Final = {*KEYS, "input", "history"}


def alpaca_reader(reading: Reading) -> Builder:
    """What makes traces of Alpaca's lines."""
    return partial(alpaca, reading=reading)


def alpaca(line: bytes, number: int, file: str, *, reading: Reading) -> v1.Trace:
    """One line; ``input`` follows ``instruction`` on a line of its own. Raises FormatError."""
    row = object_of(line, number, file)

    def text(value: Any, field: str, *, may_lack: bool = False) -> str:
        if value is None and may_lack:
            return ""
        if not isinstance(value, str):
            raise rows.wrong(field, "is missing" if value is None else "is no string", number, file)
        return value

    said = [text(row.get("instruction"), "instruction", may_lack=bool(row.get("input")))]
    said.append(text(row.get("input"), "input", may_lack=True))
    question = "\n".join(part for part in said if part.strip())
    texts = [*_history(row, number, file), ("instruction", question)]
    texts.append(("output", text(row.get("output"), "output")))
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if index % 2 else "user", "content": said}
        for index, (_, said) in enumerate(texts)
    ]
    named = {f"messages[{index}]": field for index, (field, _) in enumerate(texts)}
    document = {"messages": messages}
    if row.get("system"):
        # As a message, for it belongs to what the model is shown.
        messages.insert(0, {"role": "system", "content": text(row["system"], "system")})
        named = {"messages[0]": "system"} | {
            f"messages[{index + 1}]": field for index, (field, _) in enumerate(texts)
        }
    rest = {key: value for key, value in row.items() if key not in {*_KNOWN, "system"}}
    made = rest | document
    return chat_of(made, rows.encoded(made), number, file, reading, named)


def _history(row: Mapping[str, Any], number: int, file: str) -> list[tuple[str, str]]:
    """The earlier turns, each a question and its answer, with the field that each text stands in."""
    history = row.get("history") or []
    texts = []
    for index, pair in enumerate(history if isinstance(history, list) else [None]):
        whole = isinstance(pair, list | tuple) and len(pair) == len(KEYS)
        if not whole or not all(isinstance(text, str) for text in pair):
            raise rows.wrong(
                f"history[{index}]", "is no pair of a question and its answer, both texts", number, file
            )
        texts += [(f"history[{index}][{at}]", text) for at, text in enumerate(pair)]
    return texts
