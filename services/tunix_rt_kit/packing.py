"""Packing: which rows share a training sequence."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack by best-fit decreasing (Johnson, 1973): longest first, each into the fullest row that takes it.

    Of equally long items the earlier comes first, of equally full rows the older is taken, so the result
    depends on the arguments alone.

    Args:
        lengths: length of each item, each at most ``capacity``.
        capacity: length of a row.

    Returns:
        For each row the indices of its items.
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(rooms, lengths[item])
        if at < len(rooms):
            room = rooms[at]
            row = heappop(by_room[room])
            if not by_room[room]:
                rooms.pop(at)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        left = room - lengths[item]
        if left:
            if not by_room[left]:
                insort(rooms, left)
            heappush(by_room[left], row)
    return rows
