"""The few of Gradio's routes that the page and Gradio's client use; every other one is closed.

Gradio brings some seventy routes: files of its cache, proxies, streams, recordings, monitoring,
editors. What is not in the table below is answered 404, so that a route which a new version of
Gradio adds is closed until somebody needs it. Uploads are bounded here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.routing import BaseRoute, Match

from ballet_qa.guard import error_form, replayed, whole_body
from ballet_qa.origins import Refusal
from ballet_qa.page_inputs import Events, fields_of, is_plain
from ballet_qa.settings import SETTINGS
from ballet_qa.uploads import remove_old_uploads

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD = "/gradio_api/upload"
_NAME = r"[\w.-]+"
_READ = (
    "/",
    "/config/?",
    "/theme\\.css",
    "/manifest\\.json",
    "/robots\\.txt",
    f"/(assets|static|svelte)/{_NAME}(/{_NAME})*",
    "/gradio_api/(info|app_id|startup-events|theme\\.css)/?",
    f"/gradio_api/heartbeat/{_NAME}",
    "/gradio_api/queue/data",
    f"/gradio_api/call/{_NAME}/{_NAME}",
)
_UPLOADED = ((UPLOAD, "POST"), ("/gradio_api/upload_progress", "GET"))
_READABLE = re.compile("|".join(_READ))
_WRITABLE = re.compile(
    f"/gradio_api/((?P<join>queue/join)|(?P<cancel>cancel|reset)/?"
    f"|(run|api|call)/(?P<name>{_NAME})/?|call/v2/(?P<named>{_NAME})/?)"
)
# Gradio begins to answer these before it knows whether there is such an event.
_STREAMED = re.compile(f"/gradio_api/(queue/data|call/{_NAME}/{_NAME})")


class PageRoutes:
    """Gradio's application with only the routes that are used. Pure ASGI."""

    def __init__(
        self, app: ASGIApp, events: Events, uploads: Path | None, others: Sequence[BaseRoute] = ()
    ) -> None:
        """``uploads`` is the folder of uploaded files; None closes the routes that fill it.

        ``others`` are the routes beside Gradio's. What they do not take comes here.
        """
        self._app = app
        self._events = events
        self._others = tuple(others)
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its route is open."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if not self.is_open(scope["method"], path):
            await _refuse(scope, receive, send, self._closed(path, scope))
        elif self._uploads is not None and path == UPLOAD:
            await self._upload(self._uploads, scope, receive, send)
        elif scope["method"] == "POST":
            await self._event(path, scope, receive, send)
        elif _STREAMED.fullmatch(path):
            await self._stream(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def is_open(self, method: str, path: str) -> bool:
        """Whether a request is passed on to Gradio."""
        if self._uploads is not None and (path, method) in _UPLOADED:
            return True
        if method in ("GET", "HEAD"):
            return _READABLE.fullmatch(path) is not None and ".." not in path
        return method == "POST" and _WRITABLE.fullmatch(path) is not None

    def _closed(self, path: str, scope: Scope) -> Refusal:
        """What is said of a route that is not open: 405 if another method is."""
        if any(self.is_open(method, path) for method in ("GET", "POST")) or any(
            route.matches(scope)[0] is Match.PARTIAL for route in self._others
        ):
            return _OTHER_METHOD
        return _NOT_FOUND

    async def _event(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an event on when its values are plain. The guard has bounded the body."""
        body = await whole_body(receive, SETTINGS.max_event_bytes) or b""
        refused = self._refused(path, fields_of(body))
        if refused is not None:
            await _refuse(scope, receive, send, refused)
        else:
            await self._app(scope, replayed(body, receive), send)

    def _refused(self, path: str, fields: dict[str, Any] | None) -> Refusal | None:
        events, route = self._events, _WRITABLE.fullmatch(path)
        assert route is not None, "only open routes come here"
        called = route["name"] or route["named"]
        if called and called not in events.published:
            return _NOT_FOUND
        if fields is None:
            return _UNEXPECTED
        if called:
            accept = events.accept_call if route["name"] else events.accept_named_call
            return None if accept(called, fields) else _UNEXPECTED
        if route["join"]:
            return None if events.accept_joined(fields, self._uploads) else _UNEXPECTED
        return None if all(map(is_plain, fields.values())) else _UNEXPECTED

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass events' results on. Where there is no such event Gradio says so, then breaks off."""
        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _upload(self, folder: Path, scope: Scope, receive: Receive, send: Send) -> None:
        """Take files, as long as not too many wait to be added."""
        files, size = await asyncio.to_thread(remove_old_uploads, folder)
        if files >= SETTINGS.max_pending_files or size >= SETTINGS.max_pending_bytes:
            waiting = f"{files:,} uploaded files wait to be added; add them, or try again later"
            await _refuse(scope, receive, send, Refusal(503, "TooManyUploads", waiting))
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > SETTINGS.max_upload_request_bytes:
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, bounded, send)


_OTHER_METHOD = Refusal(
    405, "MethodNotAllowed", "this route takes no such method; /openapi.json lists the routes"
)
_NOT_FOUND = Refusal(404, "NotFound", "there is nothing here; /openapi.json lists the routes")
_UNEXPECTED = Refusal(422, "InvalidRequest", "a value is missing, or not what its field takes")


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    form = error_form(refusal.kind, refusal.message)
    await JSONResponse(form, status_code=refusal.status)(scope, receive, send)
