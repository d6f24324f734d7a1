"""Vectors in FAISS (Johnson, Douze and Jégou, 2017): exact inner products of unit rows."""

from __future__ import annotations

import struct
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from ballet_qa.types import FloatArray, IntArray

_ROWS_AT = 8  # bytes into the file
_NUMBERS_AT = 37
_VECTORS_AT = 45


class VectorsWriter:
    """Writes rows to a FAISS file as they come, so that memory does not grow with them."""

    def __init__(self, path: Path, dimension: int) -> None:
        self._path = path
        self._dimension = dimension
        self._file = path.open("wb")
        self._file.write(bytes(faiss.serialize_index(faiss.IndexFlatIP(dimension))))
        self._rows = 0
        self._last: FloatArray | None = None

    def add(self, rows: FloatArray) -> None:
        """Append unit rows, shape (n, dimension)."""
        if len(rows):
            block = np.ascontiguousarray(rows, dtype="<f4")
            self._file.write(block.tobytes())
            self._rows += len(block)
            self._last = block[-1].copy()

    def abandon(self) -> None:
        """Close the file as it is, unfinished."""
        self._file.close()

    def close(self) -> None:
        """Finish the file, and read it back as FAISS does."""
        with self._file as file:
            # An empty flat index ends with how many numbers follow; its count of rows is the third
            # field (impl/index_write.cpp). Were this to change, reading back would tell.
            file.seek(_ROWS_AT)
            file.write(struct.pack("<q", self._rows))
            file.seek(_NUMBERS_AT)
            file.write(struct.pack("<q", self._rows * self._dimension))
        index = faiss.read_index(str(self._path), faiss.IO_FLAG_MMAP_IFC)
        same = (index.d, index.ntotal) == (self._dimension, self._rows)
        if self._last is not None:
            same = same and np.array_equal(index.reconstruct(self._rows - 1), self._last)
        if not same:
            raise AssertionError(f"FAISS {faiss.__version__} does not read back {self._path}")


class VectorIndex:
    """Searches the rows of one file by cosine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)  # read when asked for
        self.count = int(self._index.ntotal)
        self.dimension = int(self._index.d)

    def search(
        self, query: FloatArray, limit: int, among: NDArray[np.bool_] | None = None
    ) -> tuple[IntArray, FloatArray]:
        """The ``limit`` nearest rows, as (rows, cosines), by falling cosine, then by row.

        ``query`` has shape (dimension,). ``among``, one truth value a row, narrows the search
        before anything is ranked.
        """
        limit = min(limit, self.count)
        if limit == 0:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        parameters = None
        if among is not None:
            # The selector borrows the bits: they must live until the search is over.
            bits = np.packbits(among, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, rows = self._index.search(query[np.newaxis, :], limit, params=parameters)
        found = rows[0] >= 0  # FAISS pads with -1
        ids, cosines = rows[0][found].astype(np.int32), scores[0][found]
        order = np.lexsort((ids, -cosines))  # equal cosines come back in no order
        return ids[order], cosines[order]

    def rows(self, ids: IntArray) -> FloatArray:
        """The vectors of these rows, shape (len(ids), dimension)."""
        if len(ids) == 0:
            return np.zeros((0, self.dimension), dtype=np.float32)
        rows: FloatArray = self._index.reconstruct_batch(ids.astype(np.int64))
        return rows

    def block(self, start: int, end: int) -> FloatArray:
        """The vectors of rows ``start:end``, shape (end - start, dimension).

        Read from the file, not by way of the map: a build goes through all of them, and what was
        mapped would count as its memory.
        """
        if end <= start:
            return np.zeros((0, self.dimension), dtype=np.float32)
        numbers = (end - start) * self.dimension
        place = _VECTORS_AT + start * self.dimension * 4
        rows: FloatArray = np.fromfile(self._path, dtype="<f4", count=numbers, offset=place)
        return rows.reshape(end - start, self.dimension)
