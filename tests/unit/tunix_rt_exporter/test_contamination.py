"""Which rows leak an item of an eval set, and which do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.datasets import built, eval_set, source
from tunix_rt_exporter.datasets.decontaminate import EvalIndex, EvalMatch, MatchKind
from tunix_rt_exporter.datasets.model import EvalPrompts
from tunix_rt_kit.artifacts import ArtifactStore

LONG = (
    "Maya and Ben bake 24 muffins for the school fair. They sell 15 of them in the morning and half of "
    "the rest at noon. How many muffins are left?"
)
SHORT = "How many muffins fit into 7 boxes?"
SUM = "What is 3 + 4?"
SET = eval_set("e", LONG, SHORT, SUM, "Why?")


def match(*texts: str, ngram_words: int = 13) -> tuple[str, MatchKind] | None:
    found = EvalIndex([SET], ngram_words).matches([list(texts)])[0]
    return None if found is None else (found.item, found.kind)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (LONG, ("item-0", MatchKind.EXACT)),
        (f"\t{LONG.upper()} ".replace(" ", "  "), ("item-0", MatchKind.EXACT)),
        (f"Solve this, please: {LONG}", ("item-0", MatchKind.NGRAM)),
        (LONG[:80], ("item-0", MatchKind.NGRAM)),
        (LONG.replace("school", "town").replace("half", "part"), ("item-0", MatchKind.NUMBERS)),
        (LONG.replace("24", "25").replace("morning", "evening").replace("Ben", "Bo"), None),
        ("Of 24 pears in one crate 15 went bad at sea. Which share of this cargo could be eaten?", None),
        (f"Think. {SHORT}", ("item-1", MatchKind.CONTAINED)),
        (f"{SHORT} 2", None),
        ("How many muffins fit into 8 boxes?", None),
        ("Quick: what is 3 + 4 ?", ("item-2", MatchKind.CONTAINED)),
        ("What is 3 + 4 - 1?", None),
        ("What is 3 - 4?", None),
        ("WHY?", ("item-3", MatchKind.EXACT)),
        ("Tell me why?", None),
        ("", None),
    ],
)
def test_matches(prompt: str, expected: tuple[str, MatchKind] | None) -> None:
    assert match(prompt, "an answer") == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (f"7 {SHORT}", None),
        (f"Of 9 - {SHORT}", None),
        (f"Of 9 now {SHORT}", MatchKind.CONTAINED),
        (f"{SHORT} And 9?", MatchKind.CONTAINED),
        (f"So {SHORT}", MatchKind.CONTAINED),
        ("How many muffins fit into 7 crates?", None),
    ],
)
def test_only_what_stands_next_to_a_short_item_counts(prompt: str, expected: MatchKind | None) -> None:
    found = match(prompt)
    assert (found and found[1]) == expected


def test_any_run_of_an_item_matches() -> None:
    other = "one two three four five six seven eight nine ten eleven twelve thirteen"
    index = EvalIndex([eval_set("a", other, LONG, SHORT), eval_set("b", f"zero {other} fourteen")], 13)
    item = _words()
    for start in range(len(item) - 12):
        run = " ".join(item[start : start + 13])
        assert index.matches([[f"so {run} then"]]) == [EvalMatch(0, "item-1", MatchKind.NGRAM, run)]
        assert index.matches([["a text", f"so {run[:-1]}"]]) == [None]
    run = other.removeprefix("one ") + " fourteen"
    found = index.matches([[run], [f"so {other}"], [f"so {SHORT}"]])
    assert found == [
        EvalMatch(1, "item-0", MatchKind.NGRAM, run),
        EvalMatch(0, "item-0", MatchKind.NGRAM, other),
        EvalMatch(0, "item-2", MatchKind.CONTAINED, "how many muffins fit into 7 boxes"),
    ]


@pytest.mark.parametrize(
    ("item", "prompt", "shared"),
    [
        # Eight words of which one is a number, and seven others: six of these are more than three quarters.
        ("Which of 7 small boats sailed home first?", "Which of 7 small boats sailed home last?", "7"),
        ("Which of 7 boats sailed home first?", "Which of 7 boats sailed home last?", None),
        # Eight others: six are three quarters, five are not.
        ("Which 7 of all small boats sailed home first?", "Which 7 of all tiny boats sailed home last?", "7"),
        ("Which 7 of all small boats sailed home first?", "Which 7 of all tiny boats sailed off last?", None),
        # A word counts as often as both have it.
        ("So 2 boats, 2 boats and 2 boats sail off", "So 2 boats, 2 and 2 sail off", None),
        ("1 + 2 + 3 + 4 boats", "boats: 1 + 2 + 3 + 4", "1 + 2 + 3 + 4"),
        ("1 + 2 + 3 + 4 boats", "ships: 1 + 2 + 3 + 4", None),
        ("1 + 2 + 3 + 4 =", "1 + 2 boats + 3 + 4 =", None),
        ("Which of all small boats sailed home first?", "Which of all small boats sailed home last?", None),
    ],
)
def test_how_much_of_an_item_may_be_reworded(item: str, prompt: str, shared: str | None) -> None:
    found = EvalIndex([eval_set("e", "Why?", item)], 13).matches([[prompt]])
    assert found == [shared and EvalMatch(0, "item-1", MatchKind.NUMBERS, shared)]


def test_of_items_with_the_same_numbers_the_first_that_is_alike_is_named() -> None:
    sets = [
        eval_set("a", "Which of 7 small boats sailed home first?", "Whose are these 7 old cars over there?"),
        eval_set("b", "Whose are those 7 old cars over there?"),
    ]
    index = EvalIndex(sets, 64)
    found = index.matches(
        [["Whose are 7 of the old cars over there?"], ["Which of 7 small boats came home first?"]]
    )
    assert [each and (each.eval_set, each.item) for each in found] == [(0, "item-1"), (0, "item-0")]


def test_items_that_are_too_short_to_have_runs_match_whole() -> None:
    found = EvalIndex([eval_set("e", "Why?", "Who is it?")], 13).matches(
        [["WHY ?"], ["why?"], ["Who is it then?"]]
    )
    assert found == [None, EvalMatch(0, "item-0", MatchKind.EXACT), None]


def test_steps_count_but_runs_of_words_do_not_go_over_from_text_to_text() -> None:
    assert match("Say it.", f"The question was: {LONG}") == ("item-0", MatchKind.NGRAM)
    half = LONG.split()
    assert match(" ".join(half[:8]), " ".join(half[8:20]), " ".join(half[20:])) is None


def test_without_words_only_equal_prompts_match() -> None:
    assert match(LONG, ngram_words=0) == ("item-0", MatchKind.EXACT)
    assert match(f"So: {LONG}", ngram_words=0) is None


def test_the_length_can_be_set() -> None:
    shared = " ".join(LONG.split()[:10])
    assert match(shared) is None
    assert match(shared, ngram_words=10) == ("item-0", MatchKind.NGRAM)


def test_of_several_items_the_first_is_named() -> None:
    sets = [eval_set("a", "x", LONG), eval_set("b", LONG)]
    found = EvalIndex(sets, 13).matches([[f"So: {LONG}"], [LONG]])
    assert [(m.eval_set, m.item) for m in found if m] == [(0, "item-1"), (0, "item-1")]
    assert found[0] == EvalMatch(0, "item-1", MatchKind.NGRAM, " ".join(_words()[:13]))


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        ([LONG, "And if half of them are burnt?"], MatchKind.EXACT),
        (["Hello", "And if half of them are burnt?"], MatchKind.EXACT),
        ([LONG], MatchKind.EXACT),
        ([f"Please: {LONG}", "Thanks"], MatchKind.NGRAM),
        (["Hello", "Sure?"], None),
        (["Hello"], None),
    ],
)
def test_of_a_conversation_every_question_counts_but_a_greeting(
    questions: list[str], expected: MatchKind | None
) -> None:
    asked = EvalPrompts("evalSets/e", "", {"item": ["Hello", LONG, "And if half of them are burnt?"]})
    row = ["\n".join(questions), "An answer."]
    (found,) = EvalIndex([asked], 13).matches([row], [questions])
    assert (found and found.kind) == expected


def test_a_last_turn_counts_alone_where_it_asks_something_alone() -> None:
    items = {"thanks": [LONG, "Thank you!"], "sum": ["Hello", "And 3 + 4?"], "all": ["Hi", "Bye"]}
    index = EvalIndex([EvalPrompts("evalSets/e", "", items)], 13)
    rows = [["Who are you?", "Thank you!"], ["So?", "And 3 + 4?"], ["Hi", "Bye"], ["Hi"], ["Bye"]]
    found = index.matches([["\n".join(row), "An answer."] for row in rows], rows)
    assert [match and match.item for match in found] == [None, "sum", "all", None, None]


def _words() -> list[str]:
    return LONG.lower().replace(".", "").replace("?", "").split()


def test_what_is_shown_of_a_match_is_bounded() -> None:
    words = [f"{letter * 400}" for letter in "abcdefghijklmn"]
    numbers = [f"{number}{'0' * 300}" for number in range(1, 20)]
    for kind, text, asked in (
        (MatchKind.NGRAM, " ".join(words), f"So: {' '.join(words)}"),
        (MatchKind.CONTAINED, " ".join(words[:6]), f"So: {' '.join(words[:6])}"),
        (MatchKind.NUMBERS, " ".join([*numbers, "a cat"]), " ".join([*numbers, "cat a"])),
    ):
        index = EvalIndex([eval_set("e", text)], 60 if kind is MatchKind.NUMBERS else 13)
        (found,) = index.matches([[asked]])
        assert found is not None
        assert (found.kind, len(found.text)) == (kind, 1000)


def test_each_dropped_row_names_what_it_gave_away(tmp_path: Path) -> None:
    leaked = source(1, prompt=f"Q: {LONG}")
    result = built(tmp_path, [[source(5), leaked]], [SET], splits=[{"split": "train", "fraction": 1}])
    assert [(d.stage, d.reason, d.row_count) for d in result.dropped] == [
        ("contaminated", "gives away an item of evalSets/e", 1)
    ]
    assert result.dropped_rows is not None
    (line,) = ArtifactStore(tmp_path / "artifacts").read_bytes(result.dropped_rows.digest).splitlines()
    assert json.loads(line) == {
        "id": leaked.digest.hex(),
        "stage": "contaminated",
        "eval_set": "evalSets/e",
        "eval_item": "item-0",
        "match": "ngram",
        "matched_text": " ".join(_words()[:13]),
    }
