"""The texts of a generation in SQLite: stories, passages, sentences and names.

Rows count from 0 in the order of the files' ids and of the stories in each, so a story's passages,
and a passage's sentences, are each one range of rows. Passages and sentences are kept as offsets;
their words are cut from the story, which makes it impossible for the two to disagree.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ballet_qa.types import IntArray, Passage, Section, Span, Story, StoryEntry

_OPENING_CHARS = 160

_SCHEMA = """
CREATE TABLE files (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, loaders INTEGER NOT NULL,
    guess TEXT, notes TEXT NOT NULL
);
CREATE TABLE stories (
    row INTEGER PRIMARY KEY, file TEXT NOT NULL, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
    source TEXT NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL, length INTEGER NOT NULL
);
CREATE INDEX stories_by_sha256 ON stories (sha256);
CREATE TABLE sections (
    story INTEGER NOT NULL, start INTEGER NOT NULL, title TEXT NOT NULL,
    PRIMARY KEY (story, start)
) WITHOUT ROWID;
CREATE TABLE passages (
    row INTEGER PRIMARY KEY, story INTEGER NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE INDEX passages_by_digest ON passages (digest);
CREATE TABLE sentences (
    row INTEGER PRIMARY KEY, passage INTEGER NOT NULL, start INTEGER NOT NULL,
    "end" INTEGER NOT NULL
);
CREATE TABLE names (
    word TEXT NOT NULL, story INTEGER NOT NULL, form TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (word, story)
) WITHOUT ROWID;
CREATE INDEX names_by_story ON names (story);
"""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that was read: its id, its bytes' sha256, and by which version of the loaders.

    ``guess`` is a detected encoding, ``notes`` what the loader had to say.
    """

    id: str
    path: str
    sha256: str
    loaders: int
    guess: str | None
    notes: tuple[str, ...]


class TextsWriter:
    """Writes a new texts file, a story at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
        self._file = ""
        self.stories = self.passages = self.sentences = 0

    def add_file(self, file: FileEntry) -> None:
        """Add the file that the next stories come from."""
        self._file = file.id
        self._db.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
            (file.id, file.path, file.sha256, file.loaders, file.guess, json.dumps(file.notes)),
        )

    def add_story(
        self,
        story: Story,
        passages: Sequence[Passage],
        sentences: Sequence[Sequence[Span]],
        names: dict[str, tuple[str, int]],
    ) -> None:
        """Add a story, its passages and each passage's sentences as the next rows."""
        self._db.execute(
            "INSERT INTO stories VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.stories,
                self._file,
                story.id,
                story.title,
                story.source,
                story.sha256,
                story.text,
                len(story.text),
            ),
        )
        self._db.executemany(
            "INSERT INTO sections VALUES (?, ?, ?)",
            [(self.stories, section.start, section.title) for section in story.sections],
        )
        for passage, spans in zip(passages, sentences, strict=True):
            self._db.execute(
                "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    self.passages,
                    self.stories,
                    passage.id,
                    passage.number,
                    passage.start,
                    passage.end,
                    _digest(passage.text),
                ),
            )
            self._db.executemany(
                "INSERT INTO sentences VALUES (?, ?, ?, ?)",
                [
                    (self.sentences + number, self.passages, span.start, span.end)
                    for number, span in enumerate(spans)
                ],
            )
            self.passages += 1
            self.sentences += len(spans)
        self._db.executemany(
            "INSERT INTO names VALUES (?, ?, ?, ?)",
            [(word, self.stories, form, count) for word, (form, count) in sorted(names.items())],
        )
        self.stories += 1

    def abandon(self) -> None:
        """Close the file as it is, unfinished."""
        self._db.close()

    def close(self) -> None:
        """Commit and close the file."""
        self._db.commit()
        self._db.close()


class Texts:
    """Reads a texts file. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        self._local = threading.local()
        self.passage_story = self._column("SELECT story FROM passages ORDER BY row")
        self.sentence_passage = self._column("SELECT passage FROM sentences ORDER BY row")
        self._row_of = {
            story_id: row for row, story_id in self._query("SELECT row, id FROM stories")
        }

    @property
    def story_count(self) -> int:
        """How many stories there are."""
        return len(self._row_of)

    def story_row(self, story_id: str) -> int | None:
        """The row of a story, or None if there is none of that id."""
        return self._row_of.get(story_id)

    def story(self, row: int) -> Story:
        """A story with its text."""
        ((story_id, title, text, source, sha256),) = self._query(
            "SELECT id, title, text, source, sha256 FROM stories WHERE row = ?", row
        )
        return Story(story_id, title, text, source, sha256, self.sections(row))

    def sections(self, row: int) -> tuple[Section, ...]:
        """The chapters and scenes of a story, in order."""
        rows = self._query("SELECT start, title FROM sections WHERE story = ? ORDER BY start", row)
        return tuple(Section(start, title) for start, title in rows)

    def files(self) -> dict[str, FileEntry]:
        """Every file that was read, by its id."""
        rows = self._query("SELECT id, path, sha256, loaders, guess, notes FROM files")
        return {
            i: FileEntry(i, path, sha256, loaders, guess, tuple(json.loads(notes)))
            for i, path, sha256, loaders, guess, notes in rows
        }

    def stories_of_file(self, file_id: str) -> list[int]:
        """The rows of the stories that a file holds, in order."""
        rows = self._query("SELECT row FROM stories WHERE file = ? ORDER BY row", file_id)
        return [row for (row,) in rows]

    def stories_with_sha256(self, sha256: str) -> list[int]:
        """The rows of the stories with this text."""
        rows = self._query("SELECT row FROM stories WHERE sha256 = ? ORDER BY row", sha256)
        return [row for (row,) in rows]

    def catalogue(self) -> list[StoryEntry]:
        """Every story without its text, in the order of rows."""
        rows = self._query(
            """SELECT id, title, source, sha256, length, substr(text, 1, ?)
               FROM stories ORDER BY row""",
            _OPENING_CHARS,
        )
        return [StoryEntry(*columns) for columns in rows]

    def story_id(self, row: int) -> str:
        """A story's id."""
        ((story_id,),) = self._query("SELECT id FROM stories WHERE row = ?", row)
        return str(story_id)

    def title(self, row: int) -> str:
        """A story's title."""
        ((title,),) = self._query("SELECT title FROM stories WHERE row = ?", row)
        return str(title)

    def passage(self, row: int) -> Passage:
        """A passage with its words."""
        ((passage_id, story_id, number, start, end, text),) = self._query(
            """SELECT p.id, s.id, p.number, p.start, p."end",
                      substr(s.text, p.start + 1, p."end" - p.start)
               FROM passages p JOIN stories s ON s.row = p.story WHERE p.row = ?""",
            row,
        )
        return Passage(passage_id, story_id, number, start, end, text)

    def passages_of(self, story_row: int) -> list[Passage]:
        """The passages of a story, in order."""
        ((story_id, text),) = self._query("SELECT id, text FROM stories WHERE row = ?", story_row)
        rows = self._query(
            """SELECT id, number, start, "end" FROM passages WHERE row >= ? AND row < ?
               ORDER BY row""",
            *self.passage_rows(story_row),
        )
        return [
            Passage(passage_id, story_id, number, start, end, text[start:end])
            for passage_id, number, start, end in rows
        ]

    def beside(self, passage: Passage) -> tuple[str, str]:
        """The words before and after a passage in its story; empty where there are none."""
        row = self.passage_row(passage.id)
        if row is None:
            return "", ""
        first, last = self.passage_rows(int(self.passage_story[row]))
        return (
            self.passage(row - 1).text if row > first else "",
            self.passage(row + 1).text if row + 1 < last else "",
        )

    def passage_rows(self, story_row: int) -> tuple[int, int]:
        """The range of rows of a story's passages."""
        return _range_of(self.passage_story, story_row)

    def sentence_rows(self, passage_row: int) -> tuple[int, int]:
        """The range of rows of a passage's sentences."""
        return _range_of(self.sentence_passage, passage_row)

    def sentences(self, passage_row: int) -> list[Span]:
        """The sentences of a passage, in order."""
        rows = self._query(
            'SELECT start, "end" FROM sentences WHERE row >= ? AND row < ? ORDER BY row',
            *self.sentence_rows(passage_row),
        )
        return [Span(start, end) for start, end in rows]

    def passage_row(self, passage_id: str) -> int | None:
        """The row of a passage, found by way of its story's."""
        story_row = self.story_row(passage_id.rpartition("#")[0])
        if story_row is None:
            return None
        rows = self._query(
            "SELECT row FROM passages WHERE row >= ? AND row < ? AND id = ?",
            *self.passage_rows(story_row),
            passage_id,
        )
        return int(rows[0][0]) if rows else None

    def twins(self, row: int) -> list[int]:
        """The rows of the passages with the same words (white space apart), this one included."""
        rows = self._query(
            """SELECT t.row FROM passages p JOIN passages t ON t.digest = p.digest
               WHERE p.row = ? ORDER BY t.row""",
            row,
        )
        return [twin for (twin,) in rows]

    def holds_its_words(self, passage: Passage, row: int) -> bool:
        """Whether a passage's words are those that were put in."""
        ((digest,),) = self._query("SELECT digest FROM passages WHERE row = ?", row)
        return bool(digest == _digest(passage.text))

    def stories_naming(self, word: str) -> frozenset[int]:
        """The rows of the stories in which the stem ``word`` is a name."""
        return frozenset(
            row for (row,) in self._query("SELECT story FROM names WHERE word = ?", word)
        )

    def names_of(self, story_row: int) -> list[tuple[str, int]]:
        """The names in a story as written, with their counts, commonest first."""
        return [
            (str(form), int(count))
            for form, count in self._query(
                "SELECT form, count FROM names WHERE story = ? ORDER BY count DESC, word", story_row
            )
        ]

    def name_counts_of(self, story_row: int) -> dict[str, tuple[str, int]]:
        """The names in a story by their stems, each as written and how often."""
        rows = self._query("SELECT word, form, count FROM names WHERE story = ?", story_row)
        return {word: (form, count) for word, form, count in rows}

    def all_names(self) -> list[str]:
        """Every name word as it is written most, once for each stem."""
        return [
            form
            for (form,) in self._query("SELECT max(form) FROM names GROUP BY word ORDER BY word")
        ]

    def _column(self, statement: str) -> IntArray:
        return np.array([value for (value,) in self._query(statement)], dtype=np.int32)

    def _query(self, statement: str, *values: object) -> list[Any]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite3.connect(self._uri, uri=True)
        return connection.execute(statement, values).fetchall()


def _range_of(owners: IntArray, owner: int) -> tuple[int, int]:
    """Where ``owner`` stands in a rising column of owners."""
    start = int(np.searchsorted(owners, owner, side="left"))
    return start, int(np.searchsorted(owners, owner, side="right"))


def _digest(text: str) -> bytes:
    return hashlib.sha256(" ".join(text.split()).encode("utf-8")).digest()[:16]
