"""Columns of numbers on disk: nothing but the numbers, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ColumnWriter:
    """Appends numbers to a file as they come; to one that is there, when it is to go on."""

    def __init__(self, path: Path, kind: str) -> None:
        """``kind`` is NumPy's name of a little-endian number, such as ``<i4``."""
        self._kind = np.dtype(kind)
        self._file = path.open("ab")

    def add(self, values: Sequence[int] | NDArray[Any]) -> None:
        """Append these."""
        self._file.write(np.asarray(values, dtype=self._kind).tobytes())

    def close(self) -> None:
        """Finish the file, or leave it as it is."""
        self._file.close()


def read_column(path: Path, kind: str) -> NDArray[Any]:
    """The numbers of a file, read whole: a map would be read a page at a time, all over."""
    return np.fromfile(path, dtype=kind)


def linked(source: str | Path, target: str | Path) -> None:
    """Give a file that never changes a second name; a second copy, where that cannot be."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
