"""Packed examples to training steps: which rows are read together, in an order fixed by a seed.

A step is a few lists (a right passage with wrong ones), a few one-passage examples, and near
negatives of both, next to the example they were made from: only the difference between the two
questions decides there. Steps of like length are made together, so that little is padding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

RANKED, DEV = 1, 2  # flags of an example
RIGHT, SAME_STORY, LIBRARY = range(3)  # roles of a row
POOL = 16  # steps that are made together


@dataclass(frozen=True, slots=True)
class Mix:
    """What a step is made of. Shares need not sum to 1; sets in no share have their size as one."""

    lists: int = 3
    rows: int = 3  # a list's, its right passage among them
    singles: int = 3
    pairs: int = 1  # near negatives, each with the question it was made from
    near_lists: float = 0.8  # how often a list with a near negative brings it along
    near_singles: float = 0.5
    list_shares: dict[str, float] = field(
        default_factory=lambda: {
            "modern": 0.46,
            "natural": 0.24,
            "classic": 0.06,
            "paraphrase": 0.10,
            "fairytaleqa": 0.14,
        }
    )
    single_shares: dict[str, float] = field(
        default_factory=lambda: {
            "squadshifts-reddit": 0.22,
            "squad2": 0.22,
            "unansq": 0.13,
            "squadshifts-newwiki": 0.10,
            "squad-pieces": 0.06,
            "squadshifts-amazon": 0.05,
            "qamr": 0.05,
            "narrativeqa-sample": 0.04,
            "quoref-contrast": 0.03,
            "litbank-who-said": 0.03,
            "nq": 0.03,
            "quac": 0.02,
            "boolq": 0.01,
            "clapnq-dev": 0.01,
        }
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A question with one passage; ``of_list`` numbers the lists of a step."""

    example: int
    row: int
    of_list: int


Step = list[Row]


class Packed:
    """The arrays that pack_examples.py wrote."""

    def __init__(self, file: Path) -> None:
        with safe_open(file, "np") as opened:
            notes = opened.metadata()
            self.arrays: dict[str, NDArray[Any]] = {
                name: opened.get_tensor(name)
                for name in opened.keys()  # noqa: SIM118
            }
        self.base: str = notes["base"]
        self.first, self.separator, self.padding = json.loads(notes["marks"])
        self.sources: list[str] = json.loads(notes["sources"])

    def examples(self, source: str, *, dev: bool) -> NDArray[np.int64]:
        """The examples of a source, those kept for calibration or the others."""
        if source not in self.sources:
            raise SystemExit(f"the packed examples have nothing of {source!r}; pack them again")
        here = self.arrays["example_source"] == self.sources.index(source)
        kept = (self.arrays["example_flags"] & DEV) > 0
        return np.flatnonzero(here & (kept == dev))

    def rows_of(self, example: int) -> range:
        """The rows of an example, its right passage first if it has one."""
        first, last = self.arrays["example_rows"][example : example + 2].tolist()
        return range(first, last)

    def is_ranked(self, example: int) -> bool:
        """Whether the first passage is to be ranked above the others."""
        return bool(self.arrays["example_flags"][example] & RANKED)

    def near_of(self) -> dict[int, list[int]]:
        """The near negatives made from each example."""
        near: dict[int, list[int]] = {}
        for number in np.flatnonzero(self.arrays["example_of"] >= 0).tolist():
            near.setdefault(int(self.arrays["example_of"][number]), []).append(number)
        return near

    def length(self, example: int, row: int) -> int:
        """The tokens of a row with its marks."""
        return len(self.question(example)) + 2 + len(self.passage(row))

    def question(self, example: int) -> NDArray[np.uint16]:
        """The tokens of an example's question."""
        number = self.arrays["example_question"][example]
        return self._slice("question", number)

    def passage(self, row: int) -> NDArray[np.uint16]:
        """The tokens of a row's passage, with title and sentence before."""
        return self._slice("passage", self.arrays["row_passage"][row])

    def _slice(self, what: str, number: int) -> NDArray[np.uint16]:
        first, last = self.arrays[f"{what}_starts"][number : number + 2]
        return self.arrays[f"{what}_ids"][first:last]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded to one length.

    ``spans`` (rows, 3, 2) are places of tokens, -1 where there is none. ``allowed`` marks the
    tokens an answer may have, and the first, which means "nowhere".
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor
    allowed: torch.Tensor
    spans: torch.Tensor
    answerable: torch.Tensor
    ranked: torch.Tensor
    lists: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        names = self.__dataclass_fields__
        return Batch(**{name: getattr(self, name).to(device) for name in names})


def batch_of(packed: Packed, rows: Sequence[Row]) -> Batch:
    """The padded batch of some rows."""
    lengths = [packed.length(row.example, row.row) for row in rows]
    shape = (len(rows), max(lengths))
    ids = np.full(shape, packed.padding, dtype=np.int64)
    mask, kinds = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    allowed = np.zeros(shape, dtype=bool)
    spans = np.full((len(rows), 3, 2), -1, dtype=np.int64)
    answerable = np.zeros(len(rows), dtype=np.float32)
    ranked = np.zeros(len(rows), dtype=bool)
    for at, row in enumerate(rows):
        question, passage = packed.question(row.example), packed.passage(row.row)
        begins = len(question) + 2
        ids[at, :begins] = [packed.first, *question.tolist(), packed.separator]
        ids[at, begins : lengths[at]] = passage
        mask[at, : lengths[at]] = 1
        kinds[at, begins : lengths[at]] = 1
        number = packed.arrays["row_passage"][row.row]
        text = begins + int(packed.arrays["passage_text"][number])
        allowed[at, text : lengths[at] - 1] = True
        allowed[at, 0] = True
        found = packed.arrays["row_spans"][row.row].astype(np.int64)
        spans[at] = np.where(found >= 0, found + text, -1)
        answerable[at] = packed.arrays["row_answerable"][row.row]
        ranked[at] = packed.is_ranked(row.example) and packed.arrays["row_role"][row.row] == RIGHT
    # Where nothing answers, the answer is at the first token.
    spans[answerable == 0, 0] = 0
    return Batch(
        *map(torch.from_numpy, (ids, mask, kinds, allowed, spans, answerable, ranked)),
        torch.tensor([row.of_list for row in rows]),
    )


class Stream:
    """The examples of some sets in endless passes, a set chosen by its share each time."""

    def __init__(self, packed: Packed, shares: dict[str, float], rng: np.random.Generator) -> None:
        self._rng = rng
        self._sets = [packed.examples(source, dev=False) for source in shares]
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._orders: list[list[int]] = [[] for _ in shares]

    def draw(self, count: int) -> list[int]:
        """The next examples."""
        drawn = self._rng.choice(len(self._sets), count, p=self._shares)
        return [self._next(number) for number in drawn.tolist()]

    def _next(self, number: int) -> int:
        if not self._orders[number]:
            self._orders[number] = self._rng.permutation(self._sets[number]).tolist()
        return self._orders[number].pop()


def steps(packed: Packed, mix: Mix, seed: int) -> Iterator[Step]:
    """Endless steps; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    near = packed.near_of()
    shares = (mix.list_shares, mix.single_shares, {"near": 1.0})
    lists, singles, nears = (Stream(packed, share, rng) for share in shares)
    while True:
        groups = [
            _sorted_groups(packed, [(e, rows_of_list(packed, e, count, rng)) for e in drawn])
            for count, drawn in (
                (mix.rows, lists.draw(POOL * mix.lists)),
                (1, singles.draw(POOL * mix.singles)),
            )
        ]
        for number in rng.permutation(POOL).tolist():
            step: Step = []
            chances = (mix.near_lists, mix.near_singles)
            for group, each, chance in zip(groups, (mix.lists, mix.singles), chances, strict=True):
                for example, rows in group[number * each : (number + 1) * each]:
                    of_list = step[-1].of_list + 1 if step else 0
                    step += [Row(example, row, of_list) for row in rows]
                    twins = near.get(example, [])
                    if twins and rng.random() < chance:
                        twin = int(rng.choice(twins))
                        step.append(Row(twin, packed.rows_of(twin)[0], of_list + 1))
            for twin in nears.draw(mix.pairs):
                of_list = step[-1].of_list + 1
                asked = int(packed.arrays["example_of"][twin])
                step.append(Row(asked, packed.rows_of(asked)[0], of_list))
                step.append(Row(twin, packed.rows_of(twin)[0], of_list + 1))
            yield step


def _sorted_groups(
    packed: Packed, groups: list[tuple[int, list[int]]]
) -> list[tuple[int, list[int]]]:
    """Groups by the length of their rows."""
    return sorted(groups, key=lambda group: sum(packed.length(group[0], row) for row in group[1]))


def rows_of_list(packed: Packed, example: int, count: int, rng: np.random.Generator) -> list[int]:
    """Rows of an example: its right one, and wrong ones drawn by the order of their likeness.

    Of the wrong ones, about half are of the same story; the first of each role are likelier.
    """
    every = packed.rows_of(example)
    roles = packed.arrays["row_role"][every.start : every.stop]
    chosen = [row for row, role in zip(every, roles, strict=True) if role == RIGHT][:1]
    wrong = {
        role: [row for row, r in zip(every, roles, strict=True) if r == role]
        for role in (SAME_STORY, LIBRARY)
    }
    while len(chosen) < count and any(wrong.values()):
        same = bool(wrong[SAME_STORY]) and (not wrong[LIBRARY] or rng.random() < 0.6)
        pool = wrong[SAME_STORY if same else LIBRARY]
        chosen.append(pool.pop(min(int(rng.exponential(2.0)), len(pool) - 1)))
    return chosen


def in_chunks(packed: Packed, step: Step, most: int) -> list[Step]:
    """A step's rows in chunks of like length, each of ``most`` tokens with its padding at most."""
    ordered = sorted(step, key=lambda row: packed.length(row.example, row.row))
    chunks: list[Step] = []
    for row in ordered:
        length = packed.length(row.example, row.row)
        if chunks and (len(chunks[-1]) + 1) * length <= most:
            chunks[-1].append(row)
        else:
            chunks.append([row])
    return chunks
