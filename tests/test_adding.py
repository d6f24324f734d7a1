"""Stories added while the page is served: kept or refused file by file, live afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ballet_qa.adding import Added, Shelf
from ballet_qa.build import build_index
from ballet_qa.errors import UploadError
from ballet_qa.library import Library
from conftest import WordEncoder


@pytest.fixture
def library(shelf: Path, tmp_path: Path, words: WordEncoder) -> Library:
    build_index(shelf, tmp_path / "index", encoder=words)
    return Library(tmp_path / "index", encoder=words)


def add(library: Library, tmp_path: Path, *files: Path) -> list[Added]:
    return [added for added in Shelf(library, tmp_path).add(files) if added.done]


def test_files_are_added_and_answer_at_once(library: Library, shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("A swan on straw.", "utf-8")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "song.mp3").write_bytes(b"la")
    told = add(library, tmp_path, *(tmp_path / n for n in ("new.txt", "bad.pdf", "song.mp3")))
    results = {one.name: (one.kept, bool(one.said)) for one in told}
    assert results == {
        "new.txt": (True, False),
        "bad.pdf": (False, True),
        "song.mp3": (False, True),
    }
    assert [path.name for path in (shelf / "added").iterdir()] == ["new.txt"]
    (hit,) = library.answerer().retriever.search("swan straw", 1)
    assert (hit.passage.story_id, hit.passage.text) == ("added/new", "A swan on straw.")


def test_nothing_is_written_over(library: Library, shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "pond.txt"
    file.write_text("Another pig.", "utf-8")
    assert [one.kept for one in add(library, tmp_path, file)] == [True]
    assert not file.exists()  # the upload is removed
    file.write_text("Another pig.", "utf-8")
    (again,) = add(library, tmp_path, file)
    assert (again.kept, again.said) == (True, "it was there already")
    file.write_text("A third pig.", "utf-8")
    assert [one.kept for one in add(library, tmp_path, file)] == [True]
    kept = {path.name: path.read_text("utf-8") for path in (shelf / "added").iterdir()}
    assert kept == {"pond.txt": "Another pig.", "pond (2).txt": "A third pig."}
    assert (shelf / "pond.txt").read_text("utf-8").startswith("Swan lake.")


def test_a_name_cannot_lead_out_of_the_shelf(library: Library, shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "..\\..\\evil: <b>.txt"
    file.write_text("A wolf.", "utf-8")
    add(library, tmp_path, file)
    (kept,) = (shelf / "added").iterdir()
    assert kept.parent == shelf / "added"
    assert not set(kept.name) & set("\\/:<>")


@pytest.mark.parametrize("where", ["absolute", "up", "link", "link to a folder", "pipe", "device"])
def test_only_uploaded_files_are_added(
    library: Library, shelf: Path, tmp_path: Path, where: str
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    honest = uploads / "new.txt"
    honest.write_text("A swan on straw.", "utf-8")
    outside = tmp_path / "outside.txt"
    outside.write_text("A secret.", "utf-8")
    (uploads / "link.txt").symlink_to(outside)
    (uploads / "folder").symlink_to(tmp_path)
    os.mkfifo(uploads / "pipe.txt")
    path = {
        "absolute": outside,
        "up": uploads / ".." / "outside.txt",
        "link": uploads / "link.txt",
        "link to a folder": uploads / "folder" / "outside.txt",
        "pipe": uploads / "pipe.txt",
        "device": Path("/dev/zero"),
    }[where]
    with pytest.raises(UploadError, match="not uploaded here"):
        list(Shelf(library, uploads).add([honest, path]))
    assert not (shelf / "added").exists()
    assert outside.read_text("utf-8") == "A secret."
    assert library.answerer().index.manifest.stories == 2


def test_no_files_is_said(library: Library, tmp_path: Path) -> None:
    with pytest.raises(UploadError, match="there are no files"):
        add(library, tmp_path)


def test_a_build_that_fails_keeps_nothing(
    library: Library, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ballet_qa.build.publish", full)
    file = tmp_path / "new.txt"
    file.write_text("A swan on straw.", "utf-8")
    with pytest.raises(Exception, match="space"):
        add(library, tmp_path, file)
    assert list((shelf / "added").iterdir()) == []
