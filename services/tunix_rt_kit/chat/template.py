"""The chat template as one value: what turns messages into the text that a model reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.chat.builtin_templates import BUILTIN_FORMATS, BUILTIN_NAMES, BuiltinName, builtin_source
from tunix_rt_kit.chat.messages import (
    Message,
    check_no_markers,
    invalid_messages,
    template_message,
    template_tools,
)
from tunix_rt_kit.chat.sandbox import SANDBOX
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import ChatTemplateFields

LostText = Literal["prompt", "reply"]

MAX_SYSTEM_INSTRUCTION_CHARS: Final = 20_000
_BUILTIN_REVISION: Final = 1
"""Part of the digest. It is raised whenever a built-in template starts to write a different text."""
_PROBE: Final = "\ue000"
"""Stands for a text; a private-use character that no template writes by itself."""
# Texts that many chat templates change, by what they are.
_PLAIN: Final = "6 * 7"
_REPLIES: Final = {
    "white space at the beginning of a reply": f" \n\t{_PLAIN}",
    "white space at the end of a reply": f"{_PLAIN} \t\n",
    "a reply of white space alone": " \n ",
}
_TEXTS: Final = {
    "what stands before </think>": f"{_PLAIN} </think> is 42",
    "what stands before </think> at the end": f"{_PLAIN}</think>",
    "what stands in <think>...</think>": f"<think>{_PLAIN}</think>42",
    "<think>": f"<think>{_PLAIN}",
    "Jinja's braces": "{{ 6 * 7 }} {% raw %} {# 6 #} {%- endfor %}",
    "line breaks and blanks": "6\r\n *\r7\n\n\n\t  = \u2028\x85\x0b\x0c42",
    "quotation marks and entities": "\"6\" '*' \\ &lt;7&gt; <b>",
}


# <|im_start|>, </s>, <start_of_turn>, <think>; [INST], [/INST].
CONTROL: Final = re.compile(r"<[^<>\s]{1,64}>|\[/?[A-Z][A-Z_]+\]")


@dataclass(frozen=True, slots=True)
class Frame:
    """The texts that a template writes around a user's text and its reply.

    ``opening`` and ``between`` stand around the user's text in the prompt, ``before`` and ``closing`` around
    the reply in the response.
    """

    opening: str
    between: str
    before: str
    closing: str

    def lost(self, turn: tuple[str, str], example: tuple[str, str]) -> LostText | None:
        """Which text of ``turn`` its rendering ``example`` does not hold as it is; None if it holds both.

        The reply must be there to the byte. The prompt may lose white space at its ends: it is asked in the
        same way when the model is evaluated.
        """
        (asked, reply), (prompt, response) = turn, example
        if response != f"{self.before}{reply}{self.closing}":
            return "reply"
        framed = len(self.opening) + len(self.between) <= len(prompt)
        if not (framed and prompt.startswith(self.opening) and prompt.endswith(self.between)):
            return "prompt"
        written = prompt[len(self.opening) : len(prompt) - len(self.between)]
        return None if written == asked or written.strip() == asked.strip() else "prompt"

    def whole(self, asked: str, reply: str) -> str:
        """Both texts in one, as the template writes them."""
        return f"{self.opening}{asked}{self.between}{self.before}{reply}{self.closing}"

    def reply(self, response: str) -> str:
        """The reply in a rendered response."""
        return response.removeprefix(self.before).removesuffix(self.closing)

    def control_texts(self) -> list[str]:
        """The parts of the frame that look like single tokens of a tokenizer."""
        parts = (self.opening, self.between, self.before, self.closing)
        return list(dict.fromkeys(found for part in parts for found in CONTROL.findall(part)))


class ChatTemplate(BaseModel):
    """A built-in template or Jinja source, and the system instruction that goes before every conversation.

    Make one with `built_in`, `from_jinja` or `of`. ``bos_token`` and ``eos_token`` are texts that go with
    Jinja source alone: built-in templates know their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    builtin: BuiltinName | None = None
    jinja: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    system_instruction: str = ""

    def model_post_init(self, _context: Any, /) -> None:
        """Raise InvalidArgument (CHAT_TEMPLATE_INVALID) unless the fields fit together."""
        if (self.builtin is None) == (self.jinja is None):
            raise _invalid("chat_template needs exactly one of builtin and jinja")
        if self.builtin is not None and (self.bos_token or self.eos_token):
            raise _invalid(
                f"chat_template.builtin is {self.builtin!r}, which takes no bos_token and no eos_token"
            )
        if len(self.system_instruction) > MAX_SYSTEM_INSTRUCTION_CHARS:
            raise _invalid(
                f"chat_template.system_instruction has {len(self.system_instruction)} characters; "
                f"at most {MAX_SYSTEM_INSTRUCTION_CHARS} would be right"
            )
        if self.jinja is not None and not self.jinja.strip():
            raise _invalid("chat_template.jinja is empty; Jinja source would be right")
        if self.jinja is not None and not self.eos_token:
            raise _invalid(
                "chat_template.eos_token is empty; the text that closes a model's turn would be right"
            )

    @classmethod
    def of(cls, fields: ChatTemplateFields) -> Self:
        """The template that was sent or stored as ``fields``.

        Raises InvalidArgument (CHAT_TEMPLATE_UNKNOWN, CHAT_TEMPLATE_INVALID).
        """
        if fields.builtin is not None:
            cls.built_in(fields.builtin)
        return cls.model_validate(fields.model_dump())

    @property
    def fields(self) -> ChatTemplateFields:
        """The template as it is sent and stored."""
        return ChatTemplateFields.model_validate(self.model_dump())

    @classmethod
    def built_in(cls, name: str, *, system_instruction: str = "") -> Self:
        """The built-in template of that name; raises InvalidArgument (CHAT_TEMPLATE_UNKNOWN)."""
        for known in BUILTIN_NAMES:
            if name == known:
                return cls(builtin=known, system_instruction=system_instruction)
        raise InvalidArgument(
            f"chat_template.builtin is {name!r}; one of {', '.join(BUILTIN_NAMES)} would be right",
            reason="CHAT_TEMPLATE_UNKNOWN",
        )

    @classmethod
    def from_jinja(
        cls, source: str, *, eos_token: str, bos_token: str = "", system_instruction: str = ""
    ) -> Self:
        """A model's own template. The source is not run here; `check` runs it."""
        return cls(
            jinja=source, bos_token=bos_token, eos_token=eos_token, system_instruction=system_instruction
        )

    @cached_property
    def digest(self) -> str:
        """``sha256:`` digest of everything that can change a rendering."""
        fields = self.model_dump(exclude_none=True)
        return digest_json(fields if self.builtin is None else {**fields, "revision": _BUILTIN_REVISION})

    @property
    def end_of_turn(self) -> str:
        """The text that closes a model's turn: generation stops there."""
        return self.eos_token if self.builtin is None else BUILTIN_FORMATS[self.builtin].end_of_turn

    @property
    def start_of_text(self) -> str:
        """The text that stands before everything; empty if nothing does."""
        return self.bos_token if self.builtin is None else BUILTIN_FORMATS[self.builtin].bos

    def jinja_source(self) -> str:
        """Jinja source that renders any conversation as this template does, system instruction included.

        ``bos_token`` and ``eos_token`` are variables in it, for `start_of_text` and `end_of_turn`.
        """
        return _with_system_instruction(self.source, self.system_instruction)

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that must each be a single token of every tokenizer that is used with this template."""
        if self.builtin is not None:
            return BUILTIN_FORMATS[self.builtin].markers
        return tuple(dict.fromkeys(marker for marker in (self.bos_token, self.eos_token) if marker))

    def with_system_instruction(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation with the system instruction in it, for programs that know the template alone.

        The instruction becomes a leading system message; where the built-in template has no system turn, it
        is put before the first user text. A conversation that brings its own instruction keeps it. Raises
        InvalidArgument (CHAT_MESSAGES_INVALID) for no message at all.
        """
        full = self.with_system_message(messages)
        if self.builtin is None or BUILTIN_FORMATS[self.builtin].system_turn or full[0].role != "system":
            return full
        system, first, *rest = full
        folded = f"{system.content}\n\n{first.content.strip()}"
        return (first.model_copy(update={"content": folded}), *rest)

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, tools: Sequence[str] = ()
    ) -> str:
        """The conversation as text, with the opening of the model's turn at its end if that is asked for.

        The system instruction becomes a leading system message, unless the conversation brings its own.
        ``tools`` are the definitions that the model is offered, each the text of a JSON object. Raises
        InvalidArgument: CHAT_MESSAGES_INVALID, CHAT_MARKER_IN_CONTENT or CHAT_TEMPLATE_INVALID.
        """
        if self.writes_itself(messages, tools):
            return self._render_all([(messages, add_generation_prompt)])[0]
        full = self.with_system_message(messages)
        variables = {**self.variables(full, tools), "add_generation_prompt": add_generation_prompt}
        check_no_markers(full, self.markers, variables["tools"] or ())
        return SANDBOX.render(self.source, [variables])[0]

    def writes_itself(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> bool:
        """Whether it takes no Jinja to write the conversation: the template is built in, the texts plain."""
        return self.builtin is not None and not tools and all(message.is_plain for message in messages)

    def write(self, messages: Sequence[Message], opened: bool) -> str:
        """What `writes_itself`, as it is: no system instruction is added, no control text is looked for.

        Raises InvalidArgument (CHAT_MESSAGES_INVALID) where roles must take turns and do not.
        """
        assert self.builtin is not None
        known = BUILTIN_FORMATS[self.builtin]
        return known.bos + known.conversation(messages) + (known.generation_prompt if opened else "")

    @property
    def trims(self) -> bool:
        """Whether white space at the ends of texts is left out; not known of Jinja source."""
        return self.builtin is not None and BUILTIN_FORMATS[self.builtin].trims

    def variables(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> dict[str, Any]:
        """The variables of the Jinja source, as `transformers` gives them, but ``add_generation_prompt``.

        Raises InvalidArgument (CHAT_MESSAGES_INVALID) for a tool that is no JSON object.
        """
        tokens = {"bos_token": self.start_of_text, "eos_token": self.end_of_turn}
        return {
            "messages": [template_message(message) for message in messages],
            "tools": template_tools(tools),
            "documents": None,
            **{name: text for name, text in tokens.items() if text},
        }

    @property
    def source(self) -> str:
        """The Jinja source without the system instruction."""
        return self.jinja if self.jinja is not None else builtin_source(self.builtin or "")

    def split_example(self, messages: Sequence[Message]) -> tuple[str, str]:
        """A training example as (prompt, response); see `split_examples`."""
        return self.split_examples([messages])[0]

    def split_examples(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[str, str]]:
        """(prompt, response) of each conversation, whose last message is what the model is to learn.

        The prompt is all messages but the last, with the generation prompt: what the evaluator asks. The
        response is the rest of the full rendering. Raises InvalidArgument: as `render`, and
        CHAT_TEMPLATE_PREFIX when the full rendering does not begin with the prompt.
        """
        for messages in conversations:
            if not messages or messages[-1].role != "assistant":
                raise invalid_messages(
                    "messages: the last message of a training example must be the assistant's"
                )
        if self.builtin is not None:
            return self._split_built_in(conversations, BUILTIN_FORMATS[self.builtin].generation_prompt)
        texts = self._render_all(
            [part for messages in conversations for part in ((messages[:-1], True), (messages, False))]
        )
        return [_split(prompt, full) for prompt, full in zip(texts[::2], texts[1::2], strict=True)]

    def split_turns(self, turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """`split_examples` of conversations of a user's text and the assistant's reply to it.

        It is many times faster where the template is built in. Raises as `split_examples`.
        """
        known = BUILTIN_FORMATS[self.builtin] if self.builtin is not None else None
        # No control text holds a line break, so none stands across two texts.
        together = "\n".join(text for turn in turns for text in turn)
        if known is None or any(marker in together for marker in known.markers):
            return self.split_examples([_exchange(asked, reply) for asked, reply in turns])
        opening, between, closing = self.frame.opening, self.frame.between, self.frame.closing
        if known.trims:
            turns = [(asked.strip(), reply.strip()) for asked, reply in turns]
        return [(f"{opening}{asked}{between}", f"{reply}{closing}") for asked, reply in turns]

    @cached_property
    def frame(self) -> Frame:
        """What the template writes around a user's text and its reply; raises as `split_examples`."""
        prompt, response = self.split_example(_exchange(_PROBE, _PROBE))
        # A system instruction, which may hold anything, stands before.
        opening, asked, between = prompt.rpartition(_PROBE)
        before, replied, closing = response.partition(_PROBE)
        if not (asked and replied):
            raise _invalid("chat_template drops the text of a message")
        return Frame(opening, between, before, closing)

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """Texts that a message must not hold: `markers`, and others that Jinja source writes like them.

        Raises as `split_examples`.
        """
        if self.builtin is not None:
            return self.markers
        # A system instruction may speak of anything, such as tags.
        instruction = _PROBE if self.system_instruction else ""
        plain = ChatTemplate.model_validate({**self.model_dump(), "system_instruction": instruction})
        return tuple(dict.fromkeys((*self.markers, *plain.frame.control_texts())))

    def _split_built_in(
        self, conversations: Sequence[Sequence[Message]], opening: str
    ) -> list[tuple[str, str]]:
        # No message holds a control text, so the response begins where the last turn was opened.
        examples = []
        for full in self._render_all([(messages, False) for messages in conversations]):
            end = full.rindex(opening) + len(opening)
            examples.append((full[:end], full[end:]))
        return examples

    def check(self) -> None:
        """Try the template on a small training example.

        Raises InvalidArgument: CHAT_TEMPLATE_INVALID when it fails, drops a text or does not close the
        model's turn with `end_of_turn`; CHAT_TEMPLATE_PREFIX as `split_example`.
        """
        question, reply = "What is 2 + 2?", "Answer: 4"
        prompt, response = self.split_example(
            (Message(role="user", content=question), Message(role="assistant", content=reply))
        )
        if question not in prompt or reply not in response:
            raise _invalid("chat_template drops the text of a message")
        if self.end_of_turn not in response.partition(reply)[2]:
            raise _invalid(
                f"chat_template does not close the model's turn with {self.end_of_turn!r} but with "
                f"{response.partition(reply)[2]!r}; eos_token must be the text that does"
            )

    def _render_all(self, wanted: Sequence[tuple[Sequence[Message], bool]]) -> list[str]:
        prepared = [(self.with_system_message(messages), opened) for messages, opened in wanted]
        markers = self.markers
        for messages, _ in prepared:
            check_no_markers(messages, markers)
        if self.builtin is not None:
            return [self.write(messages, opened) for messages, opened in prepared]
        return SANDBOX.render(
            self.source,
            [{**self.variables(messages), "add_generation_prompt": opened} for messages, opened in prepared],
        )

    def with_system_message(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation with the system instruction as its first message, unless it brings its own.

        Raises InvalidArgument (CHAT_MESSAGES_INVALID) for no message at all.
        """
        if not messages:
            raise invalid_messages("messages: a conversation needs at least one message")
        if not self.system_instruction or messages[0].role == "system":
            return messages
        return (Message(role="system", content=self.system_instruction), *messages)


def _exchange(asked: str, reply: str) -> tuple[Message, Message]:
    return Message(role="user", content=asked), Message(role="assistant", content=reply)


def _split(prompt: str, full: str) -> tuple[str, str]:
    if not full.startswith(prompt):
        raise InvalidArgument(
            "chat_template: the rendering of a whole example does not begin with its generation prompt, "
            "so what is trained on would differ from what is asked",
            reason="CHAT_TEMPLATE_PREFIX",
        )
    return prompt, full[len(prompt) :]


def _invalid(problem: str) -> InvalidArgument:
    return InvalidArgument(problem, reason="CHAT_TEMPLATE_INVALID")


def losses(template: ChatTemplate) -> list[str]:
    """Which hostile texts the template changes or refuses, in words.

    A build drops or refuses rows with such texts by looking at each row, not by this list. Raises
    InvalidArgument for a template that fails on any text.
    """
    turns = {name: (_PLAIN, reply) for name, reply in _REPLIES.items()}
    turns |= {f"{name}, in a reply": (_PLAIN, text) for name, text in _TEXTS.items()}
    turns |= {f"{name}, in a prompt": (text, _PLAIN) for name, text in _TEXTS.items()}
    held = ", ".join(template.control_texts)
    return [name for name, turn in turns.items() if _is_lost(template, turn)] + [f"texts that hold {held}"]


def _is_lost(template: ChatTemplate, turn: tuple[str, str]) -> bool:
    # The list names it already, as a control text.
    if any(held in text for held in template.control_texts for text in turn):
        return False
    try:
        (example,) = template.split_turns([turn])
    except InvalidArgument:
        return True
    return template.frame.lost(turn, example) is not None


def _with_system_instruction(source: str, instruction: str) -> str:
    """``source`` with a system message before every conversation that does not bring one."""
    if not instruction:
        return source
    literal = instruction.encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return (
        "{%- if messages[0].role != 'system' -%}"
        f"{{%- set messages = [{{'role': 'system', 'content': '{literal}'}}] + messages -%}}"
        "{%- endif -%}" + source
    )
