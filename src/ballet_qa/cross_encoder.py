"""One small network that reads a question and a passage together, by ONNX Runtime.

For each passage it says how relevant it is among its peers, whether it answers at all, and, for
each of its words, whether the answer starts or ends there. training/ makes its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ballet_qa.cores import meanwhile, on_every_core
from ballet_qa.errors import ReaderError
from ballet_qa.networks import TOKENIZER, WEIGHTS, open_network
from ballet_qa.types import FloatArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

MAX_TOKENS = 256
MAX_QUESTION_TOKENS = 64
MAX_BEFORE_CHARS = 300
_MODEL = "reader.onnx"


@dataclass(frozen=True, slots=True)
class Context:
    """A passage and the line it is read with: its story's title, the sentence before it."""

    title: str
    before: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the network says of one passage. Logits; higher is more likely.

    ``spans`` has shape (tokens, 2), characters of the passage; ``starts`` and ``ends`` a logit for
    each of these. A passage too long for the network is judged by its beginning.
    """

    relevance: float
    answerable: float
    spans: NDArray[np.int32]
    starts: FloatArray
    ends: FloatArray


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What the network is given: the tokens of question, title, sentence before and passage.

    The question ends before ``context``, the passage begins at ``begins``; ``spans`` has the
    characters of each of its tokens, shape (tokens, 2).
    """

    ids: list[int]
    context: int
    begins: int
    spans: NDArray[np.int32]


class PassageJudge(Protocol):
    """What judges passages: a `CrossEncoder`, wherever it is."""

    def judge(self, question: str, contexts: Sequence[Context]) -> list[Judgement]:
        """As `CrossEncoder.judge`."""


class CrossEncoder:
    """Reads questions with passages. Safe to use from several threads."""

    def __init__(self, folder: Path = WEIGHTS) -> None:
        """Read with the package's weights, or with those in ``folder``, which has the same files.

        Raises ReaderError when they are missing.
        """
        self._folder = folder
        self._loading = Lock()
        self._loaded: tuple[Tokenizer, InferenceSession] | None = None
        for name in (_MODEL, TOKENIZER):
            if not (folder / name).is_file():
                raise ReaderError(
                    f"no reader in {folder}: {name} is missing; name a folder that "
                    "training/export_reader.py wrote, or reinstall ballet-qa"
                )

    @classmethod
    def loading(cls, folder: str | Path | None = None) -> CrossEncoder:
        """One whose weights load while something else is done; ``folder`` is as above.

        What is wrong inside the files `judge` says.
        """
        network = cls() if folder is None else cls(Path(folder))
        meanwhile(network._load)
        return network

    def judge(self, question: str, contexts: Sequence[Context]) -> list[Judgement]:
        """A judgement for each context, in their order.

        Raises ReaderError when the weights are damaged.
        """
        tokenizer, session = self._load()
        rows = [token_row(tokenizer, question, context) for context in contexts]
        return on_every_core(lambda row: _judged(session, row), rows)

    def _load(self) -> tuple[Tokenizer, InferenceSession]:
        with self._loading:
            if self._loaded is None:
                self._loaded = open_network(self._folder, _MODEL, ReaderError)
            return self._loaded


def _judged(session: InferenceSession, row: TokenRow) -> Judgement:
    (verdict,), (places,) = session.run(["judged", "places"], padded([row]))
    own = places[row.begins : row.begins + len(row.spans)]
    return Judgement(float(verdict[0]), float(verdict[1]), row.spans, own[:, 0], own[:, 1])


def token_row(tokenizer: Tokenizer, question: str, context: Context) -> TokenRow:
    """A row for the network, a separator after each part, the passage cut at MAX_TOKENS."""

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    first, separator = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    assert first is not None
    assert separator is not None
    ids = [first, *tokens(question)[:MAX_QUESTION_TOKENS], separator]
    asked = len(ids)
    for part in (context.title, context.before[-MAX_BEFORE_CHARS:]):
        if part:
            ids += [*tokens(part), separator]
    begins = len(ids)
    told = tokenizer.encode(context.text, add_special_tokens=False)
    room = max(0, MAX_TOKENS - begins - 1)
    ids += [*told.ids[:room], separator]
    spans = np.array(told.offsets[:room], dtype=np.int32).reshape(-1, 2)
    return TokenRow(ids, asked, begins, spans)


def padded(rows: Sequence[TokenRow]) -> dict[str, NDArray[np.int64]]:
    """The network's inputs, each of shape (rows, longest row)."""
    ids = np.zeros((len(rows), max(len(row.ids) for row in rows)), dtype=np.int64)
    mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = row.ids
        mask[at, : len(row.ids)] = 1
        kinds[at, row.context : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
