"""The policy of comparisons: which evaluations may be compared, and how a verdict is reached."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args

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
        reasons = dict.fromkeys(reason for reason, _ in refused)
        name = evaluation_name(base.evaluation.id)
        names = ", ".join(evaluation_name(other.evaluation.id) for other in others)
        commands = remedies(runs, reasons)
        to_do = f"to make them comparable, run {' and '.join(commands)}, and compare " if commands else ""
        made = "what it makes; " if len(commands) == 1 else "what they make; "
        as_they_are = f"to compare them as they are, waive {', '.join(reasons)}"
        if not common_items(runs):
            as_they_are = "as they are, they have no item in common"
        raise FailedPrecondition(
            f"{name} and {names} cannot be compared: they differ in {fields}; {to_do and to_do + made}"
            f"{as_they_are}",
            reason="COMPARISON_UNSOUND",
            metadata={"base": name, "candidate": names, "waivers": ", ".join(reasons)}
            | ({"remedies": "\n".join(commands)} if commands else {}),
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


_BY_REGRADING: Final = frozenset({"graders", "reasoning", "eval_set", "items"})
_BY_EVALUATING: Final = _BY_REGRADING | {"decoding", "dtype", "prompt_tokens", "chat_template"}
# A longer one is named by where it stands.
_MOST_SETTINGS: Final = 400


def remedies(runs: Sequence[Run], reasons: Iterable[Reason]) -> list[str]:
    """The commands that make the others comparable with the first of ``runs``; none where nothing does.

    Where the answers can stay, one side is graded again as the other one was: the one that was not regraded,
    or else the older one. Otherwise the others are to answer again, in the base's way.
    """
    base, *others = runs
    found: list[str] = []
    for other in others:
        differing = {reason for reason, _, _ in _differences(base, other, several=False)} & set(reasons)
        if not differing:
            continue
        if differing <= _BY_REGRADING and _same_questions(base, other):
            found += _regrading(base.evaluation, other.evaluation)
        elif differing <= _BY_EVALUATING and (command := _evaluating(base.evaluation, other.evaluation)):
            found.append(command)
        else:
            return []
    return list(dict.fromkeys(found))


def _same_questions(base: Run, other: Run) -> bool:
    """Whether both answered the same prompts under the same ids."""
    asked, theirs = (
        {result.item_id: result.prompt for result in run.results.values()} for run in (base, other)
    )
    return asked == theirs


def _regrading(base: Evaluation, other: Evaluation) -> Iterator[str]:
    """The commands that grade one side as the other one was, or both where they were graded alike."""
    mine, theirs = manifest_of(base), manifest_of(other)
    alike = (
        (mine.regrade.grader if mine.regrade else None) == (theirs.regrade.grader if theirs.regrade else None)
        and mine.eval_set_digest == theirs.eval_set_digest
        and _marks(mine) == _marks(theirs)
    )
    if alike:
        # Only the versions of graders or marks differ.
        yield from (_regrade(base, base), _regrade(other, base))
    elif bool(mine.regrade) is not bool(theirs.regrade):
        yield _regrade(base, other) if theirs.regrade else _regrade(other, base)
    elif base.create_time <= other.create_time:
        yield _regrade(base, other)
    else:
        yield _regrade(other, base)


def _regrade(evaluation: Evaluation, like: Evaluation) -> str:
    """The command that grades an evaluation as another one was."""
    manifest, wanted = manifest_of(evaluation), manifest_of(like)
    parts = ["tunix-rt evaluation regrade", evaluation.id]
    if manifest.spec.eval_set != wanted.spec.eval_set:
        parts += ["--eval-set", shlex.quote(wanted.spec.eval_set)]
    if wanted.regrade is not None and wanted.regrade.grader is not None:
        grader = wanted.regrade.grader
        parts += ["--grader", _settings_text({"kind": grader.kind} | grader.model_dump(mode="json"), like)]
    parts += _marks_option(manifest, wanted, like)
    return " ".join(parts)


def _evaluating(base: Evaluation, other: Evaluation) -> str:
    """The command that lets the other model answer in the base's way; "" where there is none.

    A checkpoint brings its own chat template, so that it is the base that has to answer in that.
    """
    mine, theirs = manifest_of(base), manifest_of(other)
    model, like = other, base
    if mine.chat_template_digest != theirs.chat_template_digest:
        if theirs.spec.checkpoint and mine.spec.checkpoint:
            return ""
        if theirs.spec.checkpoint:
            model, like = base, other
    spec, wanted = manifest_of(model).spec, manifest_of(like).spec
    if bool(spec.endpoint_model) is not bool(wanted.endpoint_model):
        return ""
    parts = ["tunix-rt evaluate --eval-set", shlex.quote(wanted.eval_set)]
    option = (
        "--checkpoint" if spec.checkpoint else "--endpoint-model" if spec.endpoint_model else "--base-model"
    )
    parts += [option, shlex.quote(spec.checkpoint or spec.endpoint_model or spec.base_model or "")]
    template = wanted.chat_template
    if not spec.checkpoint and template is not None:
        if not template.builtin:
            return ""
        parts += ["--template", template.builtin]
        if template.system_instruction:
            parts += ["--system", _quoted(template.system_instruction, like)]
    asked = wanted.decoding.model_dump(exclude_defaults=True, exclude={"log_probabilities"})
    parts += [f"--{name.replace('_', '-')} {value}" for name, value in asked.items()]
    if wanted.dtype:
        parts += ["--dtype", wanted.dtype]
    parts += _marks_option(manifest_of(model), manifest_of(like), like)
    return " ".join(parts)


def _marks(manifest: Manifest) -> str:
    return described(manifest.spec.reasoning_marks)


def _marks_option(manifest: Manifest, wanted: Manifest, like: Evaluation) -> list[str]:
    own, marks = manifest.spec.reasoning_marks, wanted.spec.reasoning_marks
    if marks is None or _marks(manifest) == _marks(wanted):
        return []
    pair = {"name": marks.name} if marks.name else {"start": marks.start, "end": marks.end}
    # Whether the prompt opens them follows from the chat template, unless somebody said otherwise.
    said = own is not None and (own.start, own.end) == (marks.start, marks.end) and own.opened != marks.opened
    if marks.name and not said:
        return ["--reasoning-marks", shlex.quote(marks.name)]
    return ["--reasoning-marks", _settings_text(pair | ({"opened": marks.opened} if said else {}), like)]


def _settings_text(settings: Mapping[str, Any], like: Evaluation) -> str:
    """Settings as the command line takes them: a name where there is nothing else, or JSON."""
    if settings.keys() == {"kind"}:
        return shlex.quote(settings["kind"])
    return _quoted(json.dumps(settings, ensure_ascii=False), like)


def _quoted(text: str, like: Evaluation) -> str:
    """A text for a shell; one that is too long for a message is named by where it stands."""
    return shlex.quote(text) if len(text) <= _MOST_SETTINGS else f"'(as in {evaluation_name(like.id)})'"


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
    if told := "; ".join(_single(base.results, other.results, side)):
        yield "items", "items", told
    asked_otherwise = _asked_otherwise(base.results, other.results)
    if asked_otherwise:
        yield (
            "prompt_tokens",
            "prompt_tokens",
            f"{len(asked_otherwise)} prompts were read as other tokens by {side}, "
            f"such as {_examples(asked_otherwise)}",
        )


def _single(base: Mapping[str, ItemResult], other: Mapping[str, ItemResult], side: str) -> Iterator[str]:
    """The items that one side has alone. Those that ask the same are told apart: they can be regraded."""
    mine, theirs = (
        {(result.item_id, result.prompt) for digest, result in results.items() if digest not in others}
        for results, others in ((base, other), (other, base))
    )
    if single := sorted({item_id for item_id, _ in mine ^ theirs}):
        yield f"{len(single)} items are in base or {side} only, such as {_examples(single)}"
    if alike := sorted(item_id for item_id, _ in mine & theirs):
        what = "ask the same, with other accepted answers, another grader or another category"
        yield f"{len(alike)} items {what}, such as {_examples(alike)}"


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
