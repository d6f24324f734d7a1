from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa.passages import (
    is_scene_mark,
    paragraph_spans,
    section_numbers,
    sentence_spans,
    split_passages,
    word_count,
)
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Section
from conftest import SEEDS

pieces = st.sampled_from(
    [
        "He ran. ",
        "“Go!” ",
        '"Why?" ',
        "she said, ",
        "Mr. ",
        "…",
        "\n",
        "\n\n",
        " ",
        "é",
        "🎉",
        ".",
        "A",
    ]
)
texts = st.one_of(st.text(max_size=300), st.lists(pieces, max_size=60).map("".join))


def is_nothing(between: str) -> bool:
    """White space, or marks between scenes."""
    return all(not part.strip() or is_scene_mark(part.strip()) for part in between.split("\n\n"))


@given(texts, st.sets(st.integers(1, 300), max_size=4))
def test_passages_and_sentences_tile_the_text(text: str, walls: set[int]) -> None:
    sections = [Section(start, "") for start in sorted(walls) if start < len(text)]
    passages = split_passages("s", text, sections)
    position = 0
    for passage in passages:
        assert is_nothing(text[position : passage.start])
        assert not any(passage.start < section.start < passage.end for section in sections)
        assert text[passage.start : passage.end] == passage.text
        assert passage.text == passage.text.strip() != ""
        inner = passage.start
        for span in sentence_spans(text, passage.start, passage.end):
            assert text[inner : span.start].strip() == ""
            assert text[span.start : span.end].strip() == text[span.start : span.end] != ""
            inner = span.end
        assert inner == passage.end
        position = passage.end
    assert is_nothing(text[position:])
    assert len({passage.id for passage in passages}) == len(passages)
    assert all(one.number <= other.number for one, other in pairwise(passages))


@pytest.mark.parametrize(
    "sentences",
    [
        ['"You were magnificent," he said, but there was no warmth.', "Her heart beat."],
        ['"Where are you going?" asked the king.', '"To the sea!" cried the boy.', "He ran."],
        ["Mr. and Mrs. Fox went to St. Ives at 5 p.m. on Monday.", "They met Dr. Brown."],
        ['"Well... I don\'t know," she said.', "He waited... and waited."],
        ['"Go away!"', '"I will not," said the troll.'],
        ["“Who is there?” said the troll.", "“It is only I.”", "And he went in."],
        ["“Yes.”", "“No.”", "They went home."],
        ['He cried: "Help! Help! The wolf is here!" but nobody came.', "So he died."],
        ["She asked him, “Do you love me?”", "He did not answer."],
        ["He had 3.5 pounds and No. 7 was his house.", "Good."],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    text = " ".join(sentences)
    assert [text[s.start : s.end] for s in sentence_spans(text)] == sentences


def test_a_line_end_inside_a_wrapped_paragraph_ends_no_sentence() -> None:
    text = "There lived a\nfarmer who had\nseven sons. He was\nold."
    assert [text[s.start : s.end] for s in sentence_spans(text)] == [
        "There lived a\nfarmer who had\nseven sons.",
        "He was\nold.",
    ]


def test_paragraphs_are_blocks_between_blank_lines() -> None:
    text = "One\ntwo.\n\n \nThree.\n\t\n\nFour."
    spans = paragraph_spans(text)
    assert [text[s.start : s.end] for s in spans] == ["One\ntwo.", "Three.", "Four."]


def test_without_blank_lines_long_lines_are_paragraphs() -> None:
    text = "A long line. " * 20 + "\n" + "Another long line. " * 20
    assert len(paragraph_spans(text)) == 2


def test_without_blank_lines_short_lines_are_one_wrapped_paragraph() -> None:
    assert len(paragraph_spans("A short line\nof a wrapped\nparagraph.")) == 1


def test_a_very_long_paragraph_is_split_at_sentence_ends_and_keeps_its_number() -> None:
    sentence = "The wolf went round and round the little house of straw. "
    passages = split_passages("s", "First.\n\n" + sentence * 60 + "\n\nLast.")
    assert [p.number for p in passages] == [1, 2, 2, 2, 3]
    assert [p.id for p in passages] == ["s#1", "s#2.1", "s#2.2", "s#2.3", "s#3"]
    assert all(word_count(p.text) <= SETTINGS.longest_passage_words + 11 for p in passages)
    assert all(p.text.endswith(".") for p in passages)


def test_marks_between_scenes_are_no_passages_and_sections_are_walls() -> None:
    text = "He ran.\n\n* * *\n\nShe slept. She woke.\n\n—\n\nEnd."
    passages = split_passages("s", text, [Section(text.index("She woke"), "Morning")])
    assert [(p.id, p.text) for p in passages] == [
        ("s#1", "He ran."),
        ("s#2", "She slept."),
        ("s#3", "She woke."),
        ("s#4", "End."),
    ]
    assert section_numbers(passages, [Section(text.index("She woke"), "Morning")]) == [0, 0, 1, 1]
    assert [p.text for p in split_passages("s", "* * *")] == ["* * *"]


def test_words_without_end_are_cut_to_passages() -> None:
    for text in ("x" * 9_000, "wolf " * 3_000, "狼" * 9_000):
        passages = split_passages("s", text)
        assert "".join(p.text for p in passages).replace(" ", "") == text.replace(" ", "")
        assert max(len(p.text) for p in passages) <= SETTINGS.longest_passage_words * 12


def test_the_seeds_split_as_they_are_printed() -> None:
    counts = {
        path.stem: len(split_passages(path.stem, path.read_text("utf-8")))
        for path in sorted(SEEDS.glob("*.txt"))
    }
    assert list(counts.values()) == [7, 9, 9, 7]


def test_real_stories_tile(shared: Path) -> None:
    stories = sorted((shared / "fairytaleqa/val/stories").glob("*.txt"))
    assert len(stories) == 23
    for path in stories:
        text = path.read_text("utf-8")
        spans = sentence_spans(text)
        told = "".join("".join(text[s.start : s.end].split()) for s in spans)
        assert told == "".join(text.split())
