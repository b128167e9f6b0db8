"""Two sides that answered the same questions, item by item. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, product
from typing import Final, NamedTuple

from tunix_rt_evaluator.comparisons.model import (
    CategoryDifference,
    ComparisonContent,
    ComparisonWarning,
    Contamination,
    Flip,
    OutcomeBounds,
    PairedDifference,
    PartTokens,
    Run,
    SeedSummary,
    TrainingFacts,
    TrainingStep,
    UnmarkedAnswers,
    VerdictName,
    Waiver,
)
from tunix_rt_evaluator.comparisons.paired_statistics import (
    holm,
    paired_difference,
    score_difference,
    seed_summary,
)
from tunix_rt_evaluator.comparisons.patterns import pattern, pattern_counts
from tunix_rt_evaluator.comparisons.policy import common_items, decide, manifest_of
from tunix_rt_evaluator.evaluations.model import Evaluation, ItemResult, evaluation_name
from tunix_rt_evaluator.evaluations.results import grouped
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_kit.canonical import digest_json

REPORT_REVISION: Final = 4
"""Raised whenever a report on the same evaluations would say something else."""
Value = Callable[[Verdict], float]
"""What a verdict is worth, 0 to 1."""
NO_TRAINING_DATA: Final = Contamination(state="NOT_APPLICABLE")


def report_id(
    bases: Sequence[Evaluation], candidates: Sequence[Evaluation], *, looked_up: bool = True
) -> str:
    """The id of the report on finished evaluations: 32 hex digits of their manifests' digests.

    Further seeds of a side may come in any order. ``looked_up`` says whether contamination was looked up: a
    report without it has another id, so that comparing again can look it up.
    """

    def side(evaluations: Sequence[Evaluation]) -> list[str]:
        first, *others = (
            digest_json(manifest_of(evaluation).model_dump(mode="json")) for evaluation in evaluations
        )
        return [first, *sorted(others)]

    compared_digests = {
        "base": side(bases),
        "candidate": side(candidates),
        "looked_up": looked_up,
        "revision": REPORT_REVISION,
    }
    return digest_json(compared_digests).removeprefix("sha256:")[:32]


def compared(
    bases: Sequence[Run],
    candidates: Sequence[Run],
    *,
    clusters: Mapping[str, str] | None = None,
    waivers: tuple[Waiver, ...] = (),
    contamination: Contamination = NO_TRAINING_DATA,
    training: Sequence[TrainingStep] = (),
    trained: tuple[TrainingFacts | None, TrainingFacts | None] = (None, None),
) -> ComparisonContent:
    """Compare two sides that ``check_sound`` let through.

    Args:
        bases: the base, and further training seeds of it.
        candidates: the candidate, and further training seeds of it.
        clusters: the cluster of each item by its id; items that are left out have none.
        waivers: the differences that were waived.
        contamination: the contaminated items; ``clean`` is filled in here.
        training: the metrics of the candidate's training.
        trained: how base and candidate were trained.
    """
    sides = _Sides(bases, candidates, clusters or {})
    digests, first = sides.digests, sides.first
    leaked = {found.item_id: found for found in contamination.items}
    items = tuple(leaked[first[digest].item_id] for digest in digests if first[digest].item_id in leaked)
    contamination = contamination.model_copy(update={"items": items})
    found = sides.evidence(right, contamination)
    verdict, reasons = found.verdict
    base_parts, candidate_parts = _parts(bases[0], digests), _parts(candidates[0], digests)
    reasoned = base_parts.reasoning_count or candidate_parts.reasoning_count
    flips = tuple(_flips(bases[0], candidates[0], digests))
    return ComparisonContent(
        base=bases[0].evaluation,
        candidate=candidates[0].evaluation,
        more_bases=tuple(run.evaluation for run in bases[1:]),
        more_candidates=tuple(run.evaluation for run in candidates[1:]),
        verdict=verdict,
        verdict_reasons=reasons,
        overall=found.overall,
        categories=_categories(sides),
        flips=flips,
        patterns=pattern_counts(flips),
        warnings=tuple(_warnings(bases, candidates, digests)),
        base_training=trained[0],
        candidate_training=trained[1],
        training=tuple(training),
        waivers=waivers,
        bounds=found.bounds,
        contamination=found.contamination,
        seeds=found.seeds,
        scores=score_difference(*sides.rows(digests, lambda verdict: verdict.value)),
        base_output_tokens=_lengths(bases[0], digests),
        candidate_output_tokens=_lengths(candidates[0], digests),
        unmarked=_unmarked(sides, contamination),
        base_parts=base_parts if reasoned else None,
        candidate_parts=candidate_parts if reasoned else None,
    )


class _Evidence(NamedTuple):
    """What ``decide`` needs for a verdict."""

    overall: PairedDifference
    bounds: OutcomeBounds
    contamination: Contamination
    seeds: SeedSummary | None

    @property
    def verdict(self) -> tuple[VerdictName, tuple[str, ...]]:
        """The verdict, and the reasons for it where it is not plain."""
        return decide(*self)


class _Sides:
    """Two sides and the items that every run of them has a result of, by digest."""

    def __init__(self, bases: Sequence[Run], candidates: Sequence[Run], clusters: Mapping[str, str]) -> None:
        self.bases = bases
        self.candidates = candidates
        self.digests = common_items((*bases, *candidates))
        self.first = bases[0].results
        self._clusters = clusters

    def rows(
        self, chosen: Sequence[str], value: Value
    ) -> tuple[list[list[float]], list[list[float]], list[str]]:
        """The values of base's and candidate's answers to the chosen items, and the items' clusters."""
        clusters = [self._clusters.get(self.first[digest].item_id, "") for digest in chosen]
        return _rows(self.bases, chosen, value), _rows(self.candidates, chosen, value), clusters

    def difference(self, chosen: Sequence[str], value: Value) -> PairedDifference:
        """The difference over the chosen items."""
        return paired_difference(*self.rows(chosen, value))

    def evidence(self, value: Value, contamination: Contamination) -> _Evidence:
        """What ``decide`` needs, with ``clean`` filled in."""
        leaked = {found.item_id for found in contamination.items}
        clean = [digest for digest in self.digests if self.first[digest].item_id not in leaked]
        of_clean = self.difference(clean, value) if 0 < len(clean) < len(self.digests) else None
        return _Evidence(
            self.difference(self.digests, value),
            _bounds(self.bases, self.candidates, value),
            contamination.model_copy(update={"clean": of_clean}),
            _seeds(self.bases, self.candidates, self.digests, value),
        )


def right(verdict: Verdict) -> float:
    """1 for a right answer, else 0."""
    return float(verdict.correct)


def right_and_marked(verdict: Verdict) -> float:
    """1 for a right answer that a mark showed, else 0."""
    return float(verdict.correct and not verdict.unmarked)


def _rows(runs: Sequence[Run], digests: Sequence[str], value: Value) -> list[list[float]]:
    """The value of every item, for each sample of each run; an item that failed has one value in all."""
    return [
        [value(verdicts[sample % len(verdicts)]) for verdicts in answered]
        for answered in ([run.results[digest].each for digest in digests] for run in runs)
        for sample in range(max(map(len, answered), default=1))
    ]


def _lengths(run: Run, digests: Sequence[str]) -> tuple[int, ...]:
    """The lengths of all answers."""
    generations = [run.results[digest].generation for digest in digests]
    return tuple(
        answer.output_tokens for generation in generations for answer in generation.answers or (generation,)
    )


def _parts(run: Run, digests: Sequence[str]) -> PartTokens:
    """The tokens of all answers, in their two parts."""
    results = [run.results[digest] for digest in digests]
    parts = [entry for result in results for entry in result.parts]
    tokens = [entry.tokens for entry in parts]
    known = [count for count in tokens if count is not None]
    reasoning = sum(known) if len(known) == len(tokens) else None
    total = sum(answer.output_tokens for result in results for answer in result.generation.answers)
    return PartTokens(
        answer_count=len(parts),
        reasoning_count=sum(entry.state != "none" for entry in parts),
        unclosed_count=sum(entry.state == "unclosed" for entry in parts),
        reasoning_tokens=reasoning,
        answer_tokens=None if reasoning is None else total - reasoning,
    )


def _unmarked(sides: _Sides, contamination: Contamination) -> UnmarkedAnswers | None:
    """What rests on unmarked answers; None if nothing does."""

    def resting(runs: Sequence[Run]) -> tuple[int, int]:
        verdicts = chain.from_iterable(run.results[digest].each for run in runs for digest in sides.digests)
        found = [verdict for verdict in verdicts if verdict.unmarked]
        return len(found), sum(verdict.correct for verdict in found)

    base, candidate = resting(sides.bases), resting(sides.candidates)
    if not base[0] and not candidate[0]:
        return None
    without = sides.evidence(right_and_marked, contamination)
    verdict, reasons = without.verdict
    return UnmarkedAnswers(
        base_count=base[0],
        base_correct_count=base[1],
        candidate_count=candidate[0],
        candidate_correct_count=candidate[1],
        without=without.overall,
        verdict=verdict,
        verdict_reasons=reasons,
    )


def _categories(sides: _Sides) -> tuple[CategoryDifference, ...]:
    groups = grouped((sides.first[digest].category, digest) for digest in sides.digests)
    found = {category: sides.difference(digests, right) for category, digests in groups.items()}
    adjusted = holm([entry.p_value for entry in found.values()])
    return tuple(
        CategoryDifference(category=category, difference=entry, adjusted_p_value=p_value)
        for (category, entry), p_value in zip(found.items(), adjusted, strict=True)
    )


def _flips(base: Run, candidate: Run, digests: Sequence[str]) -> Iterator[Flip]:
    """Those that went right, then those that went wrong."""
    pairs = [(base.results[digest], candidate.results[digest]) for digest in digests]
    for wanted in (True, False):
        for before, after in pairs:
            if before.verdict.correct is not wanted and after.verdict.correct is wanted:
                found = pattern(before, after)
                yield Flip(base=_texts_of(before), candidate=_texts_of(after), pattern=found)


def _warnings(
    bases: Sequence[Run], candidates: Sequence[Run], digests: Sequence[str]
) -> Iterator[ComparisonWarning]:
    """Pairs of runs that are one evaluation, or of which every answer is the same."""
    for base, candidate in product(bases, candidates):
        name, other = (evaluation_name(run.evaluation.id) for run in (base, candidate))
        if name == other:
            yield ComparisonWarning(
                reason="same_evaluation",
                description=f"{name} is base and candidate: compared with itself, it can show no difference",
            )
        elif all(_texts(base, digest) == _texts(candidate, digest) for digest in digests):
            yield ComparisonWarning(
                reason="equal_answers",
                description=f"every answer of {name} and {other} is the same text, so that any difference "
                "comes from grading alone",
            )


def _texts(run: Run, digest: str) -> list[tuple[str, str]]:
    """What a run wrote to an item: reasoning that came apart, and output."""
    return [(answer.reasoning, answer.output) for answer in run.results[digest].generation.answers]


def _texts_of(result: ItemResult) -> ItemResult:
    """A result without log-probabilities, which nobody reads side by side."""
    generation = result.generation
    more = tuple(answer.model_copy(update={"log_probabilities": ()}) for answer in generation.more)
    texts = generation.model_copy(update={"log_probabilities": (), "more": more})
    return result.model_copy(update={"generation": texts})


def _seeds(
    bases: Sequence[Run], candidates: Sequence[Run], digests: Sequence[str], value: Value
) -> SeedSummary | None:
    if len(bases) == len(candidates) == 1:
        return None

    def accuracies(runs: Sequence[Run]) -> list[float]:
        rows = [_rows([run], digests, value) for run in runs]
        return [sum(map(sum, values)) / (len(values) * len(digests)) for values in rows]

    return seed_summary(accuracies(bases), accuracies(candidates))


def _bounds(bases: Sequence[Run], candidates: Sequence[Run], value: Value) -> OutcomeBounds:
    """Over all items that any run has a result of."""
    runs = (*bases, *candidates)
    digests = sorted(set(chain.from_iterable(run.results for run in runs)))
    results = [[run.results.get(digest) for run in runs] for digest in digests]

    def mean(side: Sequence[Run], unsettled: float, *, truncated: bool) -> float:
        values = [
            _worth(run.results.get(digest), value, unsettled, truncated=truncated)
            for run in side
            for digest in digests
        ]
        return sum(values) / len(values)

    def difference(candidate_gets: float, *, truncated: bool) -> float:
        return mean(candidates, candidate_gets, truncated=truncated) - mean(
            bases, 1.0 - candidate_gets, truncated=truncated
        )

    def count(unsettled: Callable[[ItemResult | None], bool]) -> int:
        return sum(any(map(unsettled, row)) for row in results)

    return OutcomeBounds(
        unsettled_count=count(lambda result: result is None or not all(_settled(result, truncated=False))),
        worst=difference(0.0, truncated=False),
        best=difference(1.0, truncated=False),
        truncated_count=count(
            lambda result: result is not None and "length" in result.generation.finish_reasons
        ),
        worst_with_truncated=difference(0.0, truncated=True),
        best_with_truncated=difference(1.0, truncated=True),
    )


def _worth(result: ItemResult | None, value: Value, unsettled: float, *, truncated: bool) -> float:
    """The mean value of an item's answers, with ``unsettled`` for each that is not settled."""
    if result is None:
        return unsettled
    values = [
        value(verdict) if known else unsettled
        for verdict, known in zip(result.each, _settled(result, truncated=truncated), strict=True)
    ]
    return sum(values) / len(values)


def _settled(result: ItemResult, *, truncated: bool) -> list[bool]:
    """Whether each answer is settled: graded, and with ``truncated`` not cut either."""
    return [
        not (verdict.error or (truncated and answer.finish_reason == "length"))
        for answer, verdict in zip(result.generation.answers, result.each, strict=False)
    ] or [False]
