"""What graders say of an answer, in every field of a verdict, and of what is wrong with an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.service import Grading

GRADING = Grading()
QUESTION = "What is 48 / 6?"


def item(kind: str, settings: dict[str, Any], accepted: Sequence[str]) -> EvalItem:
    grader = {"kind": kind, **settings}
    return EvalItem(id="q", prompt=QUESTION, accepted_answers=tuple(accepted), grader=grader)


# Kind, settings, accepted answers, output; right, what was read, score, explanation.
VERDICTS: list[tuple[str, dict[str, Any], list[str], str, bool, str, float | None, str]] = [
    ("text", {}, ["Paris"], "Answer: Paris?", False, "Paris?", None, "it is a question"),
    ("text", {}, ["Paris?"], "Answer: Paris?", True, "Paris?", None, ""),
    (
        "text",
        {},
        ["Paris"],
        "Answer: Paris.\nNo, it is Rome.",
        False,
        "Paris.",
        None,
        "it is taken back or doubted behind it",
    ),
    ("text", {}, ["Paris"], "Answer: Rome.\nParis", False, "Rome.", None, ""),
    ("text", {}, ["Paris"], "The answer is Paris. It lies in France.", True, "Paris", None, ""),
    ("regex", {}, ["\\d+"], "Answer: 42 a", True, "42", None, ""),
    ("regex", {"full_match": True}, ["\\d+"], "Answer: 42 a", False, "42 a", None, ""),
    ("regex", {"whole_output": True}, ["x", "\\d+"], "9 so\nAnswer: a 42", True, "9", None, ""),
    ("regex", {}, ["ABC"], "Answer: abc", False, "abc", None, ""),
    ("regex", {"ignore_case": True}, ["ABC"], "Answer: abc", True, "abc", None, ""),
    ("regex", {}, ["ABC"], "Answer:  ", False, "", None, ""),
    ("regex", {}, ["z"], "Answer: abc \nd", False, "abc", None, ""),
    ("contains", {"all": True}, ["cat", "dog"], "Answer: a Dog and a CAT", True, "cat, dog", 1.0, ""),
    ("contains", {"all": True}, ["cat", "dog"], "Answer: a Dog and a cow", False, "dog", 0.5, ""),
    ("contains", {}, ["cat", "dog"], "Answer: a Dog and a cow", True, "dog", 1.0, ""),
    ("contains", {"case_sensitive": True}, ["Dog"], "Answer: a dog", False, "", 0.0, ""),
    ("contains", {}, ["dog"], "Answer: dogs", True, "dog", 1.0, ""),
    ("contains", {"whole_words": True}, ["dog"], "Answer: dogs", False, "", 0.0, ""),
    ("contains", {"whole_output": True}, ["dog"], "dogs\nAnswer: a cat", True, "dog", 1.0, ""),
    ("contains", {}, ["a dog"], "Answer: a \n  dog", True, "a dog", 1.0, ""),
    ("token_f1", {}, ["the red cat"], "Answer: a red dog", True, "a red dog", 0.5, ""),
    ("token_f1", {"threshold": 1.0}, ["red cat", "red dog"], "Answer: a red dog", True, "a red dog", 1.0, ""),
    ("token_f1", {}, ["red cat"], "Answer: ...", False, "...", 0.0, ""),
    ("format", {}, [], "Answer: 3", False, "3", None, "there is no 'Reasoning:'"),
    ("format", {"min_steps": 0}, [], "Answer: 3", True, "3", None, ""),
    ("format", {"reasoning_style": "answer-only"}, [], "Answer: 3", True, "3", None, ""),
    (
        "format",
        {"reasoning_style": "answer-only"},
        [],
        "So\nit\nAnswer: 3",
        False,
        "3",
        None,
        "2 lines stand before the answer",
    ),
    (
        "format",
        {},
        [],
        "Reasoning:\n1. a\nAnswer:",
        False,
        "",
        None,
        "the last line is not 'Answer:' and an answer",
    ),
    (
        "format",
        {},
        [],
        "Reasoning:\n1. a\n3",
        False,
        "",
        None,
        "the last line is not 'Answer:' and an answer",
    ),
    ("format", {}, [], "Why:\n1. a\nAnswer: 3", False, "3", None, "the first line is not 'Reasoning:'"),
    (
        "format",
        {"min_steps": 2},
        [],
        "Reasoning:\n1. a\nAnswer: 3",
        False,
        "3",
        None,
        "it has 1 steps, at least 2 would be right",
    ),
    (
        "format",
        {"min_steps": 0},
        [],
        "Reasoning:\nAnswer: 3",
        False,
        "3",
        None,
        "it has 0 steps, at least 1 would be right",
    ),
    (
        "format",
        {},
        [],
        "Reasoning:\n1. a\n2) b\nAnswer: 3",
        False,
        "3",
        None,
        "line 3 is not step 2, '2. ...'",
    ),
    ("format", {"min_steps": 2}, [], "\nReasoning:\n1. a\n2. b\nAnswer:  3 \n", True, "3", None, ""),
    ("set", {}, ["1, 2"], "Answer: 2, 1", True, "2, 1", 1.0, ""),
    (
        "set",
        {},
        ["1, 2"],
        "Answer: 2, 1\nNo, it is 3.",
        False,
        "2, 1",
        0.0,
        "it is taken back or doubted behind it",
    ),
    ("set", {}, ["1, 2", "3, 4"], "Answer: 3, 5", False, "3, 5", 0.5, ""),
    ("set", {}, ["1, 2"], "Answer: 7", False, "7", 0.0, ""),
    ("multiple_choice", {"options": ["x", "y"]}, ["B"], "Answer: (b)", True, "B", None, ""),
    ("multiple_choice", {"options": ["x", "y"]}, ["y"], "Answer: B", True, "B", None, ""),
    ("multiple_choice", {"options": ["x", "y"]}, ["(b)"], "Answer: y", True, "B", None, ""),
    ("multiple_choice", {"options": ["x", "y"]}, ["Y."], "Answer: x", False, "A", None, ""),
    ("multiple_choice", {"options": ["x", "y"]}, ["B"], "Answer: C", False, "", None, ""),
    ("numeric", {"tolerance": 0.05}, ["8"], "Answer: 8.04", True, "8.04", None, ""),
    ("numeric", {"tolerance": 0.05}, ["8"], "Answer: 8.06", False, "8.06", None, ""),
    ("numeric", {"tolerance": 0.2}, ["0.3"], "Answer: 0.1", True, "0.1", None, ""),
    ("numeric", {"relative_tolerance": 0.1}, ["100"], "Answer: 110", True, "110", None, ""),
    ("numeric", {"units": ["g"], "unit_required": True}, ["8"], "Answer: 8 g", True, "8", None, ""),
    (
        "numeric",
        {"units": ["g"], "unit_required": True},
        ["8"],
        "Answer: 8",
        False,
        "8",
        None,
        "the number is right, its unit is not",
    ),
    ("numeric", {"units": ["g"]}, ["8"], "Answer: 8", True, "8", None, ""),
    ("numeric", {"marked": True}, ["8"], "8", False, "", None, "no mark shows an answer"),
    ("numeric", {}, ["8"], "It is 8.", True, "8", None, ""),
    (
        "numeric",
        {},
        ["8"],
        "It is 48/6.",
        False,
        "",
        None,
        "'It is 48/6.' counts as no number: nothing marks it, and it is an unfinished division",
    ),
    ("numeric", {}, ["8"], "48/6 = 8", True, "48/6 = 8", None, ""),
    ("numeric", {}, ["6"], "So it is 6.", True, "6", None, ""),
    (
        "numeric",
        {},
        ["4"],
        "It is 8/2.",
        False,
        "",
        None,
        "'It is 8/2.' counts as no number: nothing marks it, and it is an unfinished division",
    ),
    (
        "numeric",
        {},
        ["8"],
        "I cannot answer this. Is it 8?",
        False,
        "",
        None,
        "'Is it 8?' counts as no number: 'it' stands before a number and may change it",
    ),
    ("numeric", {}, ["8"], "1. One\n2. So it is 8", True, "8", None, ""),
    (
        "numeric",
        {},
        ["8"],
        "\\boxed{48/6}",
        False,
        "",
        None,
        "'48/6' counts as no number: it is copied from the question",
    ),
    ("numeric", {}, ["48/6"], "\\boxed{48/6}", True, "48/6", None, ""),
    ("numeric", {}, ["8 g"], "Answer: 8 kg", False, "8", None, "the number is right, its unit is not"),
    ("numeric", {"units": ["million"]}, ["5 million"], "Answer: 5 million", False, "5 million", None, ""),
    (
        "math",
        {},
        ["8"],
        "Answer: $8$\nSo the answer is 9",
        False,
        "$8$",
        None,
        "behind it the answer is said to be '9'",
    ),
    ("math", {}, ["8"], "Answer: 8\n9", False, "", None, "another value stands behind it"),
    ("math", {}, ["8"], "Answer: 8. Wait, it is 9.", False, "", None, "it is corrected behind it"),
    ("math", {}, ["8"], "So it is 16/2", True, "16/2", None, ""),
    ("math", {}, ["8"], "", False, "", None, ""),
    (
        "math",
        {},
        ["8"],
        "Answer: $\\frac{16}{2}$, because it is so",
        True,
        "$\\frac{16}{2}$, because it is so",
        None,
        "",
    ),
    ("math", {}, ["8"], "So $$x = 8$$", True, "$$x = 8$$", None, ""),
    ("math", {}, ["8"], "Answer: ~~8~~", False, "", None, ""),
    (
        "json_schema",
        {"schema": {"type": "object", "required": ["b"]}},
        [],
        '{"a": 1}',
        False,
        '{"a": 1}',
        None,
        "$: 'b' is a required property",
    ),
    ("json_schema", {"schema": {"type": "object"}}, ['{"a": 1.0}'], '{"a": 1}', True, '{"a": 1}', None, ""),
    (
        "json_schema",
        {"schema": {"type": "object"}},
        ['{"a": 1}'],
        '{"a": true}',
        False,
        '{"a": true}',
        None,
        "the schema allows it, but it is none of the accepted answers",
    ),
    ("json_schema", {"schema": {"type": "object"}}, [], "so {", False, "", None, "the answer is not JSON"),
    (
        "json_schema",
        {"schema": {"type": "object"}},
        [],
        '```json\n{"a": 1}\n```\n```\n{"b": 2}\n```',
        True,
        '{"b": 2}',
        None,
        "",
    ),
    ("json_schema", {"schema": {"type": "number"}}, [], "NaN", False, "", None, "the answer is not JSON"),
    (
        "json_schema",
        {"schema": {"type": "number"}},
        [],
        "Answer: 1\nso [1]",
        False,
        "",
        None,
        "the answer is not JSON",
    ),
    (
        "json_schema",
        {"schema": {"type": "array"}},
        ['[1, {"b": 0.1}]'],
        '[1, {"b": 0.10}]',
        True,
        '[1, {"b": 0.10}]',
        None,
        "",
    ),
]


@pytest.mark.parametrize(
    ("kind", "settings", "accepted", "output", "right", "read", "score", "why"), VERDICTS
)
def test_a_verdict_in_full(
    kind: str,
    settings: dict[str, Any],
    accepted: list[str],
    output: str,
    right: bool,
    read: str,
    score: float | None,
    why: str,
) -> None:
    verdict = GRADING.grade(item(kind, settings, accepted), output)
    found = (verdict.correct, verdict.extracted_answer, verdict.score, verdict.explanation, verdict.error)
    assert found == (right, read, score, why, "")


ORDERED = (
    "whose brackets give its values an order, as those of a tuple or an interval; for the set grader, values "
    "between commas or in braces would be right, and math compares tuples and intervals"
)
PROBLEMS: list[tuple[str, dict[str, Any], list[str], list[tuple[str, str]]]] = [
    ("text", {}, ["\u200b", "x"], [("accepted_answers.0", "is '\\u200b', which holds no text")]),
    (
        "numeric",
        {},
        ["one", "1"],
        [
            (
                "accepted_answers.0",
                "is 'one', which is not one number, as the numeric grader needs; math reads expressions, and "
                "text compares what is written",
            )
        ],
    ),
    (
        "numeric",
        {"unit_required": True},
        ["1"],
        [("grader.numeric.unit_required", "is set without units; name at least one in units")],
    ),
    ("numeric", {"unit_required": True, "units": ["g"]}, ["1"], []),
    (
        "regex",
        {},
        ["(", "x" * 1_001, "ok", "x" * 1_000, ".*"],
        [
            ("accepted_answers.0", "is '(', which is no regular expression: missing ) at position 1"),
            (
                "accepted_answers.1",
                "is a pattern of 1,001 characters; at most 1,000 would be right",
            ),
            ("accepted_answers.4", "is '.*', which matches any text"),
        ],
    ),
    ("regex", {"full_match": True}, ["."], []),
    (
        "regex",
        {},
        ["(?<!x).*", "(?!x).*", "[a-z]|.", "."],
        [
            ("accepted_answers.2", "is '[a-z]|.', which matches any text"),
            ("accepted_answers.3", "is '.', which matches any text"),
        ],
    ),
    ("regex", {}, ["7|Z|[^\\w\\s]|\\w{4}|\u0416|\u7b54"], []),
    (
        "regex",
        {"ignore_case": True},
        ["7|z|Q|[^\\w\\s]|\u0436|\u7b54"],
        [
            ("accepted_answers.0", "is '7|z|Q|[^\\\\w\\\\s]|\u0436|\u7b54', which matches any text"),
        ],
    ),
    (
        "multiple_choice",
        {"options": ["x", "y"]},
        ["C", "(b)", "Y", " y. "],
        [("accepted_answers.0", "is 'C'; a letter from A to B or an option would be right")],
    ),
    (
        "multiple_choice",
        {"options": ["x", " ", "X.", "b", "E", "(f)"]},
        ["A"],
        [
            ("grader.multiple_choice.options.1", "is empty; a text would be right"),
            ("grader.multiple_choice.options.2", "is the same as options[0]; each must be different"),
            (
                "grader.multiple_choice.options.3",
                "is 'b', the letter of another option; words would be right",
            ),
        ],
    ),
    (
        "set",
        {},
        ["(1, 2)", " ,", "(7)", "{1, 2}", "[1, 2, 3]"],
        [
            ("accepted_answers.0", f"is '(1, 2)', {ORDERED}"),
            ("accepted_answers.1", "is ' ,', which holds no entry"),
            ("accepted_answers.4", f"is '[1, 2, 3]', {ORDERED}"),
        ],
    ),
    (
        "contains",
        {},
        ["$", "a"],
        [
            (
                "accepted_answers.0",
                "is '$', which nearly any answer holds; a text with a letter, a digit or a symbol would be "
                "right",
            )
        ],
    ),
    (
        "token_f1",
        {},
        ["the", "a", "the cat"],
        [("accepted_answers.0", "is 'the', of which punctuation and articles leave no word to compare")],
    ),
    (
        "json_schema",
        {"schema": {"type": "object"}},
        ["NaN", '{"a":1,"a":2}', "x" * 70],
        [
            ("accepted_answers.0", "is 'NaN', which is not JSON: NaN is not JSON"),
            (
                "accepted_answers.1",
                'is \'{"a":1,"a":2}\', which is not JSON: a name stands twice in an object',
            ),
            (
                "accepted_answers.2",
                f"is '{'x' * 60}', which is not JSON: Expecting value: line 1 column 1 (char 0)",
            ),
        ],
    ),
    (
        "json_schema",
        {"schema": {}},
        [],
        [("grader.json_schema.schema", "is empty, and would allow anything; a JSON Schema would be right")],
    ),
    (
        "json_schema",
        {"schema": {"const": "x" * 65_525}},
        [],
        [("grader.json_schema.schema", "has 65,537 bytes; at most 65,536 would be right")],
    ),
    ("json_schema", {"schema": {"const": "x" * 65_524}}, ["1"], []),
    (
        "json_schema",
        {"schema": {"properties": {"a": {"type": 3}}}},
        [],
        [
            (
                "grader.json_schema.schema",
                "is no JSON Schema: properties.a.type: 3 is not valid under any of the given schemas",
            )
        ],
    ),
    (
        "math",
        {},
        [r"\frac{1}{2", "1/2"],
        [
            (
                "accepted_answers.0",
                r"is '\\frac{1}{2', which the math grader cannot read: it ends too early",
            )
        ],
    ),
    (
        "judge",
        {"model": "m", "prompt": "x"},
        ["1"],
        [
            ("grader.judge.prompt", "does not hold {question}, which stands for what the judge must see"),
            ("grader.judge.prompt", "does not hold {answer}, which stands for what the judge must see"),
            (
                "grader.judge.prompt",
                "does not hold {accepted}, so the item's accepted answers would not be shown",
            ),
        ],
    ),
    ("judge", {"model": "m", "prompt": "{question}{answer}"}, [], []),
    ("judge", {"model": "m", "prompt": "{question}{answer}{accepted}"}, ["1"], []),
]


@pytest.mark.parametrize(("kind", "settings", "accepted", "problems"), PROBLEMS)
def test_what_is_wrong_with_an_item_word_by_word(
    kind: str, settings: dict[str, Any], accepted: list[str], problems: list[tuple[str, str]]
) -> None:
    found = GRADING.problems(item(kind, settings, accepted))
    assert [(".".join(map(str, path)), what) for path, what in found] == problems
