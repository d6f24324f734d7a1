"""What the page does when something is asked or clicked, as plain functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from ballet_qa.library import Library
from ballet_qa.types import Answer, Encoder
from ballet_qa.ui import Room
from conftest import IVANOV, KUZNETSOVA, SEEDS

CONVERSATION, CARDS, TURNS, BOX, EXAMPLES, ACTIONS, ASK, STOP = range(8)


@pytest.fixture(scope="module")
def room(seeds_index: Path, encoder: Encoder) -> Room:
    return Room(Library(seeds_index, encoder=encoder))


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


def asked(room: Room, *questions: str, stories: tuple[str, ...] = ()) -> list[Answer]:
    turns: list[Answer] = []
    for question in questions:
        *_, shown = room.ask(question, turns, list(stories))
        turns = shown[TURNS]
    return turns


def test_a_question_is_shown_while_it_is_answered(room: Room) -> None:
    waiting, shown = room.ask("Who owns the café?", [], [])
    assert "Who owns the café?" in waiting[CONVERSATION]
    assert "Reading the stories" in waiting[CONVERSATION]
    assert waiting[BOX] == ""
    assert (waiting[ASK].visible, waiting[STOP].visible) == (False, True)
    assert "<strong>Colette</strong>" in shown[CONVERSATION]
    assert "bq-pending" not in shown[CONVERSATION]
    assert (shown[ASK].visible, shown[STOP].visible) == (True, False)
    assert shown[BOX] == gr.skip()  # what is being typed meanwhile is left alone


def test_stopping_leaves_the_conversation_as_it_was(room: Room) -> None:
    turns = asked(room, "Who owns the café?")
    shown = room.stop(turns, "and then")
    assert shown[TURNS] == turns
    assert shown[BOX] == "and then"
    assert "bq-pending" not in shown[CONVERSATION]


def test_undo_takes_the_question_back(room: Room) -> None:
    turns = asked(room, "Who owns the café?", "Who is Camilla?")
    shown = room.undo(turns)
    assert (shown[TURNS], shown[BOX]) == (turns[:1], "Who is Camilla?")
    assert room.undo([])[BOX] == ""
    assert room.clear()[TURNS] == []


def test_a_question_is_answered_again_in_its_place(room: Room) -> None:
    turns = asked(room, "Who owns the café?", "What is her smile like?", "Who is Camilla?")
    assert turns[1].asked == "What is Colette’s smile like?"
    *_, shown = room.again(turns, [], event(turn="1"))
    assert [turn.asked for turn in shown[TURNS]] == [turn.asked for turn in turns]
    *_, shown = room.again(turns, [], event(turn="1", plain="1"))
    assert [turn.question for turn in shown[TURNS]] == [turn.question for turn in turns]
    assert shown[TURNS][1].asked is None
    assert room.edit(turns, event(turn="0")) == "Who owns the café?"


@pytest.mark.parametrize("turn", ["-1", "7", "x", "²", None, "1e9"])
def test_a_browsers_word_is_not_trusted(room: Room, turn: object) -> None:
    turns = asked(room, "Who owns the café?")
    *_, shown = room.again(turns, [], event(turn=turn))
    assert shown[TURNS] == turns
    assert room.edit(turns, event(turn=turn)) == gr.skip()
    assert room.open(event(passage=f"{turn}#1"), turns)[0] == gr.skip()
    assert room.only(event(story=turn))[0] == gr.skip()


def test_a_story_is_opened_with_the_quotes_from_it_marked(room: Room) -> None:
    turns = asked(room, "Who owns the café?", "How old is Amélie Kuznetsova?")
    citation = turns[0].findings[0].citation
    html, _ = room.open(event(passage=citation.passage.id, at=str(citation.start)), turns)
    assert html.count("<mark>") == 2
    assert 'data-now="1"' in html  # the second of the two marks, by where they stand
    whole, _ = room.open(event(passage=f"{IVANOV}#"), turns)
    assert "<mark>" not in whole
    assert "paragraph 1 of 7" in whole


def test_what_is_wrong_is_said_and_nothing_is_lost(room: Room) -> None:
    turns = asked(room, "Who owns the café?")
    *_, shown = room.ask(" ", turns, [])
    assert 'role="alert">the question is blank' in shown[CONVERSATION]
    assert shown[TURNS] == turns
    *_, shown = room.ask("Who?", turns, ["nowhere"])
    assert "no story &#39;nowhere&#39;" in shown[CONVERSATION]
    assert shown[BOX] == "Who?"
    assert "no story has" in room.search("story:nowhere snow")


def test_the_conversation_is_saved_with_every_offset(room: Room) -> None:
    turns = asked(room, "Where did Amélie grow up?", "Where was Natasha Petrova born?")
    told: dict[str, Any] = json.loads(room.json(turns))
    findings = told["conversation"][0]["findings"]
    assert {finding["story"]["id"] for finding in findings} == {IVANOV, KUZNETSOVA}
    for finding in findings:
        text = (SEEDS / f"{finding['story']['id']}.txt").read_text("utf-8")
        assert text[finding["start"] : finding["end"]] == finding["quote"]
    document = room.markdown(turns)
    assert "**in a small village surrounded by snow-covered forests**" in document
    assert "“Natasha Petrova” is nowhere in them." in document
    assert document.count("\n> — ") == len(findings) + len(turns[1].hits)


def test_the_library_is_searched_by_title_id_and_people(room: Room) -> None:
    assert room.books("").count('class="bq-book"') == 4
    assert room.books("amelie").count('class="bq-book"') == 2
    assert room.books("Mimi").count('class="bq-book"') == 1
    assert room.books("002_").count('class="bq-book"') == 1
    assert "0 of 4 stories fit “&lt;b&gt;”" in room.books("<b>")
    assert "Who is Amélie Kuznetsova?" in room.books("Kuznetsova")
