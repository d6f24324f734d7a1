"""The forms an answer takes: JSON, plain text and HTML. The only place that escapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ballet_qa.types import Answer, Finding, Hit, Passage, Span, Story, StoryEntry

_HTML = Environment(
    loader=PackageLoader("ballet_qa", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


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


def search_json(query: str, hits: Sequence[Hit]) -> dict[str, Any]:
    """What ``search --json`` prints."""
    return {"query": query, "hits": [hit_json(hit) for hit in hits]}


def answer_json(answer: Answer) -> dict[str, Any]:
    """What ``ask --json`` prints."""
    return {
        "question": answer.question,
        "status": answer.status,
        "reason": answer.reason,
        "findings": [finding_json(finding) for finding in answer.findings],
        "hits": [hit_json(hit) for hit in answer.hits],
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


def headline(answer: Answer) -> str:
    """What is to be said before the quotes: how many stories fit, or why nothing is said."""
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
    """The answer for a terminal: quotes with their story, or the nearest passages."""
    lines = []
    if headline(answer):
        lines += [headline(answer), ""]
    for finding in answer.findings:
        lines += [f"“{_one_line(finding.citation.quote)}”"]
        lines += [f"  (about {finding.about})"] if finding.about else []
        lines += [f"  — {_source(finding)}", ""]
    if not answer.findings:
        lines.append("Nearest passages:")
        lines += [hit_text(hit) for hit in answer.hits]
    return "\n".join(lines).rstrip()


def hit_text(hit: Hit) -> str:
    """A hit for a terminal."""
    also = f" (also in {', '.join(hit.also_in)})" if hit.also_in else ""
    place = f"{hit.title}, paragraph {hit.passage.number}  [{hit.passage.story_id}]{also}"
    return f"{hit.rank:>2}. {hit.score:.3f}  {place}\n    {_one_line(hit.passage.text)}"


def answer_html(answer: Answer) -> str:
    """The answer as a self-contained block, for notebooks."""
    template = _HTML.get_template("answer.html")
    return template.render(answer=answer, headline=headline(answer), findings=_findings(answer))


def conversation_html(turns: Sequence[Answer], *, error: str, stories: int) -> str:
    """The page's conversation: every question with its answer, then ``error`` if there is one."""
    return _HTML.get_template("conversation.html").render(
        turns=[(answer, headline(answer), _findings(answer)) for answer in turns],
        error=error,
        stories_line="one story" if stories == 1 else f"{stories} stories",
    )


def cards_html(answer: Answer, turn: int) -> str:
    """The passages of an answer as cards, the cited ones first, the quoted sentences marked."""
    quoted: dict[str, list[Span]] = {}
    for finding in answer.findings:
        citation = finding.citation
        quoted.setdefault(citation.passage.id, []).append(Span(citation.start, citation.end))
    ordered = sorted(answer.hits, key=lambda hit: (hit.passage.id not in quoted, hit.rank))
    cards = [
        (hit, marked(hit.passage.text, hit.passage.start, quoted.get(hit.passage.id, ())))
        for hit in ordered
    ]
    return _HTML.get_template("cards.html").render(
        cards=cards, cited=quoted, turn=turn, question=answer.question
    )


def reader_html(story: Story, passages: Sequence[Passage], at: str, spans: Sequence[Span]) -> str:
    """A whole story, paragraph by paragraph, the passage ``at`` in view and ``spans`` marked."""
    paragraphs = [
        (passage, marked(passage.text, passage.start, spans), passage.id == at)
        for passage in passages
    ]
    return _HTML.get_template("reader.html").render(story=story, paragraphs=paragraphs)


def page_html(name: str, **values: Any) -> str:
    """A small part of the page, by the name of its template."""
    return _HTML.get_template(name).render(**values)


def marked(text: str, offset: int, spans: Sequence[Span]) -> Markup:
    """Escaped ``text``, which starts at ``offset`` of its story, with ``spans`` in ``<mark>``."""
    parts = [Markup()]
    position = 0
    for span in sorted(spans, key=lambda span: span.start):
        start = min(max(span.start - offset, position), len(text))
        end = min(max(span.end - offset, start), len(text))
        if end > start:
            parts += [escape(text[position:start]), Markup("<mark>%s</mark>") % text[start:end]]
            position = end
    parts.append(escape(text[position:]))
    return Markup().join(parts)


def _findings(answer: Answer) -> list[tuple[Finding, str, str, str]]:
    return [(finding, *_around_span(finding)) for finding in answer.findings]


def _around_span(finding: Finding) -> tuple[str, str, str]:
    """The quote before, in and after the words that answer."""
    quote, answer = finding.citation.quote, finding.answer
    if answer == quote:
        return quote, "", ""  # nothing stands out where everything does
    at = finding.span.start - finding.citation.start
    return quote[:at], answer, quote[at + len(answer) :]


def _source(finding: Finding) -> str:
    citation = finding.citation
    chapter = f", {citation.chapter}" if citation.chapter else ""
    number = citation.passage.number
    return f"{citation.story.title}{chapter}, paragraph {number}  [{citation.story.id}]"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _one_line(text: str) -> str:
    return " ".join(text.split())
