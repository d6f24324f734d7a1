"""Vectors in FAISS (Johnson, Douze and Jégou, 2017): exact inner products of unit rows."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from ballet_qa.types import FloatArray, IntArray


class VectorsWriter:
    """Appends rows, then writes them to one file."""

    def __init__(self, dimension: int) -> None:
        self._index = faiss.IndexFlatIP(dimension)

    def add(self, rows: FloatArray) -> None:
        """Append unit rows, shape (n, dimension)."""
        self._index.add(np.ascontiguousarray(rows, dtype=np.float32))

    def save(self, path: Path) -> None:
        """Write the file."""
        faiss.write_index(self._index, str(path))


class VectorIndex:
    """Searches the rows of one file by cosine."""

    def __init__(self, path: Path) -> None:
        self._index = faiss.read_index(str(path))
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
        """The vectors of rows ``start:end``, shape (end - start, dimension)."""
        if end <= start:
            return np.zeros((0, self.dimension), dtype=np.float32)
        rows: FloatArray = self._index.reconstruct_n(start, end - start)
        return rows
