"""The search line: phrases, story filters, and why a passage matched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa.answering import Answerer
from ballet_qa.errors import QuestionError, UnknownStoryError
from ballet_qa.matches import Match, find_matches, parse_search_line
from ballet_qa.render import search_html
from conftest import IVANOV, KUZNETSOVA, ROCHE


def texts(match: Match, spans: tuple[object, ...]) -> list[str]:
    start, text = match.hit.passage.start, match.hit.passage.text
    return [text[span.start - start : span.end - start] for span in spans]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "words", "phrases", "stories"),
    [
        ("snow in the forest", "snow in the forest", (), ()),
        ('"edge of  the stage" light', "light edge of the stage", ("edge of the stage",), ()),
        ("story:Camilla her heart", "her heart", (), ("Camilla",)),
        ('snow story:"Amélie I" “the forest”', "snow the forest", ("the forest",), ("Amélie I",)),
        ('""', "", (), ()),
    ],
)
def test_a_line_is_taken_apart(
    line: str, words: str, phrases: tuple[str, ...], stories: tuple[str, ...]
) -> None:
    asked = parse_search_line(line)
    assert (asked.words, asked.phrases, asked.stories) == (words, phrases, stories)


@given(st.text(max_size=80))
def test_any_line_can_be_taken_apart(line: str) -> None:
    asked = parse_search_line(line)
    assert all(phrase.strip() for phrase in asked.phrases)


def test_quoted_words_stand_there_as_written(answerer: Answerer) -> None:
    found = find_matches(answerer.retriever, '"stood at the edge of the stage"', 10)
    assert len(found) == 3
    for match in found:
        assert texts(match, match.phrases) == ["stood at the edge of the stage"]
    assert [match.hit.rank for match in found] == [1, 2, 3]
    scores = [match.hit.score for match in found]
    assert scores == sorted(scores, reverse=True)
    assert find_matches(answerer.retriever, '"edge of the edge"') == []
    assert find_matches(answerer.retriever, '"dge of the stage"') == []


def test_a_phrase_of_small_words_alone_is_found(answerer: Answerer) -> None:
    found = find_matches(answerer.retriever, '"and all that"', 10)
    assert {match.hit.passage.story_id for match in found} == {IVANOV}


def test_a_search_says_why(answerer: Answerer) -> None:
    match, *_ = find_matches(answerer.retriever, "an old woman’s coffee house")
    assert match.hit.passage.story_id == KUZNETSOVA
    assert set(match.shared) <= set(match.hit.passage.text.replace("'", " ").split()) | {"woman"}
    (nearest,) = texts(match, (match.nearest,))
    assert nearest in match.hit.passage.text
    html = search_html("x", [match])
    assert html.count("<mark>") == 1


def test_a_story_is_named_by_its_title_or_id(answerer: Answerer) -> None:
    for line in ("story:camilla stage", f"story:{ROCHE} stage"):
        found = find_matches(answerer.retriever, line, 20)
        assert {match.hit.passage.story_id for match in found} == {ROCHE}
    with pytest.raises(UnknownStoryError, match="Nobody"):
        find_matches(answerer.retriever, "story:Nobody stage")
    with pytest.raises(QuestionError, match="blank"):
        find_matches(answerer.retriever, "story:camilla")
