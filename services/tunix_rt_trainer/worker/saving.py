"""What a job leaves: the checkpoints of its steps, and the states from which it goes on."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.models.durable import new_folder
from tunix_rt_kit.models.export import Conversation
from tunix_rt_kit.models.lora import save_adapter
from tunix_rt_kit.models.networks import Decoder
from tunix_rt_kit.models.saver import save_model
from tunix_rt_trainer.jobs.model import StepMetrics, TrainingManifest, WorkerSpec
from tunix_rt_trainer.worker.ledger import Ledger
from tunix_rt_trainer.worker.reporter import Reporter
from tunix_rt_trainer.worker.states import SavedState, StateStore

METRICS_FILE: Final = "metrics.jsonl"
LEDGER_FILE: Final = "ledger.jsonl"
MANIFEST_FILE: Final = "manifest.json"
_TIMED: Final = {"tokens_per_second", "supervised_tokens_per_second", "step_duration_s", "eta_s"}


@dataclass(frozen=True, slots=True)
class JobKeeper:
    """Writes into the job's folder and tells of it.

    ``manifest`` is that of each checkpoint but for the order of the data; ``base`` is the folder of the base
    model.
    """

    worker: WorkerSpec
    manifest: TrainingManifest
    ledger: Ledger
    states: StateStore
    base: Path
    job_folder: Path
    reporter: Reporter

    def checkpoint(self, network: Decoder, history: list[StepMetrics], *, best: bool) -> None:
        """Leave ``network`` as the checkpoint of the last step of ``history`` and tell of it.

        Raises:
            ResourceExhausted: STORAGE_FULL, and the other errors of a file system, naming the folder.
        """
        step = history[-1].step
        self.reporter.stage("saving")
        with new_folder(self.job_folder / _folder_of(step)) as folder:
            self._weights(network, folder)
            (folder / METRICS_FILE).write_bytes(b"".join(map(_metrics_line, history)))
            self.ledger.copy_to(folder / LEDGER_FILE)
            manifest = self.manifest.model_copy(update={"data_order_digest": self.ledger.data_order_digest})
            (folder / MANIFEST_FILE).write_bytes(canonical_json(manifest.model_dump(mode="json")))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.reporter.log(f"wrote the checkpoint of step {step}; the worker's memory peaked at {peak:.1f} GB")
        self.reporter.checkpoint(step, _folder_of(step), best=best)

    def found(self, step: int, *, best: bool) -> None:
        """Tell once more of the checkpoint of ``step``: whoever was told first may have been killed."""
        if (self.job_folder / _folder_of(step)).is_dir():
            self.reporter.checkpoint(step, _folder_of(step), best=best)

    def state(self, state: SavedState) -> None:
        """Keep what is needed to go on after a step; raises as ``checkpoint``."""
        self.states.write(state)

    def _weights(self, network: Decoder, folder: Path) -> None:
        lora = self.worker.spec.lora
        if lora is not None:
            save_adapter(network, folder, alpha=lora.alpha, base_model=self.worker.spec.base_model)
            return
        template = ChatTemplate(**self.worker.inputs.chat_template.model_dump())
        whole = folder / "model"
        save_model(network, whole, base=self.base, conversation=Conversation.by(template))
        for file in whole.iterdir():
            file.rename(folder / file.name)
        whole.rmdir()


def identity(manifest: TrainingManifest, worker: WorkerSpec) -> Mapping[str, Any]:
    """What must be equal for one attempt to go on, to the bit, from what another one left."""
    validation = worker.inputs.validation
    facts = manifest.model_dump(mode="json", exclude={"training_job", "data_order_digest", "code_revision"})
    return facts | {"validation_file_digest": "" if validation is None else validation.digest}


def _folder_of(step: int) -> str:
    return f"checkpoints/{step}"


def _metrics_line(metrics: StepMetrics) -> bytes:
    """One line without times, so that equal runs make equal files."""
    return canonical_json(metrics.model_dump(mode="json", exclude=_TIMED, exclude_none=True)) + b"\n"
