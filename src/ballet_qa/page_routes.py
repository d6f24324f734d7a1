"""The few of Gradio's routes that the page and Gradio's client use; every other one is closed.

Gradio brings some seventy routes: files of its cache, proxies, streams, recordings, monitoring,
editors. What is not in the table below is answered 404, so that a route which a new version of
Gradio adds is closed until somebody needs it. Uploads are taken by Starlette's parser instead of
Gradio's, which keeps fields in memory and decodes names by whatever codec the request names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match

from ballet_qa.guard import error_form, replayed, whole_body
from ballet_qa.origins import Refusal
from ballet_qa.page_inputs import Events, fields_of, is_plain
from ballet_qa.settings import SETTINGS
from ballet_qa.uploads import keep_upload, remove_old_uploads

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD = "/gradio_api/upload"
_PROGRESS = "/gradio_api/upload_progress"
_NAME = r"[\w.-]{1,120}"
_READ = (
    "/",
    "/config/?",
    "/theme\\.css",
    "/manifest\\.json",
    "/robots\\.txt",
    f"/(assets|static|svelte)/{_NAME}(/{_NAME}){{0,5}}",
    "/gradio_api/(info|app_id|startup-events|theme\\.css)/?",
    f"/gradio_api/heartbeat/{_NAME}",
    "/gradio_api/queue/data",
    f"/gradio_api/call/{_NAME}/{_NAME}",
)
_READABLE = re.compile("|".join(_READ))
_WRITABLE = re.compile(
    f"/gradio_api/((?P<join>queue/join)|(?P<cancel>cancel|reset)/?"
    f"|(run|api|call)/(?P<name>{_NAME})/?|call/v2/(?P<named>{_NAME})/?)"
)
_STREAMED = re.compile(f"/gradio_api/(queue/data|heartbeat/{_NAME}|call/{_NAME}/{_NAME})")
_BOUNDARY = re.compile(rb"multipart/form-data;\s*boundary=\"?([\w'()+,./:=?-]{1,70})\"?", re.I)

_OTHER_METHOD = Refusal(
    405, "MethodNotAllowed", "this route takes no such method; /openapi.json lists the routes"
)
_NOT_FOUND = Refusal(404, "NotFound", "there is nothing here; /openapi.json lists the routes")
_UNEXPECTED = Refusal(422, "InvalidRequest", "a value is missing, or not what its field takes")
_NO_FILES = Refusal(400, "BadRequest", "send files alone, as multipart/form-data")
_TOO_MANY_FILES = Refusal(
    413, "RequestTooLarge", f"send at most {SETTINGS.max_upload_files:,} files at once"
)
_TOO_LARGE = Refusal(413, "RequestTooLarge", "the files are too large; send fewer, or smaller ones")
_TOO_SLOW = Refusal(408, "RequestTooSlow", "the upload took too long; send fewer files")
_TOO_MANY_UPLOADS = Refusal(
    503, "TooManyUploads", "too many uploads wait or are under way; add them, or try again later"
)
_TOO_MANY_STREAMS = Refusal(503, "TooBusy", "too many pages are open; try again later")
_TOO_MANY_UNREAD = Refusal(503, "TooBusy", "results of earlier events wait to be collected")


class PageRoutes:
    """Gradio's application with only the routes that are used. Pure ASGI."""

    def __init__(
        self,
        app: ASGIApp,
        events: Events,
        uploads: Path | None,
        others: Sequence[BaseRoute] = (),
        unread: Callable[[str], tuple[int, int]] = lambda _: (0, 0),
    ) -> None:
        """``uploads`` is the folder of uploaded files; None closes the route that fills it.

        ``others`` are the routes beside Gradio's: what they do not take comes here. ``unread``
        counts the results that nobody collected, of a session and in all.
        """
        self._app = app
        self._events = events
        self._uploads = uploads
        self._others = tuple(others)
        self._unread = unread
        self._streams = self._uploading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its route is open."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if not self.is_open(scope["method"], path):
            await _refuse(scope, receive, send, self._closed(path, scope))
        elif _names_a_page(scope["query_string"]):
            await _refuse(scope, receive, send, _NOT_FOUND)
        elif path == UPLOAD:
            await self._upload(scope, receive, send)
        elif path == _PROGRESS:  # the page asks for it; an upload is over when it is answered
            done = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
            await done(scope, receive, send)
        elif scope["method"] == "POST":
            await self._event(path, scope, receive, send)
        elif _STREAMED.fullmatch(path):
            await self._stream(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def is_open(self, method: str, path: str) -> bool:
        """Whether a request is answered."""
        if path in (UPLOAD, _PROGRESS):
            needed = "POST" if path == UPLOAD else "GET"
            return method == needed and self._uploads is not None
        if method in ("GET", "HEAD"):
            return _READABLE.fullmatch(path) is not None and ".." not in path
        return method == "POST" and _WRITABLE.fullmatch(path) is not None

    def _closed(self, path: str, scope: Scope) -> Refusal:
        """The refusal of a route that is not open: 405 if another method is."""
        if any(self.is_open(method, path) for method in ("GET", "POST")) or any(
            route.matches(scope)[0] is Match.PARTIAL for route in self._others
        ):
            return _OTHER_METHOD
        return _NOT_FOUND

    async def _event(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an event on when its values are plain. The guard has bounded the body."""
        body = await whole_body(receive, SETTINGS.max_event_bytes) or b""
        refused = await asyncio.to_thread(self._refused, path, body)
        if refused is not None:
            await _refuse(scope, receive, send, refused)
        else:
            await self._app(scope, replayed(body, receive), send)

    def _refused(self, path: str, body: bytes) -> Refusal | None:
        events, route = self._events, _WRITABLE.fullmatch(path)
        assert route is not None, "only open routes come here"
        called, fields = route["name"] or route["named"], fields_of(body)
        if called and called not in events.published:
            return _NOT_FOUND
        if fields is None:
            return _UNEXPECTED
        if route["cancel"]:
            return None if all(map(is_plain, fields.values())) else _UNEXPECTED
        if route["join"]:
            is_accepted = events.accept_joined(fields, self._uploads)
        elif route["name"]:
            is_accepted = events.accept_call(called, fields)
        else:
            is_accepted = events.accept_named_call(called, fields)
        if not is_accepted:
            return _UNEXPECTED
        of_session, of_all = self._unread(str(fields.get("session_hash")))
        too_many = of_session >= SETTINGS.max_unread_of_session or of_all >= SETTINGS.max_unread
        return _TOO_MANY_UNREAD if too_many else None

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass results on. Where there is no such event Gradio says so, then breaks off."""
        if self._streams >= SETTINGS.max_streams:
            await _refuse(scope, receive, send, _TOO_MANY_STREAMS)
            return
        self._streams += 1
        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams -= 1

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take files, as long as not too many wait to be added; the paths are the response."""
        folder = self._uploads
        assert folder is not None, "the route is closed without a folder"
        files, size = await asyncio.to_thread(remove_old_uploads, folder)
        if (
            files >= SETTINGS.max_pending_files
            or size >= SETTINGS.max_pending_bytes
            or self._uploading >= SETTINGS.max_uploads_at_once
        ):
            await _refuse(scope, receive, send, _TOO_MANY_UPLOADS)
            return
        self._uploading += 1
        try:
            async with asyncio.timeout(SETTINGS.upload_seconds):
                kept = await _kept(folder, scope, receive)
        except TimeoutError:
            kept = _TOO_SLOW
        finally:
            self._uploading -= 1
        if isinstance(kept, Refusal):
            await _refuse(scope, receive, send, kept)
        else:
            await JSONResponse(kept)(scope, receive, send)


async def _kept(folder: Path, scope: Scope, receive: Receive) -> list[str] | Refusal:
    """The paths of the files of a request, each kept in a folder of its own."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    boundary = _BOUNDARY.fullmatch(types[0]) if len(types) == 1 else None
    if boundary is None:
        return _NO_FILES
    # Without the application, for which Starlette would make faults of its own.
    plain = {name: value for name, value in scope.items() if name != "app"}
    try:
        form = await Request(plain, _bounded(receive)).form(
            max_files=SETTINGS.max_upload_files, max_fields=0
        )
    except MultiPartException as error:
        return _TOO_MANY_FILES if error.message.startswith("Too many files") else _NO_FILES
    except _TooLargeError:
        return _TOO_LARGE
    try:
        sent = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
        if any((file.size or 0) > SETTINGS.max_upload_bytes for file in sent):
            return _TOO_LARGE
        return [
            str(await asyncio.to_thread(keep_upload, folder, file.filename or "", file.file))
            for file in sent
        ]
    finally:
        await form.close()


class _TooLargeError(Exception):
    """The body of an upload is over the limit."""


def _bounded(receive: Receive) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > SETTINGS.max_upload_request_bytes:
            raise _TooLargeError
        return message

    return bounded


def _names_a_page(query: bytes) -> bool:
    """Whether an address names one of several pages: there is one, and Gradio fails on others."""
    return any(part.partition(b"=")[0] == b"page" for part in query.split(b"&"))


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    form = error_form(refusal.kind, refusal.message)
    await JSONResponse(form, status_code=refusal.status)(scope, receive, send)
