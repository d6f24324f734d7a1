"""Stories added while the page is served: files put beside the others, and the index built anew.

They go into a folder ``added`` below the first folder that the index was built from, under their
own names; nothing that is there is written over. A file that is refused is not kept. Only files
that visitors uploaded are taken, never another file of this machine, and they are removed from
where they were uploaded to.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from ballet_qa.build import BuildReport, Progress, build_index
from ballet_qa.corpus import known_suffixes
from ballet_qa.errors import StoriesError, UploadError
from ballet_qa.generation import live_generation, read_manifest
from ballet_qa.library import Library
from ballet_qa.loaders import LOADERS
from ballet_qa.uploads import harmless_name, remove_upload, uploaded

_FOLDER = "added"
_LONGEST_NAME = 150


@dataclass(frozen=True, slots=True)
class Added:
    """What has come of one file, or, while ``done`` is false, what is being done ``now``."""

    name: str
    kept: bool = False
    said: str = ""
    now: str = ""
    done: bool = True


class Shelf:
    """Adds files to the stories of a library."""

    def __init__(self, library: Library, uploads: Path) -> None:
        """``uploads`` is the folder of uploaded files; no other file is added."""
        self._library = library
        self._uploads = uploads
        self.suffixes = known_suffixes()

    def add(self, files: Sequence[str | Path]) -> Iterator[Added]:
        """Add files, one result for each, and what is being done in between.

        Afterwards they are not in the upload folder any more. Raises UploadError when there are
        none, or one is not in that folder (then none is added), StoriesError when there is no
        folder to put them in, and what `build_index` raises; then nothing is kept.
        """
        if not files:
            raise UploadError("there are no files to add; drop some on the field first")
        paths = [uploaded(file, self._uploads) for file in files]
        taken = [path for path in paths if path is not None]
        try:
            if len(taken) < len(paths):
                raise UploadError("one of these files was not uploaded here; upload it first")
            yield from self._add(taken)
        finally:
            for path in taken:
                remove_upload(path, self._uploads)

    def _add(self, files: Sequence[Path]) -> Iterator[Added]:
        roots = read_manifest(live_generation(self._library.index_dir)).roots
        shelf = next((Path(root) for root in roots if Path(root).is_dir()), None)
        if shelf is None:
            raise StoriesError(f"none of {', '.join(roots)} is a folder; build from one first")
        placed: dict[str, str] = {}
        try:
            for file in files:
                if file.suffix.lower() not in LOADERS:
                    known = f"not a story file; known are {self.suffixes}"
                    yield Added(file.name, said=known)
                    continue
                path = _placed(file, shelf / _FOLDER)
                if path is None:
                    yield Added(file.name, kept=True, said="it was there already")
                else:
                    placed[str(path)] = file.name
            if not placed:
                return
            report = yield from self._build(roots)
        except BaseException:
            for copied in placed:
                Path(copied).unlink(missing_ok=True)
            raise
        yield from _results(report, placed)

    def _build(self, roots: Sequence[str]) -> Generator[Added, None, BuildReport]:
        """Build in a thread of its own, and say how far it is."""
        told: SimpleQueue[Progress | BaseException | BuildReport] = SimpleQueue()
        encoder = self._library.answerer().retriever.encoder

        def build() -> None:
            try:
                told.put(
                    build_index(roots, self._library.index_dir, encoder=encoder, progress=told.put)
                )
            except BaseException as error:  # raised again where somebody listens
                told.put(error)

        thread = Thread(target=build, name="adding")
        thread.start()
        while True:
            one = told.get()
            if isinstance(one, Progress):
                yield Added("", now=f"{one.files_done} of {one.files} files read…", done=False)
                continue
            thread.join()
            if isinstance(one, BaseException):
                raise one
            return one


def _placed(file: Path, folder: Path) -> Path | None:
    """A copy of the file in the folder, under a name that is free; None when it is there."""
    folder.mkdir(exist_ok=True)
    name = harmless_name(file.stem)[:_LONGEST_NAME] or "story"
    suffix = file.suffix.lower()
    path = folder / f"{name}{suffix}"
    number = 1
    while path.exists():
        if path.read_bytes() == file.read_bytes():
            return None
        number += 1
        path = folder / f"{name} ({number}){suffix}"
    shutil.copyfile(file, path)
    return path


def _results(report: BuildReport, placed: dict[str, str]) -> Iterator[Added]:
    refused = {file.path: file.reason for file in report.refused}
    notes: dict[str, list[str]] = {}
    for note in report.noted:
        notes.setdefault(note.path, []).append(note.note)
    for path, name in placed.items():
        if path in refused:
            Path(path).unlink(missing_ok=True)
            yield Added(name, said=refused[path])
        else:
            yield Added(name, kept=True, said="; ".join(notes.get(path, ())))
