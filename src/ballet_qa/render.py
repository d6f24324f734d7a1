"""The forms an answer takes: JSON, plain text and HTML. The only place that escapes markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ballet_qa.terminal import one_line
from ballet_qa.types import Answer, Finding, Hit, Passage, Span, Story, StoryEntry

if TYPE_CHECKING:  # what the page shows is not loaded to answer in a shell
    from jinja2 import Environment

    from ballet_qa.adding import Added
    from ballet_qa.catalogue import Leaf
    from ballet_qa.matches import Match
    from ballet_qa.shards import AnyIndex, AnyTexts

_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~&$]|(?<=^)[-+](?=\s)|!(?=\[)")
_MARK = Markup("<mark>%s</mark>")
_BOLD = Markup("<b>%s</b>")


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as the interfaces promise it; ``also_in`` is there only when it names somebody."""
    passage = hit.passage
    form: dict[str, Any] = {
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "scored_by": hit.scored_by,
        "story": {"id": passage.story_id, "title": hit.title},
        "passage": {
            "id": passage.id,
            "number": passage.number,
            "start": passage.start,
            "end": passage.end,
            "text": passage.text,
        },
    }
    return form | ({"also_in": list(hit.also_in)} if hit.also_in else {})


def search_json(query: str, hits: Sequence[Hit], partial: Sequence[str] = ()) -> dict[str, Any]:
    """What ``search --json`` prints; ``partial`` only where a shard did not answer."""
    form: dict[str, Any] = {"query": query, "hits": [hit_json(hit) for hit in hits]}
    return form | ({"partial": list(partial)} if partial else {})


def answer_json(answer: Answer) -> dict[str, Any]:
    """What ``ask --json`` prints.

    ``asked`` and ``within`` only where a follow-up was completed, ``partial`` only where a shard
    did not answer.
    """
    return {
        "question": answer.question,
        "status": answer.status,
        "reason": answer.reason,
        "findings": [finding_json(finding) for finding in answer.findings],
        "hits": [hit_json(hit) for hit in answer.hits],
    } | {
        name: value
        for name, value in (
            ("asked", answer.asked),
            ("within", answer.within),
            ("partial", list(answer.partial) or None),
        )
        if value is not None
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding; ``start`` and ``end`` are the quote's, in the story. ``about`` only if known."""
    citation = finding.citation
    return {
        "answer": finding.answer,
        "confidence": finding.confidence,
        "quote": citation.quote,
        "story": {"id": citation.story.id, "title": citation.story.title},
        "passage": {
            "id": citation.passage.id,
            "number": citation.passage.number,
            "start": citation.passage.start,
            "end": citation.passage.end,
        },
        "start": citation.start,
        "end": citation.end,
    } | ({"about": finding.about} if finding.about else {})


def story_json(entry: StoryEntry) -> dict[str, Any]:
    """A line of the catalogue."""
    return {
        "id": entry.id,
        "title": entry.title,
        "source": entry.source,
        "length": entry.length,
        "opening": entry.opening,
    }


def catalogue_json(texts: AnyTexts, offset: int, limit: int) -> dict[str, Any]:
    """A part of the catalogue, and how many stories there are in all."""
    entries = texts.catalogue()
    told = [story_json(entry) for entry in entries[offset : offset + limit]]
    return {"total": len(entries), "stories": told}


def whole_story_json(index: AnyIndex, story_id: str) -> dict[str, Any]:
    """A story with its words, its chapters and scenes, and where its passages stand.

    Raises UnknownStoryError.
    """
    (row,) = index.story_rows([story_id])
    story = index.texts.story(row)
    return {
        "id": story.id,
        "title": story.title,
        "text": story.text,
        "sections": [{"start": one.start, "title": one.title} for one in story.sections],
        "passages": [
            {"id": one.id, "number": one.number, "start": one.start, "end": one.end}
            for one in index.texts.passages_of(row)
        ],
    }


def headline(answer: Answer) -> str:
    """What is to be said before the quotes: how many fit, why nothing is said, who is missing."""
    return " ".join(part for part in (_verdict(answer), _missing(answer.partial)) if part)


def _missing(shards: Sequence[str]) -> str:
    return f"Not all stories were asked: {_listed(shards)} did not answer." if shards else ""


def _verdict(answer: Answer) -> str:
    if answer.status == "answered":
        return ""
    if answer.status == "ambiguous":
        titles = [finding.citation.story.title for finding in answer.findings]
        return f"{len(titles)} stories fit: {_listed(titles)}."
    if answer.reason == "unknown_name":
        names = _listed([f"“{name}”" for name in answer.unknown])
        verb = "is" if len(answer.unknown) == 1 else "are"
        return f"Not in these stories: {names} {verb} nowhere in them."
    if answer.reason == "no_evidence":
        return "Not in these stories: nothing in them tells this."
    return "Perhaps not in these stories: only weak evidence was found."


def answer_text(answer: Answer) -> str:
    """The answer for a terminal, neutralised: quotes with their story, or the nearest passages."""
    lines = []
    if headline(answer):
        lines += [one_line(headline(answer)), ""]
    for finding in answer.findings:
        lines += [f"“{one_line(finding.citation.quote)}”"]
        lines += [f"  (about {one_line(finding.about)})"] if finding.about else []
        place, story_id = one_line(_place(finding)), one_line(finding.citation.story.id)
        lines += [f"  — {place}  [{story_id}]", ""]
    if not answer.findings:
        lines.append("Nearest passages:")
        lines += [hit_text(hit) for hit in answer.hits]
    return "\n".join(lines).rstrip()


def hit_text(hit: Hit) -> str:
    """A hit for a terminal, neutralised: its place on one line, its words on the next."""
    title, story_id, words = map(one_line, (hit.title, hit.passage.story_id, hit.passage.text))
    also = f" (also in {', '.join(map(one_line, hit.also_in))})" if hit.also_in else ""
    place = f"{title}, paragraph {hit.passage.number}  [{story_id}]{also}"
    return f"{hit.rank:>2}. {hit.score:.3f}  {place}\n    {words}"


def answer_html(answer: Answer) -> str:
    """The answer as a self-contained block, for notebooks."""
    template = _html().get_template("answer.html")
    return template.render(answer=answer, headline=headline(answer), findings=_findings(answer))


def answer_markdown(answer: Answer) -> str:
    """The answer with its quotes and where each stands, for a document."""
    lines = [f"## {_plain_markdown(answer.question)}", ""]
    if answer.asked:
        lines += [f"Searched for: {_plain_markdown(leaned(answer))}", ""]
    if headline(answer):
        lines += [_plain_markdown(headline(answer)), ""]
    for finding in answer.findings:
        lines += [quote_markdown(finding), ""]
    if not answer.findings:
        lines += ["The nearest passages:", ""]
        for hit in answer.hits:
            place = f"{hit.title}, paragraph {hit.passage.number}"
            lines += [f"> {_plain_markdown(_one_line(hit.passage.text))}", ">"]
            lines += [f"> — {_plain_markdown(place)}", ""]
    return "\n".join(lines)


def quote_markdown(finding: Finding) -> str:
    """A quote with its source, its words that answer in bold."""
    before, words, after = map(_plain_markdown, _around_span(finding))
    bold = f"**{words.strip()}**" if words.strip() else ""
    gap = " " if words[:1].isspace() else ""
    quote = _one_line(f"{before}{gap}{bold}{after}")
    start, end = finding.citation.start, finding.citation.end
    source = _plain_markdown(_source(finding))
    return f"> “{quote}”\n>\n> — {source}, characters {start}–{end}"


def quote_text(finding: Finding) -> str:
    """A quote with its source, to be pasted anywhere."""
    return f"“{_one_line(finding.citation.quote)}” — {_source(finding)}"


def conversation_markdown(turns: Sequence[Answer]) -> str:
    """A whole conversation as a document."""
    return "\n".join(["# Asked of the stories", "", *map(answer_markdown, turns)])


def conversation_json(turns: Sequence[Answer]) -> dict[str, Any]:
    """A whole conversation: every answer as ``ask --json`` prints it."""
    return {"conversation": [answer_json(answer) for answer in turns]}


def leaned(answer: Answer) -> str:
    """What was searched for where a question leaned on the conversation."""
    within = f", in {answer.within}" if answer.within else ""
    return f"“{answer.asked}”{within}"


def spoken(answer: Answer) -> str:
    """An answer as it is read aloud: the words, then whose they are."""
    lines = [headline(answer)] if headline(answer) else []
    for finding in answer.findings:
        citation = finding.citation
        place = f"{citation.story.title}, paragraph {citation.passage.number}"
        lines.append(f"{_one_line(finding.answer)}. {_one_line(citation.quote)} From {place}.")
    if not answer.findings and answer.hits:
        lines.append(f"The nearest passage is in {answer.hits[0].title}.")
    return " ".join(lines)


def conversation_html(
    turns: Sequence[Answer], *, stories: int, error: str = "", pending: str = ""
) -> str:
    """The page's conversation: every question with its answer.

    ``pending`` is a question that is being answered, ``error`` what went wrong with the last.
    """
    return (
        _html()
        .get_template("conversation.html")
        .render(
            turns=[_turn(answer) for answer in turns],
            error=error,
            pending=pending,
            stories_line="one story" if stories == 1 else f"{stories:,} stories",
        )
    )


def _turn(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer,
        "headline": headline(answer),
        "findings": _findings(answer),
        "leaned": leaned(answer) if answer.asked else "",
        "spoken": spoken(answer),
        "copied": answer_markdown(answer),
    }


def cards_html(turns: Sequence[Answer], beside: Callable[[Passage], tuple[str, str]]) -> str:
    """The passages of every answer as cards; the page shows those of the answer in view.

    The cited ones come first, the quoted sentences marked; ``beside`` gives the paragraphs before
    and after a passage.
    """
    groups = []
    for answer in turns:
        quoted: dict[str, list[Span]] = {}
        for finding in answer.findings:
            citation = finding.citation
            quoted.setdefault(citation.passage.id, []).append(Span(citation.start, citation.end))
        ordered = sorted(answer.hits, key=lambda hit: (hit.passage.id not in quoted, hit.rank))
        cards = [
            (
                hit,
                marked(hit.passage.text, hit.passage.start, quoted.get(hit.passage.id, ())),
                beside(hit.passage),
            )
            for hit in ordered
        ]
        groups.append((answer, cards, quoted))
    return _html().get_template("cards.html").render(groups=groups)


def search_html(line: str, matches: Sequence[Match], partial: Sequence[str] = ()) -> str:
    """What a search found: the nearest sentence marked, the words in common in bold."""
    cards = []
    for match in matches:
        passage = match.hit.passage
        bold = (*match.words, *match.phrases)
        text = marked(passage.text, passage.start, [match.nearest], bold)
        cards.append((match.hit, text, match.shared, bool(match.phrases)))
    return (
        _html()
        .get_template("search.html")
        .render(line=line, cards=cards, missing=_missing(partial))
    )


def shelf_html(leaf: Leaf) -> str:
    """The library view."""
    return _html().get_template("shelf.html").render(leaf=leaf, missing=_missing(leaf.partial))


def reader_html(
    story: Story,
    passages: Sequence[Passage],
    at: str,
    spans: Sequence[Span],
    start: int | None = None,
) -> str:
    """A whole story, paragraph by paragraph, the passage ``at`` in view and ``spans`` marked.

    The one that begins at ``start`` is the citation that was followed.
    """
    chapters = [section for section in story.sections if section.title]
    last = passages[-1].number if passages else 0
    return (
        _html()
        .get_template("reader.html")
        .render(
            story=story,
            paragraphs=[
                (passage, marked(passage.text, passage.start, spans), passage.id == at)
                for passage in passages
            ],
            chapters={
                passage.id: section.title
                for section in chapters
                for passage in passages
                if passage.start <= section.start < passage.end
            },
            last=last,
            here=next((passage.number for passage in passages if passage.id == at), 1),
            cited=len(spans),
            now=next((row for row, span in enumerate(spans) if span.start == start), ""),
        )
    )


def added_html(files: Sequence[Added], now: str) -> str:
    """What has come of each file that was added, and what is being done now."""
    return page_html("added.html", files=files, now=now)


@cache
def _html() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ballet_qa", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_html(name: str, **values: Any) -> str:
    """A small part of the page, by the name of its template."""
    return _html().get_template(name).render(**values)


def marked(text: str, offset: int, spans: Sequence[Span], bold: Sequence[Span] = ()) -> Markup:
    """Escaped ``text``, which starts at ``offset`` of its story, with ``spans`` in ``<mark>``.

    Inside and outside of them ``bold`` spans are in ``<b>``.
    """
    return _framed(text, offset, spans, _MARK, lambda part, at: _framed(part, at, bold, _BOLD))


def _framed(
    text: str,
    offset: int,
    spans: Sequence[Span],
    frame: Markup,
    inner: Callable[[str, int], Markup] = lambda part, _: escape(part),
) -> Markup:
    parts = [Markup()]
    position = 0
    for span in sorted(spans, key=lambda span: span.start):
        start = min(max(span.start - offset, position), len(text))
        end = min(max(span.end - offset, start), len(text))
        if end > start:
            parts.append(inner(text[position:start], offset + position))
            words = inner(text[start:end], offset + start)
            parts.append(frame % words)
            position = end
    parts.append(inner(text[position:], offset + position))
    return Markup().join(parts)


def _findings(answer: Answer) -> list[tuple[Finding, str, str, str, str]]:
    return [(finding, *_around_span(finding), quote_text(finding)) for finding in answer.findings]


def _around_span(finding: Finding) -> tuple[str, str, str]:
    """The quote before, in and after the words that answer."""
    quote, answer = finding.citation.quote, finding.answer
    if answer == quote:
        return quote, "", ""  # nothing stands out where everything does
    at = finding.span.start - finding.citation.start
    return quote[:at], answer, quote[at + len(answer) :]


def _source(finding: Finding) -> str:
    return f"{_place(finding)}  [{finding.citation.story.id}]"


def _place(finding: Finding) -> str:
    citation = finding.citation
    chapter = f", {citation.chapter}" if citation.chapter else ""
    return f"{citation.story.title}{chapter}, paragraph {citation.passage.number}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _plain_markdown(text: str) -> str:
    """Text that Markdown takes for words: its marks and HTML's escaped."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())
