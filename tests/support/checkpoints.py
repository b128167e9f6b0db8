"""Checkpoints of a trainer that a test made up, for tests of the evaluator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_status import rpc_status

from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import NotFound
from tunix_rt_kit.serving.calls import status_of

CHATML = ChatTemplate.built_in("chatml")


class FakeTrainer(v1.TrainerServicer):
    """Serves the checkpoints that were put into ``checkpoints``; their files lie in the artifact store."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = ArtifactStore(artifacts)
        self.checkpoints: dict[str, v1.Checkpoint] = {}

    def add(
        self,
        step: int,
        *,
        weights: Path | None = None,
        base_model: str = "tiny",
        base_weights_digest: str = "sha256:w",
        template: ChatTemplate = CHATML,
        losses: tuple[float, ...] = (3.0, 2.0, 1.5),
        manifest: bytes = b"{}",
        ledger: bytes | None = None,
    ) -> str:
        """Add a checkpoint with the files of the folder ``weights`` (or some bytes), and return its name."""
        name = f"trainingJobs/job/checkpoints/{step}"
        files = ("adapter_config.json", "adapter_model.safetensors")
        contents = {file: f"{file} {step}".encode() for file in files}
        if weights is not None:
            contents = {file.name: file.read_bytes() for file in weights.iterdir()}
        contents["metrics.jsonl"] = b"".join(
            json.dumps(
                {
                    "step": number,
                    "loss": loss,
                    "learning_rate": 0.001,
                    "grad_norm": 1.0,
                    "supervised_tokens": 10,
                    "tokens": 20,
                    "validation_loss": 1.25 if number == len(losses) else None,
                }
            ).encode()
            + b"\n"
            for number, loss in enumerate(losses, start=1)
        )
        if ledger is not None:
            contents["ledger.jsonl"] = ledger
        stored = [self._file(path, data) for path, data in contents.items()]
        message = v1.ChatTemplate(
            bos_token=template.bos_token,
            eos_token=template.eos_token,
            system_instruction=template.system_instruction,
            digest=template.digest,
        )
        if template.builtin is not None:
            message.builtin = template.builtin
        else:
            message.jinja = template.jinja or ""
        self.checkpoints[name] = v1.Checkpoint(
            name=name,
            step=step,
            digest=digest_json({"step": step}),
            files=stored,
            manifest=v1.TrainingManifest(
                training_job="trainingJobs/job",
                spec=v1.TrainingSpec(base_model=base_model, dataset="datasets/d@1"),
                dataset_digest="sha256:d",
                base_weights_digest=base_weights_digest,
                chat_template_digest=template.digest,
            ),
            manifest_file=self._file("manifest.json", manifest),
            chat_template=message,
        )
        return name

    def GetCheckpoint(self, request: v1.GetCheckpointRequest, context: Any) -> v1.Checkpoint:
        known = self.checkpoints.get(request.name)
        if known is None:
            error = NotFound(f"name: {request.name} does not exist", reason="CHECKPOINT_NOT_FOUND")
            context.abort_with_status(rpc_status.to_status(status_of(error)))
        assert known is not None
        return known

    def _file(self, path: str, data: bytes) -> v1.ArtifactFile:
        artifact = self.artifacts.put_bytes(data)
        return v1.ArtifactFile(path=path, size_bytes=artifact.size, digest=artifact.digest, uri=artifact.uri)


@contextmanager
def training(artifacts: Path) -> Iterator[tuple[FakeTrainer, str]]:
    """A trainer on a server of its own, and its address."""
    fake = FakeTrainer(artifacts)

    def add(server: grpc.Server) -> None:
        v1.add_TrainerServicer_to_server(fake, server)

    with fake_server(add) as address:
        yield fake, address
