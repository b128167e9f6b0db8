"""How an evaluation looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.labels import label_facts
from tunix_rt.cli.options import short_name

GREEDY = "greedy"

_ROUNDING = 1e-9


def model_label(spec: v1.EvaluationSpec) -> str:
    """The model that a spec names, as people call it."""
    return short_name(spec.checkpoint) if spec.checkpoint else spec.endpoint_model or spec.base_model


def dtype_text(spec: v1.EvaluationSpec) -> str:
    """The type of weights and activations; an endpoint's model has its own."""
    if spec.endpoint_model:
        return "-"
    return v1.Dtype.Name(spec.dtype).removeprefix("DTYPE_").replace("UNSPECIFIED", "AUTO").lower()


def how_answered(evaluation: v1.Evaluation) -> str:
    """On one line what can make two evaluations of a model differ: decoding, a regrade, and the template."""
    spec = evaluation.spec
    decoding = spec.decoding
    facts = [GREEDY]
    if decoding.temperature:
        facts = [f"T {decoding.temperature:g}", f"seed {decoding.seed}"]
        facts += [f"top-p {decoding.top_p:g}"] * (decoding.top_p < 1)
        facts += [f"{decoding.samples} samples"] * (decoding.samples > 1)
    facts.append(text.counted(decoding.max_new_tokens, "token"))
    if evaluation.HasField("regrade"):
        grader = evaluation.regrade.grader.WhichOneof("kind")
        facts.insert(0, f"regraded{f' ({grader})' if grader else ''}")
    return ", ".join(facts)


def briefly_answered(evaluation: v1.Evaluation) -> str:
    """The beginning of ``how_answered``, such as `greedy` or, with a seed of 7, `t=0.7 s=7`."""
    decoding = evaluation.spec.decoding
    if evaluation.HasField("regrade"):
        return "regraded"
    return f"t={decoding.temperature:g} s={decoding.seed}" if decoding.temperature else GREEDY


def print_evaluation(console: Console, evaluation: v1.Evaluation) -> None:
    """An evaluation as a sheet of facts and a table of its categories."""
    summary = evaluation.summary
    facts = [
        *_asked(evaluation),
        *_outcome(evaluation),
        *_reasoning(summary),
        *_without_verdict(summary),
        *_origin(evaluation),
    ]
    console.print(tables.facts(facts))
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


def _asked(evaluation: v1.Evaluation) -> Iterator[tuple[str, str | Text]]:
    """Which model was asked what, and how."""
    spec, cached = evaluation.spec, evaluation.summary.cached_count
    yield "evaluation", evaluation.name
    yield from label_facts(evaluation)
    yield "state", tables.state(v1.Evaluation.State.Name(evaluation.state))
    yield "error", evaluation.error.message
    regraded = evaluation.HasField("regrade")
    if regraded:
        yield "graded again", f"the answers of {short_name(evaluation.regrade.source)}"
    digest = text.short_digest(evaluation.manifest.eval_set_digest)
    if evaluation.regrade.HasField("grader"):
        yield "eval set", short_name(spec.eval_set)
        yield "items graded", f"digest {digest}, of the items with that grader in place of their own"
    else:
        yield "eval set", f"{short_name(spec.eval_set)} ({digest})"
    yield "model", model_label(spec)
    yield "dtype", dtype_text(spec)
    yield "decoding", decoding_text(spec.decoding)
    if cached and not regraded:
        items = text.counted(cached, "item")
        yield "kept", f"{items} taken from earlier evaluations; --fresh generates them anew"


def _outcome(evaluation: v1.Evaluation) -> Iterator[tuple[str, str | Text]]:
    """How many answers are right, and how sure that is."""
    summary, samples = evaluation.summary, evaluation.spec.decoding.samples
    if evaluation.HasField("summary"):
        yield "accuracy", Text(_accuracy_of(evaluation), style="bold")
        if samples > 1:
            yield "any sample right", text.counted(summary.any_correct_count, "item")
    yield "bounds", _bounds_text(summary)
    if summary.truncated_count:
        answers = text.counted(summary.truncated_count, "answer")
        yield "cut short", f"{answers}; with a larger --max-new-tokens they may come to an end"


def _without_verdict(summary: v1.EvaluationSummary) -> Iterator[tuple[str, str]]:
    """Items that count as wrong because they have no answer or no grade."""
    if summary.failed_count:
        items = text.counted(summary.failed_count, "item")
        yield "not run", f"{items}, counted as wrong; evaluation items --failed says why"
    if summary.ungraded_count:
        answers = text.counted(summary.ungraded_count, "answer")
        yield "not graded", f"{answers}, counted as wrong; evaluation items --ungraded says why"


def _origin(evaluation: v1.Evaluation) -> Iterator[tuple[str, str]]:
    """How the answers were graded, how fast they came, and what identifies them."""
    summary, manifest = evaluation.summary, evaluation.manifest
    done = evaluation.HasField("summary")
    graded = abs(summary.mean_score - summary.overall.accuracy) > _ROUNDING
    if done and (graded or evaluation.spec.decoding.samples > 1):
        yield "mean score", f"{summary.mean_score:.3f}"
    if manifest.spec.HasField("reasoning_marks"):
        yield "reasoning marks", marks_text(manifest.spec.reasoning_marks)
    yield "graders", ", ".join(manifest.graders)
    if summary.tokens_per_second:
        yield "speed", f"{summary.tokens_per_second:,.0f} tokens/s"
    yield "stages", tables.stage_line(evaluation.stage_timings)
    if done:
        yield "template", text.short_digest(manifest.chat_template_digest)
    yield "answers", manifest.results_digest
    yield "created", tables.moment(evaluation.create_time)
    yield "deleted", tables.deleted(evaluation)


def _reasoning(summary: v1.EvaluationSummary) -> Iterator[tuple[str, str]]:
    """How much of the answers is reasoning, and how many verdicts rest on an answer without a mark."""
    if summary.reasoning_count:
        tokens = "tokens not known"
        if summary.HasField("reasoning_tokens"):
            tokens = (
                f"{summary.reasoning_tokens:,} of {summary.generated_tokens:,} tokens, "
                f"{summary.reasoning_tokens / summary.reasoning_count:,.0f} each"
            )
        yield "reasoning", f"in {text.counted(summary.reasoning_count, 'answer')}: {tokens}"
    if summary.unclosed_reasoning_count:
        answers = text.counted(summary.unclosed_reasoning_count, "answer")
        yield (
            "never closed",
            f"the reasoning of {answers}, counted as wrong; evaluation items --unclosed shows them",
        )
    if summary.unmarked_count:
        verdicts = text.counted(summary.unmarked_count, "verdict")
        right = f"{summary.unmarked_correct_count:,} right"
        yield "unmarked", f"{verdicts} ({right}) on an answer that nothing marks"


def marks_text(marks: v1.ReasoningMarks) -> str:
    """Such as `<think> to </think>, opened by the prompt`."""
    if not marks.start:
        return "none: whole outputs are graded"
    return f"{marks.start} to {marks.end}" + (", opened by the prompt" if marks.opened else "")


def decoding_text(decoding: v1.Decoding) -> str:
    """Such as `greedy, at most 96 tokens, batches of 16`, or how answers are sampled, and how many."""
    how = GREEDY
    if decoding.temperature:
        top_p = f", top-p {decoding.top_p:g}" if decoding.top_p < 1 else ""
        how = f"sampled at temperature {decoding.temperature:g}{top_p}, seed {decoding.seed}"
        if decoding.samples > 1:
            how += f", {decoding.samples} samples of each item"
    return (
        f"{how}, at most {text.counted(decoding.max_new_tokens, 'token')}, batches of {decoding.batch_size}"
    )


def _accuracy_of(evaluation: v1.Evaluation) -> str:
    found = accuracy_text(evaluation.summary.overall)
    samples = evaluation.spec.decoding.samples
    return f"{found}, by most of {samples} samples" if samples > 1 else found


def _bounds_text(summary: v1.EvaluationSummary) -> str:
    """The accuracy if all that is unsettled were wrong, and if it were right; empty if nothing is."""
    count, low, high = summary.overall.item_count, summary.worst_correct_count, summary.best_correct_count
    if low == high:
        return ""
    return (
        f"{text.percent(low / count)} to {text.percent(high / count)}, if answers that were cut short, "
        "not run or not graded were all wrong, or all right"
    )


def accuracy_text(accuracy: v1.Accuracy) -> str:
    """Such as `31 of 120 right, 25.8% (95% interval 18.8% to 34.3%)`."""
    bounds = text.interval(accuracy.interval.lower, accuracy.interval.upper)
    return (
        f"{accuracy.correct_count:,} of {accuracy.item_count:,} right, {text.percent(accuracy.accuracy)} "
        f"(95% interval {bounds})"
    )


def print_items(console: Console, found: Sequence[v1.EvaluationResult], *, samples: bool) -> None:
    """Answers as a table; with ``samples`` every sample stands below its item."""
    rows = tables.table(
        "ITEM",
        "!GRADE",
        "~PROMPT",
        "~OUTPUT",
        "~ANSWER",
        "ACCEPTED",
        important=("GRADE", "OUTPUT", "ACCEPTED"),
    )
    for result in found:
        tables.add_row(
            rows,
            result.item_id,
            _grade(result),
            text.ends_of_line(result.prompt, 160),
            _output(result),
            text.one_line(result.grade_error or result.error or result.extracted_answer, 160) or "-",
            text.one_line(" | ".join(result.accepted_answers), 24),
        )
        for number, sample in enumerate(result.samples if samples else ()):
            tables.add_row(
                rows,
                f"  sample {number}",
                _grade(sample),
                "",
                _output(sample),
                text.one_line(sample.grade_error or sample.extracted_answer, 160) or "-",
                "",
            )
    tables.print_table(console, rows, "no items")


def _output(answer: v1.EvaluationResult | v1.Sample) -> str:
    """The text of an answer, with the amount of reasoning in the place of the reasoning."""
    if answer.reasoning_state not in (v1.REASONING_STATE_CLOSED, v1.REASONING_STATE_UNCLOSED):
        return text.one_line(answer.output, 240)
    told = f"{answer.reasoning_tokens:,} tokens of " if answer.HasField("reasoning_tokens") else ""
    if answer.reasoning_state == v1.REASONING_STATE_UNCLOSED:
        return text.one_line(f"({told}reasoning, never closed) {answer.reasoning or answer.output}", 240)
    return text.one_line(f"({told}reasoning) {answer.answer}", 240)


def _grade(answer: v1.EvaluationResult | v1.Sample) -> Text:
    if answer.grade_error:
        return Text("ungraded", style="yellow")
    score = "" if answer.score in (0.0, 1.0) else f" {answer.score:.2f}"
    return Text(f"right{score}", style="green") if answer.correct else Text(f"wrong{score}", style="red")
