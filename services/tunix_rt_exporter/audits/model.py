"""What audits of a complete dataset ask and find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tunix_rt_exporter.datasets.decontaminate import EvalMatch
from tunix_rt_kit.loss_mask import SplitSupervision
from tunix_rt_kit.values import StoredFile, Value


@dataclass(frozen=True, slots=True)
class ContaminatedRow:
    """A row that contains an item of an eval set, and the split that it is in."""

    row_id: str
    split: str
    match: EvalMatch


@dataclass(frozen=True, slots=True)
class ContaminationPart:
    """What was found since the part before, and how many of all the rows were compared so far."""

    found: Sequence[ContaminatedRow]
    compared: int
    total: int


class AuditQuestion(Value):
    """What an audit of a dataset's loss mask is to find out.

    ``tokenizer_digest`` is that of a tokenizer.json in the artifact store. 0 and an empty tuple stand for the
    defaults until the question is checked.
    """

    dataset: str
    base_model: str
    tokenizer_digest: str
    max_length: int = 0
    packing_lengths: tuple[int, ...] = ()


class SupervisionAudit(Value):
    """The answer. ``audit_id`` is made of the question, so the same question has the same id."""

    audit_id: str
    dataset_digest: str
    base_model: str
    tokenizer_digest: str
    chat_template_digest: str
    max_length: int
    splits: tuple[SplitSupervision, ...]
    report: StoredFile


@dataclass(frozen=True, slots=True)
class StoredAudit:
    """An audit as it is kept; ``number`` is its place in lists."""

    number: int
    create_time: datetime
    audit: SupervisionAudit
