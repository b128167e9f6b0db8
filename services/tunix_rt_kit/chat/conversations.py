"""Conversations as training examples: their text, the spans of it that are learned, and a proof of both.

A conversation is rendered as a whole and, for each turn that is learned, up to that turn and with it. What a
model is asked is a beginning of what is learned, character by character, or the conversation is not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from tunix_rt_kit.chat.messages import (
    Message,
    ToolCall,
    check_no_markers,
    message_texts,
    template_tools,
    written_texts,
)
from tunix_rt_kit.chat.proof import Parts, Span
from tunix_rt_kit.chat.sandbox import SANDBOX, Beginnings, Rendered
from tunix_rt_kit.chat.template import CONTROL, ChatTemplate
from tunix_rt_kit.errors import InvalidArgument

ChangedHistory = Literal["each_turn", "refuse"]

_GENERATION: Final = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_PROBE: Final = "\ue000"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is rendered.

    Args:
        messages: the turns.
        learned: which of them are learned: the numbers of assistant's messages, from 0, at least one.
        tools: the definitions that the model was offered, each the text of a JSON object.
    """

    messages: Sequence[Message]
    learned: Sequence[int]
    tools: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an example's text, and whether it is learned."""

    text: str
    learned: bool


@dataclass(frozen=True, slots=True)
class LearnedTurn:
    """Which message is learned, and where it stands in the text: first character, and that behind it."""

    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """A training example: a text, and in order the turns in it that are learned, at least one."""

    text: str
    turns: tuple[LearnedTurn, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The text, cut where what is learned begins and ends. Joined they are the text; none is empty."""
        found, at = [], 0
        for turn in self.turns:
            found += [
                Segment(self.text[at : turn.start], False),
                Segment(self.text[turn.start : turn.end], True),
            ]
            at = turn.end
        return tuple(segment for segment in [*found, Segment(self.text[at:], False)] if segment.text)

    @property
    def last_turn(self) -> tuple[str, str]:
        """The text before the last turn that is learned, and that turn: what the model is asked, and says."""
        turn = self.turns[-1]
        return self.text[: turn.start], self.text[turn.start : turn.end]


@dataclass(frozen=True, slots=True)
class Unrendered:
    """Why a conversation is no training example.

    Args:
        reason: CHAT_MARKER_IN_CONTENT, a text holds a control text; CHAT_MESSAGES_INVALID, the template
            refuses the conversation; CHAT_TEMPLATE_INVALID, it fails on it; CHAT_TEMPLATE_PREFIX, a turn does
            not begin with what the model is asked; CHAT_TEMPLATE_HISTORY, a later turn changes an earlier
            one; CHAT_GENERATION_BLOCK, the template's own mask is another; TARGET_LOST, the text does not
            hold what the conversation says.
        message: the same in words.
        facts: ``control_text`` and ``field``, or ``turn``, or the fields that are ``lost``.
    """

    reason: str
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class ConversationRenderer:
    """Renders conversations by one chat template.

    Args:
        template: the chat template.
        special_tokens: of the model's tokenizer; no text may hold one, nor a control text of the template.
        changed_history: what becomes of a conversation in which the template changes earlier turns when one
            is added, as those do that leave out earlier thoughts: ``each_turn`` makes each turn that is
            learned an example of its own, with what the model would have seen; ``refuse`` makes none.

    Raises InvalidArgument: CHAT_MARKER_IN_CONTENT, the template's system instruction holds a control text;
    and as `ChatTemplate.split_examples`.
    """

    def __init__(
        self,
        template: ChatTemplate,
        *,
        special_tokens: Sequence[str] = (),
        changed_history: ChangedHistory = "each_turn",
    ) -> None:
        self._template = template
        self._special_tokens = special_tokens
        self._changed_history = changed_history
        self._has_blocks = _GENERATION.search(template.source) is not None
        if template.system_instruction:
            check_no_markers([Message(role="system", content=template.system_instruction)], template.markers)
        self._held_by_plain = _any_of([*template.control_texts, *special_tokens])

    def render(
        self, conversations: Sequence[Conversation]
    ) -> Iterator[tuple[RenderedConversation, ...] | Unrendered]:
        """The training examples of each conversation, in order, or why it has none.

        It has one, or where the template changes earlier turns one for each turn that is learned. Raises
        InvalidArgument (CHAT_TEMPLATE_INVALID) and Unavailable where the template cannot be run.
        """
        found = self._masks(conversations)
        proofs = iter(self._proved([each for each in found if isinstance(each, _Examples)]))
        for each in found:
            yield each if isinstance(each, Unrendered) else next(proofs)

    def masks(
        self, conversations: Sequence[Conversation]
    ) -> list[tuple[RenderedConversation, ...] | Unrendered]:
        """As `render`, without the proof that a text holds what its conversation says."""
        return [
            found
            if isinstance(found, Unrendered)
            else tuple(example.conversation(found.row.added) for example in found.examples)
            for found in self._masks(conversations)
        ]

    def _masks(self, conversations: Sequence[Conversation]) -> list[_Examples | Unrendered]:
        rows = [self._row(conversation) for conversation in conversations]
        written = iter(self._rendered([row for row in rows if isinstance(row, _Row)]))
        return [row if isinstance(row, Unrendered) else self._examples(row, next(written)) for row in rows]

    def _row(self, conversation: Conversation) -> _Row | Unrendered:
        assert conversation.learned
        plain = not conversation.tools and all(message.is_plain for message in conversation.messages)
        held = self._held_by_plain if plain else self._held
        try:
            texts = [
                (f"messages[{index}].{name}", text)
                for index, message in enumerate(conversation.messages)
                for name, text in message_texts(message)
            ]
            for index, tool in enumerate(template_tools(conversation.tools) or []):
                texts.append((f"tools[{index}]", "\n".join(written_texts(tool))))
            full = self._template.with_system_message(conversation.messages)
        except InvalidArgument as error:
            return _unrendered(error)
        for name, text in texts:
            if found := held.search(text):
                return Unrendered(
                    "CHAT_MARKER_IN_CONTENT",
                    f"{name} holds {found[0]!r}, a control text",
                    {"control_text": found[0], "field": name},
                )
        blank = [turn for turn in conversation.learned if _is_blank(conversation.messages[turn])]
        if blank:
            return _lost([f"messages[{turn}].content" for turn in blank])
        return _Row(conversation, full, len(full) - len(conversation.messages))

    def _rendered(self, rows: Sequence[_Row]) -> list[dict[_Wanted, Rendered] | InvalidArgument]:
        """What each row wants."""
        found: dict[int, dict[_Wanted, Rendered] | InvalidArgument] = {}
        by_jinja: dict[int, Beginnings] = {}
        for index, row in enumerate(rows):
            try:
                if self._template.writes_itself(row.messages, row.conversation.tools):
                    found[index] = self._written(row)
                else:
                    variables = self._template.variables(row.messages, row.conversation.tools)
                    by_jinja[index] = Beginnings(variables, row.wanted(openings=self._has_blocks))
            except InvalidArgument as error:
                found[index] = error
        replies = SANDBOX.render_beginnings(self._template.source, list(by_jinja.values()))
        for (index, beginnings), reply in zip(by_jinja.items(), replies, strict=True):
            if isinstance(reply, InvalidArgument):
                found[index] = reply
            else:
                found[index] = dict(zip(beginnings.wanted, reply, strict=True))
        return [found[index] for index in range(len(rows))]

    def _written(self, row: _Row) -> dict[_Wanted, Rendered]:
        whole = self._template.write(row.messages, False)
        return {
            (count, opened): Rendered.of(whole, self._template.write(row.messages[:count], opened))
            for count, opened in row.wanted()
        }

    def _examples(
        self, row: _Row, written: dict[_Wanted, Rendered] | InvalidArgument
    ) -> _Examples | Unrendered:
        if isinstance(written, InvalidArgument):
            return _unrendered(written)
        whole = written[len(row.messages), False]
        changed = None
        for turn in row.learned:
            asked, said = written[turn, True].text, written[turn + 1, False].text
            if not said.startswith(asked):
                return Unrendered(
                    "CHAT_TEMPLATE_PREFIX",
                    f"the rendering up to messages[{turn - row.added}] does not begin with what the model is "
                    "asked there, so what is learned would differ from it",
                    {"turn": turn - row.added},
                )
            if changed is None and not whole.text.startswith(said):
                changed = turn - row.added
        if changed is None:
            turns = [_turn(written, turn) for turn in row.learned]
            return self._masked(row, [(len(row.messages), whole, turns)])
        if self._changed_history == "refuse":
            return Unrendered(
                "CHAT_TEMPLATE_HISTORY",
                f"the chat template writes messages[{changed}] in another way when more follows, so no "
                "text of the whole conversation shows what the model would have seen",
                {"turn": changed},
            )
        return self._masked(
            row,
            [(turn + 1, written[turn + 1, False], [_turn(written, turn)]) for turn in row.learned],
        )

    def _masked(
        self, row: _Row, texts: Sequence[tuple[int, Rendered, Sequence[_Turn]]]
    ) -> _Examples | Unrendered:
        """The examples of the row; where the template has its own mask, that is the mask."""
        examples = []
        for count, rendered, turns in texts:
            spans: dict[int, Span] = {}
            for turn in turns:
                span = _block(rendered, turn) if self._has_blocks else (turn.start, turn.end)
                if span is None:
                    number = turn.message - row.added
                    return Unrendered(
                        "CHAT_GENERATION_BLOCK",
                        f"messages[{number}] does not have one generation block of the chat template, "
                        "inside what the model says",
                        {"turn": number},
                    )
                spans[turn.message] = span
            examples.append(_Example(count, rendered.text, spans))
        return _Examples(row, tuple(examples))

    def _proved(self, rows: Sequence[_Examples]) -> Iterator[tuple[RenderedConversation, ...] | Unrendered]:
        """The examples of each row that say what its conversation says."""
        asked: dict[int, Parts] = {}
        for index, found in enumerate(rows):
            row = found.row
            if not self._template.writes_itself(row.messages, row.conversation.tools):
                texts = [example.text for example in found.examples]
                asked[index] = Parts.of(row.messages, row.learned, row.conversation.tools, texts)
        hidden = [
            Beginnings(
                self._template.variables(parts.messages, parts.tools),
                [(example.count, False) for example in rows[index].examples],
            )
            for index, parts in asked.items()
        ]
        replies = dict(zip(asked, SANDBOX.render_beginnings(self._template.source, hidden), strict=True))
        for index, found in enumerate(rows):
            if index not in asked:
                lost = self._trimmed(found.row)
            else:
                lost = self._lost(found, asked[index], replies[index])
            if lost:
                yield _lost([_named(label, found.row.added) for label in lost])
            else:
                yield tuple(example.conversation(found.row.added) for example in found.examples)

    def _trimmed(self, row: _Row) -> list[str]:
        """What a built-in template leaves out of plain texts."""
        texts = {turn: row.messages[turn].content for turn in row.learned}
        trims = self._template.trims
        return [f"messages[{turn}].content" for turn, text in texts.items() if trims and text != text.strip()]

    def _lost(self, found: _Examples, parts: Parts, hidden: list[Rendered] | InvalidArgument) -> list[str]:
        if parts.inexact:
            return list(parts.inexact)
        if isinstance(hidden, InvalidArgument):
            # It goes by what the texts say, so that what it writes cannot be told from them.
            return ["messages"]
        end_of_turn = self._template.end_of_turn
        for example, rendered in zip(found.examples, hidden, strict=True):
            lost = parts.lost(rendered.text, example.text, example.count, example.spans, end_of_turn)
            if lost:
                return lost
        return []

    @cached_property
    def _held(self) -> re.Pattern[str]:
        return _any_of([*self._template.control_texts, *self._special_tokens, *_around_calls(self._template)])


_Wanted = tuple[int, bool]


@dataclass(frozen=True, slots=True)
class _Row:
    """A conversation with the template's system instruction, so many messages ``added`` before its own."""

    conversation: Conversation
    messages: Sequence[Message]
    added: int

    @property
    def learned(self) -> list[int]:
        return sorted({turn + self.added for turn in self.conversation.learned})

    def wanted(self, *, openings: bool = False) -> list[_Wanted]:
        """What is rendered, the whole first; with ``openings`` also what stands before each turn."""
        found: list[_Wanted] = [(len(self.messages), False)]
        for turn in self.learned:
            found += [(turn, True), (turn + 1, False), *([(turn, False)] if openings and turn else [])]
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Turn:
    """Where a turn that is learned is opened, where what the model says starts, and what stands behind it."""

    message: int
    opened: int
    start: int
    end: int


def _turn(written: Mapping[_Wanted, Rendered], turn: int) -> _Turn:
    asked, said = written[turn, True], written[turn + 1, False]
    before = written.get((turn, False))
    opened = before.length if before and asked.text.startswith(before.text) else asked.length
    return _Turn(turn, opened, asked.length, said.length)


def _block(rendered: Rendered, turn: _Turn) -> Span | None:
    """The block of a turn: it may begin with what opens the turn, and blocks side by side are one."""
    joined: list[Span] = []
    for first, behind in rendered.blocks:
        if first < turn.end and behind > turn.start:
            if joined and joined[-1][1] == first:
                first = joined.pop()[0]
            joined.append((first, behind))
    inside = len(joined) == 1 and turn.opened <= joined[0][0] and joined[0][1] <= turn.end
    return joined[0] if inside else None


@dataclass(frozen=True, slots=True)
class _Example:
    count: int
    text: str
    spans: Mapping[int, Span]

    def conversation(self, added: int) -> RenderedConversation:
        turns = tuple(LearnedTurn(turn - added, *span) for turn, span in self.spans.items())
        return RenderedConversation(self.text, turns)


@dataclass(frozen=True, slots=True)
class _Examples:
    row: _Row
    examples: tuple[_Example, ...]


def _unrendered(error: InvalidArgument) -> Unrendered:
    return Unrendered(error.reason, error.message)


def _lost(fields: list[str]) -> Unrendered:
    told = f"the rendering does not hold {', '.join(fields)} as the conversation does"
    return Unrendered("TARGET_LOST", told, {"lost": fields})


def _is_blank(message: Message) -> bool:
    """Whether there is nothing in the message to learn but the end of the turn."""
    return not (message.tool_calls or message.reasoning.strip() or message.content.strip())


def _named(label: str, added: int) -> str:
    """The field of the conversation that was given."""
    number = re.match(r"messages\[(\d+)\]", label)
    if number is None or not added:
        return label
    own = int(number[1]) - added
    return f"messages[{own}]{label[number.end() :]}" if own >= 0 else "chat_template.system_instruction"


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    # The longest first, so that it is the one that is named.
    ordered = sorted(filter(None, texts), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")


def _around_calls(template: ChatTemplate) -> list[str]:
    """What the template writes around thoughts, calls and results that looks like a control text."""
    call = ToolCall(id="callprobe", name=_PROBE, arguments=json.dumps({_PROBE: _PROBE}))
    said = Message(role="assistant", content=_PROBE, reasoning=_PROBE, tool_calls=(call,))
    before = [Message(role="system", content=_PROBE)] if template.system_instruction else []
    found: list[str] = []
    for turn in (said, said.model_copy(update={"reasoning": ""}), said.model_copy(update={"tool_calls": ()})):
        answer = [Message(role="tool", content=_PROBE, tool_call_id=call.id)] if turn.tool_calls else []
        messages = [*before, Message(role="user", content=_PROBE), turn, *answer]
        wanted = [(len(messages), False)]
        (reply,) = SANDBOX.render_beginnings(
            template.source, [Beginnings(template.variables(messages), wanted)]
        )
        if not isinstance(reply, InvalidArgument):
            found += [text for piece in reply[0].text.split(_PROBE) for text in CONTROL.findall(piece)]
    return list(dict.fromkeys(found))
