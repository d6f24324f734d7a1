"""The web server: our own routes on FastAPI, the Gradio page mounted at ``/``.

Everything outside the page lives here: headers, limits, errors as JSON, health.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from ballet_qa import __version__, render
from ballet_qa.errors import BalletQAError, QuestionError, ServeError, UnknownStoryError
from ballet_qa.library import Library
from ballet_qa.settings import SETTINGS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's page needs inline and evaluated scripts of its own; nothing may come from elsewhere.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_STATUS = {QuestionError: 422, UnknownStoryError: 404}


class AskBody(BaseModel):
    """A question for ``/api/ask``."""

    model_config = ConfigDict(extra="forbid")

    question: str
    top_k: int = SETTINGS.top_k
    stories: list[str] | None = None


class SearchBody(BaseModel):
    """A query for ``/api/search``."""

    model_config = ConfigDict(extra="forbid")

    query: str
    top_k: int = SETTINGS.top_k
    stories: list[str] | None = None
    rerank: bool = False


def create_app(library: Library) -> FastAPI:
    """The whole application: page, routes and guards."""
    app = FastAPI(title="ballet_qa", version=__version__, docs_url=None, redoc_url=None)
    app.add_exception_handler(BalletQAError, _error_response)
    app.add_exception_handler(RequestValidationError, _invalid_response)

    @app.get("/health")
    def health() -> dict[str, Any]:
        manifest = library.answerer().index.manifest
        return {"status": "ok", "stories": manifest.stories, "built": manifest.built}

    @app.post("/api/ask")
    def ask(body: AskBody) -> dict[str, Any]:
        answer = library.answerer().answer(body.question, body.top_k, stories=body.stories)
        return render.answer_json(answer)

    @app.get("/api/ask")
    def ask_by_address(
        question: str,
        top_k: int = SETTINGS.top_k,
        story: Annotated[list[str] | None, Query()] = None,
    ) -> dict[str, Any]:
        return ask(AskBody(question=question, top_k=top_k, stories=story))

    @app.post("/api/search")
    def search(body: SearchBody) -> dict[str, Any]:
        answerer = library.answerer()
        find = answerer.rerank if body.rerank else answerer.retriever.search
        hits = find(body.query, body.top_k, stories=body.stories)
        return render.search_json(body.query, hits)

    @app.get("/api/search")
    def search_by_address(
        query: str,
        top_k: int = SETTINGS.top_k,
        story: Annotated[list[str] | None, Query()] = None,
        rerank: bool = False,
    ) -> dict[str, Any]:
        return search(SearchBody(query=query, top_k=top_k, stories=story, rerank=rerank))

    from ballet_qa.ui import mount_page

    mount_page(app, library)
    app.add_middleware(Guard)
    return app


def run(
    index_dir: str | Path,
    *,
    host: str = SETTINGS.host,
    port: int = SETTINGS.port,
    reader: str | Path | None = None,
) -> None:
    """Serve until interrupted. Raises what `Library` raises, and ServeError."""
    import uvicorn

    check_port_is_free(host, port)
    app = create_app(Library(index_dir, reader))
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    print(f"The reading room is open at http://{shown}:{port} (Ctrl-C closes it)", flush=True)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        proxy_headers=False,
        timeout_graceful_shutdown=3,  # an open page holds a stream that never ends by itself
    )


def check_port_is_free(host: str, port: int) -> None:
    """Raise ServeError, naming the remedy, when the port cannot be listened on."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ServeError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --port"
        ) from error


class Guard:
    """Adds the security headers to every response and bounds the size of every request.

    Pure ASGI: Starlette's BaseHTTPMiddleware breaks server-sent events.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, guarded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.encode() for name in _HEADERS}
                headers = [(k, v) for k, v in message["headers"] if k.lower() not in own]
                headers += [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": headers}
            await send(message)

        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            body = await _body_within(receive, SETTINGS.max_request_bytes)
            if body is None:
                limit = f"the request is over {SETTINGS.max_request_bytes:,} bytes; ask for less"
                response = JSONResponse(_error_form("RequestTooLarge", limit), status_code=413)
                await response(scope, receive, send_guarded)
                return
            receive = _replayed(body, receive)
        await self._app(scope, receive, send_guarded)


async def _body_within(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when it is larger than ``limit``."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        size += len(message.get("body", b""))
        if size > limit:
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was already read, then goes on as before."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _error_form(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}


def _error_response(_: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse(_error_form(type(error).__name__, str(error)), status_code=status)


def _invalid_response(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse(_error_form("InvalidRequest", f"{where}: {first['msg']}"), status_code=422)
