"""Question to hits: a word search and a vector search, each candidate described, then fused.

Candidates come from both searches, because each is right about different questions: words about
those that repeat the story's words, vectors about those that do not. What tells them apart is how
sure each list is, so the weights of the fusion depend on the question (fusion.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ballet_qa.encoder import load_encoder
from ballet_qa.errors import QuestionError
from ballet_qa.fusion import FEATURES, Fusion, Signals, load_fusion
from ballet_qa.index import Described, Query, check_encoder
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import AnyIndex, open_index
from ballet_qa.types import Encoder, FloatArray, Hit, IntArray
from ballet_qa.words import is_unicode, terms


@dataclass(frozen=True, slots=True)
class Ranking:
    """Passages by falling score; ``rows`` are theirs, ``stories`` those of their stories."""

    rows: IntArray
    scores: FloatArray
    stories: IntArray

    def __getitem__(self, places: Sequence[int]) -> Ranking:
        """Those at these places, in the order given."""
        return Ranking(self.rows[places], self.scores[places], self.stories[places])


class Retriever:
    """Searches one open index with the encoder it was built with."""

    def __init__(self, index: AnyIndex, encoder: Encoder, fusion: Fusion | None = None) -> None:
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
        index = open_index(index_dir)
        encoder = encoder or load_encoder(index.manifest.encoder)
        check_encoder(index.manifest, encoder, Path(index_dir))
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
        return self.hits(self.rank(self.query(query), rows), top_k, rows)

    def query(self, text: str) -> Query:
        """The question made ready for both searches."""
        (vector,) = self.encoder.encode_queries([text])
        names = [stem for name in self.index.names_in(text) for stem in name.stems]
        words = tuple(dict.fromkeys(terms(text)))
        return Query(words, tuple(dict.fromkeys(names)), vector, self.index.statistics(words))

    def rank(self, query: Query, stories: Sequence[int] | None = None) -> Ranking:
        """Candidate passages by falling fused score; ``stories`` are rows."""
        return self.ordered(query, self.index.candidates(query, stories))

    def ordered(self, query: Query, rows: IntArray) -> Ranking:
        """These passages by falling fused score; ties by their place."""
        described = self.index.described(query, rows)
        scores = self._fusion.scores(signals(query, described))
        order = np.lexsort((rows, self.index.texts.places(described.stories), -scores))
        return Ranking(rows[order], scores[order], described.stories[order])

    def hits(self, ranking: Ranking, top_k: int, stories: Sequence[int] | None = None) -> list[Hit]:
        """The first ``top_k`` distinct passages of a ranking."""
        texts = self.index.texts
        hits: list[Hit] = []
        shown: set[int] = set()
        texts.fetch(ranking.rows[:top_k])
        for row, score, owner in zip(
            ranking.rows.tolist(), ranking.scores.tolist(), ranking.stories.tolist(), strict=True
        ):
            if len(hits) == top_k:
                break
            if row in shown:
                continue
            twins = texts.twins(row)
            shown.update(twin for twin, _ in twins)
            others = {story for _, story in twins} - {owner}
            if stories is not None:
                others &= set(stories)
            shelf = np.array(sorted(others), dtype=np.int32)
            in_order = shelf[np.argsort(texts.places(shelf))].tolist()
            also_in = tuple(texts.story_id(other) for other in in_order)
            hits.append(Hit(texts.passage(row), score, len(hits) + 1, texts.title(owner), also_in))
        return hits


def signals(query: Query, described: Described) -> Signals:
    """What was said of each candidate, made comparable over all of them."""
    ceiling = max(query.statistics.ceiling(query.terms), 1e-6)
    columns = dict(described.columns)
    for field in ("own", "near", "wide"):
        columns[field] = columns[field] / ceiling
    columns["story"] = columns["story"] / (max(columns["story"], default=0.0) or 1.0)
    features = np.stack([np.asarray(columns[name], np.float32) for name in FEATURES], axis=1)
    weights = [query.statistics.idf(term) for term in query.terms]
    return Signals(features, named=bool(query.names), mean_idf=float(np.mean(weights or [0.0])))


def check_query(query: str, top_k: int) -> None:
    """Raise QuestionError when the words or the number cannot be searched for."""
    if not query.strip():
        raise QuestionError("the question is blank; ask in a few words")
    if len(query) > SETTINGS.max_question_chars:
        raise QuestionError(
            f"the question has {len(query):,} characters; at most {SETTINGS.max_question_chars:,}"
        )
    if not is_unicode(query):
        raise QuestionError("the question is not valid Unicode; write it in UTF-8")
    if not 1 <= top_k <= SETTINGS.max_top_k:
        shown = f"{top_k}"[:20]
        raise QuestionError(f"top_k is {shown}; give a number from 1 to {SETTINGS.max_top_k:,}")
