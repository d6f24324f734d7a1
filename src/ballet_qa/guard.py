"""What stands before every route: who may ask, how much at once, and the headers of every answer.

Pure ASGI: Starlette's BaseHTTPMiddleware breaks server-sent events.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse

from ballet_qa.keys import Keys, Status
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
}
_UPLOAD = "/gradio_api/upload"
_COSTLY = ("/api/ask", "/api/search")


class Guard:
    """Lets in, bounds, and adds the security headers to every response."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys | None = None,
        root_path: str = "",
        *,
        uploads: bool = False,
    ) -> None:
        """``root_path`` is where a proxy shows the page; ``uploads`` lets large files through."""
        self._app = app
        self._keys = keys
        self._root = root_path.rstrip("/")
        self._uploads = uploads
        self._working = asyncio.Semaphore(SETTINGS.at_once)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, guarded."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope = self._placed(scope)
        if self._keys is not None and not await self._let_in(scope, self._keys):
            await self._refuse(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        send_guarded = _guarded(send)
        path = scope["path"].removeprefix(self._root)
        upload = self._uploads and path.startswith(_UPLOAD)
        reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
        if not reads and (b"sec-fetch-site", b"cross-site") in scope["headers"]:
            # A browser sends a known password wherever a page makes it ask.
            elsewhere = error_form("FromElsewhere", "asked by another site's page; ask from here")
            await JSONResponse(elsewhere, status_code=403)(scope, receive, send_guarded)
            return
        if not reads and not upload:
            body = await _body_within(receive, SETTINGS.max_request_bytes)
            if body is None:
                limit = f"the request is over {SETTINGS.max_request_bytes:,} bytes; ask for less"
                response = JSONResponse(error_form("RequestTooLarge", limit), status_code=413)
                await response(scope, receive, send_guarded)
                return
            receive = _replayed(body, receive)
        if path.rstrip("/") in _COSTLY:
            await self._in_turn(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A few questions at once; some wait; the rest are told to come back."""
        if self._waiting >= SETTINGS.max_waiting:
            busy = f"{self._waiting} questions are waiting already; ask again in a few seconds"
            response = JSONResponse(
                error_form("TooBusy", busy), status_code=503, headers={"retry-after": "5"}
            )
            await response(scope, receive, send)
            return
        self._waiting += 1
        try:
            await self._working.acquire()
        finally:
            self._waiting -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._working.release()

    def _placed(self, scope: Scope) -> Scope:
        """The request with its whole path, whether the proxy takes its own prefix off or not.

        Who serves a part of the paths by us (Ray Serve) calls that part the root; ours is another.
        """
        path = scope["path"]
        if path != self._root and not path.startswith(f"{self._root}/"):
            path = f"{self._root}{path}"
        return {**scope, "root_path": self._root, "path": path}

    async def _let_in(self, scope: Scope, keys: Keys) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        address = scope["client"][0] if scope.get("client") else ""
        admission = await keys.admits(given[0] if len(given) == 1 else None, address)
        return admission.status is Status.ADMITTED

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return

        response = JSONResponse(
            error_form("NotLetIn", "name and password are needed here"),
            status_code=401,
            headers={"www-authenticate": 'Basic realm="ballet_qa", charset="UTF-8"'},
        )
        await response(scope, receive, _guarded(send))


def error_form(kind: str, message: str) -> dict[str, dict[str, str]]:
    """An error as every route gives it."""
    return {"error": {"type": kind, "message": message}}


def _guarded(send: Send) -> Send:
    """A send that adds the security headers."""

    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.encode() for name in HEADERS}
            headers = [(k, v) for k, v in message["headers"] if k.lower() not in own]
            headers += [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            message = {**message, "headers": headers}
        await send(message)

    return send_guarded


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
