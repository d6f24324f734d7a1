"""Files of every format to text: small ones made here, and real ones made by others."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ballet_qa.archives import Archive
from ballet_qa.corpus import StoryFile, stories_of
from ballet_qa.errors import LoadError
from ballet_qa.extraction import Extracted, extracted
from ballet_qa.loaders import LOADERS, Loaded, load, load_html, load_markdown
from ballet_qa.sections import stories_in

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/p.opf"/></rootfiles></container>'
)


def zipped(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def page(body: str, kind: str = "bodymatter") -> str:
    return (
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
        f'<head><title>x</title></head><body epub:type="{kind}">{body}</body></html>'
    )


def epub(pages: dict[str, str], nav: str = "", spine: list[str] | None = None) -> bytes:
    items = "".join(
        f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>'
        for name in pages
    )
    refs = "".join(f'<itemref idref="{name}"/>' for name in (spine or pages))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Pond</dc:title></metadata>'
        f'<manifest>{items}<item id="nav" href="nav.xhtml" properties="nav" '
        f'media-type="application/xhtml+xml"/></manifest><spine>{refs}</spine></package>'
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/p.opf": package,
            "OPS/nav.xhtml": page(f'<nav epub:type="toc"><ol>{nav}</ol></nav>'),
        }
        | {f"OPS/{name}.xhtml": text for name, text in pages.items()}
    )


def loaded(suffix: str, data: bytes) -> Loaded:
    return load(Path(f"x{suffix}"), data)


def link(name: str, title: str) -> str:
    return f'<li><a href="{name}.xhtml">{title}</a></li>'


def test_html_keeps_what_is_read_and_leaves_out_what_is_not() -> None:
    told = load_html(
        b"<html><head><title> The\n Swan </title><style>p{}</style></head><body><h1>The <i>Swan"
        b"</i></h1><p>She&nbsp;danced<br>all night.<script>evil()</script></p><hr><p>A <b>lake</b>."
        b"<span class=pagenum>12</span></p><p hidden>no</p><pre>  a\n  b</pre>"
        b"<ruby>\xe6\x98\xa5<rt>haru</rt></ruby><!-- no --> end</body></html>"
    )
    assert told.title == "The Swan"
    assert told.text.split("\n\n") == [
        "The Swan",
        "She\xa0danced\nall night.",
        "A lake.",
        "  a\n  b",
        "春 end",
    ]
    assert [(h.level, h.title) for h in told.headings] == [(1, "The Swan")]
    assert [told.text[at:][:6] for at in told.breaks] == ["A lake"]


@pytest.mark.parametrize(
    ("head", "encoding"),
    [("<meta charset=koi8-r>", "koi8-r"), ("<meta charset=nonsense>", "utf-8")],
)
def test_html_is_decoded_as_it_says(head: str, encoding: str) -> None:
    text = "Лебединое озеро спит."
    assert load_html(f"<html>{head}<body><p>{text}".encode(encoding)).text == text


def test_deep_html_is_read_and_what_is_too_deep_is_refused() -> None:
    assert load_html(b"<div>" * 2_000 + b"deep" + b"</div>" * 2_000).text == "deep"
    with pytest.raises(LoadError, match="Excessive depth"):
        load_html(b"<div>" * 20_000 + b"deep" + b"</div>" * 20_000)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["p", "div", "h2", "li", "td", "b", "pre"]))
def test_html_never_fails_but_for_a_reason(text: str, tag: str) -> None:
    try:
        told = load(Path("x.html"), f"<{tag}>{text}<br>{text}".encode("utf-8", "replace"))
    except LoadError:
        return
    assert told.text.strip()


def test_an_epub_is_read_in_spine_order_under_its_navigations_titles() -> None:
    data = epub(
        {
            "b": page("<p>Second. &#8212;</p>"),
            "a": page("<h2>I</h2><p>First.</p>"),
            "t": page("<h1>Pond</h1>", "titlepage"),
        },
        nav=link("a", "The Swan") + link("b", "The Pig"),
        spine=["t", "a", "b"],
    )
    told = loaded(".epub", data)
    assert (told.title, told.text) == ("Pond", "I\n\nFirst.\n\nSecond. —")
    assert [(h.title, told.text[h.start :][:5]) for h in told.headings] == [
        ("The Swan", "I\n\nFi"),
        ("The Pig", "Secon"),
    ]
    assert told.notes == ("left out, by their own marks: x",)


def test_an_epub_with_pictures_for_pages_is_told_by_their_words_and_fallbacks() -> None:
    data = epub({"a": page("<p>Told.</p>"), "b": page("<p>Fallen back to.</p>")}, spine=["a"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["OPS/s.svg"] = (
        b'<svg xmlns="http://www.w3.org/2000/svg"><title>A pond</title><text>A swan.</text></svg>'
    )
    package = members["OPS/p.opf"].decode()
    package = package.replace(
        "</manifest>",
        '<item id="s" href="../../OPS/s.svg" media-type="image/svg+xml"/>'
        '<item id="x" href="x.psd" media-type="image/psd" fallback="b"/>'
        '<item id="y" href="y.psd" media-type="image/psd" fallback="y"/></manifest>',
    ).replace("</spine>", '<itemref idref="s"/><itemref idref="x"/><itemref idref="y"/></spine>')
    members["OPS/p.opf"] = package.encode()
    told = loaded(".epub", zipped(members))
    assert told.text == "Told.\n\nA pond\n\nA swan.\n\nFallen back to."
    assert told.notes == ("y of its spine holds no text we can read",)


def test_a_book_of_nothing_but_its_title_page_is_told() -> None:
    assert loaded(".epub", epub({"t": page("<h1>Pond</h1>", "titlepage")})).text == "Pond"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no zip", "not a whole zip file"),
        (zipped({"mimetype": "application/epub+zip"}), "META-INF/container.xml is missing"),
        (zipped({"../out": "x"}), "leads out of it"),
        (epub({"a": page("<img/>")}), "no text in it, only pictures"),
    ],
)
def test_an_epub_that_cannot_be_read_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        loaded(".epub", data)


def test_entities_from_outside_are_not_resolved() -> None:
    evil = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    told = loaded(".epub", epub({"a": evil + page("<p>Safe &x;and sound.</p>")}))
    assert told.text == "Safe and sound."


def test_a_bomb_is_not_unpacked() -> None:
    one = zipped({"big": b"\0" * 300_000_000})
    assert len(one) < 1_000_000
    with pytest.raises(LoadError, match="unpacks to 286 MB, over the limit of 256 MB"):
        Archive(one)
    with pytest.raises(LoadError, match="over the limit of 20,000"):
        Archive(zipped({str(number): b"" for number in range(20_001)}))


def docx(body: str) -> bytes:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/'
            'content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
            "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
            'relationships"><Relationship Id="r" Type="http://schemas.openxmlformats.org/'
            'officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
            "</Relationships>",
            "word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body>'
            "</w:document>",
        }
    )


def test_word_without_its_deletions() -> None:
    told = loaded(
        ".docx",
        docx(
            "<w:p><w:r><w:t>A swan</w:t></w:r>"
            "<w:del><w:r><w:delText> died</w:delText></w:r></w:del>"
            "<w:r><w:t>.</w:t></w:r></w:p><w:p><w:r><w:t>A lake.</w:t></w:r></w:p>"
        ),
    )
    assert told.text == "A swan.\n\nA lake."


def test_an_odt_tells_its_notes_last_and_its_deletions_not_at_all() -> None:
    office = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'<o:document-content xmlns:o="{office}:office:1.0" xmlns:t="{office}:text:1.0"><o:body>'
        "<o:text><t:tracked-changes><t:p>gone</t:p></t:tracked-changes>"
        '<t:h t:outline-level="2">Pond</t:h><t:p>A swan<t:note><t:note-citation>1</t:note-citation>'
        "<t:note-body><t:p>A bird.</t:p></t:note-body></t:note> on<t:s/>a<t:line-break/>lake."
        "<o:annotation><t:p>no</t:p></o:annotation></t:p></o:text></o:body></o:document-content>"
    )
    told = loaded(".odt", zipped({"content.xml": content}))
    assert told.text == "Pond\n\nA swan on a\nlake.\n\nA bird."
    assert [(h.level, h.title) for h in told.headings] == [(2, "Pond")]


@pytest.mark.parametrize(
    ("suffix", "data", "reason"),
    [
        (".docx", docx(""), "empty"),
        (".docx", b"\xd0\xcf\x11\xe0rest", "encrypted, or a .doc by another name"),
        (".odt", zipped({"content.xml": "<a>"}), "not well-formed XML"),
        (
            ".odt",
            zipped(
                {
                    "META-INF/manifest.xml": "<m><encryption-data/></m>",
                    "content.xml": "\x01\x02",
                }
            ),
            "encrypted; remove the password",
        ),
        (".rtf", b"not rich", "no RTF"),
        (".rtf", b"{\\rtf1 }", "empty"),
        (".pdf", b"%PDF-1.4 nothing", "damaged: no PDF"),
        (".html", b"<html></html>", "empty"),
        (".md", b"---\ntitle: x\n---\n", "empty"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    suffix: str, data: bytes, reason: str
) -> None:
    with pytest.raises(LoadError, match=reason):
        loaded(suffix, data)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(LOADERS)))
def test_any_bytes_are_read_or_refused(data: bytes, suffix: str) -> None:
    try:
        told = loaded(suffix, data).text
    except LoadError:
        return
    assert told.strip()


def test_markdown_rules_are_breaks_and_headings_are_kept() -> None:
    told = load_markdown(b"# One\n\nA.\n\n---\n\nB.\n\n## Two\n\nC.")
    assert [(h.level, told.text[h.start :].split("\n")[0]) for h in told.headings] == [
        (1, "One"),
        (2, "Two"),
    ]
    assert [told.text[at] for at in told.breaks] == ["B"]


GUTENBERG = (
    "The Project Gutenberg EBook\n\nTitle: {title}\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{body}\n\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK X ***\n\n{tail}\n"
)


def test_gutenbergs_words_are_cut_by_their_own_marks() -> None:
    text = GUTENBERG.format(title="The Swan", body="She danced. " * 60, tail="License.")
    (part,) = stories_in(Loaded(text)).parts
    assert part.title == "The Swan"
    assert part.text == ("She danced. " * 60).strip()


def test_gutenbergs_words_are_kept_when_they_are_more_than_a_fifth() -> None:
    text = GUTENBERG.format(title="The Swan", body="She danced.", tail="License. " * 50)
    shelf = stories_in(Loaded(text))
    assert shelf.parts[0].text == text
    assert shelf.notes == ("Project Gutenberg's own words are more than a fifth of it: kept",)


def tale(who: str) -> str:
    return f"Once {who} went to the sea. And {who} came to the sea and swam, and it was cold. " * 3


def test_a_table_of_contents_makes_an_anthology() -> None:
    names = ["Hans", "Gretel", "Rapunzel", "Snowdrop"]
    titles = [f"THE TALE OF {name.upper()}" for name in names]
    text = "FAIRY TALES\n\nCONTENTS:\n\n  " + "\n  ".join(titles) + "\n\n\n"
    text += "\n\n\n".join(f"{title}\n\n{tale(n)}" for title, n in zip(titles, names, strict=True))
    shelf = stories_in(Loaded(text))
    assert shelf.is_anthology
    assert [part.title for part in shelf.parts] == titles
    assert all(part.text.startswith(part.title or "?") for part in shelf.parts)
    assert shelf.notes == ("4 stories; left out: “FAIRY TALES CONTENTS: THE TALE OF HANS T…”",)
    ids = [
        s.id
        for s in stories_of(
            StoryFile("grimm", Path("grimm.txt"), "grimm.txt"), Extracted(shelf, "", None)
        )
    ]
    assert ids == [f"grimm.txt/{title}" for title in titles]


@pytest.mark.parametrize("titles", [["Chapter 1", "Chapter 2", "Chapter 3"], ["I.", "II.", "III."]])
def test_numbered_chapters_make_no_anthology(titles: list[str]) -> None:
    text = "\n\n".join(f"{title}\n\n{tale('Hans')}" for title in titles)
    shelf = stories_in(Loaded(text))
    assert not shelf.is_anthology
    (part,) = shelf.parts
    assert [section.title for section in part.sections] == titles[1:]


def test_titled_chapters_with_one_hero_make_no_anthology() -> None:
    names = ["The River Bank", "The Open Road", "The Wild Wood", "Mr Badger", "Home"]
    pages = {f"p{n}": page(f"<h2>{name}</h2><p>{tale('Toad')}</p>") for n, name in enumerate(names)}
    nav = "".join(link(f"p{n}", name) for n, name in enumerate(names))
    assert not stories_in(loaded(".epub", epub(pages, nav))).is_anthology
    heroes = ["Hans", "Gretel", "Rapunzel", "Snowdrop", "Ashputtel"]
    pages = {
        f"p{n}": page(f"<h2>{a}</h2><p>{tale(b)}</p>")
        for n, (a, b) in enumerate(zip(names, heroes, strict=True))
    }
    assert stories_in(loaded(".epub", epub(pages, nav))).is_anthology


REAL = {
    "docx/pandoc-test__docx__golden__track_changes_deletion.docx": (1, "This is a text with a"),
    "docx/pandoc-test__docx__notes.docx": (1, "A footnote\n\nTest footnote. Test endnote."),
    "epub/idpf-kusamakura-japanese-vertical-writing.epub": (1, "一\n\n山路を登りながら"),
    "epub/idpf-moby-dick.epub": (1, "ETYMOLOGY."),
    "epub/se-aesop_fables_v-s-vernon-jones.epub": (285, "Introduction\n\nAesop embodies"),
    "epub/se-o-henry_short-fiction.epub": (413, "Lord Oakhurst’s Curse\n\nI\n\nLord Oakhurst lay"),
    "epub/w3c-pkg-spine-order.epub": (1, "This is a multi-page test.\n\nThis page must appear f"),
    "epub/w3c-pub-xml-external-id.epub": (1, "Test passes unless a failure statement follows"),
    "html/2591-h.htm": (62, "THE GOLDEN BIRD\n\nA certain king"),
    "other/grimm-2591-0.txt": (65, "THE GOLDEN BIRD\n\nA certain king"),
    "other/pandoc-test__odt__odt__headers.odt": (1, "A header (Lv 1)\n\nA paragraph"),
    "other/pandoc-test__rtf__heading.rtf": (1, "Heading 1\n\nHeading 2"),
    "pdf/004-pdflatex-4-pages__pdflatex-4-pages.pdf": (1, "Hello, here is some text without a"),
    "pdf/026-latex-multicolumn__multicolumn.pdf": (
        1,
        "Two-Column Document with Lorem Ipsum\n\nYou",
    ),
    "pdf/2591-pdf.pdf": (57, "THE GOLDEN BIRD\n\nA certain king"),
}
REFUSED = {
    "epub/idpf-sous-le-vent.epub": "no text in it, only pictures",
    "pdf/005-libreoffice-writer-password__libreoffice-writer-password.pdf": "encrypted",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, shared: Path) -> None:
    shelf = extracted(shared / "formats" / name).shelf
    stories, opening = REAL[name]
    assert (len(shelf.parts), shelf.parts[0].text[: len(opening)]) == (stories, opening)
    for part in shelf.parts:
        starts = [section.start for section in part.sections]
        assert starts == sorted(set(starts))
        assert all(0 < start < len(part.text) for start in starts)


@pytest.mark.parametrize("name", REFUSED)
def test_real_files_that_cannot_be_read(name: str, shared: Path) -> None:
    with pytest.raises(LoadError, match=REFUSED[name]):
        extracted(shared / "formats" / name)


def test_a_pdfs_lines_become_paragraphs(shared: Path) -> None:
    shelf = extracted(shared / "formats/pdf/2591-pdf.pdf").shelf
    first = shelf.parts[0].text.split("\n\n")
    plain = extracted(shared / "formats/other/grimm-2591-0.txt").shelf.parts[0].text.split("\n\n")
    told = "".join(filter(str.isalnum, first[1]))
    assert told == "".join(filter(str.isalnum, plain[1]))
