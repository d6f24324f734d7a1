"""The package's own networks: files checked by sha256, opened for ONNX Runtime.

A session runs on one thread, and a row is a run: `cores.on_every_core` gives each core its own.
That is faster than batches over all cores (no padding, no waiting for each other), and what is said
of a text does not depend on what it was read together with. ONNX Runtime and tokenizers are
imported with the first network.
"""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ballet_qa.errors import BalletQAError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

WEIGHTS = Path(str(resources.files("ballet_qa").joinpath("weights")))
TOKENIZER = "tokenizer.json"
SHA256 = {
    "encoder.onnx": "944a87695ed399650906670d83b0bc345deeff1c0353363f74ce485296501c93",
    "reader.onnx": "c6ee42f5410c0f125db0e7455fac04912802483a815136ad5c601307e1fc96ef",
    TOKENIZER: "9114256b104cca80e04367526f03f46aa3c443c2ed174904142a73bbf13b9fbb",
}


def open_network(
    folder: Path, model: str, error: type[BalletQAError]
) -> tuple[Tokenizer, InferenceSession]:
    """The tokenizer and the network in ``folder``. Raises ``error`` with the remedy.

    Those of the package are checked to be what it came with.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from onnxruntime import InferenceSession, SessionOptions
    from tokenizers import Tokenizer

    if folder == WEIGHTS:
        _check(folder / model, error)
    options = SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = InferenceSession(str(folder / model), options, ["CPUExecutionProvider"])
    except Exception as problem:  # ONNX Runtime raises a class of its own for each of its codes
        raise error(f"{folder / model} is no network ({problem}); export it again") from problem
    file = folder / TOKENIZER
    if folder == WEIGHTS:
        _check(file, error)
    try:
        return Tokenizer.from_file(str(file)), session
    except Exception as problem:  # tokenizers raises nothing more special
        raise error(f"{file} is no tokenizer ({problem}); export it again") from problem


def _check(file: Path, error: type[BalletQAError]) -> None:
    try:
        with file.open("rb") as opened:
            known = hashlib.file_digest(opened, "sha256").hexdigest() == SHA256[file.name]
    except OSError:
        known = False
    if not known:
        raise error(
            f"{file} is not what this version came with; pip install --force-reinstall ballet-qa"
        )
