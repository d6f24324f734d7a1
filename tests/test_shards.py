"""A library in shards answers as one index of the same stories does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from ballet_qa.answering import Answerer
from ballet_qa.api import add_routes
from ballet_qa.build import build_index
from ballet_qa.catalogue import Catalogue
from ballet_qa.corpus import find_story_files
from ballet_qa.doctor import examine
from ballet_qa.errors import (
    BalletQAError,
    IndexMismatchError,
    SilentError,
    StorageError,
    StoriesError,
)
from ballet_qa.home import LIBRARY, Home
from ballet_qa.library import Library
from ballet_qa.matches import find_matches
from ballet_qa.parts import build_library, deal
from ballet_qa.reader import StoryReader
from ballet_qa.render import answer_json, answer_text
from ballet_qa.retriever import Retriever
from ballet_qa.shards import (
    Call,
    ShardedIndex,
    ShardHere,
)
from ballet_qa.terms import Statistics, TermIndex, TermsWriter
from ballet_qa.types import Encoder, Hit
from ballet_qa.ui import Room
from conftest import BASE, IVANOV, ROCHE, SEEDS, WordEncoder

QUESTIONS = [
    "Who owns the café?",
    "Who is Camilla?",
    "What did Amélie dance?",
    "Where did Natasha Petrova live?",
    "What is the price of oil?",
]


class Mute(ShardHere):
    """A shard that is there, and falls silent when told to."""

    silent = False

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        if self.silent:
            raise_silence: Callable[[], list[Any]] = self._silence
            return raise_silence
        return super().begin(calls)

    def _silence(self) -> list[Any]:
        raise SilentError(f"{self.name} does not answer")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    """The seeds in three shards."""
    folder = tmp_path_factory.mktemp("shards") / "library"
    build_library(SEEDS, folder, 3, encoder=encoder)
    return folder


@pytest.fixture
def muted(library: Path, encoder: Encoder) -> tuple[Answerer, dict[str, Mute]]:
    """An answerer over shards that can be silenced."""
    shards = {
        entry.name: Mute(entry.name, Home.at(library).open(entry))
        for entry in Home.at(library).library().shards
    }
    retriever = Retriever(ShardedIndex(list(shards.values())), encoder)
    return Answerer(retriever, StoryReader(retriever.index, encoder)), shards


def assert_same_hits(hits: Sequence[Hit], others: Sequence[Hit]) -> None:
    """The same passages in the same order, their scores to 1e-5."""
    assert [replace(hit, score=0.0) for hit in hits] == [replace(hit, score=0.0) for hit in others]
    np.testing.assert_allclose(
        [hit.score for hit in hits], [hit.score for hit in others], atol=1e-5
    )


@pytest.mark.parametrize("question", QUESTIONS)
def test_shards_answer_as_one_index(question: str, library: Path, answerer: Answerer) -> None:
    sharded = Answerer.load(library, answerer.retriever.encoder)
    for stories in (None, [IVANOV], [IVANOV, ROCHE]):
        one = answerer.answer(question, 10, stories)
        other = sharded.answer(question, 10, stories)
        assert replace(other, hits=(), likelihood=0.0) == replace(one, hits=(), likelihood=0.0)
        assert other.likelihood == pytest.approx(one.likelihood, abs=1e-5)
        assert_same_hits(other.hits, one.hits)
        assert_same_hits(
            sharded.retriever.search(question, 20, stories),
            answerer.retriever.search(question, 20, stories),
        )


def test_all_that_is_read_of_an_index_is_the_same(library: Path, answerer: Answerer) -> None:
    encoder = answerer.retriever.encoder
    sharded = Retriever.load(library, encoder)
    for line in ('"stood at the edge of the stage"', "story:camilla stage", "a coffee house"):
        one, other = (find_matches(r, line, 10) for r in (answerer.retriever, sharded))
        assert_same_hits([match.hit for match in other], [match.hit for match in one])
        assert [replace(m, hit=one[0].hit) for m in other] == [
            replace(m, hit=one[0].hit) for m in one
        ]
    texts = answerer.index.texts
    assert sharded.index.texts.catalogue() == texts.catalogue()
    assert sharded.index.names_in("What did amélie give?") == answerer.index.names_in(
        "What did amélie give?"
    )
    for entry in texts.catalogue():
        there, here = sharded.index.texts.story_row(entry.id), texts.story_row(entry.id)
        assert there is not None
        assert here is not None
        assert sharded.index.texts.story(there) == texts.story(here)
        assert sharded.index.texts.names_of(there) == texts.names_of(here)
        passages = texts.passages_of(here)
        assert sharded.index.texts.passages_of(there) == passages
        for passage in passages:
            assert sharded.index.texts.beside(passage) == texts.beside(passage)
            rows = [t.passage_row(passage.id) for t in (texts, sharded.index.texts)]
            vectors = [
                v.rows(np.array([row], dtype=np.int32))
                for v, row in zip(
                    (answerer.index.passage_vectors, sharded.index.passage_vectors),
                    rows,
                    strict=True,
                )
            ]
            np.testing.assert_array_equal(*vectors)
    leaves = [Catalogue(Library(home, encoder=encoder)).leaf("amelie") for home in (library,)]
    assert [len(leaf.books) for leaf in leaves] == [2]


words = st.lists(st.sampled_from([*WordEncoder.vocabulary, "the"]), min_size=1, max_size=9)


@settings(max_examples=25, deadline=None)
@given(
    shelf=st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=7),
    parts=st.integers(1, 4),
    asked=words,
)
def test_any_stories_in_any_shards_are_found_as_in_one_index(
    shelf: list[list[list[str]]],
    parts: int,
    asked: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "shelf").mkdir()
    for number, passages in enumerate(shelf):
        text = "\n\n".join(" ".join(passage) + "." for passage in passages)
        (folder / "shelf" / f"{number}.txt").write_text(text, "utf-8")
    encoder = WordEncoder()
    build_index(folder / "shelf", folder / "one", encoder=encoder)
    report = build_library(folder / "shelf", folder / "many", parts, encoder=encoder)
    assert report.stories == len(shelf)
    one, many = (Retriever.load(folder / name, encoder) for name in ("one", "many"))
    found = [r.search(" ".join(asked), 60) for r in (one, many)]
    assert_same_hits(*found)


def test_a_shard_ranks_by_the_statistics_of_the_library(tmp_path: Path) -> None:
    """A word that is rare in the library is rare in the shard where every story has it."""
    chance = random.Random(7)
    texts = [
        " ".join(chance.choices(["swan", "lake", "wolf", "the"], k=chance.randint(1, 40)))
        for _ in range(400)
    ]
    kept: dict[str, TermIndex] = {}
    for name, own in (("all", texts), ("first", texts[:150]), ("second", texts[150:])):
        writer = TermsWriter(tmp_path / name)
        for row, text in enumerate(own):
            writer.add_story(row, "", text, [text], [0])
        writer.close()
        kept[name] = TermIndex(tmp_path / name)
    asked = ["swan", "wolf"]
    whole = kept["all"].statistics(asked)
    together = Statistics.together([kept[n].statistics(asked) for n in ("first", "second")])
    assert together == Statistics(*(dict(getattr(whole, n)) for n in Statistics.__slots__))
    expected, scores = kept["all"].search("own", asked, 20, whole)
    merged = []
    for name, first in (("first", 0), ("second", 150)):
        rows, near = kept[name].search("own", asked, 20, together)
        merged += [(-score, row + first) for score, row in zip(near, rows, strict=True)]
    merged.sort()
    assert [row for _, row in merged[:20]] == expected.tolist()
    np.testing.assert_allclose([-score for score, _ in merged[:20]], scores, atol=1e-5)


def test_a_silent_shard_is_named_and_the_others_answer(
    muted: tuple[Answerer, dict[str, Mute]],
) -> None:
    answerer, shards = muted
    question = "Who owns the café?"
    whole = answerer.answer(question)
    assert whole.partial == ()
    (home,) = {finding.citation.story.id for finding in whole.findings}
    holder = next(s for s in shards.values() if s.index.texts.story_row(home) is not None)
    for shard in shards.values():
        shard.silent = True
        answer = answerer.answer(question)
        assert answer.partial == (shard.name,)
        assert answer_json(answer)["partial"] == [shard.name]
        assert f"{shard.name} did not answer" in answer_text(answer)
        missing = {shard.index.texts.story_id(r) for r in range(shard.manifest.stories)}
        assert not missing & {hit.passage.story_id for hit in answer.hits}
        quotes = [finding.citation.quote for finding in answer.findings]
        if shard is not holder:  # how likely it is changes with what it is compared with
            assert quotes == [finding.citation.quote for finding in whole.findings]
        with pytest.raises(SilentError, match=shard.name):
            answerer.retriever.search("a word nobody asked before")
        shard.silent = False
    assert answerer.answer(question) == whole


def test_a_shard_that_falls_silent_midway_is_left_out_from_the_start(
    muted: tuple[Answerer, dict[str, Mute]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer, shards = muted
    heard = ShardHere.begin

    for number in range(1, 12):
        said = 0
        shard = next(s for s in shards.values() if s.manifest.stories)

        def begin(self: ShardHere, calls: Sequence[Call]) -> Callable[[], list[Any]]:
            nonlocal said
            if self is shard:  # noqa: B023
                said += 1
                if said >= number:  # noqa: B023
                    return shard._silence  # noqa: B023
            return heard(self, calls)

        monkeypatch.setattr(ShardHere, "begin", begin)
        fresh = ShardedIndex(list(shards.values()))
        retriever = Retriever(fresh, answerer.retriever.encoder)
        answer = Answerer(retriever, StoryReader(fresh, retriever.encoder)).answer(
            "Who is Camilla?"
        )
        missing = {shard.index.texts.story_id(r) for r in range(shard.manifest.stories)}
        told_of = {hit.passage.story_id for hit in answer.hits}
        assert (shard.name in answer.partial) == (said >= number)
        assert not answer.partial or not missing & told_of


def test_the_page_and_the_routes_say_who_was_silent(
    muted: tuple[Answerer, dict[str, Mute]], library: Path
) -> None:
    answerer, shards = muted
    home = Library(library, opened=lambda _: answerer)
    room, app = Room(home), FastAPI()
    add_routes(app, home)
    shard = next(s for s in shards.values() if s.manifest.stories)
    shard.silent = True
    *_, shown = room.ask("Who bows to the snow?", [], [])
    words = f"Not all stories were asked: {shard.name} did not answer."
    assert words in shown[0]
    assert words in room.search("a bow to nobody")
    with TestClient(app, base_url=BASE) as client:
        said = client.get("/api/search", params={"query": "a bow in a forest"})
        assert (said.status_code, said.json()["partial"]) == (200, [shard.name])
        for one in shards.values():
            one.silent = True
        said = client.get("/api/search", params={"query": "another bow"})
        assert said.status_code == 503
        assert "does not answer" in said.json()["error"]["message"]


def test_the_stories_are_shown_but_for_those_of_a_silent_shard(
    muted: tuple[Answerer, dict[str, Mute]], library: Path
) -> None:
    answerer, shards = muted
    room = Room(Library(library, opened=lambda _: answerer))
    shard = next(s for s in shards.values() if s.manifest.stories)
    shard.silent = True
    there = 4 - shard.manifest.stories
    _, _, books = room.arrive()
    assert len(room.choices()) == there
    assert room.examples() == []
    assert books.count('class="bq-book"') == there
    assert f"Not all stories were asked: {shard.name} did not answer." in books
    for one in shards.values():
        one.silent = True
    assert "does not answer" in room.books("a name that was not looked for")
    for one in shards.values():
        one.silent = False
    assert room.books("").count('class="bq-book"') == 4
    assert len(room.examples()) == 4


def test_when_nobody_answers_that_is_said(muted: tuple[Answerer, dict[str, Mute]]) -> None:
    answerer, shards = muted
    for shard in shards.values():
        shard.silent = True
    with pytest.raises(SilentError, match="does not answer"):
        answerer.answer("Who owns the café?")


def test_whether_a_story_is_there_is_not_guessed(
    muted: tuple[Answerer, dict[str, Mute]],
) -> None:
    answerer, shards = muted
    holder = next(s for s in shards.values() if s.index.texts.story_row(IVANOV) is not None)
    holder.silent = True
    with pytest.raises(SilentError, match=IVANOV):
        answerer.answer("Who is Natasha?", stories=[IVANOV])


def test_a_change_touches_one_shard_and_is_live_at_once(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    home = tmp_path / "library"
    first = build_library(shelf, home, 3, encoder=words)
    assert (first.stories, first.passages, first.embedded) == (2, 5, 5)
    before = Home.at(home).live()
    library = Library(home, encoder=words)
    old = library.answerer()
    (shelf / "lake.txt").write_text("A swan on the lake.\n", "utf-8")
    report = build_library(shelf, home, 3, encoder=words)
    assert (report.added, report.unchanged, report.embedded) == (("lake",), ("old/barn", "pond"), 1)
    after = Home.at(home).live()
    assert sum(after[name] != before[name] for name in after) == 1
    assert library.answerer().retriever.search("swan lake")[0].passage.story_id == "lake"
    assert old.retriever.search("swan lake")[0].passage.story_id == "pond"
    assert build_library(shelf, home, 3, encoder=words).embedded == 0
    assert Home.at(home).live() == after
    assert all(c.problem is None for s in (home / "shards").iterdir() for c in examine(s, words))


def test_dealt_anew_those_who_ask_keep_the_shards_before(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    home = tmp_path / "library"
    build_library(shelf, home, 3, encoder=words)
    old = Retriever.load(home, words)
    for _ in range(2):  # the second build begins with shards that are others' already
        build_library(shelf, home, 2, encoder=words)
        with ThreadPoolExecutor(1) as another:  # a thread opens the texts for itself
            hits = another.submit(old.search, "wolf slept", 3).result()
        assert hits == Retriever.load(home, words).search("wolf slept", 3) != []
    del old
    build_library(shelf, home, 2, encoder=words)
    assert {folder.name for folder in (home / "shards").iterdir()} == set(Home.at(home).live())


def test_a_manifest_whose_shards_are_silent_is_tried_again(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    home = tmp_path / "library"
    build_library(shelf, home, 2, encoder=words)
    errors: list[BalletQAError] = []

    def opened(encoder: Encoder | None) -> Answerer:
        if errors:
            raise errors.pop()
        return Answerer.load(home, encoder or words)

    library = Library(home, opened=opened)
    (shelf / "lake.txt").write_text("A swan on the lake.\n", "utf-8")
    build_library(shelf, home, 2, encoder=words)
    errors.append(SilentError("shard-0-of-2 does not answer"))
    assert [library.answerer().index.manifest.stories for _ in range(2)] == [2, 3]
    (shelf / "late.txt").write_text("A pig.\n", "utf-8")
    build_library(shelf, home, 2, encoder=words)
    errors.append(IndexMismatchError("damaged"))
    assert [library.answerer().index.manifest.stories for _ in range(2)] == [3, 3]


def test_a_build_that_fails_leaves_the_library_as_it_was(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    home = tmp_path / "library"
    build_library(shelf, home, 2, encoder=words)
    live = (home / LIBRARY).read_bytes()

    class Broken(WordEncoder):
        def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
            if any("lake." in text for text in texts):
                raise RuntimeError("no")
            return super().encode_passages(texts)

    for number in range(8):  # some in each shard: one is built before the other fails
        (shelf / f"more {number}.txt").write_text("A pig.\n", "utf-8")
    (shelf / "lake.txt").write_text("A swan on the lake.\n", "utf-8")
    for _ in range(3):  # as often as would have removed the live generation
        with pytest.raises(RuntimeError):
            build_library(shelf, home, 2, encoder=Broken())
        assert (home / LIBRARY).read_bytes() == live
        assert Retriever.load(home, words).index.manifest.stories == 2


def test_what_cannot_be_a_library_is_said(shelf: Path, tmp_path: Path, words: WordEncoder) -> None:
    with pytest.raises(StoriesError, match="0 shards"):
        deal(find_story_files([shelf]), 0)
    build_index(shelf, tmp_path / "whole", encoder=words)
    with pytest.raises(StorageError, match="whole; name another"):
        build_library(shelf, tmp_path / "whole", 2, encoder=words)
    home = tmp_path / "library"
    build_library(shelf, home, 2, encoder=words)
    entry = Home.at(home).library().shards[0]
    manifest = home / "shards" / entry.name / "generations" / entry.generation / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace("words", "wards"), "utf-8")
    with pytest.raises(IndexMismatchError, match="damaged"):
        Retriever.load(home, words)
    fields = json.loads((home / LIBRARY).read_text("utf-8"))
    (home / LIBRARY).write_text(json.dumps(fields | {"format_version": 9}), "utf-8")
    with pytest.raises(IndexMismatchError, match="of format 9"):
        Retriever.load(home, words)


def test_files_fall_to_shards_by_their_ids_alone(shelf: Path) -> None:
    for number in range(200):
        (shelf / f"{number}.txt").write_text("A pig.\n", "utf-8")
    found = find_story_files([shelf])
    dealt = deal(found, 4)
    sizes = [len(part.files) for part in dealt.values()]
    assert sum(sizes) == 202
    assert min(sizes) > 30
    fewer = deal(replace(found, files=found.files[::3]), 4)
    for name, part in fewer.items():
        assert {file.id for file in part.files} <= {file.id for file in dealt[name].files}
