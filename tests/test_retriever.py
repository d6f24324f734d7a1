from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ballet_qa.build import build_index
from ballet_qa.errors import QuestionError, UnknownStoryError
from ballet_qa.fusion import FEATURES, GATES, Fusion, Signals, load_fusion
from ballet_qa.index import Index
from ballet_qa.retriever import Retriever
from conftest import WordEncoder


def fusion_of(**strengths: float) -> Fusion:
    """Fixed weights: softplus of a large number is that number, of a very low one nothing."""
    weights = np.zeros((len(FEATURES), len(GATES)))
    weights[:, 0] = [strengths.get(name, -1000.0) for name in FEATURES]
    return Fusion(weights)


@pytest.fixture
def index(shelf: Path, tmp_path: Path, words: WordEncoder) -> Index:
    build_index(shelf, tmp_path / "index", encoder=words)
    return Index.open(tmp_path / "index")


def found(retriever: Retriever, query: str, **options: object) -> list[tuple[str, float]]:
    return [
        (hit.passage.id, round(hit.score, 3))
        for hit in retriever.search(query, **options)  # type: ignore[arg-type]
    ]


def test_scores_belong_to_their_passages(index: Index, words: WordEncoder) -> None:
    # The best sentence alone, at strength 100: "swan pig" is (1, 1)/√2, so "Swan lake." scores
    # 1/2, "Wolf, pig and straw." 1/√6, "A pig came." 1/√2, "The wolf slept." nothing.
    retriever = Retriever(index, words, fusion_of(sentence=100.0))
    assert found(retriever, "swan pig") == [
        ("old/barn#3", 70.711),
        ("pond#1", 50.0),
        ("old/barn#1", 40.825),
        ("old/barn#2", 0.0),
    ]


def test_the_same_words_in_two_stories_are_one_hit(index: Index, words: WordEncoder) -> None:
    retriever = Retriever(index, words, fusion_of(sentence=100.0))
    first = retriever.search("wolf", 1)[0]
    assert (first.passage.id, first.rank, first.title) == ("old/barn#2", 1, "barn")
    assert first.also_in == ("pond",)
    (alone, *_) = retriever.search("wolf", stories=["pond"])
    assert (alone.passage.id, alone.also_in) == ("pond#2", ())


def test_a_filter_comes_before_the_ranking(index: Index, words: WordEncoder) -> None:
    retriever = Retriever(index, words, fusion_of(sentence=100.0))
    assert found(retriever, "pig", stories=["pond"]) == [("pond#1", 0.0), ("pond#2", 0.0)]
    with pytest.raises(UnknownStoryError, match="no story 'lake' in this index"):
        retriever.search("pig", stories=["lake"])
    assert retriever.search("pig", stories=[]) == []


def test_more_than_there_is_is_all_there_is(index: Index, words: WordEncoder) -> None:
    hits = Retriever(index, words).search("pig", 200)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize(
    ("query", "top_k", "message"),
    [
        ("", 5, "the question is blank"),
        (" \n", 5, "the question is blank"),
        ("x" * 2001, 5, "has 2,001 characters; at most 2,000"),
        ("pig", 0, "top_k is 0"),
        ("pig", -1, "top_k is -1"),
        ("pig", 201, "top_k is 201; give a number from 1 to 200"),
    ],
)
def test_limits(index: Index, words: WordEncoder, query: str, top_k: int, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        Retriever(index, words).search(query, top_k)


@pytest.mark.parametrize("query", ["the of and", "?!", "🎉", "\x00", "zzzz", "'); DROP TABLE"])
def test_a_query_without_words_of_the_index_still_ranks(
    index: Index, words: WordEncoder, query: str
) -> None:
    assert len(Retriever(index, words).search(query, 4)) == 4


def test_the_weights_depend_on_the_question() -> None:
    fusion = load_fusion()
    columns = {name: column for column, name in enumerate(FEATURES)}
    sure = np.zeros((6, len(FEATURES)), dtype=np.float32)
    sure[0, columns["own"]] = 0.8
    unsure = sure / 10

    def strength(features: np.ndarray, *of: str) -> float:
        gates = Signals(features, named=False, mean_idf=5.0).gates()
        return sum(float(np.logaddexp(0, fusion.weights[columns[name]] @ gates)) for name in of)

    # Where the question's words are met, words weigh more beside vectors than where they are not.
    words, vectors = ("own", "near", "wide"), ("passage", "sentence", "neighbour")
    assert strength(sure, "own") > strength(unsure, "own")
    assert strength(sure, *words) / strength(sure, *vectors) > 1.5 * (
        strength(unsure, *words) / strength(unsure, *vectors)
    )
    assert fusion.weights.shape == (len(FEATURES), len(GATES))
