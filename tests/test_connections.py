"""Connections of a real uvicorn with short limits: slow headers, too many connections."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from ballet_qa import connections
from ballet_qa.connections import BoundedConnection
from ballet_qa.guard import Guard
from ballet_qa.settings import SETTINGS
from conftest import wait_until

SHORT = dataclasses.replace(
    SETTINGS, header_seconds=0.5, max_connections=3, body_seconds=0.5, write_seconds=0.5
)


async def hello(scope: dict[str, object], _receive: object, send: object) -> None:
    """Answer everything at once, ``/large`` with more than any buffer holds."""
    body = b"hi" if scope["path"] != "/large" else b"x" * 30_000_000
    length = str(len(body)).encode()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    await send(start)  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "SETTINGS", SHORT)
    monkeypatch.setattr("ballet_qa.guard.SETTINGS", SHORT)
    config = uvicorn.Config(
        Guard(hello), port=0, http=BoundedConnection, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: localhost\r\n"])
def test_headers_that_do_not_come_end_the_connection(port: int, sent: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(sent)
        response = answered(connection)
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b'"type": "RequestTooSlow"' in response
    assert b"content-security-policy" in response


def test_headers_that_drip_end_the_connection(port: int) -> None:
    """A byte now and then does not keep a connection."""
    with connect(port) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        drip(connection, b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 1000)


def drip(connection: socket.socket, sent: bytes) -> None:
    """Send a byte now and then."""
    for byte in sent:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def test_a_second_request_of_a_connection_has_its_own_time(port: int) -> None:
    with connect(port) as connection:
        for _ in range(2):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert b" 408 " in answered(connection)


def test_a_body_that_does_not_come_ends_the_request(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nx")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_visitor_who_does_not_read_is_let_go(port: int) -> None:
    """Answers that nobody reads fill the buffers; the connection ends, not the server."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        asked = b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n"
        connection.sendall(asked)
        wait_until(lambda: was_reset(connection, asked))


def was_reset(connection: socket.socket, asked: bytes) -> bool:
    """Whether the other side has ended the connection; nothing is read."""
    try:
        connection.sendall(asked)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_beyond_so_many_connections_one_is_closed(port: int) -> None:
    kept = [connect(port) for _ in range(SHORT.max_connections)]
    try:
        for connection in kept:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        with connect(port) as further:
            assert answered(further).startswith(b"HTTP/1.1 503 ")
        kept.pop().close()
        wait_until(lambda: is_served(port))
    finally:
        for connection in kept:
            connection.close()


def is_served(port: int) -> bool:
    try:
        with connect(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
