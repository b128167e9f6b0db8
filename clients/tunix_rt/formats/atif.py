"""ATIF trajectories, Harbor's Agent Trajectory Interchange Format, versions 1.0 to 1.8.

A trajectory is one conversation. Those of sub-agents that it holds are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.formats.dialogue import Call, Dialogue, arguments_text, shown
from tunix_rt.formats.reading import Reading

_PREFIX: Final = "ATIF-v1."
_ROLES: Final = {"system": "system", "user": "user", "agent": "assistant"}


def is_atif(keys: Mapping[str, Any]) -> bool:
    """Whether a document is a trajectory, by what its version is called."""
    return _text(keys.get("schema_version")).startswith("ATIF")


def atif(row: Mapping[str, Any], number: int, file: str, reading: Reading) -> v1.Trace:
    """The conversation of a trajectory; raises FormatError that says why there is none."""
    name = _text(row.get("session_id") or row.get("trajectory_id"))
    dialogue = Dialogue(reading, f"trajectory {name[:60]}" if name else "the trajectory", number, file)
    version, steps = row.get("schema_version"), row.get("steps")
    if not isinstance(version, str) or not version.startswith(_PREFIX):
        raise dialogue.wrong(f"has schema_version {str(version)[:40]!r}; expected ATIF-v1.0 to ATIF-v1.8")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise dialogue.wrong("has no list of steps")
    for step in steps:
        _step(step, dialogue)
    children = row.get("subagent_trajectories")
    if isinstance(children, list):
        dialogue.left_out("trajectory of a sub-agent", len(children), many="trajectories of sub-agents")
    agent = _object(row.get("agent"))
    tools = agent.get("tool_definitions")
    return dialogue.trace(
        tools=[tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else [],
        source=_text(agent.get("name")) or "atif",
        metadata={
            "session_id": name,
            "model": _text(agent.get("model_name")),
            "version": _text(agent.get("version")),
            "schema_version": version,
            "notes": _text(row.get("notes")),
        },
    )


def _step(step: Mapping[str, Any], dialogue: Dialogue) -> None:
    role = _ROLES.get(_text(step.get("source")))
    text = _content(step.get("message"), dialogue)
    if role is None:
        raise dialogue.wrong(
            f"has a step of source {str(step.get('source'))[:40]!r}; expected system, user or agent"
        )
    if role != "assistant":
        dialogue.say(role, text)
        _observe(step, dialogue)
        return
    if step.get("is_copied_context"):
        # The format says that such steps are to be kept out of what is learned.
        dialogue.left_out(
            "step copied from an earlier trajectory", many="steps copied from an earlier trajectory"
        )
        return
    if step.get("llm_call_count") == 0:
        dialogue.left_out(
            "step that no model made, but for its results,",
            many="steps that no model made, but for their results,",
        )
        _observe(step, dialogue)
        return
    calls = step.get("tool_calls")
    made = [_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    dialogue.answer(text, _text(step.get("reasoning_content")), made)
    _observe(step, dialogue, {call.id for call in made})


def _call(call: Mapping[str, Any]) -> Call:
    name = _text(call.get("function_name"))
    return Call(_text(call.get("tool_call_id")), name, arguments_text(call.get("arguments")))


def _observe(step: Mapping[str, Any], dialogue: Dialogue, calls: Set[str] = frozenset()) -> None:
    """What the step brought: results of its calls, and what else the agent was told."""
    results = _object(step.get("observation")).get("results")
    for result in results if isinstance(results, list) else ():
        result = _object(result)
        text, call_id = _content(result.get("content"), dialogue), _text(result.get("source_call_id"))
        if result.get("subagent_trajectory_ref") and not text:
            dialogue.left_out("reference to a sub-agent", many="references to sub-agents")
        if call_id in calls or (calls and not call_id and dialogue.waits()):
            dialogue.result(call_id, text)
        else:
            dialogue.say("user", text)


def _content(content: Any, dialogue: Dialogue) -> str:
    if not isinstance(content, list):
        return "" if content is None else shown(content)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        texts.append(_text(part.get("text")) if kind == "text" else dialogue.media(str(kind or "part")))
    return "\n".join(texts)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
