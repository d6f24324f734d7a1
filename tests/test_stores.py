"""The contract that libraries of this field break: each score belongs to its passage."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballet_qa.terms import TermIndex, TermsWriter
from ballet_qa.vectors import VectorIndex, VectorsWriter
from conftest import WordEncoder

TEXTS = ["Wolf, pig and straw.", "Swan lake.", "Pig.", "Swan lake."]


def pairs(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, float]]:
    rows, scores = found
    return [(int(row), round(float(score), 4)) for row, score in zip(rows, scores, strict=True)]


@pytest.fixture
def vectors(tmp_path: Path, words: WordEncoder) -> VectorIndex:
    writer = VectorsWriter(tmp_path / "v.faiss", words.dimension)
    writer.add(words.encode_passages(TEXTS[:2]))
    writer.add(words.encode_passages(TEXTS[2:]))
    writer.close()
    return VectorIndex(tmp_path / "v.faiss")


def test_cosines_are_those_computed_by_hand(vectors: VectorIndex, words: WordEncoder) -> None:
    (query,) = words.encode_queries(["swan pig"])
    # (1/√2, 1/√2) with (1, 1, 1)/√3, (1, 1)/√2 and (1): 1/√6, 1/2, 1/√2; twins keep order.
    assert pairs(vectors.search(query, 10)) == [(2, 0.7071), (1, 0.5), (3, 0.5), (0, 0.4082)]


def test_a_filter_comes_before_the_ranking(vectors: VectorIndex, words: WordEncoder) -> None:
    (query,) = words.encode_queries(["swan pig"])
    among = np.array([True, False, False, True])
    assert pairs(vectors.search(query, 1, among)) == [(3, 0.5)]
    assert pairs(vectors.search(query, 9, among)) == [(3, 0.5), (0, 0.4082)]
    assert pairs(vectors.search(query, 9, np.zeros(4, dtype=bool))) == []


def test_rows_come_back_as_they_were_put_in(vectors: VectorIndex, words: WordEncoder) -> None:
    np.testing.assert_array_equal(vectors.block(0, 4), words.encode_passages(TEXTS))
    np.testing.assert_array_equal(
        vectors.rows(np.array([3, 0], dtype=np.int32)), words.encode_passages([TEXTS[3], TEXTS[0]])
    )
    assert vectors.block(2, 2).shape == vectors.rows(np.zeros(0, np.int32)).shape == (0, 5)


@pytest.fixture
def terms(tmp_path: Path) -> TermIndex:
    writer = TermsWriter(tmp_path / "terms")
    writer.add_story(0, "Barn", "\n\n".join(TEXTS[:3]), TEXTS[:3], [0, 0, 0])
    writer.add_story(1, "Pond", TEXTS[3], TEXTS[3:], [0])
    writer.close()
    return TermIndex(tmp_path / "terms")


def bm25(holding: int, frequency: int, length: int, mean: float, count: int = 4) -> float:
    idf = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
    return idf * 2.2 * frequency / (frequency + 1.2 * (0.25 + 0.75 * length / mean))


def test_bm25_is_that_computed_by_hand(terms: TermIndex) -> None:
    mean = (3 + 2 + 1 + 2) / 4
    straw, wolf = bm25(1, 1, 3, mean), bm25(1, 1, 3, mean)
    swan = bm25(2, 1, 2, mean)
    assert pairs(terms.search("own", ["straw", "wolf"], 9)) == [
        (0, pytest.approx(straw + wolf, abs=1e-4))
    ]
    assert pairs(terms.search("own", ["swan"], 9)) == [
        (1, pytest.approx(swan, abs=1e-4)),
        (3, pytest.approx(swan, abs=1e-4)),
    ]
    assert terms.idf("swan") == pytest.approx(math.log(2))
    assert terms.ceiling(["swan"]) == pytest.approx(math.log(2) * 2.2)


def test_a_neighbourhood_is_the_storys_own(terms: TermIndex) -> None:
    assert [row for row, _ in pairs(terms.search("near", ["straw"], 9))] == [0, 1]
    assert [row for row, _ in pairs(terms.search("wide", ["straw"], 9))] == [0, 1, 2]


def test_a_neighbourhood_ends_at_a_wall(tmp_path: Path) -> None:
    writer = TermsWriter(tmp_path / "terms")
    writer.add_story(0, "Barn", "\n\n".join(TEXTS), TEXTS, [0, 0, 1, 1])
    writer.close()
    terms = TermIndex(tmp_path / "terms")
    assert [row for row, _ in pairs(terms.search("wide", ["straw"], 9))] == [0, 1]


def test_an_empty_file_of_vectors_has_no_rows(tmp_path: Path) -> None:
    VectorsWriter(tmp_path / "v.faiss", 3).close()
    empty = VectorIndex(tmp_path / "v.faiss")
    assert (empty.count, empty.dimension) == (0, 3)
    assert pairs(empty.search(np.ones(3, np.float32), 5)) == []


def test_scores_of_given_rows_come_in_their_order(terms: TermIndex) -> None:
    rows = np.array([3, 0, 1], dtype=np.int32)
    scores = terms.score("own", ["swan"], rows)
    assert scores[1] == 0.0
    assert scores[0] == scores[2] == pytest.approx(bm25(2, 1, 2, 2.0), abs=1e-4)


def test_stories_narrow_the_search_and_nothing_else(terms: TermIndex) -> None:
    everywhere = dict(pairs(terms.search("own", ["swan"], 9)))
    assert pairs(terms.search("own", ["swan"], 9, stories=[1])) == [(3, everywhere[3])]
    assert pairs(terms.search("own", ["swan"], 9, stories=[])) == []
    assert terms.stories_with("swan") == {0, 1}
    assert terms.stories_with("straw") == {0}
    assert terms.score_stories(["straw"], [0, 1]).keys() == {0}


def test_no_terms_find_nothing(terms: TermIndex) -> None:
    assert pairs(terms.search("own", [], 9)) == []


@settings(max_examples=25, deadline=None)
@given(
    vectors=st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=12),
    limit=st.integers(1, 20),
)
def test_search_is_a_sorted_inner_product(
    vectors: list[list[int]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = np.array(vectors, dtype=np.float32)
    path = tmp_path_factory.mktemp("v") / "v.faiss"
    writer = VectorsWriter(path, 3)
    writer.add(rows)
    writer.close()
    query = np.array([1, 2, -1], dtype=np.float32)
    expected = sorted(
        ((row, float(score)) for row, score in enumerate(rows @ query)),
        key=lambda pair: (-pair[1], pair[0]),
    )
    found = pairs(VectorIndex(path).search(query, limit))
    assert [score for _, score in found] == [score for _, score in expected[:limit]]
    if limit >= len(expected):
        assert found == expected
