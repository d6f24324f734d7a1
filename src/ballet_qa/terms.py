"""The term index: BM25 (Robertson and Zaragoza, 2009) over passages and stories, by tantivy.

A paragraph alone is too little text to be found by, so each passage is indexed three times: by its
own words, with one neighbour on each side (``near``) and with two (``wide``). Stories have an index
of their own, because BM25's statistics are those of the whole index.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import tantivy

from ballet_qa.types import FloatArray, IntArray
from ballet_qa.words import analyzer, composed

Field: TypeAlias = Literal["own", "near", "wide"]

_ANALYZER = "story_words"
_HEAP_BYTES = 64_000_000
_K1 = 1.2  # tantivy's, and not adjustable
_REACH: dict[Field, int] = {"own": 0, "near": 1, "wide": 2}


def _schema(fields: Iterable[str]) -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for field in fields:
        builder.add_text_field(field, tokenizer_name=_ANALYZER, index_option="freq")
    builder.add_unsigned_field("row", indexed=True, fast=True)
    builder.add_unsigned_field("story", indexed=True)
    return builder.build()


class TermsWriter:
    """Writes a term index into an empty folder, a story at a time."""

    def __init__(self, folder: Path) -> None:
        (folder / "passages").mkdir(parents=True)
        (folder / "stories").mkdir()
        self._passages = tantivy.Index(_schema(_REACH), path=str(folder / "passages"))
        self._stories = tantivy.Index(_schema(["text"]), path=str(folder / "stories"))
        for index in (self._passages, self._stories):
            index.register_tokenizer(_ANALYZER, analyzer())
        # One thread, so that rows are laid down in order and a rebuild gives the same index.
        self._passage_writer = self._passages.writer(_HEAP_BYTES, 1)
        self._story_writer = self._stories.writer(_HEAP_BYTES, 1)
        self._next_row = 0

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
        whole = tantivy.Document()
        whole.add_text("text", composed(f"{title}\n{text}"))
        whole.add_unsigned("row", story_row)
        whole.add_unsigned("story", story_row)
        self._story_writer.add_document(whole)

    def close(self) -> None:
        """Commit everything; the index can be opened after this. Raises OSError."""
        try:
            for writer in (self._passage_writer, self._story_writer):
                writer.commit()
                writer.wait_merging_threads()
        except ValueError as error:  # tantivy's for whatever fails on disk
            raise OSError(errno.EIO, str(error)) from error


class TermIndex:
    """Searches a term index. Scores are BM25 sums; higher is better."""

    def __init__(self, folder: Path) -> None:
        self._passages = tantivy.Index.open(str(folder / "passages"))
        self._stories = tantivy.Index.open(str(folder / "stories"))
        self._passage_searcher = self._passages.searcher()
        self._story_searcher = self._stories.searcher()
        self.passage_count = self._passage_searcher.num_docs
        self.story_count = self._story_searcher.num_docs

    def search(
        self, field: Field, terms: Sequence[str], limit: int, stories: Sequence[int] | None = None
    ) -> tuple[IntArray, FloatArray]:
        """The best ``limit`` passages, as (rows, scores), by falling score, then by row.

        ``stories`` (rows) narrows the search before anything is ranked.
        """
        query = _any_of(self._passages.schema, field, terms)
        if stories is not None:
            query = _within(self._passages.schema, "story", stories, query)
        return _run(self._passage_searcher, query, limit)

    def score(self, field: Field, terms: Sequence[str], rows: IntArray) -> FloatArray:
        """The BM25 score of each of these passages, in the order given; 0 where no term occurs."""
        query = _any_of(self._passages.schema, field, terms)
        query = _within(self._passages.schema, "row", [int(row) for row in rows], query)
        found, scores = _run(self._passage_searcher, query, max(1, len(rows)))
        by_row = dict(zip(found.tolist(), scores.tolist(), strict=True))
        return np.array([by_row.get(int(row), 0.0) for row in rows], dtype=np.float32)

    def score_stories(self, terms: Sequence[str], rows: Sequence[int]) -> dict[int, float]:
        """The BM25 score of each of these stories as a whole; those without any term are absent."""
        query = _any_of(self._stories.schema, "text", terms)
        query = _within(self._stories.schema, "row", rows, query)
        found, scores = _run(self._story_searcher, query, max(1, len(rows)))
        return dict(zip(found.tolist(), scores.tolist(), strict=True))

    def stories_with(self, term: str) -> frozenset[int]:
        """The rows of the stories that hold ``term``."""
        query = _any_of(self._stories.schema, "text", [term])
        rows, _ = _run(self._story_searcher, query, max(1, self.story_count))
        return frozenset(rows.tolist())

    def idf(self, term: str) -> float:
        """The weight of a term among passages, as tantivy's BM25 has it: rare terms weigh most."""
        holding = self._passage_searcher.doc_freq("own", term)
        return math.log(1 + (self.passage_count - holding + 0.5) / (holding + 0.5))

    def ceiling(self, terms: Sequence[str]) -> float:
        """A score that no passage can pass: every term at its heaviest."""
        return sum(self.idf(term) for term in terms) * (_K1 + 1)


def _any_of(schema: tantivy.Schema, field: str, terms: Sequence[str]) -> tantivy.Query:
    if not terms:
        return tantivy.Query.empty_query()
    return tantivy.Query.boolean_query(
        [(tantivy.Occur.Should, tantivy.Query.term_query(schema, field, term)) for term in terms]
    )


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
