"""Files of traces and of eval items."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.traces import trace
from tunix_rt import v1
from tunix_rt.formats import (
    FormatError,
    eval_items_from_traces,
    read_eval_items,
    read_traces,
    trace_from_json,
    trace_to_json,
)

NATIVE: dict[str, Any] = {
    "trace_version": "1.0",
    "prompt": "What is 1 + 1?",
    "steps": [{"i": 0, "type": "compute", "content": "1 + 1 = 2"}],
    "final_answer": "2",
}
STEP = NATIVE["steps"][0]
ITEM: dict[str, Any] = {"id": "a", "prompt": "1 + 1?", "accepted_answers": ["2"], "grader": "numeric"}


def lines(*rows: Any) -> io.BytesIO:
    return io.BytesIO(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))


def refusal(row: Any) -> str:
    with pytest.raises(FormatError) as caught:
        list(read_traces(lines(NATIVE, row), "native"))
    assert caught.value.line == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_native_traces_are_read_with_all_their_fields() -> None:
    row = NATIVE | {"metadata": {"a": [1, 2.5, None, True, {"b": "c"}]}, "source": "mine"}
    read = list(read_traces(lines(row)))
    expected = v1.Trace(
        trace_version="1.0",
        prompt="What is 1 + 1?",
        steps=[v1.TraceStep(i=0, type="compute", content="1 + 1 = 2")],
        final_answer="2",
        source="mine",
    )
    expected.metadata.update(row["metadata"])
    assert read == [expected]
    assert json.loads(trace_to_json(read[0])) == row


def test_what_the_server_wrote_is_read_and_left_out() -> None:
    row = NATIVE | {"name": "traces/x", "sequence": "7", "content_digest": "sha256:0", "create_time": "now"}
    assert list(read_traces(lines(row))) == list(read_traces(lines(NATIVE)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), JSON)
def test_a_trace_survives_the_way_to_json_and_back(prompt: str, value: Any) -> None:
    written = trace(1, prompt=prompt, metadata={"value": value})
    assert trace_from_json(trace_to_json(written)) == written


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'{"prompt": 1', "line 2: not JSON: Expecting ',' delimiter at character 13"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 13"),
        (NATIVE | {"promt": "x"}, "promt: unknown key; did you mean 'prompt'?"),
        (
            {**NATIVE, "steps": [STEP | {"contnt": "x"}]},
            "steps[0].contnt: unknown key; did you mean 'content'?",
        ),
        (NATIVE | {"prompt": ""}, "prompt: is empty"),
        (NATIVE | {"prompt": None}, "prompt: is null; expected string"),
        (NATIVE | {"prompt": "x" * 50_001}, "prompt: has 50,001 characters; at most 50,000 are allowed"),
        (NATIVE | {"final_answer": 2}, "final_answer: is 2 (a number); expected string"),
        (NATIVE | {"steps": []}, "steps: needs at least 1"),
        (NATIVE | {"steps": [STEP] * 1001}, "steps: has more than 1,000 entries"),
        (NATIVE | {"steps": [STEP, STEP]}, "steps[1].i: is 0, as in steps[0]"),
        (NATIVE | {"steps": [STEP | {"i": -1}]}, "steps[0].i: is -1 (a number); it should be greater than"),
        (NATIVE | {"steps": [STEP | {"i": 2**31}]}, "steps[0].i: is 2147483648"),
        (NATIVE | {"steps": [STEP | {"content": "x" * 500_001}]}, "steps[0].content: has 500,001 characters"),
        (NATIVE | {"steps": [STEP | {"content": "a\0b"}]}, "steps[0].content: holds a NUL character"),
        (NATIVE | {"metadata": {"a": [float("nan")]}}, "metadata.a[0]: is nan; numbers are finite"),
        (NATIVE | {"metadata": {"id": 2**53 + 1}}, "metadata.id: is 9007199254740993, too large"),
        (NATIVE | {"metadata": {"a\0": 1}}, "holds a NUL character"),
        (NATIVE | {"metadata": 5}, "metadata: is 5"),
        (NATIVE | {"prompt": "\ud800"}, "line 2: not JSON"),
        (
            NATIVE | {"steps": [STEP | {"i": i, "content": "x" * 20_000} for i in range(60)]},
            "at most 1 MiB is allowed",
        ),
        ([1], "is [1]"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(row: Any, said: str) -> None:
    assert said in refusal(row)


def test_every_wrong_field_of_a_line_is_named() -> None:
    with pytest.raises(FormatError) as caught:
        trace_from_json(json.dumps(NATIVE | {"prompt": "", "final_answer": ""}))
    assert [violation.field for violation in caught.value.field_violations] == ["prompt", "final_answer"]
    assert str(caught.value) == "prompt: is empty (and 1 more)"


def test_deep_nesting_is_refused_before_protobuf_chokes_on_it() -> None:
    value: Any = 1
    for _ in range(31):
        value = {"a": value}
    assert "nested more than 30 levels" in refusal(NATIVE | {"metadata": {"deep": value}})
    value = 1
    for _ in range(29):
        value = {"a": value}
    (read,) = read_traces(lines(NATIVE | {"metadata": {"deep": value}}))
    assert v1.TraceBatch.FromString(v1.TraceBatch(traces=[read]).SerializeToString()).traces[0] == read


def test_lines_before_a_wrong_one_are_handed_out_and_blank_lines_counted(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    row = json.dumps(NATIVE)
    file.write_bytes(f"\ufeff{row}\r\n\n{row}\n{{\n".encode())
    reader = read_traces(file)
    assert next(reader) == next(reader)
    with pytest.raises(FormatError, match=r"traces\.jsonl, line 4: not JSON"):
        next(reader)


def test_standard_input_and_text_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = lines(NATIVE)

    monkeypatch.setattr("sys.stdin", Stdin)
    assert list(read_traces("-")) == list(read_traces(io.StringIO(json.dumps(NATIVE))))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nope: no such file"):
        list(read_traces(tmp_path / "nope"))
    with pytest.raises(FormatError, match="is a folder; give a file"):
        list(read_traces(tmp_path))


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt.formats.lines.MAX_LINE_BYTES", 100)
    with pytest.raises(FormatError, match="line 1: is longer than"):
        list(read_traces(io.BytesIO(b"x" * 101)))


def test_gsm8k_answers_become_steps() -> None:
    answer = "She had 3*2 = <<3*2=6>>6 eggs.\n\nThat is a lot.\n#### 1,006"
    (read,) = read_traces(lines({"question": "How many?", "answer": answer}))
    assert [(step.i, step.type, step.content) for step in read.steps] == [
        (0, "compute", "She had 3*2 = 6 eggs."),
        (1, "reason", "That is a lot."),
    ]
    assert (read.prompt, read.final_answer, read.source) == ("How many?", "1006", "gsm8k")
    assert not read.metadata.fields


def test_gsm8k_lines_keep_their_white_space_and_end_at_line_feeds_alone() -> None:
    answer = "a\u2028b\x85c\x0bd\x0ce\x1cf\n\tif x:\r\n\t\ty \n \nso #### 7"
    (read,) = read_traces(lines({"question": " q\n", "answer": answer}))
    assert [step.content for step in read.steps] == [
        "a\u2028b\x85c\x0bd\x0ce\x1cf",
        "\tif x:",
        "\t\ty ",
        "so",
    ]
    assert (read.prompt, read.final_answer) == (" q\n", "7")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("no mark", "answer: does not end in `#### N`"),
        ("a\n####", "answer: does not end in `#### N`"),
        ("#### 5", "answer: has no reasoning before `####`"),
        ("a\n" * 1001 + "#### 5", "answer: has 1,001 reasoning lines"),
    ],
)
def test_a_wrong_gsm8k_answer_is_named(answer: str, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        list(read_traces(lines({"question": "q", "answer": answer}), "gsm8k"))
    assert said in str(caught.value)


def test_rows_of_a_dataset_are_traces_again() -> None:
    row = {
        "id": "0" * 64,
        "prompts": "1 + 1?",
        "trace_steps": [STEP],
        "final_answer": "2",
        "metadata": {"a": 1},
    }
    (read,) = read_traces(lines(row))
    assert (read.prompt, read.final_answer, read.steps[0].content) == ("1 + 1?", "2", "1 + 1 = 2")


def test_an_unknown_format_shows_what_is_there() -> None:
    with pytest.raises(FormatError, match="unknown format: its keys are input, output; expected prompt"):
        list(read_traces(lines({"input": 1, "output": 2})))
    with pytest.raises(FormatError, match="expected a JSON object"):
        list(read_traces(lines([1])))


def test_eval_items_are_read_with_all_their_fields() -> None:
    row = ITEM | {
        "accepted_answers": ["2", "two"],
        "tolerance": 0.5,
        "category": "arithmetic",
        "difficulty": "easy",
        "cluster": "c",
        "metadata": {"a": 1},
    }
    item, other = read_eval_items(lines(row, ITEM | {"id": "b", "prompt": "q", "grader": "text"}))
    assert item.grader.numeric.tolerance == 0.5
    assert (item.id, item.prompt, list(item.accepted_answers)) == ("a", "1 + 1?", ["2", "two"])
    assert (item.category, item.difficulty, item.cluster, dict(item.metadata)) == (
        "arithmetic",
        "easy",
        "c",
        {"a": 1},
    )
    assert other.grader.WhichOneof("kind") == "text"


def test_graders_are_read_with_their_settings() -> None:
    graders: list[Any] = [
        "math",
        {"kind": "multiple_choice", "options": ["x", "y"]},
        {"kind": "json_schema", "schema": {"type": "object", "minProperties": 1}},
        {"kind": "format", "reasoning_style": "answer-only"},
        {"kind": "numeric", "relative_tolerance": 0.1, "units": ["kg"], "unit_required": True},
    ]
    rows = [ITEM | {"id": str(n), "prompt": str(n), "grader": grader} for n, grader in enumerate(graders)]
    del rows[3]["accepted_answers"]
    read = [item.grader for item in read_eval_items(lines(*rows))]
    assert [grader.WhichOneof("kind") for grader in read] == [
        *("math", "multiple_choice", "json_schema", "format", "numeric")
    ]
    assert list(read[1].multiple_choice.options) == ["x", "y"]
    assert read[2].json_schema.schema["minProperties"] == 1
    assert read[3].format.reasoning_style == v1.REASONING_STYLE_ANSWER_ONLY
    assert (read[4].numeric.relative_tolerance, read[4].numeric.unit_required) == (0.1, True)


def test_the_built_in_eval_set_is_read_by_its_name() -> None:
    items = read_eval_items("eval_v1")
    assert len(items) == 25
    assert len({item.prompt for item in items}) == 25


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ITEM, ITEM | {"prompt": "x"}], "line 2: id: is the same as on line 1"),
        ([ITEM, ITEM | {"id": "x"}], "line 2: prompt: is the same as on line 1"),
        (
            [ITEM | {"grader": "fuzzy"}],
            "grader: kind is 'fuzzy', which is no grader; known are contains, format",
        ),
        (
            [ITEM | {"grader": "numerik"}],
            "grader: kind is 'numerik', which is no grader; did you mean 'numeric'?",
        ),
        ([ITEM | {"grader": 3}], "grader: is 3; the name of a kind"),
        ([ITEM | {"grader": {}}], "grader: kind is missing; one of numeric, text"),
        (
            [ITEM | {"grader": {"kind": "numeric", "tol": 1}}],
            "grader: tol is no setting of the numeric grader",
        ),
        (
            [ITEM | {"grader": {"kind": "text", "tol": 1}}],
            "tol is no setting of the text grader; it has none",
        ),
        ([ITEM | {"grader": {"kind": "numeric", "tolerance": "x"}}], "grader: tolerance is 'x': "),
        ([ITEM | {"grader": {"kind": "format", "reasoning_style": "odd"}}], "reasoning_style is 'odd'"),
        ([{key: value for key, value in ITEM.items() if key != "grader"}], "grader: is missing"),
        ([ITEM | {"grader": "text", "tolerance": 1}], "tolerance: is only for the numeric grader"),
        ([ITEM | {"tolerance": -1}], "tolerance: is -1"),
        ([ITEM | {"accepted_answers": []}], "accepted_answers: needs at least 1"),
        ([ITEM | {"accepted_answers": ["2"] * 257}], "accepted_answers: has more than 256 entries"),
        ([ITEM | {"answers": []}], "answers: unknown key; did you mean 'accepted_answers'?"),
        ([], "holds no eval items"),
    ],
)
def test_wrong_eval_items_are_named(rows: list[Any], said: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_eval_items(lines(*rows))
    assert said in str(caught.value)


def test_eval_items_out_of_traces_are_unique_and_stable() -> None:
    traces = [
        trace(1, metadata={"family": "addition", "difficulty": "easy"}),
        trace(1, final_answer="other"),
        trace(2, final_answer="blue"),
        trace(3),
    ]
    items = eval_items_from_traces(traces, 2, grader="auto")
    assert [item.accepted_answers[0] for item in items] == ["2", "blue"]
    assert [item.grader.WhichOneof("kind") for item in items] == ["numeric", "text"]
    assert (items[0].category, items[0].difficulty) == ("addition", "easy")
    again = eval_items_from_traces([traces[3], traces[0]], grader="numeric")
    assert again[1].id == items[0].id != again[0].id


@pytest.mark.parametrize("answer", ["5", "-5", "1,234.5", ".5", "3/4", "50 %", "+2"])
def test_answers_that_are_numbers_are_graded_as_numbers(answer: str) -> None:
    (item,) = eval_items_from_traces([trace(1, final_answer=answer)], grader="auto")
    assert item.grader.WhichOneof("kind") == "numeric"


def test_a_document_that_is_no_json_lines_is_told_how_to_become_some() -> None:
    with pytest.raises(FormatError, match="jq -c"):
        list(read_traces(io.BytesIO(b"{")))
