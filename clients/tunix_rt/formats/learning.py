"""What datasets say beside a message, or a line, about whether it is learned.

OpenAI and Mistral write ``weight``, axolotl ``train``, ms-swift ``loss``, torchtune ``masked``, and others
have words of their own. A trace has no place for any of them: its answer is learned.
"""

from __future__ import annotations

import re
from typing import Any, Final

_LEARNED: Final = frozenset(
    {
        *("weight", "loss", "loss_weight", "loss_scale", "loss_mask"),
        *("train", "training", "trainable", "train_on_turn", "learn", "learnable", "supervised"),
    }
)
_MASKED: Final = frozenset({"mask", "masked"})
_ABOUT_LEARNING: Final = frozenset(
    {
        *("weight", "weights", "loss", "losses", "mask", "masks", "masked", "unmasked"),
        *("train", "trained", "trainable", "training", "untrained", "learn", "learned", "learnable"),
        *("supervise", "supervised", "supervision"),
    }
)
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def unlearned(key: str, value: Any) -> bool:
    """Whether a field of an answer says, or may say, that not all of the answer is to be learned.

    A field whose name is not known, but speaks of training, weights, losses or masks, may say anything.
    """
    if value is None:
        return False
    if key in _LEARNED:
        return not _is_number(value, 1)
    if key in _MASKED:
        return not _is_number(value, 0)
    return not _ABOUT_LEARNING.isdisjoint(word.lower() for word in _WORD.findall(key))


def says_no(key: str, value: Any) -> bool:
    """Whether a field of a whole line says that the line is not to be learned.

    Other facts may stand there: a weight in grams, the loss that some model had.
    """
    if key in _MASKED:
        return _is_number(value, 1)
    return key in _LEARNED and (value is False or (key != "loss" and _is_number(value) and value <= 0))


def _is_number(value: Any, wanted: int | None = None) -> bool:
    return isinstance(value, int | float) and (wanted is None or value == wanted)
