"""The child that reads files: it may hang, crash or run out of memory, and the build goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ballet_qa.build import build_index
from ballet_qa.errors import LoadError
from ballet_qa.extraction import Extractor, extracted, read_regular
from ballet_qa.retriever import Retriever
from ballet_qa.settings import SETTINGS
from conftest import WordEncoder


@pytest.fixture
def tale(tmp_path: Path) -> Path:
    path = tmp_path / "tale.txt"
    path.write_text("A swan.\n\nA lake.", "utf-8")
    return path


def test_the_child_reads_as_this_process_does(tale: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.7 nothing")
    odd = tmp_path / os.fsdecode(b"odd\xff.txt")
    odd.write_text("A pig.", "utf-8")
    with Extractor() as extractor:
        assert extractor.extract(tale) == extracted(tale)
        with pytest.raises(LoadError, match="damaged: no PDF"):
            extractor.extract(bad)
        assert extractor.extract(odd).shelf.parts[0].text == "A pig."


def test_a_killed_child_costs_one_file(tale: Path) -> None:
    with Extractor() as extractor:
        extractor.extract(tale)
        child = extractor._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)  # it cannot answer before it is killed
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(LoadError, match="its reader crashed"):
            extractor.extract(tale)
        assert extractor.extract(tale) == extracted(tale)


def test_a_child_that_hangs_is_stopped(tale: Path) -> None:
    with Extractor(seconds=0.5) as extractor:
        while True:
            try:
                extractor.extract(tale)  # starting may take longer than that
                break
            except LoadError:
                continue
        child = extractor._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(LoadError, match="takes longer than 0 s"):
            extractor.extract(tale)
        assert extractor._child is None


def test_a_line_beyond_any_story_is_refused_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"word " * 40_000_000)
    with Extractor() as extractor, pytest.raises(LoadError, match="a paragraph of 200 million"):
        extractor.extract(path)
    with path.open("ab") as file:
        file.truncate(SETTINGS.max_file_bytes + 1)
    with pytest.raises(LoadError, match="256 MB is over the limit of 256 MB"):
        read_regular(path)


def test_memory_for_one_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "wide.html"
    path.write_bytes(b"<p>a" * 5_000_000)
    with (
        Extractor(memory=600 * 2**20) as extractor,
        pytest.raises(LoadError, match="needs more memory to read than a story should"),
    ):
        extractor.extract(path)


def test_one_bad_file_costs_one_file(tmp_path: Path, words: WordEncoder) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "good.txt").write_text("A swan.", "utf-8")
    (shelf / "utf16.txt").write_bytes("A pig.".encode("utf-16"))
    (shelf / "nul.txt").write_bytes(b"A\x00B")
    (shelf / "wrong.txt").write_bytes(b"\xff\xfeA")
    (shelf / "e\u0301.txt").write_text("A wolf.", "utf-8")  # a name decomposed, as macOS has it
    (shelf / os.fsdecode(b"odd\xff.txt")).write_text("A straw.", "utf-8")
    (shelf / os.fsdecode(b"bad\xff.pdf")).write_text("A straw.", "utf-8")
    (shelf / "half.rtf").write_text("{\\rtf1 A swan \\u55357?\\u56832? \\u55357? ends.}", "utf-8")
    os.mkfifo(shelf / "pipe.txt")
    locked = shelf / "locked.epub"
    locked.write_bytes(b"PK\x03\x04")
    report = build_index(shelf, tmp_path / "index", encoder=words)
    assert report.added == ("e\u0301", "good", "half", "odd\ufffd", "utf16")
    assert (
        Retriever.load(tmp_path / "index", words).index.texts.story(2).text[:10]
        == "A swan 😀 \ufffd"
    )
    assert {Path(r.path).name: r.reason for r in report.refused} == {
        "nul.txt": "binary, not text; convert it to text first",
        "wrong.txt": "marked as utf-16-le, but is not; save it as UTF-8 (truncated data)",
        "bad\ufffd.pdf": "damaged: no PDF that can be opened (Failed to load document (PDFium: "
        "Data format error).)",
        "pipe.txt": "not a regular file",
        "locked.epub": "damaged: not a whole zip file (File is not a zip file)",
    }
    again = build_index(shelf, tmp_path / "index", encoder=words)
    assert sorted(again.refused, key=str) == sorted(report.refused, key=str)
    assert again.generation == report.generation
    (shelf / "nul.txt").write_text("A straw.", "utf-8")
    assert build_index(shelf, tmp_path / "index", encoder=words).added == ("nul",)
