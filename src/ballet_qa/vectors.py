"""Unit vectors on disk, and the search for the nearest by FAISS (Douze et al., 2024).

The rows themselves are kept as float32, in parts that never change. A coarser form of them is
searched: up to a hundred thousand in float16, every one; above, a bit a dimension (RaBitQ, Gao and
Long, 2024) in clusters. The nearest by that, more than wanted, are then compared by the rows
themselves, so that a cosine given is always theirs. `kind_for` is the rule; docs/scale.md has what
was measured.
"""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ballet_qa.columns import linked
from ballet_qa.types import FloatArray, IntArray, VectorKind

EXACT_ROWS = 100_000  # beyond, a search of every row takes longer than all else
_REFINED = 1_000  # rows compared exactly, at least
_PROBED = 0.2  # of the clusters
_MARGIN = 50  # rows that float16 may put in another order
_LEARNT_ROWS = 64  # a cluster
_BLOCK_ROWS = 50_000
_WHOLE_PART_BYTES = 64 * 1024 * 1024  # a part this large is not written again
_FEW_ROWS = 50_000  # a filter to so few is searched exactly
_OMP_OF_ONE = 1  # threads for one question: more make it slower


def kind_for(rows: int) -> VectorKind:
    """How so many rows are best searched."""
    return "exact" if rows <= EXACT_ROWS else "clustered"


def clusters_for(rows: int) -> int:
    """How many clusters so many rows are put in: a power of two near twice the root."""
    return int(2 ** round(np.log2(2 * np.sqrt(max(rows, 1)))))


class VectorsWriter:
    """Writes rows as they come, so that memory does not grow with them."""

    def __init__(self, folder: Path, name: str, dimension: int, base: Path | None = None) -> None:
        """``base`` is a folder with vectors of that name that these begin as."""
        self._folder, self._name, self._dimension = folder, name, dimension
        self._base = base
        before = [] if base is None else _parts(base, name)
        number = len(before)
        if before and before[-1].stat().st_size < _WHOLE_PART_BYTES:
            number -= 1
            shutil.copyfile(before[number], _part(folder, name, number))
        for path in before[:number]:
            linked(path, folder / path.name)
        self._file = _part(folder, name, number).open("ab")

    def add(self, rows: FloatArray) -> None:
        """Append unit rows, shape (n, dimension)."""
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())

    def abandon(self) -> None:
        """Close the file as it is, unfinished."""
        self._file.close()

    def close(self, kind: VectorKind | None = None) -> None:
        """Finish the files; ``kind`` is instead of `kind_for`'s."""
        self._file.close()
        rows = VectorRows(self._folder, self._name, self._dimension)
        if (kind or kind_for(rows.count)) == "exact":
            return
        clusters, begun = clusters_for(rows.count), 0
        index: Any = None
        if self._base is not None and _clusters(self._base, self._name).exists():
            index = faiss.read_index(str(_clusters(self._base, self._name)))
            begun = int(index.ntotal)
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
        if index is None or index.nlist != clusters:
            begun, index = 0, self._learnt(rows, clusters)
        for block in rows.blocks(begun):
            index.add(block)
        faiss.omp_set_num_threads(_OMP_OF_ONE)
        faiss.write_index(index, str(_clusters(self._folder, self._name)))

    def _learnt(self, rows: VectorRows, clusters: int) -> Any:
        middle: Any = faiss.IndexFlatIP(self._dimension)
        index = faiss.IndexIVFRaBitQFastScan(
            middle, self._dimension, clusters, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.niter, index.cp.max_points_per_centroid = 8, _LEARNT_ROWS
        wanted = min(rows.count, clusters * _LEARNT_ROWS)
        drawn = np.linspace(0, rows.count - 1, wanted).astype(np.int32)
        index.train(rows.rows(drawn))
        index.own_fields = True
        middle.this.disown()
        return index


class VectorRows:
    """The rows of one name, as they were put in."""

    def __init__(self, folder: Path, name: str, dimension: int) -> None:
        self._bytes_of_a_row = 4 * dimension
        self._dimension = dimension
        files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in _parts(folder, name)]
        for file in files:
            weakref.finalize(self, os.close, file)
        sizes = [os.fstat(file).st_size // self._bytes_of_a_row for file in files]
        bounds = np.cumsum([0, *sizes]).tolist()
        self.count = int(bounds[-1])
        self._places = list(zip(files, bounds[:-1], bounds[1:], strict=True))

    def rows(self, ids: IntArray) -> FloatArray:
        """The vectors of these rows, shape (len(ids), dimension).

        Read, not mapped: what is mapped would count as our memory, and stay.
        """
        order = np.argsort(ids, kind="stable")
        rising = ids[order]
        ends = np.append(np.flatnonzero(np.diff(rising) != 1) + 1, len(ids))[: len(ids)]
        firsts = np.append(0, ends[:-1])[: len(ids)]
        runs = zip(rising[firsts].tolist(), (rising[ends - 1] + 1).tolist(), strict=True)
        made = np.empty((len(ids), self._dimension), dtype=np.float32)
        made[order] = self._decoded([piece for run in runs for piece in self._read(*run)])
        return made

    def block(self, start: int, end: int) -> FloatArray:
        """The vectors of rows ``start:end``, shape (end - start, dimension)."""
        return self._decoded(self._read(start, end))

    def _read(self, start: int, end: int) -> list[bytes]:
        size, pieces = self._bytes_of_a_row, []
        for file, first, last in self._places:
            here, there = max(start, first), min(end, last)
            if here < there:
                pieces.append(os.pread(file, (there - here) * size, (here - first) * size))
        return pieces

    def _decoded(self, pieces: list[bytes]) -> FloatArray:
        return np.frombuffer(b"".join(pieces), "<f4").reshape(-1, self._dimension)

    def blocks(self, start: int = 0) -> Iterator[FloatArray]:
        """All rows from ``start`` on, some at a time."""
        for first in range(start, self.count, _BLOCK_ROWS):
            yield self.block(first, min(first + _BLOCK_ROWS, self.count))


class VectorIndex:
    """Searches the rows of one name by cosine. Safe to use from several threads."""

    def __init__(self, folder: Path, name: str, dimension: int) -> None:
        faiss.omp_set_num_threads(_OMP_OF_ONE)
        self._rows = VectorRows(folder, name, dimension)
        self.count, self.dimension = self._rows.count, dimension
        clusters = _clusters(folder, name)
        self.kind: VectorKind = "clustered" if clusters.exists() else "exact"
        if self.kind == "clustered":
            self._index: Any = faiss.read_index(str(clusters), faiss.IO_FLAG_MMAP_IFC)
            return
        self._index = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._held = self._rows.block(0, self.count)
        self._index.add(self._held)

    @property
    def indexed(self) -> int:
        """How many rows can be found: `count`, in an index that is whole."""
        return int(self._index.ntotal)

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
        ids = self._near(query, limit, among)
        cosines = self.rows(ids) @ query
        order = np.lexsort((ids, -cosines))[:limit]
        return ids[order], cosines[order]

    def rows(self, ids: IntArray) -> FloatArray:
        """The vectors of these rows, shape (len(ids), dimension)."""
        return self._rows.rows(ids) if self.kind == "clustered" else self._held[ids]

    def block(self, start: int, end: int) -> FloatArray:
        """The vectors of rows ``start:end``, shape (end - start, dimension)."""
        return self._rows.block(start, end)

    def _near(self, query: FloatArray, limit: int, among: NDArray[np.bool_] | None) -> IntArray:
        """The rows that may be the ``limit`` nearest, rising."""
        parameters: Any = faiss.SearchParameters()
        wanted = limit + _MARGIN
        if self.kind == "clustered":
            if among is not None and np.count_nonzero(among) <= _FEW_ROWS:
                return np.flatnonzero(among).astype(np.int32)
            parameters = faiss.IVFRaBitQSearchParameters()
            parameters.nprobe = max(1, round(self._index.nlist * _PROBED))
            wanted = max(_REFINED, 5 * limit)
        if among is not None:
            # The selector borrows the bits: they must live until the search is over.
            bits = np.packbits(among, bitorder="little")
            parameters.sel = selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        wanted = min(wanted, self.count)
        _, found = self._index.search(query[np.newaxis, :], wanted, params=parameters)
        if among is not None:
            del selector
        return np.sort(found[0][found[0] >= 0]).astype(np.int32)  # FAISS pads with -1


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}.rows"


def _parts(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}.*.rows"), key=lambda path: int(path.name.split(".")[-2]))


def _clusters(folder: Path, name: str) -> Path:
    return folder / f"{name}.clusters.faiss"
