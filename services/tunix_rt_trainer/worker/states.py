"""What a job leaves on its way: checkpoints, and the states from which it resumes to the bit."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from tunix_rt_kit.canonical import canonical_json, digest_file
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.export import Conversation
from tunix_rt_kit.models.lora import save_adapter
from tunix_rt_kit.models.pretrained import save_model
from tunix_rt_kit.models.tensor_files import is_partial, new_folder
from tunix_rt_kit.regular_files import read_json
from tunix_rt_trainer.checkpoints.model import LEDGER_FILE, MANIFEST_FILE, METRICS_FILE, TrainingManifest
from tunix_rt_trainer.jobs.model import StepMetrics, WorkerSpec
from tunix_rt_trainer.worker.reporter import Ledger, Reporter

FOLDER: Final = "states"
_KEPT: Final = 2
_FORMAT: Final = 2
_MOST_BYTES: Final = 1 << 30
_MANIFEST: Final = "state.json"
_HISTORY: Final = "history.json"
_TENSORS: Final = ("trained", "optimizer")

Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a job knew after a step: ``history`` ends with the metrics of that step.

    ``trained`` are the weights that training changes, ``optimizer`` is the optimizer's state; both by path.
    """

    history: tuple[StepMetrics, ...]
    trained: Tensors
    optimizer: Tensors

    @property
    def step(self) -> int:
        """The step after which it was taken."""
        return self.history[-1].step


class StateStore:
    """The states of a job in folders ``<root>/<step>``, of which the latest two are kept.

    Args:
        root: made when there is something to write.
        identity: what must be equal for a state to be this job's; values of JSON.
        log: is told which states cannot be used, and why.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], log: Callable[[str], None]) -> None:
        self._root = root
        self._identity = json.loads(canonical_json(dict(identity)))
        self._log = log
        self._valid: list[int] = []

    def latest(self) -> SavedState | None:
        """The latest state that is whole and fits, or None."""
        for folder in sorted(self._folders(), key=_step, reverse=True):
            try:
                state = self._read(folder)
            except _UnusableError as error:
                self._log(f"the state of step {folder.name} is passed over: {error}")
                continue
            self._valid = [state.step]
            return state
        return None

    def write(self, state: SavedState) -> None:
        """Keep ``state``, unless it is there; states that are neither it nor the one before are removed.

        Raises:
            ResourceExhausted: STORAGE_FULL; the states that were there stay.
        """
        if state.step in self._valid:
            return
        with new_folder(self._root / str(state.step)) as folder:
            (folder / _HISTORY).write_bytes(
                canonical_json([entry.model_dump(mode="json", exclude_none=True) for entry in state.history])
            )
            for name in _TENSORS:
                save_file(dict(getattr(state, name)), folder / f"{name}.safetensors")
            digests = {file.name: digest_file(file) for file in sorted(folder.iterdir())}
            manifest = {
                "format": _FORMAT,
                "step": state.step,
                "identity": self._identity,
                "files": digests,
            }
            (folder / _MANIFEST).write_bytes(canonical_json(manifest))
        self._valid = [*self._valid, state.step][-_KEPT:]
        for other in self._root.iterdir():
            if other.name not in map(str, self._valid):
                shutil.rmtree(other, ignore_errors=True)

    def _folders(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        return [entry for entry in self._root.iterdir() if not is_partial(entry) and entry.name.isdigit()]

    def _read(self, folder: Path) -> SavedState:
        try:
            manifest = read_json(folder / _MANIFEST, _MOST_BYTES)
            files: dict[str, str] = manifest["files"]
            expected = {_HISTORY, *(f"{name}.safetensors" for name in _TENSORS)}
            damaged = [name for name in expected if digest_file(folder / name) != files[name]]
            if damaged:
                raise _UnusableError(f"{damaged[0]} is damaged")
            differing = [
                name for name, value in self._identity.items() if manifest["identity"].get(name) != value
            ]
            if manifest["format"] != _FORMAT or differing:
                raise _UnusableError(f"it was written with another {', '.join(differing) or 'format'}")
            history = read_json(folder / _HISTORY, _MOST_BYTES)
            trained, optimizer = (load_file(folder / f"{name}.safetensors") for name in _TENSORS)
            return SavedState(
                history=tuple(StepMetrics.model_validate(entry) for entry in history),
                trained=trained,
                optimizer=optimizer,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _UnusableError(f"it cannot be read: {type(error).__name__}: {error}") from error


class _UnusableError(Exception):
    """Why a state cannot be used."""


def tensors_of(state: nnx.State[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a state by path, on the host."""
    return {name: np.asarray(variable[...], order="C") for name, variable in _variables(state).items()}


def put_tensors(state: nnx.State[Any, Any], tensors: Tensors) -> None:
    """Set the variables of a state to ``tensors``, each on the devices where it is.

    The buffers are JAX's own, as those of a step's result are, so that they may be donated.
    """
    variables = _variables(state)
    if variables.keys() != tensors.keys():
        name = sorted(variables.keys() ^ tensors.keys())[0]
        raise ValueError(f"the state and the model differ in {name}")
    for name, variable in variables.items():
        now: jax.Array = variable[...]
        if (now.shape, now.dtype) != (tensors[name].shape, tensors[name].dtype):
            raise ValueError(f"{name} has shape {tensors[name].shape}, not {now.shape}")
        # Of a tensor on the host, a CPU would take the memory as it lies there.
        placed = jax.device_put(tensors[name], now.sharding)
        variable[...] = jax.device_put(placed, now.sharding, may_alias=False)


def _variables(state: nnx.State[Any, Any]) -> dict[str, nnx.Variable[jax.Array]]:
    return {"/".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def _step(folder: Path) -> int:
    return int(folder.name)


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
        """Keep what is needed to resume after a step; raises as ``checkpoint``."""
        self.states.write(state)

    def _weights(self, network: Decoder, folder: Path) -> None:
        lora = self.worker.spec.lora
        if lora is not None:
            save_adapter(network, folder, alpha=lora.alpha, base_model=self.worker.spec.base_model)
            return
        template = ChatTemplate.of(self.worker.inputs.chat_template)
        whole = folder / "model"
        save_model(network, whole, base=self.base, conversation=Conversation.by(template))
        for file in whole.iterdir():
            file.rename(folder / file.name)
        whole.rmdir()


def identity(manifest: TrainingManifest, worker: WorkerSpec) -> Mapping[str, Any]:
    """What must be equal for one attempt to resume, to the bit, what another one left."""
    validation = worker.inputs.validation
    facts = manifest.model_dump(mode="json", exclude={"training_job", "data_order_digest", "code_revision"})
    return facts | {"validation_file_digest": "" if validation is None else validation.digest}


def _folder_of(step: int) -> str:
    return f"checkpoints/{step}"


def _metrics_line(metrics: StepMetrics) -> bytes:
    """One line without times, so that equal runs make equal files."""
    return canonical_json(metrics.model_dump(mode="json", exclude=_TIMED, exclude_none=True)) + b"\n"
