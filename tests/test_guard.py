"""Who may come in, how much at once, where a proxy shows the page: by the real application."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ballet_qa.guard import Guard
from ballet_qa.library import Library
from ballet_qa.server import Serving
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Encoder
from conftest import BASE, routes_within, run_apart
from test_server import made_app


def basic(user: str, password: str) -> dict[str, str]:
    coded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {coded}"}


def test_every_route_is_guarded(seeds_index: Path, encoder: Encoder) -> None:
    """Every route in the application's own table is asked without credentials."""
    app = made_app(Library(seeds_index, encoder=encoder), Serving(auth="ann:secret", mcp=True))
    paths = {"/", "/nothing"} | {route.path for route in routes_within(app.routes)}
    assert {"/health", "/openapi.json", "/mcp", "/config", "/gradio_api/upload"} <= paths
    assert len(paths) > 60
    with TestClient(app, base_url=BASE) as client:
        for path in sorted(paths):
            for method in ("GET", "POST"):
                response = client.request(method, path.replace("{", "").replace("}", ""))
                assert response.status_code == 401, (method, path)
                assert response.headers["www-authenticate"].startswith("Basic")
                assert "default-src 'self'" in response.headers["content-security-policy"]
        assert client.get("/health", headers=basic("ann", "secret")).status_code == 200
        assert client.get("/", headers=basic("ann", "secret")).status_code == 200
        assert client.get("/", headers=basic("ann", "wrong")).status_code == 401


def test_another_sites_page_can_change_nothing(seeds_index: Path, encoder: Encoder) -> None:
    with TestClient(made_app(Library(seeds_index, encoder=encoder)), base_url=BASE) as client:
        body = {"question": "Who owns the café?"}
        for path in ("/api/ask", "/gradio_api/upload", "/gradio_api/queue/join"):
            response = client.post(path, json=body, headers={"sec-fetch-site": "cross-site"})
            assert response.status_code == 403
            assert response.json()["error"]["type"] == "FromElsewhere"
        same = {"sec-fetch-site": "same-origin"}
        assert client.post("/api/ask", json=body, headers=same).status_code == 200


@pytest.mark.parametrize("path", ["/shelf/health", "/health"])
def test_a_proxy_may_take_its_prefix_off_or_not(
    seeds_index: Path, encoder: Encoder, path: str
) -> None:
    app = made_app(Library(seeds_index, encoder=encoder), Serving(root_path="/shelf/"))
    with TestClient(app, base_url=BASE) as client:
        assert client.get(path).json()["status"] == "ok"


def test_who_does_not_read_an_answer_keeps_no_turn() -> None:
    """Visitors whose answers cannot be sent, then another's question."""

    async def quick(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask() -> list[int]:
        guard, blocked = Guard(quick), asyncio.Event()
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/search",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }

        async def send_never(_: object) -> None:
            await blocked.wait()

        statuses: list[int] = []

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(int(str(message["status"])))

        held = [
            asyncio.create_task(guard(dict(scope), receive, send_never))  # type: ignore[arg-type]
            for _ in range(2 * SETTINGS.at_once)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await guard(dict(scope), receive, send)  # type: ignore[arg-type]
        blocked.set()
        await asyncio.gather(*held)
        return statuses

    assert run_apart(ask()) == [200]


def test_beyond_those_that_wait_a_question_is_told_to_come_back() -> None:
    """Slow work behind the guard: a few at once, some wait, the rest get 503 at once."""
    most, lock = 0, threading.Lock()
    running = 0

    async def slow(_scope: object, _receive: object, send: object) -> None:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"{}"})  # type: ignore[operator]

    guard = Guard(slow)
    asked = SETTINGS.at_once + SETTINGS.max_waiting + 10

    async def ask() -> int:
        status: list[int] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                status.append(int(str(message["status"])))

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/ask",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await guard(scope, receive, send)  # type: ignore[arg-type]
        return status[0]

    async def all_at_once() -> list[int]:
        return await asyncio.gather(*(ask() for _ in range(asked)))

    statuses = run_apart(all_at_once())
    assert statuses.count(503) == 10
    assert statuses.count(200) == asked - 10
    assert most == SETTINGS.at_once
