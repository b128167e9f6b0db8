"""How long work shows how far it has come: live bars, a plain line now and then, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from tunix_rt.cli import text

# Seconds between two plain lines about the same work.
_LINE_INTERVAL = 10.0


class Bar(Protocol):
    """One piece of work."""

    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        """Shows that ``completed`` of ``total`` units are done; ``total`` None or 0 means that it is unknown.

        ``detail`` is a word on how it goes; ``seconds_left`` replaces the reporter's own estimate.
        """
        ...

    def finish(self, detail: str | None = None) -> None:
        """The work is done: the bar is full. ``detail`` replaces the last one."""
        ...

    def stop(self, detail: str) -> None:
        """The work ended before it was done."""
        ...


class Reporter(Protocol):
    """Where bars are shown. A context manager."""

    def bar(self, description: str, total: int | None = None, unit: str = "") -> Bar:
        """Begins a piece of work of ``total`` units."""
        ...

    def note(self, line: str) -> None:
        """A line that stays, above the bars."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SilentReporter:
    """Shows nothing."""

    def bar(self, description: str, total: int | None = None, unit: str = "") -> Bar:  # noqa: ARG002
        return _SilentBar()

    def note(self, line: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _SilentBar:
    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        pass

    def finish(self, detail: str | None = None) -> None:
        pass

    def stop(self, detail: str) -> None:
        pass


class LineReporter:
    """A line when work begins and ends, and one every ten seconds between."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    def bar(self, description: str, total: int | None = None, unit: str = "") -> Bar:
        return _LineBar(self, description, total, unit, self._clock)

    def note(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _LineBar:
    def __init__(
        self,
        reporter: LineReporter,
        description: str,
        total: int | None,
        unit: str,
        clock: Callable[[], float],
    ) -> None:
        self._reporter = reporter
        self._description = description
        self._completed = 0
        self._total = total or None
        self._unit = unit
        self._detail = ""
        self._clock = clock
        self._begun = self._said = clock()

    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        self._completed, self._total, self._detail = completed, total or self._total, detail
        now = self._clock()
        if now - self._said >= _LINE_INTERVAL:
            self._said = now
            left = f", {text.duration(seconds_left)} left" if seconds_left else ""
            self._say(f"{detail}{left}".lstrip(", "))

    def finish(self, detail: str | None = None) -> None:
        self._completed = self._total or self._completed
        self._end(self._detail if detail is None else detail)

    def stop(self, detail: str) -> None:
        self._end(detail)

    def _end(self, detail: str) -> None:
        took = text.duration(self._clock() - self._begun)
        self._say(f"{detail}, {took}" if detail else took)

    def _say(self, tail: str) -> None:
        amount = _amount(self._completed, self._total, self._unit)
        self._reporter.note(" ".join(part for part in (f"{self._description}:", amount, tail) if part))


class LiveReporter:
    """Bars that move, for a terminal. A bar that is finished stays."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]", table_column=_whole()),
            TextColumn("{task.description}", markup=False, table_column=_whole()),
            BarColumn(bar_width=20, table_column=_whole()),
            _AmountColumn(table_column=_whole()),
            _TimeColumn(table_column=_whole()),
            _DetailColumn(),
            console=console,
        )

    def bar(self, description: str, total: int | None = None, unit: str = "") -> Bar:
        return _LiveBar(self._progress, description, total, unit)

    def note(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class _LiveBar:
    def __init__(self, progress: Progress, description: str, total: int | None, unit: str) -> None:
        self._progress = progress
        self._task = progress.add_task(
            description, total=total or None, unit=unit, detail="", seconds_left=None
        )

    def update(
        self,
        completed: int,
        total: int | None = None,
        *,
        detail: str = "",
        seconds_left: float | None = None,
    ) -> None:
        known = self._progress.tasks[self._task].total
        self._progress.update(
            self._task, completed=completed, total=total or known, detail=detail, seconds_left=seconds_left
        )

    def finish(self, detail: str | None = None) -> None:
        task = self._progress.tasks[self._task]
        total = task.total if task.total else max(task.completed, 1)
        shown = task.fields["detail"] if detail is None else detail
        self._progress.update(
            self._task, completed=total, total=total, detail=shown, seconds_left=None, unknown=not task.total
        )

    def stop(self, detail: str) -> None:
        self._progress.update(self._task, detail=detail, seconds_left=None)
        self._progress.stop_task(self._task)


def _whole() -> Column:
    """A column that does not give way where the window is narrow."""
    return Column(no_wrap=True)


class _DetailColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["detail"], style="dim", no_wrap=True, overflow="ellipsis")


class _AmountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.fields.get("unknown") and not task.fields["unit"]:
            return Text("")
        total = None if task.total is None or task.fields.get("unknown") else int(task.total)
        return Text(_amount(int(task.completed), total, task.fields["unit"]), style="cyan")


class _TimeColumn(ProgressColumn):
    # Looked at less often than it is drawn, so that the estimate does not flicker.
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished or task.stop_time is not None:
            return Text(text.duration(task.finished_time or task.elapsed or 0.0), style="dim")
        left = task.fields["seconds_left"]
        if left is None:
            left = task.time_remaining
        if left is None:
            return Text(text.duration(task.elapsed or 0.0), style="dim")
        return Text(f"{text.duration(left)} left", style="dim")


def _amount(completed: int, total: int | None, unit: str) -> str:
    if total:
        return f"{completed:,}/{total:,} {unit}".rstrip()
    return f"{completed:,} {unit}".rstrip() if completed or unit else ""
