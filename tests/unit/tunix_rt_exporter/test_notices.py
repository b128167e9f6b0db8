"""Answers of models are left out, and what is odd about kept rows is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support.datasets import built, eval_set, source
from tunix_rt_exporter.datasets.model import DatasetSpec, EvalPrompts, SourceTrace
from tunix_rt_exporter.datasets.write import disagrees
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import Unavailable

ONLY_TRAIN: Final = [{"split": "train", "fraction": 1}]
ANSWERED: Final = {"evaluation": "evaluations/01a", "item": "x", "correct": False, "reference_answer": "9"}


def test_answers_of_models_are_dropped_and_the_rest_is_the_same_dataset(tmp_path: Path) -> None:
    traces = [source(number) for number in range(300)]
    answers = [
        source(900, source="evaluation"),
        # Exported as rows of a dataset, and imported again, they have lost their source.
        source(901, metadata=ANSWERED),
    ]
    mixed = [*traces[:100], *answers, *traces[100:]]
    near = {"deduplication": {"method": "near"}, "split_group": {"near_duplicate_threshold": 0.9}}
    result = built(tmp_path, [mixed], model_answers="drop", **near)
    dropped = {entry.stage: entry.row_count for entry in result.dropped}
    assert dropped["model_answer"] == 2
    without = built(tmp_path, [traces], model_answers="drop", **near)
    assert [split.files["trace"].digest for split in result.splits] == [
        split.files["trace"].digest for split in without.splits
    ]
    assert result.dropped_rows is not None
    report = ArtifactStore(tmp_path / "artifacts").read_bytes(result.dropped_rows.digest)
    named = [row["id"] for row in map(json.loads, report.splitlines()) if row["stage"] == "model_answer"]
    assert sorted(named) == sorted(trace.digest.hex() for trace in answers)


def test_answers_of_models_are_rows_where_the_spec_says_so(tmp_path: Path) -> None:
    traces = [source(1), source(2, source="evaluation"), source(3, metadata=ANSWERED)]
    result = built(tmp_path, [traces], model_answers="keep", splits=ONLY_TRAIN)
    assert (result.splits[0].row_count, result.dropped) == (3, ())
    # Nothing says that this is an evaluation.
    named = [source(1), source(2, metadata={"evaluation": "mine"}), source(3, source="evaluations")]
    assert built(tmp_path, [named], model_answers="drop", splits=ONLY_TRAIN).splits[0].row_count == 3


def test_a_spec_of_before_keeps_them_and_its_row_rule() -> None:
    spec = DatasetSpec.model_validate({"dataset_id": "d"})
    assert (spec.model_answers, spec.unwritable_rows) == ("keep", "drop")


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("12", "12", False),
        (" London ", "london", False),
        ("1,234", "1234", False),
        ("12", 12, False),
        ("12.0", 12, False),
        ("0.5", 0.5, False),
        ("12", "13", True),
        ("-12", "12", True),
        ("Paris", "London", True),
        ("12 apples", "12", True),
        ("12", None, False),
        ("12", True, False),
        ("12", ["12"], False),
        ("NaN", "nan", False),
        ("sNaN", "12", True),
        ("1e9999999999", "1e9999999998", True),
        ("9" * 5_000, "8" * 5_000, True),
    ],
)
def test_a_reference_answer_agrees_as_text_or_as_number(answer: str, reference: Any, expected: bool) -> None:
    assert disagrees(source(1, final_answer=answer, metadata={"reference_answer": reference})) is expected


def test_rows_whose_reference_answer_is_another_are_named_by_split(tmp_path: Path) -> None:
    traces = [source(n, metadata={"reference_answer": n + 1 + (n % 3 == 0)}) for n in range(90)]
    result = built(tmp_path, [traces])
    wrong = {trace.digest.hex() for trace in traces if disagrees(trace)}
    assert [notice.kind for notice in result.notices] == ["reference_answer"] * 3
    assert [notice.split for notice in result.notices] == ["train", "validation", "test"]
    assert sum(notice.row_count for notice in result.notices) == len(wrong) == 30
    for notice in result.notices:
        assert len(notice.example_row_ids) == min(notice.row_count, 20)
        assert set(notice.example_row_ids) <= wrong


def test_rows_whose_prompt_stands_in_any_eval_set_are_named_and_kept(tmp_path: Path) -> None:
    traces = [source(number) for number in range(30)]
    known = [
        eval_set("a", "WHAT is  7 + 1?", "other"),
        eval_set("b", "none"),
        eval_set("c", "What is 7 + 1?"),
    ]
    result = built(tmp_path, [traces], other_eval_sets=lambda: known, splits=ONLY_TRAIN)
    assert [(notice.kind, notice.reason, notice.row_count) for notice in result.notices] == [
        ("eval_prompt", "the prompt stands in evalSets/a", 1),
        ("eval_prompt", "the prompt stands in evalSets/c", 1),
    ]
    assert result.notices[0].example_row_ids == (traces[7].digest.hex(),)
    # Another time, other eval sets: the same dataset.
    assert result.digest == built(tmp_path, [traces], splits=ONLY_TRAIN).digest


def test_an_evaluator_that_is_away_costs_a_notice_and_not_the_dataset(tmp_path: Path) -> None:
    def away() -> Iterator[EvalPrompts]:
        yield eval_set("a", "What is 1 + 1?")
        raise Unavailable("the evaluator is away", reason="UPSTREAM_UNAVAILABLE")

    traces: list[SourceTrace] = [source(1), source(2)]
    first, last = built(tmp_path, [traces], other_eval_sets=away, splits=ONLY_TRAIN).notices
    assert first.kind == "eval_prompt"
    assert (last.kind, last.split, last.row_count) == ("eval_sets_unknown", "", 0)
    assert last.reason == "rows were not looked for in all eval sets: the evaluator is away"
