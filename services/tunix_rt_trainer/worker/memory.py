"""Turns a device's lack of memory into an error with advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tunix_rt_kit.errors import ResourceExhausted
from tunix_rt_kit.models.runtime import lack_of_memory
from tunix_rt_trainer.memory import OUT_OF_MEMORY, advice, rows_at_a_time
from tunix_rt_trainer.model import TrainingSpec


@contextmanager
def advising(spec: TrainingSpec) -> Iterator[None]:
    """Turns a lack of memory into an error that says what takes less of it.

    Raises:
        ResourceExhausted: OUT_OF_MEMORY.
    """
    try:
        yield
    except Exception as error:
        detail = lack_of_memory(error)
        if detail is None:
            raise
        raise ResourceExhausted(
            f"{rows_at_a_time(spec)} do not fit into the device's memory; {advice(spec)} ({detail})",
            reason=OUT_OF_MEMORY,
        ) from error
