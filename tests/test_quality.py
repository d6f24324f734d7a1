"""Floors under the measures, on val's library; the README has the figures and their commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.questions import is_right, load_questions
from ballet_qa.types import Encoder


@pytest.fixture(scope="module")
def library(shared: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("val") / "index"
    build_index(shared / "fairytaleqa/val/stories", folder, encoder=encoder)
    return Answerer.load(folder, encoder)


def recalls(library: Answerer, path: Path, every: int) -> tuple[float, float]:
    """R@1 and R@10 of the search over every so manyth answerable question."""
    questions = [q for q in load_questions(path) if q.answerable][::every]
    found = [
        [is_right(hit.passage, q.evidence) for hit in library.retriever.search(q.question, 10)]
        for q in questions
    ]
    return sum(right[0] for right in found) / len(found), sum(map(any, found)) / len(found)


@pytest.mark.timeout(600)
def test_questions_in_the_storys_words(library: Answerer, shared: Path) -> None:
    first, tenth = recalls(library, shared / "fairytaleqa/val/questions.jsonl", 3)
    assert first >= 0.57
    assert tenth >= 0.87


def test_questions_in_other_words(library: Answerer, shared: Path) -> None:
    first, tenth = recalls(library, shared / "paraphrase/val.jsonl", 1)
    assert first >= 0.13
    assert tenth >= 0.5


@pytest.mark.timeout(600)
def test_the_reader_finds_refuses_and_quotes_word_for_word(library: Answerer, shared: Path) -> None:
    absent = load_questions(shared / "fairytaleqa/val/unanswerable.jsonl")[::5]
    refused = sum(library.answer(q.question).status == "not_found" for q in absent)
    assert refused / len(absent) >= 0.9
    quotes = first = wrongly = 0
    told = load_questions(shared / "fairytaleqa/val/questions.jsonl")[::10]
    for question in told:
        answer = library.answer(question.question)
        first += is_right(answer.hits[0].passage, question.evidence)
        wrongly += answer.status == "not_found"
        for finding in answer.findings:
            citation = finding.citation
            text = (shared / "fairytaleqa/val/stories" / f"{citation.story.id}.txt").read_text()
            assert text[citation.start : citation.end] == citation.quote
            quotes += 1
    assert quotes > 80
    assert first / len(told) >= 0.66
    assert wrongly / len(told) <= 0.1
