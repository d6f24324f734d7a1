from __future__ import annotations

import pytest

from ballet_qa.corpus import find_story_files, read_stories, title_of
from ballet_qa.names import name_counts, names_in_question, people_named, person_introduced
from ballet_qa.words import stem
from conftest import SEEDS


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Where did Amélie grow up?", ["Amélie"]),
        ("Who is Mimi's friend?", ["Mimi"]),
        ("What does Le Coeur de la Vie mean?", ["Le Coeur de la Vie"]),
        ("Camilla's director left why?", ["Camilla"]),
        ("Natasha was born where?", ["Natasha"]),
        ("Describe the smile of Colette.", ["Colette"]),
        ("Which Russian ballerina is 19?", []),
        ("What did Dr. John Smith want?", ["Dr. John Smith"]),
        ("why did she dance", []),
        ("WHERE DID THE CAT GO TODAY", []),
        ("What happened on Monday?", []),
        ("Did Finn meet Anne-Marie O'Rourke?", ["Finn", "Anne-Marie O'Rourke"]),
    ],
)
def test_names_in_a_question(question: str, names: list[str]) -> None:
    assert [name.text for name in names_in_question(question)] == names


def test_a_word_that_is_also_written_small_is_no_name() -> None:
    counts = name_counts("The king came. A King it was. Rose saw the king. So Rose ran to Rose.")
    assert counts == {"rose": ("Rose", 3)}


@pytest.mark.parametrize(
    ("opening", "person"),
    [
        ("Amélie Ivanov, the quiet ballerina, stood. Amélie danced.", "Amélie Ivanov"),
        ("Once there was a king named Hyacinth. So Hyacinth was old.", "Hyacinth"),
        ("In Bagdad, Ali Baba lived. Then Ali went to Bagdad.", "Ali Baba"),
        ("Once upon a time there was a king. He was old.", None),
        ("In the North there lived a farmer. He left the North.", None),
        ("People say much. Other people say little.", None),
    ],
)
def test_the_person_an_opening_introduces(opening: str, person: str | None) -> None:
    assert person_introduced(opening) == person


def test_a_heading_line_is_the_title() -> None:
    assert title_of("The Red Shoes\n\nKaren was poor. Karen had no shoes.") == "The Red Shoes"
    assert title_of("She left.\n\nKaren was poor.") is None


def test_the_seeds_are_named_after_the_person_each_introduces() -> None:
    titles = [read_stories(file)[0].title for file in find_story_files([SEEDS]).files]
    assert titles == [
        "Amélie Ivanov",
        "Camilla Roche",
        "Amélie Kuznetsova",
        "Valentina Kalmurzaeva",
    ]


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("Camilla Roche tied her shoes. In Paris, Camilla danced.", ["Camilla Roche"]),
        ("Camilla saw Colette's bow.", ["Camilla", "Colette"]),
        ("The swan slept.", []),
        ("", []),
    ],
)
def test_the_people_that_a_text_names(text: str, people: list[str]) -> None:
    known = {stem(word) for word in ("Camilla", "Roche", "Colette", "Paris")}
    assert people_named(text, known) == people
