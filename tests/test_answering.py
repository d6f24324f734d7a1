"""Answers from the four seeds with the real encoder, and the forms they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa import render
from ballet_qa.answering import Answerer, example_questions
from ballet_qa.build import build_index
from ballet_qa.cross_encoder import Context, CrossEncoder, Judgement
from ballet_qa.questions import is_right, load_questions
from ballet_qa.reader import StoryReader
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Encoder, Span
from conftest import IVANOV, KALMURZAEVA, KUZNETSOVA, ROCHE

QUESTIONS = load_questions(Path(__file__).with_name("seed_questions.jsonl"))
ANSWERABLE = [question for question in QUESTIONS if question.answerable]
UNANSWERABLE = [question for question in QUESTIONS if not question.answerable]


def test_the_seeds_answer_what_they_tell(answerer: Answerer) -> None:
    """Written by us while building, so a floor against regressions and no measure of quality."""
    story = passage = quote = 0
    for question in ANSWERABLE:
        answer = answerer.answer(question.question)
        story += answer.hits[0].passage.story_id == question.evidence[0].story
        passage += any(is_right(hit.passage, question.evidence) for hit in answer.hits[:3])
        quote += any(question.answers[0] in f.citation.quote for f in answer.findings)
    assert len(ANSWERABLE) == 26
    assert story >= 25
    assert passage >= 24
    assert quote >= 18


def test_the_seeds_do_not_answer_what_they_do_not_tell(answerer: Answerer) -> None:
    refused = [answerer.answer(q.question).status == "not_found" for q in UNANSWERABLE]
    assert len(refused) == 16
    assert sum(refused) >= 12


def test_every_quote_stands_in_its_story(answerer: Answerer) -> None:
    for question in QUESTIONS:
        answer = answerer.answer(question.question)
        for finding in answer.findings:
            citation = finding.citation
            assert citation.story.text[citation.start : citation.end] == citation.quote
            assert citation.passage.start <= citation.start < citation.end <= citation.passage.end
            words = citation.story.text[finding.span.start : finding.span.end]
            assert words == finding.answer
            assert citation.start <= finding.span.start < finding.span.end <= citation.end
            assert finding.confidence is not None
            assert 0 < finding.confidence <= 1


def test_one_finding_a_story_when_a_name_fits_two(answerer: Answerer) -> None:
    answer = answerer.answer("Where did Amélie grow up?")
    assert (answer.status, answer.reason) == ("ambiguous", None)
    told = {finding.citation.story.id: finding.citation.quote for finding in answer.findings}
    assert told.keys() == {IVANOV, KUZNETSOVA}
    assert "a small village" in told[IVANOV]
    assert "Moscow" in told[KUZNETSOVA]


@pytest.mark.parametrize(
    "question",
    [
        "Who owns the Café?",
        "who owns the cafe",
        "Who owns the cafe",
        "WHO OWNS THE CAFE?",
        "  who owns\tthe  café ??",
        "Who owns the café.",
    ],
)
def test_case_accents_and_question_marks_change_nothing(answerer: Answerer, question: str) -> None:
    plain, other = answerer.answer("Who owns the café?"), answerer.answer(question)
    assert other.question == question
    assert other.findings == plain.findings
    assert [(hit.passage.id, hit.score) for hit in other.hits] == [
        (hit.passage.id, hit.score) for hit in plain.hits
    ]


def test_a_word_of_the_stories_is_no_unknown_name(answerer: Answerer) -> None:
    """ "Ballet" stands in them, if small: no search of theirs finds it nowhere."""
    for question in ("Does Camilla love Ballet?", "What is sold in the Café?"):
        answer = answerer.answer(question)
        assert answer.reason != "unknown_name"
        assert answer.unknown == ()
    assert answerer.answer("Does Camilla love Gymnastics?").unknown == ("Gymnastics",)


@pytest.mark.parametrize("question", ["Where did amelie grow up?", "where did amélie grow up"])
def test_a_name_is_known_without_its_accent_or_capital(answerer: Answerer, question: str) -> None:
    stories = {f.citation.story.id for f in answerer.answer(question).findings}
    assert stories == {IVANOV, KUZNETSOVA}


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        ("Where was Natasha Petrova born?", ("Natasha Petrova",)),
        ("Did Camilla dance with Odile?", ("Odile",)),
        ("Where did Camilla Ivanov grow up?", ("Camilla Ivanov",)),
        ("Natasha was born where?", ("Natasha",)),
    ],
)
def test_an_unknown_name_is_never_answered(
    answerer: Answerer, question: str, unknown: tuple[str, ...]
) -> None:
    answer = answerer.answer(question)
    assert (answer.status, answer.reason) == ("not_found", "unknown_name")
    assert (answer.unknown, answer.findings) == (unknown, ())
    assert len(answer.hits) == 5


def test_a_person_who_is_only_a_word_is_not_answered_and_not_nowhere(answerer: Answerer) -> None:
    """The stories have joy, and nobody of that name."""
    answer = answerer.answer("How did Joy feel about the music?")
    assert (answer.status, answer.reason, answer.unknown) == ("not_found", "no_evidence", ())
    assert answer.findings == ()


def test_a_name_must_be_in_the_stories_asked(answerer: Answerer) -> None:
    answer = answerer.answer("Who is Colette?", stories=[ROCHE, KALMURZAEVA])
    assert (answer.reason, answer.unknown) == ("unknown_name", ("Colette",))
    assert {hit.passage.story_id for hit in answer.hits} == {ROCHE, KALMURZAEVA}
    answer = answerer.answer("Who is Colette?", 3, stories=[KUZNETSOVA])
    assert answer.findings[0].citation.story.id == KUZNETSOVA
    assert [hit.rank for hit in answer.hits] == [1, 2, 3]


def test_people_of_two_stories_have_no_story_in_common(answerer: Answerer) -> None:
    answer = answerer.answer("When did Camilla meet Colette?")
    assert (answer.status, answer.reason, answer.findings) == ("not_found", "no_evidence", ())


def test_the_cited_passage_comes_first(answerer: Answerer) -> None:
    for question in ANSWERABLE:
        answer = answerer.answer(question.question)
        cited = [finding.citation.passage.id for finding in answer.findings]
        assert [hit.passage.id for hit in answer.hits][: len(cited)] == cited


def test_a_heading_is_found_and_never_answers(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / "fables.md").write_text(
        "# Fables\n\n## The Fox and the Grapes\n\n"
        "A hungry fox saw fine bunches of grapes hanging from a vine, but could not reach them.\n\n"
        "“They are sour,” said the fox of the grapes, and walked away.\n",
        "utf-8",
    )
    build_index(tmp_path, tmp_path / "index", encoder=encoder)
    answer = Answerer.load(tmp_path / "index", encoder).answer(
        "What did the fox say of the grapes?"
    )
    assert "The Fox and the Grapes" in [hit.passage.text for hit in answer.hits]
    assert [finding.citation.quote for finding in answer.findings] == [
        "“They are sour,” said the fox of the grapes, and walked away."
    ]
    assert "— Fables, The Fox and the Grapes, paragraph 4" in render.answer_text(answer)
    assert "The Fox and the Grapes, paragraph 4" in render.answer_html(answer)


class CountingNetwork(CrossEncoder):
    """The real one; it says how many passages it read."""

    def judge(self, question: str, contexts: Sequence[Context]) -> list[Judgement]:
        self.rounds.append(len(contexts))
        return super().judge(question, contexts)

    rounds: list[int]


def test_more_is_read_only_where_the_first_passages_do_not_answer(answerer: Answerer) -> None:
    network = CountingNetwork()
    reader = StoryReader(answerer.index, answerer.retriever.encoder, network)
    for question, told in (
        ("How old is Amélie Kuznetsova?", True),
        ("What does a submarine cost?", False),
    ):
        network.rounds = []
        hits = answerer.retriever.search(question, SETTINGS.most_read)
        readings = reader.read(question, hits)
        scores = [reading.score for reading in readings]
        assert scores == sorted(scores, reverse=True)
        assert len(readings) == sum(network.rounds)
        assert (max(r.answerable for r in readings) >= SETTINGS.read_in_turns[0][1]) == told
        turns = np.diff([0, *(many for many, _ in SETTINGS.read_in_turns)]).tolist()
        assert network.rounds == turns[: 1 if told else None]
    assert reader.read("Who?", []) == []


def test_rerank_puts_what_was_read_in_the_readers_order(answerer: Answerer) -> None:
    question = "How old is Amélie Kuznetsova?"
    found = answerer.retriever.search(question, SETTINGS.max_top_k)
    hits = answerer.rerank(question, SETTINGS.max_top_k)
    assert {hit.passage.id for hit in hits} == {hit.passage.id for hit in found}
    assert [hit.rank for hit in hits] == list(range(1, len(found) + 1))
    read = [hit for hit in hits if hit.scored_by == "reader"]
    assert read == hits[: len(read)]
    assert len(read) == SETTINGS.read_in_turns[0][0]
    assert [hit.score for hit in read] == sorted((hit.score for hit in read), reverse=True)
    assert [hit.passage.id for hit in hits[len(read) :]] == [
        hit.passage.id for hit in found if hit.passage.id not in {h.passage.id for h in read}
    ]


def test_examples_come_from_the_collection_and_are_answered(answerer: Answerer) -> None:
    examples = example_questions(answerer)
    assert len(set(examples)) == len(examples) == 4
    assert all(answerer.answer(question).findings for question in examples)


def test_html_is_escaped_and_marked(answerer: Answerer) -> None:
    question = "Who owns the café? <script>alert(1)</script>"
    answer = answerer.answer(question)
    html = answer._repr_html_()
    assert "<script>" not in html
    assert "<blockquote>“The café&#39;s owner" in html
    page = render.conversation_html([answer], error="<b>", stories=4)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;" in page


@given(
    text=st.text(alphabet="ab<>&\"'$`{}", max_size=20),
    spans=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=4),
)
def test_marking_keeps_every_character(text: str, spans: list[tuple[int, int]]) -> None:
    import html
    import re

    shown = str(render.marked(text, 3, [Span(*span) for span in spans]))
    assert html.unescape(re.sub(r"</?mark>", "", shown)) == text
    assert shown.count("<mark>") == shown.count("</mark>") <= len(spans)
