"""A training job as a page of HTML: its facts, its losses, and rows with what it learns of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from tunix_rt import v1
from tunix_rt.cli.dataset_preview import Example, write_page
from tunix_rt.cli.options import short_name
from tunix_rt.cli.training_view import training_facts
from tunix_rt.escapes import visible

_WIDTH: Final = 640
_HEIGHT: Final = 160


def losses_by_step(events: Iterable[v1.WatchTrainingJobResponse]) -> dict[int, float]:
    """The loss of each step; of a step that was taken again after a restart, the last."""
    found: dict[int, float] = {}
    for event in events:
        if event.HasField("metrics"):
            found[event.metrics.step] = event.metrics.loss
    return dict(sorted(found.items()))


def write_training_page(
    path: Path, job: v1.TrainingJob, losses: dict[int, float], found: Sequence[Example]
) -> None:
    """Write a page that needs nothing beside it, whole or not at all; raises OSError.

    Args:
        path: the file; what is there is replaced.
        job: the job.
        losses: as ``losses_by_step`` gives them; fewer than two finite ones are not drawn.
        found: rows of its dataset, as training examples.
    """
    title = f"What {job.display_name or short_name(job.name)} learns"
    facts = [(name, str(value)) for name, value in training_facts(job) if str(value)]
    rows = "\n".join(
        f"<tr><th>{escape(name)}</th><td>{escape(visible(value))}</td></tr>" for name, value in facts
    )
    sheet = f"<table>\n{rows}\n</table>\n{_curve(losses)}<h2>Rows, as it learns them</h2>"
    write_page(path, title, found, sheet)


def _curve(losses: dict[int, float]) -> str:
    drawn = {step: loss for step, loss in losses.items() if math.isfinite(loss)}
    if len(drawn) < 2:
        return ""
    (first, *_, last), low, high = drawn, min(drawn.values()), max(drawn.values())
    points = " ".join(
        f"{(step - first) / (last - first) * _WIDTH:.1f},{(high - loss) / ((high - low) or 1) * _HEIGHT:.1f}"
        for step, loss in drawn.items()
    )
    told = (
        f"Loss of each step, from {drawn[first]:.4f} at step {first:,} to {drawn[last]:.4f} at step {last:,}"
    )
    return (
        f'<figure>\n<svg viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}" role="img" aria-label="{told}">'
        f'<polyline fill="none" stroke="currentColor" points="{points}"/></svg>\n'
        f"<figcaption>{told}; the lowest is {low:.4f}, the highest {high:.4f}.</figcaption>\n</figure>\n"
    )
