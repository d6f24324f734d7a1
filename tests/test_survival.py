"""What may happen to an index, and must spoil no answer: a crash, a full disk, a swap, damage."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from ballet_qa.build import build_index
from ballet_qa.doctor import examine, repair
from ballet_qa.errors import IndexMismatchError, IndexMissingError
from ballet_qa.generation import LIVE, Hold, finished_generations, live_generation
from ballet_qa.index import Index
from ballet_qa.retriever import Retriever
from conftest import WordEncoder

TESTS = str(Path(__file__).parent)
BUILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from conftest import WordEncoder
from ballet_qa.build import build_index

# Every event by which a build touches a file of the index is a step.
WRITING = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "sqlite3.connect",
           "shutil.rmtree", "fcntl.flock"}
shelf, index = sys.argv[1:3]

def build(chosen):
    step = 0
    def count(event, arguments):
        nonlocal step
        if event in WRITING and (index in str(arguments) or event == "fcntl.flock"):
            step += 1
            if step == chosen:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    build_index(shelf, index, encoder=WordEncoder())
    return step
"""
# Forks for each line it reads, so that what takes long, importing, is done once.
EACH = """
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.write(1, b"%d\\n" % build(int(line)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        os.write(1, b"killed\\n")
"""


def run_build(script: str, shelf: Path, index: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, str(shelf), str(index), TESTS],
        capture_output=True,
        text=True,
        check=False,
    )


def answers(index: Path, words: WordEncoder) -> list[tuple[str, float]]:
    hits = Retriever.load(index, words).search("swan lake", 20)
    return [(hit.passage.text, hit.score) for hit in hits]


def test_a_kill_at_any_step_leaves_a_whole_index(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    index = tmp_path / "index"
    build_index(shelf, index, encoder=words)
    old = answers(index, words)
    (shelf / "pond.txt").write_text("A swan swam.\n\nStraw on the lake.\n", "utf-8")
    shutil.copytree(index, tmp_path / "kept")
    with subprocess.Popen(
        [sys.executable, "-c", BUILD + EACH, str(shelf), str(index), TESTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as builder:
        assert builder.stdin is not None
        assert builder.stdout is not None

        def build_until(step: int) -> str:
            assert builder.stdin is not None
            assert builder.stdout is not None
            builder.stdin.write(f"{step}\n")
            builder.stdin.flush()
            return builder.stdout.readline().strip()

        assert build_until(0).isdecimal()
        new = answers(index, words)
        assert new != old
        seen = set()
        for step in count(1):
            shutil.rmtree(index)
            shutil.copytree(tmp_path / "kept", index)
            if build_until(step) != "killed":  # it has fewer steps; their number may vary
                break
            found = answers(index, words)
            assert found in (old, new)
            seen.add(found == new)
            if step % 2:  # each of these takes longer than all that goes before
                assert build_index(shelf, index, encoder=words).stories == 2
                assert answers(index, words) == new
                assert not list(index.rglob("*.part"))
        assert step > 20
        assert seen == {True, False}
        builder.stdin.close()


def test_a_dead_builds_remains_are_told_of(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    done = run_build(BUILD + "build(10)", shelf, tmp_path / "index")
    assert done.returncode == -signal.SIGKILL
    left = (tmp_path / "index" / "build.lock").read_text()
    assert left.isdecimal()
    assert build_index(shelf, tmp_path / "index", encoder=words).left == left
    assert build_index(shelf, tmp_path / "index", encoder=words).left is None


def test_a_full_disk_leaves_the_index_alone(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    index = tmp_path / "index"
    build_index(shelf, index, encoder=words)
    old = answers(index, words)
    (shelf / "new.txt").write_text("\n\n".join(f"A wolf {n}." for n in range(20_000)), "utf-8")
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    )
    done = run_build(limit + BUILD + "build(0)", shelf, index)
    assert done.returncode != 0
    assert "StorageError" in done.stderr
    assert answers(index, words) == old
    assert not list(index.rglob("*.part"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_questions_from_many_threads_while_generations_swap(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    index = tmp_path / "index"
    build_index(shelf, index, encoder=words)
    wrong: list[object] = []
    done = threading.Event()
    texts = {"even": "A swan.\n\nA lake.", "odd": "A swan lake.\n\nNo lake."}

    def ask() -> None:
        while not done.is_set():
            try:
                retriever = Retriever.load(index, words)
                told = {hit.passage.text for hit in retriever.search("swan lake", 20)}
                stories = {s.text for s in map(retriever.index.texts.story, (0, 1))}
                if not all(any(text in story for story in stories) for text in told):
                    wrong.append(told)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(8):
        (shelf / "pond.txt").write_text(texts["even" if turn % 2 else "odd"], "utf-8")
        build_index(shelf, index, encoder=words)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_generation_stays_while_somebody_holds_it(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    index = tmp_path / "index"
    build_index(shelf, index, encoder=words)
    first = live_generation(index)
    opened = Retriever.load(index, words)
    for _ in range(3):
        build_index(shelf, index, encoder=words, rebuild=True)
        time.sleep(0.01)
    assert first.is_dir()
    with ThreadPoolExecutor(1) as pool:  # a new thread opens the texts anew
        assert pool.submit(opened.search, "swan lake").result()
    del opened
    gc.collect()
    build_index(shelf, index, encoder=words, rebuild=True)
    assert not first.exists()
    with pytest.raises(IndexMismatchError, match="is gone"):
        Hold(first)


def problems(index: Path, words: WordEncoder) -> list[str]:
    return [check.problem for check in examine(index, words) if check.problem is not None]


@pytest.fixture
def sound(shelf: Path, tmp_path: Path, words: WordEncoder) -> Path:
    (shelf / "pond.txt").write_text("Swan lake.\n\nThe wolf slept. The pig, too.\n", "utf-8")
    build_index(shelf, tmp_path / "index", encoder=words)
    return tmp_path / "index"


def test_a_sound_index_passes_every_check(sound: Path, words: WordEncoder) -> None:
    checks = list(examine(sound, words))
    assert [check.name for check in checks] == [
        "pointer and manifest",
        "checksums",
        "counts of stories, passages, sentences",
        "offsets against texts",
        "lengths of vectors",
        "a sample embedded again with words",
    ]
    assert problems(sound, words) == []
    with pytest.raises(IndexMissingError):
        list(examine(sound / "nothing", words))


def rewritten(index: Path, name: str, data: bytes) -> None:
    """Put another file into the live generation, with a checksum that fits."""
    folder = live_generation(index)
    (folder / name).write_bytes(data)
    manifest = folder / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["files"][name] = hashlib.sha256(data).hexdigest()
    manifest.write_text(json.dumps(fields))
    checksum = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (index / LIVE).write_text(f"{folder.name} {checksum}\n")


def test_what_checksums_cannot_tell_is_found(sound: Path, words: WordEncoder) -> None:
    folder = live_generation(sound)
    vectors = (folder / "passages.0.rows").read_bytes()
    rows = np.frombuffer(vectors, dtype="<f4").reshape(-1, words.dimension)
    rewritten(sound, "passages.0.rows", (rows * 2).tobytes())
    assert "has length 2.000, not 1; run: ballet-qa build --rebuild" in problems(sound, words)[0]
    rewritten(sound, "passages.0.rows", rows[::-1].tobytes())
    assert "is not what its words give" in problems(sound, words)[0]
    rewritten(sound, "passages.0.rows", vectors)
    assert problems(sound, words) == []
    texts = (folder / "texts.sqlite").read_bytes()
    for statement, problem in (
        ("UPDATE stories SET text = text || 'x' WHERE row = 0", "is not the one its hash"),
        ("UPDATE passages SET start = start + 1 WHERE row = 1", "does not hold the words"),
        ('UPDATE passages SET "end" = 9999 WHERE row = 1', "out of order or of its story"),
    ):
        copy = sound.parent / "copy.sqlite"
        copy.write_bytes(texts)
        with sqlite3.connect(copy) as database:
            database.execute(statement)
        database.close()
        rewritten(sound, "texts.sqlite", copy.read_bytes())
        assert any(problem in found for found in problems(sound, words)), statement
    rewritten(sound, "texts.sqlite", texts)
    starts = np.fromfile(folder / "sentence_start.column", "<i4")
    starts[2] = 0
    rewritten(sound, "sentence_start.column", starts.tobytes())
    assert any("is not in its passage" in found for found in problems(sound, words))


def test_repair_goes_back_and_then_in_step(sound: Path, shelf: Path, words: WordEncoder) -> None:
    (shelf / "late.txt").write_text("A late swan.", "utf-8")
    earlier = live_generation(sound)
    time.sleep(0.01)
    build_index(shelf, sound, encoder=words)
    expected = answers(sound, words)
    broken = live_generation(sound) / "passages.0.rows"
    broken.write_bytes(broken.read_bytes()[:-1])
    assert "is damaged" in problems(sound, words)[0]
    done = repair(sound, words)
    assert done.went_back_to == earlier.name
    assert done.built is not None
    assert done.built.added == ("late",)
    assert done.built.embedded == 1
    assert problems(sound, words) == []
    assert answers(sound, words) == expected


def test_repair_rebuilds_when_no_generation_is_whole(
    sound: Path, shelf: Path, words: WordEncoder
) -> None:
    expected = answers(sound, words)
    for folder in finished_generations(sound):
        (folder / "texts.sqlite").unlink(missing_ok=True)
    done = repair(sound, words)
    assert done.went_back_to is None
    assert answers(sound, words) == expected
    for folder in finished_generations(sound):
        (folder / "texts.sqlite").unlink(missing_ok=True)
    shutil.rmtree(shelf)
    with pytest.raises(IndexMismatchError, match=r"are not there; run: .* --stories DIR"):
        repair(sound, words)


def test_a_copied_story_and_a_renamed_one_are_not_embedded_again(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    (shelf / "pond.txt").rename(shelf / "lake.txt")
    shutil.copy(shelf / "old/barn.txt", shelf / "copy.txt")
    report = build_index(shelf, tmp_path / "index", encoder=words)
    assert report.renamed == (("pond", "lake"),)
    assert (report.added, report.removed, report.embedded) == (("copy",), (), 0)
    (shelf / "copy.txt").write_text("A new pig.\n\n" + "The wolf slept. " * 9 + "\n", "utf-8")
    before = build_index(shelf, tmp_path / "index", encoder=words)
    assert before.changed == ("copy",)
    text = (shelf / "copy.txt").read_text("utf-8")
    long = "Swan, lake and straw, one after the other, as long as a passage that stands alone "
    text += f"\n{long * 2}.\n\n{long * 3}.\n"
    (shelf / "copy.txt").write_text(text, "utf-8")
    assert build_index(shelf, tmp_path / "index", encoder=words).embedded == 2


def test_nothing_needs_the_network(shelf: Path, tmp_path: Path) -> None:
    script = (
        "import socket, sys\n"
        "def no(*_): raise RuntimeError('the network')\n"
        "def audit(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        raise RuntimeError(f'the network: {event} {arguments}')\n"
        "sys.addaudithook(audit)\n"
        "from ballet_qa import Answerer, build_index\n"
        "build_index(sys.argv[1], sys.argv[2])\n"
        "print(Answerer.load(sys.argv[2]).answer('Who slept?').status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(shelf), str(tmp_path / "index")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9"},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "answered"), done.stderr


def test_an_open_index_reads_old_files_or_new_never_both(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    opened = Index.open(tmp_path / "index")
    (shelf / "pond.txt").unlink()
    build_index(shelf, tmp_path / "index", encoder=words)
    assert opened.texts.story_count == 2
    assert Index.open(tmp_path / "index").texts.story_count == 1
