"""Building a library in shards: which file falls to which, each built by itself, joined as one.

A file falls to a shard by a hash of its id, so the stories of a file stay together, and a file that
comes or goes touches one shard. Each is built like any index (build.py); that is only read once the
library's manifest names its new generation, together with all the others'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ballet_qa.build import BuildReport, build_found, check_any
from ballet_qa.corpus import Found, StoryFile, find_story_files
from ballet_qa.errors import IndexMismatchError, StorageError, StoriesError
from ballet_qa.generation import build_lock
from ballet_qa.home import LIBRARY_VERSION, Home, LibraryManifest, ShardEntry
from ballet_qa.types import Encoder

SHARD = "shard-"  # what the name of every shard begins with


@dataclass(frozen=True, slots=True)
class Part:
    """A shard that was built: which generation, and what came of it."""

    entry: ShardEntry
    report: BuildReport


def build_library(
    stories: Sequence[str | Path] | str | Path,
    index_dir: str | Path,
    parts: int,
    *,
    encoder: Encoder | None = None,
) -> BuildReport:
    """Bring a library of so many shards in step with the stories, one shard after the other.

    Raises as `build.build_index`. Under another number of shards all is embedded anew.
    """
    roots = [stories] if isinstance(stories, (str, Path)) else list(stories)
    home = Home.at(index_dir)
    dealt = deal(find_story_files(roots), parts)
    check_home(home)
    with build_lock(home.folder):
        live = home.live()
        built = [
            build_part(home, name, part, roots, live.get(name), encoder)
            for name, part in dealt.items()
        ]
        return join(home, roots, live, built)


def check_home(home: Home) -> None:
    """Raise StorageError where there is an index that is whole."""
    if home.has_whole_index():
        raise StorageError(f"{home} holds an index that is whole; name another --index")


def deal(found: Found, parts: int) -> dict[str, Found]:
    """Which files fall to which of so many shards, by the shards' names.

    Raises StoriesError unless there is one shard at least. What was refused or ignored before a
    file was found is told with the first shard.
    """
    if parts < 1:
        raise StoriesError(f"a library cannot be in {parts} shards; give one at least")
    digits = len(str(parts - 1))
    names = [f"{SHARD}{number:0{digits}}-of-{parts}" for number in range(parts)]
    files: dict[str, list[StoryFile]] = {name: [] for name in names}
    for file in found.files:
        files[names[int(hashlib.sha256(file.id.encode()).hexdigest()[:15], 16) % parts]].append(
            file
        )
    dealt = {name: Found(tuple(held), (), {}) for name, held in files.items()}
    return dealt | {names[0]: replace(found, files=dealt[names[0]].files)}


def build_part(
    home: Home,
    name: str,
    found: Found,
    roots: Sequence[str | Path],
    before: ShardEntry | None,
    encoder: Encoder | None = None,
) -> Part:
    """Build one shard's next generation, and put it where the library is kept.

    ``before`` is the live one. Raises as `build.build_index`, but the shard may be empty.
    """
    folder = prepared(home, name, before)
    shard_of = "" if before is None else before.generation
    report = build_found(found, roots, folder, encoder=encoder, shard_of=shard_of)
    assert report.generation is not None
    return Part(home.keep(name, report.generation, before), report)


def prepared(home: Home, name: str, before: ShardEntry | None) -> Path:
    """The folder of a shard's index, its live generation at hand if it is sound."""
    folder = home.shard(name)
    folder.mkdir(parents=True, exist_ok=True)
    if before is not None:
        with suppress(IndexMismatchError):  # then it is built anew
            home.at_hand(before)
    return folder


def join(
    home: Home,
    roots: Sequence[str | Path],
    before: Mapping[str, ShardEntry],
    parts: Sequence[Part],
) -> BuildReport:
    """Make the generations that were built the live ones, all at once, and say what was built.

    Raises StoriesError, and leaves the library as it was, when there are no stories or two shards
    hold one of the same id; IndexBusyError when it is not as it was ``before`` they were built.
    """
    together = _together([part.report for part in parts])
    check_any(together.stories, together.refused)
    built = datetime.now(UTC).isoformat(timespec="seconds")
    shelves = [str(Path(root).resolve()) for root in roots]
    entries = tuple(part.entry for part in parts)
    home.publish(LibraryManifest(LIBRARY_VERSION, built, shelves, entries), before)
    return together


def _together(reports: Sequence[BuildReport]) -> BuildReport:
    ids: set[str] = set()
    for report in reports:
        held = {*report.added, *report.changed, *report.unchanged}
        held |= {new for _, new in report.renamed}
        twice = sorted(ids & held)
        if twice:
            raise StoriesError(f"two files have a story with the id {twice[0]!r}; rename one")
        ids |= held
    ignored: dict[str, int] = {}
    for report in reports:
        ignored |= report.ignored

    return BuildReport(
        added=tuple(sorted(i for report in reports for i in report.added)),
        changed=tuple(sorted(i for report in reports for i in report.changed)),
        renamed=tuple(sorted(pair for report in reports for pair in report.renamed)),
        removed=tuple(sorted(i for report in reports for i in report.removed)),
        unchanged=tuple(sorted(i for report in reports for i in report.unchanged)),
        refused=tuple(one for report in reports for one in report.refused),
        guessed=tuple(one for report in reports for one in report.guessed),
        noted=tuple(one for report in reports for one in report.noted),
        ignored=ignored,
        stories=sum(report.stories for report in reports),
        passages=sum(report.passages for report in reports),
        sentences=sum(report.sentences for report in reports),
        embedded=sum(report.embedded for report in reports),
        generation=None,
    )
