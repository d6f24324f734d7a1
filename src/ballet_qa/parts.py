"""Building a library in shards: which file falls to which, each built by itself, joined as one.

A file falls to a shard by a hash of its id, so the stories of a file stay together, and a file that
comes or goes touches one shard. Each is built like any index (build.py); that is only read once the
library's manifest names its new generation, together with all the others'.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ballet_qa.build import BuildReport, build_found, check_any
from ballet_qa.corpus import Found, StoryFile, find_story_files
from ballet_qa.errors import StorageError, StoriesError
from ballet_qa.generation import LIVE, build_lock, sha256_of
from ballet_qa.shards import (
    LIBRARY,
    LIBRARY_VERSION,
    SHARDS,
    LibraryManifest,
    ShardEntry,
    read_library,
    write_library,
)
from ballet_qa.types import Encoder


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
    index_dir = Path(index_dir)
    found = find_story_files(roots)
    check_home(index_dir)
    with build_lock(index_dir):
        dealt = deal(found, parts)
        reports = {
            name: build_part(index_dir, name, part, roots, encoder) for name, part in dealt.items()
        }
        return join(index_dir, roots, reports)


def check_home(index_dir: Path) -> None:
    """Raise StorageError where there is an index that is whole."""
    if (index_dir / LIVE).exists():
        raise StorageError(f"{index_dir} holds an index that is whole; name another --index")


def deal(found: Found, parts: int) -> dict[str, Found]:
    """Which files fall to which of so many shards, by the shards' names.

    Raises StoriesError unless there is one shard at least. What was refused or ignored before a
    file was found is told with the first shard.
    """
    if parts < 1:
        raise StoriesError(f"a library cannot be in {parts} shards; give one at least")
    digits = len(str(parts - 1))
    names = [f"shard-{number:0{digits}}-of-{parts}" for number in range(parts)]
    files: dict[str, list[StoryFile]] = {name: [] for name in names}
    for file in found.files:
        files[names[int(hashlib.sha256(file.id.encode()).hexdigest()[:15], 16) % parts]].append(
            file
        )
    dealt = {name: Found(tuple(held), (), {}) for name, held in files.items()}
    return dealt | {names[0]: replace(found, files=dealt[names[0]].files)}


def build_part(
    index_dir: Path,
    name: str,
    found: Found,
    roots: Sequence[str | Path],
    encoder: Encoder | None = None,
) -> BuildReport:
    """Build one shard's next generation. Raises as `build.build_index`, but it may be empty."""
    folder = part_folder(index_dir, name)
    folder.mkdir(parents=True, exist_ok=True)
    return build_found(
        found, roots, folder, encoder=encoder, shard_of=live_generations(index_dir).get(name, "")
    )


def part_folder(index_dir: Path, name: str) -> Path:
    """The folder of one shard's index."""
    return index_dir / SHARDS / name


def live_generations(index_dir: Path) -> dict[str, str]:
    """The generation of each shard that is live, by the shards' names."""
    if not (index_dir / LIBRARY).is_file():
        return {}
    return {entry.name: entry.generation for entry in read_library(index_dir).shards}


def join(
    index_dir: Path, roots: Sequence[str | Path], reports: dict[str, BuildReport]
) -> BuildReport:
    """Make the generations that were built the live ones, all at once, and say what was built.

    Raises StoriesError, and leaves the library as it was, when there are no stories or two shards
    hold one of the same id. Shards that it had before, under another number, are removed.
    """
    together = _together(list(reports.values()))
    check_any(together.stories, together.refused)
    entries = []
    for name, report in reports.items():
        assert report.generation is not None
        folder = part_folder(index_dir, name) / "generations" / report.generation
        entries.append(ShardEntry(name, report.generation, sha256_of(folder / "manifest.json")))
    built = datetime.now(UTC).isoformat(timespec="seconds")
    shelves = [str(Path(root).resolve()) for root in roots]
    manifest = LibraryManifest(LIBRARY_VERSION, built, shelves, tuple(entries))
    if {entry.name: entry.generation for entry in entries} != live_generations(index_dir):
        write_library(index_dir, manifest)
    for folder in (index_dir / SHARDS).iterdir():
        if folder.name not in reports:
            shutil.rmtree(folder)
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
