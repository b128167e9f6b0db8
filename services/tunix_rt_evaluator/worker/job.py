"""One evaluation, from its spec to an event for every item.

Events, besides those that ``run_worker`` writes:

- ``attempt``: ``number``. What follows belongs to this attempt.
- ``stage``: a Progress. A stage begins, and the one before has ended.
- ``progress``: a Progress. How far the stage has come.
- ``facts``: ``facts``, a ModelFacts: what is being run; ``identity``, all that its answers depend
  on; ``changed``, what differs from the attempt before. Where it names anything, the items of all earlier
  attempts count no more, and are written again.
- ``item``: ``generation``, a Generation. Items that an earlier attempt wrote with the same engine are not
  written again, nor generated.

An answer that was generated once is kept under a digest of all that it depends on, never under a name.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from tunix_rt_evaluator.evaluations.job_folders import EvaluationSpeed, WorkerSpec
from tunix_rt_evaluator.evaluations.model import Generation
from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_evaluator.worker.engine import Completion, Engine, Prompt, Request, failed_generation
from tunix_rt_kit.canonical import canonical_json, digest_json
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.models.runtime import give_back_memory
from tunix_rt_kit.regular_files import open_regular
from tunix_rt_kit.values import Progress, TimeLeft

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
)
_PATIENCE_S: Final = 30.0
_GROUP: Final = 256
_GROUP_S: Final = 5.0


class Responses:
    """The answers in ``path``, for an engine that is ``identity``; a context that writes all when it ends.

    Answers are written in groups: a process that is killed loses those of the last seconds, which are then
    generated again. A file that cannot be used (damaged, read-only, a full disk) keeps nothing: ``broken``
    then says why.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._engine = digest_json(dict(identity))
        self._unwritten: dict[str, str] = {}
        self._written = time.monotonic()
        self._database: sqlite3.Connection | None = None
        self.broken = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=_PATIENCE_S)
            self._set_up(self._database)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._disconnect()

    def find(self, request: Request) -> Answer | None:
        """The answer to a request that was kept; one that cannot be read is forgotten."""
        key = self._key(request)
        found = self._unwritten.get(key) or self._read(key)
        if found is None:
            return None
        try:
            return Answer.model_validate_json(found)
        except ValidationError:
            self._change("DELETE FROM responses WHERE key = ?", [(key,)])
            return None

    def keep(self, request: Request, answer: Answer) -> None:
        """Keep an answer; one that is there stays."""
        text = canonical_json(answer.model_dump(mode="json")).decode()
        self._unwritten.setdefault(self._key(request), text)
        if len(self._unwritten) >= _GROUP or time.monotonic() - self._written >= _GROUP_S:
            self._write()

    def _key(self, request: Request) -> str:
        return digest_json(
            {"engine": self._engine, "prompt": request.prompt.digest, "sample": request.sample}
        )

    def _set_up(self, database: sqlite3.Connection) -> None:
        # A text that is no UTF-8 is then an answer that cannot be read, and no error of the file.
        database.text_factory = bytes
        # Where another process is at work the file stays as it is.
        with suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_TABLE)

    def _write(self) -> None:
        self._change("INSERT OR IGNORE INTO responses VALUES (?, ?)", list(self._unwritten.items()))
        self._unwritten.clear()
        self._written = time.monotonic()

    def _read(self, key: str) -> bytes | None:
        if self._database is None:
            return None
        try:
            rows = self._database.execute("SELECT answer FROM responses WHERE key = ?", (key,)).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return bytes(rows[0][0]) if rows else None

    def _change(self, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
        """Do it with each row, in one transaction."""
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.broken = f"{self._path} cannot be used: {error}"
        self._disconnect()

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


# A job goes on under a server that was updated meanwhile; the template stands there by its digest.
_LEFT_OUT: Final = {"code_revision", "chat_template"}
_OF_USE: Final = (b'"kind":"item"', b'"kind":"facts"')


class EarlierAttempts:
    """The items that the events in a file tell of, and the engine that the last attempt before told of."""

    def __init__(self, events: Path) -> None:
        self.items: set[str] = set()
        self._engine: Mapping[str, Any] = {}
        if not events.exists():
            return
        with open_regular(events) as file:
            for line in file:
                # A line without its end is one that a killed process left.
                if line.endswith(b"\n") and any(kind in line for kind in _OF_USE):
                    self._take(json.loads(line))

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "item":
            self.items.add(str(event["generation"]["item_id"]))
        elif event["kind"] == "facts":
            self._engine = event
            if event.get("changed"):
                self.items.clear()

    def changes(self, now: Mapping[str, Any]) -> list[str]:
        """What is not as it was when the items were written, a line for each fact; ``now`` holds the engine's
        facts and identity. Nothing where there are no items."""
        if not self.items:
            return []
        before = self._engine
        if "identity" not in before:
            return ["engine: nothing says which one it was"]
        # Facts have names that users know; an identity holds what is no fact, such as the stop tokens.
        return _different(before["facts"], now["facts"]) or _different(before["identity"], now["identity"])


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    return [
        f"{name}: {old.get(name, 'nothing')} before, {new.get(name, 'nothing')} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    """Values by name, those of a group as ``group.name``."""
    flat: dict[str, str] = {}
    for name, value in facts.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": str(entry) for key, entry in value.items()}
        else:
            flat[name] = str(value)
    return flat


_EVENTS: Final = "events.jsonl"
_LOOKS_BETWEEN_CHECKS: Final = 256
_TELL_S: Final = 0.25


class Evaluations:
    """Does evaluations one after the other; a model that the next one needs too stays loaded."""

    def __init__(self) -> None:
        self._loaded: object | None = None

    def evaluate(self, job: JobDir) -> None:
        """Do a job; raises JobCancelled when it was told to stop, and DomainError when it cannot be done."""
        try:
            if "measure" in job.spec:
                _measure(job)
            else:
                self._evaluate(job)
        finally:
            # A process that waits for the next job would hold what generating took.
            give_back_memory()

    def _evaluate(self, job: JobDir) -> None:
        spec = WorkerSpec.model_validate(job.spec)
        earlier = EarlierAttempts(job.path / _EVENTS)
        job.emit("attempt", number=spec.attempt)
        telling = _Telling(job)
        engine = self._engine(spec, job, telling)
        prompts, failed = engine.read(spec.items)
        done = _tell_facts(job, engine, telling, earlier)
        _Run(job, spec, engine, telling, prompts, done).carry_out(failed)

    def _engine(self, spec: WorkerSpec, job: JobDir, telling: _Telling) -> Engine:
        if spec.endpoint is not None:
            from tunix_rt_evaluator.worker.endpoint import open_endpoint

            telling.report("asking the endpoint", 0, 0, "")
            return open_endpoint(spec, job.check_cancelled)
        # A model library takes seconds to load, which an endpoint needs none of.
        from tunix_rt_evaluator.worker.local import Loaded, LocalEngine

        if not isinstance(self._loaded, Loaded):
            self._loaded = Loaded()
        checkpoint = None if spec.checkpoint_dir is None else job.path / spec.checkpoint_dir
        return LocalEngine(spec, checkpoint, self._loaded, telling.report)


class _Telling:
    """Writes how far the work has come: a new stage, or progress within it."""

    def __init__(self, job: JobDir) -> None:
        self._job = job
        self._stage = ""
        self._told_at = 0.0

    def report(self, stage: str, completed: int, total: int, unit: str) -> None:
        """Raises JobCancelled if the job was told to stop."""
        self._job.check_cancelled()
        self.tell(stage, completed, total, unit)

    def tell(self, stage: str, completed: int, total: int, unit: str, eta_s: float | None = None) -> None:
        """As ``report``, whether or not the job was told to stop; nothing new of a stage more often than four
        times a second, but for its end."""
        now = time.monotonic()
        if stage == self._stage and completed < total and now - self._told_at < _TELL_S:
            return
        self._told_at = now
        progress = Progress(stage=stage, completed=completed, total=total, unit=unit, eta_s=eta_s)
        kind = "progress" if stage == self._stage else "stage"
        self._stage = stage
        self._job.emit(kind, **progress.model_dump(mode="json", exclude_none=True))


def _tell_facts(job: JobDir, engine: Engine, telling: _Telling, earlier: EarlierAttempts) -> set[str]:
    """Tell what is run; returns the items that need no further answer."""
    now = {"facts": engine.facts.model_dump(mode="json"), "identity": dict(engine.identity)}
    changed = earlier.changes(now)
    if changed:
        print(f"all items are answered anew: {'; '.join(changed)}", flush=True)
        names = ", ".join(change.partition(":")[0] for change in changed)
        telling.report(f"starting over: another {names}", 0, 0, "")
    job.emit("facts", **now, changed=changed)
    return set() if changed else earlier.items


class _Run:
    """The requests of one attempt, and the items that they belong to."""

    def __init__(
        self,
        job: JobDir,
        spec: WorkerSpec,
        engine: Engine,
        telling: _Telling,
        prompts: Sequence[Prompt],
        done: set[str],
    ) -> None:
        self._job = job
        self._spec = spec
        self._engine = engine
        self._telling = telling
        self._prompts = [prompt for prompt in prompts if prompt.item_id not in done]
        self._done = done
        self._answers: dict[str, dict[int, Completion]] = {}

    def carry_out(self, failed: Iterable[Generation]) -> None:
        """Write an item for each prompt, and those that failed before they were one."""
        for generation in failed:
            if generation.item_id not in self._done:
                self._write(generation)
        wanted = [Request(prompt, n) for prompt in self._prompts for n in range(self._spec.decoding.samples)]
        if self._spec.responses is None or not self._engine.keeps:
            self._complete(wanted, None)
            return
        with Responses(Path(self._spec.responses), self._engine.identity) as kept:
            self._complete(list(self._not_kept(wanted, kept)), kept)
        if kept.broken:
            print(f"answers are not kept: {kept.broken}", flush=True)

    def _not_kept(self, requests: Sequence[Request], kept: Responses) -> Iterator[Request]:
        """The requests that must be completed; the others' items are written."""
        for number, request in enumerate(requests):
            if number and number % _LOOKS_BETWEEN_CHECKS == 0:
                self._telling.report("looking up kept answers", number, len(requests), "answers")
            answer = kept.find(request)
            if answer is None:
                yield request
            else:
                self._take(Completion(request, answer, 0.0, cached=True))

    def _complete(self, requests: Sequence[Request], kept: Responses | None) -> None:
        if not requests:
            self._tell(0.0)
            return
        self._engine.prepare(self._telling.report)
        self._tell(None)
        left = TimeLeft(parallel=min(self._spec.decoding.batch_size, len(requests)))
        left.after(0, len(requests), time.perf_counter())
        completions = self._engine.complete(requests, self._job.check_cancelled)
        for completed, completion in enumerate(completions, start=1):
            if kept is not None and completion.answer is not None:
                kept.keep(completion.request, completion.answer)
            self._take(completion)
            # The engine alone asks whether to stop: others may have ended in the same step.
            self._tell(left.after(completed, len(requests), time.perf_counter()))

    def _tell(self, eta_s: float | None) -> None:
        self._telling.tell("generating", len(self._done), len(self._spec.items), "items", eta_s)

    def _take(self, completion: Completion) -> None:
        prompt = completion.request.prompt
        answers = self._answers.setdefault(prompt.item_id, {})
        answers[completion.request.sample] = completion
        if len(answers) == self._spec.decoding.samples:
            whole = self._answers.pop(prompt.item_id)
            self._write(_generation(prompt, [whole[sample] for sample in sorted(whole)]))

    def _write(self, generation: Generation) -> None:
        self._job.emit("item", generation=generation.model_dump(mode="json"))
        self._done.add(generation.item_id)


def _generation(prompt: Prompt, completions: Sequence[Completion]) -> Generation:
    """The result of an item. One answer that failed fails the item: a mean over fewer would be another."""
    seconds = sum(completion.seconds for completion in completions)
    answers: list[Answer] = []
    for completion in completions:
        if completion.answer is None:
            failed = failed_generation(prompt.item_id, prompt.ids, prompt.digest, completion.error)
            return failed.model_copy(update={"seconds": seconds})
        answers.append(completion.answer)
    first, *more = answers
    return Generation(
        **first.model_dump(),
        item_id=prompt.item_id,
        prompt_tokens=len(prompt.ids) or completions[0].prompt_tokens,
        prompt_token_digest=prompt.digest,
        seconds=seconds,
        more=tuple(more),
        cached=all(completion.cached for completion in completions),
        kept_tokens=sum(
            answer.output_tokens
            for answer, completion in zip(answers, completions, strict=True)
            if completion.cached
        ),
    )


_MEASURED_S: Final = 5.0


def _measure(job: JobDir) -> None:
    """Have the model of a spec answer its prompts for some seconds; the event ``speed`` tells how fast."""
    from tunix_rt_evaluator.worker.local import Loaded, LocalEngine

    stages: dict[str, float] = {}

    def began(stage: str, *_: object) -> None:
        job.check_cancelled()
        stages.setdefault(stage, time.monotonic())

    began("starting")
    spec = WorkerSpec.model_validate({name: value for name, value in job.spec.items() if name != "measure"})
    engine = LocalEngine(spec, None, Loaded(), began)
    prompts, _ = engine.read(spec.items)
    engine.prepare(began)
    prepared = time.monotonic()
    requests = [Request(prompt, 0) for prompt in prompts]
    reading, writing, tokens = engine.speed(requests, _MEASURED_S, job.check_cancelled)
    speed = EvaluationSpeed(
        tokens_per_second=tokens / writing,
        prompt_tokens_per_second=sum(len(prompt.ids) for prompt in prompts) / reading,
        rows=len(prompts),
        load_duration_s=stages["compiling"] - stages["starting"],
        compile_duration_s=prepared - stages["compiling"],
        measured_duration_s=reading + writing,
        dtype=engine.facts.dtype,
        device=engine.facts.device,
    )
    job.emit("speed", **speed.model_dump(mode="json"))
