"""The reading room: a Gradio page of conversation, passages and reader. Gradio lives here only.

Finished HTML is made in render.py, which alone escapes; this file wires components to it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from typing import Any

# Gradio reads these when it is imported: nothing is looked up or reported over the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from fastapi import FastAPI

from ballet_qa import render
from ballet_qa.answering import example_questions
from ballet_qa.errors import BalletQAError
from ballet_qa.library import Library
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Answer, Span

_TELL_WHAT_WAS_CLICKED = """
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-passage]');
  if (target) trigger('click', { passage: target.dataset.passage, turn: target.dataset.turn });
});
"""
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def mount_page(app: FastAPI, library: Library) -> None:
    """Mount the reading room at ``/``."""
    blocks = build_page(library)
    blocks.queue(default_concurrency_limit=4, max_size=64)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=_static("page.css"),
        js=_static("page.js"),
    )


def build_page(library: Library) -> gr.Blocks:
    """The page over one library."""
    room = Room(library)
    answerer = library.answerer()
    catalogue = answerer.index.texts.catalogue()
    blocks = gr.Blocks(title="ballet_qa", analytics_enabled=False, fill_width=True)
    with blocks:
        turns = gr.State([])
        masthead = gr.HTML(
            render.page_html("masthead.html", stories=len(catalogue)), elem_id="title"
        )
        with gr.Row(elem_id="page"):
            with gr.Column(scale=3, min_width=320):
                conversation = gr.HTML(
                    room.conversation([]), elem_id="conversation", js_on_load=_TELL_WHAT_WAS_CLICKED
                )
                with gr.Row(elem_id="examples") as examples:
                    example_buttons = [
                        gr.Button(question, size="sm") for question in example_questions(answerer)
                    ]
                with gr.Row(elem_id="ask-row"):
                    box = gr.Textbox(
                        label="Your question",
                        show_label=False,
                        placeholder="Ask about the stories  ( / )",
                        elem_id="ask-box",
                        max_length=SETTINGS.max_question_chars,
                        autofocus=True,
                        container=False,
                        scale=5,
                        html_attributes=gr.InputHTMLAttributes(autocapitalize="sentences"),
                    )
                    ask = gr.Button("Ask", elem_id="ask-button", scale=0, variant="primary")
                stories = gr.Dropdown(
                    choices=room.choices(),
                    value=[],
                    multiselect=True,
                    label="Only in these stories (all, if none is chosen)",
                    elem_id="stories",
                )
                with gr.Row(elem_id="actions"):
                    undo = gr.Button("Undo", size="sm")
                    clear = gr.Button("Clear", size="sm")
            with gr.Column(scale=2, min_width=300):
                cards = gr.HTML("", elem_id="passages", js_on_load=_TELL_WHAT_WAS_CLICKED)
        with gr.Sidebar(
            position="right", open=False, width="min(100%, 34rem)", elem_id="reader-panel"
        ) as panel:
            reader = gr.HTML(render.page_html("no_story.html"), elem_id="reader")

        shown = [conversation, cards, turns, box, examples]
        for trigger in (box.submit, ask.click):
            trigger(room.ask, [box, turns, stories], shown, **_PRIVATE)
        for button in example_buttons:
            button.click(room.ask, [button, turns, stories], shown, **_PRIVATE)
        undo.click(room.undo, [turns], shown, **_PRIVATE)
        clear.click(room.clear, None, shown, **_PRIVATE)
        for part in (conversation, cards):
            part.click(room.open, [turns], [reader, panel, cards], **_PRIVATE)
        # Who opens the page sees the stories there are then, not those there were at the start.
        blocks.load(room.arrive, None, [masthead, stories], **_PRIVATE)
    return blocks


class Room:
    """What the page does when something is asked or clicked: values in, HTML out."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def choices(self) -> list[tuple[str, str]]:
        """The stories to choose from: what is shown, and the id."""
        catalogue = self._library.answerer().index.texts.catalogue()
        return [(f"{entry.title} · {entry.id}", entry.id) for entry in catalogue]

    def arrive(self) -> tuple[str, Any]:
        """The masthead and the choice of stories, as they are now."""
        choices = self.choices()
        masthead = render.page_html("masthead.html", stories=len(choices))
        return masthead, gr.Dropdown(choices=choices)

    def ask(
        self, question: str, turns: list[Answer], stories: list[str]
    ) -> tuple[str, str, list[Answer], str, Any]:
        """Answer a question and add it to the conversation; what went wrong is said there too."""
        try:
            answer = self._library.answerer().answer(question, stories=stories or None)
        except BalletQAError as error:
            return self._shown(turns, error=str(error), box=question)
        return self._shown([*turns, answer])

    def undo(self, turns: list[Answer]) -> tuple[str, str, list[Answer], str, Any]:
        """Take the last question back into the box."""
        return self._shown(turns[:-1], box=turns[-1].question if turns else "")

    def clear(self) -> tuple[str, str, list[Answer], str, Any]:
        """Begin again."""
        return self._shown([])

    def open(self, event: gr.EventData, turns: list[Answer]) -> tuple[Any, Any, Any]:
        """Open the story of a clicked citation at its paragraph, its answer's quotes marked."""
        passage_id = str(event._data.get("passage", ""))
        texts = self._library.answerer().index.texts
        story_row = texts.story_row(passage_id.rpartition("#")[0])
        if story_row is None:
            return gr.skip(), gr.skip(), gr.skip()
        story = texts.story(story_row)
        number = _turn_number(event._data.get("turn"), turns)
        cited = turns[number].findings if number is not None else ()
        spans = [
            Span(finding.citation.start, finding.citation.end)
            for finding in cited
            if finding.citation.story.id == story.id
        ]
        html = render.reader_html(story, texts.passages_of(story_row), passage_id, spans)
        cards = gr.skip() if number is None else self.cards(turns, number)
        return html, gr.Sidebar(open=True), cards

    def conversation(self, turns: Sequence[Answer], error: str = "") -> str:
        """The conversation's HTML."""
        stories = self._library.answerer().index.manifest.stories
        return render.conversation_html(turns, error=error, stories=stories)

    def cards(self, turns: Sequence[Answer], number: int) -> str:
        """The passages of one answer."""
        return render.cards_html(turns[number], number) if turns else ""

    def _shown(
        self, turns: list[Answer], *, error: str = "", box: str = ""
    ) -> tuple[str, str, list[Answer], str, Any]:
        return (
            self.conversation(turns, error),
            self.cards(turns, len(turns) - 1),
            turns,
            box,
            gr.Row(visible=not turns),
        )


def _turn_number(value: object, turns: Sequence[Answer]) -> int | None:
    """Which answer a click belongs to; the browser's word is not trusted."""
    text = str(value)
    return int(text) if text.isdecimal() and int(text) < len(turns) else None


def _static(name: str) -> str:
    return resources.files("ballet_qa").joinpath("static", name).read_text("utf-8")
