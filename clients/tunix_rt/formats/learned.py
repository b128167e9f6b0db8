"""What stands beside a message, or on a line, about whether it is learned."""

from __future__ import annotations

import re
from typing import Any, Final

# OpenAI and Mistral write `weight`, axolotl `train`, ms-swift `loss`, torchtune `masked`, and others have
# words of their own.
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
_WORDS_OF_TABLES: Final = {"false": False, "no": False, "0": 0, "0.0": 0, "true": True, "yes": True, "1": 1}


def mark_of(key: str, value: Any) -> bool | None:
    """Whether a field of a message says that it is learned; None if it says nothing of that.

    Raises ValueError for one that may say that a part of it is, or says it in a way that is not known.
    """
    if value is None:
        return None
    if key in _LEARNED or key in _MASKED:
        for number in (0, 1):
            if _is_number(value, number):
                return bool(number) == (key in _LEARNED)
        raise ValueError("0 or 1, or false or true, would be right")
    if _ABOUT_LEARNING.isdisjoint(word.lower() for word in _WORD.findall(key)):
        return None
    raise ValueError("weight, train or masked would be the key for what is learned; leave out what is not")


def is_not_whole(key: str, value: Any) -> bool:
    """Whether a field of an answer says, or may say, that not all of the answer is to be learned.

    A field whose name is not known, but speaks of training, weights, losses or masks, may say anything.
    """
    try:
        return mark_of(key, value) is False
    except ValueError:
        return True


def says_no(key: str, value: Any) -> bool:
    """Whether a field of a whole line says that the line is not to be learned.

    Other facts may stand there: a weight in grams, the loss that some model had.
    """
    if key in _MASKED:
        return _is_number(value, 1)
    return key in _LEARNED and (value is False or (key != "loss" and _is_number(value) and value <= 0))


def says_not_learned(key: str, value: Any) -> bool:
    """Whether a fact beside an answer says that the answer is not to be learned; tables say it in words."""
    if isinstance(value, str):
        word = value.strip().casefold()
        value = _WORDS_OF_TABLES.get(word, value)
    return says_no(key, value)


def _is_number(value: Any, wanted: int | None = None) -> bool:
    return isinstance(value, int | float) and (wanted is None or value == wanted)
