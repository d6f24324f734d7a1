"""What stands before every route: which requests are answered, how much at once, and in what form.

In this order: the number and size of the headers, the host that is named and the page that asks
(origins.py), the password (keys.py), the size of the body and the time it takes, the turn. Every
response leaves with the security headers, every error in the one form. Pure ASGI: Starlette's
BaseHTTPMiddleware breaks server-sent events.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import ClientDisconnect

from ballet_qa.keys import Keys, Status
from ballet_qa.origins import (
    Hosts,
    Refusal,
    as_sent,
    comes_from_elsewhere,
    is_navigation,
    names_another_host,
)
from ballet_qa.render import page_html
from ballet_qa.settings import SETTINGS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's page needs inline and evaluated scripts of its own; nothing may come from elsewhere.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
# The HTTP status of an error that a route raised, by its type.
STATUS = {
    "QuestionError": 422,
    "UnknownStoryError": 404,
    "SilentError": 503,
    "IndexBusyError": 503,
    "StoriesError": 422,
    "UploadError": 422,
}
_MESSAGES = {
    400: ("BadRequest", "the request cannot be read"),
    404: ("NotFound", "there is nothing here; /openapi.json lists the routes"),
    405: ("MethodNotAllowed", "this route takes no such method; /openapi.json lists the routes"),
    413: ("RequestTooLarge", "the request is too large; send less at once"),
    415: ("UnsupportedMediaType", "send JSON, with content-type application/json"),
    422: ("InvalidRequest", "a value of the request is missing or out of range"),
    500: ("ServerError", "the server failed at this; its log has the reason"),
    503: ("TooBusy", "too much is under way; ask again in a few seconds"),
}
_UPLOAD = "/gradio_api/upload"
_EVENT = "/gradio_api/queue/join"
_MCP = "/mcp"  # JSON-RPC has an error form of its own
_COSTLY = re.compile(r"/api/(ask|search)/?|/gradio_api/(run|api)/[^/]+/?")
_RAISED = re.compile(r"(?P<kind>\w+Error): (?P<message>.*)", re.DOTALL)
_LARGEST_ERROR = 65_536  # bytes of an error's body that are looked at

_log = logging.getLogger(__name__)


class Guard:
    """Lets requests pass, bounds them, and gives every response its headers and form."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys | None = None,
        root_path: str = "",
        *,
        hosts: Hosts | None = None,
        uploads: bool = False,
    ) -> None:
        """``root_path`` is where a proxy shows the page; ``uploads`` lets large files through.

        Without ``hosts`` only loopback names are served.
        """
        self._app = app
        self._keys = keys
        self._root = root_path.rstrip("/")
        self._hosts = hosts or Hosts(frozenset())
        self._uploads = uploads
        self._working = asyncio.Semaphore(SETTINGS.at_once)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, guarded."""
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unknown = names_another_host(scope, self._hosts)
        scope = self._placed(as_sent(scope, self._hosts))
        out = _Response(send, own_errors=self._path(scope).startswith(_MCP))
        try:
            await self._pass(scope, receive, out, unknown)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("a request failed")
            if not out.is_started:
                await _error(scope, receive, out, 500, *_MESSAGES[500])
            elif not out.is_finished:
                raise  # who serves closes the connection

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, unknown: Refusal | None
    ) -> None:
        """The steps before the application, each of which may end the request.

        ``unknown`` is the refusal of the names that the request came with.
        """
        headers = scope["headers"]
        size = len(scope["path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers)
        if len(headers) > SETTINGS.max_headers or size > SETTINGS.max_header_bytes:
            limit = f"at most {SETTINGS.max_headers} headers of {SETTINGS.max_header_bytes:,} bytes"
            await _error(scope, receive, send, 431, "HeadersTooLarge", f"send {limit}")
            return
        if unknown is not None:
            await _refuse(scope, receive, send, unknown)
            return
        refused = comes_from_elsewhere(scope)
        if refused is not None:
            if is_navigation(scope) and self._path(scope) == "/":
                await self._ask_to_enter(scope, receive, send)
            else:
                await _refuse(scope, receive, send, refused)
            return
        if self._keys is not None and not await self._admit(scope, receive, send, self._keys):
            return
        await self._bounded(scope, receive, send)

    async def _ask_to_enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page without stories whose link leads in: who follows it comes from here."""
        query = scope["query_string"].decode("latin-1")
        address = f"{self._root}/" + (f"?{query}" if query else "")
        html = page_html("enter.html", address=address)
        await HTMLResponse(html, status_code=403)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, keys: Keys) -> bool:
        """Whether the password is right; else the response says what is wrong."""
        sent = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        address = scope["client"][0] if scope.get("client") else ""
        admission = await keys.admits(sent[0] if len(sent) == 1 else None, address)
        if admission.status is Status.ADMITTED:
            return True
        if admission.status is Status.TOO_MANY:
            wait = {"retry-after": str(admission.retry_after)}
            text = "too many wrong passwords; try again later"
            await _error(scope, receive, send, 429, "TooManyAttempts", text, wait)
        else:
            scheme = {"www-authenticate": 'Basic realm="ballet_qa", charset="UTF-8"'}
            text = "a user name and a password are needed here"
            await _error(scope, receive, send, 401, "PasswordNeeded", text, scheme)
        return False

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body within its limits, then wait for a turn."""
        path = self._path(scope)
        reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
        if not reads and not (self._uploads and path == _UPLOAD):
            event = self._uploads and path == _EVENT
            limit = SETTINGS.max_event_bytes if event else SETTINGS.max_request_bytes
            try:
                async with asyncio.timeout(SETTINGS.body_seconds):
                    body = await whole_body(receive, limit)
            except TimeoutError:
                text = f"the request took more than {SETTINGS.body_seconds:g} seconds to come"
                await _error(scope, receive, send, 408, "RequestTooSlow", text)
                return
            if body is None:
                text = f"the request is over {limit:,} bytes; ask for less"
                await _error(scope, receive, send, 413, "RequestTooLarge", text)
                return
            receive = replayed(body, receive)
        if _COSTLY.fullmatch(path) or (path == _MCP and not reads):
            await self._in_turn(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A few questions at once; some wait; the others get 503 and may come back."""
        if self._waiting >= SETTINGS.max_waiting:
            busy = f"{self._waiting} questions are waiting already; ask again in a few seconds"
            await _error(scope, receive, send, 503, "TooBusy", busy, {"retry-after": "5"})
            return
        self._waiting += 1
        try:
            await self._working.acquire()
        finally:
            self._waiting -= 1
        # The turn ends with the work: a visitor who does not read the answer would keep it.
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        try:
            await self._app(scope, receive, keep)
        finally:
            self._working.release()
        for message in messages:
            await send(message)

    def _placed(self, scope: Scope) -> Scope:
        """The request with its whole path, whether the proxy takes its own prefix off or not.

        Who serves a part of the paths by us (Ray Serve) calls that part the root; ours is another.
        """
        path = scope["path"]
        if path != self._root and not path.startswith(f"{self._root}/"):
            path = f"{self._root}{path}"
        return {**scope, "root_path": self._root, "path": path}

    def _path(self, scope: Scope) -> str:
        path: str = scope["path"].removeprefix(self._root)
        return path


def error_form(kind: str, message: str) -> dict[str, dict[str, str]]:
    """An error as every route writes it."""
    return {"error": {"type": kind, "message": message}}


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    await _error(scope, receive, send, refusal.status, refusal.kind, refusal.message)


async def _error(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    kind: str,
    message: str,
    headers: dict[str, str] | None = None,
) -> None:
    response = JSONResponse(error_form(kind, message), status_code=status, headers=headers)
    await response(scope, receive, send)


class _Response:
    """A send that sets the security headers, and puts every error into the one form.

    With ``own_errors`` the bodies of errors stay as they are.
    """

    def __init__(self, send: Send, *, own_errors: bool) -> None:
        self._send = send
        self._own_errors = own_errors
        self._error: Message | None = None
        self._body = b""
        self.is_started = self.is_finished = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_finished = True
        if message["type"] == "http.response.start":
            self.is_started = True
            message = {**message, "headers": _secured(message["headers"])}
            if message["status"] >= 400 and not self._own_errors:
                self._error = message  # sent when its body is known
                return
        elif message["type"] == "http.response.body" and self._error is not None:
            if len(self._body) < _LARGEST_ERROR:
                self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_error(self._error)
            return
        await self._send(message)

    async def _send_error(self, start: Message) -> None:
        headers = dict(start["headers"])
        status, body = start["status"], self._body
        # The one page among the errors is ours (`Guard._ask_to_enter`).
        if status != 403 or not headers.get(b"content-type", b"").startswith(b"text/html"):
            status, form = _as_error_form(status, body)
            body = json.dumps(form).encode()
            headers[b"content-type"] = b"application/json"
            headers.pop(b"content-encoding", None)
        headers[b"content-length"] = str(len(body)).encode()
        await self._send({**start, "status": status, "headers": list(headers.items())})
        await self._send({"type": "http.response.body", "body": body})


def _as_error_form(status: int, body: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the form of an error, from what the application answered.

    An error of ours that Gradio passed on as words gets its own type and status back.
    """
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if isinstance(error, dict) and set(error) == {"type", "message"}:
        return status, {"error": error}
    raised = _RAISED.fullmatch(error) if isinstance(error, str) else None
    if raised is not None and raised["kind"] in STATUS:
        return STATUS[raised["kind"]], error_form(raised["kind"], raised["message"])
    if status not in _MESSAGES:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "error"
        return status, error_form("HTTPError", phrase.lower())
    return status, error_form(*_MESSAGES[status])


def _secured(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with ours; what Gradio would allow other origins is left out."""
    own = {name.encode() for name in HEADERS}
    kept = [
        (name.lower(), value)
        for name, value in headers
        if name.lower() not in own and not name.lower().startswith(b"access-control-")
    ]
    return kept + [(name.encode(), value.encode()) for name, value in HEADERS.items()]


async def whole_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when it is larger than ``limit`` bytes."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        if size > limit:
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that returns the body that was already read, then goes on as before."""
    is_read = False

    async def replay() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
