"""What takes a data folder's space, what nothing names, and that freeing it takes nothing from the rest."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, delete, insert, update

from support.migrated import migrated
from support.training_specs import SPEC
from tunix_rt.errors import FailedPreconditionError
from tunix_rt_evaluator import tables
from tunix_rt_evaluator import wiring as evaluator
from tunix_rt_exporter import wiring as exporter
from tunix_rt_exporter.datasets.model import BuildResult, DatasetSpec, Distribution, SplitFiles, Statistics
from tunix_rt_exporter.datasets.repository import SqlDatasetRepository, SqlDerivedFiles
from tunix_rt_exporter.tables import supervision_audits
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.database import Database
from tunix_rt_kit.serving.server import data_dir_lock
from tunix_rt_kit.serving.settings import SHARED_MARK, ArtifactSettings
from tunix_rt_kit.values import NO_REQUEST_ID, ChatTemplateFields, JobState, StoredFile
from tunix_rt_local import DataDirLocked, collect_garbage, disk_usage
from tunix_rt_local.storage import Storage, deleted_since, free_garbage
from tunix_rt_trainer import wiring as trainer
from tunix_rt_trainer.checkpoints.model import Checkpoint, TrainingManifest
from tunix_rt_trainer.checkpoints.repository import SqlCheckpointRepository
from tunix_rt_trainer.jobs.model import SplitFile, TrainingInput, TrainingJob
from tunix_rt_trainer.jobs.repository import SqlJobRepository

TEMPLATE = ChatTemplateFields(builtin="chatml")
SPREAD = Distribution(minimum=1, mean=1, median=1, p95=1, maximum=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANIFEST = TrainingManifest(
    training_job="trainingJobs/a",
    spec=SPEC,
    dataset_digest="sha256:d",
    train_file_digest="sha256:t",
    base_weights_digest="sha256:w",
    tokenizer_digest="sha256:k",
    base_config_digest="sha256:c",
    chat_template_digest="sha256:m",
    data_order_digest="",
    package_versions={},
    runtime_settings={},
    device="cpu",
    mesh={},
    code_revision="1",
)
STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED)


class World:
    """A data folder, and what makes and deletes things in it as the services do, but for the work itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = ArtifactStore(folder / "artifacts")
        databases = [
            self._database(exporter.ExporterSettings(data_dir=folder), exporter.migrate),
            self._database(trainer.TrainerSettings(data_dir=folder), trainer.migrate),
            self._database(evaluator.EvaluatorSettings(data_dir=folder), evaluator.migrate),
        ]
        self.databases = databases
        self.datasets = SqlDatasetRepository(databases[0])
        self.derived = SqlDerivedFiles(databases[0])
        self.jobs = SqlJobRepository(databases[1])
        self.checkpoints = SqlCheckpointRepository(databases[1])
        self.number = 0
        self.unfinished: set[str] = set()

    def close(self) -> None:
        for database in self.databases:
            database.close()

    def _database(self, made: Any, migrate: Callable[[Any], None]) -> Database:
        migrated(made, migrate)
        return Database(made.database)

    def id(self) -> str:
        self.number += 1
        return f"00000000-0000-7000-8000-{self.number:012}"

    def file(self, path: str, content: int) -> StoredFile:
        """A file of one of a few contents, so that resources share them."""
        stored = self.artifacts.put_bytes(f"content {content}".encode())
        return StoredFile(path=path, size_bytes=stored.size, digest=stored.digest, uri=stored.uri)

    def dataset(self, content: int) -> str:
        spec = DatasetSpec(dataset_id=f"d{self.id()}")
        dataset = self.datasets.create(spec, NO_REQUEST_ID, lambda _: False)
        names = ("trace", "tunix_sft", "training_example")
        files: Any = {name: self.file(name, content + place) for place, name in enumerate(names)}
        manifest = self.file("manifest.json", content)
        result = BuildResult(
            digest=manifest.digest,
            manifest=manifest,
            splits=(SplitFiles(split="train", row_count=1, files=files),),
            trace_count=1,
            dropped=(),
            statistics=Statistics(steps=SPREAD, prompt_characters=SPREAD, response_characters=SPREAD),
        )
        self.datasets.change_state(dataset.build_id, [JobState.QUEUED], JobState.SUCCEEDED, result=result)
        self.derived.bind(manifest.digest, self.file("train/chat.jsonl", content + 9))
        with self.databases[0].write() as session:
            report = self.file("supervision.json", content + 10).model_dump(mode="json")
            session.execute(
                insert(supervision_audits).values(
                    dataset_digest=manifest.digest,
                    audit_id=self.id(),
                    audit={"report": report},
                    create_time=NOW,
                )
            )
        return spec.key

    def job(self, content: int, state: JobState) -> str:
        job = TrainingJob(
            id=self.id(),
            spec=SPEC,
            state=state,
            dataset_digest="sha256:d",
            chat_template_digest="sha256:c",
            create_time=NOW,
        )
        inputs = TrainingInput(
            dataset_digest="sha256:d",
            chat_template=TEMPLATE,
            chat_template_digest="sha256:c",
            turn_markers=(),
            train=SplitFile(digest=self.file("train", content).digest, row_count=1),
            validation=None,
        )
        self.jobs.create(job, inputs, NO_REQUEST_ID)
        self._fill(self.folder / "training-jobs" / job.id)
        weights = self.file("adapter_model.safetensors", content + 20)
        self.checkpoints.add(
            Checkpoint(
                job_id=job.id,
                step=1,
                digest=weights.digest,
                files=(weights,),
                manifest=MANIFEST,
                manifest_file=self.file("manifest.json", content + 21),
                chat_template=TEMPLATE,
                create_time=NOW,
            ),
            best=False,
        )
        exported = [self.file("model.safetensors", content + 22)]
        self.checkpoints.add_export(job.id, 1, "hugging_face", exported)
        return job.id

    def evaluation(self, content: int, state: JobState) -> str:
        key = self.id()
        needs = self.file("adapter_model.safetensors", content + 20).model_dump(mode="json")
        self._insert(
            tables.evaluations,
            id=key,
            state=state,
            spec={"eval_set": "sums"},
            inputs={"checkpoint": {"files": [needs]}},
            stage_timings=[],
            attempt_count=1,
            manifest_file=self.file("manifest.json", content + 30).model_dump(mode="json"),
        )
        self._fill(self.folder / "evaluations" / key)
        return key

    def report(self, content: int) -> str:
        key, document = self.id(), self.file("report.md", content + 50)
        self._insert(
            tables.reports,
            id=key,
            digest=self.file("content", content + 51).digest,
            documents={"markdown": document.model_dump(mode="json")},
        )
        return key

    def _insert(self, table: Table, **values: Any) -> None:
        with self.databases[2].write() as session:
            session.execute(insert(table).values(**values, create_time=NOW))

    def delete(self, kind: str, key: str, *, crashes: bool) -> None:
        """As the services do; where one ``crashes``, the folder stays."""
        folder = None
        if kind == "dataset":
            self.datasets.delete(*key.split("@"), lambda *_: None)
        elif kind == "job":
            self.jobs.delete(key)
            folder = self.folder / "training-jobs" / key
        elif kind == "checkpoint":
            self.checkpoints.delete(key, 1)
        else:
            table = tables.evaluations if kind == "evaluation" else tables.reports
            with self.databases[2].write() as session:
                session.execute(update(table).where(table.c.id == key).values(delete_time=NOW))
            folder = self.folder / "evaluations" / key
        if folder is not None and not crashes:
            shutil.rmtree(folder, ignore_errors=True)

    def _fill(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text("{}\n")

    def contents(self, content: int, *offsets: int) -> set[str]:
        """The digests of the files of these contents."""
        return {digest_bytes(f"content {content + offset}".encode()) for offset in offsets}

    def left_by_a_crash(self, content: int) -> None:
        self.file("nobody's", content + 40)
        self._fill(self.folder / "training-jobs" / self.id())
        (self.folder / "artifacts" / "tmp").mkdir(exist_ok=True)
        (self.folder / "artifacts" / "tmp" / self.id()).write_text("half of it")

    def on_disk(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self.folder / "artifacts" / "sha256").glob("??/*")}

    def folders(self) -> set[str]:
        return {
            path.name for root in ("training-jobs", "evaluations") for path in (self.folder / root).glob("*")
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World(tmp_path / "data")
    yield opened
    opened.close()


MADE = st.tuples(
    st.sampled_from(["dataset", "job", "evaluation", "report", "crash"]),
    st.integers(0, 2),
    st.sampled_from(STATES),
)
DELETED = st.tuples(st.just("delete"), st.integers(0, 30), st.booleans())


@settings(max_examples=8, deadline=None)
@given(st.lists(st.one_of(MADE, DELETED), min_size=4, max_size=14))
@example([("dataset", 0, STATES[0]), ("dataset", 0, STATES[0]), ("delete", 0, False)])
@example([("job", 0, STATES[0]), ("job", 0, STATES[0]), ("delete", 0, True), ("delete", 0, False)])
@example([("dataset", 0, STATES[0]), ("job", 0, STATES[1]), ("delete", 0, False)])
@example([("job", 0, STATES[0]), ("evaluation", 0, STATES[2]), ("delete", 0, False)])
@example([("report", 0, STATES[0]), ("report", 0, STATES[0]), ("delete", 0, False), ("crash", 0, STATES[0])])
def test_whatever_was_made_and_deleted_nothing_that_is_left_loses_a_file_and_all_else_is_freed(
    steps: list[Any],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            _act_out(world, steps)
        finally:
            world.close()


def _act_out(world: World, steps: list[Any]) -> None:
    # What is there, by kind and key, with what it names on the disk.
    there: list[tuple[str, str, set[str]]] = []
    world.report(99)
    kept = set(world.on_disk())
    for kind, content, choice in steps:
        before = world.on_disk()
        if kind == "delete":
            if not there:
                continue
            of, key, _ = there[content % len(there)]
            if key in world.unfinished:
                continue
            world.delete(of, key, crashes=choice)
            there = [entry for entry in there if entry[:2] != (of, key) and (of, entry[1]) != ("job", key)]
            # As a server does that ends after something was deleted.
            free_garbage(Storage(world.folder, migrate=False).freeable())
        elif kind == "dataset":
            there.append((kind, world.dataset(content), world.contents(content, 0, 1, 2, 9, 10)))
        elif kind == "job":
            needs = () if choice is JobState.SUCCEEDED else (0,)
            key = world.job(content, choice)
            there.append((kind, key, world.contents(content, *needs)))
            if choice is not JobState.QUEUED:
                there.append(("checkpoint", key, world.contents(content, 20, 21, 22)))
            else:
                there[-1] = (kind, key, world.contents(content, *needs, 20, 21, 22))
        elif kind == "evaluation":
            needs = (20,) if choice is JobState.QUEUED else ()
            there.append((kind, world.evaluation(content, choice), world.contents(content, 30, *needs)))
        elif kind == "report":
            there.append((kind, world.report(content), world.contents(content, 50, 51)))
        else:
            world.left_by_a_crash(content)
        if choice is JobState.QUEUED and kind in ("job", "evaluation"):
            world.unfinished.add(there[-1][1])
        named = kept.union(*(digests for _, _, digests in there))
        assert named <= world.on_disk(), (kind, before - world.on_disk())
    free_garbage(Storage(world.folder, migrate=False).garbage())
    assert world.on_disk() == kept.union(*(digests for _, _, digests in there))
    assert world.folders() == {key for kind, key, _ in there if kind in ("job", "evaluation")}
    assert not any((world.folder / "artifacts" / "tmp").glob("*"))
    assert Storage(world.folder, migrate=False).garbage() == []
    total = sum(path.stat().st_size for path in world.folder.rglob("*") if path.is_file())
    assert sum(entry.own_bytes for entry in Storage(world.folder, migrate=False).usage()) == total


def test_caches_are_freed_on_request_and_not_while_jobs_may_use_them(world: World) -> None:
    world.dataset(1)
    key = world.job(1, JobState.SUCCEEDED)
    cache = world.folder / "cache"
    (cache / "jax").mkdir(parents=True)
    (cache / "jax" / "program").write_text("compiled")
    derived = world.contents(1, 9, 22)
    collect_garbage(world.folder, free=True)
    assert derived <= world.on_disk()
    assert (cache / "jax").exists()
    collect_garbage(world.folder, free=True, caches=True)
    assert not derived & world.on_disk()
    assert not (cache / "jax").exists()
    assert world.contents(1, 0, 1, 2, 20, 21) <= world.on_disk()
    assert key in world.folders()
    world.job(2, JobState.QUEUED)
    with pytest.raises(FailedPreconditionError, match=r"trainingJobs/.* cancel it first") as caught:
        collect_garbage(world.folder, free=True, caches=True)
    assert caught.value.reason == "JOBS_UNFINISHED"


def test_nothing_is_freed_while_a_server_uses_the_folder(world: World) -> None:
    world.dataset(1)
    world.left_by_a_crash(1)
    before = world.on_disk()
    with FileLock(world.folder / "server.lock"):
        with pytest.raises(DataDirLocked):
            collect_garbage(world.folder, free=True)
        assert disk_usage(world.folder)
    # A service of its own, started from its own command.
    with data_dir_lock(world.folder, alone=False):
        with pytest.raises(DataDirLocked):
            collect_garbage(world.folder, free=True)
        assert disk_usage(world.folder)
    assert world.on_disk() == before
    assert len(collect_garbage(world.folder, free=False)) == 3
    assert world.on_disk() == before


def test_a_folder_whose_files_other_databases_may_know_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.file("somebody's", 1)
    with pytest.raises(FailedPreconditionError) as caught:
        collect_garbage(world.folder, free=True)
    assert caught.value.reason == "RECORDS_MISSING"
    world.dataset(1)
    monkeypatch.setenv("TUNIX_RT_TRAINER_DATABASE_URL", "postgresql://localhost/trainer")
    for look in (disk_usage, lambda folder: collect_garbage(folder, free=True)):
        with pytest.raises(FailedPreconditionError, match="set to be elsewhere"):
            look(world.folder)
    monkeypatch.delenv("TUNIX_RT_TRAINER_DATABASE_URL")
    elsewhere = ArtifactSettings(
        data_dir=world.folder / "other", artifacts_uri=str(world.folder / "artifacts")
    )
    elsewhere.make_data_dir()
    assert (world.folder / "artifacts" / SHARED_MARK).exists()
    with pytest.raises(FailedPreconditionError, match="a database elsewhere has used"):
        collect_garbage(world.folder, free=True)


def test_a_folder_of_an_earlier_version_says_that_nothing_was_deleted(tmp_path: Path) -> None:
    for name in ("exporter", "trainer", "evaluator"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as database:
            database.execute("CREATE TABLE datasets (number INTEGER)")
    assert not deleted_since(tmp_path, NOW)


def test_what_somebody_else_put_into_the_folder_is_never_garbage(world: World) -> None:
    world.dataset(1)
    world.job(1, JobState.SUCCEEDED)
    theirs = [
        "training-jobs/notes.txt", "training-jobs/mine/a", "evaluations/.DS_Store",
        "exports/my-model/config.json", "exporter-builds/keep/me", "artifacts/tmp/list.txt",
        "artifacts/sha256/aa/readme", f"artifacts/sha256/aa/{'b' * 64}", "models/.git/HEAD",
        "models/.cache/huggingface/token", "mine.txt",
    ]  # fmt: skip
    for name in theirs:
        path = world.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    world.left_by_a_crash(1)
    assert len(collect_garbage(world.folder, free=True)) == 3
    assert all((world.folder / name).read_text() == "theirs" for name in theirs)


@pytest.mark.parametrize("name", ["artifacts", "artifacts/sha256", "training-jobs", "evaluations"])
def test_what_two_data_folders_may_share_by_a_link_is_left_alone(world: World, name: str) -> None:
    key = world.dataset(1)
    world.job(1, JobState.SUCCEEDED)
    world.evaluation(1, JobState.SUCCEEDED)
    world.left_by_a_crash(1)
    linked, elsewhere = world.folder / name, world.folder.parent / "large-disk"
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    before = {path for path in elsewhere.rglob("*") if path.is_file()}
    with pytest.raises(FailedPreconditionError, match=f"{name} is a link") as caught:
        collect_garbage(world.folder, free=True)
    assert caught.value.reason == "FILES_ELSEWHERE"
    world.delete("dataset", key, crashes=False)
    with pytest.raises(FailedPreconditionError):
        Storage(world.folder, migrate=False).freeable()
    assert {path for path in elsewhere.rglob("*") if path.is_file()} == before
    # What takes the space is still told.
    assert {entry.kind for entry in disk_usage(world.folder)} >= {"database", "unused"}


def test_a_database_gives_back_the_space_of_what_was_deleted_from_it(world: World) -> None:
    world.dataset(1)
    key = world.evaluation(1, JobState.SUCCEEDED)
    answers = [{"evaluation_id": key, "item_id": str(n), "result": {"text": "a" * 9_000}} for n in range(300)]
    with world.databases[2].write() as session:
        session.execute(insert(tables.results), answers)
    collect_garbage(world.folder, free=True)
    with world.databases[2].write() as session:
        session.execute(delete(tables.results))
    world.close()
    database = world.folder / "evaluator.db"
    before = database.stat().st_size
    [found] = collect_garbage(world.folder, free=True)
    assert (found.path, found.kind) == (database, "empty space in a database")
    assert before - database.stat().st_size >= found.size_bytes > 2_000_000
    assert key in {entry.name.partition("/")[2] for entry in disk_usage(world.folder)}
    assert collect_garbage(world.folder, free=False) == []


def test_what_cannot_be_deleted_keeps_nothing_else(world: World) -> None:
    world.dataset(1)
    for _ in range(2):
        world.left_by_a_crash(1)
    found = Storage(world.folder, migrate=False).garbage()
    # Nothing below a file can be deleted, whoever one is.
    stays = replace(found[0], path=world.folder / "exporter.db" / "child")
    with pytest.raises(NotADirectoryError):
        free_garbage([stays, *found])
    assert not any(entry.path.exists() for entry in found)


def test_what_is_no_data_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(FailedPreconditionError) as caught:
            disk_usage(folder)
        assert caught.value.reason == "NOT_A_DATA_FOLDER"
    assert not (tmp_path / "none").exists()
    assert not list(tmp_path.glob("*.db"))


def test_a_model_that_is_being_fetched_is_not_garbage(world: World) -> None:
    world.dataset(1)
    fetched = world.folder / "models" / ".tiny.x1_4567a"
    fetched.mkdir(parents=True)
    with FileLock(world.folder / "models" / ".tiny.lock"):
        assert collect_garbage(world.folder, free=True) == []
    assert [entry.path for entry in collect_garbage(world.folder, free=True)] == [fetched]
    assert not fetched.exists()


def test_nothing_was_deleted_from_the_databases_of_an_earlier_version(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "trainer.db")) as database:
        database.execute("CREATE TABLE training_jobs (id VARCHAR(63))")
    assert not deleted_since(tmp_path, NOW)
    with closing(sqlite3.connect(tmp_path / "evaluator.db")) as database:
        database.execute("CREATE TABLE evaluations (id VARCHAR(63), delete_time DATETIME)")
        database.execute("INSERT INTO evaluations VALUES ('a', '2026-01-01 00:00:00.000000')")
        database.commit()
    assert deleted_since(tmp_path, NOW)
