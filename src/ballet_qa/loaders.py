"""Bytes of one file to text and title: one function for each format.

Formats are handled by well-kept libraries: charset-normalizer guesses encodings, markdown-it-py
reads Markdown, PyYAML (safe loader) its front matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ballet_qa.errors import LoadError

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_COMMONEST = "cp1252"
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as text. ``title`` is what the format itself says; ``guess`` a detected encoding."""

    text: str
    title: str | None = None
    guess: str | None = None


def load(path: Path, data: bytes) -> Loaded:
    """The text of ``data``, by the suffix of ``path``. Raises LoadError with the reason."""
    return LOADERS[path.suffix.lower()](data)


def load_plain(data: bytes) -> Loaded:
    """Plain text: byte-order mark removed, every line end a line feed, nothing else touched."""
    text, guess = decode(data)
    return Loaded(text, guess=guess)


def load_markdown(data: bytes) -> Loaded:
    """Markdown without its marks, paragraphs apart; the title from front matter or a heading."""
    text, guess = decode(data)
    title, body = _front_matter(text)
    blocks, heading = _markdown_blocks(body)
    return Loaded("\n\n".join(blocks), title or heading, guess)


LOADERS: dict[str, Callable[[bytes], Loaded]] = {
    ".txt": load_plain,
    ".md": load_markdown,
    ".markdown": load_markdown,
}


def decode(data: bytes) -> tuple[str, str | None]:
    """Text by byte-order mark, else UTF-8, else a detector, whose guess is the second value."""
    text, guess = _decoded(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x00" in text or len(_CONTROL.findall(text[:100_000])) * 50 > len(text[:100_000]):
        raise LoadError("binary, not text; convert it to text first")
    if not text.strip():
        raise LoadError("empty; there is no text in it")
    return text, guess


def _decoded(data: bytes) -> tuple[str, str | None]:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), None
            except UnicodeDecodeError as error:
                raise LoadError(
                    f"marked as {encoding}, but is not; save it as UTF-8 ({error.reason})"
                ) from error
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        pass
    if b"\x00" in data[:100_000]:
        raise LoadError("binary, not text; convert it to text first")
    import charset_normalizer

    matches = charset_normalizer.from_bytes(data)
    best = matches.best()
    if best is None:
        raise LoadError("in no encoding that could be recognised; save it as UTF-8")
    for match in matches:
        # The detector breaks ties by the alphabet; of equals, Western Europe's is far commonest.
        tied = (match.chaos, match.coherence) == (best.chaos, best.coherence)
        if tied and _COMMONEST in match.could_be_from_charset:
            return str(match), _COMMONEST
    return str(best).removeprefix("\ufeff"), best.encoding


def _front_matter(text: str) -> tuple[str | None, str]:
    match = _FRONT_MATTER.match(text)
    if not match:
        return None, text
    import yaml

    try:
        fields = yaml.safe_load(match.group(1))
    except yaml.YAMLError:
        return None, text  # a rule under a line of text looks like front matter, and is not
    if not isinstance(fields, dict):
        return None, text
    title = fields.get("title")
    return (str(title).strip() or None) if title is not None else None, text[match.end() :]


def _markdown_blocks(body: str) -> tuple[list[str], str | None]:
    """The text of each block, and the first heading."""
    from markdown_it import MarkdownIt

    blocks: list[str] = []
    heading: str | None = None
    in_heading = False
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type == "heading_open":
            in_heading = True
        if token.type == "inline":
            text = "".join(
                "\n" if child.type in ("softbreak", "hardbreak") else child.content
                for child in token.children or []
            ).strip()
            if in_heading and heading is None and text:
                heading = " ".join(text.split())
            in_heading = False
        elif token.type in ("fence", "code_block"):
            text = token.content.strip("\n")
        else:
            continue
        if text.strip():
            blocks.append(text)
    if not blocks:
        raise LoadError("empty; there is no text in it")
    return blocks, heading
