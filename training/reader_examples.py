"""Make the story reader's training examples: lists of passages, which answer, and with what words.

    python training/reader_examples.py --data ../shared/data --index /tmp/train-index \
        --out /tmp/reader

Writes `train.jsonl` and `dev.jsonl` (the questions of every tenth story of train, never trained
on: calibration and the weights of the final order are fitted there). `val` is not read.

One line is one list: `{"source", "question", "rank", "passages": [{"title", "before", "text",
"right", "answer": [start, end] or null}]}`; `answer` counts characters of `text`; `rank` says that
the list has right and wrong passages to be told apart.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ballet_qa.build import build_index
from ballet_qa.names import names_in_question
from ballet_qa.questions import Question, is_right, load_questions
from ballet_qa.reader import context_of
from ballet_qa.retriever import Retriever
from ballet_qa.types import Passage
from ballet_qa.words import fold, terms

LIBRARY_SIZES = (8, 23, 23, 80, 232)
DEPTH = 40
NEAR = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--index", type=Path, required=True, help="where to build train's index")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    build_index(options.data / "fairytaleqa/train/stories", options.index)
    maker = StoryLists(Retriever.load(options.index), np.random.default_rng(options.seed))
    told = load_questions(options.data / "fairytaleqa/train/questions.jsonl")
    paraphrased = load_questions(options.data / "paraphrase/train.jsonl")
    about = {
        fields["id"]: fields.get("about", "")
        for fields in read_lines(options.data / "paraphrase/train.jsonl")
    }
    options.out.mkdir(parents=True, exist_ok=True)
    counts: Counter[tuple[str, str]] = Counter()
    with (
        (options.out / "train.jsonl").open("w", encoding="utf-8") as train,
        (options.out / "dev.jsonl").open("w", encoding="utf-8") as dev,
    ):
        for story, example in maker.all(told, paraphrased, about):
            part = "dev" if is_dev(story) else "train"
            counts[part, example["source"]] += 1
            print(json.dumps(example, ensure_ascii=False), file=dev if part == "dev" else train)
        for example in other_texts(options.data, np.random.default_rng(options.seed)):
            counts["train", example["source"]] += 1
            print(json.dumps(example, ensure_ascii=False), file=train)
    for (part, source), count in sorted(counts.items()):
        print(f"{part:<6} {source:<20} {count}")


def is_dev(story: str) -> bool:
    """Every tenth story, by a hash of its id, is kept out of training."""
    return zlib.crc32(story.encode()) % 10 == 0


class StoryLists:
    """Lists drawn from the first stage's own ranking in libraries of many sizes."""

    def __init__(self, retriever: Retriever, rng: np.random.Generator) -> None:
        self.retriever = retriever
        self.texts = retriever.index.texts
        self.rng = rng

    def all(
        self, told: Sequence[Question], paraphrased: Sequence[Question], about: dict[str, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every list with the story it is about."""
        for question in progress(told, "fairytaleqa"):
            story = question.evidence[0].story
            made = self.answered(question, "fairytaleqa", wrong=4)
            if made:
                yield story, made
                swapped = self.swapped(question, made)
                if swapped:
                    yield story, swapped
        for question in progress(paraphrased, "paraphrase"):
            if question.answerable:
                story = question.evidence[0].story
                for _ in range(2):
                    made = self.answered(question, "paraphrase", wrong=6)
                    if made:
                        yield story, made
            else:
                story = about[question.id]
                yield story, self.unanswered(question, story)

    def answered(self, question: Question, source: str, wrong: int) -> dict[str, Any] | None:
        """The right passage and hard negatives, some of the same story, some of others."""
        home = self.texts.story_row(question.evidence[0].story)
        assert home is not None
        right = [p for p in self.texts.passages_of(home) if is_right(p, question.evidence)]
        if not right:
            return None
        best, answer = locate(question, right)
        drawn = self.rng.choice(self.texts.story_count, self.size(), replace=False).tolist()
        ranked = self.ranked(question.question, sorted({*drawn, home}))
        ranked = [row for row in ranked if not is_right(self.texts.passage(row), question.evidence)]
        near = self.pick(ranked[:NEAR], (wrong + 1) // 2)
        same = [row for row in ranked if self.texts.passage_story[row] == home and row not in near]
        near += self.pick(same[:NEAR], 1)
        far = [row for row in ranked if row not in near]
        rows = near + self.pick(far, wrong - len(near))
        passages = [self.shown(best, right=True, answer=answer)]
        passages += [self.shown(self.texts.passage(row)) for row in rows]
        return {"source": source, "question": question.question, "rank": True, "passages": passages}

    def swapped(self, question: Question, made: dict[str, Any]) -> dict[str, Any] | None:
        """Now and then: the same passages asked about somebody who is not in them."""
        names = names_in_question(question.question)
        if not names or self.rng.random() > 0.25:
            return None
        other = int(self.rng.integers(self.texts.story_count))
        known = [name for name, count in self.texts.names_of(other)[:3] if count > 2]
        shown = fold(" ".join(p["text"] + p["before"] + p["title"] for p in made["passages"]))
        known = [name for name in known if fold(name) not in shown]
        if not known:
            return None
        asked = question.question.replace(names[0].text, str(self.rng.choice(known)))
        first = made["passages"][0] | {"right": False, "answer": None}
        return {"source": "swapped", "question": asked, "rank": False, "passages": [first]}

    def unanswered(self, question: Question, story: str) -> dict[str, Any]:
        """A question its own story does not answer, with the passages that look most like it."""
        home = self.texts.story_row(story)
        drawn = self.rng.choice(self.texts.story_count, self.size(), replace=False).tolist()
        rows = self.ranked(question.question, [home] if home is not None else drawn)[:4]
        rows += [row for row in self.ranked(question.question, drawn)[:2] if row not in rows]
        passages = [self.shown(self.texts.passage(row)) for row in rows]
        return {
            "source": "absent",
            "question": question.question,
            "rank": False,
            "passages": passages,
        }

    def ranked(self, question: str, stories: list[int]) -> list[int]:
        ranking = self.retriever.rank(self.retriever.query(question), stories)
        return ranking.rows[:DEPTH].tolist()

    def size(self) -> int:
        return min(int(self.rng.choice(LIBRARY_SIZES)), self.texts.story_count)

    def pick(self, rows: list[int], count: int) -> list[int]:
        count = min(count, len(rows))
        return self.rng.choice(rows, count, replace=False).tolist() if count else []

    def shown(
        self, passage: Passage, *, right: bool = False, answer: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        row = self.texts.passage_row(passage.id)
        assert row is not None
        return asdict(context_of(self.texts, row)) | {"right": right, "answer": answer}


def locate(question: Question, right: Sequence[Passage]) -> tuple[Passage, tuple[int, int] | None]:
    """The right passage that most likely answers, and where; None when no words there do."""
    asked = set(terms(question.question))
    answers = {stem for answer in question.answers for stem in terms(answer)}
    candidates = []
    for passage in right:
        held = set(terms(passage.text))
        common = len(held & asked) / max(len(asked), 1)
        score, span = best_span(passage.text, question.answers, asked)
        told = len(held & answers) / max(len(answers), 1)
        candidates.append((score + 0.5 * common + 0.5 * told, -passage.start, passage, span))
    _, _, passage, span = max(candidates, key=lambda c: c[:2])
    return passage, span


def best_span(
    text: str, answers: Sequence[str], asked: set[str]
) -> tuple[float, tuple[int, int] | None]:
    """The words of a passage nearest to a reference answer, by token F1, at least .5.

    Of several places with the same words the one amid most of the question's words is taken.
    """
    words = [(m.group().lower(), m.start(), m.end()) for m in re.finditer(r"\w+(?:['’]\w+)?", text)]
    best: tuple[float, float, tuple[int, int]] | None = None
    for answer in answers:
        wanted = Counter(re.findall(r"\w+(?:['’]\w+)?", answer.lower()))
        total = sum(wanted.values())
        if not total:
            continue
        for first in range(len(words)):
            if words[first][0] not in wanted:
                continue
            left, common = wanted.copy(), 0
            for last in range(first, min(len(words), first + 2 * total)):
                if left[words[last][0]] > 0:
                    left[words[last][0]] -= 1
                    common += 1
                    if not common:
                        continue
                    f1 = 2 * common / (total + last - first + 1)
                    start, end = words[first][1], words[last][2]
                    if f1 >= 0.5 and (best is None or f1 >= best[0] - 1e-9):
                        around = set(terms(text[max(0, start - 120) : end + 120]))
                        key = (f1, len(around & asked) / (len(asked) + 1))
                        if best is None or key > best[:2]:
                            best = (*key, (start, end))
    return (best[0], best[2]) if best else (0.0, None)


def other_texts(data: Path, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Lists from texts that are no stories, so that the reader learns to read, not to guess."""
    yield from squad(read_lines(data / "squad2-dev-half/questions.jsonl"), rng)
    yield from nq(read_lines(data / "nq-open-oracle/questions.jsonl"), rng)
    yield from quac(read_lines(data / "quac-sample/dialogs.jsonl"))
    for fields in read_lines(data / "boolq-dev/questions.jsonl")[:600]:
        made = plain("boolq", fields["question"], fields["title"], fields["passage"], None)
        made["passages"][0]["right"] = True
        yield made


def squad(lines: list[dict[str, Any]], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    lines = [fields for fields in lines if not is_squad_dev(fields["title"])]
    for index in rng.choice(len(lines), 2600, replace=False):
        fields = lines[index]
        answer = None
        if not fields["is_impossible"]:
            start = fields["answer_starts"][0]
            answer = (start, start + len(fields["answers"][0]))
        yield plain("squad", fields["question"], fields["title"], fields["context"], answer)


def nq(lines: list[dict[str, Any]], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    for index in rng.choice(len(lines), 1000, replace=False):
        fields = lines[index]
        _, span = best_span(fields["passage"], fields["answers"], set(terms(fields["question"])))
        if span:
            yield plain("nq", fields["question"], fields["title"], fields["passage"], span)


def quac(dialogs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first 1,500 turns that can be used, each with about 120 words around its answer."""
    made: list[dict[str, Any]] = []
    for fields in dialogs:
        for turn in fields["turns"]:
            text, told = fields["passage"], turn["answers_joined"]
            length = prefix_in(told, text)
            if turn["unanswerable"]:
                made.append(plain("quac", turn["question"], "", *window(text, None)))
            elif length >= 3:
                start = text.index(told[:length])
                span = (start, start + len(told[:length].rstrip(" ,;")))
                made.append(plain("quac", turn["question"], "", *window(text, span)))
    yield from made[:1500]


def window(text: str, span: tuple[int, int] | None) -> tuple[str, tuple[int, int] | None]:
    """The words of a long text around a place, its beginning for none, and the place in them."""
    start, end = span or (0, 0)
    first = text.find(" ", max(0, start - 320)) + 1 if start > 320 else 0
    last = text.find(" ", end + 320)
    shown = text[first : last if last >= 0 else len(text)]
    return shown, (start - first, end - first) if span else None


def plain(
    source: str, question: str, title: str, text: str, answer: tuple[int, int] | None
) -> dict[str, Any]:
    shown = {
        "title": title.replace("_", " "),
        "before": "",
        "text": text,
        "right": answer is not None,
        "answer": list(answer) if answer is not None else None,
    }
    return {"source": source, "question": question, "rank": False, "passages": [shown]}


def is_squad_dev(title: str) -> bool:
    """Every fifth title of SQuAD is kept aside for validation."""
    return zlib.crc32(title.encode()) % 5 == 0


def prefix_in(words: str, text: str) -> int:
    """How many first characters of ``words`` stand side by side in ``text``."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if words[:middle] in text:
            low = middle
        else:
            high = middle - 1
    return low


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def progress(items: Sequence[Question], what: str) -> Iterator[Question]:
    for number, item in enumerate(items, start=1):
        if number % 500 == 0 or number == len(items):
            print(f"{what}: {number} of {len(items)}", file=sys.stderr, flush=True)
        yield item


if __name__ == "__main__":
    main()
