"""A seeded generator: arithmetic and word problems whose every step is correct, and conversations whose every
call of a tool is."""

from tunix_rt.generate.family import DIFFICULTIES, Difficulty
from tunix_rt.generate.traces import (
    CONVERSATION_FAMILIES,
    FAMILIES,
    SOURCE,
    GeneratedStep,
    GeneratedTrace,
    capacity,
    generate_traces,
)

__all__ = [
    "CONVERSATION_FAMILIES",
    "DIFFICULTIES",
    "FAMILIES",
    "SOURCE",
    "Difficulty",
    "GeneratedStep",
    "GeneratedTrace",
    "capacity",
    "generate_traces",
]
