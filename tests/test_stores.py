"""The contract that libraries of this field break: each score belongs to its passage."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ballet_qa.vectors
from ballet_qa.terms import Field, TermIndex, TermsWriter
from ballet_qa.types import VectorKind
from ballet_qa.vectors import VectorIndex, VectorsWriter, clusters_for, kind_for
from conftest import WordEncoder

TEXTS = ["Wolf, pig and straw.", "Swan lake.", "Pig.", "Swan lake."]


def pairs(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, float]]:
    rows, scores = found
    return [(int(row), round(float(score), 4)) for row, score in zip(rows, scores, strict=True)]


def written(folder: Path, rows: np.ndarray, kind: VectorKind | None = None) -> VectorIndex:
    writer = VectorsWriter(folder, "v", rows.shape[1])
    for row in rows:
        writer.add(row[np.newaxis])
    writer.close(kind)
    return VectorIndex(folder, "v", rows.shape[1])


@pytest.fixture
def vectors(tmp_path: Path, words: WordEncoder) -> VectorIndex:
    return written(tmp_path, words.encode_passages(TEXTS))


def test_cosines_are_those_computed_by_hand(vectors: VectorIndex, words: WordEncoder) -> None:
    (query,) = words.encode_queries(["swan pig"])
    # (1/√2, 1/√2) with (1, 1, 1)/√3, (1, 1)/√2 and (1): 1/√6, 1/2, 1/√2; twins keep order.
    assert pairs(vectors.search(query, 10)) == [
        (2, 0.7071),
        (1, 0.5),
        (3, 0.5),
        (0, 0.4082),
    ]


def test_a_filter_comes_before_the_ranking(vectors: VectorIndex, words: WordEncoder) -> None:
    (query,) = words.encode_queries(["swan pig"])
    among = np.array([True, False, False, True])
    assert pairs(vectors.search(query, 1, among)) == [(3, 0.5)]
    assert pairs(vectors.search(query, 9, among)) == [(3, 0.5), (0, 0.4082)]
    assert pairs(vectors.search(query, 9, np.zeros(4, dtype=bool))) == []


def test_rows_come_back_as_they_were_put_in(vectors: VectorIndex, words: WordEncoder) -> None:
    kept = words.encode_passages(TEXTS)
    np.testing.assert_array_equal(vectors.block(0, 4), kept)
    np.testing.assert_array_equal(vectors.rows(np.array([3, 0], dtype=np.int32)), kept[[3, 0]])
    assert vectors.block(2, 2).shape == vectors.rows(np.zeros(0, np.int32)).shape == (0, 5)


@pytest.fixture
def terms(tmp_path: Path) -> TermIndex:
    writer = TermsWriter(tmp_path / "terms")
    writer.add_story(0, "Barn", "\n\n".join(TEXTS[:3]), TEXTS[:3], [0, 0, 0])
    writer.add_story(1, "Pond", TEXTS[3], TEXTS[3:], [0])
    writer.close()
    return TermIndex(tmp_path / "terms")


def found(terms: TermIndex, field: Field, asked: list[str], **narrow: object) -> list[object]:
    """What the term index alone finds, by its own statistics."""
    return pairs(terms.search(field, asked, 9, terms.statistics(asked), **narrow))  # type: ignore[arg-type]


def bm25(holding: int, frequency: int, length: int, mean: float, count: int = 4) -> float:
    idf = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
    return idf * 2.2 * frequency / (frequency + 1.2 * (0.25 + 0.75 * length / mean))


def test_bm25_is_that_computed_by_hand(terms: TermIndex) -> None:
    mean = (3 + 2 + 1 + 2) / 4
    straw, wolf = bm25(1, 1, 3, mean), bm25(1, 1, 3, mean)
    swan = bm25(2, 1, 2, mean)
    assert found(terms, "own", ["straw", "wolf"]) == [(0, pytest.approx(straw + wolf, abs=1e-4))]
    assert found(terms, "own", ["swan"]) == [
        (1, pytest.approx(swan, abs=1e-4)),
        (3, pytest.approx(swan, abs=1e-4)),
    ]
    statistics = terms.statistics(["swan"])
    assert statistics.idf("swan") == pytest.approx(math.log(2))
    assert statistics.ceiling(["swan"]) == pytest.approx(math.log(2) * 2.2)


def test_a_neighbourhood_is_the_storys_own(terms: TermIndex) -> None:
    assert [row for row, _ in found(terms, "near", ["straw"])] == [0, 1]
    assert [row for row, _ in found(terms, "wide", ["straw"])] == [0, 1, 2]


def test_a_neighbourhood_ends_at_a_wall(tmp_path: Path) -> None:
    writer = TermsWriter(tmp_path / "terms")
    writer.add_story(0, "Barn", "\n\n".join(TEXTS), TEXTS, [0, 0, 1, 1])
    writer.close()
    terms = TermIndex(tmp_path / "terms")
    assert [row for row, _ in found(terms, "wide", ["straw"])] == [0, 1]


def test_an_empty_file_of_vectors_has_no_rows(tmp_path: Path) -> None:
    empty = written(tmp_path, np.zeros((0, 3), np.float32))
    assert (empty.count, empty.dimension) == (0, 3)
    assert pairs(empty.search(np.ones(3, np.float32), 5)) == []


def test_scores_of_given_rows_come_in_their_order(terms: TermIndex) -> None:
    rows = np.array([3, 0, 1], dtype=np.int32)
    scores = terms.scores(["swan"], rows, terms.statistics(["swan"]))["own"]
    assert scores[1] == 0.0
    assert scores[0] == scores[2] == pytest.approx(bm25(2, 1, 2, 2.0), abs=1e-4)


SOME_WORDS = st.lists(st.sampled_from(["wolf", "pig", "straw", "the", "swan"]), max_size=90)


@settings(max_examples=25, deadline=None)
@given(
    stories=st.lists(st.lists(st.tuples(SOME_WORDS, st.integers(0, 1)), max_size=6), min_size=1),
    asked=st.lists(st.sampled_from(["wolf", "pig", "straw", "lamp"]), unique=True, max_size=3),
    split=st.integers(0, 9),
)
def test_scores_of_given_rows_are_tantivys(
    stories: list[list[tuple[list[str], int]]],
    asked: list[str],
    split: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whether written at once, or begun as another index and gone on with."""
    folder = tmp_path_factory.mktemp("t")
    base, count = None, 0
    for number, some in enumerate((stories[:split], stories[split:])):
        writer = TermsWriter(folder / str(number), base)
        for told in some:
            passages = [" ".join(words) for words, _ in told]
            parts = sorted(part for _, part in told)
            writer.add_story(count, "", "\n".join(passages), passages, parts)
            count += 1
        writer.close()
        base = folder / str(number)
    terms = TermIndex(folder / "1")
    rows = np.arange(terms.passage_count, dtype=np.int32)
    statistics = terms.statistics(asked)
    scores = terms.scores(asked, rows, statistics)
    for field, made in scores.items():
        by_tantivy = dict(pairs(terms.search(field, asked, 999, statistics)))
        expected = [by_tantivy.get(row, 0.0) for row in rows.tolist()]
        np.testing.assert_allclose(made, expected, atol=1e-3)
    everywhere = np.arange(terms.story_count, dtype=np.int32)
    holding = terms.holding(asked, everywhere)
    assert [set(np.flatnonzero(column)) for column in holding.T] == [
        terms.stories_with(term) for term in asked
    ]


def test_stories_narrow_the_search_and_nothing_else(terms: TermIndex) -> None:
    everywhere = dict(found(terms, "own", ["swan"]))
    assert found(terms, "own", ["swan"], stories=[1]) == [(3, everywhere[3])]
    assert found(terms, "own", ["swan"], stories=[]) == []
    assert terms.stories_with("swan") == {0, 1}
    assert terms.stories_with("straw") == {0}
    statistics = terms.statistics(["straw"])
    assert (terms.score_stories(["straw"], np.array([1, 0]), statistics) > 0).tolist() == [
        False,
        True,
    ]


def test_no_terms_find_nothing(terms: TermIndex) -> None:
    assert found(terms, "own", []) == []


@settings(max_examples=25, deadline=None)
@given(
    vectors=st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=12),
    limit=st.integers(1, 20),
)
def test_search_is_a_sorted_inner_product(
    vectors: list[list[int]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = np.array(vectors, dtype=np.float32)
    query = np.array([1, 2, -1], dtype=np.float32)
    expected = sorted(
        ((row, float(score)) for row, score in enumerate(rows @ query)),
        key=lambda pair: (-pair[1], pair[0]),
    )
    found = pairs(written(tmp_path_factory.mktemp("v"), rows).search(query, limit))
    assert [score for _, score in found] == [score for _, score in expected[:limit]]
    if limit >= len(expected):
        assert found == expected


def near(count: int, seed: int = 0) -> np.ndarray:
    """Unit rows in fifty clouds, as sentences lie: near some others, far from most."""
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(50, 32))[chance.integers(0, 50, count)]
    rows = rows + 0.4 * chance.normal(size=(count, 32))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def test_the_rule_goes_by_the_number_of_rows() -> None:
    assert (kind_for(0), kind_for(100_000), kind_for(100_001)) == ("exact", "exact", "clustered")
    assert [clusters_for(rows) for rows in (1, 100_001, 1_000_000)] == [2, 512, 2048]


def test_clusters_find_nearly_all_and_their_cosines_are_exact(tmp_path: Path) -> None:
    rows = near(6_000)
    found = written(tmp_path, rows, "clustered")
    assert (found.kind, found.count, found.indexed) == ("clustered", 6_000, 6_000)
    shares = []
    for query in near(20, seed=1):
        ids, cosines = found.search(query, 10)
        np.testing.assert_allclose(cosines, rows[ids] @ query, atol=1e-6)
        best = np.argsort(-(rows @ query), kind="stable")[:10]
        shares.append(len(set(ids) & set(best)) / 10)
    assert np.mean(shares) >= 0.99
    among = np.arange(6_000) >= 5_900
    ids, _ = found.search(near(1)[0], 500, among)
    assert sorted(ids.tolist()) == list(range(5_900, 6_000))


def test_clusters_grow_and_parts_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ballet_qa.vectors, "_WHOLE_PART_BYTES", 1)
    rows, late = near(5_000), near(3, seed=2)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    written(first, rows, "clustered")
    writer = VectorsWriter(second, "v", 32, base=first)
    writer.add(late)
    writer.close("clustered")
    grown = VectorIndex(second, "v", 32)
    assert (grown.count, grown.indexed) == (5_003, 5_003)
    assert (second / "v.0.rows").samefile(first / "v.0.rows")
    kept = np.concatenate([rows, late])
    np.testing.assert_array_equal(grown.rows(np.array([5_002, 7, 5_000])), kept[[5_002, 7, 5_000]])
    np.testing.assert_array_equal(grown.block(4_998, 5_002), kept[4_998:5_002])
    for row in (5_000, 5_001, 5_002):
        assert grown.search(kept[row], 1)[0].tolist() == [row]
