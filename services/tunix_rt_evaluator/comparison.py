"""Two evaluations of the same questions, item by item. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tunix_rt_evaluator.model import (
    CategoryDifference,
    ComparisonContent,
    Evaluation,
    Flip,
    ItemResult,
    Manifest,
    TrainingStep,
)
from tunix_rt_evaluator.names import evaluation_name
from tunix_rt_evaluator.statistics import grouped, paired_difference, verdict
from tunix_rt_kit.artifacts import digest_json
from tunix_rt_kit.errors import FailedPrecondition, FieldViolation

REPORT_REVISION: Final = 1
"""Raised whenever a report on the same evaluations would say something else."""

_NAMED: Final = 3


def report_id(base: Evaluation, candidate: Evaluation) -> str:
    """The id of the report on two finished evaluations: 32 hex digits of their manifests' digests."""
    compared_digests = {
        "base": _manifest_digest(base),
        "candidate": _manifest_digest(candidate),
        "revision": REPORT_REVISION,
    }
    return digest_json(compared_digests).removeprefix("sha256:")[:32]


def check_sound(
    base: Evaluation,
    base_results: Sequence[ItemResult],
    candidate: Evaluation,
    candidate_results: Sequence[ItemResult],
) -> None:
    """Raise FailedPrecondition(COMPARISON_UNSOUND) unless both answered the same questions in the same way.

    Every difference that could explain one in accuracy, other than the model, is a field violation.
    """
    found = [
        FieldViolation(field, f"base has {_shown(one)}, candidate has {_shown(other)}")
        for field, one, other in _settings(_manifest(base), _manifest(candidate))
        if one != other
    ]
    found += _item_differences(base_results, candidate_results)
    if not found:
        return
    names = ", ".join(violation.field for violation in found)
    raise FailedPrecondition(
        f"{evaluation_name(base.id)} and {evaluation_name(candidate.id)} cannot be compared: they differ "
        f"in {names}",
        reason="COMPARISON_UNSOUND",
        metadata={"base": evaluation_name(base.id), "candidate": evaluation_name(candidate.id)},
        violations=found,
    )


def compared(
    base: Evaluation,
    base_results: Sequence[ItemResult],
    candidate: Evaluation,
    candidate_results: Sequence[ItemResult],
    training: Sequence[TrainingStep] = (),
) -> ComparisonContent:
    """Compare two evaluations that ``check_sound`` let through.

    ``training`` holds the metrics of the candidate's training, for the report.
    """
    pairs = list(_paired(base_results, candidate_results))
    overall = paired_difference([_verdicts(pair) for pair in pairs])
    by_category = grouped((before.category, _verdicts((before, after))) for before, after in pairs)
    gained = [Flip(base=one, candidate=two) for one, two in pairs if _verdicts((one, two)) == (False, True)]
    lost = [Flip(base=one, candidate=two) for one, two in pairs if _verdicts((one, two)) == (True, False)]
    return ComparisonContent(
        base=base,
        candidate=candidate,
        verdict=verdict(overall),
        overall=overall,
        categories=tuple(
            CategoryDifference(category=category, difference=paired_difference(verdicts))
            for category, verdicts in by_category.items()
        ),
        flips=(*gained, *lost),
        training=tuple(training),
    )


def _settings(base: Manifest, candidate: Manifest) -> Iterator[tuple[str, object, object]]:
    yield "eval_set", base.eval_set_digest, candidate.eval_set_digest
    yield "chat_template", base.chat_template_digest, candidate.chat_template_digest
    for field in ("max_new_tokens", "batch_size"):
        yield (
            f"decoding.{field}",
            getattr(base.spec.decoding, field),
            getattr(candidate.spec.decoding, field),
        )
    yield "dtype", base.spec.dtype, candidate.spec.dtype
    yield "graders", ", ".join(base.graders), ", ".join(candidate.graders)
    yield "engine", base.engine, candidate.engine


def _item_differences(
    base: Sequence[ItemResult], candidate: Sequence[ItemResult]
) -> Iterator[FieldViolation]:
    before, after = _by_digest(base), _by_digest(candidate)
    single = [result.item_id for result in (*base, *candidate) if not _in_both(result, before, after)]
    if single:
        yield FieldViolation(
            "items", f"{len(single)} items are in one of them only, such as {_examples(single)}"
        )
    asked_otherwise = [
        result.item_id
        for digest, result in before.items()
        if digest in after and result.generation.prompt_token_digest != _tokens(after[digest])
    ]
    if asked_otherwise:
        yield FieldViolation(
            "prompt_tokens",
            f"{len(asked_otherwise)} prompts were read as other tokens, such as {_examples(asked_otherwise)}",
        )


def _paired(
    base: Sequence[ItemResult], candidate: Sequence[ItemResult]
) -> Iterator[tuple[ItemResult, ItemResult]]:
    after = _by_digest(candidate)
    for result in sorted(base, key=lambda entry: entry.item_id):
        yield result, after[result.item_digest]


def _by_digest(results: Sequence[ItemResult]) -> dict[str, ItemResult]:
    return {result.item_digest: result for result in results}


def _in_both(result: ItemResult, before: Mapping[str, ItemResult], after: Mapping[str, ItemResult]) -> bool:
    return result.item_digest in before and result.item_digest in after


def _tokens(result: ItemResult) -> str:
    return result.generation.prompt_token_digest


def _verdicts(pair: tuple[ItemResult, ItemResult]) -> tuple[bool, bool]:
    return pair[0].verdict.correct, pair[1].verdict.correct


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(repr(item_id) for item_id in ids[:_NAMED])


def _shown(value: object) -> str:
    return str(value) or "none"


def _manifest(evaluation: Evaluation) -> Manifest:
    if evaluation.manifest is None:
        raise ValueError(f"evaluation {evaluation.id} has no manifest")
    return evaluation.manifest


def _manifest_digest(evaluation: Evaluation) -> str:
    return digest_json(_manifest(evaluation).model_dump(mode="json"))
