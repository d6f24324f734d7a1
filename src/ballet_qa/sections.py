"""One loaded file to the stories in it, and each story to its chapters and scenes. Pure.

Project Gutenberg's own words around a text are cut by its own marks. Headings, where the format has
none, are found in plain text: lines that a table of contents lists, and "Chapter IV". A file is an
anthology when its headings name stories; then each becomes a story of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ballet_qa.loaders import Heading, Loaded
from ballet_qa.names import name_counts
from ballet_qa.types import Section
from ballet_qa.words import bare

_GUTENBERG_START = re.compile(
    r"^\W*\*{2,}\s*START\s+OF\s+(?:THE|THIS)\s+PROJECT\s+GUTENBERG[^\n]*(?:\n[^\n]*?\*{3})?[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_GUTENBERG_OLD_START = re.compile(r"^\*END\*?\s*THE SMALL PRINT![^\n]*$", re.I | re.M)
_GUTENBERG_END = re.compile(
    r"^\W*(?:\*{2,}\s*END\s+OF\s+(?:THE|THIS)\s+PROJECT\s+GUTENBERG"
    r"|End\s+of\s+(?:the\s+|this\s+)?Project\s+Gutenberg)[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_GUTENBERG_TITLE = re.compile(r"^Title:[ \t]*(.+(?:\n[ \t]+.+)*)", re.MULTILINE)
_MOST_CUT = 0.2

_PARAGRAPH = re.compile(r"\S[^\n]*(?:\n(?![^\S\n]*\n)[^\n]*)*")
_CONTENTS = re.compile(r"^\W*(?:table\s+of\s+)?contents\W*$", re.IGNORECASE)
_NUMERAL = r"(?:[IVXLC]+|\d+|[一二三四五六七八九十百]+)"
_NUMBER_WORD = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
    r"sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|first|second|third|fourth|fifth"
    r"|sixth|seventh|eighth|ninth|tenth|last)(?:[ -]\w+)?"
)
_CHAPTER = re.compile(
    rf"""(?:(?:chapter|chapitre|kapitel|cap[ií]tulo|capitolo|book|part|act|scene|canto|letter|stave|
    volume|section|livre|teil|buch)\s+(?:the\s+)?(?:{_NUMERAL}|{_NUMBER_WORD})(?:\W.*)?
    |第?{_NUMERAL}[章回]?\W*|(?:{_NUMBER_WORD})|prologue|epilogue|preface|foreword|afterword
    |introduction|conclusion|dedication|appendix|interlude|etymology|extracts.*)\W*""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMBERED = re.compile(rf"(?:{_NUMERAL})\s*[.:—–-]\s+\S.*", re.VERBOSE)
_APPARATUS = re.compile(
    r"""(?:title\s*page|half\s*title(?:\s*page)?|imprint|colophon|uncopyright|copyright.*|contents|
    table\s+of\s+contents|list\s+of\s+illustrations|illustrations|cover|dedication|
    acknowledge?ments?|about\s+the\s+author.*|notes?|endnotes|footnotes|index|bibliography|
    transcriber.s\s+notes?.*|errata|advertisements?|
    .{0,40}\bproject\s+gutenberg\b.*|link\s+to\s+.*)\W*""",
    re.IGNORECASE | re.VERBOSE,
)
_COLLECTION = re.compile(
    r"\b(?:stories|tales|fables|fairy|legends|myths|short\s+fiction|short\s+works|sketches|"
    r"m[äa]rchen|contes|cuentos|fiabe|novelle|racconti|sagen|grimms?|aesop|anthology)\b",
    re.IGNORECASE,
)
_FEWEST_STORIES = 3
_FEWEST_UNTOLD = 5
_TITLE_PAGE = 200
_FEWEST_WORDS = 25
_LONGEST_HEADING = 100


@dataclass(frozen=True, slots=True)
class Part:
    """A story in a file: its text, and where its chapters and scenes begin.

    ``title`` is None where neither the format nor a heading gives one.
    """

    title: str | None
    text: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one file holds. ``is_anthology`` says that its parts are stories of their own."""

    parts: tuple[Part, ...]
    is_anthology: bool
    notes: tuple[str, ...]


def stories_in(loaded: Loaded) -> Shelf:
    """The stories in one file, in order; one, unless it is an anthology."""
    loaded = without_gutenberg(loaded)
    if not loaded.headings:
        loaded = replace(loaded, headings=tuple(plain_headings(loaded.text)))
    level = anthology_level(loaded)
    if level is None:
        whole = Part(loaded.title, loaded.text, _sections(loaded, 0, len(loaded.text)))
        return Shelf((whole,), False, loaded.notes)
    parts, left_out = [], []
    bodies = _bodies(loaded, level)
    for number, (heading, body) in enumerate(bodies):
        words = len(body.split()) - len(heading.title.split())
        # "By the Brothers Grimm" is a heading on many a title page.
        byline = number < _FEWEST_STORIES and heading.title.lower().startswith("by ")
        if words < _FEWEST_WORDS or byline or _is_apparatus(heading.title):
            left_out.append(heading.title)
            continue
        sections = _sections(loaded, heading.start, heading.start + len(body))
        parts.append(Part(heading.title, body, sections))
    before = " ".join(loaded.text[: bodies[0][0].start].split())
    if before:
        left_out.insert(0, f"“{before[:40]}…”" if len(before) > 40 else f"“{before}”")
    notes = loaded.notes
    if left_out:
        shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if left_out[5:] else "")
        notes += (f"{len(parts)} stories; left out: {shown}",)
    return Shelf(tuple(parts), True, notes)


def without_gutenberg(loaded: Loaded) -> Loaded:
    """The text between Project Gutenberg's marks, its title taken from what stood before.

    When more than a fifth of the file stands outside them, all is kept, and a note says so.
    """
    text = loaded.text
    start = _GUTENBERG_START.search(text) or _GUTENBERG_OLD_START.search(text)
    if start is None:
        return loaded
    title = _GUTENBERG_TITLE.search(text, 0, start.start())
    if title is not None:
        loaded = replace(loaded, title=" ".join(title.group(1).split()))
    end = _GUTENBERG_END.search(text, start.end())
    first = start.end() + len(text[start.end() :]) - len(text[start.end() :].lstrip())
    last = len(text[: end.start() if end else len(text)].rstrip())
    if len(text) - (last - first) > _MOST_CUT * len(text):
        return replace(
            loaded,
            notes=(
                *loaded.notes,
                "Project Gutenberg's own words are more than a fifth of it: kept",
            ),
        )
    return replace(
        loaded,
        text=text[first:last],
        headings=tuple(
            replace(h, start=h.start - first) for h in loaded.headings if first <= h.start < last
        ),
        breaks=tuple(at - first for at in loaded.breaks if first < at < last),
        notes=(*loaded.notes, "Project Gutenberg's own words around it cut"),
    )


def plain_headings(text: str) -> list[Heading]:
    """Headings of a text without markup: what its contents list, and chapters by their number."""
    paragraphs = [
        (m.start(), m.group().rstrip())
        for m in _PARAGRAPH.finditer(text)
        if len(m.group()) <= 100_000
    ]
    listed, after = _listed(paragraphs)
    headings: list[Heading] = []
    for start, paragraph in paragraphs:
        title = " ".join(paragraph.split())
        if start < after or len(title) > _LONGEST_HEADING:
            continue
        if bare(title) in listed:
            headings.append(Heading(start, 1, title))
        elif title[-1:] not in ",;" and _CHAPTER.fullmatch(title) and not _is_apparatus(title):
            headings.append(Heading(start, 2 if listed else 1, title))
    return headings if listed or len(headings) > 1 else []


def anthology_level(loaded: Loaded) -> int | None:
    """The level of the headings that name stories, None when the file is one story.

    The highest level at which enough headings are no chapter's and no apparatus'. A title that says
    "tales" settles it; otherwise there must be more of them, and no one person who goes through
    more than half, as a novel's hero goes through its titled chapters.
    """
    says_so = _says_collection(loaded)
    for level in sorted({heading.level for heading in loaded.headings}):
        named = [
            h.title for h in loaded.headings if h.level == level and not _is_apparatus(h.title)
        ]
        stories = [
            t
            for t in named
            if not _CHAPTER.fullmatch(t) and (says_so or not _NUMBERED.fullmatch(t))
        ]
        if len(stories) < (_FEWEST_STORIES if says_so else _FEWEST_UNTOLD):
            continue
        if len(stories) * 2 <= len(named):
            return None
        return level if says_so or not _one_person(loaded, level) else None
    return None


def _says_collection(loaded: Loaded) -> bool:
    """Whether the title, or what stands before the first heading, speaks of several stories."""
    before = loaded.text[: min([h.start for h in loaded.headings] or [0])]
    return any(_COLLECTION.search(words) for words in (loaded.title or "", before[:_TITLE_PAGE]))


def _is_apparatus(title: str) -> bool:
    """Whether a heading is one of those that stand around stories."""
    return _APPARATUS.fullmatch(title) is not None


def _bodies(loaded: Loaded, level: int) -> list[tuple[Heading, str]]:
    """The headings down to this level, each with the text from it to the next."""
    headings = [h for h in loaded.headings if h.level <= level]
    ends = [*(h.start for h in headings[1:]), len(loaded.text)]
    return [(h, loaded.text[h.start : end].rstrip()) for h, end in zip(headings, ends, strict=True)]


def _one_person(loaded: Loaded, level: int) -> bool:
    """Whether one name occurs in more than half of the sections of this level."""
    seen: Counter[str] = Counter()
    sections = 0
    for _, body in _bodies(loaded, level):
        if len(body.split()) >= _FEWEST_WORDS:
            sections += 1
            seen.update(name_counts(body).keys())
    return bool(seen) and seen.most_common(1)[0][1] * 2 > sections


def _listed(paragraphs: Sequence[tuple[int, str]]) -> tuple[frozenset[str], int]:
    """The lines of the table of contents, bare, and where it ends."""
    for number, (_, paragraph) in enumerate(paragraphs):
        first, _, rest = paragraph.partition("\n")
        if not _CONTENTS.match(first):
            continue
        lines = [line for line in rest.split("\n") if line.strip()]
        end = number
        for following, (_, more) in enumerate(paragraphs[number + 1 : number + 400], number + 1):
            entries = [line for line in more.split("\n") if line.strip()]
            if any(len(line.strip()) > _LONGEST_HEADING for line in entries):
                break
            if {_entry(line) for line in entries} & {_entry(line) for line in lines}:
                break  # the first story's own heading
            lines += entries
            end = following
        start, paragraph = paragraphs[end]
        found = frozenset(_entry(line) for line in lines) - {""}
        if len(found) >= _FEWEST_STORIES:
            return found, start + len(paragraph)
    return frozenset(), 0


def _entry(line: str) -> str:
    """A line of contents without its page number, bare."""
    return bare(re.sub(r"[\s.…]+\d+\s*$", "", line))


def _sections(loaded: Loaded, start: int, end: int) -> tuple[Section, ...]:
    """Chapters and scenes that begin inside ``start:end``, counted from ``start``."""
    found = {at: "" for at in loaded.breaks if start < at < end}
    found |= {h.start: h.title for h in loaded.headings if start < h.start < end}
    return tuple(Section(at - start, title) for at, title in sorted(found.items()))
