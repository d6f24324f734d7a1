"""The page and the watcher move to a new generation by themselves."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ballet_qa.build import build_index
from ballet_qa.generation import LIVE
from ballet_qa.library import Library
from conftest import WordEncoder


def told(library: Library) -> list[str]:
    return [hit.passage.text for hit in library.answerer().retriever.search("swan lake", 9)]


def test_a_new_generation_is_taken_up_between_two_questions(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    library = Library(tmp_path / "index", encoder=words)
    before = library.answerer()
    assert library.answerer() is before
    (shelf / "pond.txt").write_text("A swan on another lake.", "utf-8")
    build_index(shelf, tmp_path / "index", encoder=words)
    assert before.retriever.search("swan lake", 1)[0].passage.text == "Swan lake."
    assert told(library)[0] == "A swan on another lake."
    assert library.answerer() is not before


def test_a_generation_that_cannot_be_opened_is_not_moved_to(
    shelf: Path, tmp_path: Path, words: WordEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    library = Library(tmp_path / "index", encoder=words)
    expected = told(library)
    (tmp_path / "index" / LIVE).rename(tmp_path / "kept")
    assert told(library) == expected
    (tmp_path / "index" / LIVE).write_text("nothing here\n")
    with caplog.at_level(logging.WARNING):
        assert told(library) == expected
        assert told(library) == expected
    assert len(caplog.records) == 2  # the pointer went, then it was wrong; not at every question
    assert "staying with the index of" in caplog.text
    (tmp_path / "index" / LIVE).unlink()
    (tmp_path / "kept").rename(tmp_path / "index" / LIVE)
    assert told(library) == expected


def test_threads_that_ask_during_swaps_get_answers_of_one_generation(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    library = Library(tmp_path / "index", encoder=words)
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answerer = library.answerer()
                texts = answerer.index.texts
                for hit in answerer.retriever.search("swan lake", 9):
                    row = texts.story_row(hit.passage.story_id)
                    if row is None or hit.passage.text not in texts.story(row).text:
                        wrong.append(hit)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        (shelf / "pond.txt").write_text(f"Swan lake {turn}.\n\nThe wolf slept.", "utf-8")
        build_index(shelf, tmp_path / "index", encoder=words)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert told(library)[0] == "Swan lake 5."


def test_watching_keeps_in_step(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "one.txt").write_text("A swan.", "utf-8")
    command = [sys.executable, "-m", "ballet_qa", "build", "--watch", "--stories", str(shelf)]
    with subprocess.Popen(
        [*command, "--index", str(shelf / "index")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A suite that runs in the background of a shell has it ignored, and its children would.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as watcher:
        assert watcher.stdout is not None
        lines = iter(watcher.stdout.readline, "")

        def until(word: str) -> str:
            return next(line for line in lines if word in line)

        assert "1 added" in until("stories:")
        until("watching")
        (shelf / "two.txt").write_text("A lake.", "utf-8")
        assert "1 added, 0 changed, 0 renamed, 0 removed, 1 unchanged" in until("stories:")
        (shelf / "two.txt").rename(shelf / "three.txt")
        assert "0 added, 0 changed, 1 renamed" in until("stories:")
        watcher.send_signal(signal.SIGINT)
        rest, _ = watcher.communicate(timeout=30)
    assert (rest, watcher.returncode) == ("", 0)
