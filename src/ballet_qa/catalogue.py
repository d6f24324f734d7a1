"""The stories as a person looks through them: which fit, how long they are, who is in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ballet_qa.library import Library
from ballet_qa.names import people_named
from ballet_qa.shards import AnyTexts, heard
from ballet_qa.types import StoryEntry
from ballet_qa.words import fold, stem

_LEAF = 40  # stories shown at once; typing narrows them
_PEOPLE = 6
_PEOPLE_WITHIN = 20_000  # characters: who matters in a story is named early


@dataclass(frozen=True, slots=True)
class Book:
    """A story as the library view shows it; ``words`` counts them, ``people`` are named in it."""

    entry: StoryEntry
    words: int
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """The first of the ``found`` stories that fit ``wanted``, among all ``stories``.

    ``partial`` names the shards that did not answer; their stories are missing.
    """

    wanted: str
    books: tuple[Book, ...]
    found: int
    stories: int
    partial: tuple[str, ...] = ()


class Catalogue:
    """Looks through the stories of the live generation."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._known: dict[tuple[str, str], Book] = {}

    def leaf(self, wanted: str) -> Leaf:
        """The stories whose title, id or people hold every word of ``wanted``.

        Raises SilentError when no shard answers.
        """
        index = self._library.answerer().index
        leaf, silent = heard(index, lambda: self._leaf(index.texts, wanted))
        return replace(leaf, partial=silent)

    def _leaf(self, texts: AnyTexts, wanted: str) -> Leaf:
        entries = texts.catalogue()
        words = fold(wanted).split()
        named = [texts.stories_naming(stem(word)) for word in words]
        fitting = [
            entry
            for entry in entries
            if all(
                word in fold(f"{entry.title} {entry.id}") or texts.story_row(entry.id) in rows
                for word, rows in zip(words, named, strict=True)
            )
        ]
        books = tuple(self._book(texts, entry) for entry in fitting[:_LEAF])
        return Leaf(wanted, books, len(fitting), len(entries))

    def _book(self, texts: AnyTexts, entry: StoryEntry) -> Book:
        """A story with its words counted, once: novels are long."""
        key = (entry.id, entry.sha256)
        if key not in self._known:
            row = texts.story_row(entry.id)
            assert row is not None, f"{entry.id} is of another index"
            text = texts.story(row).text
            names = {stem(form) for form, count in texts.names_of(row) if count > 1}
            names |= {stem(word) for word in entry.title.split()}
            people = people_named(text[:_PEOPLE_WITHIN], names)[:_PEOPLE]
            self._known[key] = Book(entry, len(text.split()), tuple(people))
        return self._known[key]
