"""Question to hits: a word search and a vector search, each candidate described, then fused.

Candidates come from both searches, because each is right about different questions: words about
those that repeat the story's words, vectors about those that do not. What tells them apart is how
sure each list is, so the weights of the fusion depend on the question (fusion.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ballet_qa.cores import on_every_core
from ballet_qa.encoder import load_encoder
from ballet_qa.errors import QuestionError
from ballet_qa.fusion import FEATURES, Fusion, Signals, load_fusion
from ballet_qa.index import Index
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Encoder, FloatArray, Hit, IntArray
from ballet_qa.words import terms


@dataclass(frozen=True, slots=True)
class Query:
    """A question as the searches see it. ``vector`` has shape (dimension,)."""

    text: str
    terms: tuple[str, ...]
    names: tuple[str, ...]
    vector: FloatArray


class Retriever:
    """Searches one open index with the encoder it was built with."""

    def __init__(self, index: Index, encoder: Encoder, fusion: Fusion | None = None) -> None:
        """``fusion`` defaults to the weights that come with the package."""
        self.index = index
        self.encoder = encoder
        self._fusion = fusion or load_fusion()

    @classmethod
    def load(
        cls, index_dir: str | Path = SETTINGS.index, encoder: Encoder | None = None
    ) -> Retriever:
        """Open the index in ``index_dir`` and the encoder it names.

        Raises IndexMissingError, IndexMismatchError or EncoderError, each with its remedy.
        """
        index = Index.open(index_dir)
        encoder = encoder or load_encoder(index.manifest.encoder)
        index.check_encoder(encoder, Path(index_dir))
        return cls(index, encoder)

    def search(
        self, query: str, top_k: int = SETTINGS.top_k, stories: Sequence[str] | None = None
    ) -> list[Hit]:
        """The ``top_k`` passages that answer best, by falling score; ties by their place.

        ``stories`` (ids) narrows the search before anything is ranked. The same words in several
        places are one hit, the others named in ``also_in``. Raises QuestionError on a blank or
        over-long query or a ``top_k`` out of range, UnknownStoryError on an unknown id.
        """
        check_query(query, top_k)
        rows = None if stories is None else self.index.story_rows(stories)
        return self.hits(*self.rank(self.query(query), rows), top_k, rows)

    def query(self, text: str) -> Query:
        """The question made ready for both searches."""
        (vector,) = self.encoder.encode_queries([text])
        names = [stem for name in self.index.names_in(text) for stem in name.stems]
        return Query(text, tuple(dict.fromkeys(terms(text))), tuple(dict.fromkeys(names)), vector)

    def rank(
        self, query: Query, stories: Sequence[int] | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Candidate passages by falling fused score, as (rows, scores); ``stories`` are rows."""
        return self.ordered(query, self.candidates(query, stories))

    def ordered(self, query: Query, rows: IntArray) -> tuple[IntArray, FloatArray]:
        """These passages by falling fused score, as (rows, scores); ties by their place."""
        scores = self.fused(query, rows)
        texts = self.index.texts
        order = np.lexsort((rows, texts.story_place[texts.passage_story[rows]], -scores))
        return rows[order], scores[order]

    def fused(self, query: Query, rows: IntArray) -> FloatArray:
        """The fused score of each of these passages."""
        if len(rows) == 0:
            return np.zeros(0, dtype=np.float32)
        return self._fusion.scores(self.signals(query, rows))

    def candidates(self, query: Query, stories: Sequence[int] | None = None) -> IntArray:
        """The rows either search puts forward, in rising order."""
        index, texts = self.index, self.index.texts
        among = None if stories is None else index.passages_among(stories)
        sentences_among = None if among is None else among[texts.sentence_passage]
        many, most = SETTINGS.vector_candidates, SETTINGS.words_candidates
        searches: tuple[Callable[[], IntArray], ...] = (
            lambda: texts.sentence_passage[
                index.sentence_vectors.candidates(query.vector, many, sentences_among)
            ],
            lambda: index.passage_vectors.candidates(query.vector, many, among),
            lambda: index.terms.search("own", query.terms, most, stories)[0],
            lambda: index.terms.search("near", query.terms, most, stories)[0],
        )
        found = on_every_core(lambda search: search(), searches)
        return distinct(np.concatenate(found))

    def signals(self, query: Query, rows: IntArray) -> Signals:
        """What both searches say of each candidate, complete: nothing is missing for being low."""
        index, texts = self.index, self.index.texts
        owners = texts.passage_story[rows]
        stories, story_of = np.unique(owners, return_inverse=True)
        ceiling = max(index.terms.ceiling(query.terms), 1e-6)
        scores = index.terms.scores(query.terms, rows)
        whole = index.terms.score_stories(query.terms, stories)
        named = index.terms.holding(query.names, stories).mean(axis=1) if query.names else None
        around = distinct(np.concatenate([rows - 1, rows, rows + 1]))
        around = around[(around >= 0) & (around < len(texts.passage_story))]
        best = self._best_sentence(query, around)
        sentence = best[np.searchsorted(around, rows)]
        neighbour = np.full(len(rows), -np.inf, dtype=np.float32)
        for near in (rows - 1, rows + 1):
            place = np.clip(np.searchsorted(around, near), 0, len(around) - 1)
            beside = (around[place] == near) & (texts.passage_story[around[place]] == owners)
            neighbour = np.where(beside, np.maximum(neighbour, best[place]), neighbour)
        neighbour = np.where(np.isinf(neighbour), sentence, neighbour)
        columns = {
            "own": scores["own"] / ceiling,
            "near": scores["near"] / ceiling,
            "wide": scores["wide"] / ceiling,
            "story": whole[story_of] / (whole.max() or 1.0),
            "named": np.zeros(len(rows)) if named is None else named[story_of],
            "passage": index.passage_vectors.rows(rows) @ query.vector,
            "sentence": sentence,
            "neighbour": neighbour,
        }
        features = np.stack([np.asarray(columns[name], np.float32) for name in FEATURES], axis=1)
        weights = [index.terms.idf(term) for term in query.terms]
        return Signals(features, named=bool(query.names), mean_idf=float(np.mean(weights or [0.0])))

    def hits(
        self,
        rows: IntArray,
        scores: FloatArray,
        top_k: int,
        stories: Sequence[int] | None = None,
    ) -> list[Hit]:
        """The first ``top_k`` distinct passages of a ranking."""
        texts = self.index.texts
        hits: list[Hit] = []
        shown: set[int] = set()
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            if len(hits) == top_k:
                break
            if row in shown:
                continue
            twins = texts.twins(row)
            shown.update(twins)
            owner = int(texts.passage_story[row])
            others = {int(texts.passage_story[twin]) for twin in twins} - {owner}
            if stories is not None:
                others &= set(stories)
            also_in = tuple(
                texts.story_id(other) for other in sorted(others, key=texts.story_place.__getitem__)
            )
            hits.append(Hit(texts.passage(row), score, len(hits) + 1, texts.title(owner), also_in))
        return hits

    def _best_sentence(self, query: Query, rows: IntArray) -> FloatArray:
        """The highest cosine among the sentences of each passage."""
        owners = self.index.texts.sentence_passage
        starts, ends = (np.searchsorted(owners, rows, side) for side in ("left", "right"))
        counts = ends - starts
        firsts = np.cumsum(counts) - counts
        sentences = np.arange(counts.sum()) + np.repeat(starts - firsts, counts)
        cosines = self.index.sentence_vectors.rows(sentences.astype(np.int32)) @ query.vector
        return np.maximum.reduceat(cosines, firsts)


def distinct(rows: IntArray) -> IntArray:
    """The rows, rising, each once; for a few thousand faster than np.unique."""
    rising = np.sort(rows)
    first = np.ones(len(rising), dtype=np.bool_)
    first[1:] = rising[1:] != rising[:-1]
    return np.asarray(rising[first], dtype=np.int32)


def check_query(query: str, top_k: int) -> None:
    """Raise QuestionError when the words or the number cannot be searched for."""
    if not query.strip():
        raise QuestionError("the question is blank; ask in a few words")
    if len(query) > SETTINGS.max_question_chars:
        raise QuestionError(
            f"the question has {len(query):,} characters; at most {SETTINGS.max_question_chars:,}"
        )
    if not 1 <= top_k <= SETTINGS.max_top_k:
        raise QuestionError(f"top_k is {top_k}; give a number from 1 to {SETTINGS.max_top_k:,}")
