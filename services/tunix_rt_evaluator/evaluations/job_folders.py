"""The folder of an evaluation's child process: the weights it loads, and the events it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.admission import check_endpoint
from tunix_rt_evaluator.evaluations.model import (
    CheckpointInput,
    EndpointFields,
    Evaluation,
    WorkerItem,
    WorkerSpec,
    evaluation_name,
)
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE, Endpoint
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.jobs import WorkerProcess
from tunix_rt_kit.jobs.environment import passed_on
from tunix_rt_kit.models.pull import pulling_environment

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
        endpoint: where models run that are evaluated by name. A child that asks there gets its key by its
            environment, and no other child does.
        models_dir: folder of the base models.
        environment: added to a child's environment.
        code_revision: for manifests.
        responses: the file of the answers that are kept.
    """

    def __init__(
        self,
        root: Path,
        artifacts: ArtifactStore,
        *,
        endpoint: Endpoint,
        models_dir: Path,
        environment: Mapping[str, str],
        code_revision: str,
        responses: Path,
    ) -> None:
        self._root = root
        self._artifacts = artifacts
        self._models_dir = models_dir
        self._environment = dict(environment)
        self._endpoint = endpoint
        self._code_revision = code_revision
        self._responses = responses

    def process(self, evaluation: Evaluation, *, warm: bool) -> WorkerProcess:
        """The child of an evaluation, not started; ``warm`` as for ``WorkerProcess``."""
        environment = self._environment
        if evaluation.spec.endpoint_model is not None:
            environment = environment | passed_on("network") | {API_KEY_VARIABLE: self._endpoint.api_key}
        else:
            environment = environment | pulling_environment(self._models_dir, evaluation.inputs.base_model)
        return WorkerProcess(WORKER_MODULE, self._root / evaluation.id, env=environment, warm=warm)

    def prepare(self, evaluation: Evaluation, items: Sequence[EvalItem], attempt: int) -> WorkerSpec:
        """Put the checkpoint into the evaluation's folder and tell what its child is to do.

        Raises:
            DataLoss: a file of the checkpoint is missing or damaged.
            FailedPrecondition: ENDPOINT_NOT_CONFIGURED.
            DomainError: the folder cannot be written.
        """
        check_endpoint(evaluation.spec, configured=bool(self._endpoint.url))
        checkpoint = evaluation.inputs.checkpoint
        if checkpoint is not None:
            self._place(checkpoint, self._root / evaluation.id / _CHECKPOINT)
        return WorkerSpec(
            evaluation=evaluation_name(evaluation.id),
            attempt=attempt,
            base_model=evaluation.inputs.base_model,
            models_dir=str(self._models_dir),
            endpoint=self._endpoint_fields(evaluation),
            checkpoint_dir=_CHECKPOINT if checkpoint else None,
            base_weights_digest=checkpoint.base_weights_digest if checkpoint else None,
            chat_template=evaluation.spec.chat_template,
            decoding=evaluation.spec.decoding,
            dtype=evaluation.spec.dtype,
            items=tuple(WorkerItem(id=item.id, prompt=item.prompt) for item in items),
            code_revision=self._code_revision,
            checkpoint_digest=checkpoint.digest if checkpoint else "",
            responses=None if evaluation.spec.fresh else str(self._responses),
        )

    def discard_checkpoint(self, evaluation_id: str) -> None:
        """Remove the copy of a checkpoint; the next attempt, if there is one, makes another."""
        shutil.rmtree(self._root / evaluation_id / _CHECKPOINT, ignore_errors=True)

    def discard_checkpoints(self, unfinished: Collection[str]) -> None:
        """Remove the copies that evaluations left which are not among ``unfinished``."""
        for copy in self._root.glob(f"*/{_CHECKPOINT}"):
            if copy.parent.name not in unfinished:
                self.discard_checkpoint(copy.parent.name)

    def _endpoint_fields(self, evaluation: Evaluation) -> EndpointFields | None:
        if evaluation.spec.endpoint_model is None:
            return None
        endpoint = self._endpoint
        return EndpointFields(url=endpoint.url, timeout_s=endpoint.timeout_s, retries=endpoint.retries)

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
