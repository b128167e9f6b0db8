"""Texts that many chat templates change, and what becomes of them in one."""

from __future__ import annotations

from typing import Final

from tunix_rt_kit.chat.template import ChatTemplate
from tunix_rt_kit.errors import InvalidArgument

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


def losses(template: ChatTemplate) -> list[str]:
    """What of hostile texts the template does not write as it is, or refuses, in words.

    A row that holds such a text is dropped or refused when a dataset is built, though not because it stands
    here: each row is looked at. Raises InvalidArgument for a template that fails on any text.
    """
    turns = {name: (_PLAIN, reply) for name, reply in _REPLIES.items()}
    turns |= {f"{name}, in a reply": (_PLAIN, text) for name, text in _TEXTS.items()}
    turns |= {f"{name}, in a prompt": (text, _PLAIN) for name, text in _TEXTS.items()}
    held = ", ".join(template.control_texts)
    return [name for name, turn in turns.items() if _is_lost(template, turn)] + [f"texts that hold {held}"]


def _is_lost(template: ChatTemplate, turn: tuple[str, str]) -> bool:
    # Named already, as one of the control texts.
    if any(held in text for held in template.control_texts for text in turn):
        return False
    try:
        (example,) = template.split_turns([turn])
    except InvalidArgument:
        return True
    return template.frame.lost(turn, example) is not None
