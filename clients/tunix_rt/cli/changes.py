"""Items whose verdict changed: which of them are the worst, and how a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables, text

_WIDTH = 300


def worst_first(report: v1.ComparisonReport, *, regressed: bool) -> list[v1.Flip]:
    """The items that went wrong, or right: those of which the score fell, or rose, most come first.

    Of equal ones those of the category that fell, or rose, most; then by category, question and id.
    """
    sign = 1.0 if regressed else -1.0
    of_category = {entry.category: entry.difference.difference for entry in report.categories}
    return sorted(
        (flip for flip in report.flips if flip.candidate.correct is not regressed),
        key=lambda flip: (
            sign * (flip.candidate.score - flip.base.score),
            sign * of_category.get(flip.base.category, 0.0),
            flip.base.category,
            flip.base.prompt,
            flip.base.item_id,
        ),
    )


def changed_count(report: v1.ComparisonReport, *, regressed: bool) -> int:
    """How many items went wrong, or right; those count too that did not fit into the message."""
    counted = sum(
        entry.regression_count if regressed else entry.improvement_count for entry in report.patterns
    )
    return counted or sum(flip.candidate.correct is not regressed for flip in report.flips)


def shown_changes(report: v1.ComparisonReport, most: int) -> Iterator[RenderableType]:
    """Those that went wrong, then those that went right, the worst and the best ``most`` of them."""
    for regressed, style in ((True, "red"), (False, "green")):
        flips = worst_first(report, regressed=regressed)
        if not flips or not most:
            continue
        count = changed_count(report, regressed=regressed)
        first = f", the {'worst' if regressed else 'best'} {most}" if count > most else ""
        yield Text(f"went {'wrong' if regressed else 'right'}: {count}{first}", style=f"bold {style}")
        patterns = _patterns(report, regressed=regressed)
        if patterns:
            yield Text(f"by rule: {patterns}", style="dim")
        for flip in flips[:most]:
            yield change_sheet(flip)
            yield Text()


def _patterns(report: v1.ComparisonReport, *, regressed: bool) -> str:
    counts = [
        (entry.regression_count if regressed else entry.improvement_count, entry.pattern)
        for entry in report.patterns
    ]
    ordered = sorted((pair for pair in counts if pair[0]), key=lambda pair: -pair[0])
    return ", ".join(f"{count} {pattern_label(pattern)}" for count, pattern in ordered)


def pattern_label(pattern: v1.AnswerPattern.ValueType) -> str:
    """A pattern for people; empty for that of a report of an older version."""
    return text.enum_label(v1.AnswerPattern.Name(pattern), "ANSWER_PATTERN_") if pattern else ""


def change_sheet(flip: v1.Flip, rows: Sequence[v1.NearRow] | None = None) -> RenderableType:
    """One item: its question, the accepted answers and both answers; and the training rows near it."""
    near = [
        (
            f"  row {row.row_id[:12]}",
            f"{row.similarity:.2f} alike{' by characters alone' if row.by_characters else ''}"
            f"{f', {row.category}' if row.category else ''}: "
            f"{text.one_line(row.prompt, _WIDTH)} -> {text.one_line(row.final_answer, 60)}",
        )
        for row in rows or ()
    ]
    if rows is not None and not rows:
        near = [
            (
                "  rows",
                "none: no row shares three words in a row with the question, or is like it by characters",
            )
        ]
    pattern = pattern_label(flip.pattern)
    return tables.facts(
        [
            (flip.base.item_id, text.ends_of_line(flip.base.prompt, _WIDTH)),
            ("  category", flip.base.category),
            ("  accepted", " | ".join(flip.base.accepted_answers)),
            ("  base", _answer(flip.base)),
            ("  candidate", _answer(flip.candidate)),
            (
                "  by rule",
                f"{pattern} ({'candidate' if flip.base.correct else 'base'})" if pattern else "",
            ),
            *near,
        ]
    )


def _answer(result: v1.EvaluationResult) -> str:
    """The answer; of several samples, the first with the item's verdict."""
    samples = (sample for sample in result.samples if sample.correct == result.correct)
    shown: v1.EvaluationResult | v1.Sample = next(samples, result)
    if shown.reasoning_state == v1.REASONING_STATE_UNCLOSED:
        return "(reasoning, never closed)"
    if result.error:
        return f"(nothing: {text.one_line(result.error, _WIDTH)})"
    return text.last_of_line(shown.answer or shown.output, _WIDTH) or "(nothing)"
