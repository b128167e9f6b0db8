"""Names as they are typed in commands, and what the shell completes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

import tunix_rt_local
from support.migrated import migrated
from support.named_resources import FAR, JOB, NEAR, Resources
from support.threaded import fake_server, free_address
from tunix_rt.cli.deleting import delete_each
from tunix_rt.cli.main import app
from tunix_rt.errors import FailedPreconditionError
from tunix_rt_evaluator import tables as evaluator
from tunix_rt_evaluator import wiring as evaluator_wiring
from tunix_rt_exporter import tables as exporter
from tunix_rt_exporter import wiring as exporter_wiring
from tunix_rt_kit.database import Database
from tunix_rt_trace_store import tables as trace_store
from tunix_rt_trace_store import wiring as trace_store_wiring
from tunix_rt_trainer import tables as trainer
from tunix_rt_trainer import wiring as trainer_wiring

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with fake_server(Resources().add) as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a resource of each kind, or two."""
    data = tmp_path_factory.mktemp("data")
    rows: list[tuple[Any, Any, Any, list[dict[str, Any]]]] = [
        (
            trace_store_wiring.TraceStoreSettings,
            trace_store_wiring.migrate,
            trace_store.traces,
            [{"sequence": 1, "id": JOB}, {"sequence": 2, "id": FAR}],
        ),
        (
            exporter_wiring.ExporterSettings,
            exporter_wiring.migrate,
            exporter.datasets,
            [{"dataset_id": "gsm8k", "version": "2", "build_id": "b", "state": "FAILED"}],
        ),
        (
            trainer_wiring.TrainerSettings,
            trainer_wiring.migrate,
            trainer.jobs,
            [
                {"id": JOB, "display_name": "first-run", "tags": ["lr 1e-3", "sweep"]},
                {"id": FAR, "display_name": "two words", "tags": ["sweep", "swift"]},
            ],
        ),
        (evaluator_wiring.EvaluatorSettings, evaluator_wiring.migrate, evaluator.evaluations, [{"id": NEAR}]),
        (evaluator_wiring.EvaluatorSettings, evaluator_wiring.migrate, evaluator.eval_sets, [{"id": "exam"}]),
    ]
    for settings, migrate, table, values in rows:
        options = settings(data_dir=data)
        migrated(options, migrate)
        database = Database(options.database)
        with database.write() as session:
            session.execute(insert(table), [_filled(table, row) for row in values])
        database.close()
    return data


def _filled(table: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A row with something in each column that must not be empty."""
    some: dict[str, Any] = {"String": "", "Text": "", "Integer": 0, "BigInteger": 0, "LargeBinary": b""}
    some |= {"UtcDateTime": NOW, "CanonicalJson": {}}
    empty = {
        column.name: some[type(column.type).__name__]
        for column in table.c
        if not column.nullable and column.server_default is None and column.name != "number"
    }
    return empty | row


def completed(line: str, **environment: str) -> list[str]:
    """What a shell offers behind a line."""
    words = line.split(" ")
    variables = {
        "_TUNIX_RT_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        **environment,
    }
    result = CliRunner().invoke(app, [], env=variables, prog_name="tunix-rt")
    assert result.stderr == ""
    return [line for line in result.stdout.splitlines() if line]


KNOWN = [
    ("traces show 01a9", [FAR]),
    (f"traces compare {JOB[:16]}", [JOB]),
    ("dataset show gsm8k@2", ["gsm8k@2"]),
    ("train start --dataset gsm8k@2", ["gsm8k@2"]),
    ("train show 01a9", [FAR]),
    ("train show trainingJobs/01a9", [f"trainingJobs/{FAR}"]),
    ("evaluate --eval-set exam", ["exam"]),
]


NAMES = [
    ("train show two", [r"two\ words"]),
    ("train show 'two", ["two words"]),
    ("train show fir", ["first-run"]),
    ("train list --tag sw", ["sweep", "swift"]),
    ("train update x --remove-tag l", [r"lr\ 1e-3"]),
    ("loop run x --tag sweep", ["sweep"]),
    ("dataset list --tag sw", []),
    ("train list --sort l", ["loss"]),
    ("train list --sort name,-lo", ["name,-loss"]),
]


@pytest.mark.parametrize(("line", "words"), [*KNOWN, *NAMES])
def test_the_shell_completes_what_lies_in_a_folder(folder: Path, line: str, words: list[str]) -> None:
    assert completed(f"tunix-rt --data-dir {folder} {line}") == words
    assert completed(f"tunix-rt {line}", TUNIX_RT_DATA_DIR=str(folder)) == words


@pytest.mark.parametrize(("line", "words"), KNOWN[:-1])
def test_the_shell_completes_what_a_server_has(server: str, line: str, words: list[str]) -> None:
    assert completed(f"tunix-rt {line}", TUNIX_RT_SERVER=server) == words
    assert completed(f"tunix-rt --server {server} {line}") == words


def test_the_shell_is_not_told_why_nothing_is_known(tmp_path: Path) -> None:
    assert completed("tunix-rt train show 01", TUNIX_RT_SERVER=free_address()) == []
    assert completed("tunix-rt train show 01", TUNIX_RT_SERVER="a server") == []
    assert completed(f"tunix-rt --data-dir {tmp_path}/none train show 01") == []
    assert not (tmp_path / "none").exists()
    for name in ("trainer.db", "exporter.db"):
        (tmp_path / name).write_bytes(b"no database")
    assert completed(f"tunix-rt --data-dir {tmp_path} train show 01") == []
    assert completed(f"tunix-rt --data-dir {tmp_path} dataset show 01") == []


def test_base_models_are_completed(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    assert completed(f"tunix-rt --data-dir {tmp_path} train start -m mi") == ["mine"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train show 01a9", f"01a9 is trainingJobs/{FAR}"),
        ("train show twin", f"twin is trainingJobs/{FAR}"),
        ("traces show 01a9", f"01a9 is traces/{FAR}"),
        ("evalset show arith", "arith is evalSets/arithmetic-test"),
        ("dataset show gsm8k-", "gsm8k- is datasets/gsm8k-train@1"),
    ],
)
def test_what_was_not_typed_whole_is_said(server: str, line: str, said: str) -> None:
    result = CliRunner().invoke(app, [*line.split(), "--server", server])
    assert result.stderr.splitlines()[0] == said


@pytest.mark.parametrize(
    "line",
    [
        "train show 01a2",
        "train watch 01a2",
        "train cancel 01a2",
        "train resume 01a2",
        "train export 01a2 -o out",
        "train export 01a2/checkpoints/4 -o out",
        "evaluate -e exam -c 01a2",
        "evaluate -e exam-2 -c trainingJobs/01a2/checkpoints/4",
        "evaluation show 01a2",
        "evaluation items 01a2",
        "evaluation watch 01a2",
        "evaluation cancel 01a2",
        "evaluation regrade 01a2",
        "compare 01a2 01a9",
        "compare 01a9 01a2",
        "compare 01a9 01a9 --more-base 01a2",
        "compare 01a9 01a9 --more-candidate 01a2",
        "dataset show gsm8",
        "dataset export gsm8",
        "dataset dropped gsm8",
        "dataset audit gsm8 --against exam",
        "dataset audit --against exam-",
        "dataset build new --eval-set exam-",
        "dataset build new --parent gsm8",
        "train start -d gsm8 -m tiny",
        "evalset import new --from-dataset gsm8",
        "evalset show exam-",
        "evaluation regrade 01a9 --eval-set exam-",
        "evaluate -e exam- -m tiny",
        "evaluation list --model 01a2",
        "evaluation list --eval-set exam-",
        "reports list --evaluation 01a2",
        "reports show ffff",
        "reports delete ffff --yes",
        "train delete 01a2 --yes",
        "train delete 01a2/checkpoints/4 --yes",
        "train update 01a2 --name x",
        "evaluation delete 01a2 --yes",
        "evaluation update 01a2 --tag x",
        "evaluation resume 01a2",
        "evalset update exam- --note x",
        "dataset update gsm8 --note x",
        "dataset cancel gsm8",
        "grade --evaluation 01a2 --item q",
        "traces delete 01a2 --yes",
    ],
)
def test_every_command_refuses_a_beginning_of_several(server: str, line: str) -> None:
    result = CliRunner().invoke(app, [*line.split(), "--server", server])
    assert result.exit_code == 1, result.output
    assert "that begins with" in result.stderr
    assert "give more of the id" in result.stderr


def test_what_is_deleted_together_goes_in_an_order_that_works_and_an_error_tells_the_rest() -> None:
    used_by = {"a": {"b", "c"}, "b": {"c"}, "d": {"elsewhere"}}
    there = {"a", "b", "c", "d"}

    def delete_one(name: str) -> None:
        if users := used_by.get(name, set()) & {*there, "elsewhere"}:
            metadata = {"used_by": ",".join(sorted(users))}
            raise FailedPreconditionError(f"{name} is used", reason="DATASET_IN_USE", metadata=metadata)
        there.remove(name)

    assert delete_each(["a", "b", "c"], delete_one) == ["c", "b", "a"]
    there |= {"a", "b", "c"}
    with pytest.raises(FailedPreconditionError) as caught:
        delete_each(["c", "d", "b"], delete_one)
    assert str(caught.value) == "d is used; deleted before that: c"
    assert (caught.value.reason, caught.value.metadata["deleted"]) == ("DATASET_IN_USE", "c")
    # Of two that name each other none can be first.
    used_by, there = {"x": {"y"}, "y": {"x"}}, {"x", "y"}
    with pytest.raises(FailedPreconditionError, match=r"^. is used$"):
        delete_each(["x", "y"], delete_one)


def test_what_people_call_what_lies_in_a_folder_is_known_without_a_server(folder: Path) -> None:
    found = tunix_rt_local.display_names(folder)
    assert found == {f"trainingJobs/{JOB}": "first-run", f"trainingJobs/{FAR}": "two words"}
