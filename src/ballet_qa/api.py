"""The routes for programs: ask, search, the stories. JSON in and out, described in /openapi.json.

The forms are those of ``--json`` on the command line (render.py); every error has a type.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ballet_qa import render
from ballet_qa.conversation import answer_next
from ballet_qa.errors import BalletQAError, visitor_message
from ballet_qa.followups import Turn
from ballet_qa.guard import STATUS, error_form
from ballet_qa.library import Library
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import heard
from ballet_qa.types import Reason, Scorer, Status

_MOST_STORIES = 1000
_MOST_TURNS = 50


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TurnBody(_Strict):
    """What was asked before (``asked`` of its answer, if it had one), and the story that told."""

    question: str = Field(max_length=SETTINGS.max_question_chars)
    answer: str = Field("", max_length=SETTINGS.max_question_chars)
    story: str | None = None


class AskBody(_Strict):
    """A question for ``/api/ask``; with a history, it may lean on what was asked before."""

    question: str
    top_k: int = SETTINGS.top_k
    stories: list[str] | None = None
    history: list[TurnBody] = Field(default_factory=list, max_length=_MOST_TURNS)


class SearchBody(_Strict):
    """A query for ``/api/search``."""

    query: str
    top_k: int = SETTINGS.top_k
    stories: list[str] | None = None
    rerank: bool = False


class StoryName(BaseModel):
    """A story by id and title."""

    id: str
    title: str


class Place(BaseModel):
    """A passage: its paragraph, and its characters in the story."""

    id: str
    number: int
    start: int
    end: int


class PlaceWithText(Place):
    """A passage with its words."""

    text: str


class HitForm(BaseModel):
    """A passage found."""

    rank: int
    score: float
    scored_by: Scorer
    story: StoryName
    passage: PlaceWithText
    also_in: list[str] = []


class FindingForm(BaseModel):
    """An answer from one story; ``start`` and ``end`` are the quote's, in the story."""

    answer: str
    confidence: float | None
    quote: str
    story: StoryName
    passage: Place
    start: int
    end: int
    about: str | None = None


class AnswerForm(BaseModel):
    """What the stories say, or why nothing is said."""

    question: str
    status: Status
    reason: Reason | None
    findings: list[FindingForm]
    hits: list[HitForm]
    asked: str | None = None
    within: str | None = None
    partial: list[str] | None = None


class SearchForm(BaseModel):
    """The hits of a query."""

    query: str
    hits: list[HitForm]
    partial: list[str] | None = None


class StoryForm(StoryName):
    """A story of the catalogue; ``length`` in characters."""

    length: int
    opening: str


class StoriesForm(BaseModel):
    """A part of the catalogue; ``total`` counts all stories."""

    total: int
    stories: list[StoryForm]


class SectionForm(BaseModel):
    """A chapter, or a scene without a title, from character ``start`` on."""

    start: int
    title: str


class WholeStoryForm(StoryName):
    """A story with its words; passages give characters of ``text``."""

    text: str
    sections: list[SectionForm]
    passages: list[Place]


class ErrorBody(BaseModel):
    """What was wrong."""

    type: str
    message: str


class ErrorForm(BaseModel):
    """What every error looks like."""

    error: ErrorBody


_WRONG: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorForm, "description": said}
    for code, said in {
        404: "No such story.",
        413: "The request is too large.",
        422: "The question or a limit is out of range.",
        503: "Too many questions are waiting, or a part of the cluster is silent.",
    }.items()
}
Stories = Annotated[list[str] | None, Query(description="Ids; only these stories are asked.")]


def add_routes(app: FastAPI, library: Library) -> None:
    """Put the routes on the application, and give its errors their form."""
    app.add_exception_handler(BalletQAError, _error_response)
    app.add_exception_handler(RequestValidationError, _invalid_response)
    routes = APIRouter(prefix="/api", responses=_WRONG)
    lean: dict[str, Any] = {"response_model_exclude_unset": True}

    @routes.post("/ask", response_model=AnswerForm, **lean)
    def ask(body: AskBody) -> dict[str, Any]:
        answerer = library.answerer()
        before = [_turn(library, turn) for turn in body.history]
        answer = answer_next(answerer, body.question, before, body.top_k, body.stories)
        return render.answer_json(answer)

    @routes.get("/ask", response_model=AnswerForm, **lean)
    def ask_by_address(
        question: str, top_k: int = SETTINGS.top_k, story: Stories = None
    ) -> dict[str, Any]:
        return ask(AskBody(question=question, top_k=top_k, stories=story))

    @routes.post("/search", response_model=SearchForm, **lean)
    def search(body: SearchBody) -> dict[str, Any]:
        answerer = library.answerer()
        find = answerer.rerank if body.rerank else answerer.retriever.search
        hits, silent = heard(
            answerer.index, lambda: find(body.query, body.top_k, stories=body.stories)
        )
        return render.search_json(body.query, hits, silent)

    @routes.get("/search", response_model=SearchForm, **lean)
    def search_by_address(
        query: str,
        top_k: int = SETTINGS.top_k,
        story: Stories = None,
        rerank: bool = False,
    ) -> dict[str, Any]:
        return search(SearchBody(query=query, top_k=top_k, stories=story, rerank=rerank))

    @routes.get("/stories", response_model=StoriesForm)
    def stories(
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=_MOST_STORIES)] = 100,
    ) -> dict[str, Any]:
        return render.catalogue_json(library.answerer().index.texts, offset, limit)

    @routes.get("/stories/{story_id:path}", response_model=WholeStoryForm)
    def story(story_id: str) -> dict[str, Any]:
        return render.whole_story_json(library.answerer().index, story_id)

    app.include_router(routes)


def _turn(library: Library, turn: TurnBody) -> Turn:
    if turn.story is None:
        return Turn(turn.question, turn.answer)
    index = library.answerer().index
    (row,) = index.story_rows([turn.story])
    return Turn(turn.question, turn.answer, topic=index.texts.title(row), story_id=turn.story)


def _error_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BalletQAError)
    kind = type(error).__name__
    return JSONResponse(error_form(kind, visitor_message(error)), STATUS.get(kind, 500))


def _invalid_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse(error_form("InvalidRequest", f"{where}: {first['msg']}"), status_code=422)
