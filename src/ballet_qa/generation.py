"""Generations on disk: immutable folders, each describing itself, and a pointer to the live one.

    index/live                      the live generation's id and the sha256 of its manifest
    index/generations/<id>/         manifest.json and the files it names, never changed
    index/verified/<id>.json        which of these files were found right; may be missing

A generation is written beside the others, its files and folder are fsynced, and only then is the
pointer replaced by a rename. A crash at any moment leaves the pointer on a whole generation.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ballet_qa.errors import (
    IndexBusyError,
    IndexGoneError,
    IndexMismatchError,
    IndexMissingError,
)
from ballet_qa.settings import SETTINGS

FORMAT_VERSION = 3

LIVE = "live"
MANIFEST = "manifest.json"
_UNTOLD_NS = 100_000_000  # a file system tells times apart that are a few hundredths apart


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation says of itself.

    ``roots`` are the folders it was built from, ``files`` maps a name to its sha256.
    """

    format_version: int
    built: str
    encoder: str
    encoder_fingerprint: str
    dimension: int
    settings: dict[str, int]
    roots: list[str]
    stories: int
    passages: int
    sentences: int
    files: dict[str, str]


def splitting_settings() -> dict[str, int]:
    """The settings an index depends on: under others, the same stories give another index."""
    return {
        name: getattr(SETTINGS, name)
        for name in ("longest_passage_words", "wrapped_line_chars", "lone_passage_words")
    }


def live_generation(index_dir: Path) -> Path:
    """The folder of the live generation, its manifest whole.

    Raises IndexMissingError when there is none, IndexMismatchError when it cannot be trusted.
    """
    remedy = f"run: {build_command(index_dir)}"
    try:
        words = (index_dir / LIVE).read_text("utf-8").split()
    except FileNotFoundError:
        raise IndexMissingError(f"no index in {index_dir}; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IndexMismatchError(
            f"{index_dir / LIVE} cannot be read ({error}); {remedy}"
        ) from error
    generation_id, checksum = words if len(words) == 2 else (" ".join(words), "")
    folder = index_dir / "generations" / generation_id
    if not generation_id or Path(generation_id).name != generation_id or not folder.is_dir():
        raise IndexMismatchError(
            f"{index_dir / LIVE} names {generation_id!r}, which is not there; {remedy}"
        )
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise IndexMismatchError(f"{manifest} is missing; {remedy}")
    if sha256_of(manifest) != checksum:
        raise IndexMismatchError(f"{manifest} is damaged; {remedy}")
    return folder


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a generation, its format checked. Raises IndexMismatchError."""
    remedy = f"run: {build_command(folder.parent.parent)}"
    try:
        fields = json.loads((folder / MANIFEST).read_text("utf-8"))
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise IndexMismatchError(
                f"{folder} is of format {version}, this program reads {FORMAT_VERSION}; {remedy}"
            )
        return Manifest(**fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexMismatchError(
            f"{folder / MANIFEST} is missing or damaged ({error}); {remedy}"
        ) from error


def verify(folder: Path, manifest: Manifest, *, again: bool = True) -> None:
    """Check every file against the manifest. Raises IndexMismatchError naming the file.

    Unless ``again``, a file is not read that is the very one (by inode, size and time of change)
    whose checksum was found right before: a large index is then opened in no time.
    """
    remedy = f"run: {build_command(folder.parent.parent)}"
    present = {path.relative_to(folder).as_posix() for path in _files(folder)} - {MANIFEST}
    known = {} if again else _read_stamps(folder)
    stamps: dict[str, list[int | str]] = {}
    for name in sorted(manifest.files.keys() | present):
        if name not in present:
            raise IndexMismatchError(f"{folder / name} is missing; {remedy}")
        if name not in manifest.files:
            raise IndexMismatchError(f"{folder / name} does not belong to the index; {remedy}")
        stamps[name] = _stamp(folder / name, manifest.files[name])
        if known.get(name) != stamps[name] and sha256_of(folder / name) != manifest.files[name]:
            raise IndexMismatchError(f"{folder / name} is damaged; {remedy}")
    if known != stamps:
        _write_stamps(folder, stamps)


def _stamp(path: Path, checksum: str) -> list[int | str]:
    status = path.stat()
    # Not the time of the inode's change: a link from the next generation would move it.
    return [status.st_ino, status.st_size, status.st_mtime_ns, checksum]


def _stamps_file(folder: Path) -> Path:
    return folder.parent.parent / "verified" / f"{folder.name}.json"


def _read_stamps(folder: Path) -> dict[str, list[int | str]]:
    """The stamps of the files that were found right; none where they cannot be read."""
    try:
        stamps = json.loads(_stamps_file(folder).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _write_stamps(folder: Path, stamps: dict[str, list[int | str]]) -> None:
    """Keep them for the next opening, beside the generation; where nobody may write, do without.

    What was changed a moment ago may change again without its time telling: it is not kept.
    """
    settled = time.time_ns() - _UNTOLD_NS
    stamps = {name: stamp for name, stamp in stamps.items() if int(stamp[2]) < settled}
    file = _stamps_file(folder)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps(stamps), "utf-8")
        part.replace(file)


@contextmanager
def build_lock(index_dir: Path) -> Iterator[str | None]:
    """Hold the right to build; the system frees it when the holder dies, however it dies.

    Gives the process id of a build that died at it, None when the last one ended in order. Raises
    IndexBusyError, with the holder's process id, when somebody else has the right.
    """
    index_dir.mkdir(parents=True, exist_ok=True)
    with (index_dir / "build.lock").open("a+", encoding="utf-8") as lock:
        lock.seek(0)
        holder = lock.read().strip()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IndexBusyError(
                f"{index_dir} is being built by process {holder or '?'}; wait for it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield holder or None
        finally:
            lock.truncate(0)


def clear_remains(index_dir: Path) -> None:
    """Remove what dead builds left behind. Only for who has the right to build."""
    for abandoned in (index_dir / "generations").glob("*.part"):
        shutil.rmtree(abandoned)
    for stamps in (index_dir / "verified").glob("*"):
        if not (index_dir / "generations" / stamps.stem).is_dir():
            stamps.unlink(missing_ok=True)


def new_generation(index_dir: Path) -> Path:
    """An empty folder for the next generation."""
    generations = index_dir / "generations"
    generations.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    folder = generations / f"{stamp}-{secrets.token_hex(3)}.part"
    folder.mkdir()
    return folder


def publish(part: Path, manifest: Manifest, kept: str | None = None) -> Path:
    """Make a finished folder the live generation.

    Older ones than the last are removed, but for those that are held and the one named ``kept``.
    """
    index_dir = part.parent.parent
    (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True), "utf-8")
    for path in sorted(part.rglob("*")):
        _fsync(path)
    _fsync(part)
    folder = part.with_suffix("")
    part.rename(folder)
    # Their checksums were taken a moment ago, from what was written.
    _write_stamps(folder, {n: _stamp(folder / n, sha256) for n, sha256 in manifest.files.items()})
    _fsync(folder.parent)
    make_live(folder)
    remove_old(index_dir, folder.name, kept)
    return folder


def remove_old(index_dir: Path, *kept: str | None) -> None:
    """Remove the generations older than the last, but for those held and those of these names."""
    for old in finished_generations(index_dir)[SETTINGS.kept_generations :]:
        if old.name not in kept and not _is_held(old):
            shutil.rmtree(old)
            _stamps_file(old).unlink(missing_ok=True)


def make_live(folder: Path) -> None:
    """Point to this finished generation, by a rename."""
    pointer = folder.parent.parent / LIVE
    replace_file(pointer, f"{folder.name} {sha256_of(folder / MANIFEST)}\n")


def replace_file(path: Path, text: str) -> None:
    """Put this text in the place of a file, whole or not at all, whatever fails."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8")
    _fsync(part)
    part.replace(path)
    _fsync(path.parent)


def finished_generations(index_dir: Path) -> list[Path]:
    """The folders of all finished generations, the newest first."""
    generations = index_dir / "generations"
    if not generations.is_dir():
        return []
    finished = [path for path in generations.iterdir() if path.suffix != ".part" and path.is_dir()]
    return sorted(finished, key=lambda path: path.stat().st_mtime_ns, reverse=True)


class Hold:
    """Keeps a generation's files from being removed, until it is let go or its process ends."""

    def __init__(self, folder: Path) -> None:
        """Raises IndexGoneError when the generation is not there any more."""
        try:
            self._descriptor = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise IndexGoneError(f"{folder} is gone; open the index again") from error
        weakref.finalize(self, os.close, self._descriptor)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)


def is_held(index_dir: Path) -> bool:
    """Whether some reader has a generation of this index open."""
    return any(_is_held(folder) for folder in finished_generations(index_dir))


def _is_held(folder: Path) -> bool:
    """Whether some reader has it open."""
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def checksums(folder: Path, base: Path | None = None) -> dict[str, str]:
    """The sha256 of every file below ``folder``, by its path there.

    Those that are the very files of ``base``, a generation that was verified, are not read again.
    """
    known = {} if base is None else _read_stamps(base)
    sums = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        before = known.get(name)
        same = before is not None and before == _stamp(path, str(before[-1]))
        sums[name] = str(before[-1]) if before is not None and same else sha256_of(path)
    return sums


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_command(index_dir: Path) -> str:
    """The command that builds this index anew, for messages."""
    where = "" if str(index_dir) == SETTINGS.index else f" --index {index_dir}"
    return f"ballet-qa build --rebuild{where}"


def _files(folder: Path) -> list[Path]:
    """The files of a generation; tantivy leaves empty lock files wherever it opens an index."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not (path.name.startswith(".tantivy-") and path.suffix == ".lock")
    )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
