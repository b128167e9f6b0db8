"""A dataset's digest hangs on the set of contents, the spec and the eval sets, and on nothing else."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.datasets import built, eval_set, read, source
from tunix_rt_exporter.datasets.model import SourceTrace

TRACES = [source(number) for number in range(40)]
EVAL_SETS = [eval_set("a", "what is  3 + 1?", "x"), eval_set("b", "What is 3 + 1?", "What is 9 + 1?")]
SPECS: dict[str, dict[str, Any]] = {
    "all": {},
    "random": {"selection": {"strategy": "random", "count": 12}, "seed": (1 << 64) - 1},
    "chatml": {"chat_template": {"builtin": "chatml", "system_instruction": "Think."}, "seed": 3},
}


def parted(traces: Sequence[SourceTrace], cuts: Sequence[int]) -> list[list[SourceTrace]]:
    ends = sorted({0, len(traces), *(cut % (len(traces) + 1) for cut in cuts)})
    return [list(traces[start:end]) for start, end in itertools.pairwise(ends)]


def resequenced(traces: Sequence[SourceTrace], first: int = 1) -> list[SourceTrace]:
    """The same contents, committed in this order."""
    return [
        SourceTrace(first + place, t.digest, t.prompt, t.steps, t.final_answer, t.metadata)
        for place, t in enumerate(traces)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.mark.parametrize("case", SPECS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(len(TRACES))),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    again=st.lists(st.integers(0, len(TRACES) - 1), max_size=10),
)
def test_order_batches_and_duplicates_change_nothing(
    folder: Path, case: str, order: list[int], cuts: list[int], again: list[int]
) -> None:
    expected = built(folder, [TRACES], EVAL_SETS, **SPECS[case])
    arrived = resequenced([TRACES[index] for index in [*order, *again]])
    result = built(folder, parted(arrived, cuts), EVAL_SETS[::-1], **SPECS[case])
    assert result.digest == expected.digest
    assert [split.files for split in result.splits] == [split.files for split in expected.splits]
    assert result.trace_count == len(TRACES) + len(again)


def test_another_content_seed_or_spec_is_another_dataset(folder: Path) -> None:
    variants = [
        built(folder, [TRACES]),
        built(folder, [TRACES[:-1]]),
        built(folder, [TRACES], seed=1),
        built(folder, [TRACES], reasoning_style="answer-only"),
        built(folder, [TRACES], EVAL_SETS),
        built(folder, [TRACES], chat_template={"builtin": "gemma-it", "system_instruction": "Hi."}),
        built(folder, [TRACES], filter={"sources": ["x"]}),
        built(folder, [TRACES], splits=[{"split": "train", "fraction": 1}]),
    ]
    assert len({result.digest for result in variants}) == len(variants)


def test_name_version_and_snapshot_are_not_in_the_digest(folder: Path) -> None:
    plain = built(folder, [TRACES])
    assert built(folder, [TRACES], dataset_id="other", version="7", as_of=99).digest == plain.digest


def test_traces_added_later_move_no_row(folder: Path) -> None:
    def placed(traces: list[SourceTrace]) -> dict[str, str]:
        result = built(folder, [traces])
        return {
            json.loads(line)["id"]: split.split
            for split in result.splits
            for line in read(folder, result, split.split, "trace").splitlines()
        }

    few, many = placed(TRACES[:20]), placed(TRACES)
    assert few.items() <= many.items()
    assert len(many) == len(TRACES)


def test_a_third_of_the_rows_go_to_a_split_of_a_third(folder: Path) -> None:
    traces = [source(number) for number in range(3000)]
    thirds = [{"split": name, "fraction": 1 / 3} for name in ("train", "b", "c")]
    counts = [split.row_count for split in built(folder, [traces], splits=thirds).splits]
    assert sum(counts) == 3000
    # Five standard deviations of a binomial count.
    assert all(abs(count - 1000) < 130 for count in counts)


def test_latest_is_by_commits_and_random_is_not(folder: Path) -> None:
    shuffled = list(TRACES)
    random.Random(0).shuffle(shuffled)
    latest = {"selection": {"strategy": "latest", "count": 5}, "splits": [{"split": "train", "fraction": 1}]}
    result = built(folder, [resequenced(shuffled)], **latest)
    kept = {json.loads(line)["id"] for line in read(folder, result, "train", "trace").splitlines()}
    assert kept == {trace.digest.hex() for trace in shuffled[-5:]}


PROGRAM = """
import sys, tempfile
from pathlib import Path
from support.datasets import built, source
with tempfile.TemporaryDirectory() as folder:
    print(built(Path(folder), [[source(number) for number in range(40)]]).digest)
"""


def test_another_process_hash_seed_and_time_zone_give_the_same_digest(folder: Path) -> None:
    expected = built(folder, [TRACES]).digest
    tests = Path(__file__).parents[2]
    paths = os.pathsep.join([str(tests), *sys.path])
    for hash_seed, zone in (("0", "UTC"), ("7", "Asia/Kathmandu")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone, "PYTHONPATH": paths}
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == expected
