"""Between the contract of supervision audits and the domain."""

from __future__ import annotations

from collections.abc import Iterable

from tunix_rt import v1
from tunix_rt_exporter.audits.service import AuditQuestion, StoredAudit
from tunix_rt_kit.loss_mask import SplitSupervision
from tunix_rt_kit.values import Progress
from tunix_rt_kit.values.messages import file_message, timestamp, to_message


def question(request: v1.AuditSupervisionRequest) -> AuditQuestion:
    """What a client asks, unchecked."""
    return AuditQuestion(
        dataset=request.name,
        base_model=request.base_model,
        tokenizer_digest=request.tokenizer.digest,
        max_length=request.max_length,
        packing_lengths=tuple(request.packing_lengths),
    )


def audit_response(dataset: str, part: Progress | StoredAudit) -> v1.AuditSupervisionResponse:
    """One message of a running audit."""
    if isinstance(part, Progress):
        return v1.AuditSupervisionResponse(progress=to_message(part, v1.Progress))
    return v1.AuditSupervisionResponse(audit=audit_message(dataset, part))


def audit_message(dataset: str, stored: StoredAudit) -> v1.SupervisionAudit:
    """An audit of the dataset of that name."""
    audit = stored.audit
    return v1.SupervisionAudit(
        name=f"{dataset}/supervisionAudits/{audit.audit_id}",
        dataset_digest=audit.dataset_digest,
        base_model=audit.base_model,
        tokenizer_digest=audit.tokenizer_digest,
        chat_template_digest=audit.chat_template_digest,
        max_length=audit.max_length,
        splits=[_split(split) for split in audit.splits],
        report=file_message(audit.report),
        create_time=timestamp(stored.create_time),
    )


def list_audits_response(
    parent: str, audits: Iterable[StoredAudit], next_page_token: str
) -> v1.ListSupervisionAuditsResponse:
    """One page."""
    return v1.ListSupervisionAuditsResponse(
        supervision_audits=[audit_message(parent, audit) for audit in audits], next_page_token=next_page_token
    )


def _split(split: SplitSupervision) -> v1.SplitSupervision:
    return v1.SplitSupervision(
        split=split.split,
        row_count=split.row_count,
        token_count=split.token_count,
        supervised_token_count=split.supervised_token_count,
        supervised_tokens=[v1.HistogramBin(**entry.model_dump()) for entry in split.supervised_tokens],
        truncated=v1.AuditedRows(**split.truncated.model_dump()),
        unsupervised=v1.AuditedRows(**split.unsupervised.model_dump()),
        end_unsupervised=v1.AuditedRows(**split.end_unsupervised.model_dump()),
        target_lost=v1.AuditedRows(**split.target_lost.model_dump()),
        special_token=v1.AuditedRows(**split.special_token.model_dump()),
        packing=[v1.PackingEfficiency(**entry.model_dump()) for entry in split.packing],
    )
