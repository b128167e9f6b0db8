"""The Gemma-IT text format, piece by piece, against snapshots."""

from __future__ import annotations

from syrupy.assertion import SnapshotAssertion

from tunix_rt_kit.chat import Message
from tunix_rt_kit.chat.builtin_templates import (
    GEMMA_IT,
    gemma_conversation,
    gemma_model_turn,
    gemma_turn,
    gemma_user_turn,
)


def test_turns(snapshot: SnapshotAssertion) -> None:
    assert gemma_turn("user", " Hello \n") == snapshot
    assert gemma_user_turn("Hello") == snapshot
    assert gemma_user_turn("Hello", system_instruction="Be brief.") == snapshot
    assert gemma_model_turn("Hi!") == snapshot
    assert GEMMA_IT.generation_prompt == snapshot


def test_conversation(snapshot: SnapshotAssertion) -> None:
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi!"),
        Message(role="user", content="Bye"),
    ]
    assert gemma_conversation(messages) == snapshot
