"""Folders of files to stories: which files, under which ids and titles, and what was refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ballet_qa.errors import StoriesError
from ballet_qa.extraction import Extracted, extracted
from ballet_qa.loaders import LOADERS, without_halves
from ballet_qa.names import person_introduced
from ballet_qa.passages import paragraph_spans
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
class Noted:
    """A file of which something was left out, cut or mended, and what."""

    path: str
    note: str


@dataclass(frozen=True, slots=True)
class StoryFile:
    """A file that may hold stories.

    ``id`` is its story's; ``shelf_id``, which keeps the suffix, begins the ids of an anthology's.
    ``source`` is the path as text.
    """

    id: str
    path: Path
    shelf_id: str

    @property
    def source(self) -> str:
        """The path, where it is no text (in names of old systems) written as it can be."""
        return without_halves(str(self.path))


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below the roots: files in the order of their ids, and what is not for us.

    ``ignored`` counts files of other kinds by suffix.
    """

    files: tuple[StoryFile, ...]
    refused: tuple[Refused, ...]
    ignored: dict[str, int]


def find_story_files(roots: Sequence[str | Path]) -> Found:
    """The story files below ``roots``, sorted by id.

    An id is the path below its root without suffix. Where two files would share one, the later
    keep their suffix, then their root's name, so that ids depend on names alone. A link that leads
    out of its root is refused. Raises StoriesError when a root is missing or nothing readable lies
    below the roots.
    """
    found: dict[str, StoryFile] = {}
    refused: list[Refused] = []
    ignored: Counter[str] = Counter()
    for given in roots:
        root = Path(given)
        if not root.exists():
            raise StoriesError(f"no folder of stories at {root}; name one with --stories DIR")
        if root.is_file():
            if root.suffix.lower() not in LOADERS:
                raise StoriesError(f"{root} is not a story file; known are {known_suffixes()}")
            below, paths = root.parent, iter([root])
        else:
            below, paths = root, _walk(root, refused, ignored)
        for path in paths:
            _add(found, path, below)
    if not found:
        names = ", ".join(str(root) for root in roots) or "no folder"
        raise StoriesError(f"no stories in {names}; put {known_suffixes()} files there")
    files = tuple(sorted(found.values(), key=lambda file: file.id))
    return Found(files, tuple(refused), dict(sorted(ignored.items())))


def stories_of(file: StoryFile, found: Extracted) -> list[Story]:
    """The stories that a file holds, with their ids and titles."""
    stories = []
    taken: Counter[str] = Counter()
    shelf = found.shelf
    for part in shelf.parts:
        title = part.title or title_of(part.text) or without_halves(file.path.stem)
        story_id = file.id
        if shelf.is_anthology:
            name = re.sub(r"[\s/#]+", " ", title).strip()
            taken[name] += 1
            again = f" ({taken[name]})" if taken[name] > 1 else ""
            story_id = f"{file.shelf_id}/{name}{again}"
        told = Story(
            story_id, title, part.text, file.source, hash_of_text(part.text), part.sections
        )
        stories.append(told)
    return stories


def hash_of_text(text: str) -> str:
    """The sha256, in hex, that tells whether a story has changed."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_stories(file: StoryFile) -> list[Story]:
    """The stories in a file, read in this process. Raises LoadError; a build asks an Extractor."""
    return stories_of(file, extracted(file.path))


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


def _add(found: dict[str, StoryFile], path: Path, below: Path) -> None:
    relative = path.relative_to(below)
    short = relative.with_suffix("").as_posix()
    rooted = f"{below.resolve().name}/{relative.as_posix()}"
    whole = path.resolve().as_posix()
    names = [without_halves(name) for name in (short, relative.as_posix(), rooted, whole)]
    for place, story_id in enumerate(names):
        if story_id not in found:
            # No path of this root leads below a file, so what begins with its name is its own.
            shelves = {file.shelf_id for file in found.values()} if place else set()
            shelf_id = next(name for name in names[max(1, place) :] if name not in shelves)
            found[story_id] = StoryFile(story_id, path, shelf_id)
            return
        if found[story_id].path.resolve() == path.resolve():
            return  # the same file by way of two roots is one story


def _walk(root: Path, refused: list[Refused], ignored: Counter[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        refused.append(_refused(error.filename, f"cannot be read: {error.strerror or error}"))

    for folder, folders, files in os.walk(root, followlinks=False, onerror=unreadable):
        paths = [Path(folder, name) for name in folders if not name.startswith(".")]
        folders[:] = sorted(path.name for path in paths if _is_below(path, root, refused))
        for path in sorted(Path(folder, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() not in LOADERS:
                ignored[path.suffix.lower() or "no suffix"] += 1
            elif _is_below(path, root, refused):
                yield path


def _refused(path: object, reason: str) -> Refused:
    return Refused(without_halves(str(path)), reason)


def _is_below(path: Path, root: Path, refused: list[Refused]) -> bool:
    """Whether it is no link, or one that stays below the root, where its target is found, too."""
    if not path.is_symlink():
        return True
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        refused.append(_refused(path, "a link that leads nowhere"))
        return False
    if not target.is_relative_to(root.resolve()):
        refused.append(_refused(path, f"a link that leads out of {root}"))
        return False
    return True
