"""Figures, times and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SPARKS = "▁▂▃▄▅▆▇█"
_DIGEST_HEAD = 12
_MINUTE = 60
_HOUR = 3600
_KIBI = 1024


def examples(*commands: str) -> str:
    """The examples at the end of a command's help, one a line."""
    if not commands:
        raise ValueError("a command needs at least one example")
    label = "Example" if len(commands) == 1 else "Examples"
    # A blank line between lines is what keeps them apart: single line breaks are joined in help texts.
    return "\n\n".join([f"[bold]{label}:[/bold]", *(f"  [cyan]{command}[/cyan]" for command in commands)])


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """The last ``width`` values as bars of eight heights. Values that are not finite are left out."""
    shown = [value for value in values[-width:] if math.isfinite(value)]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    spread = (high - low) or 1.0
    return "".join(_SPARKS[round((value - low) / spread * (len(_SPARKS) - 1))] for value in shown)


def duration(seconds: float) -> str:
    """Such as `0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def age(seconds: float) -> str:
    """Such as `4 s`, `5 min`, `3 h` or `12 d`."""
    for unit, length in (("d", 24 * _HOUR), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def size(bytes_: int) -> str:
    """Such as `812 B`, `3.4 KiB` or `257.1 MiB`."""
    value = float(bytes_)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIBI:
            return f"{bytes_} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIBI
    return f"{value:.1f} TiB"


def count(number: int) -> str:
    """With thousands separators."""
    return f"{number:,}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Such as `1 trace` or `7,473 traces`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def amount(number: int, units: str) -> str:
    """Such as `1 eval set` or `3 eval sets`, of a unit that is given in the plural."""
    return f"{number:,} {units.removesuffix('s') if number == 1 else units}".rstrip()


def percent(fraction: float) -> str:
    """Such as `24.5%`."""
    return f"{100 * fraction:.1f}%"


def p_value(value: float) -> str:
    """Such as `p = 0.032` or `p = 1.2e-07`."""
    return f"p = {value:.3f}" if value >= 0.001 else f"p = {value:.1e}"


def short_digest(digest: str) -> str:
    """The first twelve hex digits of a `sha256:` digest; a dash when there is none."""
    return digest.removeprefix("sha256:")[:_DIGEST_HEAD] or "-"


def one_line(text: str, width: int) -> str:
    """The text with its white space joined, cut with an ellipsis at ``width`` characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= width else joined[: width - 1].rstrip() + "…"


def last_of_line(text: str, width: int) -> str:
    """As ``one_line``, but cut at its beginning: the end of an answer is what counts."""
    joined = " ".join(text.split())
    return joined if len(joined) <= width else "…" + joined[1 - width :].lstrip()


def ends_of_line(text: str, width: int) -> str:
    """As ``one_line``, but cut in its middle: of a long question, or a conversation, both ends count."""
    joined = " ".join(text.split())
    head = width // 3
    return (
        joined
        if len(joined) <= width
        else f"{joined[:head].rstrip()} … {joined[head + 3 - width :].lstrip()}"
    )


def enum_label(name: str, prefix: str) -> str:
    """An enum's value as people read it: `STATE_SUCCEEDED` is `succeeded`."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def interval(lower: float, upper: float) -> str:
    """Such as `18.8% to 34.3%`."""
    return f"{percent(lower)} to {percent(upper)}"


def signed_points(difference: float) -> str:
    """A difference of two shares in percentage points, such as `+22.5 points`."""
    # Adding 0 makes a zero positive.
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"
