"""Eval sets, as they are stored, listed and refused."""

from __future__ import annotations

from typing import Any

import pytest

from support.evaluating import FOUR, eval_set, item, run
from support.serving import fields, refused
from tunix_rt import v1


async def test_an_eval_set_is_kept_whole_and_named_by_its_items(evaluator: Any) -> None:
    given = [
        item(1, category="sums", difficulty="easy", cluster="c", grader={"numeric": {"tolerance": 0.5}}),
        item(2, accepted_answers=["two", "a pair"], grader={"text": {}}),
        item(3, accepted_answers=["3", "three"]),
        item(4),
    ]
    given[0].metadata.update({"source": "here", "page": 3})
    made = await evaluator.CreateEvalSet(eval_set(given, description="small"))
    assert made.name == "evalSets/sums"
    assert (made.item_count, made.description) == (4, "small")
    stored = await evaluator.GetEvalSet(v1.GetEvalSetRequest(name=made.name))
    assert stored == made
    assert stored.items[0] == given[0]
    assert stored.items[1] == given[1]
    # Without a grader: text where an answer is no number, else numeric.
    assert stored.items[2].grader.WhichOneof("kind") == "text"
    assert stored.items[3].grader.WhichOneof("kind") == "numeric"


async def test_the_digest_does_not_depend_on_order_or_description(evaluator: Any) -> None:
    first = await evaluator.CreateEvalSet(eval_set(FOUR, "one", description="a"))
    second = await evaluator.CreateEvalSet(eval_set(FOUR[::-1], "two"))
    other = await evaluator.CreateEvalSet(eval_set(FOUR[:3], "three"))
    assert first.digest == second.digest != other.digest
    assert [entry.id for entry in second.items] == ["q1", "q2", "q3", "q4"]


async def test_an_id_is_bound_to_its_items(evaluator: Any) -> None:
    first = await evaluator.CreateEvalSet(eval_set(FOUR))
    assert await evaluator.CreateEvalSet(eval_set(FOUR[::-1])) == first
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR[:3])))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "EVAL_SET_EXISTS")
    assert error.metadata["digest"] == first.digest


async def test_an_eval_sets_request_id_is_bound_to_its_body(evaluator: Any) -> None:
    first = await evaluator.CreateEvalSet(eval_set(FOUR, request_id="r"))
    assert await evaluator.CreateEvalSet(eval_set(FOUR, request_id="r")) == first
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR, "other", request_id="r")))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        ([], ["eval_set.items"]),
        ([item(1), item(1, prompt="other")], ["eval_set.items[1].id"]),
        ([item(1), item(2, prompt=item(1).prompt)], ["eval_set.items[1].prompt"]),
        ([item(1, accepted_answers=[])], ["eval_set.items[0].accepted_answers"]),
        ([item(1, accepted_answers=["1", ""])], ["eval_set.items[0].accepted_answers[1]"]),
        (
            [item(1), item(2, accepted_answers=[str(n) for n in range(257)])],
            ["eval_set.items[1].accepted_answers"],
        ),
        ([item(1, id=""), item(2, prompt="")], ["eval_set.items[0].id", "eval_set.items[1].prompt"]),
        ([item(1, id="x" * 129)], ["eval_set.items[0].id"]),
        ([item(1, id="a\0b")], ["eval_set.items[0].id"]),
        ([item(1, prompt="x" * 50_001)], ["eval_set.items[0].prompt"]),
        (
            [item(1, category="c" * 65, cluster="c" * 129)],
            ["eval_set.items[0].category", "eval_set.items[0].cluster"],
        ),
        (
            [item(1, accepted_answers=["1", "one"], grader={"numeric": {}})],
            ["eval_set.items[0].accepted_answers[1]"],
        ),
        ([item(1, grader={"numeric": {"tolerance": -1}})], ["eval_set.items[0].grader.numeric.tolerance"]),
        (
            [item(1, grader={"numeric": {"tolerance": float("nan")}})],
            ["eval_set.items[0].grader.numeric.tolerance"],
        ),
        ([item(1, metadata={"x": float("inf")})], ["eval_set.items[0].metadata"]),
    ],
)
async def test_a_wrong_eval_set_is_refused_by_field(
    evaluator: Any, items: list[v1.EvalItem], wrong: list[str]
) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set(items)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "EVAL_SET_INVALID")
    assert fields(error) == wrong
    assert not (await evaluator.ListEvalSets(v1.ListEvalSetsRequest())).eval_sets


async def test_an_item_may_have_so_many_accepted_answers_and_no_more(evaluator: Any) -> None:
    most = [str(number) for number in range(256)]
    made = await evaluator.CreateEvalSet(eval_set([item(1, accepted_answers=most)]))
    assert list(made.items[0].accepted_answers) == most
    wrong = [item(1, accepted_answers=["1"] * 10_000)]
    error = await refused(evaluator.CreateEvalSet(eval_set(wrong, "other")))
    assert "holds 10,000 answers; at most 256 would be right" in error.message


async def test_a_duplicate_names_the_item_that_it_repeats(evaluator: Any) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set([item(1), item(2, prompt=item(1).prompt)])))
    assert "items[0]" in error.violations[0].description
    assert "'q1'" in error.violations[0].description


async def test_an_eval_set_that_is_too_big_or_too_long_is_refused(evaluator: Any) -> None:
    big = [item(number, prompt="x" * 49_000 + str(number)) for number in range(81)]
    error = await refused(evaluator.CreateEvalSet(eval_set(big)))
    assert fields(error) == ["eval_set.items"]
    assert "bytes" in error.message
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR, description="d" * 1001)))
    assert fields(error) == ["eval_set.description"]


@pytest.mark.parametrize("name", ["", "Big", "a/b", "-a", "x" * 65])
async def test_a_wrong_eval_set_id_is_refused(evaluator: Any, name: str) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR, name)))
    assert (error.reason, fields(error)) == ("RESOURCE_ID_INVALID", ["eval_set.eval_set_id"])


async def test_eval_sets_are_listed_newest_first_without_items(evaluator: Any) -> None:
    for number in range(5):
        await evaluator.CreateEvalSet(eval_set(FOUR, f"set{number}"))
    names: list[str] = []
    token = ""
    while True:
        page = await evaluator.ListEvalSets(v1.ListEvalSetsRequest(page_size=2, page_token=token))
        names += [entry.eval_set_id for entry in page.eval_sets]
        assert all(not entry.items and entry.item_count == 4 for entry in page.eval_sets)
        token = page.next_page_token
        if not token:
            break
    assert names == ["set4", "set3", "set2", "set1", "set0"]


async def test_an_unknown_eval_set_is_not_found(evaluator: Any) -> None:
    error = await refused(evaluator.GetEvalSet(v1.GetEvalSetRequest(name="evalSets/none")))
    assert (error.code, error.reason) == ("NOT_FOUND", "EVAL_SET_NOT_FOUND")
    error = await refused(evaluator.GetEvalSet(v1.GetEvalSetRequest(name="sets/none")))
    assert (error.reason, fields(error)) == ("RESOURCE_NAME_INVALID", ["name"])


async def test_nul_in_a_text_of_an_item_is_kept_on_every_database(evaluator: Any) -> None:
    texts = {"prompt": "Say\0 1.|Answer: 1|", "category": "a\0b", "cluster": "c\0", "difficulty": "\0"}
    given = item(1, accepted_answers=["1", "\0one"], **texts)
    await evaluator.CreateEvalSet(eval_set([given], "nul"))
    done = await run(evaluator, eval_set="evalSets/nul")
    kept = (await evaluator.GetEvalSet(v1.GetEvalSetRequest(name="evalSets/nul"))).items[0]
    assert (kept.prompt, kept.category, kept.cluster) == (given.prompt, "a\0b", "c\0")
    request = v1.ListEvaluationItemsRequest(
        parent=done.name, filter=v1.EvaluationItemFilter(category="a\0b"), order_by="category"
    )
    (found,) = (await evaluator.ListEvaluationItems(request)).results
    assert (found.prompt, list(found.accepted_answers), found.correct) == (given.prompt, ["1", "\0one"], True)
    compared = v1.CompareEvaluationsRequest(base=done.name, candidate=done.name)
    assert (await evaluator.CompareEvaluations(compared)).name
