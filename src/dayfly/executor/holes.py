"""
Both sides: fill the holes of the heap, so that what a child makes lies side by side.

After a project was loaded, most pages have room for an object or two. A child would take that
room first, and copy a page for almost every object that it makes. Where it is taken, all that
a child makes shares a few new pages.
"""

from __future__ import annotations

import ctypes
import gc
from collections import Counter, deque
from collections.abc import Collection
from itertools import repeat

#: Sizes of which CPython keeps objects in pools, and what a pool holds. Source: Objects/obmalloc.c, 3.11 to 3.14.
_POOLED_BYTES = range(16, 513, 16)
_POOL_ALIGNMENT_BYTES = 16_384
_POOL_BYTES = _POOL_ALIGNMENT_BYTES - 48
#: What is taken of one size at most: where so much is not enough, another allocator is at work.
_MOST_BYTES = 4 << 20
#: What is asked of malloc(3): first what the largest holes have room for, then what is left of them.
_MALLOC_BYTES = (65_536, 16_384, 4_096, *range(1_032, 23, -16))

#: What takes the room. Never emptied.
_filling: list[list[object]] = []


def fill() -> int:
    """
    Take the room that is left on the pages in use, for good; return how many bytes that was.

    For a process that lives to fork, after everything is loaded: about 1 of its 40 MB, which
    it held before, in about 20 ms. What it makes itself from now on lies on new pages, too.
    """
    gc.collect()  # it empties what is kept for reuse, too
    return _fill_pools() + _fill_malloc()


def _fill_pools() -> int:
    filled_bytes = 0
    for size_bytes in _POOLED_BYTES:
        taken = _take_room(size_bytes)
        filled_bytes += size_bytes * len(taken)
        _filling.append(taken)
        if size_bytes * len(taken) >= _MOST_BYTES:
            break
    return filled_bytes


def _take_room(size_bytes: int) -> list[object]:
    """Make objects until a whole pool is full of new ones; return those that were made before."""
    room_of_a_pool = _POOL_BYTES // size_bytes
    taken: list[object] = []
    while len(taken) * size_bytes < _MOST_BYTES:
        made = _make(size_bytes, 2 * room_of_a_pool)
        in_pools = Counter(id(one) // _POOL_ALIGNMENT_BYTES for one in made)
        if max(in_pools.values()) == room_of_a_pool:
            break
        taken += made
    return taken


def _make(size_bytes: int, count: int) -> Collection[object]:
    """
    Make objects of that size, at which no collection looks.

    With nothing between them that would take room of a pool, too: numbers of a loop, or a list that grows.
    """
    if size_bytes == 16:
        return deque(map(object.__new__, repeat(object, count)))
    if size_bytes == 32:
        return deque(map(complex, repeat(1, count)))
    return deque(map(bytes, repeat(size_bytes - 33, count)))  # 33 is what bytes need themselves


class _MallocState(ctypes.Structure):
    """Source: mallinfo2(3), glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _fill_malloc() -> int:
    """Take what malloc(3) has to give below the top of the heap, where all is new; nothing without glibc."""
    libc = ctypes.CDLL(None)
    state = getattr(libc, "mallinfo2", None)
    if state is None:
        return 0
    state.restype = _MallocState
    malloc, free, end_of_heap = libc.malloc, libc.free, libc.sbrk
    malloc.restype, malloc.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_size_t]
    end_of_heap.restype, end_of_heap.argtypes = ctypes.c_size_t, [ctypes.c_ssize_t]
    filled_bytes = 0
    top = end_of_heap(0) - state().keepcost
    for size_bytes in _MALLOC_BYTES:
        while 0 < (address := malloc(size_bytes)) < top:  # 0: it has nothing to give
            filled_bytes += size_bytes
        free(address)
    return filled_bytes
