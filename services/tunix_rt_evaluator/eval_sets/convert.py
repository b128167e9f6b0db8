"""Eval sets between the protobuf contract and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunix_rt import v1
from tunix_rt_evaluator.eval_sets.model import EvalItem, EvalSet, EvalSetDraft, eval_set_name
from tunix_rt_evaluator.grading.convert import grader_fields, grader_message
from tunix_rt_kit.convert import plain_struct, to_message


def eval_set_draft(eval_set: v1.EvalSet) -> EvalSetDraft:
    """What a client wrote, unchecked."""
    return EvalSetDraft(
        id=eval_set.eval_set_id,
        description=eval_set.description,
        items=[_item_fields(item) for item in eval_set.items],
        size_bytes=eval_set.ByteSize(),
    )


def eval_set_message(eval_set: EvalSet) -> v1.EvalSet:
    """A stored eval set, with its items where it holds them."""
    items = [_item(item) for item in eval_set.items or ()]
    name = eval_set_name(eval_set.id)
    return to_message(eval_set, v1.EvalSet, name=name, eval_set_id=eval_set.id, items=items)


def eval_set_page(eval_sets: Iterable[EvalSet], next_page_token: str) -> v1.ListEvalSetsResponse:
    """One page."""
    return v1.ListEvalSetsResponse(
        eval_sets=map(eval_set_message, eval_sets), next_page_token=next_page_token
    )


def _item_fields(item: v1.EvalItem) -> Mapping[str, Any]:
    return {
        "id": item.id,
        "prompt": item.prompt,
        "accepted_answers": tuple(item.accepted_answers),
        "grader": grader_fields(item.grader) if item.HasField("grader") else None,
        "category": item.category,
        "difficulty": item.difficulty,
        "cluster": item.cluster,
        "metadata": plain_struct(item.metadata),
    }


def _item(item: EvalItem) -> v1.EvalItem:
    message = to_message(item, v1.EvalItem, unset=["metadata"], grader=grader_message(item.grader))
    if item.metadata:
        message.metadata.update(dict(item.metadata))
    return message
