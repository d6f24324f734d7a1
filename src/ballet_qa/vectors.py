"""Unit vectors on disk, and the search for the nearest by FAISS (Douze et al., 2024).

The rows themselves are kept as float32, in parts that never change. A coarser form of them is
searched: up to a hundred thousand in float16, every one; above, two bits a dimension (RaBitQ, Gao
and Long, 2024; Gao et al., 2025) in clusters. The nearest by that, more than wanted, are then
compared by the rows themselves, so that a cosine given is always theirs. `kind_for` is the rule;
docs/scale.md has what was measured.
"""

from __future__ import annotations

import errno
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
from ballet_qa.cores import cores, dots
from ballet_qa.types import FloatArray, IntArray, VectorKind

EXACT_ROWS = 100_000  # beyond, a search of every row takes longer than all else
_TIMES, _AT_LEAST = 5, 400  # so many rows by their bits hold nearly all of the nearest
_PROBED = 0.15  # of the clusters
_BITS = 2  # a dimension
_TOGETHER = 32  # rows that FAISS compares at a time, its default
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
        faiss.omp_set_num_threads(cores())
        if index is None or index.nlist != clusters:
            begun, index = 0, self._learnt(rows, clusters)
        for block in rows.blocks(begun):
            index.add(block)
        faiss.omp_set_num_threads(_OMP_OF_ONE)
        faiss.write_index(index, str(_clusters(self._folder, self._name)))

    def _learnt(self, rows: VectorRows, clusters: int) -> Any:
        middle: Any = faiss.IndexFlatIP(self._dimension)
        index = faiss.IndexIVFRaBitQFastScan(
            middle, self._dimension, clusters, faiss.METRIC_INNER_PRODUCT, _TOGETHER, True, _BITS
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
        self._dimension = dimension
        files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in _parts(folder, name)]
        for file in files:
            weakref.finalize(self, os.close, file)
        sizes = [os.fstat(file).st_size // (4 * dimension) for file in files]
        bounds = np.cumsum([0, *sizes]).tolist()
        self.count = int(bounds[-1])
        self._places = list(zip(files, bounds[:-1], bounds[1:], strict=True))

    def rows(self, ids: IntArray) -> FloatArray:
        """The vectors of these rows, shape (len(ids), dimension).

        Read, not mapped: what is mapped would count as our memory, and stay.
        """
        order = np.argsort(ids, kind="stable")
        rising = ids[order].astype(np.int64)
        ends = np.append(np.flatnonzero(np.diff(rising) != 1) + 1, len(ids))[: len(ids)]
        firsts = np.append(0, ends[:-1])[: len(ids)]
        made = np.empty((len(ids), self._dimension), dtype=np.float32)
        made[order] = self._read(rising[firsts], rising[ends - 1] + 1)
        return made

    def block(self, start: int, end: int) -> FloatArray:
        """The vectors of rows ``start:end``, shape (end - start, dimension)."""
        return self._read(np.array([start]), np.array([max(start, end)]))

    def _read(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> FloatArray:
        """The rows of rising ranges, one after the other."""
        size = 4 * self._dimension
        made = np.empty((int((ends - starts).sum()), self._dimension), dtype="<f4")
        if len(made) == 0:
            return made.astype(np.float32, copy=False)
        room = memoryview(made.data).cast("B")
        filled = 0
        for file, first, last in self._places:
            here, there = np.maximum(starts, first), np.minimum(ends, last)
            inside = here < there
            sizes = ((there - here)[inside] * size).tolist()
            for count, place in zip(sizes, ((here[inside] - first) * size).tolist(), strict=True):
                if os.preadv(file, [room[filled : filled + count]], place) != count:
                    raise OSError(errno.EIO, "the vectors end before their rows")
                filled += count
        return made.astype(np.float32, copy=False)

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
            self._index: Any = faiss.read_index(str(clusters))
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
        if self.kind == "exact":
            ids, _ = self._coarsely(query, limit + _MARGIN, among)
        elif among is not None and np.count_nonzero(among) <= _FEW_ROWS:
            ids = np.flatnonzero(among).astype(np.int32)
        else:
            ids, _ = self._coarsely(query, max(limit * _TIMES, _AT_LEAST), among)
        cosines = dots(self.rows(ids), query)
        order = np.lexsort((ids, -cosines))[:limit]
        return ids[order], cosines[order]

    def rows(self, ids: IntArray) -> FloatArray:
        """The vectors of these rows, shape (len(ids), dimension)."""
        return self._rows.rows(ids) if self.kind == "clustered" else self._held[ids]

    def block(self, start: int, end: int) -> FloatArray:
        """The vectors of rows ``start:end``, shape (end - start, dimension)."""
        return self._rows.block(start, end)

    def candidates(
        self, query: FloatArray, limit: int, among: NDArray[np.bool_] | None = None
    ) -> tuple[IntArray, FloatArray]:
        """As `search`, but float16 will do for the cosines where every row is searched."""
        return (self._coarsely if self.kind == "exact" else self.search)(query, limit, among)

    def _coarsely(
        self, query: FloatArray, limit: int, among: NDArray[np.bool_] | None
    ) -> tuple[IntArray, FloatArray]:
        """The ``limit`` nearest rows by their coarse form, as (rows, cosines by it), falling."""
        parameters: Any = faiss.SearchParameters
        settings: dict[str, Any] = {}
        if self.kind == "clustered":
            parameters = faiss.IVFRaBitQSearchParameters
            settings["nprobe"] = max(1, round(self._index.nlist * _PROBED))
        limit = min(limit, self.count)
        if limit == 0:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        if among is not None:
            bits = np.packbits(among, bitorder="little")  # borrowed until the search is over
            settings["sel"] = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        (near,), (found,) = self._index.search(
            query[np.newaxis, :], limit, params=parameters(**settings)
        )
        there = found >= 0  # FAISS pads with -1
        return found[there].astype(np.int32), near[there]


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}.rows"


def _parts(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}.*.rows"), key=lambda path: int(path.name.split(".")[-2]))


def _clusters(folder: Path, name: str) -> Path:
    return folder / f"{name}.clusters.faiss"
