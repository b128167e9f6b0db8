"""The whole loop: traces, dataset, base evaluation, training, candidate evaluation, comparison report."""

from __future__ import annotations

from collections.abc import Callable

from tunix_rt.aio.client import AsyncClient, check_kind
from tunix_rt.aio.loop.plan import plan_loop
from tunix_rt.aio.loop.stages import Loop
from tunix_rt.loop.config import LoopConfig
from tunix_rt.loop.result import STAGES, LoopEvent, LoopPlan, LoopResult, Stage, StagePlan

__all__ = [
    "STAGES",
    "LoopConfig",
    "LoopEvent",
    "LoopPlan",
    "LoopResult",
    "Stage",
    "StagePlan",
    "plan_loop",
    "run_loop",
]


async def run_loop(
    config: LoopConfig, client: AsyncClient, *, on_event: Callable[[LoopEvent], None] | None = None
) -> LoopResult:
    """Run a loop from traces to comparison report, and write its documents to ``config.output_dir``.

    Running it again goes on where it stopped: a stage whose inputs have not changed is not repeated, a job
    that still runs is waited for, and one that failed or was cancelled is tried anew.

    Args:
        config: what to do.
        client: where to do it.
        on_event: called as things happen.

    Raises:
        InvalidArgumentError: a setting, a file or a trace is wrong.
        JobFailedError: a job of this run failed or was cancelled.
        AlreadyExistsError: the dataset's id and version are bound to other content; choose another version.
        FailedPreconditionError: something needed is not there, such as the base model's chat template.
        UnavailableError: a server was away for too long.
    """
    check_kind(client, run_loop)
    return await Loop(config, client, on_event).run()
