"""Trace filters as they are typed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer
from google.protobuf.json_format import MessageToDict

from tunix_rt.cli.filter_options import FilterOptions


def test_no_filter_is_no_message() -> None:
    assert FilterOptions().filter() is None


def test_filter_reads_typed_values() -> None:
    made = FilterOptions(
        ["gsm8k"], "apples", ["grade=3", "ok=true", "note=three", "id", "list=[1]", "eq=a=b"]
    ).filter()
    assert made is not None
    assert MessageToDict(made) == {
        "sources": ["gsm8k"],
        "promptContains": "apples",
        "metadata": [
            {"key": "grade", "equals": 3.0},
            {"key": "ok", "equals": True},
            {"key": "note", "equals": "three"},
            {"key": "id", "exists": True},
            {"key": "list", "equals": "[1]"},
            {"key": "eq", "equals": "a=b"},
        ],
    }


def test_filter_needs_a_key() -> None:
    with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
        FilterOptions(where=["=3"]).filter()


def test_every_option_is_in_the_filter() -> None:
    made = FilterOptions(
        source=["a"],
        contains="b",
        where=["c=1"],
        without=["d"],
        created_after="2026-01-31T12:00Z",
        created_before="2026-02-01T00:00+02:00",
        min_score=["structure=80", "mine=-0.5"],
        is_conversation=False,
        has_tool_calls=True,
        min_assistant_turns=2,
        max_assistant_turns=9,
    ).filter()
    assert made is not None
    assert MessageToDict(made) == {
        "sources": ["a"],
        "promptContains": "b",
        "metadata": [{"key": "c", "equals": 1.0}, {"key": "d", "exists": False}],
        "createdFrom": "2026-01-31T12:00:00Z",
        "createdBefore": "2026-01-31T22:00:00Z",
        "scores": [{"criterion": "structure", "minimum": 80.0}, {"criterion": "mine", "minimum": -0.5}],
        "isConversation": False,
        "hasToolCalls": True,
        "minAssistantTurns": 2,
        "maxAssistantTurns": 9,
    }
    assert {field.name for field, _ in made.ListFields()} == set(made.DESCRIPTOR.fields_by_name)


def test_no_conversations_is_a_filter() -> None:
    made = FilterOptions(is_conversation=False).filter()
    assert made is not None
    assert made.HasField("is_conversation")


@pytest.mark.parametrize(
    ("given", "age"),
    [
        ("30s", timedelta(seconds=30)),
        ("10min", timedelta(minutes=10)),
        ("3 h", timedelta(hours=3)),
        ("2d", timedelta(days=2)),
    ],
)
def test_an_age_is_a_time_before_now(given: str, age: timedelta) -> None:
    before = datetime.now(UTC)
    made = FilterOptions(created_after=given).filter()
    assert made is not None
    moment = made.created_from.ToDatetime(tzinfo=UTC)
    assert before - age <= moment <= datetime.now(UTC) - age


def test_a_time_without_a_zone_is_local() -> None:
    made = FilterOptions(created_before="2026-01-31").filter()
    assert made is not None
    local = datetime(2026, 1, 31).astimezone(UTC)
    assert made.created_before.ToDatetime(tzinfo=UTC) == local


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01", "5", "99999999999999d", ""])
def test_what_is_no_time_is_refused(given: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"--created-after .* is no time; give 2026-01-31"):
        FilterOptions(created_after=given).filter()


@pytest.mark.parametrize("given", ["structure", "structure=", "=5", "structure=high", "structure=nan"])
def test_what_is_no_score_is_refused(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="CRITERION=VALUE"):
        FilterOptions(min_score=[given]).filter()
