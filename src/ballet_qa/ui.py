"""The reading room: a Gradio page of conversation, passages, stories. Gradio lives here only.

Finished HTML is made in render.py, which alone escapes; this file wires components to it. What the
browser does by itself (copying, stepping, the passages in view) is in static/page.js.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import resources
from typing import Any, TypeAlias

from ballet_qa.uploads import upload_folder

# Gradio reads these when it is imported: nothing is looked up or reported over the network.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# A folder of this process alone instead of one that all programs share and that stays.
os.environ["GRADIO_TEMP_DIR"] = str(upload_folder())

# At each import Gradio parses its own sources anew to write type stubs beside them: a third of the
# time until the page is there. It leaves out what is of no file (gradio/component_meta.py).
_getfile = inspect.getfile


def _getfile_but_of_gradio(what: Any) -> str:
    if isinstance(what, type) and what.__module__.startswith("gradio."):
        raise OSError(f"no type stub is wanted of {what}")
    return _getfile(what)


inspect.getfile = _getfile_but_of_gradio  # type: ignore[assignment]
import gradio as gr
from gradio.events import api

inspect.getfile = _getfile

from fastapi import FastAPI
from starlette.routing import Mount

from ballet_qa import render
from ballet_qa.adding import Added, Shelf
from ballet_qa.answering import example_questions
from ballet_qa.catalogue import Catalogue
from ballet_qa.conversation import answer_next, turn_of
from ballet_qa.errors import BalletQAError, QuestionError, SilentError, visitor_message
from ballet_qa.library import Library
from ballet_qa.matches import find_matches
from ballet_qa.page_inputs import Events, is_acceptable
from ballet_qa.page_routes import PageRoutes
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import heard
from ballet_qa.types import Answer, Passage, Span

_TELL_WHAT_WAS_CLICKED = """
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-event]');
  if (target) trigger(target.dataset.event, { ...target.dataset });
});
"""
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Gradio counts what is under way by function and event; these count together.
_TURN: dict[str, Any] = {"concurrency_id": "reading", "concurrency_limit": SETTINGS.at_once}
_ASKING = _PRIVATE | _TURN
_BETWEEN_REPORTS_S = 0.3  # while many files are added
_FOUND = 20  # passages a search shows

Shown: TypeAlias = tuple[Any, ...]


def mount_page(app: FastAPI, library: Library, shelf: Shelf | None = None) -> None:
    """Mount the reading room at ``/``; with a ``shelf``, stories can be added from it."""
    blocks = build_page(library, shelf)
    # Gradio would keep ten thousand, a sixth of a megabyte each, most of them long left.
    blocks.state_session_capacity = SETTINGS.max_conversations
    blocks.queue(default_concurrency_limit=SETTINGS.at_once, max_size=SETTINGS.max_waiting)
    # Without it Gradio takes any path of this machine for an uploaded file: it means to serve
    # files that its own code names before the launch, and a mounted page is never launched.
    blocks.has_launched = True
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size="1kb" if shelf is None else SETTINGS.max_upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=_static("page.css"),
        js=_static("page.js"),
    )
    mounted = app.routes[-1]
    assert isinstance(mounted, Mount)
    uploads = None if shelf is None else upload_folder()
    mounted.app = PageRoutes(
        mounted.app, events_of(blocks), uploads, app.routes[:-1], partial(_unread, blocks)
    )


def _unread(blocks: gr.Blocks, session: str) -> tuple[int, int]:
    """The results that nobody collected: of this session, and of all. Gradio bounds neither."""
    queue = blocks._queue
    waiting = {name: held.qsize() for name, held in queue.pending_messages_per_session.items()}
    for name in queue.pending_event_ids_session.keys() - waiting.keys():
        queue.pending_event_ids_session.pop(name, None)
    return waiting.get(session, 0), sum(waiting.values())


def events_of(blocks: gr.Blocks) -> Events:
    """The events of a page, as `PageRoutes` lets them pass."""
    inputs = {number: len(fn.inputs) for number, fn in blocks.fns.items()}
    published = {
        str(fn.api_name): {
            name: parameter.default is inspect.Parameter.empty
            for name, parameter in inspect.signature(fn.fn).parameters.items()
        }
        for fn in blocks.fns.values()
        if fn.api_visibility == "public" and fn.fn is not None
    }
    return Events(inputs, published)


def _check_inputs(blocks: gr.Blocks) -> None:
    """Have an event's values looked at before Gradio does, in `Blocks.preprocess_data`.

    It raises gradio.Error on a value that its input cannot have. On the instance, because Gradio
    parses its sources for each class made from its own.
    """
    preprocess = blocks.preprocess_data

    async def checked(block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> Any:
        values = zip(block_fn.inputs, inputs, strict=False)
        if block_fn.fn is None or not all(
            is_acceptable(block.get_block_name(), value, upload_folder()) for block, value in values
        ):
            words = "QuestionError: a value is not what its field takes"
            raise gr.Error(words, print_exception=False)
        return await preprocess(block_fn, inputs, *rest, **options)

    blocks.preprocess_data = checked  # type: ignore[method-assign]


def build_page(library: Library, shelf: Shelf | None = None) -> gr.Blocks:
    """The page over one library."""
    room = Room(library, shelf)
    blocks = gr.Blocks(title="ballet_qa", analytics_enabled=False, fill_width=True)
    with blocks:
        # First, for a name is given once, and the page's own events have names, too.
        api(room.api_ask, api_name="ask", api_description="Ask the stories a question.", **_TURN)
        api(
            room.api_search,
            api_name="search",
            api_description="Find the nearest passages.",
            **_TURN,
        )
        turns = gr.State([], time_to_live=SETTINGS.session_seconds)
        masthead = gr.HTML(room.masthead(), elem_id="title")
        with gr.Tabs(elem_id="views") as views:
            with gr.Tab("Ask", id="ask"), gr.Row(elem_id="page"):
                with gr.Column(scale=3, min_width=320, elem_id="talk"):
                    conversation = _told(room.conversation([]), "conversation")
                    with gr.Row(elem_id="examples") as examples:
                        example_buttons = [
                            gr.Button(question, size="sm") for question in room.examples()
                        ]
                    with gr.Row(elem_id="ask-row"):
                        box = _line("Your question", "Ask about the stories", "ask-box")
                        ask = gr.Button("Ask", elem_id="ask-button", scale=0, variant="primary")
                        stop = gr.Button("Stop", elem_id="stop-button", scale=0, visible=False)
                    stories = gr.Dropdown(
                        choices=room.choices(),
                        value=[],
                        multiselect=True,
                        label="Only in these stories (all, if none is chosen)",
                        elem_id="stories",
                    )
                    with gr.Row(elem_id="actions", visible=False) as actions:
                        undo = gr.Button("Undo", size="sm")
                        clear = gr.Button("Clear", size="sm")
                        save_text = gr.Button("Save as Markdown", size="sm")
                        save_json = gr.Button("Save as JSON", size="sm")
                with gr.Column(scale=2, min_width=300, elem_id="beside"):
                    cards = _told("", "passages")
            with gr.Tab("Search", id="search"), gr.Column(elem_id="search"):
                with gr.Row(elem_id="search-row"):
                    line = _line("Search the passages", "Words, or a passage’s drift", "search-box")
                    find = gr.Button("Search", elem_id="search-button", scale=0, variant="primary")
                gr.HTML(render.page_html("search_help.html"), elem_id="search-help")
                found = _told("", "found")
            with gr.Tab("Stories", id="stories-view"), gr.Column(elem_id="library"):
                wanted = _line("Find a story", "A title, a name, a word of its id", "library-box")
                if shelf is not None:
                    with gr.Accordion("Add stories", open=False, elem_id="adding"):
                        files = gr.File(
                            label=f"Files: {shelf.suffixes}",
                            file_count="multiple",
                            elem_id="add-files",
                        )
                        with gr.Row(elem_id="add-row"):
                            add = gr.Button("Add to the shelf", elem_id="add-button")
                            folder = gr.UploadButton(
                                "Add a whole folder", file_count="directory", elem_id="add-folder"
                            )
                        report = gr.HTML("", elem_id="add-report")
                books = _told("", "books")  # filled when the page is opened
        with gr.Sidebar(
            position="right", open=False, width="min(100%, 38rem)", elem_id="reader-panel"
        ) as panel:
            reader = _told(render.page_html("no_story.html"), "reader")
        saved = gr.Textbox(visible="hidden", elem_id="saved")

        shown = [conversation, cards, turns, box, examples, actions, ask, stop]
        asking: list[Any] = [
            trigger(room.ask, [box, turns, stories], shown, **_ASKING)
            for trigger in (box.submit, ask.click)
        ]
        asking += [
            button.click(room.ask, [button, turns, stories], shown, **_ASKING)
            for button in example_buttons
        ]
        asking.append(conversation.retry(room.again, [turns, stories], shown, **_ASKING))
        asking.append(books.submit(room.ask_of, [turns], [*shown, views, stories], **_ASKING))
        stop.click(room.stop, [turns, box], shown, cancels=asking, **_PRIVATE)
        conversation.edit(room.edit, [turns], [box], **_PRIVATE).then(None, js=_FOCUS)
        undo.click(room.undo, [turns], shown, **_PRIVATE)
        clear.click(room.clear, None, shown, **_PRIVATE)
        for button, make, name in (
            (save_text, room.markdown, "conversation.md"),
            (save_json, room.json, "conversation.json"),
        ):
            button.click(make, [turns], [saved], **_PRIVATE).then(
                None, [saved], js=f"(text) => window.bqSave(text, '{name}')"
            )
        for part in (conversation, cards, found, books):
            part.click(room.open, [turns], [reader, panel], **_PRIVATE)
        for part in (reader, books):
            part.select(room.only, None, [stories, views, panel], **_PRIVATE).then(None, js=_FOCUS)
        for trigger in (line.submit, find.click):
            trigger(room.search, [line], [found], **_ASKING)
        wanted.change(room.books, [wanted], [books], trigger_mode="always_last", **_PRIVATE)
        if shelf is not None:
            told = [report, books, masthead, stories, files]
            # Gradio's own preprocessing would leave an empty file for each upload.
            add.click(room.add, [files, wanted], told, preprocess=False, **_PRIVATE)
            folder.upload(room.add, [folder, wanted], told, preprocess=False, **_PRIVATE)
        # Who opens the page sees the stories there are then, not those there were at the start; a
        # link to an answer asks its question again.
        blocks.load(room.arrive, None, [masthead, stories, books], **_PRIVATE)
        asking.append(blocks.load(room.reopen, [turns], shown, **_ASKING))
    _check_inputs(blocks)
    return blocks


_FOCUS = "() => window.bqFocus()"


def _told(html: str, name: str) -> gr.HTML:
    """A part of the page that tells what was clicked in it."""
    return gr.HTML(html, elem_id=name, js_on_load=_TELL_WHAT_WAS_CLICKED)


def _line(label: str, placeholder: str, name: str) -> gr.Textbox:
    return gr.Textbox(
        label=label,
        show_label=False,
        placeholder=placeholder,
        elem_id=name,
        max_length=SETTINGS.max_question_chars,
        autofocus=name == "ask-box",
        container=False,
        scale=5,
        html_attributes=gr.InputHTMLAttributes(autocapitalize="sentences"),
    )


class Room:
    """What the page does when something is asked or clicked: values in, HTML out."""

    def __init__(self, library: Library, shelf: Shelf | None = None) -> None:
        self._library = library
        self._shelf = shelf
        self._catalogue = Catalogue(library)

    def masthead(self) -> str:
        """The name, and how many stories there are."""
        stories = self._library.answerer().index.manifest.stories
        return render.page_html("masthead.html", stories=stories)

    def examples(self) -> list[str]:
        """Questions that the stories answer; none while a shard is silent."""
        try:
            return example_questions(self._library.answerer())
        except SilentError:
            return []

    def choices(self) -> list[tuple[str, str]]:
        """The stories to choose from: what is shown, and the id."""
        index = self._library.answerer().index
        try:
            catalogue, _ = heard(index, index.texts.catalogue)
        except SilentError:  # the library view says so
            catalogue = []
        return [(f"{entry.title} · {entry.id}", entry.id) for entry in catalogue]

    def arrive(self) -> tuple[str, Any, str]:
        """The masthead, the choice of stories and the library, as they are now."""
        return self.masthead(), gr.Dropdown(choices=self.choices()), self.books("")

    def reopen(self, turns: list[Answer], request: gr.Request) -> Iterator[Shown]:
        """Ask the question that a link to an answer carries."""
        question = str(request.query_params.get("q", ""))
        if question.strip():
            chosen = request.query_params.getlist("story") if request.request else []
            yield from self.ask(question, turns, chosen)
        else:  # somebody may have asked already: leave all as it is
            yield (gr.skip(),) * 8

    def ask(self, question: str, turns: list[Answer], stories: list[str]) -> Iterator[Shown]:
        """Answer a question and add it to the conversation; what went wrong is said there too."""
        yield self._asking(question, turns)
        try:
            answer = self._answer(question, turns, stories)
        except BalletQAError as error:
            yield self._shown(turns, error=visitor_message(error), box=question)
        else:
            yield self._shown([*turns, answer], box=None)

    def again(
        self, turns: list[Answer], stories: list[str], event: gr.EventData
    ) -> Iterator[Shown]:
        """Answer a question again in its place, its own words alone if that was asked for."""
        number = _turn_number(_sent(event, "turn"), turns)
        if number is None:
            yield self._shown(turns)
            return
        question = turns[number].question
        yield self._asking(question, turns, box=gr.skip())
        before = [] if _sent(event, "plain") else turns[:number]
        try:
            answer = self._answer(question, before, stories)
        except BalletQAError as error:
            yield self._shown(turns, error=visitor_message(error))
        else:
            yield self._shown([*turns[:number], answer, *turns[number + 1 :]], box=None)

    def ask_of(self, turns: list[Answer], event: gr.EventData) -> Iterator[Shown]:
        """Ask what a story's page offers, of that story alone."""
        question, story = _sent(event, "question"), _sent(event, "story")
        for shown in self.ask(question, turns, [story]):
            yield *shown, gr.Tabs(selected="ask"), gr.skip()

    def edit(self, turns: list[Answer], event: gr.EventData) -> Any:
        """A question back into the box."""
        number = _turn_number(_sent(event, "turn"), turns)
        return gr.skip() if number is None else turns[number].question

    def stop(self, turns: list[Answer], box: str) -> Shown:
        """The conversation without the question that was being answered."""
        return self._shown(turns, box=box)

    def undo(self, turns: list[Answer]) -> Shown:
        """Take the last question back into the box."""
        return self._shown(turns[:-1], box=turns[-1].question if turns else "")

    def clear(self) -> Shown:
        """Begin again."""
        return self._shown([])

    def markdown(self, turns: list[Answer]) -> str:
        """The conversation as a document."""
        return render.conversation_markdown(turns)

    def json(self, turns: list[Answer]) -> str:
        """The conversation with every quote, story, paragraph and offset."""
        return json.dumps(render.conversation_json(turns), ensure_ascii=False, indent=1)

    def open(self, event: gr.EventData, turns: list[Answer]) -> tuple[Any, Any]:
        """Open the story of a clicked citation at its paragraph, the quotes from it marked."""
        passage_id = _sent(event, "passage")
        texts = self._library.answerer().index.texts
        try:
            story_row = texts.story_row(passage_id.rpartition("#")[0])
            if story_row is None:
                return gr.skip(), gr.skip()
            story, passages = texts.story(story_row), texts.passages_of(story_row)
        except SilentError as error:
            return render.page_html("error.html", error=visitor_message(error)), gr.Sidebar(
                open=True
            )
        spans = {
            Span(finding.citation.start, finding.citation.end)
            for answer in turns
            for finding in answer.findings
            if finding.citation.story.id == story.id
            and finding.citation.story.sha256 == story.sha256
        }
        ordered = sorted(spans, key=lambda span: span.start)
        at = _number(_sent(event, "at"))
        html = render.reader_html(
            story,
            passages,
            passage_id,
            ordered,
            at,
        )
        return html, gr.Sidebar(open=True)

    def only(self, event: gr.EventData) -> tuple[Any, Any, Any]:
        """Ask one story from now on."""
        story = _sent(event, "story")
        if self._library.answerer().index.texts.story_row(story) is None:
            return gr.skip(), gr.skip(), gr.skip()
        return [story], gr.Tabs(selected="ask"), gr.Sidebar(open=False)

    def search(self, line: str) -> str:
        """What a search line finds; what is wrong with it is said."""
        try:
            retriever = self._library.answerer().retriever
            found = heard(retriever.index, lambda: find_matches(retriever, line, _FOUND))
        except BalletQAError as error:
            return render.page_html("error.html", error=visitor_message(error))
        return render.search_html(line, *found)

    def books(self, wanted: str) -> str:
        """The stories whose title, id or people hold what is wanted."""
        try:
            return render.shelf_html(self._catalogue.leaf(wanted))
        except SilentError as error:
            return render.page_html("error.html", error=visitor_message(error))

    def add(
        self, files: list[dict[str, Any]] | None, wanted: str
    ) -> Iterator[tuple[str, Any, Any, Any, Any]]:
        """Put files on the shelf, one by one as they come, and show them."""
        assert self._shelf is not None, "only a page with a shelf has the button"
        said: list[Added] = []
        shown_at = 0.0
        try:
            for added in self._shelf.add([record["path"] for record in files or []]):
                said += [added] if added.done else []
                if time.monotonic() - shown_at > _BETWEEN_REPORTS_S:
                    shown_at = time.monotonic()
                    yield render.added_html(said, added.now), *(gr.skip(),) * 4
        except BalletQAError as error:
            yield render.page_html("error.html", error=visitor_message(error)), *(gr.skip(),) * 4
            return
        masthead, stories, _ = self.arrive()
        yield render.added_html(said, ""), self.books(wanted), masthead, stories, None

    def conversation(self, turns: Sequence[Answer], error: str = "", pending: str = "") -> str:
        """The conversation's HTML."""
        stories = self._library.answerer().index.manifest.stories
        return render.conversation_html(turns, stories=stories, error=error, pending=pending)

    def api_ask(
        self, question: str, top_k: int = SETTINGS.top_k, stories: list[str] | None = None
    ) -> dict[str, Any]:
        """The answer, as ``ballet-qa ask --json`` prints it."""
        with _told_to_client():
            _check_call(question, top_k, stories)
            answer = self._library.answerer().answer(question, top_k, stories or None)
        return render.answer_json(answer)

    def api_search(
        self, query: str, top_k: int = SETTINGS.top_k, stories: list[str] | None = None
    ) -> dict[str, Any]:
        """The hits, as ``ballet-qa search --json`` prints them."""
        with _told_to_client():
            _check_call(query, top_k, stories)
            retriever = self._library.answerer().retriever
            found = heard(retriever.index, lambda: retriever.search(query, top_k, stories or None))
        return render.search_json(query, *found)

    def _cards(self, turns: Sequence[Answer]) -> str:
        """The passages of the answers; while its shard is silent, one stands alone."""
        index = self._library.answerer().index

        def beside(passage: Passage) -> tuple[str, str]:
            try:
                return index.texts.beside(passage)
            except SilentError:
                return "", ""

        with index.listening():
            return render.cards_html(turns, beside)

    def _answer(self, question: str, before: Sequence[Answer], stories: Sequence[str]) -> Answer:
        turns = [turn_of(answer) for answer in before]
        return answer_next(self._library.answerer(), question, turns, stories=stories or None)

    def _asking(self, question: str, turns: list[Answer], box: Any = "") -> Shown:
        """The page while a question is being answered."""
        conversation = self.conversation(turns, pending=question.strip())
        ask, stop = gr.Button(visible=False), gr.Button(visible=True)
        return conversation, *(gr.skip(),) * 2, box, gr.Row(visible=False), gr.skip(), ask, stop

    def _shown(self, turns: list[Answer], *, error: str = "", box: str | None = "") -> Shown:
        """The page with this conversation; without ``box``, what is being typed is left alone."""
        return (
            self.conversation(turns, error),
            self._cards(turns),
            turns,
            gr.skip() if box is None else box,
            gr.Row(visible=not turns),
            gr.Row(visible=bool(turns)),
            gr.Button(visible=True),
            gr.Button(visible=False),
        )


@contextmanager
def _told_to_client() -> Iterator[None]:
    """Let a client of the queue read what was wrong; Gradio shows it only its own errors."""
    try:
        yield
    except BalletQAError as error:
        words = f"{type(error).__name__}: {visitor_message(error)}"
        raise gr.Error(words, print_exception=False) from error


def _sent(event: gr.EventData, name: str) -> str:
    """A value that came with a click, as text; the browser's word is not trusted."""
    values = event._data
    return str(values.get(name, "")) if isinstance(values, dict) else ""


def _number(text: str) -> int | None:
    """A place in a text; None for what is no such number."""
    return int(text) if text.isdecimal() and len(text) < 12 else None


def _turn_number(text: str, turns: Sequence[Answer]) -> int | None:
    """Which answer a click belongs to."""
    number = _number(text)
    return number if number is not None and number < len(turns) else None


def _check_call(question: object, top_k: object, stories: object) -> None:
    """Raise QuestionError when a client of Gradio's sent values of other types."""
    are_ids = stories is None or (
        isinstance(stories, list) and all(isinstance(story, str) for story in stories)
    )
    if not isinstance(question, str) or type(top_k) is not int or not are_ids:
        raise QuestionError("give a text, a whole number and a list of story ids, or null")


def _static(name: str) -> str:
    return resources.files("ballet_qa").joinpath("static", name).read_text("utf-8")
