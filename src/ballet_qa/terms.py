"""The term index: BM25 (Robertson and Zaragoza, 2009) over passages and stories.

A paragraph alone is too little text to be found by, so each passage is indexed three times: by its
own words, with one neighbour on each side (``near``) and with two (``wide``). tantivy finds the
best passages. What the others score is computed from columns of each passage's and story's terms,
by tantivy's formula and from its statistics: thousands of given passages in a millisecond or two.
"""

from __future__ import annotations

import errno
import math
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import tantivy
from numpy.typing import NDArray

from ballet_qa.columns import ColumnWriter, linked, read_column
from ballet_qa.types import FloatArray, IntArray
from ballet_qa.words import analyzer, composed

Field: TypeAlias = Literal["own", "near", "wide"]

_ANALYZER = "story_words"
_HEAP_BYTES = 64_000_000
_K1, _B = 1.2, 0.75  # tantivy's, and not adjustable
_TIMES_FETCHED = (2, 4, 8)
_REACH: dict[Field, int] = {"own": 0, "near": 1, "wide": 2}
# A term is known by 32 bits of it; ``starts`` has where the terms of each passage begin, ``part`` a
# number of its section. A story's terms follow its number in one sorted number of 64 bits.
_COLUMNS = {
    "passage_terms": "<u4",
    "passage_counts": "<u1",
    "passage_starts": "<i8",
    "passage_lengths": "<i4",
    "passage_parts": "<i4",
    "story_terms": "<u8",
    "story_counts": "<u2",
    "story_lengths": "<i4",
}


def _schema(fields: Iterable[str]) -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for field in fields:
        builder.add_text_field(field, tokenizer_name=_ANALYZER, index_option="freq")
    builder.add_unsigned_field("row", indexed=True, fast=True)
    builder.add_unsigned_field("story", indexed=True)
    return builder.build()


class TermsWriter:
    """Writes a term index into a new folder, a story at a time."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        """``base`` is the folder of a term index that this one begins as."""
        if base is None:
            for name in ("passages", "stories"):
                (folder / name).mkdir(parents=True)
        else:
            shutil.copytree(base, folder, copy_function=_begun)
        self._passages, self._stories = (
            tantivy.Index(_schema(fields), path=str(folder / name))
            for name, fields in (("passages", list(_REACH)), ("stories", ["text"]))
        )
        for index in (self._passages, self._stories):
            index.register_tokenizer(_ANALYZER, analyzer())
        # One thread, so that rows are laid down in order and a rebuild gives the same index.
        self._passage_writer = self._passages.writer(_HEAP_BYTES, 1)
        self._story_writer = self._stories.writer(_HEAP_BYTES, 1)
        self._columns = {
            name: ColumnWriter(_column_file(folder, name), kind) for name, kind in _COLUMNS.items()
        }
        self._next_row = self._next_term = self._next_part = 0
        if base is None:
            self._columns["passage_starts"].add([0])
        else:
            starts = read_column(_column_file(folder, "passage_starts"), "<i8")
            parts = read_column(_column_file(folder, "passage_parts"), "<i4")
            self._next_row, self._next_term = len(starts) - 1, int(starts[-1])
            self._next_part = int(parts[-1]) + 1 if len(parts) else 0

    def add_story(
        self, story_row: int, title: str, text: str, passages: Sequence[str], parts: Sequence[int]
    ) -> None:
        """Add the story of the next row of stories, and its passages as the next rows.

        ``parts`` has the number of each passage's section: neighbours are of the same one.
        """
        words = [composed(passage) for passage in passages]
        for position, part in enumerate(parts):
            document = tantivy.Document()
            for field, reach in _REACH.items():
                near = range(max(0, position - reach), min(position + reach + 1, len(words)))
                around = [words[place] for place in near if parts[place] == part]
                document.add_text(field, "\n".join(around))
            document.add_unsigned("row", self._next_row)
            document.add_unsigned("story", story_row)
            self._passage_writer.add_document(document)
            self._next_row += 1
        told = composed(f"{title}\n{text}")
        whole = tantivy.Document()
        whole.add_text("text", told)
        whole.add_unsigned("row", story_row)
        whole.add_unsigned("story", story_row)
        self._story_writer.add_document(whole)
        self._add_columns(story_row, told, words, parts)

    def _add_columns(
        self, story_row: int, text: str, passages: Sequence[str], parts: Sequence[int]
    ) -> None:
        columns = self._columns
        for passage in passages:
            terms, counts, length = _counted(passage)
            self._next_term += len(terms)
            columns["passage_terms"].add(terms)
            columns["passage_counts"].add(np.minimum(counts, 255))
            columns["passage_starts"].add([self._next_term])
            columns["passage_lengths"].add([length])
        sections = {part: number for number, part in enumerate(dict.fromkeys(parts))}
        columns["passage_parts"].add([self._next_part + sections[part] for part in parts])
        self._next_part += len(sections)
        terms, counts, length = _counted(text)
        columns["story_terms"].add((np.uint64(story_row) << np.uint64(32)) | terms)
        columns["story_counts"].add(np.minimum(counts, 65535))
        columns["story_lengths"].add([length])

    def abandon(self) -> None:
        """Let go of the columns, unfinished."""
        for column in self._columns.values():
            column.close()

    def close(self) -> None:
        """Commit everything; the index can be opened after this. Raises OSError."""
        self.abandon()
        try:
            for writer in (self._passage_writer, self._story_writer):
                writer.commit()
                writer.wait_merging_threads()
        except ValueError as error:  # tantivy's for whatever fails on disk
            raise OSError(errno.EIO, str(error)) from error


@dataclass(frozen=True, slots=True)
class Statistics:
    """What BM25 needs to know of a whole library, for the terms of one question.

    ``texts`` has how many texts each field has, ``words`` how many words they hold together,
    ``holding`` how many of them hold a term.
    """

    texts: Mapping[str, int]
    words: Mapping[str, int]
    holding: Mapping[tuple[str, str], int]

    @classmethod
    def together(cls, parts: Sequence[Statistics]) -> Statistics:
        """Those of a library that is kept in parts."""
        summed: list[Counter[Any]] = []
        for counts in ("texts", "words", "holding"):
            summed.append(Counter())
            for part in parts:
                summed[-1].update(getattr(part, counts))
        return cls(*summed)

    def mean(self, field: str) -> float:
        """How many words a text of this field has, on average."""
        return self.words[field] / max(self.texts[field], 1) or 1.0

    def idf(self, term: str, field: str = "own") -> float:
        """The weight of a term, as tantivy's BM25 has it: rare terms weigh most."""
        holding = self.holding[field, term]
        return math.log(1 + (self.texts[field] - holding + 0.5) / (holding + 0.5))

    def ceiling(self, terms: Sequence[str]) -> float:
        """A score that no passage can pass: every term at its heaviest."""
        return sum(self.idf(term) for term in terms) * (_K1 + 1)


class TermIndex:
    """Searches a term index. Scores are BM25 sums by the `Statistics` given; higher is better."""

    def __init__(self, folder: Path) -> None:
        self._passages = tantivy.Index.open(str(folder / "passages"))
        self._stories = tantivy.Index.open(str(folder / "stories"))
        self._passage_searcher = self._passages.searcher()
        self._story_searcher = self._stories.searcher()
        self.passage_count = self._passage_searcher.num_docs
        self.story_count = self._story_searcher.num_docs
        self._columns = {
            name: read_column(_column_file(folder, name), kind) for name, kind in _COLUMNS.items()
        }
        lengths, parts = self._columns["passage_lengths"], self._columns["passage_parts"]
        self._lengths: dict[Field, IntArray] = {}
        for field, reach in _REACH.items():
            around = lengths.copy()
            for step in range(1, reach + 1):
                together = parts[step:] == parts[:-step]
                around[step:] += np.where(together, lengths[:-step], 0)
                around[:-step] += np.where(together, lengths[step:], 0)
            self._lengths[field] = around
        self._texts: dict[str, int] = dict.fromkeys(_REACH, self.passage_count)
        self._texts["text"] = self.story_count
        self._words: dict[str, int] = {f: int(held.sum()) for f, held in self._lengths.items()}
        self._words["text"] = int(self._columns["story_lengths"].sum())

    def statistics(self, terms: Sequence[str]) -> Statistics:
        """Those of this index alone."""
        holding = {
            (field, term): self._searcher(field).doc_freq(field, term)
            for field in self._texts
            for term in terms
        }
        return Statistics(self._texts, self._words, holding)

    def search(
        self,
        field: Field,
        terms: Sequence[str],
        limit: int,
        statistics: Statistics,
        stories: Sequence[int] | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """The best ``limit`` passages, as (rows, scores), by falling score, then by row.

        ``stories`` (rows) narrows the search before anything is ranked.
        """
        own = statistics.texts[field] == self.passage_count
        query = self._any_of(field, terms, None if own else statistics)
        if stories is not None:
            query = _within(self._passages.schema, "story", stories, query)
        if own:
            return _run(self._passage_searcher, query, limit)
        # tantivy takes the mean length of its own texts. What it gives is scored anew by that of
        # the whole library, and more is asked for until nothing left out can be among the best:
        # no score rises by more than the means differ (Fagin's threshold).
        most = max(1.0, statistics.mean(field) * self._texts[field] / max(self._words[field], 1))
        for fetched in (limit * times for times in _TIMES_FETCHED):
            rows, near = _run(self._passage_searcher, query, fetched)
            best, scores = ranked(rows, self.scores(terms, rows, statistics)[field])
            best, scores = best[:limit], scores[:limit]
            if len(rows) < fetched or scores[-1] >= near[-1] * most:
                break
        return best, scores

    def scores(
        self, terms: Sequence[str], rows: IntArray, statistics: Statistics
    ) -> dict[Field, FloatArray]:
        """The BM25 score of each of these passages, in the order given, in every field."""
        made = {field: np.zeros(len(rows)) for field in _REACH}
        widest = max(_REACH.values())
        parts = self._columns["passage_parts"]
        around = rows[:, np.newaxis] + np.arange(-widest, widest + 1, dtype=np.int32)
        inside = (around >= 0) & (around < len(parts))
        around = np.where(inside, around, rows[:, np.newaxis])
        inside &= parts[around] == parts[rows][:, np.newaxis]
        distinct, place = np.unique(around, return_inverse=True)
        counted = self._counts(terms, distinct.astype(np.int32))
        counts = counted[place.reshape(around.shape)] * inside[:, :, np.newaxis]
        for field, reach in _REACH.items():
            own = counts[:, widest - reach : widest + reach + 1].sum(axis=1)
            norm = _norm(self._lengths[field][rows], statistics.mean(field))
            for number, term in enumerate(terms):
                weight = statistics.idf(term, field) * (1 + _K1)
                made[field] += weight * own[:, number] / (own[:, number] + norm)
        return {field: scores.astype(np.float32) for field, scores in made.items()}

    def score_stories(
        self, terms: Sequence[str], stories: IntArray, statistics: Statistics
    ) -> FloatArray:
        """The BM25 score of each of these stories as a whole, in the order given."""
        norm = _norm(self._columns["story_lengths"][stories], statistics.mean("text"))
        made = np.zeros(len(stories))
        for term, counts in zip(terms, self._story_counts(terms, stories).T, strict=True):
            weight = statistics.idf(term, "text") * (1 + _K1)
            made += weight * counts / (counts + norm)
        return made.astype(np.float32)

    def holding(self, terms: Sequence[str], stories: IntArray) -> NDArray[np.bool_]:
        """Which of these stories hold which terms, shape (len(stories), len(terms))."""
        return self._story_counts(terms, stories) > 0

    def stories_with(self, term: str) -> frozenset[int]:
        """The rows of the stories that hold ``term``."""
        if not self.stories_holding(term):
            return frozenset()
        query = _any_of(self._stories.schema, "text", [term])
        rows, _ = _run(self._story_searcher, query, self.story_count)
        return frozenset(rows.tolist())

    def stories_holding(self, term: str) -> int:
        """How many stories hold ``term``."""
        return self._story_searcher.doc_freq("text", term)

    def _searcher(self, field: str) -> tantivy.Searcher:
        return self._story_searcher if field == "text" else self._passage_searcher

    def _any_of(
        self, field: Field, terms: Sequence[str], statistics: Statistics | None
    ) -> tantivy.Query:
        """Passages that hold any of the terms, each weighed by ``statistics`` if there are any."""
        if statistics is None:
            return _any_of(self._passages.schema, field, terms)
        known = self.statistics(terms)
        weights = [statistics.idf(term, field) / known.idf(term, field) for term in terms]
        return _any_of(self._passages.schema, field, terms, weights)

    def _counts(self, terms: Sequence[str], rows: IntArray) -> NDArray[np.int64]:
        """How often each term stands in each passage, shape (len(rows), len(terms))."""
        starts = self._columns["passage_starts"]
        firsts, sizes = starts[rows], starts[rows + 1] - starts[rows]
        begins = np.cumsum(sizes) - sizes
        places = np.arange(sizes.sum()) + np.repeat(firsts - begins, sizes)
        held = self._columns["passage_terms"][places]
        owners = np.repeat(np.arange(len(rows)), sizes)
        counts = np.zeros((len(rows), len(terms)), dtype=np.int64)
        for number, term in enumerate(terms):
            found = np.flatnonzero(held == _bits(term))
            counts[owners[found], number] = self._columns["passage_counts"][places[found]]
        return counts

    def _story_counts(self, terms: Sequence[str], stories: IntArray) -> NDArray[np.int64]:
        held, counts = self._columns["story_terms"], self._columns["story_counts"]
        bits = np.array([_bits(term) for term in terms], dtype=np.uint64)
        rising = np.argsort(bits)  # what is looked up in order is found near the one before
        wanted = (stories.astype(np.uint64)[:, np.newaxis] << np.uint64(32)) | bits[rising]
        made = np.zeros(wanted.shape, dtype=np.int64)
        if len(held) > 0:
            places = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
            made[:, rising] = np.where(held[places] == wanted, counts[places], 0)
        return made


def _column_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.column"


def _begun(source: str, target: str) -> None:
    """Begin with another index's file: columns grow, tantivy's segments never change."""
    (shutil.copyfile if source.endswith((".column", ".json", ".lock")) else linked)(source, target)


def _counted(text: str) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
    """A text's terms as their bits, rising, how often each occurs, and how many words there are."""
    words = analyzer().analyze(text)
    counted: Counter[int] = Counter(map(_bits, words))
    bits = np.array(sorted(counted), dtype=np.uint64)
    return bits, np.array([counted[int(b)] for b in bits], dtype=np.int64), len(words)


@lru_cache(maxsize=200_000)
def _bits(term: str) -> int:
    return zlib.crc32(term.encode())


def _norm(lengths: IntArray, mean: float) -> NDArray[np.float64]:
    """What BM25 adds to a count for the length of the text, which tantivy keeps in one byte."""
    kept = _KEPT_LENGTHS[np.searchsorted(_KEPT_LENGTHS, lengths, side="right") - 1]
    return np.asarray(_K1 * (1 - _B + _B * kept / mean), dtype=np.float64)


def _kept_lengths() -> NDArray[np.int64]:
    """The lengths that tantivy tells apart (fieldnorm/code.rs): each to 40, then ever fewer."""
    lengths = list(range(41))
    step = 2
    while len(lengths) < 256:
        lengths += [lengths[-1] + step * number for number in range(1, 9)]
        step *= 2
    return np.array(lengths[:256], dtype=np.int64)


_KEPT_LENGTHS = _kept_lengths()


def _any_of(
    schema: tantivy.Schema, field: str, terms: Sequence[str], weights: Sequence[float] | None = None
) -> tantivy.Query:
    if not terms:
        return tantivy.Query.empty_query()
    queries = [tantivy.Query.term_query(schema, field, term) for term in terms]
    if weights is not None:
        pairs = zip(queries, weights, strict=True)
        queries = [tantivy.Query.boost_query(query, weight) for query, weight in pairs]
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in queries])


def _within(
    schema: tantivy.Schema, field: str, values: Sequence[int], query: tantivy.Query
) -> tantivy.Query:
    """``query`` among these alone; belonging adds nothing to the score."""
    belongs = tantivy.Query.term_set_query(schema, field, list(values))
    return tantivy.Query.boolean_query(
        [
            (tantivy.Occur.Must, tantivy.Query.const_score_query(belongs, 0.0)),
            (tantivy.Occur.Must, query),
        ]
    )


def _run(
    searcher: tantivy.Searcher, query: tantivy.Query, limit: int
) -> tuple[IntArray, FloatArray]:
    hits = searcher.search(query, limit=limit, count=False).hits
    rows = searcher.fast_field_values("row", [address for _, address in hits])
    return ranked(
        np.array(rows, dtype=np.int32), np.array([score for score, _ in hits], dtype=np.float32)
    )


def ranked(rows: IntArray, scores: FloatArray) -> tuple[IntArray, FloatArray]:
    """Both, by falling score; ties by rising row."""
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]
