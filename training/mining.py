"""Find hard negatives: the passages that today's search ranks high and that do not answer.

Each question is asked of a library of its own: its story and others drawn at random, because small
libraries bring up more passages of the same story. The result is kept on disk question by question,
so that a stopped run goes on where it was.
"""

from __future__ import annotations

import json
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from question_sets import StoryQuestion, StorySet, story_questions

from ballet_qa.build import build_index
from ballet_qa.retriever import Retriever

LIBRARY_SIZES = (8, 24, 43, 43, 10_000)  # stories
DEPTH = 16  # passages of the library, at most
SAME_STORY = 8  # passages of the question's own story, at most


def index_of(data: Path, one: StorySet, work: Path) -> Path:
    """The folder of the index of a set's library; it is built when it is missing."""
    folder = work / "indexes" / one.library
    build_index([data / stories for stories in one.stories], folder)
    return folder


def mine(data: Path, sets: tuple[StorySet, ...], work: Path, seed: int) -> None:
    """Write ``work/mined/<set>.jsonl``: a line a question, its passages' ids by falling score."""
    for one in sets:
        index_of(data, one, work)
    (work / "mined").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(_mine_set, data, one, work, seed) for one in sets]
        for job in jobs:
            job.result()


def mined(work: Path, one: StorySet) -> dict[str, dict[str, list[str]]]:
    """What was found: by question, passage ids of the ``library`` and of the question's ``story``.

    A last line that was cut off by a stop is left out.
    """
    file = work / "mined" / f"{one.name}.jsonl"
    if not file.exists():
        return {}
    whole = file.read_text("utf-8").rpartition("\n")[0]
    return {fields["id"]: fields for fields in map(json.loads, whole.splitlines())}


def _mine_set(data: Path, one: StorySet, work: Path, seed: int) -> None:
    known = mined(work, one)
    file = work / "mined" / f"{one.name}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in known.values()), "utf-8")
    retriever = Retriever.load(index_of(data, one, work))
    questions = [q for q in story_questions(data, one) if q.id not in known]
    with file.open("a", encoding="utf-8") as out:
        for number, question in enumerate(questions, start=1):
            print(json.dumps(_ranked(retriever, question, seed)), file=out, flush=True)
            if number % 200 == 0 or number == len(questions):
                print(f"{one.name}: {number} of {len(questions)}", file=sys.stderr, flush=True)


def _ranked(retriever: Retriever, question: StoryQuestion, seed: int) -> dict[str, object]:
    texts = retriever.index.texts
    rng = np.random.default_rng([seed, zlib.crc32(question.id.encode())])
    home = texts.story_row(question.story)
    size = min(int(rng.choice(LIBRARY_SIZES)), texts.story_count)
    library = set(rng.choice(texts.story_count, size, replace=False).tolist())
    own = [] if home is None else [home]
    query = retriever.query(question.question)
    wide = retriever.rank(query, sorted(library.union(own))).rows[:DEPTH].tolist()
    near = retriever.rank(query, own).rows[:SAME_STORY].tolist() if own else []
    ids = {
        name: [texts.passage(row).id for row in rows]
        for name, rows in (("library", wide), ("story", near))
    }
    return {"id": question.id} | ids
