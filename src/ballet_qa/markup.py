"""Trees of HTML or OpenDocument to blocks of text, by lxml. What is no text of the story stays out.

Nothing is fetched and no entity is resolved; the walk is a loop, so no nesting is too deep for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.entities import html5
from typing import Any

from lxml import etree, html

from ballet_qa.errors import LoadError

_SPACE = re.compile(r"[ \t\r\n\f]+")

_SKIPPED = frozenset(
    """
    head script style template iframe object embed canvas audio video svg math noscript select
    button rt rp map
    """.split()
)
_BLOCKS = frozenset(
    """
    address article aside blockquote body caption center dd details dialog div dl dt fieldset
    figcaption figure footer form header hgroup li main nav ol p pre section summary table tbody
    tfoot thead tr ul
    """.split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset(("td", "th"))
_SKIPPED_CLASSES = frozenset(("pagenum", "pageno", "page-number", "x-ebookmaker-pageno"))
_SKIPPED_TYPES = frozenset(("pagebreak", "noteref"))

_ODF_SKIPPED = frozenset(
    "tracked-changes annotation annotation-end bibliography table-of-content note".split()
)
_ODF_BLOCKS = frozenset("text list list-item section table table-row note-body frame".split())
_ODF_SPACES = frozenset(("s", "tab", "table-cell"))


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, or a heading (``level`` from 1), or, without text, the end of a scene.

    ``anchors`` are the ids that stand in it or directly before it.
    """

    text: str
    level: int = 0
    anchors: tuple[str, ...] = ()


def html_tree(text: str) -> Any:
    """The tree of an HTML page, however ill-formed. Raises LoadError when there is none."""
    parser = html.HTMLParser(
        encoding="utf-8", huge_tree=True, no_network=True, remove_pis=True, remove_comments=True
    )
    # lxml takes no text that declares an encoding; bytes it does.
    try:
        root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, AssertionError) as error:
        _check_finished(parser)
        raise LoadError("empty; there is no text in it") from error
    _check_finished(parser)
    return root


def _check_finished(parser: Any) -> None:
    """Refuse what the parser gave up: it has dropped the rest without a word."""
    for entry in parser.error_log:
        if entry.type == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError
        if entry.level == etree.ErrorLevels.FATAL:
            raise LoadError(f"cannot be read to its end: {entry.message}")


def xml_tree(data: bytes) -> Any:
    """The tree of a well-formed XML file: no network, no entity resolved. Raises LoadError."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_pis=True, huge_tree=False
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise LoadError(f"not well-formed XML: {error}") from error
    if root is None:
        raise LoadError("not well-formed XML: it is empty")
    return root


def html_blocks(root: Any) -> list[Block]:
    """The blocks of an HTML or XHTML tree, in document order."""
    walk = _Walk()
    for event, element in _events(root, _is_skipped_html):
        name = local_name(element)
        if event != "start":
            if event == "end" and (name in _BLOCKS or name in _HEADINGS):
                walk.flush()
            walk.pre -= event == "end" and name == "pre"
            walk.after(element)
            continue
        if name in _BLOCKS or name in _HEADINGS:
            walk.flush()
            walk.level = _HEADINGS.get(name, 0)
        walk.pre += name == "pre"
        walk.anchors += [i for i in (element.get("id"), element.get("name")) if i]
        if name == "br":
            walk.words.append("\n")
        elif name == "hr":
            walk.scene_ends()
        elif name in _CELLS:
            walk.words.append(" ")
        elif name == "img" and len(element.get("alt", "").strip()) == 1:
            walk.words.append(element.get("alt").strip())  # an ornate initial
        walk.add(element.text)
    walk.flush()
    return walk.blocks


def svg_blocks(root: Any) -> list[Block]:
    """The words of a picture: its title, its description, and each run of text."""
    told = [e for e in root.iter() if local_name(e) in ("title", "desc", "text")]
    words = [" ".join("".join(element.itertext()).split()) for element in told]
    return [Block(text) for text in words if text]


def odf_blocks(root: Any) -> list[Block]:
    """The blocks of an OpenDocument text (ODF 1.3, part 3), deletions and comments left out.

    Notes come last: they stand in the midst of the sentence that they are to.
    """
    blocks = _odf_blocks(root)
    for note in [element for element in root.iter() if local_name(element) == "note-body"]:
        blocks += _odf_blocks(note)
    return blocks


def _odf_blocks(root: Any) -> list[Block]:
    walk = _Walk()
    for event, element in _events(root, lambda e: local_name(e) in _ODF_SKIPPED):
        name = local_name(element)
        block = name in ("p", "h") or name in _ODF_BLOCKS
        if event != "start":
            if event == "end" and block:
                walk.flush()
            walk.after(element)
            continue
        if block:
            walk.flush()
        if name == "h":
            level = _attribute(element, "outline-level") or "1"
            walk.level = int(level) if level.isdigit() else 1
        elif name in _ODF_SPACES:
            walk.words.append(" ")
        elif name == "line-break":
            walk.words.append("\n")
        walk.add(element.text)
    walk.flush()
    return walk.blocks


def local_name(element: Any) -> str:
    """An element's name without its namespace, in small letters; empty for what is no element."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def title_in(root: Any) -> str | None:
    """The words of the first element called "title" that has any, in whatever namespace."""
    told = (e.text for e in root.iter() if local_name(e) == "title" and e.text)
    return next(told, None)


def types_of(element: Any) -> frozenset[str]:
    """The words of its epub:type."""
    return frozenset((_attribute(element, "type", "ops") or "").split())


class _Walk:
    """The blocks so far, and the one that is being gathered."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.words: list[str] = []
        self.anchors: list[str] = []
        self.level = 0
        self.pre = 0

    def after(self, element: Any) -> None:
        """The text behind an element's end.

        A named character, which a file may use without its table, is an element to lxml; nothing
        else is resolved.
        """
        if element.tag is etree.Entity:
            self.words.append(html5.get(f"{element.name};", ""))
        self.add(element.tail)

    def add(self, text: str | None) -> None:
        if text:
            self.words.append(text if self.pre else _SPACE.sub(" ", text))

    def flush(self) -> None:
        text = "".join(self.words)
        self.words.clear()
        text = "\n".join(line.rstrip() if self.pre else line.strip() for line in text.split("\n"))
        text = re.sub(r"\n{2,}", "\n", text).strip("\n" if self.pre else None)
        if self.level:
            text = " ".join(text.split())
        if not self.pre:
            text = re.sub(r" {2,}", " ", text)
        if text.strip():
            self.blocks.append(Block(text, self.level, tuple(self.anchors)))
            self.anchors.clear()
        self.level = 0

    def scene_ends(self) -> None:
        self.flush()
        self.blocks.append(Block("", 0, tuple(self.anchors)))
        self.anchors.clear()


def _events(root: Any, is_skipped: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """Starts and ends of elements; of what is skipped, only the text behind it, as an end."""
    skipped = None
    for event, element in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        if not isinstance(element.tag, str):  # a comment, an instruction, an entity
            if skipped is None and event != "start":
                yield "skipped", element
        elif skipped is not None:
            if event == "end" and element is skipped:
                skipped = None
                yield "skipped", element
        elif event == "start" and is_skipped(element):
            skipped = element
        else:
            yield event, element


def _is_skipped_html(element: Any) -> bool:
    classes = frozenset((element.get("class") or "").lower().split())
    return (
        local_name(element) in _SKIPPED
        or bool(classes & _SKIPPED_CLASSES)
        or bool(types_of(element) & _SKIPPED_TYPES)
        or element.get("hidden") is not None
    )


def _attribute(element: Any, name: str, space: str = "") -> str | None:
    """An attribute by its local name, in a namespace whose name holds ``space``."""
    for key, value in element.attrib.items():
        uri, _, own = key.rpartition("}")
        if own == name and (not space or space in uri or key == f"epub:{name}"):
            return str(value)
    # An HTML parser knows no namespaces.
    found = element.attrib.get(f"epub:{name}") if space else None
    return None if found is None else str(found)
