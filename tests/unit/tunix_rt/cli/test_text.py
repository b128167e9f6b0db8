"""Figures as people read them."""

from __future__ import annotations

import math

import pytest

from tunix_rt.cli import text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (269_060_552, "256.6 MiB"), (5 << 40, "5.0 TiB")],
)
def test_size(size: int, shown: str) -> None:
    assert text.size(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")]
)
def test_age(seconds: float, shown: str) -> None:
    assert text.age(seconds) == shown


def test_sparkline_goes_from_low_to_high() -> None:
    assert text.sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert text.sparkline([3.0, 3.0]) == "▁▁"
    assert text.sparkline([]) == ""


def test_sparkline_shows_the_last_values_and_leaves_out_what_is_not_finite() -> None:
    assert text.sparkline([9.0, 1.0, 2.0], width=2) == "▁█"
    assert text.sparkline([1.0, math.nan, math.inf, 2.0]) == "▁█"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.032, "p = 0.032"), (1.0, "p = 1.000"), (1.23e-7, "p = 1.2e-07")]
)
def test_p_value(value: float, shown: str) -> None:
    assert text.p_value(value) == shown


def test_counts_and_shares() -> None:
    assert text.counted(1, "trace") == "1 trace"
    assert text.counted(7473, "trace") == "7,473 traces"
    assert text.percent(0.2451) == "24.5%"
    assert text.signed_points(-0.0123) == "-1.2 points"
    assert text.signed_points(-0.0001) == "+0.0 points"
    assert text.interval(0.1, 0.25) == "10.0% to 25.0%"


def test_one_line_joins_and_cuts() -> None:
    assert text.one_line("a\n  b\tc", 10) == "a b c"
    assert text.one_line("abcdefgh", 5) == "abcd…"


def test_digests_and_enums_are_shortened() -> None:
    assert text.short_digest("sha256:" + "ab" * 32) == "abababababab"
    assert text.short_digest("") == "-"
    assert text.enum_label("STATE_SUCCEEDED", "STATE_") == "succeeded"


def test_a_command_needs_an_example() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        text.examples()


@pytest.mark.parametrize(
    ("number", "units", "told"),
    [
        (1, "eval sets", "1 eval set"),
        (0, "items", "0 items"),
        (2_000, "rows", "2,000 rows"),
        (1, "MiB", "1 MiB"),
    ],
)
def test_one_of_something_is_no_plural(number: int, units: str, told: str) -> None:
    assert text.amount(number, units) == told
