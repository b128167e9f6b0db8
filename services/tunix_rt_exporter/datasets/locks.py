"""A lock for each thing that is to be made by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from _thread import LockType


class LockPerKey:
    """Locks that are forgotten once nobody holds or awaits them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[Hashable, LockType] = WeakValueDictionary()

    def of(self, key: Hashable) -> LockType:
        """The lock of ``key``, the same for all who have it at the same time."""
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())
