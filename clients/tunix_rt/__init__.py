"""tunix-rt: from reasoning traces to evidence that fine-tuning on them helped.

``Client`` and ``AsyncClient`` talk to the four services, ``run_loop`` drives them from traces to a comparison
report. Names are loaded on first use, so that ``import tunix_rt`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunix_rt.client import AsyncClient, Client
    from tunix_rt.errors import TunixRtError
    from tunix_rt.importing import ImportResult, import_traces
    from tunix_rt.loop import LoopConfig, LoopEvent, LoopResult, run_loop
    from tunix_rt.targets import Targets

__all__ = [
    "AsyncClient",
    "Client",
    "ImportResult",
    "LoopConfig",
    "LoopEvent",
    "LoopResult",
    "Targets",
    "TunixRtError",
    "import_traces",
    "run_loop",
]

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "ImportResult": "importing",
    "LoopConfig": "loop",
    "LoopEvent": "loop",
    "LoopResult": "loop",
    "Targets": "targets",
    "TunixRtError": "errors",
    "import_traces": "importing",
    "run_loop": "loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunix_rt' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tunix_rt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
