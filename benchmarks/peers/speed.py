"""Time one peer: `python speed.py SYSTEM PASSAGES.jsonl QUESTIONS.jsonl VECTORS.npy|- FOLDER`.

Prints JSON: seconds to index, resident memory, megabytes saved, warm milliseconds of each of its
retrievers, and the seconds a fresh process takes from its start to the first answer out of what was
saved. With VECTORS the encoder embeds questions only.

`python speed.py --cold SYSTEM FOLDER QUESTION` is that fresh process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from systems import SYSTEMS, Rank, be_quiet, column, weights

Load = Callable[[Path], Callable[[str], Any]]
SECONDS = 60.0  # no retriever is timed for longer


def main() -> None:
    be_quiet()
    if sys.argv[1] == "--cold":
        COLD[sys.argv[2]](Path(sys.argv[3]))(sys.argv[4])
        return
    name, passages, questions, vectors, folder = sys.argv[1:6]
    texts, asked = column(Path(passages), "text"), column(Path(questions), "question")
    given = None if vectors == "-" else np.load(vectors)
    started = time.perf_counter()
    rankers = SYSTEMS[name](texts, given, Path(folder))
    made = {"index_s": time.perf_counter() - started, "warm": {}}
    for kind, rank in rankers.items():
        made["warm"][kind] = timed(rank, asked)
    made["resident_mb"] = resident_mb()
    made["saved_mb"] = sum(p.stat().st_size for p in Path(folder).rglob("*")) / 1e6
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, __file__, "--cold", name, folder, asked[0]],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    made["cold_s"] = time.perf_counter() - started
    print(json.dumps(made))


def timed(rank: Rank, asked: list[str]) -> dict[str, float]:
    """p50 and p95 of a question, 10 passages wanted, after one that is not counted."""
    rank(asked[0], 10)
    times: list[float] = []
    for question in asked:
        started = time.perf_counter()
        rank(question, 10)
        times.append((time.perf_counter() - started) * 1000)
        if sum(times) > SECONDS * 1000:
            break
    p50, p95 = np.percentile(times, [50, 95])
    return {"p50_ms": float(p50), "p95_ms": float(p95), "n": len(times)}


def resident_mb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def cold_sentence_transformers(folder: Path) -> Callable[[str], Any]:
    import faiss
    from sentence_transformers import SentenceTransformer

    index = faiss.read_index(str(folder / "vectors.faiss"))
    model = SentenceTransformer(weights(), device="cpu")
    return lambda q: index.search(model.encode_query([q], normalize_embeddings=True), 10)


def cold_langchain(folder: Path) -> Callable[[str], Any]:
    from langchain_community.vectorstores import FAISS
    from langchain_huggingface import HuggingFaceEmbeddings

    store = FAISS.load_local(
        str(folder),
        HuggingFaceEmbeddings(model_name=weights(), encode_kwargs={"normalize_embeddings": True}),
        allow_dangerous_deserialization=True,  # its own pickle, written a moment ago
    )
    return lambda q: store.similarity_search(q, 10)


def cold_llama_index(folder: Path) -> Callable[[str], Any]:
    from llama_index.core import StorageContext, load_index_from_storage
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    index = load_index_from_storage(
        StorageContext.from_defaults(persist_dir=str(folder)),
        embed_model=HuggingFaceEmbedding(model_name=weights()),
    )
    return index.as_retriever(similarity_top_k=10).retrieve


def cold_txtai(folder: Path) -> Callable[[str], Any]:
    from txtai import Embeddings

    embeddings = Embeddings()
    embeddings.load(str(folder))
    return lambda q: embeddings.search(q, 10)


def cold_haystack(folder: Path) -> Callable[[str], Any]:
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersTextEmbedder,
    )

    store = InMemoryDocumentStore.load_from_disk(str(folder / "store.json"))
    asker = SentenceTransformersTextEmbedder(model=weights(), progress_bar=False)
    asker.warm_up()
    retriever = InMemoryEmbeddingRetriever(store)
    return lambda q: retriever.run(query_embedding=asker.run(q)["embedding"], top_k=10)


COLD: dict[str, Load] = {
    "sentence-transformers": cold_sentence_transformers,
    "LangChain": cold_langchain,
    "LlamaIndex": cold_llama_index,
    "txtai": cold_txtai,
    "Haystack": cold_haystack,
}


if __name__ == "__main__":
    main()
