"""Turn examples into packed token ids: small files that a training machine can be sent.

    python training/pack_examples.py --work ../reader-training --base mpnet

Reads ``work/examples/*.jsonl``, writes ``work/packed/<base>.safetensors``. Each question and each
passage is kept once; an example is rows of (question, passage, labels). Arrays, all integers:

    question_ids, question_starts    tokens of all questions, and where each begins (one more)
    passage_ids, passage_starts      title, sentence before and text of each passage
    passage_text                     where a passage's own text begins among its tokens
    example_question, example_rows   question of each example; where its rows begin (one more)
    example_flags                    1 ranked, 2 kept for calibration
    example_source                   place in the metadata's list "sources"
    example_of                       the example that a near negative was made from, or -1
    row_passage, row_role            role: 0 right, 1 same story, 2 library
    row_answerable                   0 or 1
    row_spans                        (rows, 3, 2): first and last token within the text, or -1
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reading_network import BASES, base_marks, base_tokenizer
from safetensors.numpy import save_file
from tokenizers import Tokenizer

MOST_QUESTION = 40  # tokens
MOST_PASSAGE = 216  # tokens of title, sentence before and text with their separators
MOST_BEFORE_CHARS = 300
MOST_SPANS = 3
ROLES = ("right", "story", "library")
RANKED, DEV = 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", choices=sorted(BASES), default="mpnet")
    options = parser.parse_args()
    tokenizer = base_tokenizer(options.base, options.work)
    packer = Packer(tokenizer, options.base)
    files = sorted((options.work / "examples").glob("*.jsonl"))
    for file in files:
        packer.add(map(json.loads, file.read_text("utf-8").splitlines()))
    target = options.work / "packed" / f"{options.base}.safetensors"
    arrays = packer.write(target)
    size, digest = target.stat().st_size, hashlib.sha256(target.read_bytes()).hexdigest()
    print(f"{target}: {size:,} bytes, sha256 {digest}")
    for name, array in arrays.items():
        print(f"  {name:<18} {array.shape} {array.dtype}")


class Packer:
    """Collects examples as token ids."""

    def __init__(self, tokenizer: Tokenizer, base: str) -> None:
        self._tokenizer = tokenizer
        self._base = base
        self._marks = base_marks(base, tokenizer)
        self._separator = self._marks[1]
        self.sources: list[str] = []
        self._questions: dict[str, int] = {}
        self._question_ids: list[list[int]] = []
        self._passages: dict[tuple[str, str, str], int] = {}
        self._passage_ids: list[list[int]] = []
        self._passage_text: list[int] = []
        self._offsets: list[list[tuple[int, int]]] = []
        self._names: dict[str, int] = {}
        self._examples: list[tuple[int, int, int, int]] = []  # question, flags, source, of
        self._row_starts: list[int] = [0]
        self._rows: list[tuple[int, int, int]] = []  # passage, role, answerable
        self._spans: list[NDArray[np.int16]] = []

    def add(self, examples: Iterable[dict[str, Any]]) -> None:
        """Add examples; a near negative follows the example it was made from."""
        for example in examples:
            source = "near" if example["of"] else example["source"]
            if source not in self.sources:
                self.sources.append(source)
            flags = RANKED * example["ranked"] + DEV * example["dev"]
            of = self._names[example["of"]] if example["of"] else -1
            self._names[example["id"]] = len(self._examples)
            question = self._question(example["question"])
            self._examples.append((question, flags, self.sources.index(source), of))
            for passage in example["passages"]:
                self._add_row(passage)
            self._row_starts.append(len(self._rows))

    def _add_row(self, passage: dict[str, Any]) -> None:
        number = self._passage(passage)
        spans = np.full((MOST_SPANS, 2), -1, dtype=np.int16)
        found = [tokens_of(self._offsets[number], *span) for span in passage["spans"]]
        kept = [span for span in found if span is not None][:MOST_SPANS]
        if kept:
            spans[: len(kept)] = kept
        self._rows.append((number, ROLES.index(passage["role"]), int(passage["answerable"])))
        self._spans.append(spans)

    def _question(self, text: str) -> int:
        if text not in self._questions:
            self._questions[text] = len(self._question_ids)
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            self._question_ids.append(ids[:MOST_QUESTION])
        return self._questions[text]

    def _passage(self, passage: dict[str, Any]) -> int:
        key = (passage["title"], passage["before"], passage["text"])
        if key not in self._passages:
            self._passages[key] = len(self._passage_ids)
            ids: list[int] = []
            for part in (key[0], key[1][-MOST_BEFORE_CHARS:]):
                if part:
                    encoded = self._tokenizer.encode(part, add_special_tokens=False)
                    ids += [*encoded.ids, self._separator]
            text = self._tokenizer.encode(key[2], add_special_tokens=False)
            room = max(0, MOST_PASSAGE - len(ids) - 1)
            self._passage_text.append(len(ids))
            self._passage_ids.append([*ids, *text.ids[:room], self._separator])
            self._offsets.append(text.offsets[:room])
        return self._passages[key]

    def write(self, target: Path) -> dict[str, NDArray[Any]]:
        """Write the arrays with what they need to be understood; all or nothing."""
        notes = {"base": self._base, "marks": self._marks, "sources": self.sources}
        arrays, part = self.arrays(), target.with_suffix(".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in notes.items()}
        save_file(arrays, part, texts)
        part.replace(target)
        return arrays

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was added, by the names at the head of this file."""
        questions, flags, sources, of = zip(*self._examples, strict=True)
        passages, roles, answerable = zip(*self._rows, strict=True)
        return {
            "question_ids": flat(self._question_ids),
            "question_starts": starts(self._question_ids),
            "passage_ids": flat(self._passage_ids),
            "passage_starts": starts(self._passage_ids),
            "passage_text": np.array(self._passage_text, dtype=np.uint16),
            "example_question": np.array(questions, dtype=np.int32),
            "example_rows": np.array(self._row_starts, dtype=np.int32),
            "example_flags": np.array(flags, dtype=np.uint8),
            "example_source": np.array(sources, dtype=np.uint8),
            "example_of": np.array(of, dtype=np.int32),
            "row_passage": np.array(passages, dtype=np.int32),
            "row_role": np.array(roles, dtype=np.uint8),
            "row_answerable": np.array(answerable, dtype=np.uint8),
            "row_spans": np.stack(self._spans),
        }


def tokens_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """The first and the last token that a run of characters touches, None if some were cut off."""
    inside = [n for n, (first, last) in enumerate(offsets) if last > start and first < end]
    if not inside or offsets[inside[-1]][1] < end:
        return None
    return inside[0], inside[-1]


def flat(rows: list[list[int]]) -> NDArray[np.uint16]:
    return np.fromiter((i for row in rows for i in row), dtype=np.uint16)


def starts(rows: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    return np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)


if __name__ == "__main__":
    main()
