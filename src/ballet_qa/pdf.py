"""PDF to blocks, by PDFium (through pypdfium2): lines in reading order, gathered into paragraphs.

A PDF knows no paragraphs. Where one ends is told by the page: a wider gap, an indented line, a
short line that ends a sentence. Running heads and page numbers, which stand in the same place of
page after page, are left out.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pypdfium2

from ballet_qa.errors import LoadError
from ballet_qa.markup import Block
from ballet_qa.words import bare

_PASSWORD = "password"  # noqa: S105
_JOINED_WORD = "\ufffe"  # PDFium's mark where a hyphen at a line's end divided a word
_SENTENCE_ENDS = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*$")
_LETTERS_A_PAGE = 5
_FEWEST_PAGES_WITH_HEADS = 4
_GARBAGE_SHARE = 0.05
_VOWELS = frozenset("aeiouyáéíóúàèìòùäëïöüâêîôûåæøœ")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a page; coordinates in points from the page's lower left."""

    text: str
    left: float
    right: float
    bottom: float
    height: float
    page: int


@dataclass(frozen=True, slots=True)
class PdfText:
    """What a PDF holds: its title, its blocks (headings as its outline has them), notes."""

    title: str | None
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]


def read_pdf(data: bytes) -> PdfText:
    """The text of a PDF. Raises LoadError when it is locked, has none, or gives garbage."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if _PASSWORD in str(error).lower():
            raise LoadError("encrypted; remove the password first") from error
        raise LoadError(f"damaged: no PDF that can be opened ({error})") from error
    try:
        pages, blank = [], 0
        for number in range(len(document)):
            lines = _lines(document, number)
            blank += not lines
            pages.append(lines)
        title = (document.get_metadata_dict().get("Title") or "").strip() or None
        outline = [_outline_title(item) for item in document.get_toc()]
    finally:
        document.close()
    words = "".join(line.text for page in pages for line in page)
    letters = sum(map(str.isalnum, words))
    if letters < _LETTERS_A_PAGE * max(1, len(pages) - blank) or not letters:
        raise LoadError("no text in it, only pictures of pages; run OCR on it first")
    _check_readable(words)
    pages, heads = _without_heads(pages)
    blocks = _paragraphs([line for page in pages for line in page])
    depths = {bare(name): depth for depth, name in outline if name}
    blocks = [
        Block(" ".join(b.text.split()), depths[bare(b.text)]) if bare(b.text) in depths else b
        for b in blocks
    ]
    notes = [f"{heads} running heads and page numbers left out"] if heads else []
    if blank:
        notes.append(f"{blank} of {len(pages)} pages without text")
    return PdfText(title if title and _is_title(title) else None, tuple(blocks), tuple(notes))


def _lines(document: Any, number: int) -> list[_Line]:
    try:
        page = document[number]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError as error:
        raise LoadError(f"damaged: page {number + 1} cannot be read ({error})") from error
    lines = []
    try:
        text = text_page.get_text_range()
        # get_text_range may leave characters out, so places are looked up only while they agree.
        placed = len(text) == text_page.count_chars()
        position = 0
        for raw in text.split("\r\n"):
            words = raw.strip()
            if words:
                first = position + len(raw) - len(raw.lstrip())
                last = position + len(raw.rstrip()) - 1
                box = _box(text_page, first, last) if placed else (0.0, 0.0, 0.0, 0.0)
                lines.append(_Line(words, *box, number))
            position += len(raw) + 2
    finally:
        text_page.close()
        page.close()
    return lines


def _box(text_page: Any, first: int, last: int) -> tuple[float, float, float, float]:
    left, bottom, _, top = text_page.get_charbox(first, loose=True)
    right = text_page.get_charbox(last, loose=True)[2]
    return left, right, bottom, top - bottom


def _outline_title(item: Any) -> tuple[int, str]:
    title = item.get_title() if hasattr(item, "get_title") else item.title
    return item.level + 1, " ".join((title or "").split())


def _is_title(title: str) -> bool:
    """Whether it is one that a person gave: programs put a path or a file's name there."""
    return not re.search(r"[\\/]|\.\w{2,4}$|^untitled|^microsoft word", title, re.IGNORECASE)


def _check_readable(words: str) -> None:
    """Refuse what a font without a table of letters gives."""
    bad = sum(c == "\ufffd" or unicodedata.category(c) in ("Co", "Cn", "Cc") for c in words)
    bad -= words.count(_JOINED_WORD)
    if bad > _GARBAGE_SHARE * len(words):
        raise LoadError("its text comes out as garbage (a font without letters); run OCR on it")
    latin = [c for c in words.lower() if "a" <= unicodedata.normalize("NFD", c)[0] <= "z"]
    if len(latin) > 200 and len(latin) > len(words) / 2:
        share = sum(c in _VOWELS for c in latin) / len(latin)
        if not 0.2 < share < 0.65:
            raise LoadError("its text comes out as garbage (a font without letters); run OCR on it")


def _without_heads(pages: list[list[_Line]]) -> tuple[list[list[_Line]], int]:
    """The pages without the first and last lines that come again on page after page."""
    told = [page for page in pages if page]
    if len(told) < _FEWEST_PAGES_WITH_HEADS:
        return pages, 0
    seen: Counter[str] = Counter()
    for page in told:
        seen.update({_masked(line.text) for line in (page[0], page[-1])})
    repeated = {words for words, count in seen.items() if count * 3 > len(told)}
    kept, dropped = [], 0
    for page in pages:
        lines = list(page)
        for end in (0, -1):
            if lines and _masked(lines[end].text) in repeated:
                del lines[end]
                dropped += 1
        kept.append(lines)
    return kept, dropped


def _masked(text: str) -> str:
    """A line with its numbers alike: page numbers count on."""
    return re.sub(r"\d+", "0", text.casefold())


def _paragraphs(lines: list[_Line]) -> list[Block]:
    if not lines:
        return []
    left = statistics.multimode(round(line.left) for line in lines)[0]
    right = statistics.quantiles([line.right for line in lines], n=10)[-1] if lines[1:] else 0.0
    steps = [
        a.bottom - b.bottom
        for a, b in pairwise(lines)
        if a.page == b.page and 0 < a.bottom - b.bottom < 100
    ]
    step = statistics.median(steps) if steps else 0.0
    paragraphs = [[lines[0]]]
    for before, line in pairwise(lines):
        if _begins(before, line, left, right, step):
            paragraphs.append([])
        paragraphs[-1].append(line)
    return [Block(text) for text in (_joined(p) for p in paragraphs) if text]


def _begins(before: _Line, line: _Line, left: float, right: float, step: float) -> bool:
    """Whether a paragraph begins with this line."""
    ends = _SENTENCE_ENDS.search(before.text) is not None
    if before.height == 0:  # places unknown
        return ends and len(before.text) < 60
    if abs(line.height - before.height) > 0.25 * max(line.height, before.height):
        return True  # another size of letters: a heading begins or ends
    if line.page != before.page or line.bottom > before.bottom:
        return ends and not line.text[:1].islower()
    if step and before.bottom - line.bottom > 1.35 * step:
        return True
    if line.left > before.left + 6 and line.left > left + 6 and ends:
        return True
    short = before.right < right - 0.12 * max(1.0, right - left)
    return ends and short and not line.text[:1].islower()


def _joined(lines: list[_Line]) -> str:
    text = "\n".join(line.text for line in lines)
    return text.replace(_JOINED_WORD + "\n", "").replace(_JOINED_WORD, "").strip()
