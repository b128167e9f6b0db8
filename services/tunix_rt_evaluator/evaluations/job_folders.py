"""The folder of an evaluation's child process: the weights it loads, and the events it leaves."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.admission import check_endpoint
from tunix_rt_evaluator.evaluations.model import (
    CheckpointInput,
    Decoding,
    Evaluation,
    EvaluationSpec,
    evaluation_name,
)
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE, Endpoint
from tunix_rt_kit.artifacts import ArtifactStore, storage_errors
from tunix_rt_kit.conversations import Message
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.jobs.files import passed_on
from tunix_rt_kit.jobs.process import WarmWorker, WorkerProcess, told_once
from tunix_rt_kit.models.pull import pulling_environment
from tunix_rt_kit.models.runtime import on_gpu
from tunix_rt_kit.values import AskedDtype, ChatTemplateFields, JobState, Value

WORKER_MODULE: Final = "tunix_rt_evaluator.worker"
_ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_MODEL_FILES: Final = ("config.json",)
_RECORDS: Final = ("ledger.jsonl", "metrics.jsonl")
_CHECKPOINT: Final = "checkpoint"
# On a CPU no fewer are computed at once.
_FEWEST_ROWS: Final = 16
# About as long as a word problem.
_MADE_UP: Final = (
    "A baker has 12 trays of 24 rolls, sells 180 of them in the morning and bakes 3 more trays at noon. In "
    "the afternoon twice as many are sold as are left in the evening. How many rolls does each of the "
    "children get, if there are"
)


class EndpointFields(Value):
    """Where an OpenAI-compatible API is, and how it is asked; its key goes by the environment.

    ``timeout_s`` is how long one request may take, ``retries`` how often one is tried again that got no
    answer or a 5xx.
    """

    url: str
    timeout_s: float
    retries: int


class WorkerItem(Value):
    """One question as the worker needs it; ``tools`` are the texts of their definitions."""

    id: str
    prompt: str
    messages: tuple[Message, ...] = ()
    tools: tuple[str, ...] = ()


class WorkerSpec(Value):
    """What the child process is told.

    ``attempt`` counts from 1. ``checkpoint_dir`` is a folder with an adapter in PEFT's layout or a whole
    model, or None for the base model alone, and ``checkpoint_digest`` that of its weights.
    ``base_weights_digest`` is what it was trained from. Without a ``chat_template`` the model's own is used.
    ``responses`` is the file of the answers that are kept, None to generate every one. With an ``endpoint``
    the model ``base_model`` is asked there. ``reads_calls`` says that calls will be read from the answers.
    """

    evaluation: str
    attempt: int
    base_model: str
    models_dir: str
    checkpoint_dir: str | None
    base_weights_digest: str | None
    chat_template: ChatTemplateFields | None
    decoding: Decoding
    # None for an endpoint's model.
    dtype: AskedDtype | None
    items: tuple[WorkerItem, ...]
    code_revision: str
    checkpoint_digest: str = ""
    responses: str | None = None
    endpoint: EndpointFields | None = None
    reads_calls: bool = False


class EvaluationSpeed(Value):
    """How fast this host generates, measured on made-up prompts; durations in seconds.

    ``rows`` answers are generated together. ``busy``: evaluations ran meanwhile.
    """

    tokens_per_second: float
    prompt_tokens_per_second: float
    rows: int
    load_duration_s: float
    compile_duration_s: float
    measured_duration_s: float
    dtype: str
    device: str
    busy: bool = False


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
        self.root = root
        self._artifacts = artifacts
        self._models_dir = models_dir
        self._environment = dict(environment)
        self._endpoint = endpoint
        self._endpoint_fields = EndpointFields(
            url=endpoint.url, timeout_s=endpoint.timeout_s, retries=endpoint.retries
        )
        self._code_revision = code_revision
        self._responses = responses

    def process(self, evaluation: Evaluation, *, warm: bool) -> WorkerProcess:
        """The child of an evaluation, not started; ``warm`` as for ``WorkerProcess``."""
        environment = self._environment
        if evaluation.spec.endpoint_model is not None:
            environment = environment | passed_on("network") | {API_KEY_VARIABLE: self._endpoint.api_key}
        else:
            environment = environment | pulling_environment(self._models_dir, evaluation.inputs.base_model)
        return WorkerProcess(WORKER_MODULE, self.root / evaluation.id, env=environment, warm=warm)

    def start(
        self,
        process: WorkerProcess,
        evaluation: Evaluation,
        items: Sequence[EvalItem],
        take_warm: Callable[[], WarmWorker | None],
        confirm: Callable[[], None],
    ) -> None:
        """Put the checkpoint into the evaluation's folder and start its child, or have a warm one do it,
        unless ``confirm`` raises before.

        Raises:
            DataLoss: a file of the checkpoint is missing or damaged.
            FailedPrecondition: ENDPOINT_NOT_CONFIGURED.
            DomainError: the folder cannot be written.
        """
        check_endpoint(evaluation.spec, configured=bool(self._endpoint.url))
        checkpoint = evaluation.inputs.checkpoint
        if checkpoint is not None:
            self._place(checkpoint, self.root / evaluation.id / _CHECKPOINT)
        spec = WorkerSpec(
            evaluation=evaluation_name(evaluation.id),
            attempt=evaluation.attempt_count,
            base_model=evaluation.inputs.base_model,
            models_dir=str(self._models_dir),
            endpoint=None if evaluation.spec.endpoint_model is None else self._endpoint_fields,
            checkpoint_dir=_CHECKPOINT if checkpoint else None,
            base_weights_digest=checkpoint.base_weights_digest if checkpoint else None,
            chat_template=evaluation.spec.chat_template,
            decoding=evaluation.spec.decoding,
            dtype=evaluation.spec.dtype,
            items=tuple(map(_worker_item, items)),
            reads_calls=any(item.grader.kind == "tool_call" for item in items),
            code_revision=self._code_revision,
            checkpoint_digest=checkpoint.digest if checkpoint else "",
            responses=None if evaluation.spec.fresh else str(self._responses),
        )
        # To copy the checkpoint may have taken long.
        confirm()
        with storage_errors(str(process.path)):
            process.start(spec.model_dump(mode="json"), take_warm())

    def measure(self, spec: EvaluationSpec) -> EvaluationSpeed:
        """How fast this host generates, by a child process that leaves nothing behind.

        Raises DomainError for what it fails for. It ends with its caller, and after ten minutes.
        """
        fields = WorkerSpec(
            evaluation="",
            attempt=1,
            base_model=spec.base_model or "",
            models_dir=str(self._models_dir),
            checkpoint_dir=None,
            base_weights_digest=None,
            chat_template=spec.chat_template,
            decoding=spec.decoding.model_copy(update={"samples": 1}),
            dtype=spec.dtype,
            items=tuple(
                WorkerItem(id=str(number), prompt=f"{_MADE_UP} {number}?")
                for number in range(max(_FEWEST_ROWS, spec.decoding.batch_size))
            ),
            code_revision=self._code_revision,
        ).model_dump(mode="json")
        asked = {**fields, "measure": True}
        told = told_once(WORKER_MODULE, self.root.parent / "cache", asked, "speed", self._environment)
        return EvaluationSpeed.model_validate(told)

    def discard_checkpoint(self, evaluation_id: str) -> None:
        """Remove the copy of a checkpoint; the next attempt, if there is one, makes another."""
        shutil.rmtree(self.root / evaluation_id / _CHECKPOINT, ignore_errors=True)

    def discard(self, evaluation_id: str) -> None:
        """Remove all that an evaluation left in its folder; it was deleted."""
        shutil.rmtree(self.root / evaluation_id, ignore_errors=True)

    def discard_checkpoints(self, unfinished: Callable[[], Sequence[tuple[str, JobState]]]) -> None:
        """Remove the copies that evaluations left which are not among ``unfinished``."""
        copies = list(self.root.glob(f"*/{_CHECKPOINT}"))
        # Asked after the copies were looked for: another server may begin with an evaluation meanwhile.
        in_use = {evaluation_id for evaluation_id, _ in unfinished()} if copies else set()
        for copy in copies:
            if copy.parent.name not in in_use:
                self.discard_checkpoint(copy.parent.name)

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


DEFAULT_KEEP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Idle:
    model: str
    child: WarmWorker
    timer: threading.Timer


class WarmWorkers:
    """Children that wait for a job, each for ``keep_s`` seconds; safe for threads.

    With those that have a job there are at most ``most``.

    ``keep_s`` 0 keeps none; None is 60 s, and on a GPU 0, whose memory the next program needs.
    """

    def __init__(self, most: int, keep_s: float | None = None) -> None:
        self._most = most
        self._keep_s = keep_s if keep_s is not None else 0.0 if on_gpu() else DEFAULT_KEEP_S
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []

    @property
    def keeps(self) -> bool:
        """Whether any child is kept."""
        return self._keep_s > 0

    def take(self, model: str, running: int = 1) -> WarmWorker | None:
        """A child that holds ``model``, for a job; room is made for those ``running``, this one included."""
        with self._lock:
            found = next((idle for idle in self._idle if idle.model == model), None)
            if found is not None:
                self._idle.remove(found)
                found.timer.cancel()
            crowding = self._idle[: max(0, len(self._idle) + running - self._most)]
        for idle in crowding:
            self._end(idle)
        return found.child if found is not None else None

    def give(self, model: str, child: WarmWorker) -> None:
        """Keep a child that holds ``model`` and has done its job."""
        timer = threading.Timer(self._keep_s, lambda: self._end(idle))
        timer.daemon = True
        idle = _Idle(model, child, timer)
        with self._lock:
            self._idle.append(idle)
            crowding = self._idle[: -self._most]
        timer.start()
        for other in crowding:
            self._end(other)

    def close(self) -> None:
        """End all that wait."""
        with self._lock:
            waiting = list(self._idle)
        for idle in waiting:
            self._end(idle)

    def _end(self, idle: _Idle) -> None:
        with self._lock:
            if idle not in self._idle:
                return
            self._idle.remove(idle)
        idle.timer.cancel()
        idle.child.close()


def _worker_item(item: EvalItem) -> WorkerItem:
    tools = tuple(tool["definition_text"] for tool in item.tools)
    return WorkerItem(id=item.id, prompt=item.prompt, messages=item.messages, tools=tools)
