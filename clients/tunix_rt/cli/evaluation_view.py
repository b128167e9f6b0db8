"""How an evaluation looks in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.options import short_name

GREEDY = "greedy"

_ROUNDING = 1e-9


def model_label(spec: v1.EvaluationSpec) -> str:
    """The model that a spec names, as people call it."""
    return short_name(spec.checkpoint) if spec.checkpoint else spec.endpoint_model or spec.base_model


def print_evaluation(console: Console, evaluation: v1.Evaluation) -> None:
    """An evaluation as a sheet of facts and a table of its categories."""
    spec, summary, manifest = evaluation.spec, evaluation.summary, evaluation.manifest
    done = evaluation.HasField("summary")
    console.print(
        tables.facts(
            [
                ("evaluation", evaluation.name),
                ("state", tables.state(v1.Evaluation.State.Name(evaluation.state))),
                ("error", evaluation.error.message),
                (
                    "graded again",
                    f"the answers of {short_name(evaluation.regrade.source)}"
                    if evaluation.HasField("regrade")
                    else "",
                ),
                ("eval set", f"{short_name(spec.eval_set)} ({text.short_digest(manifest.eval_set_digest)})"),
                ("model", model_label(spec)),
                ("decoding", decoding_text(spec.decoding)),
                (
                    "kept",
                    f"{text.counted(summary.cached_count, 'item')} taken from earlier evaluations; "
                    "--fresh generates them anew"
                    if summary.cached_count and not evaluation.HasField("regrade")
                    else "",
                ),
                ("accuracy", Text(_accuracy_of(evaluation), style="bold") if done else ""),
                (
                    "any sample right",
                    f"{text.counted(summary.any_correct_count, 'item')}"
                    if done and spec.decoding.samples > 1
                    else "",
                ),
                ("bounds", _bounds_text(summary)),
                (
                    "cut short",
                    f"{text.counted(summary.truncated_count, 'answer')}; "
                    "with a larger --max-new-tokens they may come to an end"
                    if summary.truncated_count
                    else "",
                ),
                *_parts(summary),
                (
                    "not run",
                    f"{text.counted(summary.failed_count, 'item')}, counted as wrong; "
                    "evaluation items --failed says why"
                    if summary.failed_count
                    else "",
                ),
                (
                    "not graded",
                    f"{text.counted(summary.ungraded_count, 'answer')}, counted as wrong; "
                    "evaluation items --ungraded says why"
                    if summary.ungraded_count
                    else "",
                ),
                (
                    "mean score",
                    f"{summary.mean_score:.3f}"
                    if done
                    and (
                        spec.decoding.samples > 1
                        or abs(summary.mean_score - summary.overall.accuracy) > _ROUNDING
                    )
                    else "",
                ),
                (
                    "reasoning marks",
                    marks_text(manifest.spec.reasoning_marks)
                    if manifest.spec.HasField("reasoning_marks")
                    else "",
                ),
                ("graders", ", ".join(manifest.graders)),
                (
                    "speed",
                    f"{summary.tokens_per_second:,.0f} tokens/s" if summary.tokens_per_second else "",
                ),
                ("stages", tables.stage_line(evaluation.stage_timings)),
                ("template", text.short_digest(manifest.chat_template_digest) if done else ""),
                ("answers", manifest.results_digest),
                ("created", tables.moment(evaluation.create_time)),
            ]
        )
    )
    if len(summary.categories) > 1:
        rows = tables.table("CATEGORY", ">CORRECT", ">ACCURACY", "95% INTERVAL")
        for entry in summary.categories:
            accuracy = entry.accuracy
            tables.add_row(
                rows,
                entry.category or "none",
                f"{accuracy.correct_count}/{accuracy.item_count}",
                text.percent(accuracy.accuracy),
                text.interval(accuracy.interval.lower, accuracy.interval.upper),
            )
        console.print(rows)


def _parts(summary: v1.EvaluationSummary) -> list[tuple[str, str]]:
    """What of the answers is reasoning, and what rests on answers that nothing marks; nothing where it is
    nothing."""
    rows = []
    if summary.reasoning_count:
        tokens = "tokens not known"
        if summary.HasField("reasoning_tokens"):
            tokens = (
                f"{summary.reasoning_tokens:,} of {summary.generated_tokens:,} tokens, "
                f"{summary.reasoning_tokens / summary.reasoning_count:,.0f} each"
            )
        rows.append(("reasoning", f"in {text.counted(summary.reasoning_count, 'answer')}: {tokens}"))
    if summary.unclosed_reasoning_count:
        rows.append(
            (
                "never closed",
                f"the reasoning of {text.counted(summary.unclosed_reasoning_count, 'answer')}, counted as "
                "wrong; evaluation items --unclosed shows them",
            )
        )
    if summary.unmarked_count:
        rows.append(
            (
                "unmarked",
                f"{text.counted(summary.unmarked_count, 'verdict')} "
                f"({summary.unmarked_correct_count:,} right) on an answer that nothing marks",
            )
        )
    return rows


def marks_text(marks: v1.ReasoningMarks) -> str:
    """Such as `<think> to </think>, opened by the prompt`."""
    if not marks.start:
        return "none: whole outputs are graded"
    return f"{marks.start} to {marks.end}" + (", opened by the prompt" if marks.opened else "")


def decoding_text(decoding: v1.Decoding) -> str:
    """Such as `greedy, at most 96 tokens, batches of 16`, or how and how often answers are drawn."""
    how = GREEDY
    if decoding.temperature:
        top_p = f", top-p {decoding.top_p:g}" if decoding.top_p < 1 else ""
        how = f"sampled at temperature {decoding.temperature:g}{top_p}, seed {decoding.seed}"
        if decoding.samples > 1:
            how += f", {decoding.samples} samples of each item"
    return f"{how}, at most {decoding.max_new_tokens} tokens, batches of {decoding.batch_size}"


def _accuracy_of(evaluation: v1.Evaluation) -> str:
    found = accuracy_text(evaluation.summary.overall)
    samples = evaluation.spec.decoding.samples
    return f"{found}, by most of {samples} samples" if samples > 1 else found


def _bounds_text(summary: v1.EvaluationSummary) -> str:
    """The accuracy with what is not settled all wrong and all right; empty where all is."""
    count, low, high = summary.overall.item_count, summary.worst_correct_count, summary.best_correct_count
    if low == high:
        return ""
    return (
        f"{text.percent(low / count)} to {text.percent(high / count)}, had answers that were cut short, "
        "not run or not graded all been wrong, or all right"
    )


def accuracy_text(accuracy: v1.Accuracy) -> str:
    """Such as `31 of 120 right, 25.8% (95% interval 18.8% to 34.3%)`."""
    bounds = text.interval(accuracy.interval.lower, accuracy.interval.upper)
    return (
        f"{accuracy.correct_count:,} of {accuracy.item_count:,} right, {text.percent(accuracy.accuracy)} "
        f"(95% interval {bounds})"
    )
