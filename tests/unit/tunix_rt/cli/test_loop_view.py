"""What a user sees of a loop: its plan, how it is followed, what it made, and what deleting it takes away."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli.deleting import with_names
from tunix_rt.cli.loops import _LABELS, loop_progress
from tunix_rt.cli.main import app
from tunix_rt.cli.progress import LineReporter
from tunix_rt.loop import LoopEvent
from tunix_rt.loop.removal import LoopRemoval

LOSSES = (2.0, 1.5)


def events() -> list[LoopEvent]:
    return [
        LoopEvent("dataset", "started"),
        LoopEvent("dataset", "skipped", resource="datasets/d@1", message="rows: train 80"),
        LoopEvent("training", "started"),
        LoopEvent("training", "progress", message="loading the model"),
        LoopEvent("training", "log", message="peak 2.1 GB"),
        LoopEvent("training", "progress", message="training", total=2, unit="steps"),
        *(
            LoopEvent(
                "training", "progress", message="training", completed=step, total=2, unit="steps",
                eta_seconds=30.0, metrics=v1.TrainingMetrics(step=step, loss=loss),
            )
            for step, loss in enumerate(LOSSES, 1)
        ),
        LoopEvent("training", "finished", resource="trainingJobs/j", message="step 2, loss 1.5000"),
    ]  # fmt: skip


@pytest.mark.parametrize("show_log", [False, True])
def test_stages_are_followed(show_log: bool) -> None:
    sink, now = io.StringIO(), [0.0]
    clock = lambda: now[0]  # noqa: E731
    reporter = LineReporter(Console(file=sink, width=200), clock=clock)
    show = loop_progress(reporter, show_log=show_log, clock=clock)
    for event in events():
        now[0] += 12
        show(event)
    log = ["peak 2.1 GB"] if show_log else []
    assert sink.getvalue().splitlines() == [
        "dataset: datasets/d@1, rows: train 80, was done before",
        *log,
        "training: loading the model: 24 s",
        "training: 1/2 steps loss 2.0000 ▁, 30 s left",
        "training: 2/2 steps loss 1.5000 █▁, 30 s left",
        "training: 2/2 steps loss 1.5000 █▁, 36 s",
        "training: trainingJobs/j, step 2, loss 1.5000, 1 min 12 s",
    ]


SMALL = """
name: small
traces: {generate: {count: 40, seed: 3}}
dataset: {id: small, splits: {train: 0.8, test: 0.2}, chat_template: model}
training: {base_model: tiny, max_steps: 2}
output_dir: out
"""
REMOVAL = LoopRemoval(
    names=("comparisonReports/r", "trainingJobs/j"),
    kept={"datasets/d@1": ("trainingJobs/other",)},
    files=(Path("out/report.html"),),
    not_its_own=("evalSets/e",),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with fake_server(FakeLoopServices().add) as address:
        yield address


@pytest.fixture
def run(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "loop.yaml").write_text(SMALL)
    return lambda *arguments: CliRunner().invoke(app, ["loop", *arguments, "--server", address])


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LoopRemoval, bool]]:
    """What was really deleted, and whether by force."""
    done: list[tuple[LoopRemoval, bool]] = []

    def remove(_client: Any, removal: LoopRemoval, *, force: bool) -> list[str]:
        done.append((removal, force))
        return list(removal.names)

    monkeypatch.setattr("tunix_rt.cli.loops.plan_removal", lambda *_, **__: REMOVAL)
    monkeypatch.setattr("tunix_rt.cli.loops.remove_loop", remove)
    return done


KEPT = [
    "kept datasets/d@1, used by trainingJobs/other",
    "kept loop.json and loop-state.json: when nothing uses these any more, delete the loop again",
    "kept evalSets/e, which was there before the loop ran",
]


def test_deleting_a_loop_says_what_went_and_what_stays_and_why(
    run: Callable[..., Result], removed: list[tuple[LoopRemoval, bool]]
) -> None:
    result = run("delete", "loop.yaml", "--yes", "--force")
    assert result.exit_code == 0, result.output
    assert removed == [(REMOVAL, True)]
    assert result.stdout.splitlines()[:-1] == [
        "deleted comparisonReports/r",
        "deleted trainingJobs/j",
        *KEPT,
    ]
    assert result.stdout.splitlines()[-1].startswith("traces and base models stay")
    assert json.loads(run("delete", "loop.yaml", "--yes", "--json").stdout) == {
        "deleted": ["comparisonReports/r", "trainingJobs/j"],
        "kept": {"datasets/d@1": ["trainingJobs/other"]},
        "not_its_own": ["evalSets/e"],
        "files": ["out/report.html"],
        "freed_bytes": None,
    }


def test_what_people_call_resources_stands_behind_their_ids() -> None:
    names = {"trainingJobs/j": r"best \1 so far", "trainingJobs/k": ""}

    class Trainer:
        def get_training_job(self, name: str) -> v1.TrainingJob:
            return v1.TrainingJob(name=name, display_name=names[name])

    client: Any = SimpleNamespace(trainer=Trainer())
    told = "trainingJobs/j/checkpoints/2 of trainingJobs/j, trainingJobs/k, trainingJobs/j2, trainingJobs/j."
    assert with_names(client, told, [*names, "trainingJobs/x", "no name", ""]) == told.replace(
        "trainingJobs/j,", r"trainingJobs/j (best \1 so far),"
    ).replace("trainingJobs/j.", r"trainingJobs/j (best \1 so far).")


def test_a_loop_that_is_given_by_its_name_is_told_by_its_file(
    run: Callable[..., Result], removed: list[tuple[LoopRemoval, bool]]
) -> None:
    named = run("delete", "small", "--yes")
    assert (named.exit_code, removed) == (1, [])
    assert "small: no such file; give a loop's YAML file, or the folder" in named.stderr
    assert named.stderr.endswith("; loop.yaml is that of a loop of this name\n")
    assert "of this name" not in run("delete", "nothing", "--yes").stderr


def test_a_loop_is_not_deleted_where_nobody_agreed(
    run: Callable[..., Result], removed: list[tuple[LoopRemoval, bool]]
) -> None:
    for arguments in (["loop.yaml"], ["loop.yaml", "--json"]):
        refused = run("delete", *arguments)
        assert refused.exit_code == 2
        assert "--yes" in refused.stderr
    assert removed == []


def test_a_folder_or_file_that_tells_of_no_loop_is_refused_by_its_name(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for given in ("empty", "loop.yaml"):
        refused = run("delete", given, "--yes", "--json")
        assert refused.exit_code == 1
        error = json.loads(refused.stderr)
        assert error["reason"] == "LOOP_UNKNOWN"
        assert ("empty" if given == "empty" else "out") in error["message"]
    (tmp_path / "wrong.yaml").write_text(SMALL.replace("max_steps", "max_stepz"))
    refused = run("run", "wrong.yaml", "--dry-run")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "wrong.yaml" in refused.stderr and "max_stepz" in refused.stderr


def test_a_plan_names_each_stage_and_leaves_no_folder(run: Callable[..., Result], tmp_path: Path) -> None:
    shown = run("run", "loop.yaml", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "nothing is started or stored" in shown.stderr
    places = [shown.stdout.index(f" {label} ") for label in _LABELS.values()]
    assert places == sorted(places)
    assert shown.stdout.index("together") < shown.stdout.index("how the times were estimated:")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.yaml"]


def test_a_loop_that_ran_tells_each_stage_with_what_it_made(run: Callable[..., Result]) -> None:
    result = run("run", "loop.yaml", "--name", "other", "--tag", "nightly")
    assert result.exit_code == 0, result.output
    told = [line.partition(":")[0] for line in result.stderr.splitlines()]
    wanted = list(_LABELS.values())
    assert [stage for stage in dict.fromkeys(told) if stage in wanted] == wanted
    assert "Verdict: " in result.stdout and "report: out/report.html" in result.stdout
