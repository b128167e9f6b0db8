"""A seeded generator of arithmetic and word-problem traces whose every step is correct."""

from tunix_rt.generate.family import DIFFICULTIES, Difficulty
from tunix_rt.generate.traces import (
    FAMILIES,
    SOURCE,
    GeneratedStep,
    GeneratedTrace,
    capacity,
    generate_traces,
)

__all__ = [
    "DIFFICULTIES",
    "FAMILIES",
    "SOURCE",
    "Difficulty",
    "GeneratedStep",
    "GeneratedTrace",
    "capacity",
    "generate_traces",
]
