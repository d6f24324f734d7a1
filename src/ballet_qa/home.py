"""Where a library in shards is kept: a folder that everybody sees, or a URL.

    HOME/library.json         the manifest: which generation of each shard is live
    HOME/shards/<name>/       each an ordinary index

A URL is any that fsspec knows, the way that Ray Data, pandas and others reach object stores.
Generations are brought from there to this machine before they are opened, and put there when they
are built; as they never change, what was brought once is good. The manifest is replaced as one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ballet_qa.columns import linked
from ballet_qa.errors import (
    IndexBusyError,
    IndexMismatchError,
    IndexMissingError,
    StorageError,
)
from ballet_qa.generation import (
    LIVE,
    MANIFEST,
    finished_generations,
    is_held,
    make_live,
    read_manifest,
    remove_old,
    replace_file,
    sha256_of,
)
from ballet_qa.index import Index
from ballet_qa.words import is_unicode

LIBRARY = "library.json"
SHARDS = "shards"
LIBRARY_VERSION = 1
_GENERATIONS = "generations"
_COMING = "coming"


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """Which generation of a shard is live, and the sha256 of its manifest."""

    name: str
    generation: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LibraryManifest:
    """What a library in shards says of itself: what it was built from, and its shards."""

    format_version: int
    built: str
    roots: list[str]
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """Where a library is kept, and the folder in which this machine has it.

    Without a ``url`` that folder is the place itself. What cannot be reached raises StorageError.
    """

    folder: Path
    url: str = ""

    @classmethod
    def at(cls, place: str | Path) -> Home:
        """The home at a path or a URL. Raises StorageError when its name is not UTF-8."""
        if not is_unicode(str(place)):
            raise StorageError(f"the name of {place} is not UTF-8; name another --index")
        if not is_url(place):
            return cls(Path(place).resolve())
        url = str(place).rstrip("/")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(cache / "ballet_qa" / hashlib.sha256(url.encode()).hexdigest()[:16], url)

    def __str__(self) -> str:
        """The place as a person knows it."""
        return self.url or str(self.folder)

    def __reduce__(self) -> tuple[Callable[[str], Home], tuple[str]]:
        """Sent to another machine, it is the home with that machine's folder."""
        return Home.at, (str(self),)

    def has_library(self) -> bool:
        """Whether there is a manifest; it is brought here."""
        self._bring_manifest()
        return (self.folder / LIBRARY).is_file()

    def has_whole_index(self) -> bool:
        """Whether an index that is whole is kept there instead."""
        if not self.url:
            return (self.folder / LIVE).exists()
        with self._remote() as (files, root):
            return bool(files.exists(f"{root}/{LIVE}"))

    def library(self) -> LibraryManifest:
        """The live manifest. Raises IndexMissingError, or IndexMismatchError for one not sound."""
        path, remedy = self.folder / LIBRARY, f"run: {self._build_command}"
        if not self.has_library():
            raise IndexMissingError(f"no library in {self}; {remedy}")
        try:
            fields = json.loads(path.read_text("utf-8"))
            if fields["format_version"] != LIBRARY_VERSION:
                raise IndexMismatchError(
                    f"the library in {self} is of format {fields['format_version']}, this program "
                    f"reads {LIBRARY_VERSION}; {remedy}"
                )
            entries = tuple(ShardEntry(**entry) for entry in fields.pop("shards"))
            for name in (name for entry in entries for name in (entry.name, entry.generation)):
                if not _stays_within(name) or len(PurePosixPath(name).parts) != 1:
                    raise ValueError(f"{name!r} is no name of a folder")
            return LibraryManifest(**fields, shards=entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexMismatchError(
                f"the {LIBRARY} of {self} is damaged ({error}); {remedy}"
            ) from error

    def live(self) -> dict[str, ShardEntry]:
        """The live shards by their names; none where there is no sound library yet."""
        with suppress(IndexMissingError, IndexMismatchError):
            return {entry.name: entry for entry in self.library().shards}
        return {}

    def shard(self, name: str) -> Path:
        """The folder of one shard's index."""
        return self.folder / SHARDS / name

    def encoder(self) -> str:
        """The encoder that the library was built with. Raises IndexMismatchError."""
        entry = self.library().shards[0]
        if not self.url:
            return read_manifest(self.bring(entry)).encoder
        with self._remote() as (files, root):
            return str(json.loads(self._told(files, root, entry))["encoder"])

    def open(self, entry: ShardEntry) -> Index:
        """Open this generation of a shard, brought here first. Raises IndexMismatchError."""
        try:
            return Index.of_generation(self.bring(entry))
        except IndexMismatchError:
            if not self.url:
                raise
            # What was brought may have been damaged here: once more, all of it.
            shutil.rmtree(self._generation(entry), ignore_errors=True)
            return Index.of_generation(self.bring(entry, afresh=True))

    def bring(self, entry: ShardEntry, *, afresh: bool = False) -> Path:
        """The folder of this generation here; its manifest is the one that the library names.

        Files that an older generation here has, too, are not brought again, unless ``afresh``.
        Raises IndexMismatchError.
        """
        folder = self._generation(entry)
        if self.url:
            with self._bringing(entry.name) as part:
                if not folder.is_dir():
                    self._fetch(entry, part, {} if afresh else self._files_here(entry.name))
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    part.rename(folder)
            remove_old(self.shard(entry.name), folder.name)
        manifest = folder / MANIFEST
        if not manifest.is_file() or sha256_of(manifest) != entry.sha256:
            raise IndexMismatchError(
                f"{manifest} is missing or damaged; run: {self._build_command}"
            )
        return folder

    def at_hand(self, entry: ShardEntry) -> Path:
        """The folder of a shard's index in which this generation is live. Raises as `bring`."""
        generation = self.bring(entry)
        if self.url:
            make_live(generation)
        return self.shard(entry.name)

    def keep(self, name: str, generation: str, before: ShardEntry | None) -> ShardEntry:
        """Put a generation that was built here where the library is kept.

        ``before`` is the live one: files that it has, too, are copied there, not sent.
        """
        folder = self.shard(name) / _GENERATIONS / generation
        entry = ShardEntry(name, generation, sha256_of(folder / MANIFEST))
        if not self.url or entry == before:
            return entry
        with self._remote() as (files, root):
            known = {}
            if before is not None and self._generation(before).is_dir():
                sums = read_manifest(self._generation(before)).files
                known = {sha256: _there(root, before, file) for file, sha256 in sums.items()}
            for file, sha256 in read_manifest(folder).files.items():
                target = _there(root, entry, file)
                files.makedirs(target.rpartition("/")[0], exist_ok=True)
                if sha256 in known:
                    files.cp_file(known[sha256], target)
                else:
                    files.put_file(str(folder / file), target)
            files.put_file(str(folder / MANIFEST), _there(root, entry, MANIFEST))
        return entry

    def publish(self, manifest: LibraryManifest, before: Mapping[str, ShardEntry]) -> None:
        """Make this the live manifest, all shards at once; what none needs any more is removed.

        ``before`` are the shards that were live when the build began; they stay until the next, for
        those who still ask them, as a generation does. Raises IndexBusyError, and leaves all as it
        is, when others are now.
        """
        told = json.dumps(asdict(manifest), indent=1, sort_keys=True)
        live = {entry.name: entry for entry in manifest.shards}
        if self.live() != before:
            raise IndexBusyError(f"{self} was built by somebody else meanwhile; build it again")
        if self.url:
            with self._remote() as (files, root):
                files.makedirs(root, exist_ok=True)
                part = f"{root}/{LIBRARY}.{secrets.token_hex(4)}.part"
                files.pipe_file(part, told.encode())
                files.mv(part, f"{root}/{LIBRARY}")
                _clear(files, f"{root}/{SHARDS}", [live, before])
            self._bring_manifest()
        elif live != before:
            replace_file(self.folder / LIBRARY, told)
        for folder in (self.folder / SHARDS).glob("*"):  # none, where others built
            if folder.name not in {*live, *before} and not is_held(folder):
                shutil.rmtree(folder)

    @contextmanager
    def staging(self) -> Iterator[str]:
        """A folder beside the shards for what a build has under way: its path or URL."""
        place = f"{self}/staging"
        _remove(place)
        try:
            yield place
        finally:
            _remove(place)

    @property
    def _build_command(self) -> str:
        return f"ballet-qa build --shards N --index {self}"

    @contextmanager
    def _remote(self) -> Iterator[tuple[Any, str]]:
        """The file system of the URL, and the path there."""
        with _reaching(self.url):
            yield file_system(self.url)

    def _generation(self, entry: ShardEntry) -> Path:
        return self.shard(entry.name) / _GENERATIONS / entry.generation

    def _bring_manifest(self) -> None:
        """Have here the manifest that is there now."""
        if not self.url:
            return
        here = self.folder / LIBRARY
        with self._remote() as (files, root):
            try:
                told = files.cat_file(f"{root}/{LIBRARY}").decode()
            except FileNotFoundError:
                here.unlink(missing_ok=True)
                return
        with self._alone(LIBRARY):
            if not here.is_file() or here.read_text("utf-8") != told:
                replace_file(here, told)

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Where something of this name is brought to, by one process or thread at a time."""
        coming = self.folder / _COMING
        coming.mkdir(parents=True, exist_ok=True)
        with (coming / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield coming / name

    @contextmanager
    def _bringing(self, name: str) -> Iterator[Path]:
        """A new folder to bring a generation of a shard to."""
        with self._alone(name) as part:
            shutil.rmtree(part, ignore_errors=True)  # of one that died
            part.mkdir()
            try:
                yield part
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def _files_here(self, name: str) -> dict[str, Path]:
        """The files of the shard's generations that are here, by their sha256."""
        return {
            sha256: folder / file
            for folder in finished_generations(self.shard(name))
            for file, sha256 in read_manifest(folder).files.items()
        }

    def _fetch(self, entry: ShardEntry, part: Path, known: Mapping[str, Path]) -> None:
        with self._remote() as (files, root):
            told = self._told(files, root, entry)
            (part / MANIFEST).write_bytes(told)
            for file, sha256 in json.loads(told)["files"].items():
                if not _stays_within(file):
                    raise IndexMismatchError(
                        f"the manifest of {entry.name} in {self} names {file!r}, which leads "
                        f"elsewhere; run: {self._build_command}"
                    )
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                if sha256 in known:
                    linked(known[sha256], part / file)
                else:
                    files.get_file(_there(root, entry, file), str(part / file))

    def _told(self, files: Any, root: str, entry: ShardEntry) -> bytes:
        """The manifest of a generation at the URL, as it is there."""
        told: bytes = files.cat_file(_there(root, entry, MANIFEST))
        if hashlib.sha256(told).hexdigest() != entry.sha256:
            raise IndexMismatchError(
                f"the manifest of {entry.name} in {self} is damaged; run: {self._build_command}"
            )
        return told


def is_url(place: str | Path) -> bool:
    """Whether a place is given by a URL."""
    return isinstance(place, str) and "://" in place


def file_system(place: str) -> tuple[Any, str]:
    """The file system (fsspec's) of a path or URL, and the path there."""
    from fsspec.core import url_to_fs

    files, path = url_to_fs(place)
    files.invalidate_cache()
    return files, str(path)


def _remove(place: str) -> None:
    with _reaching(place):
        files, path = file_system(place)
        if files.exists(path):
            files.rm(path, recursive=True)


@contextmanager
def _reaching(place: str) -> Iterator[None]:
    """Say what stood in the way of reaching a place."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise StorageError(
            f"{place} cannot be reached ({str(error) or type(error).__name__}); "
            "name another --index, or see that the URL, its package and its rights are right"
        ) from error


def _there(root: str, entry: ShardEntry, file: str) -> str:
    return f"{root}/{SHARDS}/{entry.name}/{_GENERATIONS}/{entry.generation}/{file}"


def _clear(files: Any, shards: str, kept: Sequence[Mapping[str, ShardEntry]]) -> None:
    """Remove the shards, and their generations, that are not among these."""
    for shard in files.ls(shards, detail=False):
        held = {live[name] for live in kept if (name := PurePosixPath(shard).name) in live}
        if not held:
            files.rm(shard, recursive=True)
            continue
        for generation in files.ls(f"{shard}/{_GENERATIONS}", detail=False):
            if PurePosixPath(generation).name not in {entry.generation for entry in held}:
                files.rm(generation, recursive=True)


def _stays_within(name: str) -> bool:
    """Whether a path stays below where it is used."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and not {"..", "\\"} & {*path.parts, *name}
