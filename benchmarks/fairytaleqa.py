"""Turn a clone of FairytaleQA (Xu et al., 2022; Apache-2.0) into stories and question files.

    git clone https://github.com/uci-soe/FairytaleQAData
    python benchmarks/fairytaleqa.py FairytaleQAData fairytaleqa

Writes `fairytaleqa/{train,val,test}/stories/*.txt` and `…/questions.jsonl`. A story is its
sections, one blank line between; the evidence of a question is the sections that its author says
it is about. A question asked twice of one story is kept once.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = ("train", "val", "test")
ANSWERS = tuple(f"answer{number}" for number in range(1, 7))


@dataclass(frozen=True, slots=True)
class Section:
    """Characters ``start:end`` of a story."""

    start: int
    end: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    split = options.clone / "data-by-train-split"
    if not split.is_dir():
        parser.error(f"{split} is not there; give a clone of uci-soe/FairytaleQAData")
    for part in PARTS:
        stories, questions = convert(split, options.out, part)
        print(f"{part}: {stories} stories, {questions} questions")


def convert(split: Path, out: Path, part: str) -> tuple[int, int]:
    """Write one part; the numbers of its stories and questions."""
    folder = out / part / "stories"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    files = sorted((split / "questions" / part).glob("*-questions.csv"))
    for file in files:
        name = file.name.removesuffix("-questions.csv")
        story = name.lower()
        text, sections = story_text(split / "section-stories" / part / f"{name}-story.csv")
        (folder / f"{story}.txt").write_text(text, "utf-8", newline="\n")
        lines += list(questions_of(file, part, story, sections))
    with (out / part / "questions.jsonl").open("w", encoding="utf-8", newline="\n") as target:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False), file=target)
    return len(files), len(lines)


def story_text(file: Path) -> tuple[str, dict[str, Section]]:
    """A story's text, and where each of its sections stands in it."""
    text, sections = "", {}
    for row in read_csv(file):
        section = plain(row["text"])
        start = len(text)
        sections[row["section"].strip()] = Section(start, start + len(section))
        text += section + "\n\n"
    return text.rstrip("\n") + "\n", sections


def questions_of(
    file: Path, part: str, story: str, sections: dict[str, Section]
) -> Iterator[dict[str, Any]]:
    asked = set()
    for row in read_csv(file):
        question = row["question"].strip()
        about = [s.strip() for s in row["cor_section"].split(",") if s.strip()]
        if question in asked:
            continue
        asked.add(question)
        answers = (row[name].strip() for name in ANSWERS if row.get(name))
        yield {
            "id": f"fqa-{part}-{story}-{row['question_id'].strip()}",
            "question": question,
            "answers": list(dict.fromkeys(answer for answer in answers if answer)),
            "evidence": [
                {"story": story, "start": sections[s].start, "end": sections[s].end} for s in about
            ],
            "kind": [row[n].strip() for n in ("attribute1", "attribute2") if row[n].strip()],
            "explicit": row["ex-or-im1"].strip() == "explicit",
            "scope": row["local-or-sum"].strip(),
        }


def plain(text: str) -> str:
    """Line ends made one, none of them after spaces, at most one blank line between paragraphs."""
    lines = [line.rstrip() for line in re.split(r"\r\n|\r|\n", text)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def read_csv(file: Path) -> list[dict[str, str]]:
    # newline="" leaves the ends of lines inside a field to us: many are a lone carriage return.
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


if __name__ == "__main__":
    main()
