# Generated from aio/loop/sources.py by `make proto`: change that one.
"""What goes into a loop: traces, chat template, questions; and the names that are made from it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.message import Message

from tunix_rt import v1
from tunix_rt.client import Client
from tunix_rt.errors import FailedPreconditionError, InvalidArgumentError
from tunix_rt.files import open_regular
from tunix_rt.formats import (
    BUILTIN,
    ItemReading,
    Lossy,
    eval_items_from_traces,
    read_eval_items,
    read_traces,
    trace_from_json,
)
from tunix_rt.formats.redacted import redacted_traces
from tunix_rt.generate import GeneratedTrace, generate_traces
from tunix_rt.loop.config import DatasetConfig, EvalSetConfig, GenerateConfig, TracesConfig
from tunix_rt.redaction import Redactor

# Of a file: what makes other traces of the same bytes.
_HOW_READ: Final = {"columns", "delimiter", "answers_only", "redact", "redact_skip"}


def traces_of(config: TracesConfig, redactor: Redactor | None = None) -> Iterator[v1.Trace]:
    """The traces that the loop begins with, without what ``redactor`` finds; raises FormatError or
    InvalidArgumentError."""
    if config.generate is not None:
        generated = _generated(config.generate, "traces.generate")
        return (trace_from_json(trace.to_json()) for trace in generated)
    if config.file is None:
        raise InvalidArgumentError("traces: give either file or generate", reason="CONFIG_INVALID")
    traces = read_traces(
        config.file,
        config.format,
        columns=config.columns,
        delimiter=config.delimiter,
        answers_only=config.answers_only,
    )
    return traces if redactor is None else redacted_traces(traces, redactor)


def import_key(config: TracesConfig) -> str:
    """Names what is imported by its content: the file's bytes, or what the generator is told."""
    if config.file is None:
        return digest_of(config.model_dump_json(include={"generate", "duplicates"}))
    try:
        # It is read again for the import.
        with open_regular(config.file) as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidArgumentError(
            f"traces.file {config.file}: cannot be read: {error.strerror or error}", reason="CONFIG_INVALID"
        ) from error
    # What is left out names nothing, so that loops of before go on.
    how = config.model_dump_json(include=_HOW_READ, exclude_defaults=True)
    return digest_of(content, config.format, config.duplicates, *([] if how == "{}" else [how]))


def chat_template(
    config: DatasetConfig, base_model: str, client: Client
) -> tuple[v1.ChatTemplate, Sequence[str]]:
    """The template of dataset, training and evaluations, and the texts that it forbids besides its own.

    Raises FailedPreconditionError if the base model's is wanted and not known, NotFoundError if there is no
    such model.
    """
    if config.chat_template != "model":
        template = v1.ChatTemplate(builtin=config.chat_template, system_instruction=config.system_instruction)
        return template, ()
    model = client.trainer.get_base_model(base_model)
    if model.HasField("chat_template"):
        template = v1.ChatTemplate()
        template.CopyFrom(model.chat_template)
        template.ClearField("digest")
        template.system_instruction = config.system_instruction
        return template, model.special_tokens
    raise FailedPreconditionError(
        f"dataset.chat_template is 'model', but the trainer has no chat template of {base_model!r}: "
        + (
            "it has none of its own; name gemma-it, chatml or llama-3"
            if model.available
            else f"fetch it with `tunix-rt models pull {base_model}`, or name gemma-it, chatml or llama-3"
        ),
        reason="CHAT_TEMPLATE_UNKNOWN",
    )


def eval_items(
    config: EvalSetConfig, client: Client, dataset: v1.Dataset | None, left_out: Lossy
) -> list[v1.EvalItem]:
    """The questions: rows of the held-out split of ``dataset``, or, without one, those from elsewhere.

    ``left_out`` takes which rows made no question.
    """
    if dataset is None:
        return items_from_elsewhere(config)
    split = config.held_out_split or ""
    rows = client.exporter.read_dataset(dataset.name, split, format=v1.DATASET_FORMAT_TRACE)
    traces = read_traces(io.BytesIO(rows), "dataset")
    items = eval_items_from_traces(traces, config.limit, config.grader, left_out)
    if not items:
        problem = f"split {split!r} of {dataset.name} has no rows to ask"
        raise FailedPreconditionError("; ".join([problem, *left_out.lines()]), reason="EVAL_SET_EMPTY")
    return items


def items_from_elsewhere(config: EvalSetConfig) -> list[v1.EvalItem]:
    """The items of the config's file or built-in set, or generated ones.

    Raises FormatError, or InvalidArgumentError for what cannot be generated.
    """
    if config.generate is not None:
        traces = _generated(config.generate, "eval_set.generate", config.generate.start)
        lines = "\n".join(json.dumps(trace.to_eval_item()) for trace in traces)
        return read_eval_items(io.BytesIO(lines.encode()), ItemReading("items"), config.limit)
    return read_eval_items(config.file or BUILTIN, _reading(config), config.limit)


def _reading(config: EvalSetConfig) -> ItemReading:
    return ItemReading(
        columns=config.columns,
        delimiter=config.delimiter,
        answer_separator=config.answer_separator,
        default_grader=config.grader,
    )


def eval_set_id(config: EvalSetConfig, dataset_id: str, items: Sequence[v1.EvalItem]) -> str:
    """The id that the config gives, or one that ends in digits made from the items: other items, other id."""
    if config.id:
        return config.id
    if config.builtin and config.limit is None and config.grader_file is None:
        return config.builtin
    behind = "generated" if config.generate else config.held_out_split
    stem = config.builtin or (config.file.stem if config.file else f"{dataset_id}-{behind}")
    slug = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:50] or "items"
    return f"{slug}-{digest_of(*(bytes_of(item) for item in items))[:8]}"


def bytes_of(message: Message) -> bytes:
    """The message encoded, the same for the same content."""
    return message.SerializeToString(deterministic=True)


def digest_of(*parts: bytes | str) -> str:
    """64 hex digits that name ``parts``; each goes in with its length, so that no two lists run together."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _generated(config: GenerateConfig, section: str, start: int = 0) -> Iterator[GeneratedTrace]:
    try:
        return generate_traces(
            config.count, config.seed, families=config.families, difficulty=config.difficulty, start=start
        )
    except ValueError as error:
        raise InvalidArgumentError(f"{section}: {error}", reason="CONFIG_INVALID") from error
