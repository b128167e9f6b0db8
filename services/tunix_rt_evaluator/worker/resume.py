"""What earlier attempts at an evaluation left, and whether it goes with what runs now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tunix_rt_evaluator.worker.engine import Engine
from tunix_rt_kit.regular_files import open_regular

# A job goes on under a server that was updated meanwhile; the template stands there by its digest.
_LEFT_OUT: Final = {"code_revision", "chat_template"}
_OF_USE: Final = (b'"kind":"item"', b'"kind":"facts"')


def described(engine: Engine) -> dict[str, Any]:
    """What an attempt tells of its engine once the prompts were read: its facts and its identity."""
    return {"facts": engine.facts.model_dump(mode="json"), "identity": dict(engine.identity)}


class Earlier:
    """The items that the events in a file tell of, and the engine that the last attempt before told of."""

    def __init__(self, events: Path) -> None:
        self.items: set[str] = set()
        self._engine: Mapping[str, Any] = {}
        if not events.exists():
            return
        with open_regular(events) as file:
            for line in file:
                # A line without its end is one that a killed process left.
                if line.endswith(b"\n") and any(kind in line for kind in _OF_USE):
                    self._take(json.loads(line))

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "item":
            self.items.add(str(event["generation"]["item_id"]))
        elif event["kind"] == "facts":
            self._engine = event
            if event.get("changed"):
                self.items.clear()

    def changes(self, now: Mapping[str, Any]) -> list[str]:
        """What is not as it was when the items were written, a line for each fact; ``now`` as ``described``
        gives it. Nothing where there are no items."""
        if not self.items:
            return []
        before = self._engine
        if "identity" not in before:
            return ["engine: nothing says which one it was"]
        # Facts have names that users know; an identity holds what is no fact, such as the stop tokens.
        return _different(before["facts"], now["facts"]) or _different(before["identity"], now["identity"])


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    return [
        f"{name}: {old.get(name, 'nothing')} before, {new.get(name, 'nothing')} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    """Values by name, those of a group as ``group.name``."""
    flat: dict[str, str] = {}
    for name, value in facts.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": str(entry) for key, entry in value.items()}
        else:
            flat[name] = str(value)
    return flat
