"""Numbers and facts of a report in words, the same in every document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tunix_rt_evaluator.comparisons.model import (
    CategoryDifference,
    ComparisonContent,
    Contamination,
    PairedDifference,
    PartTokens,
    ScoreDifference,
    SeedSummary,
    TrainingFacts,
    VerdictName,
)
from tunix_rt_evaluator.comparisons.patterns import shown
from tunix_rt_evaluator.eval_sets.model import eval_set_name
from tunix_rt_evaluator.evaluations.model import (
    Accuracy,
    Decoding,
    Evaluation,
    Interval,
    ItemResult,
    evaluation_name,
)
from tunix_rt_evaluator.grading.model import Parts
from tunix_rt_evaluator.grading.reasoning import described

VERDICTS: Final[dict[VerdictName, str]] = {
    "IMPROVED": "Improved",
    "REGRESSED": "Regressed",
    "NO_EVIDENCE": "No evidence of a difference",
    "INCONCLUSIVE": "Inconclusive",
}
HOLM: Final = "The last column adjusts the p-values for there being several (Holm)."
BY_RULE: Final = (
    "Grouped by rule: each group says what the text of the wrong answer shows, not why. Shown of an answer "
    "is the value that the grader read, and the end of its text."
)
_SMALLEST_P: Final = 0.0001
_GREEDY: Final = "greedy"


def percent(share: float) -> str:
    """``0.256`` as ``25.6%``."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: ``+23.4``."""
    return (
        f"{100 * difference:+.1f}".replace("-", "\u2212").replace("+0.0", "0.0").replace("\u22120.0", "0.0")
    )


def share_range(interval: Interval) -> str:
    """An interval of a share: ``18.1% to 34.2%``."""
    return f"{percent(interval.lower)} to {percent(interval.upper)}"


def point_range(interval: Interval) -> str:
    """An interval of a difference in percentage points: ``+14.0 to +32.1``."""
    return f"{points(interval.lower)} to {points(interval.upper)}"


def p_value(value: float) -> str:
    """A p-value with two significant digits; very small ones as a bound."""
    if value < _SMALLEST_P:
        return f"< {_SMALLEST_P:g}"
    return f"{value:.2g}" if value < 0.995 else "1"


def p_relation(value: float) -> str:
    """A p-value as it follows the letter: ``= 0.012`` or ``< 0.0001``."""
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def fraction(accuracy: Accuracy) -> str:
    """``32 of 128``."""
    return f"{accuracy.correct_count} of {accuracy.item_count}"


def category_name(category: str) -> str:
    """A category for people."""
    return category.replace("_", " ") or "(none)"


def headline(content: ComparisonContent) -> str:
    """What was found, in one sentence."""
    overall = content.overall
    answers, of_base = fraction(overall.candidate), fraction(overall.base)
    if content.seeds is not None:
        found = f"{answers} answers of the candidate's seeds are right, {of_base} of the base's"
    elif most_samples(content) > 1:
        found = f"{answers} answers of the candidate are right, {of_base} of the base's"
    else:
        found = f"The candidate answered {answers} items right, the base {of_base}"
    return (
        f"{found}: {points(overall.difference)} percentage points "
        f"(95% interval {point_range(overall.interval)}), {tested(overall)}."
    )


def tested(difference: PairedDifference) -> str:
    """The test and its p-value: ``exact McNemar p = 0.012``."""
    name = "exact McNemar" if difference.test == "exact McNemar" else "permutation test"
    return f"{name} p {p_relation(difference.p_value)}"


def test_name(difference: PairedDifference) -> str:
    """The test as a heading."""
    return "Exact McNemar test" if difference.test == "exact McNemar" else "Permutation test"


def most_samples(content: ComparisonContent) -> int:
    """How many answers of an item there are on the side that has more."""
    return max(decoding.samples for decoding in _decodings(content))


def sampling(content: ComparisonContent) -> str:
    """How answers were sampled, in one sentence; empty where both sides took the most probable tokens."""
    base, candidate = map(_sampling, _decodings(content))
    if base == candidate:
        return "" if base == _GREEDY else f"{base}."
    return f"Base: {base}. Candidate: {candidate}."


def _decodings(content: ComparisonContent) -> tuple[Decoding, Decoding]:
    return content.base.spec.decoding, content.candidate.spec.decoding


def _sampling(decoding: Decoding) -> str:
    if not decoding.temperature:
        return _GREEDY
    samples = f"{decoding.samples} sample" if decoding.samples == 1 else f"{decoding.samples} samples"
    top_p = f", top-p {decoding.top_p:g}" if decoding.top_p < 1 else ""
    return f"{samples} of each item at temperature {decoding.temperature:g}{top_p}, seed {decoding.seed}"


def items_of(content: ComparisonContent) -> str:
    """What the counts of changes count: items, or items on average."""
    overall = content.overall
    several = overall.candidate.item_count != overall.base.item_count or most_samples(content) > 1
    return "items on average" if several else "items"


def changed(content: ComparisonContent) -> str:
    """How many items went which way."""
    overall = content.overall
    if most_samples(content) > 1:
        return f"{many(overall.gained_count, 'item')} better on average, {overall.lost_count} worse"
    return f"{many(overall.gained_count, 'item')} went right, {overall.lost_count} went wrong"


def left_out(count: int, name: str, *, regressed: bool) -> str:
    """Where the items are that a document does not show."""
    side = "regressions" if regressed else "improvements"
    return (
        f"{count} more {'is' if count == 1 else 'are'} not shown here; report.json has all, and so has "
        f"`tunix-rt reports {side} {name.removeprefix('comparisonReports/')} --json`."
    )


def question(result: ItemResult) -> str:
    """The question on one line, shortened."""
    return _line(result.prompt, 160)


def accepted(result: ItemResult) -> str:
    """The accepted answers on one line, shortened."""
    return _line(" | ".join(result.accepted_answers), 120)


def value(result: ItemResult) -> str:
    """The value that the grader read, on one line; empty if it read none."""
    return _line(shown(result).verdict.extracted_answer, -120)


def end(result: ItemResult) -> str:
    """The end of what was written, on one line: of the answer, or of the reasoning where nothing else is."""
    chosen = shown(result)
    written = (parts.answer.strip() or parts.reasoning for parts in chosen.parts[:1])
    return _line(chosen.generation.error or next(written, ""), -120)


def _line(text: str, most: int) -> str:
    """The text on one line, cut to so many characters: at its beginning where ``most`` is below 0."""
    line = " ".join(text.split())
    if len(line) <= abs(most):
        return line
    return f"{line[: most - 1].rstrip()}\u2026" if most > 0 else f"\u2026{line[most + 1 :].lstrip()}"


def counted_as(content: ComparisonContent) -> str:
    """The heading over numbers of answers."""
    return "Items" if most_samples(content) == 1 else "Answers"


def right_samples(result: ItemResult) -> str:
    """``3 of 8 samples right``; empty where there is one answer."""
    if not result.verdicts:
        return ""
    right = sum(verdict.correct for verdict in result.verdicts)
    return f"{right} of {len(result.verdicts)} samples right"


def and_more(evaluations: Sequence[Evaluation]) -> str:
    """Further training seeds beside the one that is named."""
    return f" and {many(len(evaluations), 'further seed')}" if evaluations else ""


def interval_name(difference: PairedDifference) -> str:
    """How the interval of a difference was made."""
    known = {"Newcombe": "Newcombe, paired", "t": "paired t"}
    clustered = f"paired t, {many(difference.cluster_count, 'cluster')}"
    return known.get(difference.interval_method, clustered)


def notices(content: ComparisonContent) -> list[str]:
    """What a reader must know before believing the headline."""
    found = [f"Warning: {warning.description}." for warning in content.warnings]
    found += [f"Waived by the caller: {waiver.description}." for waiver in content.waivers]
    contamination = content.contamination
    if contamination is not None and contamination.state == "NOT_LOOKED_UP":
        found.append(
            "Whether the training data gives items away was not looked up: "
            f"{contamination.reason}. Comparing again tries again."
        )
    if contamination is not None and contamination.items:
        found.append(leaked(contamination))
    return found


def leaked(contamination: Contamination) -> str:
    """How many items the training data holds, and the result over the others."""
    found = (
        f"The training data ({', '.join(contamination.datasets)}) gives "
        f"{many(len(contamination.items), 'item')} away."
    )
    clean = contamination.clean
    if clean is None:
        return f"{found} No other item is left."
    return f"{found} Over the other {clean.base.item_count}: {_both_sides(clean)}."


def _both_sides(found: PairedDifference) -> str:
    return (
        f"base {percent(found.base.accuracy)}, candidate {percent(found.candidate.accuracy)}, "
        f"{points(found.difference)} points (95% interval {point_range(found.interval)}), {tested(found)}"
    )


def reasons(content: ComparisonContent) -> list[str]:
    """The reasons for the verdict, as sentences."""
    return [f"{reason[:1].upper()}{reason[1:]}." for reason in content.verdict_reasons]


def detectable(difference: PairedDifference) -> str:
    """The smallest true difference that would have been detected four times in five."""
    effect = difference.detectable
    return "unknown: nothing varied" if effect is None else f"{100 * effect:.1f} points"


def bounds(content: ComparisonContent) -> list[tuple[str, str, str]]:
    """The difference with unsettled answers at worst and at best: rows of (what, how many, range)."""
    found = content.bounds
    if found is None:
        return []
    rows = []
    if found.unsettled_count:
        shown = f"{points(found.worst)} to {points(found.best)}"
        rows.append(("Failed, not graded or missing", str(found.unsettled_count), shown))
    if found.truncated_count:
        shown = f"{points(found.worst_with_truncated)} to {points(found.best_with_truncated)}"
        label = (
            "Cut, failed, not graded or missing" if found.unsettled_count else "Cut at the most new tokens"
        )
        both = f"{found.truncated_count} + {found.unsettled_count}"
        rows.append((label, both if found.unsettled_count else str(found.truncated_count), shown))
    return rows


def adjusted(entry: CategoryDifference) -> str:
    """Holm's p-value of a category."""
    return "" if entry.adjusted_p_value is None else p_value(entry.adjusted_p_value)


def accuracy_interval(content: ComparisonContent) -> str:
    """How the intervals of the accuracies were made."""
    if most_samples(content) > 1:
        return "t over items"
    return "Wilson" if content.seeds is None else "Wilson for one seed, else t over items"


def score_sentence(scores: ScoreDifference) -> str:
    """The mean scores and their difference, in one sentence."""
    return (
        f"Mean score: base {scores.base:.3f}, candidate {scores.candidate:.3f}, {scores.difference:+.3f} "
        f"(95% t interval {scores.interval.lower:+.3f} to {scores.interval.upper:+.3f}), permutation test "
        f"p {p_relation(scores.p_value)}."
    )


def seed_rows(seeds: SeedSummary) -> list[tuple[str, str, str, str]]:
    """The accuracies over training seeds: (side, seeds, mean, spread)."""
    sides = (
        ("Base", seeds.base, seeds.base_mean, seeds.base_spread),
        ("Candidate", seeds.candidate, seeds.candidate_mean, seeds.candidate_spread),
    )
    return [
        (
            side,
            ", ".join(map(percent, accuracies)),
            percent(mean),
            "one seed" if spread is None else f"{100 * spread:.1f} points",
        )
        for side, accuracies, mean, spread in sides
    ]


def seed_test(seeds: SeedSummary) -> str:
    """The difference over seeds and its test, in one sentence."""
    found = f"Difference of the means: {points(seeds.difference)} points"
    if seeds.p_value is None or seeds.interval is None:
        return f"{found}. The seeds of a side do not differ, so there is nothing to test by."
    name = "Welch's t test" if seeds.test == "Welch t" else "one-sample t test"
    found += f", 95% interval {point_range(seeds.interval)}"
    return f"{found}; {name} over seeds p {p_relation(seeds.p_value)}."


def model_name(evaluation: Evaluation) -> str:
    """What was evaluated, for people."""
    spec = evaluation.spec
    return spec.checkpoint or spec.endpoint_model or spec.base_model or ""


def counted(content: ComparisonContent) -> list[tuple[str, str, str]]:
    """Further counts of answers and tokens: rows of (label, base, candidate)."""
    base, candidate = content.base.summary, content.candidate.summary
    if base is None or candidate is None:
        return []
    return [
        (
            "Cut at the most new tokens",
            str(base.truncated_count),
            str(candidate.truncated_count),
        ),
        ("Could not be run", str(base.failed_count), str(candidate.failed_count)),
        ("Tokens written", f"{base.generated_tokens:,}", f"{candidate.generated_tokens:,}"),
        *_counted_parts(content.base_parts, content.candidate_parts),
    ]


def _counted_parts(base: PartTokens | None, candidate: PartTokens | None) -> Iterator[tuple[str, str, str]]:
    """The same counts for reasoning, where a side wrote some."""
    if base is None or candidate is None:
        return
    yield "Reasoning never closed, wrong", str(base.unclosed_count), str(candidate.unclosed_count)
    mine, theirs = (f"{parts.reasoning_count} of {parts.answer_count}" for parts in (base, candidate))
    yield "Answers with reasoning", mine, theirs
    yield (
        "Tokens of reasoning",
        _tokens(base.reasoning_tokens, base.answer_count),
        _tokens(candidate.reasoning_tokens, candidate.answer_count),
    )
    yield (
        "Tokens of answers",
        _tokens(base.answer_tokens, base.answer_count),
        _tokens(candidate.answer_tokens, candidate.answer_count),
    )


def _tokens(count: int | None, answers: int) -> str:
    """A total with the mean of an answer."""
    if count is None:
        return "not known"
    return f"{count:,} ({count / answers:,.1f} each)" if answers else "0"


def unmarked(content: ComparisonContent) -> str:
    """How many verdicts rest on unmarked answers, and the result with these wrong; empty if none does."""
    found = content.unmarked
    if found is None:
        return ""
    counts = [
        f"{many(count, 'verdict')} of the {side} ({right} right)"
        for count, right, side in (
            (found.base_count, found.base_correct_count, "base"),
            (found.candidate_count, found.candidate_correct_count, "candidate"),
        )
    ]
    return (
        f"{' and '.join(counts)} rest on an answer that nothing marks, such as the last number of a text. "
        f"Were all of those wrong: {VERDICTS[found.verdict].lower()}, {_both_sides(found.without)}."
    )


def many(count: int, what: str) -> str:
    """``1 token`` or ``1,204 tokens``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def reasoning_label(parts: Parts) -> str:
    """The heading over reasoning."""
    counted = "" if parts.tokens is None else f", {many(parts.tokens, 'token')}"
    return f"Reasoning{counted}{', never closed' if parts.state == 'unclosed' else ''}"


class Fact(NamedTuple):
    """A row of the provenance table; ``same`` where base and candidate agree."""

    label: str
    base: str
    candidate: str

    @property
    def same(self) -> bool:
        """Whether both sides say the same."""
        return self.base == self.candidate


def provenance(content: ComparisonContent) -> list[Fact]:
    """Everything that could change the result, side by side."""
    base = dict([*_facts(content.base), *_training_facts(content.base, content.base_training)])
    trained = _training_facts(content.candidate, content.candidate_training)
    candidate = dict([*_facts(content.candidate), *trained])
    labels = list(dict.fromkeys([*base, *candidate]))
    facts = [Fact(label, base.get(label, ""), candidate.get(label, "")) for label in labels]
    if content.more_bases or content.more_candidates:
        facts.insert(1, Fact("Further seeds", _names(content.more_bases), _names(content.more_candidates)))
    return facts


def _facts(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    manifest = evaluation.manifest
    if manifest is None:
        return
    unknown = "not known" if manifest.spec.endpoint_model else ""
    yield "Evaluation", evaluation_name(evaluation.id)
    yield "Model", model_name(evaluation)
    yield "Base model", "" if manifest.spec.endpoint_model else evaluation.inputs.base_model
    yield "Eval set", eval_set_name(manifest.spec.eval_set)
    yield "Eval set digest", manifest.eval_set_digest
    yield "Base weights digest", manifest.base_weights_digest or unknown
    yield "Base configuration digest", manifest.base_config_digest or unknown
    yield "Tokenizer digest", manifest.tokenizer_digest or unknown
    yield "Checkpoint digest", manifest.checkpoint_digest
    yield "Training manifest digest", manifest.training_manifest_digest
    yield "Dataset digest", manifest.dataset_digest
    yield "Chat template digest", manifest.chat_template_digest or unknown
    yield "Results digest", manifest.results_digest
    if evaluation.manifest_file is not None:
        yield "Evaluation manifest digest", evaluation.manifest_file.digest
    yield (
        "Decoding",
        _pairs({name: str(value) for name, value in manifest.spec.decoding.model_dump().items()}),
    )
    yield "Type of weights", manifest.spec.dtype or unknown
    yield "Reasoning", described(manifest.spec.reasoning_marks)
    yield "Graders", ", ".join(manifest.graders)
    yield "Engine", manifest.engine
    yield "Device", manifest.device
    yield "tunix-rt", manifest.code_revision
    yield "Packages", _pairs(manifest.package_versions)
    yield "Runtime settings", _pairs(manifest.runtime_settings)


def _training_facts(evaluation: Evaluation, training: TrainingFacts | None) -> Iterator[tuple[str, str]]:
    checkpoint = evaluation.inputs.checkpoint
    if checkpoint is None:
        return
    if training is None:
        yield "Training settings", "not known: the training manifest is gone, or of another version"
        return
    rows, epochs = training.learned_row_count, training.epochs
    yield "Training job", training.training_job
    yield "Training dataset", training.dataset
    yield "Rows learned from", "not known" if rows is None else f"{rows:,}"
    yield "Learning rate", f"{training.learning_rate:g}, {training.schedule}"
    if training.lora_rank is not None:
        yield "LoRA rank, alpha", f"{training.lora_rank}, {training.lora_alpha:g} ({training.method})"
    yield "Steps", f"{training.steps:,}" + ("" if epochs is None else f" (epochs asked for: {epochs:g})")
    yield "Rows of a batch", f"{training.rows_per_batch}, of {training.max_length} tokens at most"
    yield "Training seed", str(training.seed)
    yield "Type of weights in training", training.dtype


def _names(evaluations: Sequence[Evaluation]) -> str:
    return ", ".join(
        f"{evaluation_name(evaluation.id)} ({model_name(evaluation)})" for evaluation in evaluations
    )


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
