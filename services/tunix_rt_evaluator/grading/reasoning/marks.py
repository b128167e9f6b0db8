"""Marks of reasoning: pairs with a name, a caller's own, and those found in a chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tunix_rt_evaluator.grading.reasoning.model import ReasoningMarks
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.serving.validation import Violations
from tunix_rt_kit.values import ChatTemplateFields

REVISION: Final = 1
"""Raised whenever an output could be split in another way; part of an evaluation's identity."""
NONE: Final = "none"
"""The name that stands for no marks: the whole output is the answer."""
DEFAULT: Final = "think"
MAX_MARK: Final = 100


_TAG: Final = re.compile(r"</?[a-zA-Z:_]+>")


class Pair(NamedTuple):
    """What opens and closes reasoning, and what may stand around the answer behind it."""

    start: str
    end: str
    answer_start: str = ""
    answer_end: str = ""


NAMED: Final[Mapping[str, Pair]] = {
    # DeepSeek R1, Qwen3, GLM, MiniMax, Phi 4, OLMo 3 and most others.
    DEFAULT: Pair("<think>", "</think>"),
    "thinking": Pair("<thinking>", "</thinking>"),
    # EXAONE Deep.
    "thought": Pair("<thought>", "</thought>"),
    "reasoning": Pair("<reasoning>", "</reasoning>"),
    # OpenThinker, Sky-T1.
    "begin_of_thought": Pair(
        "<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"
    ),
    # Magistral.
    "THINK": Pair("[THINK]", "[/THINK]"),
    # Seed OSS.
    "seed_think": Pair("<seed:think>", "</seed:think>"),
    # Command A Reasoning.
    "START_THINKING": Pair(
        "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"
    ),
    # gpt-oss. Whatever comes before the final channel is reasoning, also further messages of analysis.
    "harmony": Pair("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "", "<|return|>"),
    # Granite 3.2.
    "granite": Pair("Here is my thought process:", "Here is my response:"),
    # Kimi.
    "kimi": Pair("◁think▷", "◁/think▷"),
    # Apertus.
    "inner_prefix": Pair("<|inner_prefix|>", "<|inner_suffix|>"),
    # Gemma 4.
    "gemma4": Pair("<|channel>thought", "<channel|>"),
}
"""Every pair that has a name."""


def checked_marks(fields: Mapping[str, Any] | None, wrong: Violations, field: str) -> ReasoningMarks | None:
    """The marks that a caller asks for; what is wrong with them is noted in ``wrong``, below ``field``.

    A named pair may come with its own marks, so that an evaluation's marks can be sent again as they are.
    """
    if fields is None:
        return None
    asked = ReasoningMarks.model_validate({**fields, "revision": 0})
    if "name" in fields:
        _check_named(asked, wrong, field)
    elif "start" in fields or "end" in fields:
        _check_own(asked, wrong, field)
    return asked


def resolved_marks(asked: ReasoningMarks | None, template: ChatTemplateFields | None) -> ReasoningMarks:
    """The marks by which outputs are split, with every field decided.

    Args:
        asked: what the evaluation asks for. None: the pair whose marks both stand in the template or its
            system instruction, else that of `DEFAULT`.
        template: the chat template that prompts were rendered with; None if it is not known, as for an
            endpoint's model.
    """
    asked = asked or ReasoningMarks()
    if asked.name == NONE:
        return ReasoningMarks(name=NONE, opened=False, revision=REVISION)
    name = asked.name or ("" if asked.start else _name_in(template))
    pair = NAMED[name] if name else Pair(asked.start, asked.end)
    opened = asked.opened
    if opened is None:
        opened = template is not None and _opens(template, pair)
    return ReasoningMarks(name=name, start=pair.start, end=pair.end, opened=opened, revision=REVISION)


@lru_cache(maxsize=64)
def pattern_of(*marks: str) -> re.Pattern[str]:
    """A pattern that finds any of the marks; tags such as ``<think>`` in capitals too."""
    longest_first = sorted(marks, key=len, reverse=True)
    parts = [f"(?i:{re.escape(mark)})" if _TAG.fullmatch(mark) else re.escape(mark) for mark in longest_first]
    return re.compile("|".join(parts), re.ASCII)


def same_mark(written: str, mark: str) -> bool:
    """Whether a text from an output is this mark."""
    return pattern_of(mark).fullmatch(written) is not None


def is_current(marks: ReasoningMarks | None) -> bool:
    """Whether these are resolved marks of the present revision."""
    return marks is not None and marks.revision == REVISION


def described(marks: ReasoningMarks | None) -> str:
    """Marks in words, for people; None is an evaluation from before there were marks."""
    if marks is None or marks.name == NONE:
        return "none: whole outputs were graded"
    opened = ", opened by the prompt" if marks.opened else ""
    return f"{marks.start} to {marks.end}{opened}, revision {marks.revision}"


def _check_named(asked: ReasoningMarks, wrong: Violations, field: str) -> None:
    known = (*NAMED, NONE)
    if not wrong.check(
        asked.name in known,
        f"{field}.name",
        f"is {asked.name[:MAX_MARK]!r}; one of {', '.join(known)} would be right",
    ):
        return
    own = NAMED.get(asked.name, Pair("", ""))
    for side, given, mark in (("start", asked.start, own.start), ("end", asked.end, own.end)):
        wrong.check(
            given in ("", mark),
            f"{field}.{side}",
            f"is {given[:MAX_MARK]!r} as the {side} mark, but {asked.name!r} names another pair; leave "
            "one of both out",
        )
    wrong.check(
        asked.name != NONE or not asked.opened,
        f"{field}.opened",
        f"is true, but with {NONE!r} nothing is reasoning; leave it out",
    )


def _check_own(asked: ReasoningMarks, wrong: Violations, field: str) -> None:
    sides = {"start": asked.start, "end": asked.end}
    for side, mark in sides.items():
        wrong.check(
            0 < len(mark) <= MAX_MARK and mark.isprintable() and mark == mark.strip(),
            f"{field}.{side}",
            f"is {mark[:MAX_MARK]!r}{'...' if len(mark) > MAX_MARK else ''} as the {side} mark; 1 to "
            f"{MAX_MARK} printable characters without white space around them would be right",
        )
    if not all(sides.values()):
        return
    for side, other in (("start", "end"), ("end", "start")):
        if pattern_of(sides[side]).search(sides[other]):
            what = "equals" if len(asked.start) == len(asked.end) else "is a part of"
            wrong.add(
                f"{field}.{side}",
                f"is {sides[side][:MAX_MARK]!r} as the {side} mark, which {what} the {other} mark; two "
                "marks of which neither holds the other would be right",
            )
            return


def _name_in(template: ChatTemplateFields | None) -> str:
    text = "" if template is None else f"{template.jinja or ''}\n{template.system_instruction}"
    for name, pair in NAMED.items():
        if pattern_of(pair.start).search(text) and pattern_of(pair.end).search(text):
            return name
    return DEFAULT


def _opens(template: ChatTemplateFields, pair: Pair) -> bool:
    """Whether the template ends a prompt with opened reasoning."""
    asked = "\ue000"
    prompt = ChatTemplate.of(template).render(
        [Message(role="user", content=asked)], add_generation_prompt=True
    )
    behind = prompt.rpartition(asked)[2]
    last = max(pattern_of(pair.start, pair.end).finditer(behind), key=re.Match.end, default=None)
    return last is not None and same_mark(last[0], pair.start)
