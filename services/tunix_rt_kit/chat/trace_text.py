"""A whole trace as one text, by the name of the format."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt_kit.chat.reasoning import ReasoningStyle, trace_messages
from tunix_rt_kit.chat.template import BUILTIN_FORMATS, ChatTemplate


def trace_text(
    format_name: str,
    prompt: str,
    steps: Sequence[str],
    final_answer: str,
    *,
    system_instruction: str = "",
    style: ReasoningStyle = "numbered",
) -> str:
    """Prompt, reasoning and answer as one text in the built-in chat format of that name.

    What opens a sequence, such as ``<bos>``, is not in it: whoever reads whole texts, such as Tunix' and
    TRL's loaders, adds it.
    Raises InvalidArgument: CHAT_TEMPLATE_UNKNOWN, REASONING_STYLE_UNKNOWN, or as `ChatTemplate.render`.
    """
    template = ChatTemplate.built_in(format_name, system_instruction=system_instruction)
    text = template.render(trace_messages(prompt, steps, final_answer, style))
    return text.removeprefix(BUILTIN_FORMATS[template.builtin].bos) if template.builtin else text
