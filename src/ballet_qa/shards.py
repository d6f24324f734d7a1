"""A library in shards: ordinary indexes, each of some of the stories, searched as one.

Rows of the library are those of its shards, one shard after the other. What is asked of a shard is
a list of calls on its `Index`, done where the shard is: in this process, or on another machine
(cluster_serve.py). Word scores are by the statistics of all shards together, so that a library
answers as one index of all its stories would.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from heapq import merge
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ballet_qa.errors import IndexMismatchError, SilentError
from ballet_qa.generation import Manifest
from ballet_qa.home import Home
from ballet_qa.index import (
    WANTED,
    Described,
    Found,
    Index,
    Query,
    QuestionName,
    distinct,
    names_in,
    story_rows,
)
from ballet_qa.terms import Statistics
from ballet_qa.texts import Texts
from ballet_qa.types import FloatArray, IntArray, Passage, Section, Span, Story, StoryEntry

Call: TypeAlias = tuple[str, tuple[Any, ...]]
_Said = TypeVar("_Said")
# Answers to these are kept: short, and asked for again and again.
_KEPT = 20_000
_NOT_KEPT = {"found", "described", "leaves", "terms.holding"}
_NOT_KEPT |= {"texts.story", "texts.passages_of"}


class Shard(Protocol):
    """A shard, wherever it is."""

    @property
    def name(self) -> str:
        """Its name in the library."""

    @property
    def manifest(self) -> Manifest:
        """That of its generation."""

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """Begin these calls; what is given waits for their results.

        Then it raises SilentError when the shard does not answer.
        """


def perform(index: Index, calls: Sequence[Call]) -> list[Any]:
    """Do these calls on an index: ``("texts.title", (3,))`` is ``index.texts.title(3)``."""
    own = {"leaves": leaves}
    return [
        own[name](index, *given) if name in own else attrgetter(name)(index)(*given)
        for name, given in calls
    ]


class ShardHere:
    """A shard that is open in this process."""

    def __init__(self, name: str, index: Index) -> None:
        self.name, self.index, self.manifest = name, index, index.manifest

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """As `Shard.begin`, done when waited for."""
        return lambda: perform(self.index, calls)


def leaves(index: Index, rows: Sequence[int]) -> list[tuple[Call, Any]]:
    """What is looked at when these passages are shown and read: calls and their results."""
    calls: dict[Call, None] = {}
    for row in rows:
        (story,) = index.texts.stories_of(np.array([row])).tolist()
        first, last = index.texts.passage_rows(story)
        around = range(max(first, row - 1), min(last, row + 2))
        sentences = index.texts.sentence_rows(row)
        told: list[Call] = [("texts.passage", (near,)) for near in around]
        told += [("texts.sentences", (near,)) for near in around if near <= row]
        told += [(f"texts.{name}", (story,)) for name in ("title", "sections", "passage_rows")]
        told += [("texts.story_of", (row,)), ("texts.digest", (row,))]
        passage = index.texts.passage(row)
        told += [("texts.beside", (passage,)), ("texts.story_row", (passage.story_id,))]
        told += [("texts.passage_row", (passage.id,))]
        told += [("texts.sentence_rows", (row,)), ("sentence_vectors.block", sentences)]
        told += [("passage_vectors.block", (row, row + 1))]
        calls.update(dict.fromkeys(told))
    return list(zip(calls, perform(index, list(calls)), strict=True))


_silent: ContextVar[set[str] | None] = ContextVar("silent", default=None)


class _Shards:
    """Asks shards, and keeps what they said: a generation never changes."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        sizes = [(s.manifest.stories, s.manifest.passages, s.manifest.sentences) for s in shards]
        bounds = np.cumsum([(0, 0, 0), *sizes], axis=0)
        self.stories, self.passages, self.sentences = (bounds[:, kind] for kind in range(3))
        self._kept: OrderedDict[tuple[int, Call], Any] = OrderedDict()
        self._lock = Lock()

    def place(self, bounds: NDArray[np.int64], row: int) -> tuple[int, int]:
        """Which shard a row is of, and which row it is there."""
        number = int(np.searchsorted(bounds, row, side="right")) - 1
        return number, row - int(bounds[number])

    def routed(
        self, bounds: NDArray[np.int64], rows: IntArray
    ) -> dict[int, tuple[NDArray[np.intp], IntArray]]:
        """For each shard that has any of these rows: which of them, and which rows there."""
        numbers = np.searchsorted(bounds, rows, side="right") - 1
        return {
            number: (places, (rows[places] - bounds[number]).astype(np.int32))
            for number in np.unique(numbers).tolist()
            for places in [np.flatnonzero(numbers == number)]
        }

    def one(self, number: int, name: str, *given: Any) -> Any:
        """What one shard says. Raises SilentError."""
        said = self.each({number: [(name, given)]})
        if number not in said:
            raise self._silence(number)
        return said[number][0]

    def all(self, name: str, *given: Any) -> dict[int, Any]:
        """What each shard says that answers."""
        return self.each_its(dict.fromkeys(range(len(self.shards)), (name, given)))

    def each_its(self, calls: Mapping[int, Call]) -> dict[int, Any]:
        """As `each`, with one call a shard."""
        said = self.each({number: [call] for number, call in calls.items()})
        return {number: result for number, (result,) in said.items()}

    def each(self, calls: Mapping[int, Sequence[Call]]) -> dict[int, list[Any]]:
        """What each of these shards says to its calls, of those that answer.

        Raises SilentError when nobody is listening for which do not, or none does.
        """
        begun: dict[int, tuple[list[int], Callable[[], list[Any]]]] = {}
        for number, wanted in calls.items():
            if not self._is_silent(number):
                new = [place for place, call in enumerate(wanted) if not self._has(number, call)]
                ask = self.shards[number].begin([wanted[place] for place in new]) if new else list
                begun[number] = new, ask
        said: dict[int, list[Any]] = {}
        for number, (new, wait) in begun.items():
            try:
                fresh = dict(zip(new, wait(), strict=True))
            except SilentError:
                self._mark(number)
                continue
            for place, result in fresh.items():
                self.keep(number, calls[number][place], result)
            said[number] = [
                fresh[place] if place in fresh else self._recalled(number, call)
                for place, call in enumerate(calls[number])
            ]
        if calls and not said:
            raise self._silence(*calls)
        return said

    def keep(self, number: int, call: Call, said: Any) -> None:
        """Keep what a shard said."""
        if call[0] in _NOT_KEPT:
            return
        with self._lock:
            self._kept[number, call] = said
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def before(self, call: Call) -> dict[int, Any]:
        """What shards said to this call before."""
        with self._lock:
            numbers = [n for n in range(len(self.shards)) if (n, call) in self._kept]
            return {number: self._kept[number, call] for number in numbers}

    def story_set(self, name: str, word: str) -> frozenset[int]:
        """The rows of stories that the shards name."""
        said = self.all(name, word)
        return frozenset(
            int(row + self.stories[number]) for number, rows in said.items() for row in rows
        )

    def any_silent(self) -> bool:
        """Whether somebody is listening, and a shard was silent."""
        return bool(_silent.get())

    def _has(self, number: int, call: Call) -> bool:
        if call[0] in _NOT_KEPT:
            return False
        with self._lock:
            return (number, call) in self._kept

    def _recalled(self, number: int, call: Call) -> Any:
        with self._lock:
            if (number, call) in self._kept:
                self._kept.move_to_end((number, call))
                return self._kept[number, call]
        return self.one(number, *call)  # pushed out by others a moment ago

    def _is_silent(self, number: int) -> bool:
        return self.shards[number].name in (_silent.get() or ())

    def _mark(self, number: int) -> None:
        silent = _silent.get()
        if silent is None:
            raise self._silence(number)
        silent.add(self.shards[number].name)

    def _silence(self, *numbers: int) -> SilentError:
        names = ", ".join(self.shards[number].name for number in numbers)
        return SilentError(f"{names} does not answer; ask again in a moment")


class ShardedIndex:
    """Shards searched as one index: what `Index` has, with the rows of the library."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        """Raises IndexMismatchError unless all shards were built alike."""
        alike = {(s.manifest.encoder_fingerprint, str(s.manifest.settings)) for s in shards}
        if len(alike) != 1:
            raise IndexMismatchError("the shards were not built alike; build the library anew")
        self._shards = _Shards(shards)
        totals = (self._shards.stories, self._shards.passages, self._shards.sentences)
        stories, passages, sentences = (int(bounds[-1]) for bounds in totals)
        self.manifest = replace(
            shards[0].manifest,
            built=max(shard.manifest.built for shard in shards),
            stories=stories,
            passages=passages,
            sentences=sentences,
            files={},
        )
        self.texts = ShardedTexts(self._shards)
        self.terms = ShardedTerms(self._shards)
        self.passage_vectors = ShardedVectors(
            self._shards, "passage_vectors", self._shards.passages
        )
        self.sentence_vectors = ShardedVectors(
            self._shards, "sentence_vectors", self._shards.sentences
        )

    @classmethod
    def open(cls, home: Home) -> ShardedIndex:
        """Open every shard in this process. Raises as `Index.open` does."""
        return cls([ShardHere(entry.name, home.open(entry)) for entry in home.library().shards])

    @contextmanager
    def listening(self) -> Iterator[set[str]]:
        """The names of the shards that do not answer meanwhile; they are not asked again.

        Within another, it is that one's.
        """
        listening = _silent.get()
        silent = set() if listening is None else listening
        token = _silent.set(silent)
        try:
            yield silent
        finally:
            _silent.reset(token)

    def statistics(self, terms: Sequence[str]) -> Statistics:
        """As `Index.statistics`, of all shards together."""
        return Statistics.together(list(self._shards.all("statistics", tuple(terms)).values()))

    def story_rows(self, story_ids: Iterable[str]) -> list[int]:
        """As `Index.story_rows`."""
        return story_rows(self.texts, story_ids)

    def names_in(self, question: str) -> list[QuestionName]:
        """As `Index.names_in`."""
        return names_in(self.texts, self.terms, question)

    def candidates(self, query: Query, stories: Sequence[int] | None = None) -> IntArray:
        """As `Index.candidates`: the best that shards put forward, as many as one index does."""
        if stories is None:
            said = self._shards.all("found", query)
        else:
            routed = self._shards.routed(self._shards.stories, np.array(stories, dtype=np.int32))
            said = self._shards.each_its(
                {n: ("found", (query, rows.tolist())) for n, (_, rows) in routed.items()}
            )
        if not said:
            return np.zeros(0, dtype=np.int32)
        by_search = zip(*self._with_rows(said), WANTED, strict=True)
        return distinct(np.concatenate([_best_of(lists, most) for *lists, most in by_search]))

    def described(self, query: Query, rows: IntArray) -> Described:
        """As `Index.described`."""
        routed = self._shards.routed(self._shards.passages, rows)
        said: dict[int, Described] = self._shards.each_its(
            {number: ("described", (query, own)) for number, (_, own) in routed.items()}
        )
        if said.keys() != routed.keys():
            raise SilentError("a shard fell silent; ask again")
        stories = np.zeros(len(rows), dtype=np.int32)
        columns: dict[str, FloatArray] = {}
        for number, (places, _) in routed.items():
            stories[places] = said[number].stories + self._shards.stories[number]
            for name, held in said[number].columns.items():
                columns.setdefault(name, np.zeros(len(rows), dtype=np.float32))[places] = held
        return Described(stories, columns)

    def _with_rows(self, said: Mapping[int, Sequence[Found]]) -> Iterator[list[Found]]:
        for number, lists in said.items():
            first = int(self._shards.passages[number])
            yield [Found(found.rows + np.int32(first), found.scores) for found in lists]


class ShardedTexts:
    """What `Texts` has, of all shards."""

    def __init__(self, shards: _Shards) -> None:
        self._shards = shards
        self.story_count = int(shards.stories[-1])

    def fetch(self, rows: IntArray) -> None:
        """Have all at hand that is looked at when these passages are shown and read."""
        shards = self._shards
        routed = shards.routed(shards.passages, rows)
        said = shards.each_its(
            {number: ("leaves", (own.tolist(),)) for number, (_, own) in routed.items()}
        )
        digests: set[bytes] = set()
        for number, pairs in said.items():
            for call, result in pairs:
                shards.keep(number, call, result)
                if call[0] == "texts.digest":
                    digests.add(result)
        twins: list[Call] = [("texts.with_digest", (digest,)) for digest in sorted(digests)]
        shards.each(dict.fromkeys(range(len(shards.shards)), twins))

    def story_row(self, story_id: str) -> int | None:
        """As `Texts.story_row`. Raises SilentError where a silent shard may have it."""
        call: Call = "texts.story_row", (story_id,)
        said = self._shards.before(call)  # mostly it is known, and the others need not be asked
        if all(row is None for row in said.values()):
            said = self._shards.all("texts.story_row", story_id)
        for number, row in said.items():
            if row is not None:
                return int(row + self._shards.stories[number])
        if self._shards.any_silent():
            raise SilentError(f"whether there is a story {story_id!r} is not known; ask again")
        return None

    def story(self, row: int) -> Story:
        """As `Texts.story`."""
        return self._of_story(Texts.story, row)

    def sections(self, row: int) -> tuple[Section, ...]:
        """As `Texts.sections`."""
        return self._of_story(Texts.sections, row)

    def story_id(self, row: int) -> str:
        """As `Texts.story_id`."""
        return self._of_story(Texts.story_id, row)

    def title(self, row: int) -> str:
        """As `Texts.title`."""
        return self._of_story(Texts.title, row)

    def names_of(self, story_row: int) -> list[tuple[str, int]]:
        """As `Texts.names_of`."""
        return self._of_story(Texts.names_of, story_row)

    def passages_of(self, story_row: int) -> list[Passage]:
        """As `Texts.passages_of`."""
        return self._of_story(Texts.passages_of, story_row)

    def passage_rows(self, story_row: int) -> tuple[int, int]:
        """As `Texts.passage_rows`."""
        number, own = self._shards.place(self._shards.stories, story_row)
        start, end = self._shards.one(number, "texts.passage_rows", own)
        first = int(self._shards.passages[number])
        return start + first, end + first

    def passage(self, row: int) -> Passage:
        """As `Texts.passage`."""
        return self._of_passage(Texts.passage, row)

    def sentences(self, passage_row: int) -> list[Span]:
        """As `Texts.sentences`."""
        return self._of_passage(Texts.sentences, passage_row)

    def sentence_rows(self, passage_row: int) -> tuple[int, int]:
        """As `Texts.sentence_rows`."""
        number, own = self._shards.place(self._shards.passages, passage_row)
        start, end = self._shards.one(number, "texts.sentence_rows", own)
        first = int(self._shards.sentences[number])
        return start + first, end + first

    def passage_row(self, passage_id: str) -> int | None:
        """As `Texts.passage_row`."""
        story_row = self.story_row(passage_id.rpartition("#")[0])
        if story_row is None:
            return None
        number, _ = self._shards.place(self._shards.stories, story_row)
        row = self._shards.one(number, "texts.passage_row", passage_id)
        return None if row is None else int(row + self._shards.passages[number])

    def beside(self, passage: Passage) -> tuple[str, str]:
        """As `Texts.beside`."""
        story_row = self.story_row(passage.story_id)
        if story_row is None:
            return "", ""
        number, _ = self._shards.place(self._shards.stories, story_row)
        before, after = self._shards.one(number, "texts.beside", passage)
        return before, after

    def stories_of(self, rows: IntArray) -> IntArray:
        """As `Texts.stories_of`."""
        made = np.zeros(len(rows), dtype=np.int32)
        for place, row in enumerate(rows.tolist()):
            number, own = self._shards.place(self._shards.passages, row)
            made[place] = self._shards.one(number, "texts.story_of", own) + int(
                self._shards.stories[number]
            )
        return made

    def places(self, story_rows: IntArray) -> IntArray:
        """As `Texts.places`: by the file's id, then as the shard has it."""
        keys: list[tuple[str, int]] = [("", 0)] * len(story_rows)
        routed = self._shards.routed(self._shards.stories, story_rows)
        said = self._shards.each_its(
            {number: ("texts.keys", (tuple(own.tolist()),)) for number, (_, own) in routed.items()}
        )
        for number, (where, _) in routed.items():
            if number not in said:
                raise SilentError("a shard fell silent; ask again")
            for place, key in zip(where.tolist(), said[number], strict=True):
                keys[place] = key
        rank = {key: place for place, key in enumerate(sorted(set(keys)))}
        return np.array([rank[key] for key in keys], dtype=np.int32)

    def twins(self, row: int) -> list[tuple[int, int]]:
        """As `Texts.twins`."""
        said = self._shards.all("texts.with_digest", self._of_passage(Texts.digest, row))
        return [
            (int(twin + self._shards.passages[number]), int(story + self._shards.stories[number]))
            for number, pairs in said.items()
            for twin, story in pairs
        ]

    def stories_naming(self, word: str) -> frozenset[int]:
        """As `Texts.stories_naming`."""
        return self._shards.story_set("texts.stories_naming", word)

    def is_a_name_in(self, count: int, word: str) -> bool:
        """As `Texts.is_a_name_in`."""
        naming = self._shards.all("texts.stories_naming", word)
        return 0 < count == sum(map(len, naming.values()))

    def catalogue(self) -> list[StoryEntry]:
        """As `Texts.catalogue`."""
        said = self._shards.all("texts.filed_catalogue")
        return [entry for _, entry in merge(*said.values(), key=lambda filed: str(filed[0]))]

    def _of_story(self, said_by: Callable[[Texts, int], _Said], row: int) -> _Said:
        number, own = self._shards.place(self._shards.stories, row)
        said: _Said = self._shards.one(number, f"texts.{said_by.__name__}", own)
        return said

    def _of_passage(self, said_by: Callable[[Texts, int], _Said], row: int) -> _Said:
        number, own = self._shards.place(self._shards.passages, row)
        said: _Said = self._shards.one(number, f"texts.{said_by.__name__}", own)
        return said


class ShardedTerms:
    """What `TermIndex` has of stories, of all shards."""

    def __init__(self, shards: _Shards) -> None:
        self._shards = shards

    def stories_with(self, term: str) -> frozenset[int]:
        """As `TermIndex.stories_with`."""
        return self._shards.story_set("terms.stories_with", term)

    def stories_holding(self, term: str) -> int:
        """As `TermIndex.stories_holding`."""
        return sum(self._shards.all("terms.stories_holding", term).values())

    def holding(self, terms: Sequence[str], stories: IntArray) -> NDArray[np.bool_]:
        """As `TermIndex.holding`."""
        made = np.zeros((len(stories), len(terms)), dtype=np.bool_)
        routed = self._shards.routed(self._shards.stories, stories)
        for number, (places, own) in routed.items():
            said = self._shards.one(number, "terms.holding", tuple(terms), own)
            made[places] = said
        return made


class ShardedVectors:
    """What `VectorIndex` has to read rows by, of all shards."""

    def __init__(self, shards: _Shards, name: str, bounds: NDArray[np.int64]) -> None:
        self._shards, self._name, self._bounds = shards, name, bounds

    def rows(self, ids: IntArray) -> FloatArray:
        """As `VectorIndex.rows`."""
        return np.concatenate([self.block(row, row + 1) for row in ids.tolist()])

    def block(self, start: int, end: int) -> FloatArray:
        """As `VectorIndex.block`, of one shard's rows."""
        number, own = self._shards.place(self._bounds, start)
        block: FloatArray = self._shards.one(number, f"{self._name}.block", own, own + end - start)
        return block


AnyIndex: TypeAlias = Index | ShardedIndex
AnyTexts: TypeAlias = Texts | ShardedTexts


def heard(index: AnyIndex, ask: Callable[[], _Said]) -> tuple[_Said, tuple[str, ...]]:
    """What ``ask`` gives, and the names of the shards that were silent.

    It is asked again without a shard that falls silent midway. Raises SilentError when no shard
    answers, or what is asked cannot be known without those that do not.
    """
    with index.listening() as silent:
        while True:
            known = len(silent)
            try:
                return ask(), tuple(sorted(silent))
            except SilentError:
                if len(silent) == known:
                    raise


def open_index(index_dir: str | Path) -> AnyIndex:
    """The index in ``index_dir``, whole or in shards; a URL is of one in shards.

    Raises as `Index.open` does, and StorageError when the URL cannot be reached.
    """
    home = Home.at(index_dir)
    return ShardedIndex.open(home) if home.url or home.has_library() else Index.open(index_dir)


def _best_of(lists: Sequence[Found], most: int) -> IntArray:
    """The best of what several shards put forward: ``most``, or as many as one of them did."""
    rows = np.concatenate([found.rows for found in lists])
    scores = np.concatenate([found.scores for found in lists])
    order = np.lexsort((rows, -scores))[: max(most, *(len(found.rows) for found in lists))]
    return np.asarray(rows[order], dtype=np.int32)
