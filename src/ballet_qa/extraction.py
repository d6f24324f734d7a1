"""Reading files in a process of its own, which may crash, hang or run out of memory.

Files come from anywhere, and PDF, EPUB and Word files are read by large libraries. So the parent
sends paths to a child, ``python -m ballet_qa.extraction``, one JSON line each, and takes back the
stories in them; a child that takes too long is killed, and one file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import selectors
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ballet_qa.errors import LoadError
from ballet_qa.loaders import load
from ballet_qa.sections import Part, Shelf, stories_in
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Section

_CHUNK = 1 << 20
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a file holds, the sha256 of its bytes, and its encoding where that was guessed."""

    shelf: Shelf
    sha256: str
    guess: str | None


class Extractor:
    """Extracts the stories of files, one after the other. A context manager."""

    def __init__(
        self,
        seconds: float = SETTINGS.max_load_seconds,
        memory: int = SETTINGS.max_load_bytes,
    ) -> None:
        """What one file may take: ``seconds``, and bytes of ``memory``."""
        self._seconds = seconds
        self._memory = memory
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Extractor:
        """Begin; the child is started with the first file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the child."""
        self._stop()

    def extract(self, path: Path) -> Extracted:
        """The stories in a file. Raises LoadError with the reason when there are none."""
        child = self._started()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(os.fsencode(path).hex()).encode() + b"\n")
            child.stdin.flush()
            answer = self._line(child)
        except BrokenPipeError:
            answer = b""
        if answer is None:
            self._stop()
            raise LoadError(
                f"takes longer than {self._seconds:.0f} s to read; save it in another format"
            )
        if not answer:
            code = child.wait()
            self._stop()
            raise LoadError(f"its reader crashed (exit {code}); save it in another format")
        return _from_form(json.loads(answer))

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = subprocess.Popen(  # noqa: S603  # ourselves, by our own path
                [sys.executable, "-m", "ballet_qa.extraction", str(self._memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libraries chat there
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._child

    def _line(self, child: subprocess.Popen[bytes]) -> bytes | None:
        """A line from the child, None when it has not come in time, empty when the child died."""
        assert child.stdout is not None
        parts: list[bytes] = []
        ends = time.monotonic() + self._seconds
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                left = ends - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                part = os.read(child.stdout.fileno(), _CHUNK)
                if not part:
                    return b""
                parts.append(part)
                if part.endswith(b"\n"):
                    return b"".join(parts)

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        for stream in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._child.wait()
        self._child = None


def read_regular(path: Path) -> bytes:
    """A file's bytes. Raises LoadError when it is no regular file, too large or not to be read."""
    try:
        # Without waiting, so that a pipe does not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise LoadError("not a regular file")
            if status.st_size > SETTINGS.max_file_bytes:
                limit = SETTINGS.max_file_bytes // 2**20
                raise LoadError(f"{status.st_size // 2**20} MB is over the limit of {limit} MB")
            return file.read()
    except OSError as error:
        raise LoadError(f"cannot be read: {error.strerror or error}") from error


def extracted(path: Path) -> Extracted:
    """The stories in a file, read in this process. Raises LoadError."""
    data = read_regular(path)
    loaded = load(path, data)
    for paragraph in _PARAGRAPH_END.split(loaded.text):
        if len(paragraph) > SETTINGS.longest_paragraph_chars:
            raise LoadError(
                f"a paragraph of {len(paragraph) // 10**6} million characters; "
                "no story is told so; put blank lines between its paragraphs"
            )
    return Extracted(stories_in(loaded), hashlib.sha256(data).hexdigest(), loaded.guess)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer each request, a line of JSON, by a line of JSON, until there are no more."""
    for line in requests:
        path = Path(os.fsdecode(bytes.fromhex(json.loads(line))))
        try:
            form: dict[str, Any] = asdict(extracted(path))
        except LoadError as error:
            form = {"refused": str(error)}
        except MemoryError:
            form = {"refused": "needs more memory to read than a story should; save it smaller"}
        except RecursionError:
            form = {"refused": "nested too deep to be read"}
        except Exception as error:  # a library's bug costs one file, not the build
            form = {"refused": f"cannot be read ({type(error).__name__}: {error})"}
        answers.write(json.dumps(form).encode() + b"\n")
        answers.flush()


def _from_form(form: dict[str, Any]) -> Extracted:
    if "refused" in form:
        raise LoadError(form["refused"])
    shelf = form["shelf"]
    parts = tuple(
        Part(p["title"], p["text"], tuple(Section(**section) for section in p["sections"]))
        for p in shelf["parts"]
    )
    told = Shelf(parts, shelf["is_anthology"], tuple(shelf["notes"]))
    return Extracted(told, form["sha256"], form["guess"])


if __name__ == "__main__":
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer)
