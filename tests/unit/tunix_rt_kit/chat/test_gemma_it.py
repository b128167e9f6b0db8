"""The Gemma-IT text format, piece by piece, against snapshots."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from tunix_rt_kit.chat import BUILTIN_NAMES, Message, ReasoningStyle, gemma_it, trace_text
from tunix_rt_kit.errors import InvalidArgument

PROMPT = "A box holds 12 eggs. How many eggs do 3 boxes hold?"
STEPS = ["One box holds 12 eggs.", "3 boxes hold 3 * 12 = 36 eggs."]
ANSWER = "36"


def test_turns(snapshot: SnapshotAssertion) -> None:
    assert gemma_it.turn("user", " Hello \n") == snapshot
    assert gemma_it.user_turn("Hello") == snapshot
    assert gemma_it.user_turn("Hello", system_instruction="Be brief.") == snapshot
    assert gemma_it.model_turn("Hi!") == snapshot
    assert gemma_it.generation_prompt() == snapshot


def test_conversation(snapshot: SnapshotAssertion) -> None:
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi!"),
        Message(role="user", content="Bye"),
    ]
    assert gemma_it.conversation(messages) == snapshot


@pytest.mark.parametrize("style", ["numbered", "answer-only"])
def test_whole_trace(snapshot: SnapshotAssertion, style: ReasoningStyle) -> None:
    text = gemma_it.trace_prompt(PROMPT, STEPS, ANSWER, system_instruction="Show your work.", style=style)
    assert text == snapshot


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_whole_trace_by_name(snapshot: SnapshotAssertion, name: str) -> None:
    assert trace_text(name, PROMPT, STEPS, ANSWER) == snapshot
    assert trace_text(name, PROMPT, STEPS, ANSWER, system_instruction="Show your work.") == snapshot


def test_by_name_and_directly_are_the_same_text() -> None:
    system = "Show your work."
    assert trace_text("gemma-it", PROMPT, STEPS, ANSWER) == gemma_it.trace_prompt(PROMPT, STEPS, ANSWER)
    assert trace_text("gemma-it", PROMPT, STEPS, ANSWER, system_instruction=system) == gemma_it.trace_prompt(
        PROMPT, STEPS, ANSWER, system_instruction=system
    )


def test_unknown_name() -> None:
    with pytest.raises(InvalidArgument, match="'alpaca'; one of gemma-it, chatml, llama-3"):
        trace_text("alpaca", PROMPT, STEPS, ANSWER)
