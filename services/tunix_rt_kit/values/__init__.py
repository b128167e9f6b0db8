"""Values that several services share, each defined once; ``messages`` turns them into protobuf and back."""

from tunix_rt_kit.values.model import (
    NO_REQUEST_ID,
    AskedDtype,
    ChatTemplateFields,
    JobError,
    JobState,
    Page,
    Progress,
    RequestKey,
    Seed,
    StageTiming,
    StoredFile,
    Value,
)

__all__ = [
    "NO_REQUEST_ID",
    "AskedDtype",
    "ChatTemplateFields",
    "JobError",
    "JobState",
    "Page",
    "Progress",
    "RequestKey",
    "Seed",
    "StageTiming",
    "StoredFile",
    "Value",
]
