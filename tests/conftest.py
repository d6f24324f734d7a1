"""What tests share: an encoder whose scores can be computed by hand, the seeds, real indexes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

os.environ["HF_HUB_OFFLINE"] = "1"

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.encoder import load_encoder
from ballet_qa.types import Encoder, FloatArray

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "seeds"
SHARED = ROOT.parent / "shared" / "data"

BASE = "http://127.0.0.1"  # a host that a server answers under

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP *.test 127.0.0.1",  # the names of test_security.py
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

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


# How often each attack was tried; a failure of one fails its test.
TRIES: Counter[str] = Counter()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how often each attack was tried: the figures of docs/security.md."""
    if TRIES:
        terminalreporter.section("attacks tried")
        for threat, count in TRIES.items():
            terminalreporter.write_line(f"{count:>6}  {threat}")


def routes_within(routes: Sequence[Any]) -> Iterator[Any]:
    """Every route of an application with a path of its own, those of included routers as well."""
    for route in routes:
        router = getattr(route, "original_router", None) or getattr(route, "_base_app", None)
        if router is not None:
            yield from routes_within(router.routes)
        elif hasattr(route, "path"):
            yield route


def wait_until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Look again and again until something is so; fail when it is not in time."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.02)


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("BALLET_QA_REQUIRE_BROWSER"):
            pytest.fail("no chromium; CI never skips the browser flows")
        pytest.skip("no chromium on this machine; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=ARGUMENTS,
        )
        yield browser
        browser.close()
