"""Each example file of a chat-like format is read as the snapshot says, and what was left out is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tunix_rt.formats import Lossy, read_traces, trace_to_json

EXAMPLES: Final = Path(__file__).parents[4] / "examples" / "traces"
NAMES: Final = (
    *("alpaca.json", "anthropic_messages.jsonl", "messages.parquet", "openai_chat_log.jsonl"),
    *("openai_fine_tuning.jsonl", "openai_responses_log.jsonl", "openthoughts.jsonl", "sharegpt_tools.jsonl"),
    *("numina.jsonl", "s1.jsonl"),
)
# The formats that have no names of their own for columns.
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "numina.jsonl": {
        "format": "prompt-completion",
        "columns": {"prompt": "problem", "steps": "solution", "completion": "answer"},
    },
    "s1.jsonl": {
        "format": "prompt-completion",
        "columns": {"prompt": "question", "steps": "thinking_trajectories", "completion": "attempt"},
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_read_as_before(name: str, snapshot: Any) -> None:
    lossy = Lossy()
    traces = read_traces(str(EXAMPLES / name), lossy=lossy, **OPTIONS.get(name, {}))
    assert [*map(trace_to_json, traces), *lossy.lines()] == snapshot
