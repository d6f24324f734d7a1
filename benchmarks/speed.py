"""How fast, and how far from what the machine could do, at 35 to a million passages.

    make bench-speed          35, 4,000, 100,000 and 1,000,000 passages, the peers beside
    make bench-speed-short    35 and 500 passages and one peer, in minutes: what CI runs
    benchmarks/speed.py --sizes 35    one size again; the others stay as they were measured

The 35 are the four seeds. The 4,000 are stories of FairytaleQA where it is at hand, else, like
every larger library, made up: real sentences recombined into paragraphs and stories; from 100,000
on their vectors are real sentence vectors with noise, dealt to the texts by hash. That is right for
time, memory and disk, and says nothing of quality. Every system runs in a process of its own, on
the same texts, the same vectors and the same questions; indexing includes loading the model. The
long form writes benchmarks/results/speed.json and its plot.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index, passage_readings
from ballet_qa.corpus import find_story_files, read_stories
from ballet_qa.encoder import STOCK, load_encoder, stock_folder
from ballet_qa.passages import section_numbers, sentence_spans, split_passages
from ballet_qa.retriever import Retriever
from ballet_qa.settings import SETTINGS
from ballet_qa.terms import ranked
from ballet_qa.types import Encoder, FloatArray, IntArray, Story
from ballet_qa.vectors import VectorIndex

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).parent / "peers"
QUESTIONS = 60
STORY_PASSAGES = 40
EMBEDDED = 10_000  # libraries up to here are embedded in earnest
TWICE = 200_000  # up to here the build of unchanged stories is timed too
# What holds every vector as a Python list, or every word of a library in Python dictionaries, is
# left out where it would need more memory than the machine has, or many minutes to load.
LARGEST = {
    "sentence-transformers": 10**6,
    "LangChain": 10**5,
    "LlamaIndex": 10**4,
    "Haystack": 10**4,
    "txtai": 10**4,
}


class DealtVectors:
    """The real encoder for questions; for passages, real sentence vectors with noise, by hash."""

    def __init__(self, encoder: Encoder, pool: FloatArray) -> None:
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.dimension = encoder.dimension
        self.encode_queries = encoder.encode_queries
        self._pool = pool

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        hashes = [zlib.crc32(text.encode()) for text in texts]
        noise = np.random.default_rng(hashes[0] if hashes else 0)
        rows = self._pool[np.array(hashes, dtype=np.int64) % len(self._pool)]
        spread = 0.3 / np.sqrt(self.dimension)
        rows = rows + noise.standard_normal(rows.shape, dtype=np.float32) * np.float32(spread)
        unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[35, 4_000, 100_000, 1_000_000])
    parser.add_argument("--ask", nargs=2, metavar=("INDEX", "QUESTIONS"), help="one process")
    parser.add_argument("--ours", nargs=3, metavar=("STORIES", "INDEX", "POOL"), help="one process")
    options = parser.parse_args()
    questions = asked(options.data)
    if options.ask:
        print(json.dumps(measure_asking(Path(options.ask[0]), json.loads(options.ask[1]))))
        return
    if options.ours:
        stories, index, pool = options.ours
        print(json.dumps(measure_ours(Path(stories), Path(index), pool, questions)))
        return
    file = Path(__file__).parent / "results" / "speed.json"
    results: dict[str, Any] = {"sizes": {}}
    if file.exists() and not options.short:
        results = json.loads(file.read_text("utf-8"))
    shell = [sys.executable, "-m", "ballet_qa", "--help"]
    results |= {"limits": machine_limits(), "help_s": seconds(shell)}
    results["embedding"] = embedding_rates(options.data)
    with tempfile.TemporaryDirectory() as folder:
        build_index(ROOT / "seeds", folder)
        results["serve_s"] = serving_seconds(Path(folder))
    for size in [35, 500] if options.short else options.sizes:
        made = measure_size(size, options, questions, results["limits"])
        results["sizes"][str(size)] = made | {"circumstances": circumstances()}
        print(size_table(made), flush=True)
        if not options.short:  # after each, for the last takes longest
            file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(speed_table(results))
    if not options.short:
        from plots import plot_speed

        plot_speed(results, ROOT / "docs" / "plots")


def asked(data: Path) -> list[str]:
    file = data / "fairytaleqa/val/questions.jsonl"
    file = file if file.exists() else ROOT / "tests" / "seed_questions.jsonl"
    lines = [json.loads(line)["question"] for line in file.read_text("utf-8").splitlines()]
    return lines[:: max(1, len(lines) // QUESTIONS)][:QUESTIONS]


def measure_size(
    size: int, options: argparse.Namespace, questions: list[str], limits: dict[str, float]
) -> dict[str, Any]:
    """Every system at one size."""
    with tempfile.TemporaryDirectory(prefix="ballet_qa-speed-") as folder:
        stories = make_library(Path(folder, "stories"), size, options.data)
        passages = library_passages(stories)
        real = len(passages) <= EMBEDDED
        pool = Path(folder, "pool.npy")
        if not real:
            np.save(pool, sentence_pool(options.data))
        word = [sys.executable, __file__, "--data", str(options.data)]
        command = [*word, "--ours", str(stories), f"{folder}/index", "-" if real else str(pool)]
        made: dict[str, Any] = {"passages": len(passages), "systems": {}}
        made["systems"]["ballet_qa"] = last_line(command)
        index_mb = made["systems"]["ballet_qa"]["vectors_mb"]
        made["limit_search_ms"] = index_mb / 1e3 / limits["read_gb_s"] * 1e3
        work = made["systems"]["ballet_qa"]["embedding_gflop"]
        made["limit_index_s"] = work / limits["gflop_s"] if work else None
        shutil.rmtree(stories)
        files = {"passages": Path(folder, "p.jsonl"), "questions": Path(folder, "q.jsonl")}
        files["passages"].write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in passages), "utf-8"
        )
        files["questions"].write_text(
            "".join(json.dumps({"question": question}) + "\n" for question in questions), "utf-8"
        )
        given = "-"
        if not real:
            given = str(Path(folder, "vectors.npy"))
            np.save(given, DealtVectors(load_encoder(), np.load(pool)).encode_passages(passages))
        python = options.peers / "bin" / "python"
        for name, largest in LARGEST.items():
            if name != "sentence-transformers" and (options.short or not python.exists()):
                continue
            if size > largest:
                made["systems"][name] = None
                continue
            kept = Path(folder, "kept")
            kept.mkdir()
            room = str(python) if python.exists() and not options.short else sys.executable
            words = [name, *map(str, files.values()), given, str(kept)]
            made["systems"][name] = last_line([room, str(PEERS / "speed.py"), *words])
            shutil.rmtree(kept)
    return made


def measure_ours(
    stories: Path, folder: Path, pool: str, questions: Sequence[str]
) -> dict[str, Any]:
    """Build, build again, and ask, in this process."""
    started = time.perf_counter()
    encoder: Any = load_encoder()
    if pool != "-":
        encoder = DealtVectors(encoder, np.load(pool))
    report = build_index(stories, folder, encoder=encoder)
    built = time.perf_counter()
    if report.passages <= TWICE:
        build_index(stories, folder, encoder=encoder)
    unchanged = time.perf_counter()
    # A process that only asks: what a server holds, not what a build needed.
    again = [sys.executable, __file__, "--ask", str(folder), json.dumps(list(questions))]
    asking = last_line(again)
    shell = [sys.executable, "-m", "ballet_qa", "ask", questions[0], "--index", str(folder)]
    live = folder / "generations" / (folder / "live").read_text().split()[0]
    vectors_mb = sum(p.stat().st_size for p in live.glob("*.rows")) / 1e6
    (stories / "one more.txt").write_text("A swan came late.\n\nNobody saw it.\n", "utf-8")
    begun = time.perf_counter()
    build_index(stories, folder, encoder=encoder)
    return asking | {
        "added_s": time.perf_counter() - begun,
        "cold_s": seconds(shell),
        "embedding_gflop": embedding_gflop(stories) if pool == "-" else None,
        "passages": report.passages,
        "sentences": report.sentences,
        "index_s": built - started,
        "unchanged_s": unchanged - built if report.passages <= TWICE else None,
        "peak_build_mb": peak_mb(),
        "saved_mb": sum(p.stat().st_size for p in live.rglob("*")) / 1e6,
        "vectors_mb": vectors_mb,
    }


def embedding_gflop(stories: Path) -> float:
    """The multiplications and additions of one pass of MiniLM over every passage and sentence.

    Two for each of its 10.6 million weights beyond the word table, a token; attention left out.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stock_folder())
    texts: dict[str, None] = {}
    for story in library_stories(stories):
        passages = split_passages(story.id, story.text, story.sections)
        parts = section_numbers(passages, story.sections)
        for passage, reading in zip(passages, passage_readings(passages, parts), strict=True):
            texts[reading] = None
            for span in sentence_spans(story.text, passage.start, passage.end):
                texts[story.text[span.start : span.end]] = None
    ids = tokenizer(list(texts), truncation=True, max_length=256)["input_ids"]
    weights = 6 * (4 * 384**2 + 2 * 384 * 1536)
    return sum(map(len, ids)) * 2 * weights / 1e9


def measure_asking(folder: Path, questions: list[str]) -> dict[str, Any]:
    """Open, ask, and be right, in a process that did not build."""
    import psutil

    encoder = load_encoder()
    started = time.perf_counter()
    answerer = Answerer.load(folder, encoder)
    made: dict[str, Any] = {"open_s": time.perf_counter() - started, "warm": {}, "batch": {}}
    search = answerer.retriever.search
    ways: dict[str, Callable[[str], Any]] = {
        "search": lambda question: search(question, 10),
        "ask": lambda question: answerer.answer(question, 5),
    }
    for name, ask in ways.items():
        for question in questions[:3]:
            ask(question)
        times = [spent(partial(ask, question)) * 1000 for question in questions]
        p50, p95 = np.percentile(times, [50, 95])
        made["warm"][name] = {"p50_ms": float(p50), "p95_ms": float(p95), "n": len(times)}
        with ThreadPoolExecutor(SETTINGS.at_once) as several:
            together = spent(lambda ask=ask: list(several.map(ask, questions)))
        made["batch"][name] = sum(times) / 1000 / together
    made["resident_mb"] = psutil.Process().memory_info().rss / 1e6
    made["kinds"] = [
        v.kind for v in (answerer.index.passage_vectors, answerer.index.sentence_vectors)
    ]
    made["recall"] = recall(answerer.retriever, questions[:20])
    return made


class Exactly:
    """A vector index's rows, of which the nearest are known by going through all of them."""

    def __init__(self, vectors: VectorIndex, queries: FloatArray, limit: int) -> None:
        self.rows, self.count = vectors.rows, vectors.count
        # As many as ours puts forward: more candidates would be another search, not a better one.
        query = queries[0]
        self._breadth = lambda wanted: len(vectors.candidates(query, wanted)[0])
        limit = self._breadth(limit)
        self._queries = queries
        self._nearest = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(queries)
        for first in range(0, vectors.count, 50_000):
            block = vectors.block(first, min(first + 50_000, vectors.count))
            ids = np.arange(first, first + len(block), dtype=np.int32)
            for place, cosines in enumerate(queries @ block.T):
                known = self._nearest[place]
                self._nearest[place] = ranked(
                    np.concatenate([known[0], ids]), np.concatenate([known[1], cosines])
                )
                self._nearest[place] = tuple(part[:limit] for part in self._nearest[place])

    def candidates(
        self, query: FloatArray, limit: int, among: object
    ) -> tuple[IntArray, FloatArray]:
        assert among is None
        place = int(np.argmax(self._queries @ query))
        rows, cosines = self._nearest[place]
        return rows[: self._breadth(limit)], cosines[: self._breadth(limit)]

    def best(self, place: int) -> set[int]:
        """The ten nearest to one of the queries."""
        return set(self._nearest[place][0][:10].tolist())


def recall(retriever: Retriever, questions: list[str]) -> dict[str, float]:
    """Of the first ten that an exact search gives, how many ours has: fused, and by vectors."""
    index, limit = retriever.index, SETTINGS.vector_candidates
    queries = retriever.encoder.encode_queries(questions)
    exact = {
        name: Exactly(getattr(index, name), queries, limit)
        for name in ("passage_vectors", "sentence_vectors")
    }
    other = Retriever(replace(index, **exact), retriever.encoder)
    shares: dict[str, list[float]] = {"search": [], **{name: [] for name in exact}}
    for place, (question, query) in enumerate(zip(questions, queries, strict=True)):
        best = {hit.passage.id for hit in other.search(question, 10)}
        found = {hit.passage.id for hit in retriever.search(question, 10)}
        shares["search"].append(len(best & found) / max(len(best), 1))
        for name, held in exact.items():
            best = held.best(place)
            found = set(getattr(index, name).search(query, limit)[0][:10].tolist())
            shares[name].append(len(best & found) / max(len(best), 1))
    return {name: float(np.mean(held)) for name, held in shares.items()}


def embedding_rates(data: Path) -> dict[str, Any]:
    """Texts a second, ours and by sentence-transformers' own call, in turns; the best of three."""
    passages = library_passages(make_library_of(data))[:256]
    sentences = [p[s.start : s.end] for p in passages for s in sentence_spans(p)][:800]
    ours, plain = load_encoder(), load_encoder(STOCK)
    ways = {"ballet_qa": ours.encode_passages, "sentence-transformers": plain.encode_passages}
    made: dict[str, Any] = {}
    for kind, texts in (("passages", passages), ("sentences", sentences)):
        best = dict.fromkeys(ways, 0.0)
        for _ in range(3):
            for name, encode in ways.items():
                best[name] = max(best[name], len(texts) / spent(partial(encode, texts)))
        made[kind] = best
    return made


def make_library_of(data: Path) -> Path:
    real = data / "fairytaleqa/val/stories"
    return real if real.is_dir() else ROOT / "seeds"


def serving_seconds(index: Path) -> float:
    """From a cold shell to a page that can be asked."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ballet_qa", "serve", "--index", str(index), "--port"]
    started = time.perf_counter()
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        taken = time.perf_counter() - started
        process.terminate()
    return taken


def seconds(command: Sequence[str]) -> float:
    """From a cold shell to the command's end, the middle of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return sorted(times)[1]


def last_line(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def peak_mb() -> float:
    """The most memory this program had; ru_maxrss would begin with that of who started it."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1e3


def machine_limits() -> dict[str, float]:
    """Bytes one core reads a second, and floating-point work all cores do, the best of five."""
    rows = np.ones((250_000, 384), dtype=np.float32)
    vector = np.ones(384, dtype=np.float32)
    with one_thread():
        reading = min(spent(lambda: rows @ vector) for _ in range(5))
    square = np.ones((2048, 2048), dtype=np.float32)
    work = min(spent(lambda: square @ square) for _ in range(5))
    return {
        "read_gb_s": rows.nbytes / reading / 1e9,
        "gflop_s": 2 * 2048**3 / work / 1e9,
    }


def spent(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def make_library(folder: Path, size: int, data: Path) -> Path:
    """A folder of stories with about ``size`` passages."""
    folder.mkdir(parents=True)
    if size == 35:
        shutil.copytree(ROOT / "seeds", folder, dirs_exist_ok=True)
        return folder
    real = data / "fairytaleqa/train/stories"
    if size <= EMBEDDED and real.is_dir():
        left = size
        for story in library_stories(real):
            passages = split_passages(story.id, story.text)[:left]
            (folder / f"{story.id}.txt").write_text(story.text[: passages[-1].end], "utf-8")
            left -= len(passages)
            if left <= 0:
                break
        return folder
    sentences = real_sentences(data)
    chance = random.Random(size)
    for number in range(-(-size // STORY_PASSAGES)):
        count = min(STORY_PASSAGES, size - number * STORY_PASSAGES)
        paragraphs = [
            " ".join(chance.choices(sentences, k=chance.choice((1, 2, 3, 4)))) for _ in range(count)
        ]
        below = folder / f"{number // 1000:03d}"
        below.mkdir(exist_ok=True)
        (below / f"{number:06d}.txt").write_text("\n\n".join(paragraphs) + "\n", "utf-8")
    return folder


@cache
def real_sentences(data: Path) -> list[str]:
    real = data / "fairytaleqa/train/stories"
    found: list[str] = []
    for story in library_stories(real if real.is_dir() else ROOT / "seeds")[:60]:
        for passage in split_passages(story.id, story.text):
            for span in sentence_spans(story.text, passage.start, passage.end):
                found.append(" ".join(story.text[span.start : span.end].split()))
    return list(dict.fromkeys(found))


@cache
def sentence_pool(data: Path) -> FloatArray:
    """Real vectors to deal: of some thousand real sentences."""
    return load_encoder().encode_passages(real_sentences(data)[:5_000])


def library_passages(stories: Path) -> list[str]:
    return [
        passage.text
        for story in library_stories(stories)
        for passage in split_passages(story.id, story.text, story.sections)
    ]


def library_stories(stories: Path) -> list[Story]:
    return [story for file in find_story_files([stories]).files for story in read_stories(file)]


def size_table(made: dict[str, Any]) -> str:
    """One size as the README shows it: values, and times as multiples of ours."""
    ours = made["systems"]["ballet_qa"]
    lines = [
        f"| {made['passages']:,} passages | passages indexed a second | p50 ms | p95 ms | to ours "
        "| memory MB | on disk MB | start to first answer s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = ours["warm"]["search"]["p50_ms"]
    for name, held in made["systems"].items():
        if held is None:
            lines.append(f"| {name} | not measured at this size | | | | | | |")
            continue
        for kind, warm in held["warm"].items():
            title = f"ballet_qa {kind}" if name == "ballet_qa" else kind
            rate = f"{made['passages'] / held['index_s']:,.0f}"
            lines.append(
                f"| {title} | {rate} | {warm['p50_ms']:.1f} | {warm['p95_ms']:.1f} "
                f"| {warm['p50_ms'] / base:.2f} | {held['resident_mb']:,.0f} "
                f"| {held['saved_mb']:,.1f} | {held['cold_s']:.1f} |"
            )
    floor = made["limit_index_s"]
    fastest = f"{made['passages'] / floor:,.0f}" if floor else ""
    lines.append(
        f"| the machine's limit for us | {fastest} | {made['limit_search_ms']:.1f} | "
        f"| {made['limit_search_ms'] / base:.2f} | | {ours['vectors_mb']:,.1f} | |"
    )
    return "\n".join(lines) + "\n"


def speed_table(results: dict[str, Any]) -> str:
    """Our own growth with size."""
    lines = [
        "| passages | vectors searched | built in s | unchanged in s | a story added in s "
        "| opened in s | search p50 ms | ask p50 ms | recall@10 of exact: vectors, search "
        "| memory MB | on disk MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for made in results["sizes"].values():
        held = made["systems"]["ballet_qa"]
        unchanged = "" if held["unchanged_s"] is None else f"{held['unchanged_s']:,.1f}"
        search, ask = (held["warm"][way]["p50_ms"] for way in ("search", "ask"))
        recalled = min(held["recall"][name] for name in ("passage_vectors", "sentence_vectors"))
        kinds = " and ".join(dict.fromkeys(held["kinds"]))
        lines.append(
            f"| {made['passages']:,} | {kinds} | {held['index_s']:,.1f} | {unchanged} "
            f"| {held['added_s']:.1f} | {held['open_s']:.2f} | {search:.0f} | {ask:.0f} "
            f"| {recalled:.3f}, {held['recall']['search']:.3f} | {held['resident_mb']:,.0f} "
            f"| {held['saved_mb']:,.1f} |"
        )
    lines += ["", "| texts embedded a second | passages | sentences |", "|---|---|---|"]
    rates = results["embedding"]
    plain = {kind: rates[kind]["sentence-transformers"] for kind in rates}
    for name in rates["passages"]:
        cells = [f"{rates[k][name]:.0f} ({rates[k][name] / plain[k]:.1f} times)" for k in rates]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    limits = results["limits"]
    cold = results["sizes"]["35"]["systems"]["ballet_qa"]["cold_s"]
    lines += [
        "",
        f"From a cold shell, `--help` takes {results['help_s']:.2f} s, a question to the seeds "
        f"{cold:.2f} s, and the page can be asked after {results['serve_s']:.1f} s. "
        f"One core reads {limits['read_gb_s']:.1f} GB/s, "
        f"all of them do {limits['gflop_s']:.0f} Gflop/s in single precision.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
