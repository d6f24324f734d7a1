"""The texts of a generation: stories, passages and names in SQLite, sentences in columns.

Rows count from 0 as stories were added, so a story's passages, and a passage's sentences, are each
one range of rows. Passages and sentences are kept as offsets; their words are cut from the story,
which makes it impossible for the two to disagree.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ballet_qa.columns import ColumnWriter, read_column
from ballet_qa.types import IntArray, Passage, Section, Span, Story, StoryEntry

_OPENING_CHARS = 160
_DATABASE = "texts.sqlite"
_COLUMNS = ("passage_story", "sentence_passage", "sentence_start", "sentence_end")

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
CREATE INDEX stories_by_file ON stories (file);
CREATE TABLE sections (
    story INTEGER NOT NULL, start INTEGER NOT NULL, title TEXT NOT NULL,
    PRIMARY KEY (story, start)
) WITHOUT ROWID;
CREATE TABLE passages (
    row INTEGER PRIMARY KEY, story INTEGER NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE INDEX passages_by_digest ON passages (digest);
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
    """Writes new texts, a story at a time."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        """Into ``folder``; ``base`` is the folder of texts that these begin as."""
        if base is not None:
            for name in (_DATABASE, *(f"{column}.column" for column in _COLUMNS)):
                shutil.copyfile(base / name, folder / name)
        self._db = sqlite3.connect(folder / _DATABASE)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        if base is None:
            self._db.executescript(_SCHEMA)
        self._columns = {name: ColumnWriter(folder / f"{name}.column", "<i4") for name in _COLUMNS}
        self._file = ""
        self.stories, self.passages = (
            self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("stories", "passages")
        )
        self.sentences = (folder / "sentence_start.column").stat().st_size // 4

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
        self._db.executemany(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (row, self.stories, p.id, p.number, p.start, p.end, _digest(p.text))
                for row, p in enumerate(passages, start=self.passages)
            ],
        )
        columns = self._columns
        columns["passage_story"].add([self.stories] * len(passages))
        for row, spans in enumerate(sentences, start=self.passages):
            columns["sentence_passage"].add([row] * len(spans))
            columns["sentence_start"].add([span.start for span in spans])
            columns["sentence_end"].add([span.end for span in spans])
            self.sentences += len(spans)
        self.passages += len(passages)
        self._db.executemany(
            "INSERT INTO names VALUES (?, ?, ?, ?)",
            [(word, self.stories, form, count) for word, (form, count) in sorted(names.items())],
        )
        self.stories += 1

    def abandon(self) -> None:
        """Close the files as they are, unfinished."""
        self._db.close()
        for column in self._columns.values():
            column.close()

    def close(self) -> None:
        """Commit and close the files."""
        self._db.commit()
        self.abandon()


class Texts:
    """Reads texts. Safe to use from several threads.

    ``passage_story`` and ``sentence_passage`` have the owner of each row; ``story_place`` where
    each story stands by its file's id, and in its file: the order that people see, and that breaks
    ties, whenever a story was added.
    """

    def __init__(self, folder: Path) -> None:
        self._uri = f"{(folder / _DATABASE).absolute().as_uri()}?mode=ro&immutable=1"
        self._local = threading.local()
        self.passage_story, self.sentence_passage, self._sentence_start, self._sentence_end = (
            read_column(folder / f"{name}.column", "<i4") for name in _COLUMNS
        )
        self._row_of = {
            story_id: row for row, story_id in self._query("SELECT row, id FROM stories")
        }
        ordered = [row for (row,) in self._query("SELECT row FROM stories ORDER BY file, row")]
        self.story_place = np.argsort(np.array(ordered, dtype=np.int64)).astype(np.int32)

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
        """Every story without its text, in the order that people see."""
        return [entry for _, entry in self.filed_catalogue()]

    def filed_catalogue(self) -> list[tuple[str, StoryEntry]]:
        """As `catalogue`, each with its file's id."""
        rows = self._query(
            """SELECT file, id, title, source, sha256, length, substr(text, 1, ?)
               FROM stories ORDER BY file, row""",
            _OPENING_CHARS,
        )
        return [(file, StoryEntry(*columns)) for file, *columns in rows]

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
        start, end = self.sentence_rows(passage_row)
        starts, ends = self._sentence_start[start:end], self._sentence_end[start:end]
        return [Span(*pair) for pair in zip(starts.tolist(), ends.tolist(), strict=True)]

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

    def fetch(self, rows: IntArray) -> None:
        """These passages will be looked at next: nothing to do where texts are at hand."""

    def stories_of(self, rows: IntArray) -> IntArray:
        """The rows of the stories that these passages are of."""
        return self.passage_story[rows]

    def story_of(self, row: int) -> int:
        """The row of the story that a passage is of."""
        return int(self.passage_story[row])

    def keys(self, story_rows: Sequence[int]) -> list[tuple[str, int]]:
        """What stories are put in order by: the id of the file, and where in it."""
        return [
            (str(file), row)
            for row in story_rows
            for (file,) in self._query("SELECT file FROM stories WHERE row = ?", row)
        ]

    def places(self, story_rows: IntArray) -> IntArray:
        """Numbers that rise in the order in which people see these stories."""
        return self.story_place[story_rows]

    def digest(self, row: int) -> bytes:
        """What passages with the same words (white space apart) have in common."""
        ((digest,),) = self._query("SELECT digest FROM passages WHERE row = ?", row)
        return bytes(digest)

    def with_digest(self, digest: bytes) -> list[tuple[int, int]]:
        """The passages with these words, as (row, row of the story), rising."""
        return self._query("SELECT row, story FROM passages WHERE digest = ? ORDER BY row", digest)

    def twins(self, row: int) -> list[tuple[int, int]]:
        """The passages with the same words, this one included, as (row, row of the story)."""
        return self.with_digest(self.digest(row))

    def holds_its_words(self, passage: Passage, row: int) -> bool:
        """Whether a passage's words are those that were put in."""
        return self.digest(row) == _digest(passage.text)

    def stories_naming(self, word: str) -> frozenset[int]:
        """The rows of the stories in which the stem ``word`` is a name."""
        return frozenset(
            row for (row,) in self._query("SELECT story FROM names WHERE word = ?", word)
        )

    def is_a_name_in(self, count: int, word: str) -> bool:
        """Whether the stem ``word`` is a name in just so many stories, one at least."""
        found = self._query("SELECT 1 FROM names WHERE word = ? LIMIT ?", word, count + 1)
        return 0 < len(found) == count

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
