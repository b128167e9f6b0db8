"""Whether evaluations may be compared: what could explain a difference, other than the model, is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args

from tunix_rt_evaluator.comparisons.model import Reason, Run, Waiver
from tunix_rt_evaluator.evaluations.model import Evaluation, Manifest, evaluation_name
from tunix_rt_evaluator.evaluations.results import ItemResult
from tunix_rt_evaluator.grading.reasoning.marks import described
from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_NAMED: Final = 3


def checked_waivers(waivers: Sequence[str]) -> frozenset[Reason]:
    """The reasons that a caller lets pass; raises InvalidArgument(WAIVER_UNKNOWN)."""
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
    """Hold every run to the first one, the base; returns what differs and was waived.

    Raises:
        FailedPrecondition: COMPARISON_UNSOUND with a field violation for each other difference;
            COMPARISON_EMPTY, no item was answered by all.
    """
    base, *others = runs
    found = [
        (reason, FieldViolation(field, description))
        for other in others
        for reason, field, description in _differences(base, other, several=len(others) > 1)
    ]
    refused = [(reason, violation) for reason, violation in found if reason not in waived]
    if refused:
        _refuse(base.evaluation, [other.evaluation for other in others], refused)
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


def _refuse(
    base: Evaluation, others: Sequence[Evaluation], refused: Sequence[tuple[Reason, FieldViolation]]
) -> None:
    fields = ", ".join(dict.fromkeys(violation.field for _, violation in refused))
    reasons = ", ".join(dict.fromkeys(reason for reason, _ in refused))
    names = ", ".join(evaluation_name(other.id) for other in others)
    raise FailedPrecondition(
        f"{evaluation_name(base.id)} and {names} cannot be compared: they differ in {fields} "
        f"(what would have to be waived: {reasons})",
        reason="COMPARISON_UNSOUND",
        metadata={"base": evaluation_name(base.id), "candidate": names, "waivers": reasons},
        violations=[violation for _, violation in refused],
    )


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
        # Whether it is kept how likely a token was changes no token.
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
