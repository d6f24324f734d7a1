"""Connections that are bounded before a request is complete: their number, and the headers' time.

uvicorn bounds the size of the headers itself (``h11_max_incomplete_event_size``); it waits for ever
for one that sends them slowly, and takes as many connections as the system gives it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from ballet_qa.guard import HEADERS, error_form
from ballet_qa.settings import SETTINGS


def _response(connection: h11.Connection, status: int, kind: str, message: str) -> bytes:
    """An error in the one form, after which the connection ends."""
    body = json.dumps(error_form(kind, message)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((name.encode(), value.encode()) for name, value in HEADERS.items()),
    ]
    response = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
    events = (response, h11.Data(data=body), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)


_FULL = _response(
    h11.Connection(h11.SERVER), 503, "TooBusy", "too many connections are open; try again later"
)


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection with a deadline for headers and a limit on connections."""

    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it when there are too many."""
        if len(self.connections) >= SETTINGS.max_connections:
            transport.write(_FULL)
            transport.close()
            return
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        self._end_write_deadline()
        if self.transport is not None:  # one that was taken
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; whoever began a request must complete its headers in time."""
        if self.transport is None:
            return
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        """Wait for a visitor who reads slowly, but not for ever."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(SETTINGS.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._end_write_deadline()

    def on_response_complete(self) -> None:
        """Wait for the next request of this connection."""
        super().on_response_complete()
        self._rest()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is no HTTP request, in the form of every error."""
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            limit = f"send headers of at most {SETTINGS.max_header_bytes:,} bytes"
            self._refuse(431, "HeadersTooLarge", limit)
        else:
            self._refuse(400, "BadRequest", "the request cannot be read")

    def _watch(self) -> None:
        """Start the deadline while headers are incomplete; end it once they are there."""
        if self.conn.their_state is not h11.IDLE:
            self._rest()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(SETTINGS.header_seconds, self._expire)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            text = f"the headers took more than {SETTINGS.header_seconds:g} seconds to come"
            self._refuse(408, "RequestTooSlow", text)

    def _refuse(self, status: int, kind: str, message: str) -> None:
        with suppress(h11.LocalProtocolError):  # a response is under way
            self.transport.write(_response(self.conn, status, kind, message))
        self.transport.close()
