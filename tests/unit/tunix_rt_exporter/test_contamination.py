"""Which rows leak an item of an eval set, and which do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.datasets import built, eval_set, source
from tunix_rt_exporter.datasets.decontaminate import EvalIndex, EvalMatch, MatchKind
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
