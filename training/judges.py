"""Readers to be measured, each behind one method: today's, a trained network, an exported one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from candidates import Case
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from reading_network import DESCRIPTION, base_marks, load_network, plain_tokenizer
from tokenizers import Tokenizer

from ballet_qa.cross_encoder import MAX_BEFORE_CHARS, Context, CrossEncoder
from ballet_qa.networks import WEIGHTS
from ballet_qa.reader import best_span, certainty
from ballet_qa.types import Span

SHIPPED = "shipped"  # the package's own reader
LONGEST_ANSWER = 30  # tokens
MOST_QUESTION = 64
MOST_TOKENS = 256
CHUNK_TOKENS = 3_072


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader says of one passage: three numbers, higher is likelier, and the few words.

    ``somewhere`` is how much likelier the best few words are than none.
    """

    relevance: float
    answerable: float
    somewhere: float
    words: str


class Judge(Protocol):
    """What is measured."""

    def judge(self, cases: Sequence[Case]) -> list[list[Verdict]]:
        """A verdict on each candidate of each case."""


def load_judge(name: str) -> Judge:
    """Today's reader ("shipped"), or the one in a folder, be it a network or exported."""
    if name == SHIPPED:
        return Shipped(WEIGHTS)
    folder = Path(name)
    if (folder / "reader.onnx").exists():
        return Exported(folder)
    return Trained(folder)


class Shipped:
    """A reader without a place for "nowhere": certainty stands in for it."""

    def __init__(self, folder: Path) -> None:
        self._network = CrossEncoder(folder)

    def judge(self, cases: Sequence[Case]) -> list[list[Verdict]]:
        return [self._judged(case) for case in cases]

    def _judged(self, case: Case) -> list[Verdict]:
        contexts = [candidate.context for candidate in case.candidates]
        judgements = self._network.judge(case.question, contexts)
        made = []
        for context, said in zip(contexts, judgements, strict=True):
            _, words = best_span(said, Span(0, len(context.text)), 0)
            text = context.text[words.start : words.end]
            made.append(Verdict(said.relevance, said.answerable, certainty(said), text))
        return made


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a question with a passage; ``offsets`` are those of the passage's text."""

    ids: list[int]
    context: int
    text: int
    offsets: NDArray[np.int32]


def sequence_of(
    tokenizer: Tokenizer, marks: tuple[int, int, int], question: str, context: Context
) -> Tokens:
    """A row for the network, as pack_examples.py and packed_batches.py put it together."""
    first, separator, _ = marks
    asked = tokenizer.encode(question, add_special_tokens=False).ids[:MOST_QUESTION]
    ids = [first, *asked, separator]
    begins = len(ids)
    for part in (context.title, context.before[-MAX_BEFORE_CHARS:]):
        if part:
            ids += [*tokenizer.encode(part, add_special_tokens=False).ids, separator]
    text = tokenizer.encode(context.text, add_special_tokens=False)
    room = max(0, MOST_TOKENS - len(ids) - 1)
    offsets = np.array(text.offsets[:room], dtype=np.int32).reshape(-1, 2)
    return Tokens([*ids, *text.ids[:room], separator], begins, len(ids), offsets)


def verdict_of(
    row: Tokens, context: Context, judged: NDArray[np.float32], places: NDArray[np.float32]
) -> Verdict:
    """The verdict in a network's logits for one row: (2,) and (tokens, 2)."""
    own = places[row.text : row.text + len(row.offsets)]
    if len(own) == 0:
        return Verdict(float(judged[0]), float(judged[1]), -20.0, "")
    table = own[:, 0][:, np.newaxis] + own[:, 1][np.newaxis, :]
    allowed = np.triu(np.ones_like(table, dtype=bool))
    allowed &= ~np.triu(allowed, LONGEST_ANSWER)
    table = np.where(allowed, table, -1e9)
    start, end = np.unravel_index(int(table.argmax()), table.shape)
    words = context.text[row.offsets[start, 0] : row.offsets[end, 1]]
    somewhere = float(table[start, end] - places[0].sum())
    return Verdict(float(judged[0]), float(judged[1]), somewhere, words)


class Trained:
    """A network that train_network.py saved."""

    def __init__(self, folder: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = load_network(folder).eval().to(self._device)
        self._tokenizer = plain_tokenizer(folder / "tokenizer.json")
        self._marks = base_marks(self._network.description.base, self._tokenizer)

    def judge(self, cases: Sequence[Case]) -> list[list[Verdict]]:
        contexts = [(case, c.context) for case in cases for c in case.candidates]
        rows = [
            sequence_of(self._tokenizer, self._marks, case.question, context)
            for case, context in contexts
        ]
        verdicts: dict[int, Verdict] = {}
        order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
        begun = time.monotonic()
        while order:
            count = max(1, CHUNK_TOKENS // len(rows[order[0]].ids))
            chunk, order = order[:count], order[count:]
            judged, places = self._read([rows[number] for number in chunk])
            for at, number in enumerate(chunk):
                context = contexts[number][1]
                verdicts[number] = verdict_of(rows[number], context, judged[at], places[at])
        print(f"  {len(rows)} rows read in {time.monotonic() - begun:.0f} s", flush=True)
        numbers = iter(range(len(rows)))
        return [[verdicts[next(numbers)] for _ in case.candidates] for case in cases]

    @torch.inference_mode()
    def _read(self, rows: list[Tokens]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        arrays = padded(rows, self._marks[2])
        inputs = [torch.from_numpy(array).to(self._device) for array in arrays.values()]
        with torch.autocast(self._device.type, torch.bfloat16):
            judged, places = self._network(*inputs)
        return judged.float().cpu().numpy(), places.float().cpu().numpy()


class Exported:
    """A network that export_network.py wrote, run by ONNX Runtime on one thread."""

    def __init__(self, folder: Path) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = 1
        self.session = InferenceSession(
            str(folder / "reader.onnx"), options, ["CPUExecutionProvider"]
        )
        self._tokenizer = plain_tokenizer(folder / "tokenizer.json")
        base = json.loads((folder / DESCRIPTION).read_text("utf-8"))["base"]
        self._marks = base_marks(base, self._tokenizer)
        self.seconds = 0.0
        self.rows = 0

    def judge(self, cases: Sequence[Case]) -> list[list[Verdict]]:
        return [[self._judged(case.question, c.context) for c in case.candidates] for case in cases]

    def _judged(self, question: str, context: Context) -> Verdict:
        row = sequence_of(self._tokenizer, self._marks, question, context)
        begun = time.perf_counter()
        (judged,), (places,) = self.session.run(["judged", "places"], padded([row], 0))
        self.seconds += time.perf_counter() - begun
        self.rows += 1
        return verdict_of(row, context, judged, places)


def padded(rows: Sequence[Tokens], padding: int) -> dict[str, NDArray[np.int64]]:
    """The network's inputs, each of shape (rows, longest row)."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, padding, dtype=np.int64)
    mask, kinds = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = row.ids
        mask[at, : len(row.ids)] = 1
        kinds[at, row.context : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
