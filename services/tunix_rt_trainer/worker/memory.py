"""What a job is told that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from tunix_rt_kit.errors import ResourceExhausted
from tunix_rt_trainer.model import TrainingSpec

_MARK = "RESOURCE_EXHAUSTED"


@contextmanager
def advising(spec: TrainingSpec) -> Iterator[None]:
    """Turns a lack of memory into an error that says what takes less of it.

    Raises:
        ResourceExhausted: OUT_OF_MEMORY.
    """
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(spec, str(error)) from error
    except jax.errors.JaxRuntimeError as error:
        if _MARK not in str(error):
            raise
        raise _out_of_memory(spec, str(error)) from error


def _out_of_memory(spec: TrainingSpec, detail: str) -> ResourceExhausted:
    advice = ["a smaller rows_per_batch"]
    if spec.gradient_accumulation_steps < spec.rows_per_batch:
        advice.append("more gradient_accumulation_steps")
    if spec.remat != "full":
        advice.append('remat "full"')
    advice.append("a shorter max_length")
    rows = spec.rows_per_batch // spec.gradient_accumulation_steps
    first = next(iter(detail.splitlines()), "")[:200]
    return ResourceExhausted(
        f"{rows} rows of {spec.max_length} tokens at a time do not fit into the device's memory; "
        f"{', '.join(advice[:-1])} or {advice[-1]} takes less ({first or 'no more memory'})",
        reason="OUT_OF_MEMORY",
        metadata={"rows": str(rows), "max_length": str(spec.max_length)},
    )
