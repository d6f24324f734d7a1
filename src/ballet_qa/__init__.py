"""Ask a library of stories: the passage that answers, word for word, and the story it is from.

>>> from ballet_qa import Answerer, build_index
>>> build_index("seeds", "index")                                    # doctest: +SKIP
>>> Answerer.load("index").answer("Who owns the café?").findings     # doctest: +SKIP

Importing this package is light: torch, faiss and gradio are loaded when they are first needed.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Read by libgomp when torch or FAISS load it: their idle threads would spin, and take the cores
# from the reader's (a question took 450 ms for 350 on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_HOMES = {
    "Answer": "types",
    "Answerer": "answering",
    "BalletQAError": "errors",
    "BuildReport": "build",
    "Citation": "types",
    "Finding": "types",
    "Hit": "types",
    "Passage": "types",
    "Retriever": "retriever",
    "Story": "types",
    "build_index": "build",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from ballet_qa.answering import Answerer as Answerer
    from ballet_qa.build import BuildReport as BuildReport
    from ballet_qa.build import build_index as build_index
    from ballet_qa.errors import BalletQAError as BalletQAError
    from ballet_qa.retriever import Retriever as Retriever
    from ballet_qa.types import Answer as Answer
    from ballet_qa.types import Citation as Citation
    from ballet_qa.types import Finding as Finding
    from ballet_qa.types import Hit as Hit
    from ballet_qa.types import Passage as Passage
    from ballet_qa.types import Story as Story


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
