"""A loop's settings as messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from tunix_rt import v1
from tunix_rt.formats import read_marks
from tunix_rt.loop.config import DatasetConfig, EvaluationConfig, FilterConfig, LoopConfig, TrainingConfig
from tunix_rt.naming import reads_as_id

Filled = TypeVar("Filled", bound=Message)
Named = TypeVar("Named", v1.Dataset, v1.EvalSet, v1.TrainingJob, v1.Evaluation, v1.ComparisonReport)


def called(config: LoopConfig, resource: Named, name: str) -> tuple[Named, dict[str, Any]]:
    """What a resource of a loop is still to be called: it, and what else its update takes; nothing else where
    nothing changes.

    A name or a note that it has stays, and so do its tags; an empty ``name`` gives it none, nor does one that
    reads as an id.
    """
    changed = type(resource)(name=resource.name)
    mask: list[str] = []
    # The name of a loop may be of several lines.
    one_line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if one_line and not resource.display_name and not reads_as_id(one_line):
        changed.display_name = one_line
        mask.append("display_name")
    if config.note and not resource.note:
        changed.note = config.note
        mask.append("note")
    missing: list[str] = [tag for tag in config.tags if tag not in resource.tags]
    return changed, {"update_mask": mask, "add_tags": missing} if mask or missing else {}


def labels(enum: Any) -> dict[str, int]:
    """The numbers of an enum's values by what people write for them: TUNING_METHOD_LORA is `lora`."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values[1:]}


def filled(message: Filled, values: Mapping[str, Any]) -> Filled:
    """The message with these fields set: an enum by its label, a message by a mapping of its own fields.

    None leaves a field out; an empty mapping sets a message with nothing in it. Raises ValueError for a
    number that does not fit into its field.
    """
    for name, value in values.items():
        if value is None:
            continue
        field = message.DESCRIPTOR.fields_by_name[name]
        if isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            filled(getattr(message, name), value)
        elif isinstance(value, datetime):
            getattr(message, name).FromDatetime(value)
        elif isinstance(value, list | tuple):
            getattr(message, name).extend(value)
        elif field.enum_type is not None:
            setattr(message, name, labels(field.enum_type)[value.replace("-", "_")])
        else:
            setattr(message, name, value)
    return message


def trace_filter(config: FilterConfig) -> v1.TraceFilter:
    """Which traces."""
    equal: dict[str, Any] = config.metadata_equals
    there = config.metadata_exists
    message = v1.TraceFilter(
        metadata=[
            *(v1.MetadataCondition(key=key, equals=ParseDict(equal[key], Value())) for key in equal),
            *(v1.MetadataCondition(key=key, exists=there[key]) for key in there),
        ],
        scores=[v1.ScoreCondition(criterion=name, minimum=least) for name, least in config.scores.items()],
    )
    other = {"metadata_equals", "metadata_exists", "scores"}
    return filled(message, config.model_dump(exclude=other))


def dataset_spec(
    config: DatasetConfig, template: v1.ChatTemplate, special_tokens: Sequence[str], eval_sets: list[str]
) -> v1.DatasetSpec:
    """What to build; ``eval_sets`` are kept out of it besides those that the config names."""
    spec = v1.DatasetSpec(
        filter=None if config.filter is None else trace_filter(config.filter),
        splits=[
            v1.SplitFraction(split=split, fraction=fraction)
            for split, fraction in (config.splits or {}).items()
        ],
        chat_template=template,
        special_tokens=special_tokens,
        eval_sets=list(dict.fromkeys([*config.eval_sets, *eval_sets])),
    )
    return filled(
        spec,
        {
            "dataset_id": config.id,
            "selection": selection(config.latest, config.random),
            "decontamination": {"ngram_words": config.ngram_words},
            "deduplication": {"method": config.duplicates, "threshold": config.similarity},
            "split_group": split_group(config.group_by, config.keep_apart),
            "model_answers": "keep" if config.model_answers else None,
        }
        | config.model_dump(include=_SAME_NAMES),
    )


_SAME_NAMES = {
    "version",
    "as_of",
    "seed",
    "reasoning_style",
    "parent",
    "unwritable_rows",
    "train_on",
    "changed_history",
}


def selection(latest: int | None, random: int | None) -> dict[str, int] | None:
    """Fields of a Selection: the newest traces, or some chosen by the seed; None: all of them."""
    if latest is not None:
        return {"latest": latest}
    return None if random is None else {"random": random}


def split_group(metadata_field: str | None, keep_apart: float | None) -> dict[str, Any]:
    """Fields of a SplitGroup: which rows share a split."""
    key = {"metadata_field": metadata_field} if metadata_field else {"prompt": True}
    return {**key, "near_duplicate_threshold": keep_apart}


def training_spec(config: TrainingConfig, dataset: str) -> v1.TrainingSpec:
    """What to train on ``dataset``."""
    return filled(v1.TrainingSpec(dataset=dataset), config.model_dump())


def base_evaluation_spec(
    config: EvaluationConfig, eval_set: str, base_model: str, template: v1.ChatTemplate
) -> v1.EvaluationSpec:
    """The base evaluation: the base model, asked in the template that it will be trained with."""
    spec = v1.EvaluationSpec(eval_set=eval_set, base_model=base_model, chat_template=template)
    return _evaluation(spec, config)


def tuned_evaluation_spec(config: EvaluationConfig, eval_set: str, checkpoint: str) -> v1.EvaluationSpec:
    """The candidate evaluation, in the checkpoint's own template."""
    return _evaluation(v1.EvaluationSpec(eval_set=eval_set, checkpoint=checkpoint), config)


def _evaluation(spec: v1.EvaluationSpec, config: EvaluationConfig) -> v1.EvaluationSpec:
    if config.reasoning_marks is not None:
        spec.reasoning_marks.CopyFrom(read_marks(config.reasoning_marks))
    own = {"dtype", "fresh", "reasoning_marks"}
    decoding = config.model_dump(exclude=own)
    return filled(spec, {"decoding": decoding, "dtype": config.dtype, "fresh": config.fresh})
