"""EPUB 2 and 3 to blocks: documents in spine order, headings as the navigation has them.

After EPUB 3.3 (W3C, 2025): META-INF/container.xml names the package, its spine the order. Nothing
that stands outside the archive is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

from ballet_qa.archives import Archive, resolved
from ballet_qa.errors import LoadError
from ballet_qa.markup import (
    Block,
    html_blocks,
    html_tree,
    local_name,
    svg_blocks,
    title_in,
    types_of,
    xml_tree,
)

_SVG = "image/svg+xml"
_TEXT_TYPES = frozenset(
    (
        "application/xhtml+xml",
        "text/html",
        "application/x-dtbook+xml",
        "text/x-oeb1-document",
        _SVG,
    )
)
_LEFT_OUT = "left out, by their own marks"
# Fonts may be garbled by these without a word of the text being locked.
_FONT_CIPHERS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
# What the makers of a book put around it, by their own marks (EPUB Structural Semantics 1.1).
_APPARATUS = frozenset(
    "titlepage halftitlepage copyright-page imprint colophon cover toc landmarks loi lot".split()
)


@dataclass(frozen=True, slots=True)
class Book:
    """What an EPUB holds. ``titled`` has the navigation's titles, by block, with their depth."""

    title: str | None
    blocks: tuple[Block, ...]
    titled: dict[int, tuple[int, str]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    path: str
    media_type: str
    properties: frozenset[str]
    fallback: str | None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the navigation: its depth from 1, its words, the member and anchor it leads to."""

    depth: int
    title: str
    path: str
    fragment: str


def read_epub(data: bytes) -> Book:
    """The book in ``data``. Raises LoadError with the reason when it cannot be read."""
    archive = Archive(data)
    package_path = _package_path(archive)
    package = xml_tree(archive.read(package_path))
    items = _items(package, package_path)
    notes: list[str] = []
    spine = _spine(package, items, notes)
    locked = _locked(archive)
    if any(item.path in locked for item in spine):
        raise LoadError("encrypted (DRM); its text is locked")
    blocks, places = _told(archive, spine, notes)
    if not any(block.text for block in blocks):
        # A book of nothing but what is left out elsewhere.
        notes = [note for note in notes if not note.startswith(_LEFT_OUT)]
        blocks, places = _told(archive, spine, notes, everything=True)
    if not any(block.text for block in blocks):
        raise LoadError("no text in it, only pictures")
    titled: dict[int, tuple[int, str]] = {}
    for entry in _navigation(archive, items, notes):
        place = places.get((entry.path, entry.fragment), places.get((entry.path, "")))
        while place is not None and place < len(blocks) and not blocks[place].text:
            place += 1
        if place is not None and place < len(blocks):
            titled.setdefault(place, (entry.depth, entry.title))
    return Book(_title(package), tuple(blocks), titled, tuple(notes))


def _told(
    archive: Archive, spine: list[_Item], notes: list[str], *, everything: bool = False
) -> tuple[list[Block], dict[tuple[str, str], int]]:
    """The blocks of all documents, and the block that each (member, anchor) leads to.

    The table of contents is used, not told, and what the makers put around a book is left out,
    unless ``everything`` is wanted.
    """
    blocks: list[Block] = []
    places: dict[tuple[str, str], int] = {}
    apparatus: list[str] = []
    for item in spine:
        if "nav" in item.properties and not everything:
            continue
        if item.path not in archive:
            notes.append(f"{item.path} is named in the spine and missing")
            continue
        root = _document(archive.read(item.path), item.path, notes)
        if _is_apparatus(root) and not everything:
            apparatus.append(_name_of(root))
            continue
        places[item.path, ""] = len(blocks)
        told = svg_blocks(root) if item.media_type == _SVG else html_blocks(root)
        for block in [Block(""), *told]:
            for anchor in block.anchors:
                places.setdefault((item.path, anchor), len(blocks))
            blocks.append(block)
    if apparatus:
        notes.append(f"{_LEFT_OUT}: {', '.join(apparatus)}")
    return blocks, places


def _package_path(archive: Archive) -> str:
    container = xml_tree(archive.read("META-INF/container.xml"))
    for element in container.iter():
        if local_name(element) == "rootfile" and element.get("full-path"):
            return str(element.get("full-path"))
    raise LoadError("META-INF/container.xml names no package")


def _items(package: Any, package_path: str) -> dict[str, _Item]:
    return {
        element.get("id"): _Item(
            resolved(package_path, element.get("href"))[0],
            element.get("media-type", ""),
            frozenset((element.get("properties") or "").split()),
            element.get("fallback"),
        )
        for element in package.iter()
        if local_name(element) == "item" and element.get("id") and element.get("href")
    }


def _spine(package: Any, items: dict[str, _Item], notes: list[str]) -> list[_Item]:
    """The text documents in reading order, those beside the main line last."""
    linear: list[_Item] = []
    beside: list[_Item] = []
    for element in package.iter():
        if local_name(element) != "itemref":
            continue
        item = _readable(items, element.get("idref"))
        if item is not None:
            (beside if element.get("linear") == "no" else linear).append(item)
        else:
            notes.append(f"{element.get('idref')} of its spine holds no text we can read")
    if not linear and not beside:
        raise LoadError("its spine names no text")
    return linear + beside


def _readable(items: dict[str, _Item], item_id: str | None) -> _Item | None:
    """The item, or the first in the chain of its fallbacks, that holds text."""
    seen: set[str] = set()
    while item_id in items and item_id not in seen:
        seen.add(item_id)
        if items[item_id].media_type in _TEXT_TYPES:
            return items[item_id]
        item_id = items[item_id].fallback
    return None


def _locked(archive: Archive) -> frozenset[str]:
    """The members that DRM has locked."""
    name = "META-INF/encryption.xml"
    if name not in archive:
        return frozenset()
    found = set()
    for data in xml_tree(archive.read(name)).iter():
        if local_name(data) != "encrypteddata":
            continue
        ciphers = [e.get("Algorithm", "") for e in data if local_name(e) == "encryptionmethod"]
        if not any(cipher in _FONT_CIPHERS for cipher in ciphers):
            found |= {e.get("URI", "") for e in data.iter() if local_name(e) == "cipherreference"}
    return frozenset(found)


def _document(data: bytes, path: str, notes: list[str]) -> Any:
    try:
        return xml_tree(data)
    except LoadError as error:
        notes.append(f"{path} is {error}; read as HTML")
        text = data.decode("utf-8", "replace")
        if "\ufffd" in text:
            notes.append(f"{path} is not UTF-8 throughout; what is not is marked with \ufffd")
        return html_tree(text)


def _is_apparatus(root: Any) -> bool:
    """Whether a whole document is a title page, an imprint or the like, by its own mark."""
    body = next((e for e in root.iter() if local_name(e) == "body"), None)
    if body is None:
        return False
    sections = [e for e in body if local_name(e) in ("section", "div", "article", "nav")]
    marks = types_of(body) | (types_of(sections[0]) if len(sections) == 1 else frozenset())
    return bool(marks & _APPARATUS)


def _name_of(root: Any) -> str:
    found = title_in(root)
    return " ".join(found.split()) if found else "front or back matter"


def _navigation(archive: Archive, items: dict[str, _Item], notes: list[str]) -> list[_Entry]:
    """The table of contents: EPUB 3's nav document, else EPUB 2's ncx."""
    nav = next((i for i in items.values() if "nav" in i.properties and i.path in archive), None)
    ncx = next(
        (
            i
            for i in items.values()
            if i.media_type == "application/x-dtbncx+xml" and i.path in archive
        ),
        None,
    )
    if nav is not None:
        return list(_nav_entries(_document(archive.read(nav.path), nav.path, notes), nav.path))
    if ncx is not None:
        return list(_ncx_entries(_document(archive.read(ncx.path), ncx.path, notes), ncx.path))
    return []


def _nav_entries(root: Any, base: str) -> Iterator[_Entry]:
    navs = [e for e in root.iter() if local_name(e) == "nav"]
    toc = next((e for e in navs if "toc" in types_of(e)), navs[0] if navs else None)
    if toc is None:
        return
    depth = 0
    for event, element in etree.iterwalk(toc, events=("start", "end")):
        if local_name(element) == "ol":
            depth += 1 if event == "start" else -1
        elif event == "start" and local_name(element) == "a" and element.get("href"):
            title = " ".join("".join(element.itertext()).split())
            if title:
                yield _Entry(depth, title, *resolved(base, element.get("href")))


def _ncx_entries(root: Any, base: str) -> Iterator[_Entry]:
    depth = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if local_name(element) != "navpoint":
            continue
        depth += 1 if event == "start" else -1
        if event == "start":
            label = next((e for e in element if local_name(e) == "navlabel"), None)
            content = next((e for e in element if local_name(e) == "content"), None)
            if label is not None and content is not None and content.get("src"):
                title = " ".join("".join(label.itertext()).split())
                yield _Entry(depth, title, *resolved(base, content.get("src")))


def _title(package: Any) -> str | None:
    """The main title: the one refined as such, else the first."""
    named = [e for e in package.iter() if local_name(e) == "title"]
    titles = [e for e in named if "".join(e.itertext()).strip()]
    main = {
        (e.get("refines") or "").lstrip("#")
        for e in package.iter()
        if local_name(e) == "meta"
        and e.get("property") == "title-type"
        and (e.text or "").strip() == "main"
    }
    titles.sort(key=lambda e: e.get("id") not in main)
    return " ".join("".join(titles[0].itertext()).split()) if titles else None
