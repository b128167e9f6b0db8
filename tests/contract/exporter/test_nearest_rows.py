"""Rows of a dataset that are nearest to a question, over a real channel."""

from __future__ import annotations

from typing import Any

import pytest

from support.exporting import Exporting
from support.serving import fields, refused
from support.traces import trace
from tunix_rt import v1

pytestmark = pytest.mark.one_database

ALL_TRAIN = [v1.SplitFraction(split="train", fraction=1.0)]
APPLES = "Tom has three red apples and buys two more."
PROMPTS = {
    1: APPLES,
    2: "Tom has three red apples and eats one of them.",
    3: "What is the capital of France?",
    4: "Seven?",
    5: "Tom HAS three, red apples. And buys two more!",
}


async def nearest(world: Exporting, name: str, *texts: str, **values: Any) -> v1.FindNearestRowsResponse:
    request = v1.FindNearestRowsRequest(name=name, texts=texts, **values)
    return await world.exporter.FindNearestRows(request)


async def built(world: Exporting) -> str:
    await world.add(
        [
            trace(number, prompt=prompt, metadata={"category": f"c{number}"})
            for number, prompt in PROMPTS.items()
        ]
    )
    dataset = await world.build(splits=ALL_TRAIN)
    return str(dataset.name)


async def test_rows_come_nearest_first_with_the_shares_of_their_runs_of_three_words(world: Exporting) -> None:
    name = await built(world)
    found = await nearest(world, name, APPLES, "Seven", "Nothing like it in here.", row_count=4)
    assert found.compared_row_count == 5
    apples, seven, nothing = found.nearest
    # Rows 1 and 5 have its seven runs of three words; row 2 has five of them and three others.
    assert [row.similarity for row in apples.rows] == [1.0, 1.0, pytest.approx(4 / 11)]
    assert {row.prompt for row in apples.rows[:2]} == {APPLES, PROMPTS[5]}
    assert [row.row_id for row in apples.rows[:2]] == sorted(row.row_id for row in apples.rows[:2])
    assert (apples.rows[2].prompt, apples.rows[2].category) == (PROMPTS[2], "c2")
    assert apples.rows[2].final_answer
    assert [row.prompt for row in seven.rows] == [PROMPTS[4]]
    assert not nothing.rows


async def test_a_question_that_shares_no_three_words_gets_rows_alike_by_characters_if_asked_for(
    world: Exporting,
) -> None:
    name = await built(world)
    # Of the third, all words are others than in any row; of the second, some characters.
    texts = (APPLES, "Which is France's capital?", "zzz qqq xxx")
    assert [bool(near.rows) for near in (await nearest(world, name, *texts)).nearest] == [True, False, False]
    apples, france, nothing = (await nearest(world, name, *texts, or_by_characters=True)).nearest
    assert apples.rows[0].similarity == 1.0 and not any(row.by_characters for row in apples.rows)
    assert france.rows[0].prompt == PROMPTS[3]
    assert all(row.by_characters and 0.15 <= row.similarity < 1 for row in france.rows)
    assert not nothing.rows


async def test_no_more_rows_are_given_than_asked_for_and_three_where_nothing_is(world: Exporting) -> None:
    name = await built(world)
    (one,) = (await nearest(world, name, APPLES, row_count=1)).nearest
    (three,) = (await nearest(world, name, APPLES)).nearest
    assert len(one.rows) == 1
    assert one.rows[0] == three.rows[0]
    assert len(three.rows) == 3


async def test_a_wrong_question_is_refused_by_its_field(world: Exporting) -> None:
    name = await built(world)
    for texts, values, reason, wrong in (
        ([], {}, "TEXTS_INVALID", ["texts"]),
        (["a"] * 101, {}, "TEXTS_INVALID", ["texts"]),
        (["a", " "], {"row_count": 11}, "TEXTS_INVALID", ["texts[1]", "row_count"]),
        (["a"], {"row_count": -1}, "TEXTS_INVALID", ["row_count"]),
        (["a"], {"split": "test"}, "SPLIT_UNKNOWN", ["split"]),
    ):
        error = await refused(nearest(world, name, *texts, **values))
        assert (error.reason, fields(error)) == (reason, wrong)
    assert (await refused(nearest(world, "datasets/none@1", "a"))).reason == "DATASET_NOT_FOUND"
