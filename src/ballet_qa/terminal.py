r"""Text made safe for a terminal, and the one place that prints.

A terminal obeys some characters: ESC starts commands that set the clipboard or the window's title,
a carriage return overwrites a line, bidirectional controls reorder what is read. Stories, titles,
file names and options may hold any of them. Here each becomes a visible escape, as Python writes
it (ESC is ``\x1b``).

Escaped are the C0 controls, DEL, the C1 controls, the bidirectional controls, the line and
paragraph separators, byte-order marks, annotation marks, tags, and lone surrogates, which cannot be
encoded. Joiners, soft hyphens and variation selectors are part of words and emoji: they are kept.
A tab becomes a space.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys

_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed; DEL; C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional, deprecated format controls
    r"\u2028\u2029"  # line separator, paragraph separator
    r"\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible: byte-order mark, annotations, tags
    r"\ud800-\udfff]"  # lone surrogates
)
_UTF_16_UNIT = re.compile(r"[0-9a-f]{4}")


def neutralised(text: str) -> str:
    """Text that no terminal obeys: every control is a visible escape. Only line feeds are kept."""
    return _OBEYED.sub(_python_escape, text.replace("\t", " "))


def one_line(value: object) -> str:
    """A value as a part of a line: each run of white space is one space; the rest neutralised."""
    return neutralised(" ".join(str(value).split()))


def json_text(form: object, indent: int | None = None) -> str:
    """JSON that no terminal obeys. What a parser reads from it is ``form``.

    Two lone surrogates that make a pair are read as the character they encode.
    """
    # Outside of strings JSON has ASCII alone; `json.dumps` leaves DEL and C1 as they are.
    return _OBEYED.sub(_json_escape, json.dumps(form, ensure_ascii=False, indent=indent))


def say(*lines: str, error: bool = False, flush: bool = False) -> None:
    """Print lines, on stderr if ``error``. A line feed inside a line is escaped, too."""
    shown = [neutralised(line).replace("\n", "\\n") for line in lines]
    print(*shown, sep="\n", file=sys.stderr if error else sys.stdout, flush=flush)


class LineFormatter(logging.Formatter):
    """Writes each message on one line, then its traceback, if any; both neutralised."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The message as one line."""
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The whole record."""
        return neutralised(super().format(record))


class _NeutralStream(io.TextIOWrapper):
    """A text stream that neutralises what is written to it."""

    def write(self, text: str) -> int:
        super().write(neutralised(text))
        return len(text)


def protect_stderr() -> None:
    """Neutralise whatever this process writes to stderr: tracebacks, warnings, libraries' words.

    Log records of level WARNING and above are written there, each message on one line.
    ``sys.__stderr__`` is left as it is, for progress bars.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _NeutralStream(
            sys.stderr.buffer, sys.stderr.encoding, sys.stderr.errors, line_buffering=True
        )
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(LineFormatter())
    logging.getLogger().addHandler(handler)


def _python_escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return _UTF_16_UNIT.sub(r"\\u\g<0>", units)
