"""What a model thought, where it is written into its answer between marks."""

from __future__ import annotations

from typing import Final

# Of R1 and all that followed it; of OpenThoughts, which marks the answer too.
OPEN: Final = "<think>"
CLOSE: Final = "</think>"
_MARKS: Final = ((OPEN, CLOSE), ("<|begin_of_thought|>", "<|end_of_thought|>"))
_SOLUTION: Final = ("<|begin_of_solution|>", "<|end_of_solution|>")
# They belong to the mark that they touch, not to the text: templates write them, and take them away again.
_BREAKS: Final = "\r\n"


def split_thoughts(content: str) -> tuple[str, str]:
    """The reasoning before an answer, which may be empty, and the answer. Raises ValueError that says what is
    wrong with the marks."""
    for opening, closing in _MARKS:
        if opening in content or closing in content:
            reasoning, answer = _split(content, opening, closing)
            return reasoning, _solution(answer)
    return "", _solution(content)


def leading_thoughts(text: str) -> tuple[str, str]:
    """As `split_thoughts`, of a text that was recorded, and may speak of the marks: parted is one that begins
    with a mark, or has the closing one alone at a line's end or beginning, behind no block of code."""
    if text.lstrip().startswith(tuple(opening for opening, _ in _MARKS)):
        return split_thoughts(text)
    before, mark, behind = text.partition(CLOSE)
    at_line = before.endswith("\n") or behind.startswith("\n")
    alone = bool(mark) and at_line and not any(part in text for part in (OPEN, "```"))
    return split_thoughts(text) if alone and CLOSE not in behind else ("", text)


def _split(content: str, opening: str, closing: str) -> tuple[str, str]:
    opened, closed = content.count(opening), content.count(closing)
    if opened > closed:
        raise ValueError(f"opens {opening} and never closes it")
    if closed > 1:
        raise ValueError(f"has {closing} {closed} times; once is right")
    before, mark, rest = content.partition(opening) if opened else ("", "", content)
    if before.strip():
        raise ValueError(f"has text before {mark}; the reasoning comes first")
    # Some models are given the opening mark with the question, and write the closing one alone.
    reasoning, _, answer = rest.partition(closing)
    return reasoning.strip(_BREAKS), answer.lstrip(_BREAKS)


def _solution(answer: str) -> str:
    opening, closing = _SOLUTION
    if not answer.lstrip().startswith(opening):
        return answer
    inside, mark, behind = answer.lstrip().removeprefix(opening).partition(closing)
    if not mark:
        raise ValueError(f"opens {opening} and never closes it")
    if behind.strip():
        raise ValueError(f"has text behind {closing}")
    return inside.strip(_BREAKS)
