"""What tests share: an encoder whose scores can be computed by hand, the seeds, real indexes."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.encoder import load_encoder
from ballet_qa.types import Encoder, FloatArray

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "seeds"
SHARED = ROOT.parent / "shared" / "data"

IVANOV = "000_d340ed7b25c4b089"
ROCHE = "001_b1bfc51c68ebbf0f"
KUZNETSOVA = "002_95452a759372847f"
KALMURZAEVA = "003_904abe4068c0df86"


class WordEncoder:
    """One dimension a vocabulary word; a text's vector is its word counts, made unit length."""

    vocabulary = ("wolf", "pig", "straw", "swan", "lake")
    name = "words"
    fingerprint = "words-1"
    dimension = 5

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                if word in self.vocabulary:
                    rows[row, self.vocabulary.index(word)] += 1
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, lengths, out=rows, where=lengths > 0)

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self.encode_passages(texts)


def run_apart(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in a thread of its own: Playwright's loop may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@pytest.fixture
def words() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two small stories, one paragraph of which stands in both."""
    folder = tmp_path / "shelf"
    (folder / "old").mkdir(parents=True)
    (folder / "pond.txt").write_text("Swan lake.\n\nThe wolf slept.\n", "utf-8")
    (folder / "old" / "barn.txt").write_text(
        "Wolf, pig and straw.\n\nThe wolf slept.\n\nA pig came.\n", "utf-8"
    )
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="session")
def seeds_index(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    """The index of the four seeds, by the real encoder."""
    folder = tmp_path_factory.mktemp("seeds") / "index"
    build_index(SEEDS, folder, encoder=encoder)
    return folder


@pytest.fixture(scope="session")
def answerer(seeds_index: Path, encoder: Encoder) -> Answerer:
    return Answerer.load(seeds_index, encoder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The question sets beside the project; a user's clone does not have them."""
    if not SHARED.is_dir():
        pytest.skip(f"no question sets at {SHARED}; this test needs them")
    return SHARED
