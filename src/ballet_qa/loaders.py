"""Bytes of one file to text, title and headings: one function for each format.

Formats are handled by well-kept libraries: charset-normalizer guesses encodings, markdown-it-py
reads Markdown, PyYAML (safe loader) its front matter, lxml HTML, EPUB and OpenDocument, PDFium PDF,
mammoth Word's files, striprtf RTF. docs/formats.md says what is taken from each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ballet_qa.errors import LoadError
from ballet_qa.passages import is_scene_mark

if TYPE_CHECKING:
    from ballet_qa.markup import Block

LOADERS_VERSION = 1  # counts up when a loader gives another text for the same bytes

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
_CHARSET = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE
)
_RTF_TITLE = re.compile(r"\{\\title ([^{}\\]+)\}")
_RTF_CODE_PAGE = re.compile(rb"\\ansicpg(\d+)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_TITLE = 300


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading at character ``start`` of a text; ``level`` 1 is the highest."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as text.

    ``title`` is what the format itself says; ``guess`` a detected encoding; ``headings`` begin
    chapters, or stories; at each of ``breaks`` (characters) a scene begins; ``notes`` say what was
    left out or mended.
    """

    text: str
    title: str | None = None
    guess: str | None = None
    headings: tuple[Heading, ...] = ()
    breaks: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def load(path: Path, data: bytes) -> Loaded:
    """The text of ``data``, by the suffix of ``path``. Raises LoadError with the reason."""
    if not data.strip():
        raise LoadError("empty; there is no text in it")
    loaded = LOADERS[path.suffix.lower()](data)
    whole = without_halves(loaded.text)
    if whole != loaded.text:
        loaded = replace(loaded, text=whole, headings=(), breaks=())
    if not loaded.text.strip():
        raise LoadError("empty; there is no text in it")
    return loaded


def without_halves(text: str) -> str:
    """Text that can be written: halves of characters joined to whole ones, or marked (U+FFFD).

    RTF and HTML can name such halves, and Python's names of files hold them for bytes that are no
    text.
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_plain(data: bytes) -> Loaded:
    """Plain text: byte-order mark removed, every line end a line feed, nothing else touched."""
    text, guess = decode(data)
    return Loaded(text, guess=guess)


def load_markdown(data: bytes) -> Loaded:
    """Markdown without its marks, paragraphs apart; the title from front matter or a heading."""
    from ballet_qa.markup import Block

    text, guess = decode(data)
    title, body = _front_matter(text)
    blocks = [Block(words, level) for words, level in _markdown_blocks(body)]
    heading = next((block.text for block in blocks if block.level), None)
    return _of_blocks(blocks, title or heading, guess)


def load_html(data: bytes) -> Loaded:
    """The words of a page; scripts, styles and what is hidden are left out."""
    from ballet_qa.markup import html_blocks, html_tree

    declared = _CHARSET.search(data[:2048])
    text, guess = decode(data, declared.group(1).decode("ascii") if declared else None)
    root = html_tree(text)
    title = root.findtext(".//title")
    return _of_blocks(html_blocks(root), title, guess)


def load_epub(data: bytes) -> Loaded:
    """A book's documents in spine order, chapters by its navigation."""
    from ballet_qa.epub import read_epub

    book = read_epub(data)
    return _of_blocks(book.blocks, book.title, None, book.notes, book.titled or None)


def load_pdf(data: bytes) -> Loaded:
    """A PDF's text layer, gathered into paragraphs."""
    from ballet_qa.pdf import read_pdf

    found = read_pdf(data)
    return _of_blocks(found.blocks, found.title, None, found.notes)


def load_docx(data: bytes) -> Loaded:
    """A Word document: tracked changes as if accepted, footnotes last, comments left out."""
    import mammoth

    from ballet_qa.archives import Archive
    from ballet_qa.markup import html_blocks, html_tree, title_in, xml_tree

    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise LoadError("encrypted, or a .doc by another name; save it as .docx without a password")
    archive = Archive(data)
    for name in ("[Content_Types].xml", "word/document.xml"):
        if name in archive:
            xml_tree(archive.read(name))  # mammoth's own parser resolves entities; this refuses
    try:
        made = mammoth.convert_to_html(
            BytesIO(data),
            style_map="p[style-name='Title'] => h1:fresh",
            convert_image=mammoth.images.img_element(lambda _: {}),
        )
    except Exception as error:  # mammoth has no errors of its own
        raise LoadError(f"damaged: no Word document that can be read ({error})") from error
    title = None
    if "docProps/core.xml" in archive:
        title = title_in(xml_tree(archive.read("docProps/core.xml")))
    root = html_tree(made.value)
    for link in root.iter("a"):
        if re.match(r"#(?:foot|end)note-", link.get("href", "")):
            link.text = ""  # the number of a note, which would stand in the middle of a quote
    return _of_blocks(html_blocks(root), title, None)


def load_odt(data: bytes) -> Loaded:
    """An OpenDocument text: tracked deletions and comments left out."""
    from ballet_qa.archives import Archive
    from ballet_qa.markup import local_name, odf_blocks, title_in, xml_tree

    archive = Archive(data)
    if "META-INF/manifest.xml" in archive:
        manifest = xml_tree(archive.read("META-INF/manifest.xml"))
        if any(local_name(element) == "encryption-data" for element in manifest.iter()):
            raise LoadError("encrypted; remove the password first")
    root = xml_tree(archive.read("content.xml"))
    body = next((e for e in root.iter() if local_name(e) == "body"), root)
    title = None
    if "meta.xml" in archive:
        title = title_in(xml_tree(archive.read("meta.xml")))
    return _of_blocks(odf_blocks(body), title, None)


def load_rtf(data: bytes) -> Loaded:
    """Rich text: its words, a paragraph a line."""
    from striprtf.striprtf import rtf_to_text

    from ballet_qa.markup import Block

    if not data.lstrip().startswith(b"{\\rtf"):
        raise LoadError("no RTF, though its name says so")
    page = _RTF_CODE_PAGE.search(data[:4096])
    encoding = f"cp{page.group(1).decode('ascii')}" if page else _COMMONEST
    source = data.decode("latin-1")
    try:
        text: str = rtf_to_text(source, encoding=encoding, errors="replace")  # type: ignore[no-untyped-call]
    except Exception as error:  # striprtf has no errors of its own
        raise LoadError(f"damaged: no RTF that can be read ({error})") from error
    title = _RTF_TITLE.search(source[:4096])
    blocks = [Block(line.strip()) for line in text.split("\n") if line.strip()]
    return _of_blocks(blocks, title.group(1) if title else None, None)


LOADERS: dict[str, Callable[[bytes], Loaded]] = {
    ".docx": load_docx,
    ".epub": load_epub,
    ".htm": load_html,
    ".html": load_html,
    ".markdown": load_markdown,
    ".md": load_markdown,
    ".odt": load_odt,
    ".pdf": load_pdf,
    ".rtf": load_rtf,
    ".txt": load_plain,
    ".xhtml": load_html,
}


def decode(data: bytes, declared: str | None = None) -> tuple[str, str | None]:
    """Text by byte-order mark, else UTF-8, else as ``declared``, else by a detector.

    The second value is the detector's guess, None where nothing was guessed.
    """
    text, guess = _decoded(data, declared)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x00" in text or len(_CONTROL.findall(text[:100_000])) * 50 > len(text[:100_000]):
        raise LoadError("binary, not text; convert it to text first")
    if not text.strip():
        raise LoadError("empty; there is no text in it")
    return text, guess


def _decoded(data: bytes, declared: str | None) -> tuple[str, str | None]:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), None
            except UnicodeDecodeError as error:
                raise LoadError(
                    f"marked as {encoding}, but is not; save it as UTF-8 ({error.reason})"
                ) from error
    for told in ("utf-8", *([declared] if declared else [])):
        try:
            return data.decode(told), None
        except (UnicodeDecodeError, LookupError):
            continue
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


def _of_blocks(
    blocks: Iterable[Block],
    title: str | None,
    guess: str | None,
    notes: tuple[str, ...] = (),
    titled: Mapping[int, tuple[int, str]] | None = None,
) -> Loaded:
    """Blocks as one text, a blank line between two.

    ``titled`` gives headings by block instead of the blocks' own.
    """
    parts: list[str] = []
    headings: list[Heading] = []
    breaks: list[int] = []
    position = 0
    for number, block in enumerate(blocks):
        if not block.text or is_scene_mark(block.text):
            breaks.append(position)
            continue
        named = (block.level, block.text) if titled is None else titled.get(number, (0, ""))
        if named[0]:
            headings.append(Heading(position, named[0], " ".join(named[1].split())))
        parts.append(block.text)
        position += len(block.text) + 2
    text = "\n\n".join(parts)
    title = without_halves(" ".join(title.split()))[:_LONGEST_TITLE] if title else None
    inside = sorted({at for at in breaks if 0 < at < len(text)})
    return Loaded(text, title or None, guess, tuple(headings), tuple(inside), notes)


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


def _markdown_blocks(body: str) -> list[tuple[str, int]]:
    """The text of each block with its heading's level; without text, a scene's end."""
    from markdown_it import MarkdownIt

    blocks: list[tuple[str, int]] = []
    level = 0
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "hr":
            blocks.append(("", 0))
        if token.type == "inline":
            text = "".join(
                "\n" if child.type in ("softbreak", "hardbreak") else child.content
                for child in token.children or []
            ).strip()
            text = " ".join(text.split()) if level else text
        elif token.type in ("fence", "code_block"):
            text = token.content.strip("\n")
        else:
            continue
        if text.strip():
            blocks.append((text, level))
        level = 0
    return blocks
