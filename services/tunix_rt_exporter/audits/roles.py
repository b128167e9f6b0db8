"""Of what each role says: how much of it a model would learn."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, get_args

from tunix_rt_exporter.datasets.model import DatasetSpec, SourceTrace
from tunix_rt_exporter.datasets.render import chat_message
from tunix_rt_kit.chat import ChatTemplate, Conversation, render_response
from tunix_rt_kit.chat.proof import Span
from tunix_rt_kit.chat.turns import PlacedTurn, TurnFinder
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.loss_mask import (
    ExampleEncoder,
    FoundRows,
    Part,
    RoleSupervision,
    SplitSupervision,
    TextExample,
    TokenExample,
    segment_texts,
)
from tunix_rt_kit.models.tokenizer import TextTokenizer

_PARTS: Final[tuple[Part, ...]] = get_args(Part)
Turns = tuple[PlacedTurn, ...]


def row_of(example: TextExample) -> str:
    """The id of an example's row: where a row is several examples, the turn that each teaches follows it."""
    return example.id.partition(":")[0]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A training example with its tokens: what stands before the character ``ends[i]``, and behind the token
    before, is the token i's. Tokens for parts of one character have the same end."""

    text: TextExample
    row: TokenExample
    ends: Sequence[int]

    @classmethod
    def of(cls, text: TextExample, row: TokenExample, ends: Sequence[Sequence[int]]) -> _Placed:
        """Args: ``ends`` are those in each segment. Some tokenizers leave a blank out, which counts for the
        token behind it, or for the last."""
        at = 0
        joined: list[int] = []
        for segment, found in zip(text.segments, ends, strict=True):
            joined += [end + at for end in found]
            at += len(segment.text)
            joined[-1:] = [at] if found else joined[-1:]
        return cls(text, row, joined)

    @property
    def in_order(self) -> bool:
        """Whether the tokens stand in the text as in the row, as most tokenizers have it."""
        return self.ends == sorted(self.ends)

    @property
    def whole_text(self) -> str:
        return "".join(segment.text for segment in self.text.segments)

    def tokens(self, span: Span) -> Span:
        """The tokens that hold a character of a span."""
        start, end = span
        first, behind = bisect_right(self.ends, start), bisect_right(self.ends, end)
        if start < end and behind < len(self.ends) and (behind == 0 or self.ends[behind - 1] < end):
            behind += 1
        return first, max(first, behind) if start < end else first

    def learned(self, tokens: Span) -> int:
        """How many of these tokens are learned."""
        first, behind = tokens
        return sum(max(0, min(behind, end) - max(first, start)) for start, end in self.row.supervised)

    def is_learned(self, span: Span) -> bool:
        """Whether each token that holds a character of a span is learned, of which there is one."""
        first, end = tokens = self.tokens(span)
        return first < end and self.learned(tokens) == end - first


class RoleCounts:
    """Encodes the training examples of one split, in order, and counts on the way who says what is learned.

    Args:
        spec: of the dataset.
        traces: the split's rows, in order.
        tokenizer: of the model.
        encoder: the same that training has.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        traces: Iterator[SourceTrace],
        tokenizer: TextTokenizer,
        encoder: ExampleEncoder,
    ) -> None:
        self._spec = spec
        self._traces = traces
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._finder = TurnFinder(ChatTemplate.of(spec.chat_template), spec.changed_history)
        self._waiting: list[_Placed] = []
        self._counts: dict[Part, Counter[str]] = {part: Counter() for part in _PARTS}
        self._elsewhere, self._masked, self._unproved = FoundRows(), FoundRows(), FoundRows()

    def encode(self, examples: Sequence[TextExample]) -> Sequence[TokenExample]:
        """As `ExampleEncoder.encode`; raises DataLoss: EXAMPLES_CORRUPT, rows are not those of the traces."""
        encoded = self._tokenizer.encode_ends(segment_texts(examples))
        rows = self._encoder.encode(examples, [ids for ids, _ in encoded])
        ends = iter(ends for _, ends in encoded)
        self._waiting += [
            _Placed.of(example, row, [next(ends) for _ in example.segments])
            for example, row in zip(examples, rows, strict=True)
        ]
        # More examples of the last row may follow.
        last = row_of(examples[-1])
        first = next(at for at, one in enumerate(self._waiting) if row_of(one.text) == last)
        whole, self._waiting = self._waiting[:first], self._waiting[first:]
        self._count(whole)
        return rows

    def added_to(self, found: SplitSupervision) -> SplitSupervision:
        """The audit of the same rows, with what was counted."""
        self._count(self._waiting)
        self._waiting = []
        told = [RoleSupervision(part=part, **counts) for part, counts in self._counts.items()]
        return found.model_copy(
            update={
                "roles": tuple(role for role in told if role.token_count or role.turn_count),
                "supervised_elsewhere": self._elsewhere.rows(),
                "end_mark_masked": self._masked.rows(),
                "unproved_roles": self._unproved.rows(),
            }
        )

    def _count(self, examples: Sequence[_Placed]) -> None:
        rows = [(self._trace(row_id), list(group)) for row_id, group in groupby(examples, _row_of_placed)]
        talks = iter(
            self._finder.conversations(
                [
                    (self._conversation(trace), [one.whole_text for one in group])
                    for trace, group in rows
                    if trace.messages
                ]
            )
        )
        for trace, group in rows:
            found = next(talks) if trace.messages else [self._exchange(trace, one) for one in group]
            for one, turns in zip(group, found, strict=True):
                self._count_example(one, turns if one.in_order else None)

    def _trace(self, row_id: str) -> SourceTrace:
        trace = next(self._traces, None)
        if trace is None or trace.digest.hex() != row_id:
            raise DataLoss(
                f"row {row_id} of the training examples is not that of the format trace",
                reason="EXAMPLES_CORRUPT",
            )
        return trace

    def _conversation(self, trace: SourceTrace) -> Conversation:
        messages = [chat_message(message) for message in trace.messages]
        return Conversation(messages, trace.learned_turns(self._spec.train_on), trace.tools)

    def _exchange(self, trace: SourceTrace, one: _Placed) -> Turns | None:
        steps = [step["content"] for step in trace.steps]
        reply = render_response(steps, trace.final_answer, self._spec.reasoning_style)
        return self._finder.exchange(trace.prompt, reply, one.whole_text)

    def _count_example(self, one: _Placed, turns: Turns | None) -> None:
        tokens = len(one.row.ids)
        learned = one.learned((0, tokens))
        self._unproved.note(one.row.id, turns is None)
        if turns is None:
            self._counts["unproved"].update(token_count=tokens, supervised_token_count=learned)
            return
        said, strange, at = [0] * len(turns), 0, 0
        for span, number in sorted(
            (span, number) for number, turn in enumerate(turns) for span in turn.spans
        ):
            first, end = one.tokens(span)
            # A token that stands in two turns is the first one's.
            first, at = max(first, at), max(end, at)
            count = one.learned((first, at))
            self._counts[turns[number].role].update(token_count=at - first, supervised_token_count=count)
            tokens, learned = tokens - (at - first), learned - count
            said[number] += count
            strange += 0 if turns[number].taught else count
        self._counts["template"].update(token_count=tokens, supervised_token_count=learned)
        self._elsewhere.note(one.row.id, strange > 0)
        ends = [self._count_turn(one, turn, count > 0) for turn, count in zip(turns, said, strict=True)]
        self._masked.note(one.row.id, not all(ends))

    def _count_turn(self, one: _Placed, turn: PlacedTurn, is_learned: bool) -> bool:
        """Count a turn; returns whether its end is learned, if it is to be."""
        ends = turn.end_mark is not None and one.is_learned(turn.end_mark)
        self._counts[turn.role].update(
            turn_count=1,
            supervised_turn_count=is_learned,
            end_mark_count=turn.end_mark is not None,
            supervised_end_mark_count=ends,
            tool_call_count=len(turn.calls),
            supervised_tool_call_count=sum(map(one.is_learned, turn.calls)),
        )
        return ends or not turn.taught


def _row_of_placed(one: _Placed) -> str:
    return row_of(one.text)
