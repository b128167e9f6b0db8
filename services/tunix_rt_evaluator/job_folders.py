"""The folder of an evaluation's child process: the weights it loads, and the events it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tunix_rt_evaluator.model import (
    CheckpointInput,
    EvalItem,
    Evaluation,
    WorkerItem,
    WorkerSpec,
)
from tunix_rt_evaluator.names import evaluation_name
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.jobs import WorkerProcess

WORKER_MODULE: Final = "tunix_rt_evaluator.worker"
_ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_MODEL_FILES: Final = ("config.json",)
_RECORDS: Final = ("ledger.jsonl", "metrics.jsonl")
_CHECKPOINT: Final = "checkpoint"


class JobFolders:
    """The folders of all evaluations, ``<root>/<evaluation id>``.

    Args:
        root: made when the first evaluation needs it.
        artifacts: where checkpoints come from.
        models_dir: folder of the base models.
        environment: added to a child's environment.
        code_revision: for manifests.
    """

    def __init__(
        self,
        root: Path,
        artifacts: ArtifactStore,
        *,
        models_dir: Path,
        environment: Mapping[str, str],
        code_revision: str,
    ) -> None:
        self._root = root
        self._artifacts = artifacts
        self._models_dir = models_dir
        self._environment = dict(environment)
        self._code_revision = code_revision

    def process(self, evaluation_id: str) -> WorkerProcess:
        """The child of an evaluation, not started."""
        return WorkerProcess(WORKER_MODULE, self._root / evaluation_id, env=self._environment)

    def prepare(self, evaluation: Evaluation, items: Sequence[EvalItem], attempt: int) -> WorkerSpec:
        """Put the checkpoint into the evaluation's folder and tell what its child is to do.

        Raises:
            DataLoss: a file of the checkpoint is missing or damaged.
            DomainError: the folder cannot be written.
        """
        checkpoint = evaluation.inputs.checkpoint
        if checkpoint is not None:
            self._place(checkpoint, self._root / evaluation.id / _CHECKPOINT)
        return WorkerSpec(
            evaluation=evaluation_name(evaluation.id),
            attempt=attempt,
            base_model=evaluation.inputs.base_model,
            models_dir=str(self._models_dir),
            checkpoint_dir=_CHECKPOINT if checkpoint else None,
            base_weights_digest=checkpoint.base_weights_digest if checkpoint else None,
            chat_template=evaluation.spec.chat_template,
            decoding=evaluation.spec.decoding,
            dtype=evaluation.spec.dtype,
            items=tuple(WorkerItem(id=item.id, prompt=item.prompt) for item in items),
            code_revision=self._code_revision,
        )

    def _place(self, checkpoint: CheckpointInput, folder: Path) -> None:
        files = {file.path: file for file in checkpoint.files if file.path not in _RECORDS}
        for path in _MODEL_FILES if _MODEL_FILES[0] in files else _ADAPTER_FILES:
            if path not in files:
                raise DataLoss(
                    f"{checkpoint.name} has no file {path!r}",
                    reason="CHECKPOINT_INCOMPLETE",
                    metadata={"checkpoint": checkpoint.name, "path": path},
                )
        for path, file in files.items():
            if Path(path).name != path:
                raise DataLoss(
                    f"{checkpoint.name} has a file {path!r}; a plain file name would be right",
                    reason="CHECKPOINT_INVALID",
                    metadata={"checkpoint": checkpoint.name, "path": path},
                )
            self._artifacts.copy_to(file.digest, folder / path)
