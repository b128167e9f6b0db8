"""Datasets of an exporter that a test made up, for tests of the trainer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError, NotFound
from tunix_rt_kit.loss_mask import ExampleEncoder, SplitAudit, SplitSupervision
from tunix_rt_kit.models.tokenizer import parse_tokenizer
from tunix_rt_kit.serving.calls import status_of

CHATML = ChatTemplate.built_in("chatml")


def rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Training examples about small sums, rendered as ChatML."""
    made = []
    for number in range(start, start + count):
        left, right = number % 7, number % 5
        made.append(
            {
                "id": digest_bytes(str(number).encode()).removeprefix("sha256:"),
                "prompt": f"<|im_start|>user\n{left}+{right}=?<|im_end|>\n<|im_start|>assistant\n",
                "response": f"Answer: {left + right}<|im_end|>\n",
                "metadata": {"number": number},
            }
        )
    return made


def write_rows(path: Path, examples: Sequence[dict[str, Any]]) -> str:
    """Write examples as JSON lines and return the digest of the file."""
    data = "".join(json.dumps(row) + "\n" for row in examples).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest_bytes(data)


class FakeExporter(v1.ExporterServicer):
    """Serves the datasets that were put into ``datasets``, and counts how often it was asked."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = ArtifactStore(artifacts)
        self.datasets: dict[str, v1.Dataset] = {}
        self.calls = 0
        self.audit_pause_s = 0.0
        self.audits: list[v1.AuditSupervisionRequest] = []
        self.faults_of_roles: dict[str, v1.AuditedRows] = {}

    def add(
        self,
        version: str = "1",
        *,
        state: v1.Dataset.State.ValueType = v1.Dataset.STATE_SUCCEEDED,
        template: ChatTemplate = CHATML,
        **splits: Sequence[dict[str, Any]],
    ) -> str:
        """Put a dataset ``datasets/sums@<version>`` there and return its name."""
        name = f"datasets/sums@{version}"
        message = v1.ChatTemplate(**template.model_dump(exclude_none=True), digest=template.digest)
        self.datasets[name] = v1.Dataset(
            name=name,
            spec=v1.DatasetSpec(dataset_id="sums", version=version, chat_template=message),
            state=state,
            digest=digest_bytes(name.encode()),
            splits=[self._split(split, examples) for split, examples in splits.items()],
        )
        return name

    def GetDataset(self, request: v1.GetDatasetRequest, context: grpc.ServicerContext) -> v1.Dataset:
        self.calls += 1
        if request.name not in self.datasets:
            _abort(context, NotFound(f"name: {request.name} does not exist", reason="DATASET_NOT_FOUND"))
        return self.datasets[request.name]

    def AuditSupervision(
        self, request: v1.AuditSupervisionRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.AuditSupervisionResponse]:
        self.audits.append(request)
        time.sleep(self.audit_pause_s)
        splits = []
        try:
            tokenizer = parse_tokenizer(self.artifacts.read_bytes(request.tokenizer.digest))
            end_id = tokenizer.token_id("<|im_end|>")
            assert end_id is not None
            for split in self.datasets[request.name].splits:
                audit = SplitAudit(split.split, max_length=request.max_length, end_id=end_id)
                (file,) = [f.file for f in split.files if f.format == v1.DATASET_FORMAT_TRAINING_EXAMPLE]
                encoder = ExampleEncoder(tokenizer, CHATML.frame)
                for done in audit.read(self.artifacts.iter_lines(file.digest), file.path, encoder):
                    yield v1.AuditSupervisionResponse(progress=v1.Progress(completed=done))
                found = _supervision(audit.result([request.max_length]))
                splits.append(v1.SplitSupervision(**self.faults_of_roles))
                splits[-1].MergeFrom(found)
        except DomainError as error:
            _abort(context, error)
        yield v1.AuditSupervisionResponse(audit=v1.SupervisionAudit(splits=splits))

    def _split(self, split: str, examples: Sequence[dict[str, Any]]) -> v1.DatasetSplit:
        data = "".join(json.dumps(row) + "\n" for row in examples).encode()
        stored = self.artifacts.put_bytes(data)
        file = v1.ArtifactFile(
            path=f"{split}.jsonl", size_bytes=stored.size, digest=stored.digest, uri=stored.uri
        )
        other = v1.ArtifactFile(path=f"{split}.trace.jsonl", digest=digest_bytes(b"another format"))
        return v1.DatasetSplit(
            split=split,
            row_count=len(examples),
            files=[
                v1.DatasetFile(format=v1.DATASET_FORMAT_TRACE, file=other),
                v1.DatasetFile(format=v1.DATASET_FORMAT_TRAINING_EXAMPLE, file=file),
            ],
        )


def _abort(context: grpc.ServicerContext, error: DomainError) -> None:
    status: status_pb2.Status = status_of(error)
    context.abort_with_status(rpc_status.to_status(status))


def _supervision(found: SplitSupervision) -> v1.SplitSupervision:
    return v1.SplitSupervision(
        split=found.split,
        row_count=found.row_count,
        token_count=found.token_count,
        supervised_token_count=found.supervised_token_count,
        packing=[v1.PackingEfficiency(**entry.model_dump()) for entry in found.packing],
        truncated=v1.AuditedRows(**found.truncated.model_dump()),
        unsupervised=v1.AuditedRows(**found.unsupervised.model_dump()),
        end_unsupervised=v1.AuditedRows(**found.end_unsupervised.model_dump()),
        target_lost=v1.AuditedRows(**found.target_lost.model_dump()),
        special_token=v1.AuditedRows(**found.special_token.model_dump()),
    )


@contextmanager
def exporting(artifacts: Path) -> Iterator[tuple[FakeExporter, str]]:
    """A fake exporter that writes to the artifact store ``artifacts``, and its address."""
    exporter = FakeExporter(artifacts)
    with fake_server(lambda server: v1.add_ExporterServicer_to_server(exporter, server)) as address:
        yield exporter, address
