"""The policy of comparisons: which evaluations may be compared, and how a verdict is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args

from tunix_rt_evaluator.comparisons.model import (
    Contamination,
    OutcomeBounds,
    PairedDifference,
    Reason,
    Run,
    SeedSummary,
    VerdictName,
    Waiver,
)
from tunix_rt_evaluator.comparisons.paired_statistics import SIGNIFICANCE
from tunix_rt_evaluator.evaluations.model import Evaluation, ItemResult, Manifest, evaluation_name
from tunix_rt_evaluator.grading.reasoning import described
from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_NAMED: Final = 3


def checked_waivers(waivers: Sequence[str]) -> frozenset[Reason]:
    """The differences that a caller waives; raises InvalidArgument(WAIVER_UNKNOWN)."""
    wrong = [
        FieldViolation(f"waivers[{index}]", f"is {name[:64]!r}; one of {', '.join(REASONS)} would be right")
        for index, name in enumerate(waivers)
        if name not in REASONS
    ]
    if wrong:
        raise InvalidArgument(
            f"{wrong[0].field}: {wrong[0].description}", reason="WAIVER_UNKNOWN", violations=wrong
        )
    return frozenset(reason for reason in REASONS if reason in waivers)


def check_sound(runs: Sequence[Run], waived: frozenset[Reason] = frozenset()) -> tuple[Waiver, ...]:
    """Check that every run was asked as the first one, the base, was. Returns the waived differences.

    Raises:
        FailedPrecondition: COMPARISON_UNSOUND with a field violation for each other difference;
            COMPARISON_EMPTY if no item was answered by all.
    """
    base, *others = runs
    found = [
        (reason, FieldViolation(field, description))
        for other in others
        for reason, field, description in _differences(base, other, several=len(others) > 1)
    ]
    refused = [(reason, violation) for reason, violation in found if reason not in waived]
    if refused:
        fields = ", ".join(dict.fromkeys(violation.field for _, violation in refused))
        reasons = ", ".join(dict.fromkeys(reason for reason, _ in refused))
        name = evaluation_name(base.evaluation.id)
        names = ", ".join(evaluation_name(other.evaluation.id) for other in others)
        raise FailedPrecondition(
            f"{name} and {names} cannot be compared: they differ in {fields} "
            f"(what would have to be waived: {reasons})",
            reason="COMPARISON_UNSOUND",
            metadata={"base": name, "candidate": names, "waivers": reasons},
            violations=[violation for _, violation in refused],
        )
    if not common_items(runs):
        raise FailedPrecondition(
            "no item was answered by all of the evaluations, so there is nothing to compare",
            reason="COMPARISON_EMPTY",
        )
    return tuple(
        Waiver(reason=reason, description=f"{violation.field}: {violation.description}")
        for reason, violation in found
    )


def common_items(runs: Sequence[Run]) -> list[str]:
    """Digests of the items that every run has a result of, ordered by item id."""
    first, *others = (run.results for run in runs)
    shared = [digest for digest in first if all(digest in other for other in others)]
    return sorted(shared, key=lambda digest: first[digest].item_id)


def _differences(base: Run, other: Run, *, several: bool) -> Iterator[tuple[Reason, str, str]]:
    side = evaluation_name(other.evaluation.id) if several else "candidate"
    settings = zip(
        _settings(manifest_of(base.evaluation)), _settings(manifest_of(other.evaluation)), strict=True
    )
    for (reason, field, one), (_, _, two) in settings:
        if one != two:
            yield reason, field, f"base has {_shown(one)}, {side} has {_shown(two)}"
    single = [
        result.item_id
        for mine, theirs in ((base.results, other.results), (other.results, base.results))
        for digest, result in mine.items()
        if digest not in theirs
    ]
    if single:
        yield (
            "items", "items", f"{len(single)} items are in base or {side} only, such as {_examples(single)}",
        )  # fmt: skip
    asked_otherwise = _asked_otherwise(base.results, other.results)
    if asked_otherwise:
        yield (
            "prompt_tokens",
            "prompt_tokens",
            f"{len(asked_otherwise)} prompts were read as other tokens by {side}, "
            f"such as {_examples(asked_otherwise)}",
        )


def _settings(manifest: Manifest) -> Iterator[tuple[Reason, str, object]]:
    yield "eval_set", "eval_set", manifest.eval_set_digest
    yield "chat_template", "chat_template", manifest.chat_template_digest
    for field, value in manifest.spec.decoding:
        # Recording log-probabilities changes no answer.
        if field != "log_probabilities":
            yield "decoding", f"decoding.{field}", value
    yield "dtype", "dtype", manifest.spec.dtype
    yield "reasoning", "reasoning_marks", described(manifest.spec.reasoning_marks)
    yield "graders", "graders", ", ".join(manifest.graders)
    yield "engine", "engine", manifest.engine


def _asked_otherwise(base: Mapping[str, ItemResult], other: Mapping[str, ItemResult]) -> list[str]:
    """Ids of the items whose prompts became other tokens; one that could not be rendered has none."""
    return [
        result.item_id
        for digest, result in base.items()
        if digest in other
        and result.generation.prompt_token_digest != other[digest].generation.prompt_token_digest
    ]


def manifest_of(evaluation: Evaluation) -> Manifest:
    """The manifest of an evaluation that succeeded."""
    if evaluation.manifest is None:
        raise ValueError(f"evaluation {evaluation.id} has no manifest")
    return evaluation.manifest


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(repr(item_id) for item_id in ids[:_NAMED])


def _shown(value: object) -> str:
    return "none" if value in ("", None) else str(value)


POLICY: Final = (
    "Improved or regressed: the test over all items gives p < 0.05, and nothing speaks against it. "
    "Inconclusive: p < 0.05, but the difference would be gone or turned if the items that failed, were "
    "not graded or are missing had gone the other way, or it is gone or turned over the items that no "
    "training data gives away, or the test over training seeds does not give p < 0.05 too. "
    "No evidence: p is 0.05 or more; that does not show that both are equally good."
)
"""The policy of ``decide``, for reports and people. Answers that were cut count as what they are."""


def decide(
    overall: PairedDifference,
    bounds: OutcomeBounds,
    contamination: Contamination,
    seeds: SeedSummary | None,
) -> tuple[VerdictName, tuple[str, ...]]:
    """The verdict by ``POLICY``, and the reasons if it is not plainly improved or regressed."""
    if overall.p_value >= SIGNIFICANCE or overall.difference == 0:
        return "NO_EVIDENCE", tuple(_too_little(overall))
    up = overall.difference > 0
    against = tuple(_against(up, bounds, contamination, seeds))
    if against:
        return "INCONCLUSIVE", against
    return ("IMPROVED" if up else "REGRESSED"), ()


def _against(
    up: bool, bounds: OutcomeBounds, contamination: Contamination, seeds: SeedSummary | None
) -> Iterator[str]:
    hardest = bounds.worst if up else bounds.best
    if bounds.unsettled_count and not _same_way(hardest, up):
        yield (
            f"{bounds.unsettled_count} items failed, were not graded or are missing on a side; had they gone "
            f"the other way, the difference would be {100 * hardest:+.1f} points"
        )
    clean = contamination.clean
    if contamination.items and clean is None:
        yield "the training data gives every item away"
    if clean is not None and not _same_way(clean.difference, up):
        yield (
            f"the training data gives {len(contamination.items)} items away; over the others the difference "
            f"is {100 * clean.difference:+.1f} points"
        )
    if seeds is not None and (seeds.p_value is None or seeds.p_value >= SIGNIFICANCE):
        yield (
            "the accuracies of the training seeds do not vary, so that nothing can be said of other seeds"
            if seeds.p_value is None
            else f"over the training seeds the test gives p = {seeds.p_value:.2g}"
        )


def _too_little(overall: PairedDifference) -> Iterator[str]:
    if overall.detectable is not None:
        yield (
            f"a true difference of {100 * overall.detectable:.1f} points or more would have been shown "
            "four times in five"
        )


def _same_way(difference: float, up: bool) -> bool:
    return difference > 0 if up else difference < 0
