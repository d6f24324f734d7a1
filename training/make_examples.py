"""Make training examples from every question set: the first step, one command.

    python training/make_examples.py --data ../shared/data --work ../reader-training

It builds the index of each training library, finds hard negatives (mining.py) and writes
``work/examples/*.jsonl``. It goes on where it stopped; the same seed gives the same files. No
validation set is read. One line is one example:

    {"id", "source", "kind", "story", "dev", "question", "ranked", "of",
     "passages": [{"title", "before", "text", "role", "answerable", "spans": [[start, end], ...]}]}

``role`` is "right", "story" (a wrong passage of the same story) or "library" (of another story).
``spans`` are characters of ``text``; an answerable passage without spans answers in words that
could not be located. ``ranked`` says that the first passage is to be ranked above the others.
``of`` is the example that a near negative was made from. ``dev`` marks the stories kept for
calibration.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mining import index_of, mine, mined
from near_negatives import Situation, near_negatives, people_of
from question_sets import (
    TRAIN_SETS,
    PassageQuestion,
    StoryQuestion,
    StorySet,
    is_dev,
    passage_questions,
    story_questions,
)
from reader_examples import locate

from ballet_qa.questions import Question, is_right
from ballet_qa.reader import context_of
from ballet_qa.shards import open_index
from ballet_qa.types import Passage
from ballet_qa.words import fold

MOST_WRONG = 12  # passages a list keeps to draw from
MOST_SPANS = 3
NEAR_SETS = frozenset(
    "squadshifts-reddit squadshifts-newwiki squadshifts-amazon squad-pieces squad2 qamr"
    " quoref-contrast".split()
)  # sets of passages whose questions near negatives are made from
NEAR_SHARE = {"qamr": 0.15, "squadshifts-newwiki": 0.5}  # where one in so many is enough

Example = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True, help="a folder for all that is made")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mine(options.data, TRAIN_SETS, options.work, options.seed)
    folder = options.work / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[tuple[str, str, str]] = Counter()
    for one in TRAIN_SETS:
        lists = ListMaker(options.data, one, options.work, options.seed)
        write(folder / f"{one.name}.jsonl", lists.examples(), counts)
    write(folder / "passages.jsonl", passage_examples(options.data, options.seed), counts)
    table = [f"{part:<6} {source:<22} {kind:<12} {n}" for (part, source, kind), n in counts.items()]
    (folder / "counts.txt").write_text("\n".join(sorted(table)) + "\n", "utf-8")
    print("\n".join(sorted(table)))


def write(file: Path, examples: Iterable[Example], counts: Counter[tuple[str, str, str]]) -> None:
    """Write examples, all or none."""
    part = file.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        for example in examples:
            print(json.dumps(example, ensure_ascii=False), file=out)
            kind = example["kind"] if example["of"] else answer_kind(example)
            source = "near" if example["of"] else example["source"]
            counts["dev" if example["dev"] else "train", source, kind] += 1
    part.replace(file)
    print(f"wrote {file}", file=sys.stderr, flush=True)


def answer_kind(example: Example) -> str:
    first = example["passages"][0]
    if not first["answerable"]:
        return "unanswerable"
    return "span" if first["spans"] else "no span"


class ListMaker:
    """Examples of one set about stories: a list of passages a question, and near negatives."""

    def __init__(self, data: Path, one: StorySet, work: Path, seed: int) -> None:
        self._set = one
        self._seed = seed
        self._questions = story_questions(data, one)
        self._mined = mined(work, one)
        self._texts = open_index(index_of(data, one, work)).texts

    def examples(self) -> Iterator[Example]:
        for question in self._questions:
            make = self._answerable if question.answerable else self._unanswerable
            made = make(question)
            if made is not None:
                yield made
                yield from self._near(question, made)

    def _answerable(self, question: StoryQuestion) -> Example | None:
        home = self._texts.story_row(question.story)
        assert home is not None, question.story
        right = [p for p in self._texts.passages_of(home) if is_right(p, question.evidence)]
        placed = _placed(question, self._texts.passages_of(home)) or _located(question, right)
        if placed is None:
            return None
        best, spans = placed
        known = {passage.id for passage in right} | {best.id}
        wrong = self._wrong(question, known)
        first = self._shown(best, "right") | {"answerable": True, "spans": spans}
        return self._example(question, [first, *wrong])

    def _unanswerable(self, question: StoryQuestion) -> Example | None:
        passages = self._wrong(question, set(), own=8)
        return self._example(question, passages) if passages else None

    def _wrong(self, question: StoryQuestion, known: set[str], own: int = 5) -> list[Example]:
        """Wrong passages: those of the story first, then those of other stories, best first."""
        found = self._mined[question.id]
        same = [i for i in found["story"] if i not in known][:own]
        others = [i for i in found["library"] if i not in known and i not in found["story"]]
        others = [i for i in others if i.rpartition("#")[0] != question.story]
        shown = [self._shown(self._passage(i), "story") for i in same]
        others = others[: MOST_WRONG - own]
        return shown + [self._shown(self._passage(i), "library") for i in others]

    def _passage(self, name: str) -> Passage:
        row = self._texts.passage_row(name)
        assert row is not None, name
        return self._texts.passage(row)

    def _shown(self, passage: Passage, role: str) -> Example:
        row = self._texts.passage_row(passage.id)
        assert row is not None
        shown = asdict(context_of(self._texts, row))
        return shown | {"role": role, "answerable": False, "spans": []}

    def _example(self, question: StoryQuestion, passages: list[Example]) -> Example:
        return {
            "id": question.id,
            "source": question.source,
            "kind": question.kind,
            "story": question.story,
            "dev": is_dev(question.story),
            "question": question.question,
            "ranked": question.answerable and len(passages) > 1,
            "of": "",
            "passages": passages,
        }

    def _near(self, question: StoryQuestion, made: Example) -> Iterator[Example]:
        if question.answerable:
            row = self._texts.story_row(question.story)
            assert row is not None
            yield from near_of(made, self._texts.story(row).text, self._seed)


@lru_cache(maxsize=64)
def people_and_words(story: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The persons of a text and all its words, folded."""
    return people_of(story), frozenset(re.findall(r"[^\W\d_]+", fold(story)))


def near_of(made: Example, story: str, seed: int) -> Iterator[Example]:
    """Near negatives of an example, each with the right passage alone.

    ``story`` is the whole text that the passage is of.
    """
    first = made["passages"][0]
    people, words = people_and_words(story)
    situation = Situation(
        question=made["question"],
        text=first["text"],
        around=f"{first['title']} {first['before']}",
        answer=tuple(first["spans"][0]) if first["spans"] else None,
        people=people,
        kind=made["kind"],
        story_words=words,
    )
    rng = np.random.default_rng([seed, zlib.crc32(made["id"].encode())])
    for kind, question in near_negatives(situation, rng):
        passage = first | {"role": "story", "answerable": False, "spans": []}
        yield made | {
            "id": f"{made['id']}~{kind}",
            "kind": kind,
            "question": question,
            "ranked": False,
            "of": made["id"],
            "passages": [passage],
        }


def _placed(
    question: StoryQuestion, passages: Sequence[Passage]
) -> tuple[Passage, list[list[int]]] | None:
    """The passage that holds the exact spans of the answer, and their characters in it."""
    if not question.spans:
        return None
    (start, end), *_ = question.spans
    holding = [p for p in passages if p.start <= start and end <= p.end]
    if not holding:
        return None
    spans = [
        [start - holding[0].start, end - holding[0].start]
        for start, end in question.spans[:MOST_SPANS]
        if holding[0].start <= start and end <= holding[0].end
    ]
    return holding[0], spans


def _located(
    question: StoryQuestion, right: Sequence[Passage]
) -> tuple[Passage, list[list[int]]] | None:
    """The right passage with the words nearest to the reference answer, if any come near."""
    if not right:
        return None
    plain = Question(question.id, question.question, question.answers, question.evidence, True)
    best, span = locate(plain, right)
    return best, [list(span)] if span else []


def passage_examples(data: Path, seed: int) -> Iterator[Example]:
    """One-passage examples of the sets that bring their own, and near negatives of some."""
    for question in passage_questions(data):
        made = _passage_example(question)
        yield made
        if question.answerable and _is_drawn(question):
            yield from near_of(made, question.text, seed)


def _is_drawn(question: PassageQuestion) -> bool:
    """Whether near negatives are made from a question of a set with its own passages."""
    share = NEAR_SHARE.get(question.source, 1.0 if question.source in NEAR_SETS else 0.0)
    return zlib.crc32(question.id.encode()) % 1000 < 1000 * share


def _passage_example(question: PassageQuestion) -> Example:
    passage = {
        "title": question.title,
        "before": "",
        "text": question.text,
        "role": "right" if question.answerable else "story",
        "answerable": question.answerable,
        "spans": [list(span) for span in question.spans[:MOST_SPANS]],
    }
    return {
        "id": question.id,
        "source": question.source,
        "kind": "",
        "story": question.title,
        "dev": False,
        "question": question.question,
        "ranked": False,
        "of": "",
        "passages": [passage],
    }


if __name__ == "__main__":
    main()
