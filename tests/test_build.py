from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ballet_qa import generation
from ballet_qa.build import build_index
from ballet_qa.catalogue import Catalogue
from ballet_qa.errors import (
    IndexBusyError,
    IndexMismatchError,
    IndexMissingError,
    StoriesError,
    UnknownStoryError,
)
from ballet_qa.generation import build_lock, live_generation
from ballet_qa.index import Index
from ballet_qa.library import Library
from ballet_qa.matches import find_matches
from ballet_qa.retriever import Retriever
from conftest import WordEncoder


def contents(index: Index) -> list[tuple[str, list[str], np.ndarray, np.ndarray]]:
    """Everything an index holds, story by story."""
    texts = index.texts
    found = []
    for row in np.argsort(texts.story_place).tolist():
        start, end = texts.passage_rows(row)
        first, last = texts.sentence_rows(start)[0], texts.sentence_rows(end - 1)[1]
        found.append(
            (
                texts.story(row).id,
                [passage.text for passage in texts.passages_of(row)],
                index.passage_vectors.block(start, end),
                index.sentence_vectors.block(first, last),
            )
        )
    return found


def assert_same(one: Index, other: Index) -> None:
    for mine, yours in zip(contents(one), contents(other), strict=True):
        assert mine[:2] == yours[:2]
        np.testing.assert_array_equal(mine[2], yours[2])
        np.testing.assert_array_equal(mine[3], yours[3])


def test_a_build_says_what_it_did(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    (shelf / "bad.txt").write_bytes(b"\x00\x01\x02")
    report = build_index(shelf, tmp_path / "index", encoder=words)
    assert report.added == ("old/barn", "pond")
    assert (report.changed, report.removed, report.unchanged) == ((), (), ())
    assert [(Path(r.path).name, r.reason) for r in report.refused] == [
        ("bad.txt", "binary, not text; convert it to text first")
    ]
    assert (report.stories, report.passages, report.sentences, report.embedded) == (2, 5, 5, 5)


def test_texts_and_vectors_belong_together(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    index = Index.open(tmp_path / "index")
    assert [p.id for p in index.texts.passages_of(0)] == ["old/barn#1", "old/barn#2", "old/barn#3"]
    assert [p.text for p in index.texts.passages_of(1)] == ["Swan lake.", "The wolf slept."]
    for row in range(index.texts.story_count):
        story = index.texts.story(row)
        for passage in index.texts.passages_of(row):
            assert story.text[passage.start : passage.end] == passage.text
            passage_row = index.texts.passage_row(passage.id)
            assert passage_row is not None
            assert index.texts.passage(passage_row) == passage
            start, end = index.texts.sentence_rows(passage_row)
            spans = index.texts.sentences(passage_row)
            told = [story.text[span.start : span.end] for span in spans]
            np.testing.assert_array_equal(
                index.sentence_vectors.block(start, end), words.encode_passages(told)
            )


def test_a_short_passage_is_embedded_with_its_neighbours(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    index = Index.open(tmp_path / "index")
    expected = words.encode_passages(["Swan lake.\nThe wolf slept."] * 2)
    np.testing.assert_array_equal(index.passage_vectors.block(3, 5), expected)


def test_only_new_text_is_embedded(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    (shelf / "pond.txt").write_text("A swan.\n\nA pig.\n\nStraw.\n", "utf-8")
    (shelf / "new.md").write_text("# Pig\n\nA pig on a lake.\n", "utf-8")
    report = build_index(shelf, tmp_path / "index", encoder=words)
    assert (report.added, report.changed, report.removed) == (("new",), ("pond",), ())
    assert (report.unchanged, report.embedded) == (("old/barn",), 5)
    again = build_index(shelf, tmp_path / "index", encoder=words)
    assert (again.unchanged, again.embedded) == (("new", "old/barn", "pond"), 0)
    assert (again.generation, again.passages) == (report.generation, report.passages)
    (shelf / "pond.txt").unlink()
    dry = build_index(shelf, tmp_path / "index", dry_run=True)
    assert (dry.removed, dry.generation) == (("pond",), None)
    report = build_index(shelf, tmp_path / "index", encoder=words)
    assert (report.removed, report.embedded) == (("pond",), 0)
    with pytest.raises(UnknownStoryError, match="no story 'pond' in this index"):
        Retriever.load(tmp_path / "index", words).search("swan", stories=["pond"])


steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "rename"]),
        st.sampled_from("abcd"),
        st.lists(st.sampled_from(WordEncoder.vocabulary), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_any_history_gives_the_index_of_a_build_from_scratch(
    steps: list[tuple[str, str, list[str]]],
    words: WordEncoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("history")
    shelf = folder / "shelf"
    shelf.mkdir()
    (shelf / "always.txt").write_text("The wolf.", "utf-8")
    for action, name, text in steps:
        path = shelf / f"{name}.txt"
        if action == "write":
            path.write_text(".\n\n".join(text), "utf-8")
        elif action == "remove":
            path.unlink(missing_ok=True)
        elif path.exists():
            path.rename(shelf / f"{name}2.txt")
        build_index(shelf, folder / "kept", encoder=words)
    build_index(shelf, folder / "fresh", encoder=words)
    assert_same(Index.open(folder / "kept"), Index.open(folder / "fresh"))
    for question in ("wolf", "swan lake", "a pig in the straw"):
        kept = Retriever.load(folder / "kept", words).search(question, 50)
        assert kept == Retriever.load(folder / "fresh", words).search(question, 50)


def test_nothing_to_read_leaves_the_index_alone(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    before = live_generation(tmp_path / "index")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.txt").write_bytes(b"\x00")
    with pytest.raises(StoriesError, match="every file was refused"):
        build_index(bad, tmp_path / "index", encoder=words)
    assert live_generation(tmp_path / "index") == before
    assert not list((tmp_path / "index").rglob("*.part"))


def test_an_encoder_that_fails_midway_leaves_the_index_alone(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    before = live_generation(tmp_path / "index")

    class Failing(WordEncoder):
        fingerprint = "failing"

        def encode_passages(self, texts: object) -> np.ndarray:
            raise MemoryError

    with pytest.raises(MemoryError):
        build_index(shelf, tmp_path / "index", encoder=Failing())
    assert live_generation(tmp_path / "index") == before
    assert_same(Index.open(tmp_path / "index"), Index.open(tmp_path / "index"))


def test_a_killed_build_leaves_the_index_alone_and_the_next_one_works(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    before = live_generation(tmp_path / "index")
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[3])\n"
        "from conftest import WordEncoder\n"
        "from ballet_qa.build import build_index\n"
        "def pause(p): print('writing', flush=True); time.sleep(60)\n"
        "shelf, index = sys.argv[1:3]\n"
        "build_index(shelf, index, encoder=WordEncoder(), rebuild=True, progress=pause)\n"
    )
    where = [str(shelf), str(tmp_path / "index"), str(Path(__file__).parent)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *where], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(IndexBusyError, match=f"being built by process {process.pid}"):
            build_index(shelf, tmp_path / "index", encoder=words)
        process.send_signal(signal.SIGKILL)
    assert live_generation(tmp_path / "index") == before
    Index.open(tmp_path / "index")
    assert list((tmp_path / "index" / "generations").glob("*.part"))
    build_index(shelf, tmp_path / "index", encoder=words)
    assert not list((tmp_path / "index" / "generations").glob("*.part"))


def test_the_last_two_generations_are_kept(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    built = []
    for _ in range(4):
        build = build_index(shelf, tmp_path / "index", encoder=words, rebuild=True)
        built.append(build.generation)
        time.sleep(0.01)
    kept = {path.name for path in (tmp_path / "index" / "generations").iterdir()}
    assert kept == set(built[-2:])


def test_questions_during_a_build_see_one_generation(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    retriever = Retriever.load(tmp_path / "index", words)
    expected = retriever.search("swan lake")
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(40):
            if retriever.search("swan lake") != expected:
                wrong.append("a mixture")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    (shelf / "pond.txt").write_text("Only straw.", "utf-8")
    build_index(shelf, tmp_path / "index", encoder=words)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert Retriever.load(tmp_path / "index", words).search("swan lake") != expected


@pytest.mark.parametrize("damage", ["truncated", "flipped", "removed", "added"])
def test_damage_to_any_file_is_refused_by_name(
    damage: str, shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    generation = live_generation(tmp_path / "index")
    names = [*json.loads((generation / "manifest.json").read_text())["files"], "manifest.json"]
    assert {"texts.sqlite", "passages.0.rows", "sentences.0.rows"} < set(names)
    for name in names:
        copy = tmp_path / "damaged"
        shutil.copytree(tmp_path / "index", copy)
        path = copy / "generations" / generation.name / name
        data = path.read_bytes()
        if damage == "truncated":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "flipped":
            middle = len(data) // 2
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        elif damage == "removed":
            path.unlink()
        else:
            path = path.with_name("stray.bin")
            path.write_bytes(b"?")
        with pytest.raises(IndexMismatchError, match=path.name) as caught:
            Index.open(copy)
        assert f"ballet-qa build --rebuild --index {copy}" in str(caught.value)
        shutil.rmtree(copy)


def test_files_of_another_build_are_refused(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "one", encoder=words)
    (shelf / "pond.txt").write_text("Straw.\n\nA pig.\n", "utf-8")
    build_index(shelf, tmp_path / "two", encoder=words)
    mine, other = live_generation(tmp_path / "one"), live_generation(tmp_path / "two")
    for name in ("texts.sqlite", "passages.0.rows"):
        kept = (mine / name).read_bytes()
        shutil.copy(other / name, mine / name)
        with pytest.raises(IndexMismatchError, match=name):
            Index.open(tmp_path / "one")
        (mine / name).write_bytes(kept)
    Index.open(tmp_path / "one")


def test_another_format_or_encoder_is_refused(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)

    class Other(WordEncoder):
        name = "others"
        fingerprint = "others-1"

    with pytest.raises(IndexMismatchError, match=r"built with words .* not with others"):
        Retriever.load(tmp_path / "index", Other())
    manifest = live_generation(tmp_path / "index") / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"format_version": 0}))
    checksum = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (tmp_path / "index" / "live").write_text(f"{manifest.parent.name} {checksum}\n")
    with pytest.raises(IndexMismatchError, match=r"of format 0, this program reads 3; run:"):
        Index.open(tmp_path / "index")


def test_no_index_and_a_broken_pointer_are_named(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match=r"no index in .*; run: ballet-qa build"):
        Index.open(tmp_path / "index")
    (tmp_path / "live").write_text("../../etc\n")
    with pytest.raises(IndexMismatchError, match=r"names '../../etc', which is not there"):
        Index.open(tmp_path)


def test_the_lock_is_free_once_its_holder_is_dead(tmp_path: Path) -> None:
    with build_lock(tmp_path), pytest.raises(IndexBusyError), build_lock(tmp_path):
        pass
    with build_lock(tmp_path):
        assert (tmp_path / "build.lock").read_text() == str(os.getpid())


def test_what_was_found_right_is_not_read_again(
    shelf: Path, tmp_path: Path, words: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    time.sleep(0.2)  # what changed a moment ago is not trusted
    Index.open(tmp_path / "index")
    read: list[str] = []
    real = generation.sha256_of

    def counted(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(generation, "sha256_of", counted)
    folder = Index.open(tmp_path / "index").folder
    assert read == ["manifest.json"]
    os.utime(folder / "texts.sqlite")
    Index.open(tmp_path / "index")
    assert read == ["manifest.json", "manifest.json", "texts.sqlite"]
    read.clear()
    generation.verify(folder, generation.read_manifest(folder))
    assert set(read) >= {"texts.sqlite", "passages.0.rows", "story_terms.column"}


def test_a_story_that_comes_is_appended(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    before = Index.open(tmp_path / "index")
    kept = {path.name: path.read_bytes() for path in before.folder.glob("*.*")}
    (shelf / "a late one.txt").write_text("Swan, pig.\n\nA wolf.", "utf-8")
    report = build_index(shelf, tmp_path / "index", encoder=words)
    assert (report.added, report.unchanged) == (("a late one",), ("old/barn", "pond"))
    after = Index.open(tmp_path / "index")
    assert [after.texts.story(row).id for row in range(3)] == ["old/barn", "pond", "a late one"]
    assert [entry.id for entry in after.texts.catalogue()] == ["a late one", "old/barn", "pond"]
    rows = (after.folder / "passages.0.rows").read_bytes()
    assert rows[: len(kept["passages.0.rows"])] == kept["passages.0.rows"]
    assert {path.name: path.read_bytes() for path in before.folder.glob("*.*")} == kept
    build_index(shelf, tmp_path / "fresh", encoder=words)
    assert_same(after, Index.open(tmp_path / "fresh"))


def test_a_story_that_comes_is_found_by_its_own_name(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    """Rows are in the order stories came, the catalogue in the order of their ids."""
    folder = tmp_path / "index"
    build_index(shelf, folder, encoder=words)
    (shelf / "a late one.txt").write_text(
        "Once Odette swam. Then Odette slept.\n\nA swan.", "utf-8"
    )
    build_index(shelf, folder, encoder=words)
    retriever = Retriever.load(folder, words)
    for line, found in {
        "story:late swan": ["a late one#2", "a late one#1"],
        'story:"a late one" "A swan"': ["a late one#2"],
        "story:pond swan": ["pond#1", "pond#2"],
    }.items():
        assert [match.hit.passage.id for match in find_matches(retriever, line)] == found, line
    leaf = Catalogue(Library(folder, encoder=words)).leaf("")
    told = {book.entry.id: (book.words, book.people) for book in leaf.books}
    assert told == {
        "a late one": (8, ("Odette",)),
        "old/barn": (10, ()),
        "pond": (5, ()),
    }
    (book,) = Catalogue(Library(folder, encoder=words)).leaf("odette").books
    assert book.entry.id == "a late one"
