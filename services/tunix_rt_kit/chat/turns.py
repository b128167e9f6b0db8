"""Who speaks where in the text of a training example.

It is found from the conversation, and not from what is learned: a text is taken for a turn's only where the
template, which is given names in place of all texts, writes that turn's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Final

from tunix_rt_kit.chat.conversations import (
    ChangedHistory,
    Conversation,
    ConversationRenderer,
    RenderedConversation,
    Unrendered,
)
from tunix_rt_kit.chat.messages import Message, Role
from tunix_rt_kit.chat.proof import Parts, PlacedText, Span
from tunix_rt_kit.chat.template import ChatTemplate

_PROBE: Final = "\ue001"


@dataclass(frozen=True, slots=True)
class PlacedTurn:
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


class TurnFinder:
    """Finds turns in texts that one chat template wrote.

    Args:
        template: the chat template.
        changed_history: as `ConversationRenderer` was given it.
    """

    def __init__(self, template: ChatTemplate, changed_history: ChangedHistory = "each_turn") -> None:
        self._template = template
        self._renderer = ConversationRenderer(template, changed_history=changed_history)

    def exchange(self, asked: str, reply: str, text: str) -> tuple[PlacedTurn, ...] | None:
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
    def _system(self) -> tuple[PlacedTurn, ...] | None:
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

    def conversations(
        self, wanted: Sequence[tuple[Conversation, Sequence[str]]]
    ) -> list[list[tuple[PlacedTurn, ...] | None]]:
        """The turns in the training examples of each conversation, which are given as texts; None for one in
        which they cannot be proved to stand where they seem to.

        Raises as `ConversationRenderer.render`.
        """
        named = [self._named(conversation, texts) for conversation, texts in wanted]
        masks = self._renderer.masks([hidden for _, hidden in named])
        return [
            [None] * len(texts)
            if isinstance(mask, Unrendered) or len(mask) != len(texts)
            else [
                self._turns(parts, hidden.messages, each, text)
                for each, text in zip(mask, texts, strict=True)
            ]
            for (_, texts), (parts, hidden), mask in zip(wanted, named, masks, strict=True)
        ]

    def _named(self, conversation: Conversation, texts: Sequence[str]) -> tuple[Parts, Conversation]:
        """The conversation with names in place of its texts, the template's system instruction in it."""
        messages = self._template.with_system_message(conversation.messages)
        added = len(messages) - len(conversation.messages)
        spoken = [number for number, message in enumerate(messages) if message.role == "assistant"]
        parts = Parts.of(messages, spoken, conversation.tools, texts)
        learned = [turn + added for turn in conversation.learned]
        return parts, Conversation(parts.messages, learned, parts.tools)

    def _turns(
        self, parts: Parts, messages: Sequence[Message], hidden: RenderedConversation, text: str
    ) -> tuple[PlacedTurn, ...] | None:
        placed = parts.placed(hidden.text, text)
        if placed is None:
            return None
        taught: dict[int, Span] = {}
        for turn in hidden.turns:
            start, end = _moved(placed, turn.start), _moved(placed, turn.end)
            if start is None or end is None:
                return None
            taught[turn.message] = (start, end)
        runs = sorted([*_runs(placed, taught), *((*span, turn) for turn, span in taught.items())])
        if any(end > start for (_, end, _), (start, _, _) in pairwise(runs)):
            return None
        marks = {turn: self._mark_of_taught(placed, turn, text, span) for turn, span in taught.items()}
        spans: dict[int, list[Span]] = {}
        for (start, end, number), (limit, _, following) in pairwise([*runs, (len(text), 0, len(messages))]):
            is_untaught = messages[number].role == "assistant" and number not in taught
            # Else the next end mark may be another turn's, of which there is no text.
            if is_untaught and following == number + 1:
                marks[number] = mark = self._end_mark(text, end, limit)
                end = mark[1] if mark else end
            spans.setdefault(number, []).append((start, end))
        return tuple(
            PlacedTurn(
                messages[number].role,
                tuple(where),
                number in taught,
                marks.get(number),
                _calls(placed, number),
            )
            for number, where in spans.items()
        )

    def _mark_of_taught(self, placed: Sequence[PlacedText], turn: int, text: str, span: Span) -> Span | None:
        start, end = span
        said = [each.span[1] for each in placed if each.message == turn and start <= each.span[0] < end]
        return self._end_mark(text, max(said, default=start), end)

    def _end_mark(self, text: str, start: int, end: int) -> Span | None:
        found = text.find(self._template.end_of_turn, start, end)
        return None if found < 0 else (found, found + len(self._template.end_of_turn))


def _moved(placed: Sequence[PlacedText], at: int) -> int | None:
    """Where a place in the rendering with names is in the text; None inside of a name."""
    moved = at
    for each in placed:
        if at <= each.named[0]:
            break
        if at < each.named[1]:
            return None
        moved = each.span[1] + at - each.named[1]
    return moved


def _runs(placed: Sequence[PlacedText], taught: Mapping[int, Span]) -> Iterator[tuple[int, int, int]]:
    """Where texts of one message stand that follow one another, and its number; not those in turns that are
    taught."""
    for message, texts in groupby(placed, key=lambda each: each.message):
        spans = [each.span for each in texts]
        start, end = spans[0][0], spans[-1][1]
        first, behind = taught.get(message, (0, -1)) if message is not None else (0, -1)
        if message is not None and not (first <= start and end <= behind):
            yield start, end, message


def _calls(placed: Sequence[PlacedText], message: int) -> tuple[Span, ...]:
    calls: dict[int, list[Span]] = {}
    for each in placed:
        if each.message == message and each.call is not None:
            calls.setdefault(each.call, []).append(each.span)
    return tuple((spans[0][0], spans[-1][1]) for spans in calls.values())
