"""One generation, open: texts, terms and vectors that belong together, and verified to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ballet_qa.cores import dots, on_every_core
from ballet_qa.errors import IndexGoneError, IndexMismatchError, UnknownStoryError
from ballet_qa.generation import (
    Hold,
    Manifest,
    build_command,
    live_generation,
    read_manifest,
    verify,
)
from ballet_qa.names import (
    essential_words,
    follows_the,
    names_in_question,
    stands_for_a_person,
)
from ballet_qa.settings import SETTINGS
from ballet_qa.terms import Statistics, TermIndex
from ballet_qa.texts import Texts
from ballet_qa.types import Encoder, FloatArray, IntArray
from ballet_qa.vectors import VectorIndex
from ballet_qa.words import stem, terms

TERMS = "terms"
PASSAGES = "passages"
SENTENCES = "sentences"


# How many each search puts forward: sentences, passages, and words by two fields.
WANTED = (SETTINGS.vector_candidates,) * 2 + (SETTINGS.words_candidates,) * 2


class NamedTexts(Protocol):
    """What is asked of texts for the names in a question."""

    def story_row(self, story_id: str, /) -> int | None:
        """As `Texts.story_row`."""

    def is_a_name_in(self, count: int, word: str, /) -> bool:
        """As `Texts.is_a_name_in`."""

    def stories_naming(self, word: str, /) -> frozenset[int]:
        """As `Texts.stories_naming`."""


class NamedWords(Protocol):
    """What is asked of the terms for them."""

    def stories_holding(self, term: str, /) -> int:
        """As `TermIndex.stories_holding`."""

    def stories_with(self, term: str, /) -> frozenset[int]:
        """As `TermIndex.stories_with`."""


@dataclass(frozen=True, slots=True)
class QuestionName:
    """A name in a question: as written, its stems, and whether it may be a common noun."""

    text: str
    stems: tuple[str, ...]
    maybe_common: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A question as the searches see it: stems of its words and names, and its vector.

    ``vector`` has shape (dimension,); ``statistics`` are those of the whole library.
    """

    terms: tuple[str, ...]
    names: tuple[str, ...]
    vector: FloatArray
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class Found:
    """Passages that one search puts forward: their rows, with what it thinks of each.

    Higher is better; of several sentences of a passage each counts.
    """

    rows: IntArray
    scores: FloatArray


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of passages, in the order they were asked for.

    ``stories`` has the rows of their stories. ``columns`` has a number a passage by the name of the
    signal (`fusion.FEATURES`), where BM25 is not yet a share of anything.
    """

    stories: IntArray
    columns: dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Index:
    """What a generation holds, ready to be searched. Rows are those of ``texts``."""

    folder: Path
    hold: Hold
    manifest: Manifest
    texts: Texts
    terms: TermIndex
    passage_vectors: VectorIndex
    sentence_vectors: VectorIndex

    @classmethod
    def open(cls, index_dir: str | Path) -> Index:
        """Open the live generation of ``index_dir``, every file and count verified.

        Raises IndexMissingError, or IndexMismatchError naming what is wrong and the remedy.
        """
        try:
            return cls.of_generation(live_generation(Path(index_dir)))
        except IndexGoneError:  # two builds have ended since the pointer was read
            return cls.of_generation(live_generation(Path(index_dir)))

    @classmethod
    def of_generation(cls, folder: Path) -> Index:
        """Open this generation. Raises as `open` does."""
        hold = Hold(folder)
        manifest = read_manifest(folder)
        verify(folder, manifest, again=False)
        index = cls(
            folder=folder,
            hold=hold,
            manifest=manifest,
            texts=Texts(folder),
            terms=TermIndex(folder / TERMS),
            passage_vectors=VectorIndex(folder, PASSAGES, manifest.dimension),
            sentence_vectors=VectorIndex(folder, SENTENCES, manifest.dimension),
        )
        index._check_counts(folder.parent.parent)
        return index

    def story_rows(self, story_ids: Iterable[str]) -> list[int]:
        """The rows of these stories. Raises UnknownStoryError naming the first unknown one."""
        return story_rows(self.texts, story_ids)

    @contextmanager
    def listening(self) -> Iterator[set[str]]:
        """The names of the shards that do not answer meanwhile: here there are none."""
        yield set()

    def statistics(self, terms: Sequence[str]) -> Statistics:
        """What BM25 needs to know of the library for these terms."""
        return self.terms.statistics(terms)

    def names_in(self, question: str) -> list[QuestionName]:
        """The names a question holds: by its capitals, and, written small, those known here."""
        return names_in(self.texts, self.terms, question)

    def candidates(self, query: Query, stories: Sequence[int] | None = None) -> IntArray:
        """The rows that either search puts forward, rising, of these ``stories`` (rows) alone."""
        return distinct(np.concatenate([found.rows for found in self.found(query, stories)]))

    def found(self, query: Query, stories: Sequence[int] | None = None) -> tuple[Found, ...]:
        """What each search puts forward: nearest sentences, nearest passages, words by two fields.

        As many as `SETTINGS` has, or more where they are cheap to find.
        """
        among = None if stories is None else self.passages_among(stories)
        sentences_among = None if among is None else among[self.texts.sentence_passage]
        words, told = query.terms, query.statistics
        many, _, most, _ = WANTED
        searches: tuple[Callable[[], tuple[IntArray, FloatArray]], ...] = (
            lambda: self.sentence_vectors.candidates(query.vector, many, sentences_among),
            lambda: self.passage_vectors.candidates(query.vector, many, among),
            lambda: self.terms.search("own", words, most, told, stories),
            lambda: self.terms.search("near", words, most, told, stories),
        )
        sentences, *others = on_every_core(lambda search: search(), searches)
        nearest = Found(self.texts.sentence_passage[sentences[0]], sentences[1])
        return nearest, *(Found(*other) for other in others)

    def described(self, query: Query, rows: IntArray) -> Described:
        """What both searches say of each passage: nothing is missing for being low."""
        texts, statistics = self.texts, query.statistics
        owners = texts.passage_story[rows]
        stories, story_of = np.unique(owners, return_inverse=True)
        whole = self.terms.score_stories(query.terms, stories, statistics)
        named = np.zeros(len(stories), dtype=np.float32)
        if query.names:
            named = self.terms.holding(query.names, stories).mean(axis=1, dtype=np.float32)
        around = distinct(np.concatenate([rows - 1, rows, rows + 1]))
        around = around[(around >= 0) & (around < len(texts.passage_story))]
        best = self._best_sentence(query, around)
        sentence = best[np.searchsorted(around, rows)]
        neighbour = np.full(len(rows), -np.inf, dtype=np.float32)
        for near in (rows - 1, rows + 1):
            place = np.clip(np.searchsorted(around, near), 0, len(around) - 1)
            beside = (around[place] == near) & (texts.passage_story[around[place]] == owners)
            neighbour = np.where(beside, np.maximum(neighbour, best[place]), neighbour)
        fields = self.terms.scores(query.terms, rows, statistics)
        columns: dict[str, FloatArray] = {
            **{str(field): held for field, held in fields.items()},
            "story": whole[story_of],
            "named": named[story_of],
            "passage": dots(self.passage_vectors.rows(rows), query.vector),
            "sentence": sentence,
            "neighbour": np.where(np.isinf(neighbour), sentence, neighbour),
        }
        return Described(owners, columns)

    def _best_sentence(self, query: Query, rows: IntArray) -> FloatArray:
        """The highest cosine among the sentences of each passage."""
        if len(rows) == 0:
            return np.zeros(0, dtype=np.float32)
        owners = self.texts.sentence_passage
        starts, ends = (np.searchsorted(owners, rows, side) for side in ("left", "right"))
        counts = ends - starts
        firsts = np.cumsum(counts) - counts
        sentences = np.arange(counts.sum()) + np.repeat(starts - firsts, counts)
        cosines = dots(self.sentence_vectors.rows(sentences.astype(np.int32)), query.vector)
        return np.maximum.reduceat(cosines, firsts)

    def passages_among(self, story_rows: Iterable[int]) -> NDArray[np.bool_]:
        """One truth value a passage: whether it belongs to one of these stories."""
        among = np.zeros(self.passage_vectors.count, dtype=np.bool_)
        for story_row in story_rows:
            start, end = self.texts.passage_rows(story_row)
            among[start:end] = True
        return among

    def _check_counts(self, index_dir: Path) -> None:
        told = self.manifest
        counts = {
            "stories": (told.stories, self.texts.story_count, self.terms.story_count),
            "passages": (
                told.passages,
                len(self.texts.passage_story),
                self.terms.passage_count,
                self.passage_vectors.count,
                self.passage_vectors.indexed,
            ),
            "sentences": (
                told.sentences,
                len(self.texts.sentence_passage),
                self.sentence_vectors.count,
                self.sentence_vectors.indexed,
            ),
        }
        for what, numbers in counts.items():
            if len(set(numbers)) != 1:
                raise IndexMismatchError(
                    f"{self.folder} holds {what} in unequal numbers {numbers}; "
                    f"run: {build_command(index_dir)}"
                )


def check_encoder(manifest: Manifest, encoder: Encoder, index_dir: Path) -> None:
    """Raise IndexMismatchError unless ``encoder`` made the vectors of that index."""
    if encoder.fingerprint != manifest.encoder_fingerprint:
        raise IndexMismatchError(
            f"{index_dir} was built with {manifest.encoder} "
            f"({manifest.encoder_fingerprint[-12:]}), not with {encoder.name} "
            f"({encoder.fingerprint[-12:]}); run: {build_command(index_dir)}"
        )


def names_in(texts: NamedTexts, words: NamedWords, question: str) -> list[QuestionName]:
    """As `Index.names_in`, by what is asked of texts and words.

    A capital in a question is not always meant: a single word that the stories know, but never as
    a name, is none ("Who owns the Café?", "Does Camilla love Ballet?"), unless it stands where a
    person would ("How did Joy feel?").
    """
    names = []
    for found in names_in_question(question):
        stems = tuple(map(stem, essential_words(found)))
        name = QuestionName(found.text, stems, follows_the(question, found))
        if stands_for_a_person(question, found) or not _is_only_a_word(texts, words, name):
            names.append(name)
    told = {word for name in names for word in name.stems}
    for term in terms(question):
        # A word that is a name wherever it occurs is one in the question too.
        if term in told or not texts.is_a_name_in(words.stories_holding(term), term):
            continue
        if texts.stories_naming(term) == words.stories_with(term):
            names.append(QuestionName(term, (term,), maybe_common=True))
    return names


def _is_only_a_word(texts: NamedTexts, words: NamedWords, name: QuestionName) -> bool:
    if len(name.stems) != 1:
        return False
    (word,) = name.stems
    return bool(words.stories_with(word)) and not texts.stories_naming(word)


def story_rows(texts: NamedTexts, story_ids: Iterable[str]) -> list[int]:
    """As `Index.story_rows`."""
    rows = []
    for story_id in story_ids:
        row = texts.story_row(story_id)
        if row is None:
            raise UnknownStoryError(
                f"no story {story_id!r} in this index; `ballet-qa info --stories` lists them"
            )
        rows.append(row)
    return sorted(set(rows))


def distinct(rows: IntArray) -> IntArray:
    """The rows, rising, each once; for a few thousand faster than np.unique."""
    rising = np.sort(rows)
    first = np.ones(len(rising), dtype=np.bool_)
    first[1:] = rising[1:] != rising[:-1]
    return np.asarray(rising[first], dtype=np.int32)
