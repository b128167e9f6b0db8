"""Who speaks where in the text of a training example.

It is found from the conversation, and not from what is learned: a text is taken for a turn's only where the
template, which is given names in place of all texts, writes that turn's name. With names most conversations
of a dataset are the same, so what the template writes of one is kept for the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Final, NamedTuple

from tunix_rt_kit.chat.conversations import (
    ChangedHistory,
    Conversation,
    ConversationRenderer,
    RenderedConversation,
    Unrendered,
)
from tunix_rt_kit.chat.messages import Role
from tunix_rt_kit.chat.proof import NamedMessage, NamedText, Parts, Span
from tunix_rt_kit.chat.template import ChatTemplate

_PROBE: Final = "\ue001"
# What is kept may take about as much memory; a name in it takes so much, all told.
_KEPT_BYTES: Final = 32 << 20
_BYTES_OF_NAME: Final = 500

Turns = tuple["PlacedTurn", ...]


class PlacedTurn(NamedTuple):
    """A turn in the text of a training example.

    Args:
        role: who speaks.
        spans: where; most turns stand in one piece. One that the example is to teach begins where the model
            begins to write, and ends with what closes it. Others begin and end with their own texts, and the
            assistant's with its end mark.
        taught: whether it is a turn that the example is to teach.
        end_mark: where the text stands that ends an assistant's turn, None if that is not known.
        calls: where the assistant's tool calls stand.
    """

    role: Role
    spans: tuple[Span, ...]
    taught: bool = False
    end_mark: Span | None = None
    calls: tuple[Span, ...] = ()

    @property
    def places(self) -> Iterator[int]:
        """Where its spans, its end mark and its calls begin and end."""
        for span in (*self.spans, *self.calls, *([self.end_mark] if self.end_mark else [])):
            yield from span

    def moved(self, to: Mapping[int, int]) -> PlacedTurn:
        """The turn in another text; ``to`` says of each of its places where that is there."""
        mark = self.end_mark
        return PlacedTurn(
            self.role,
            tuple([(to[start], to[end]) for start, end in self.spans]),
            self.taught,
            (to[mark[0]], to[mark[1]]) if mark else None,
            tuple([(to[start], to[end]) for start, end in self.calls]),
        )


@dataclass(frozen=True, slots=True)
class _NamedTurns:
    """A training example with names in place of its texts, and the turns in it.

    ``places`` has each place where one begins or ends: how many names end before it, or there, and how many
    characters behind the last of them it is.
    """

    named: NamedText
    turns: Turns
    places: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, named: NamedText, turns: Turns) -> _NamedTurns | None:
        """None if a turn begins or ends inside of a name."""
        starts, ends = [start for start, _ in named.spans], [0, *(end for _, end in named.spans)]
        places: dict[int, tuple[int, int]] = {}
        for place in (place for turn in turns for place in turn.places):
            before = bisect_right(ends, place) - 1
            if before < len(starts) and starts[before] < place:
                return None
            places[place] = before, place - ends[before]
        return cls(named, turns, places)

    def turns_in(self, text: str, parts: Parts) -> Turns | None:
        """The turns of the example itself, whose texts are those of ``parts``."""
        placed = parts.placed(self.named, text)
        if placed is None:
            return None
        ends = [0, *[end for _, end in placed]]
        to = {place: ends[before] + more for place, (before, more) in self.places.items()}
        return tuple([turn.moved(to) for turn in self.turns])


class _Named(NamedTuple):
    """A conversation with names in place of its texts: all that the chat template gets of it."""

    messages: tuple[NamedMessage, ...]
    learned: tuple[int, ...]
    tools: tuple[str, ...]

    @property
    def conversation(self) -> Conversation:
        return Conversation([message.message for message in self.messages], self.learned, self.tools)

    def numbered(self) -> _Named:
        """The same with its calls' ids by number, the same where they were the same."""
        if not any(message.tool_calls or message.tool_call_id for message in self.messages):
            return self
        ids: dict[str, str] = {"": ""}
        for message in self.messages:
            for own in (*[call.id for call in message.tool_calls], message.tool_call_id):
                ids.setdefault(own, f"call{len(ids):05}")
        messages = [
            message._replace(
                tool_calls=tuple([call._replace(id=ids[call.id]) for call in message.tool_calls]),
                tool_call_id=ids[message.tool_call_id],
            )
            if message.tool_calls or message.tool_call_id
            else message
            for message in self.messages
        ]
        return self._replace(messages=tuple(messages))


class TurnFinder:
    """Finds turns in texts that one chat template wrote.

    Args:
        template: the chat template.
        changed_history: as `ConversationRenderer` was given it.
    """

    def __init__(self, template: ChatTemplate, changed_history: ChangedHistory = "each_turn") -> None:
        self._template = template
        self._renderer = ConversationRenderer(template, changed_history=changed_history)
        self._known: dict[_Named, Sequence[_NamedTurns | None]] = {}
        self._known_bytes = 0
        # Few templates write the ids of calls, which are others in each conversation.
        self._writes_ids = False

    def exchange(self, asked: str, reply: str, text: str) -> Turns | None:
        """The turns of an example whose conversation is a user's text and the assistant's reply to it; None
        if they cannot be proved to stand where they seem to."""
        frame, system = self._template.frame, self._system
        behind = len(frame.before) + len(reply) + len(frame.closing)
        prompt, response = text[:-behind], text[-behind:]
        if system is None or frame.lost((asked, reply), (prompt, response)) is not None:
            return None
        end = len(prompt) + len(frame.before) + len(reply)
        user = PlacedTurn("user", ((len(frame.opening), len(prompt) - len(frame.between)),))
        mark = self._end_mark(text, end, len(text))
        return *system, user, PlacedTurn("assistant", ((len(prompt), len(text)),), True, mark)

    @cached_property
    def _system(self) -> Turns | None:
        """The system instruction in what stands before the user's text; None if it cannot be told."""
        instruction, opening = self._template.system_instruction, self._template.frame.opening
        if not instruction:
            return ()
        fields = {**self._template.model_dump(), "system_instruction": _PROBE}
        before, found, behind = ChatTemplate.model_validate(fields).frame.opening.partition(_PROBE)
        written = opening.removeprefix(before).removesuffix(behind)
        if not found or f"{before}{written}{behind}" != opening or written.strip() != instruction.strip():
            return None
        return (PlacedTurn("system", ((len(before), len(before) + len(written)),)),)

    def conversations(self, wanted: Sequence[tuple[Conversation, Sequence[str]]]) -> list[list[Turns | None]]:
        """The turns in the training examples of each conversation, which are given as texts; None for one in
        which they cannot be proved to stand where they seem to.

        Raises as `ConversationRenderer.render`.
        """
        named = [self._named(conversation, texts) for conversation, texts in wanted]
        numbered = [(parts, hidden if self._writes_ids else hidden.numbered()) for parts, hidden in named]
        texts = [texts for _, texts in wanted]
        found = self._found(numbered, texts)
        again = [
            place
            for place, turns in enumerate(found)
            if None in turns and numbered[place][1] != named[place][1]
        ]
        others = self._found([named[place] for place in again], [texts[place] for place in again])
        for place, turns in zip(again, others, strict=True):
            found[place] = turns
            self._writes_ids = self._writes_ids or None not in turns
        return found

    def _named(self, conversation: Conversation, texts: Sequence[str]) -> tuple[Parts, _Named]:
        """The conversation with names in place of its texts, the template's system instruction in it."""
        messages = self._template.with_system_message(conversation.messages)
        added = len(messages) - len(conversation.messages)
        spoken = [number for number, message in enumerate(messages) if message.role == "assistant"]
        parts = Parts.of(messages, spoken, conversation.tools, texts)
        learned = tuple(turn + added for turn in conversation.learned)
        return parts, _Named(parts.named, learned, parts.tools)

    def _found(
        self, wanted: Sequence[tuple[Parts, _Named]], texts: Sequence[Sequence[str]]
    ) -> list[list[Turns | None]]:
        new = {hidden: parts for parts, hidden in wanted if hidden not in self._known}
        masks = self._renderer.masks([hidden.conversation for hidden in new])
        made: dict[_Named, Sequence[_NamedTurns | None]] = {
            hidden: ()
            if isinstance(mask, Unrendered)
            else [self._turns(parts, hidden, each) for each in mask]
            for (hidden, parts), mask in zip(new.items(), masks, strict=True)
        }
        known = [made[hidden] if hidden in made else self._known[hidden] for _, hidden in wanted]
        self._keep(made)
        return [
            [each.turns_in(text, parts) if each else None for each, text in zip(examples, own, strict=True)]
            if len(examples) == len(own)
            else [None] * len(own)
            for (parts, _), examples, own in zip(wanted, known, texts, strict=True)
        ]

    def _keep(self, made: Mapping[_Named, Sequence[_NamedTurns | None]]) -> None:
        """Keep what the template wrote, but not that it failed, which may be for want of time."""
        for hidden, examples in made.items():
            size = len(repr(hidden)) + _BYTES_OF_NAME * len(hidden.messages)
            for each in examples:
                size += 2 * len(each.named.text) + _BYTES_OF_NAME * len(each.named.numbers) if each else 0
            if self._known_bytes + size > _KEPT_BYTES:
                self._known, self._known_bytes = {}, 0
            if examples and size <= _KEPT_BYTES:
                self._known[hidden] = examples
                self._known_bytes += size

    def _turns(self, parts: Parts, conversation: _Named, hidden: RenderedConversation) -> _NamedTurns | None:
        """The turns in a training example with names; None if they cannot be told."""
        named, messages = parts.cut(hidden.text), conversation.messages
        placed = [
            _Placed(*parts.place(number), span)
            for number, span in zip(named.numbers, named.spans, strict=True)
        ]
        taught = {turn.message: (turn.start, turn.end) for turn in hidden.turns}
        runs = sorted([*_runs(placed, taught), *((*span, turn) for turn, span in taught.items())])
        if any(end > start for (_, end, _), (start, _, _) in pairwise(runs)):
            return None
        marks = {turn: self._mark_of_taught(placed, turn, named.text, span) for turn, span in taught.items()}
        spans: dict[int, list[Span]] = {}
        behind = len(named.text)
        for (start, end, number), (limit, _, following) in pairwise([*runs, (behind, 0, len(messages))]):
            is_untaught = messages[number].role == "assistant" and number not in taught
            # Else the next end mark may be another turn's, of which there is no text.
            if is_untaught and following == number + 1:
                marks[number] = mark = self._end_mark(named.text, end, limit)
                end = mark[1] if mark else end
            spans.setdefault(number, []).append((start, end))
        turns = [
            PlacedTurn(
                messages[number].role,
                tuple(where),
                number in taught,
                marks.get(number),
                _calls(placed, number),
            )
            for number, where in spans.items()
        ]
        return _NamedTurns.of(named, tuple(turns))

    def _mark_of_taught(self, placed: Sequence[_Placed], turn: int, text: str, span: Span) -> Span | None:
        start, end = span
        said = [each.span[1] for each in placed if each.message == turn and start <= each.span[0] < end]
        return self._end_mark(text, max(said, default=start), end)

    def _end_mark(self, text: str, start: int, end: int) -> Span | None:
        found = text.find(self._template.end_of_turn, start, end)
        return None if found < 0 else (found, found + len(self._template.end_of_turn))


@dataclass(frozen=True, slots=True)
class _Placed:
    """A name: the number of the message that its text belongs to, that of the tool call, and where it is."""

    message: int | None
    call: int | None
    span: Span


def _runs(placed: Sequence[_Placed], taught: Mapping[int, Span]) -> Iterator[tuple[int, int, int]]:
    """Where texts of one message stand that follow one another, and its number; not those in turns that are
    taught."""
    for message, texts in groupby(placed, key=lambda each: each.message):
        spans = [each.span for each in texts]
        start, end = spans[0][0], spans[-1][1]
        first, behind = taught.get(message, (0, -1)) if message is not None else (0, -1)
        if message is not None and not (first <= start and end <= behind):
            yield start, end, message


def _calls(placed: Sequence[_Placed], message: int) -> tuple[Span, ...]:
    calls: dict[int, list[Span]] = {}
    for each in placed:
        if each.message == message and each.call is not None:
            calls.setdefault(each.call, []).append(each.span)
    return tuple((spans[0][0], spans[-1][1]) for spans in calls.values())
