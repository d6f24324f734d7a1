"""The question sets that networks learn from and are measured on, read into one form.

A set is either about stories of a library (the passage has to be found first) or comes with its own
passage. `StoryQuestion` and `PassageQuestion` are the two forms. Nothing here is random.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reader_examples import best_span, is_squad_dev, prefix_in

from ballet_qa.questions import Evidence
from ballet_qa.words import terms

LONGEST_CONTEXT = 150  # words of a text that is no story, around its answer
LONGEST_SPAN = 12  # words; a longer "answer" is evidence, which shows where but not what


@dataclass(frozen=True, slots=True)
class StorySet:
    """Questions about one library's stories; both paths are relative to the data folder."""

    name: str
    questions: str
    stories: tuple[str, ...]

    @property
    def library(self) -> str:
        """A name for the library, for the folder of its index."""
        return "+".join(part.removesuffix("/stories").replace("/", "-") for part in self.stories)


TRAIN_SETS = (
    StorySet("modern", "modern/train/questions.jsonl", ("modern/train/stories",)),
    StorySet("natural", "natural/train.jsonl", ("fairytaleqa/train/stories",)),
    StorySet("classic", "classic/train/questions.jsonl", ("classic/train/stories",)),
    StorySet("paraphrase", "paraphrase/train.jsonl", ("fairytaleqa/train/stories",)),
    StorySet("fairytaleqa", "fairytaleqa/train/questions.jsonl", ("fairytaleqa/train/stories",)),
)
VAL_SETS = (
    StorySet("modern", "modern/val/questions.jsonl", ("modern/val/stories",)),
    StorySet("natural", "natural/val.jsonl", ("fairytaleqa/val/stories",)),
    StorySet(
        "classic",
        "classic/val/questions.jsonl",
        ("classic/train/stories", "classic/val/stories"),
    ),
    StorySet("paraphrase", "paraphrase/val.jsonl", ("fairytaleqa/val/stories",)),
)


@dataclass(frozen=True, slots=True)
class StoryQuestion:
    """A question about a story of a library.

    ``story`` is the story it is about, answerable or not. ``spans`` are the exact characters of the
    story that answer; empty where the set has only ``answers`` in words.
    """

    id: str
    source: str
    kind: str
    question: str
    story: str
    answerable: bool
    answers: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PassageQuestion:
    """A question with its own passage. ``spans`` are characters of ``text``.

    No spans and ``answerable`` means that the passage answers, but no few words of it do.
    """

    id: str
    source: str
    question: str
    title: str
    text: str
    answerable: bool
    spans: tuple[tuple[int, int], ...]


def is_dev(story: str) -> bool:
    """Whether a training story is kept aside for calibration: one in ten, by a hash of its id."""
    return zlib.crc32(story.encode()) % 10 == 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def story_questions(data: Path, one: StorySet) -> list[StoryQuestion]:
    """The questions of a set about stories."""
    return [_story_question(one.name, fields) for fields in read_lines(data / one.questions)]


def _story_question(source: str, fields: dict[str, Any]) -> StoryQuestion:
    evidence = tuple(Evidence(e["story"], e["start"], e["end"]) for e in fields["evidence"])
    kind = fields.get("kind", "")
    answerable = bool(fields.get("answerable", True))
    return StoryQuestion(
        id=fields["id"],
        source=source,
        kind=kind if isinstance(kind, str) else "+".join(kind),
        question=fields["question"],
        story=evidence[0].story if evidence else fields.get("about", ""),
        answerable=answerable,
        answers=tuple(fields["answers"]),
        evidence=evidence,
        spans=tuple((s["start"], s["end"]) for s in fields.get("spans", ())),
    )


def passage_questions(data: Path) -> Iterator[PassageQuestion]:
    """The questions of every set that brings its own passages, without those kept aside."""
    for file in sorted((data / "rc").glob("*/questions.jsonl")):
        yield from _readings(file.parent.name, file, "id")
    yield from _readings("squad2", data / "squad2-dev-half/questions.jsonl", "qid")
    for fields in read_lines(data / "nq-open-oracle/questions.jsonl"):
        asked = set(terms(fields["question"]))
        _, span = best_span(fields["passage"], fields["answers"], asked)
        if span:
            yield _windowed("nq", fields["qid"], fields, fields["passage"], True, [span])
    for fields in read_lines(data / "rc/boolq-train/yesno.jsonl"):
        yield _windowed("boolq", fields["id"], fields, fields["context"], True, [])
    for number, fields in enumerate(read_lines(data / "boolq-dev/questions.jsonl")):
        yield _windowed("boolq", f"boolq-dev-{number}", fields, fields["passage"], True, [])
    yield from _dialogues(read_lines(data / "quac-sample/dialogs.jsonl"))


def _readings(source: str, file: Path, key: str) -> Iterator[PassageQuestion]:
    for fields in read_lines(file):
        if not is_squad_dev(fields["title"]):
            yield _reading(source, fields[key], fields)


def _reading(source: str, name: str, fields: dict[str, Any]) -> PassageQuestion:
    pairs = zip(fields["answer_starts"], fields["answers"], strict=True)
    spans = [(start, start + len(words)) for start, words in pairs]
    short = [span for span in spans if len(fields["context"][slice(*span)].split()) <= LONGEST_SPAN]
    answerable = not fields["is_impossible"]
    return _windowed(source, name, fields, fields["context"], answerable, short, spans)


def _dialogues(lines: Sequence[dict[str, Any]]) -> Iterator[PassageQuestion]:
    for fields in lines:
        for number, turn in enumerate(fields["turns"]):
            name, text = f"{fields['id']}-{number}", fields["passage"]
            entry = {"question": turn["question"], "title": ""}
            if turn["unanswerable"]:
                yield _windowed("quac", name, entry, text, False, [])
                continue
            words = turn["answers_joined"]
            length = prefix_in(words, text)
            if length >= 3:
                start = text.index(words[:length])
                span = (start, start + len(words[:length].rstrip(" ,;")))
                short = [span] if len(text[slice(*span)].split()) <= LONGEST_SPAN else []
                yield _windowed("quac", name, entry, text, True, short, [span])


def _windowed(
    source: str,
    name: str,
    fields: dict[str, Any],
    text: str,
    answerable: bool,
    spans: Sequence[tuple[int, int]],
    evidence: Sequence[tuple[int, int]] = (),
) -> PassageQuestion:
    """A question whose passage is cut to the words around its answer.

    Without a place to keep, the sentences around the one most like the question are kept.
    """
    around = (list(spans) or list(evidence) or [_likest(text, fields["question"])])[0]
    first, last = window(text, around)
    kept = [(s - first, e - first) for s, e in spans if first <= s and e <= last]
    title = "" if "-" in fields["title"] else fields["title"].replace("_", " ")
    return PassageQuestion(
        f"{source}-{name}",
        source,
        fields["question"],
        title if len(title) < 60 else "",
        text[first:last],
        answerable,
        tuple(dict.fromkeys(kept)),
    )


def window(text: str, around: tuple[int, int]) -> tuple[int, int]:
    """Where to cut a text so that LONGEST_CONTEXT words around a place stay, in whole sentences."""
    if len(text.split()) <= LONGEST_CONTEXT:
        return 0, len(text)
    starts = [0] + [m.end() for m in re.finditer(r"(?<=[.!?]['\"”’)])\s+|(?<=[.!?])\s+", text)]
    bounds = [*starts, len(text)]
    first = max(n for n, start in enumerate(starts) if start <= around[0])
    last = next(n for n, end in enumerate(bounds[1:], 1) if end >= around[1])
    while True:
        # The shorter side grows first, so that the answer stays near the middle.
        sides = []
        if first > 0:
            sides.append((around[0] - bounds[first], first - 1, last))
        if last < len(bounds) - 1:
            sides.append((bounds[last] - around[1], first, last + 1))
        fitting = [
            (new_first, new_last)
            for _, new_first, new_last in sorted(sides)
            if len(text[bounds[new_first] : bounds[new_last]].split()) <= LONGEST_CONTEXT
        ]
        if not fitting:
            return bounds[first], len(text[: bounds[last]].rstrip())
        first, last = fitting[0]


def _likest(text: str, question: str) -> tuple[int, int]:
    """The sentence that shares most words with a question."""
    asked = set(terms(question))
    pieces = list(re.finditer(r"[^.!?]+[.!?]*", text)) or list(re.finditer(r".+", text))
    best = max(pieces, key=lambda piece: len(asked & set(terms(piece.group()))))
    return best.start(), best.end()
