"""Between the protobuf contract of audits and the domain."""

from __future__ import annotations

from tunix_rt import v1
from tunix_rt_exporter.audits.service import AuditQuestion, ContaminationPart, StoredAudit
from tunix_rt_kit.convert import to_message
from tunix_rt_kit.values import Progress


def question(request: v1.AuditSupervisionRequest) -> AuditQuestion:
    """What a client asks, unchecked."""
    return AuditQuestion(
        dataset=request.name,
        base_model=request.base_model,
        tokenizer_digest=request.tokenizer.digest,
        max_length=request.max_length,
        packing_lengths=tuple(request.packing_lengths),
    )


def contamination_response(part: ContaminationPart) -> v1.AuditContaminationResponse:
    """What an audit found since the message before."""
    return v1.AuditContaminationResponse(
        rows=[
            v1.ContaminatedRow(
                row_id=row.row_id,
                split=row.split,
                eval_item=row.match.item,
                match=v1.ContaminatedRow.Match.Value(f"MATCH_{row.match.kind.name}"),
                matched_text=row.match.text,
            )
            for row in part.found
        ],
        compared_row_count=part.compared,
        total_row_count=part.total,
    )


def supervision_response(dataset: str, part: Progress | StoredAudit) -> v1.AuditSupervisionResponse:
    """One message of a running audit."""
    if isinstance(part, Progress):
        return v1.AuditSupervisionResponse(progress=to_message(part, v1.Progress))
    return v1.AuditSupervisionResponse(audit=audit_message(dataset, part))


def audit_message(dataset: str, stored: StoredAudit) -> v1.SupervisionAudit:
    """An audit of the dataset of that name."""
    name = f"{dataset}/supervisionAudits/{stored.audit.audit_id}"
    return to_message(stored.audit, v1.SupervisionAudit, name=name, create_time=stored.create_time)
