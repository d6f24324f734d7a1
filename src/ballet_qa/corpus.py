"""Folders of files to stories: which files, under which ids and titles, and what was refused."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ballet_qa.errors import LoadError, StoriesError
from ballet_qa.loaders import LOADERS, load
from ballet_qa.names import person_introduced
from ballet_qa.passages import paragraph_spans
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Story

_LONGEST_HEADING = 80


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that could not become a story, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Guessed:
    """A file whose encoding was guessed."""

    path: str
    encoding: str


@dataclass(frozen=True, slots=True)
class StoryFile:
    """A file that may hold a story, and the id its story will have."""

    id: str
    path: Path


def find_story_files(roots: Sequence[str | Path]) -> list[StoryFile]:
    """The story files below ``roots``, sorted by id.

    An id is the path below its root without suffix. Where two files would share one, the later
    keep their suffix, then their root's name, so that ids depend on names alone.
    Raises StoriesError when a root is missing or nothing readable lies below the roots.
    """
    found: dict[str, StoryFile] = {}
    for given in roots:
        root = Path(given)
        if not root.exists():
            raise StoriesError(f"no folder of stories at {root}; name one with --stories DIR")
        if root.is_file():
            if root.suffix.lower() not in LOADERS:
                raise StoriesError(f"{root} is not a story file; known are {known_suffixes()}")
            below, paths = root.parent, iter([root])
        else:
            below, paths = root, _walk(root)
        for path in paths:
            relative = path.relative_to(below)
            short = relative.with_suffix("").as_posix()
            rooted = f"{below.resolve().name}/{relative.as_posix()}"
            for story_id in (short, relative.as_posix(), rooted, path.resolve().as_posix()):
                if story_id not in found:
                    found[story_id] = StoryFile(story_id, path)
                    break
                if found[story_id].path.resolve() == path.resolve():
                    break  # the same file by way of two roots is one story
    if not found:
        names = ", ".join(str(root) for root in roots) or "no folder"
        raise StoriesError(f"no stories in {names}; put {known_suffixes()} files there")
    return sorted(found.values(), key=lambda file: file.id)


def read_story(file: StoryFile) -> tuple[Story, str | None]:
    """The story in ``file``, and the encoding if it was guessed. Raises LoadError."""
    data = _read(file.path)
    loaded = load(file.path, data)
    title = loaded.title or title_of(loaded.text) or file.path.stem
    story = Story(
        id=file.id,
        title=title,
        text=loaded.text,
        source=str(file.path),
        sha256=hashlib.sha256(loaded.text.encode("utf-8")).hexdigest(),
    )
    return story, loaded.guess


def title_of(text: str) -> str | None:
    """A title for a text that names none: its heading line, else the person it introduces."""
    paragraphs = paragraph_spans(text)
    if len(paragraphs) > 1:
        first = text[paragraphs[0].start : paragraphs[0].end]
        if "\n" not in first and len(first) <= _LONGEST_HEADING and first[-1].isalnum():
            return first
    return person_introduced(text)


def known_suffixes() -> str:
    """The suffixes of files that can be read, for messages."""
    return ", ".join(sorted(LOADERS))


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix.lower() in LOADERS and not name.startswith("."):
                yield path


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LoadError("not a regular file")
        if status.st_size > SETTINGS.max_file_bytes:
            limit = SETTINGS.max_file_bytes // 2**20
            raise LoadError(f"{status.st_size // 2**20} MB is over the limit of {limit} MB")
        return path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot be read: {error.strerror or error}") from error
