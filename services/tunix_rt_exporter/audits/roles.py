"""Of what each role says: how much of it a model would learn."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, chain, compress, groupby
from typing import Final, get_args

from tunix_rt_exporter.datasets.model import DatasetSpec, SourceTrace
from tunix_rt_exporter.datasets.render import chat_message
from tunix_rt_kit.chat import ChatTemplate, Conversation, render_response
from tunix_rt_kit.chat.proof import Span
from tunix_rt_kit.chat.turns import PlacedTurn, TurnFinder, Turns
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


def row_of(example: TextExample) -> str:
    """The id of an example's row: where a row is several examples, the turn that each teaches follows it."""
    return example.id.partition(":")[0]


@dataclass(frozen=True)
class _Placed:
    """A training example with its tokens.

    What stands before the character ``ends[i]``, and behind the token before, is the token i's. Tokens for
    parts of one character have the same end, and so have those of a segment that is ``whole``: of these it is
    only known that they are all learned.
    """

    text: TextExample
    row: TokenExample
    ends: Sequence[int]
    whole: Sequence[Span]
    in_order: bool
    """Whether the tokens stand in the text as in the row, as most tokenizers have it."""

    @classmethod
    def of(cls, text: TextExample, row: TokenExample, ends: Sequence[Sequence[int] | int]) -> _Placed:
        """Args: ``ends`` are those in each segment, or how many tokens one has that is whole. Some tokenizers
        leave a blank out, which counts for the token behind it, or for the last."""
        at = 0
        joined: list[int] = []
        whole: list[Span] = []
        in_order = True
        for segment, found in zip(text.segments, ends, strict=True):
            start, at = at, at + len(segment.text)
            if isinstance(found, int):
                joined += [at] * found
                whole.append((start, at))
            elif found:
                in_order = in_order and found == sorted(found)
                joined += [end + start for end in found] if start else found
                joined[-1] = at
        return cls(text, row, joined, whole, in_order)

    @property
    def whole_text(self) -> str:
        return "".join(segment.text for segment in self.text.segments)

    def is_cut(self, turns: Turns) -> bool:
        """Whether a turn begins or ends inside of a segment that is whole, or the row's first token, which is
        never learned, is of one."""
        if not self.whole or self.row.learned[0][0] == 0:
            return bool(self.whole)
        edges = list(chain.from_iterable(self.whole))
        places = (place for turn in turns for span in turn.spans for place in span)
        # Between the two edges of one, and on none.
        return any(
            bisect_left(edges, place) % 2 and edges[bisect_left(edges, place)] != place for place in places
        )

    def tokens(self, span: Span) -> Span:
        """The tokens that hold a character of a span."""
        start, end = span
        ends = self.ends
        first, behind = bisect_right(ends, start), bisect_right(ends, end)
        if start >= end:
            return first, first
        if behind < len(ends) and (behind == 0 or ends[behind - 1] < end):
            behind += 1
        return first, max(first, behind)

    def learned(self, tokens: Span) -> int:
        """How many of these tokens are learned."""
        return self._learned_before(tokens[1]) - self._learned_before(tokens[0])

    def _learned_before(self, token: int) -> int:
        edges, counts = self._edges
        number = bisect_right(edges, token)
        return counts[number] + (token - edges[number - 1] if number % 2 else 0)

    @cached_property
    def _edges(self) -> tuple[list[int], list[int]]:
        """Where what is learned begins and ends, in turns; and how many tokens are before the first of these,
        and up to each: up to a beginning, and so to the end of the part before."""
        learned = self.row.supervised
        sizes = chain.from_iterable((0, end - start) for start, end in learned)
        return list(chain.from_iterable(learned)), [0, *accumulate(sizes)]

    def is_learned(self, span: Span) -> bool:
        """Whether each token that holds a character of a span is learned, of which there is one."""
        first, end = tokens = self.tokens(span)
        return first < end and self.learned(tokens) == end - first


@dataclass(slots=True)
class _Counts:
    """The figures of `RoleSupervision`."""

    token_count: int = 0
    supervised_token_count: int = 0
    turn_count: int = 0
    supervised_turn_count: int = 0
    end_mark_count: int = 0
    supervised_end_mark_count: int = 0
    tool_call_count: int = 0
    supervised_tool_call_count: int = 0

    def add(self, tokens: int, learned: int) -> None:
        self.token_count += tokens
        self.supervised_token_count += learned


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
        self._counts: dict[Part, _Counts] = {part: _Counts() for part in _PARTS}
        self._elsewhere, self._masked, self._unproved = FoundRows(), FoundRows(), FoundRows()

    def encode(self, examples: Sequence[TextExample]) -> Sequence[TokenExample]:
        """As `ExampleEncoder.encode`; raises DataLoss: EXAMPLES_CORRUPT, rows are not those of the traces."""
        ids, ends = self._encoded(examples)
        rows = self._encoder.encode(examples, ids)
        left = iter(ends)
        self._waiting += [
            _Placed.of(example, row, [next(left) for _ in example.segments])
            for example, row in zip(examples, rows, strict=True)
        ]
        # More examples of the last row may follow.
        last = row_of(examples[-1])
        first = next(at for at, one in enumerate(self._waiting) if row_of(one.text) == last)
        whole, self._waiting = self._waiting[:first], self._waiting[first:]
        self._count(whole)
        return rows

    def _encoded(self, examples: Sequence[TextExample]) -> tuple[list[list[int]], list[Sequence[int] | int]]:
        """The tokens of each segment, and their ends; of one that is learned how many there are.

        That takes less time, and mostly such a segment is all of one turn.
        """
        whole = [segment.learned for example in examples for segment in example.segments]
        texts = segment_texts(examples)
        counted = iter(self._tokenizer.encode_batch(list(compress(texts, whole))))
        placed = iter(
            self._tokenizer.encode_ends([text for text, each in zip(texts, whole, strict=True) if not each])
        )
        ids: list[list[int]] = []
        ends: list[Sequence[int] | int] = []
        for is_whole in whole:
            found = next(counted) if is_whole else None
            tokens, places = next(placed) if found is None else (found, len(found))
            ids.append(tokens)
            ends.append(places)
        return ids, ends

    def added_to(self, found: SplitSupervision) -> SplitSupervision:
        """The audit of the same rows, with what was counted."""
        self._count(self._waiting)
        self._waiting = []
        told = [RoleSupervision(part=part, **asdict(counts)) for part, counts in self._counts.items()]
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
                cut = turns is not None and one.is_cut(turns)
                placed = self._with_all_ends(one) if cut else one
                self._count_example(placed, turns if placed.in_order else None)

    def _with_all_ends(self, one: _Placed) -> _Placed:
        encoded = self._tokenizer.encode_ends(segment_texts([one.text]))
        return _Placed.of(one.text, one.row, [ends for _, ends in encoded])

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
            self._counts["unproved"].add(tokens, learned)
            return
        said, strange, at = [0] * len(turns), 0, 0
        for span, number in sorted(
            (span, number) for number, turn in enumerate(turns) for span in turn.spans
        ):
            first, end = one.tokens(span)
            # A token that stands in two turns is the first one's.
            first, at = max(first, at), max(end, at)
            count = one.learned((first, at))
            self._counts[turns[number].role].add(at - first, count)
            tokens, learned = tokens - (at - first), learned - count
            said[number] += count
            strange += 0 if turns[number].taught else count
        self._counts["template"].add(tokens, learned)
        self._elsewhere.note(one.row.id, strange > 0)
        ends = [self._count_turn(one, turn, count > 0) for turn, count in zip(turns, said, strict=True)]
        self._masked.note(one.row.id, not all(ends))

    def _count_turn(self, one: _Placed, turn: PlacedTurn, is_learned: bool) -> bool:
        """Count a turn; returns whether its end is learned, if it is to be."""
        ends = turn.end_mark is not None and one.is_learned(turn.end_mark)
        counts = self._counts[turn.role]
        counts.turn_count += 1
        counts.supervised_turn_count += is_learned
        counts.end_mark_count += turn.end_mark is not None
        counts.supervised_end_mark_count += ends
        counts.tool_call_count += len(turn.calls)
        counts.supervised_tool_call_count += sum(map(one.is_learned, turn.calls))
        return ends or not turn.taught


def _row_of_placed(one: _Placed) -> str:
    return row_of(one.text)
