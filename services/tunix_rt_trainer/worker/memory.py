"""Turns a device's lack of memory into an error with advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from tunix_rt_kit.errors import ResourceExhausted
from tunix_rt_trainer.memory import OUT_OF_MEMORY, advice, rows_at_a_time
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
    first = next(iter(detail.splitlines()), "")[:200]
    return ResourceExhausted(
        f"{rows_at_a_time(spec)} do not fit into the device's memory; {advice(spec)} "
        f"({first or 'no more memory'})",
        reason=OUT_OF_MEMORY,
    )
