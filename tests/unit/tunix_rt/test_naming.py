"""What people type for a resource, and which one is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.named_resources import FAR, JOB, NEAR, Resources
from support.threaded import fake_server
from tunix_rt import AsyncClient, Client
from tunix_rt.aio.naming import resolve as resolve_async
from tunix_rt.errors import InvalidArgumentError, NotFoundError, TunixRtError
from tunix_rt.naming import COLLECTIONS, begins, reads_as_id, resolve
from tunix_rt_kit.values import Labels


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Resources, Client]]:
    resources = Resources()
    with fake_server(resources.add) as address, Client(address) as client:
        yield resources, client


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (f"trainingJobs/{JOB}", ""),
        (f"trainingJobs/{JOB[:20]}", f"trainingJobs/{JOB}"),
        ("trainingJobs/01a9", f"trainingJobs/{FAR}"),
        ("trainingJobs/first run", f"trainingJobs/{JOB}"),
        ("trainingJobs/twin", f"trainingJobs/{FAR}"),
        ("trainingJobs/01a9/checkpoints/20", f"trainingJobs/{FAR}/checkpoints/20"),
        ("evaluations/with/slash", f"evaluations/{FAR}"),
        ("traces/01a9", f"traces/{FAR}"),
        (f"traces/{'ab' * 6}", ""),
        (f"traces/{'ab' * 32}", ""),
        ("datasets/gsm8k", "datasets/gsm8k@1"),
        ("datasets/gsm8k@2", ""),
        ("datasets/gsm8k-", "datasets/gsm8k-train@1"),
        ("datasets/words", "datasets/gsm8k@2"),
        ("datasets/ab", "datasets/ab@1"),
        (f"datasets/{'0a' * 16}", f"datasets/{'0a' * 16}@1"),
        ("evalSets/exam", ""),
        ("evalSets/exam-2", ""),
        ("evalSets/exam-3", "evalSets/exam-2-corrected"),
        ("evalSets/arit", "evalSets/arithmetic-test"),
        ("comparisonReports/f0f0", f"comparisonReports/{'f0' * 16}"),
    ],
)
def test_what_is_meant(served: tuple[Resources, Client], given: str, name: str) -> None:
    _, client = served
    assert resolve(client, given) == (name or given)

    async def asked() -> str:
        async with AsyncClient(client.targets) as asking:
            return await resolve_async(asking, given)

    assert asyncio.run(asked()) == (name or given)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ("trainingJobs/01a2", InvalidArgumentError, ["2 training jobs", "begins with '01a2'", JOB, NEAR]),
        ("evaluations/twin", InvalidArgumentError, ["2 evaluations", "the name 'twin'", JOB, NEAR]),
        ("trainingJobs/01a", NotFoundError, ["'01a'", "at least 4 characters"]),
        ("trainingJobs/nope", NotFoundError, ["no training job", "'nope'", "begins so"]),
        ("trainingJobs/firs", NotFoundError, ["'firs'"]),
        (f"trainingJobs/{JOB[:-1]}x", NotFoundError, ["begins so"]),
        ("datasets/only-two", NotFoundError, ["datasets/only-two@1 does not exist", "only-two@2"]),
        ("datasets/gsm8", InvalidArgumentError, ["3 datasets", "gsm8k-train@1, gsm8k@1, gsm8k@2"]),
        ("datasets/gs", NotFoundError, ["at least 4 characters"]),
        ("evalSets/exa", NotFoundError, ["at least 4 characters"]),
        ("traces/nope", NotFoundError, ["no trace has the id 'nope'"]),
        ("models/x", InvalidArgumentError, ["no name of a resource"]),
        ("trainingJobs/", InvalidArgumentError, ["no name of a resource"]),
        (f"trainingJobs/{'x' * 10_000}", NotFoundError, []),
    ],
)
def test_what_is_refused(
    served: tuple[Resources, Client], given: str, kind: type[TunixRtError], words: list[str]
) -> None:
    _, client = served
    with pytest.raises(kind) as error:
        resolve(client, given)
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value)) < 600
    if kind is NotFoundError:
        assert error.value.reason.endswith("_NOT_FOUND")


def test_an_id_that_people_chose_is_whole_where_something_is_deleted(
    served: tuple[Resources, Client],
) -> None:
    _, client = served
    assert resolve(client, "evalSets/exam-2", whole=True) == "evalSets/exam-2"
    assert resolve(client, "trainingJobs/01a9", whole=True) == f"trainingJobs/{FAR}"
    for given, longer in (("evalSets/arith", "arithmetic-test"), ("datasets/gsm8k-", "gsm8k-train@1")):
        with pytest.raises(NotFoundError, match=f"must be whole .{longer}"):
            resolve(client, given, whole=True)


def test_a_whole_id_is_not_looked_up(served: tuple[Resources, Client]) -> None:
    resources, client = served
    resources.asked = 0
    resolve(client, f"trainingJobs/{JOB}")
    resolve(client, f"traces/{'0' * 64}")
    assert resources.asked == 0


def test_a_server_that_cannot_look_for_beginnings_gets_what_was_typed(
    served: tuple[Resources, Client],
) -> None:
    resources, client = served
    resources.old = True
    try:
        for given in ("trainingJobs/01a9", "evalSets/arith", "traces/01a9"):
            assert resolve(client, given) == given
        assert resolve(client, "datasets/gsm8") == "datasets/gsm8@1"
    finally:
        resources.old = False


def test_the_shell_is_told_of_ids_and_names(served: tuple[Resources, Client]) -> None:
    _, client = served
    assert begins(client, "trainingJobs", "01a9", 50) == [(FAR, "twin")]
    assert begins(client, "trainingJobs", "fir", 50) == [(JOB, "first run")]
    assert begins(client, "datasets", "only", 50) == [("only-two@2", "")]
    assert len(begins(client, "evalSets", "", 50)) == 5


def test_what_was_deleted_is_not_taken_for_the_beginning_of_another_id(
    served: tuple[Resources, Client],
) -> None:
    with pytest.raises(NotFoundError) as error:
        resolve(served[1], "evalSets/exam-0")
    assert error.value.reason == "EVAL_SET_DELETED"


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        *((f"{collection}/x", True) for collection in (*COLLECTIONS, "baseModels")),
        (JOB, True),
        ("0f" * 16, True),
        ("a/checkpoints/b", True),
        ("with/slash", False),
        ("0F" * 16, False),
        ("checkpoints/b", False),
        ("traces", False),
    ],
)
def test_services_refuse_the_names_that_are_never_looked_up(name: str, taken: bool) -> None:
    assert reads_as_id(name) == taken
    try:
        Labels(display_name=name)
        refused = False
    except ValueError:
        refused = True
    assert refused == taken
