"""A library that stays in step: the answerer of whatever generation is live, between two questions.

A build swaps the pointer to a new generation by a rename. Who asks here gets an answerer of the
newest one; who already holds one goes on with it, and its files stay until it is let go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

from ballet_qa.answering import Answerer
from ballet_qa.cross_encoder import CrossEncoder
from ballet_qa.errors import BalletQAError, SilentError, StorageError
from ballet_qa.generation import LIVE
from ballet_qa.home import LIBRARY, Home
from ballet_qa.reader import StoryReader
from ballet_qa.retriever import Retriever
from ballet_qa.types import Encoder

_log = logging.getLogger(__name__)
_LOOK_S = 1.0  # between two looks at a URL


class Library:
    """Gives the answerer of the live generation. Safe to use from several threads."""

    def __init__(
        self,
        index_dir: str | Path,
        reader: str | Path | None = None,
        encoder: Encoder | None = None,
        opened: Callable[[Encoder | None], Answerer] | None = None,
    ) -> None:
        """Open the index. The parameters are those of `Answerer.load`, as is what is raised.

        ``opened`` opens the live generation elsewhere than in this process; it is given the encoder
        that is loaded already.
        """
        self._home = Home.at(index_dir)
        self.index_dir = self._home.folder
        self._opened = opened or self._opener(reader)
        self._opening = Lock()
        if self._home.url:
            self._home.has_library()
            Thread(target=self._look, daemon=True).start()
        self._seen = self._stamp()
        self._answerer = self._opened(encoder)

    def answerer(self) -> Answerer:
        """The answerer of the live generation.

        One that cannot be opened is not moved to: the one before goes on answering, and the log
        says why. Where a part of a cluster was silent, it is tried again.
        """
        stamp = self._stamp()
        if stamp == self._seen or not self._opening.acquire(blocking=False):
            return self._answerer  # somebody else is opening it; the old one answers meanwhile
        try:
            self._answerer = self._opened(self._answerer.retriever.encoder)
            self._seen = stamp
        except BalletQAError as error:
            if not isinstance(error, SilentError):
                self._seen = stamp
            _log.warning("staying with the index of %s: %s", self._built(), error)
        finally:
            self._opening.release()
        return self._answerer

    def _opener(self, reader: str | Path | None) -> Callable[[Encoder | None], Answerer]:
        network = CrossEncoder.loading(reader)

        def opened(encoder: Encoder | None) -> Answerer:
            retriever = Retriever.load(str(self._home), encoder)
            return Answerer(retriever, StoryReader(retriever.index, retriever.encoder, network))

        return opened

    def _look(self) -> None:
        """Have the manifest here that is at the URL."""
        while True:
            time.sleep(_LOOK_S)
            with suppress(StorageError):  # it is looked for again
                self._home.has_library()

    def _built(self) -> str:
        return self._answerer.index.manifest.built

    def _stamp(self) -> tuple[int, int] | None:
        """What changes with the pointer: a rename gives it another inode."""
        for pointer in (LIBRARY, LIVE):
            with suppress(OSError):
                status = (self.index_dir / pointer).stat()
                return status.st_ino, status.st_mtime_ns
        return None
