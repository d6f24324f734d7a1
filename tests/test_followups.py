"""Questions that lean on the one before: what is completed, with what, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa.answering import Answerer
from ballet_qa.conversation import answer_next, turn_of
from ballet_qa.followups import Turn, completed
from conftest import KUZNETSOVA, ROCHE

CAFE = Turn("Who owns the café?", "Colette", (), "Amélie Kuznetsova", KUZNETSOVA)
TRAINED = Turn("Where did Amélie Ivanov train?", "in a small village", (), "Amélie Ivanov", "x")
ASKED = Turn("What did Camilla lose?", "", ())


@pytest.mark.parametrize(
    ("question", "turn", "expected"),
    [
        ("How old is she?", CAFE, "How old is Colette?"),
        ("What did she see in her?", CAFE, "What did Colette see in her?"),
        ("What is her smile like?", CAFE, "What is Colette’s smile like?"),
        ("What about Camilla?", TRAINED, "Where did Camilla train?"),
        ("What about the bakery?", CAFE, "Who owns the bakery?"),
        ("And Camilla Roche?", TRAINED, "Where did Camilla Roche train?"),
        ("Camilla?", TRAINED, "Where did Camilla train?"),
        ("Why?", TRAINED, "Why did Amélie Ivanov train?"),
        ("And when?", TRAINED, "When did Amélie Ivanov train?"),
        ("When did it end?", Turn("What was Camilla's dream?"), "When did Camilla's dream end?"),
        ("Was it cold there?", TRAINED, "Was a small village cold there?"),
        ("Why did she lose it?", ASKED, "Why did Camilla lose it?"),
        ("Is there more about this story?", CAFE, "Is there more about Amélie Kuznetsova?"),
    ],
)
def test_what_is_left_out_is_put_in(question: str, turn: Turn, expected: str) -> None:
    assert completed(question, [turn]) == expected


@pytest.mark.parametrize(
    "question",
    [
        "Who owns the bakery?",
        "How old is Valentina?",
        "Did Valentina love her mother?",  # the question says itself who
        "Is it true that swans sing?",
        "Was there a wolf?",
        "Who said that the music swelled?",
        "Anything else?",
        "What about Camilla?",  # nobody was asked about
    ],
)
def test_a_question_that_stands_by_itself_is_left_alone(question: str) -> None:
    assert completed(question, [CAFE]) is None
    assert completed(question, []) is None


def test_a_question_without_a_conversation_is_left_alone() -> None:
    assert completed("How old is she?", []) is None


def test_a_name_is_taken_in_full_and_by_who_may_be_meant() -> None:
    turns = [Turn("Who is Hansel Weaver?"), Turn("What did Hansel tell Gretel?", "to hush")]
    assert completed("Where did he sleep?", turns) == "Where did Hansel Weaver sleep?"
    by_name = {"she": "Gretel", "he": "Hansel Weaver"}
    asked = completed("What did she say?", turns, lambda name, word: name == by_name[word])
    assert asked is None or "Gretel" in asked


def test_the_other_one_is_the_namesake() -> None:
    others = {"Amélie Ivanov": ["Amélie Kuznetsova"]}
    question = "And where did the other one train?"
    asked = completed(question, [TRAINED], others=lambda name: others.get(name, []))
    assert asked == "Where did Amélie Kuznetsova train?"
    assert completed(question, [TRAINED]) is None


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_nothing_is_put_in_that_nobody_said(question: str, before: str, answer: str) -> None:
    made = completed(question, [Turn(before, answer)])
    if made is not None:
        said = set(f"{question} {before} {answer} in of".lower().split())
        bare = {word.strip('’s?.,;:!"“”()') for word in said}
        for word in made.lower().split():
            assert word in said or word.strip('’s?.,;:!"“”()') in bare


def test_a_conversation_over_the_seeds(answerer: Answerer) -> None:
    first = answer_next(answerer, "Who owns the café?", [])
    assert (first.asked, first.within) == (None, None)
    next_one = answer_next(answerer, "What is her smile like?", [turn_of(first)])
    assert next_one.question == "What is her smile like?"
    assert next_one.asked == "What is Colette’s smile like?"
    assert next_one.within in ("Amélie Kuznetsova", None)
    assert {f.citation.story.id for f in next_one.findings} <= {KUZNETSOVA}


def test_a_story_that_does_not_hold_the_name_is_not_carried_on(answerer: Answerer) -> None:
    first = answer_next(answerer, "How old is Amélie Kuznetsova?", [])
    assert turn_of(first).story_id == KUZNETSOVA
    other = answer_next(answerer, "What about Camilla Roche?", [turn_of(first)])
    assert other.asked == "How old is Camilla Roche?"
    assert other.within is None
    assert KUZNETSOVA not in {f.citation.story.id for f in other.findings}


def test_the_stories_chosen_outrank_the_story_in_view(answerer: Answerer) -> None:
    first = answer_next(answerer, "Who owns the café?", [])
    answer = answer_next(answerer, "How does she feel?", [turn_of(first)], stories=[ROCHE])
    assert answer.within is None
    assert {hit.passage.story_id for hit in answer.hits} == {ROCHE}


def test_she_is_not_he(answerer: Answerer) -> None:
    turns = [Turn("Who is Camilla Roche?", "Camilla Roche", (), "Camilla Roche", ROCHE)]
    assert answer_next(answerer, "What did she find?", turns).asked is not None
    assert answer_next(answerer, "What did he find?", turns).asked is None
