"""What was answered to one item, and its grade. Plain values, free of transport."""

from __future__ import annotations

from itertools import repeat
from typing import Final

from tunix_rt_evaluator.grading.model import Grown, Verdict
from tunix_rt_evaluator.grading.reasoning.model import Answer, FinishReason, Parts, Split
from tunix_rt_kit.values import Value

# A message of 4 MiB, less what is around one result.
MAX_RESULT_BYTES: Final = (4 << 20) - (1 << 16)
# Of an encoded result: its digests, numbers and times, and what stands before each of its texts.
_RESULT_BYTES: Final = 512
_FIELD_BYTES: Final = 32


class Generation(Answer):
    """What a model wrote for one item: the first answer, and ``more`` where several were asked for.

    ``seconds`` is the wall time that the item took of its engine's, of all its answers. ``kept_tokens`` are
    those of its answers that were kept from an earlier evaluation, ``cached`` says that all were.
    ``prompt_tokens`` and ``prompt_token_digest`` are 0 and empty where the prompt
    could not be rendered.
    """

    added = Answer.added | {"more", "cached", "kept_tokens"}

    item_id: str
    prompt_tokens: int
    prompt_token_digest: str
    error: str = ""
    seconds: float = 0.0
    more: tuple[Answer, ...] = ()
    cached: bool = False
    kept_tokens: int = 0

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Every answer, in order; none where the item failed."""
        return () if self.finish_reason == "failed" else (self, *self.more)

    @property
    def finish_reasons(self) -> frozenset[FinishReason]:
        """Why its answers stopped."""
        return frozenset({self.finish_reason, *(answer.finish_reason for answer in self.more)})


class ItemResult(Grown, Value):
    """What a model answered to one item, and its grade.

    ``verdicts`` are those of every answer where there are several; ``verdict`` then sums them up. ``splits``
    say of every answer where its reasoning stands, None of one without; none at all where no answer has any.
    """

    added = frozenset({"verdicts", "splits"})

    item_id: str
    item_digest: str
    category: str
    prompt: str
    accepted_answers: tuple[str, ...]
    grader: str
    generation: Generation
    verdict: Verdict
    verdicts: tuple[Verdict, ...] = ()
    splits: tuple[Split | None, ...] = ()

    @property
    def parts(self) -> tuple[Parts, ...]:
        """Reasoning and answer of everything that was written, in order; nothing where the item failed."""
        answers = self.generation.answers
        return tuple(
            answer.parts(found) for answer, found in zip(answers, self.splits or repeat(None), strict=False)
        )

    @property
    def each(self) -> tuple[Verdict, ...]:
        """The verdict on every answer, in order; a single one where the item failed."""
        return self.verdicts or (self.verdict,)

    @property
    def settled(self) -> bool:
        """Whether there is an answer that came to its end by itself, and every one could be graded."""
        answers = self.generation.answers
        whole = bool(answers) and all(answer.finish_reason == "stop" for answer in answers)
        return whole and not any(verdict.error for verdict in self.each)

    @property
    def told_parts(self) -> tuple[bool, bool]:
        """Whether a message holds the first answer in its two parts besides its output, and whether it holds
        the reasoning ones of several so: all of it has to fit."""
        first, samples = self._parts_bytes
        room = MAX_RESULT_BYTES - self._whole_bytes
        return first <= room, first + samples <= room

    @property
    def size_bytes(self) -> int:
        """Upper bound of its encoded size, in which the first of several answers stands twice."""
        return self._whole_bytes + sum(
            size for size, told in zip(self._parts_bytes, self.told_parts, strict=True) if told
        )

    @property
    def _whole_bytes(self) -> int:
        answers = [self.generation, *(self.generation.answers if self.verdicts else ())]
        verdicts = [self.verdict, *self.verdicts]
        texts = [self.item_id, self.category, self.prompt, self.grader, self.generation.error]
        texts += self.accepted_answers
        texts += [answer.output for answer in answers]
        for verdict in verdicts:
            texts += [verdict.extracted_answer, verdict.error, verdict.explanation]
        return (
            sum(len(text.encode()) + _FIELD_BYTES for text in texts)
            + sum(8 * len(answer.log_probabilities) + _FIELD_BYTES for answer in answers)
            + _RESULT_BYTES
        )

    @property
    def _parts_bytes(self) -> tuple[int, int]:
        """Of the first answer in its two parts, and of all the samples that hold reasoning."""
        every = self.parts
        first, *_ = [*map(_bytes_of, every[:1]), 0]
        return first, sum(_bytes_of(parts) for parts in every if parts.state != "none" and self.verdicts)


def _bytes_of(parts: Parts) -> int:
    return sum(len(text.encode()) + _FIELD_BYTES for text in (parts.reasoning, parts.answer))


class ItemFilter(Value):
    """Which results are wanted: those that meet every condition that is not None."""

    correct: bool | None = None
    category: str | None = None
    finish_reason: FinishReason | None = None
    grader: str | None = None
    ungraded: bool | None = None
    unclosed_reasoning: bool | None = None

    def takes(self, result: ItemResult) -> bool:
        """Whether a result meets every condition."""
        found = (
            (self.correct, result.verdict.correct),
            (self.category, result.category),
            (self.grader, result.grader.partition("/")[0]),
            (self.ungraded, bool(result.verdict.error)),
            (self.unclosed_reasoning, any(parts.state == "unclosed" for parts in result.parts)),
        )
        return all(wanted is None or wanted == value for wanted, value in found) and (
            self.finish_reason is None or self.finish_reason in result.generation.finish_reasons
        )
