"""The cores of this machine, shared by all work in the process: one pool, a thread a core.

No other pool may take them away: a product that NumPy hands to BLAS wakes threads of its own, and
these go on turning for milliseconds after it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Row = TypeVar("_Row")
_Made = TypeVar("_Made")


def on_every_core(work: Callable[[_Row], _Made], rows: Sequence[_Row]) -> list[_Made]:
    """``work`` done to each row, in their order."""
    if len(rows) == 1:
        return [work(rows[0])]
    return list(_pool().map(work, rows))


def meanwhile(work: Callable[[], object]) -> None:
    """``work`` begun on a core that is free; what it raises is nobody's."""
    _pool().submit(work)


def dots(rows: NDArray[Any], vector: NDArray[Any]) -> NDArray[Any]:
    """The dot product of each row with the vector, shape (len(rows),), on this thread alone."""
    return np.asarray(np.einsum("ij,j->i", rows, vector))


def cores() -> int:
    """How many cores this process may use: those it is given, or what OMP_NUM_THREADS says.

    A Ray worker is told by that how many it was given of a node's.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="core")
