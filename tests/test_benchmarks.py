"""The benchmarks' own arithmetic, and that the README shows what was last measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ballet_qa.questions import Evidence, Question, load_questions
from ballet_qa.types import Encoder, Hit, Passage
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import fairytaleqa
import followups
import load
import quality
import reading
import scale_out
import speed

QUESTIONS = """question_id,local-or-sum,cor_section,attribute1,attribute2,question,ex-or-im1,\
answer1,answer2,answer3,ex-or-im2,answer4,answer5,answer6
1,local,1,character,,Who swam? ,explicit,a swan,,,explicit,a swan,The swan,
2,summary,"1, 2",prediction,action,What will she do?,implicit,"fly, far",,,explicit,,,
3,local,2,character,,Who swam?,explicit,a pig,,,,,,
"""
STORY = 'section,text\n1,"A swan swam.\rIt was ""cold"". \r\rNobody came."\n2,Then she flew.\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of two files, with quotes, lone carriage returns and repeats as the real one has."""
    split = tmp_path / "clone" / "data-by-train-split"
    for kind, name, text in (
        ("questions", "The-Swan-questions.csv", QUESTIONS),
        ("section-stories", "The-Swan-story.csv", STORY),
    ):
        (split / kind / "val").mkdir(parents=True)
        (split / kind / "val" / name).write_text(text, "utf-8", newline="")
    return split


def test_a_clone_of_fairytaleqa_becomes_stories_and_questions(clone: Path, tmp_path: Path) -> None:
    assert fairytaleqa.convert(clone, tmp_path / "out", "val") == (1, 2)
    text = (tmp_path / "out/val/stories/the-swan.txt").read_text("utf-8")
    assert text == 'A swan swam.\nIt was "cold".\n\nNobody came.\n\nThen she flew.\n'
    lines = (tmp_path / "out/val/questions.jsonl").read_text("utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert first == {
        "id": "fqa-val-the-swan-1",
        "question": "Who swam?",
        "answers": ["a swan", "The swan"],
        "evidence": [{"story": "the-swan", "start": 0, "end": 41}],
        "kind": ["character"],
        "explicit": True,
        "scope": "local",
    }
    assert text[0:41].endswith("Nobody came.")
    assert [text[e["start"] : e["end"]] for e in second["evidence"]][1] == "Then she flew."
    assert (second["kind"], second["explicit"]) == (["prediction", "action"], False)
    assert second["answers"] == ["fly, far"]
    assert len(load_questions(tmp_path / "out/val/questions.jsonl")) == 2


def test_the_sections_in_shared_are_cut_as_this_script_cuts(shared: Path) -> None:
    """No clone can be had here, but the form is: whole sections, a blank line between them."""
    for part in ("train", "val"):
        texts = {
            p.stem: p.read_text("utf-8") for p in (shared / f"fairytaleqa/{part}/stories").iterdir()
        }
        assert all(fairytaleqa.plain(text) + "\n" == text for text in texts.values())
        for question in load_questions(shared / f"fairytaleqa/{part}/questions.jsonl"):
            for span in question.evidence:
                text = texts[span.story]
                assert span.start == 0 or text[: span.start].endswith("\n\n")
                assert text[span.end :] == "\n" or text[span.end :].startswith("\n\n")


def test_passages_are_judged_as_the_sections_that_hold_them() -> None:
    sections = [
        quality.Section("a", 0, 50, ""),
        quality.Section("a", 52, 100, ""),
        quality.Section("b", 0, 90, ""),
    ]
    question = Question("1", "Who?", (), (Evidence("a", 52, 100),), answerable=True)
    assert quality.right_sections(sections, question) == {1}
    hits = [
        Hit(Passage(f"{story}#{start}", story, 1, start, end, ""), 1.0, 1, "")
        for story, start, end in (("b", 40, 60), ("a", 60, 70), ("a", 72, 90), ("a", 0, 10))
    ]
    assert quality.ranked_sections(hits, quality.section_finder(sections)) == [2, 1, 0]


def test_the_readme_shows_the_committed_figures() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    results = json.loads((ROOT / "benchmarks/results/quality.json").read_text("utf-8"))
    assert quality.quality_table(results) in readme
    assert quality.compared_table(results) in readme
    results = json.loads((ROOT / "benchmarks/results/speed.json").read_text("utf-8"))
    assert speed.speed_table(results) in readme
    for made in results["sizes"].values():
        assert speed.size_table(made) in readme
    for name in ("quality", "risk", "speed"):
        assert f"(docs/plots/{name}.svg)" in readme
        assert (ROOT / f"docs/plots/{name}.svg").is_file()


def test_the_docs_show_the_committed_figures_of_a_cluster() -> None:
    docs = (ROOT / "docs/scale-out.md").read_text("utf-8")
    results = json.loads((ROOT / "benchmarks/results/scale_out.json").read_text("utf-8"))
    assert scale_out.table(results) in docs
    assert scale_out.faults_table(results) in docs


def test_a_library_of_any_size_can_be_made_without_the_question_sets(tmp_path: Path) -> None:
    folder = speed.make_library(tmp_path / "stories", 90, tmp_path / "nowhere")
    assert len(speed.library_passages(folder)) == 90
    assert len(list(folder.rglob("*.txt"))) == 3
    again = speed.make_library(tmp_path / "again", 90, tmp_path / "nowhere")
    assert speed.library_passages(again) == speed.library_passages(folder)


def test_dealt_vectors_are_unit_and_the_same_each_time(encoder: Encoder) -> None:
    dealt = speed.DealtVectors(encoder, encoder.encode_passages(["A swan.", "A lake."]))
    rows = dealt.encode_passages(["one", "two", "three"])
    assert rows.shape == (3, encoder.dimension)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.array_equal(rows, dealt.encode_passages(["one", "two", "three"]))


def test_the_docs_show_what_was_last_measured() -> None:
    def measured(name: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        return told

    answers = (ROOT / "docs/answers.md").read_text("utf-8")
    made = measured("reading")
    for title, held in made["sets"].items():
        assert reading.table(title, held) in answers
    for title, held in made["encoders"].items():
        assert reading.encoder_table(title, held) in answers
    assert reading.refusal_table(made["refusals"]) in answers
    assert (ROOT / "docs/plots/reading.svg").stat().st_size > 1000
    told = (ROOT / "docs/followups.md").read_text("utf-8")
    assert followups.table(measured("followups")) in told
    assert load.table(measured("load")) in (ROOT / "docs/reading-room.md").read_text("utf-8")
