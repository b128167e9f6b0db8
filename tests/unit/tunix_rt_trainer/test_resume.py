"""A job whose process was ended goes on from its latest state, and ends in the bytes of one that was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from support.job_folder import JobFolder, Killed
from support.tiny_model import make_tiny_model
from tunix_rt_trainer.worker import states

STEPS = 8
PLANS: dict[str, dict[str, Any]] = {
    "packed": {"gradient_accumulation_steps": 2},
    "unpacked": {"packing": False, "max_length": 64, "keep_best_checkpoint": True},
}
Seen = Callable[[str, dict[str, Any]], None]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs are compiled once, as for the children of a server."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny")
    return folder


def job(path: Path, models: Path, **changed: Any) -> JobFolder:
    values = {"max_steps": STEPS, "checkpoint_interval_steps": 3, "validation_interval_steps": 2}
    return JobFolder(path, models, **(values | changed))


@pytest.fixture(scope="module", params=sorted(PLANS))
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> tuple[dict[str, Any], JobFolder]:
    """The plan of a job, and the folder of one that nothing came across."""
    folder = job(tmp_path_factory.mktemp("uninterrupted"), models, **PLANS[request.param])
    folder.train()
    return PLANS[request.param], folder


def kill_at(kind: str, count: int = 1) -> Seen:
    """Ends the job before its event of this kind, the ``count``-th one, is written."""
    left = count

    def seen(told: str, fields: dict[str, Any]) -> None:
        nonlocal left
        del fields
        if told == kind:
            left -= 1
            if not left:
                raise Killed

    return seen


def killed(folder: JobFolder, seen: Seen | None) -> None:
    with pytest.raises(Killed):
        folder.train(seen)
    folder.next_attempt()


def resumed_from(folder: JobFolder) -> list[int]:
    return [event["step"] for event in folder.events("resumed")]


def losses(folder: JobFolder) -> dict[int, dict[str, Any]]:
    """What each step measured, apart from times; of a step that was taken twice it must be the same."""
    found: dict[int, dict[str, Any]] = {}
    for event in folder.events("metrics"):
        kept = {name: event.get(name) for name in ("loss", "grad_norm", "learning_rate", "epoch")}
        assert found.setdefault(event["step"], kept) == kept
    return found


def test_a_job_that_is_killed_again_and_again_ends_in_the_same_bytes(
    tmp_path: Path,
    models: Path,
    uninterrupted: tuple[dict[str, Any], JobFolder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, whole = uninterrupted
    folder = job(tmp_path, models, **plan)
    killed(folder, kill_at("metrics", 2))
    killed(folder, kill_at("metrics", 5))
    with monkeypatch.context() as patched:
        # In the middle of the state of step 6: the one of step 3 is still there.
        write, count = states.save_file, iter(range(10))

        def write_one(*arguments: Any) -> None:
            if next(count):
                raise Killed
            write(*arguments)

        patched.setattr(states, "save_file", write_one)
        killed(folder, None)
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"3"}
    # When the checkpoint of step 6 was told of, but its state was not written.
    killed(folder, kill_at("checkpoint", 2))
    folder.train()
    assert resumed_from(folder) == [3, 3, 3]
    assert folder.contents() == whole.contents()
    assert losses(folder) == losses(whole)
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"6", "8"}


def test_a_job_that_ended_tells_of_its_checkpoint_again(
    uninterrupted: tuple[dict[str, Any], JobFolder],
) -> None:
    _, whole = uninterrupted
    before, told = whole.contents(), whole.events("checkpoint")
    whole.next_attempt()
    whole.train()
    assert resumed_from(whole) == [STEPS]
    assert whole.events("checkpoint")[len(told) :][0]["step"] == STEPS
    assert whole.events("checkpoint")[-1]["best"] == told[-1]["best"]
    assert whole.contents() == before
    assert len(whole.events("metrics")) == STEPS
