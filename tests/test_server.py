"""Our own routes, by FastAPI's test client, over the real index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ballet_qa import render
from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.encoder import SentenceEncoder
from ballet_qa.library import Library
from ballet_qa.server import create_app
from conftest import KUZNETSOVA, WordEncoder
from test_cli import ANSWER, HIT, check_offsets


def made_app(library: Library) -> FastAPI:
    async def made() -> FastAPI:
        return create_app(library)

    # Outside a running event loop Gradio makes loops of its own and never closes them; a thread,
    # because Playwright's loop may be running in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, made()).result()


@pytest.fixture(scope="module")
def client(seeds_index: Path, encoder: SentenceEncoder) -> Iterator[TestClient]:
    with TestClient(made_app(Library(seeds_index, encoder=encoder))) as client:
        yield client


def test_health(client: TestClient) -> None:
    response = client.get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["stories"] == 4


def test_a_served_page_moves_to_the_new_generation(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    with TestClient(made_app(Library(tmp_path / "index", encoder=words))) as client:
        assert client.get("/health").json()["stories"] == 2
        (shelf / "new.txt").write_text("Straw on the lake.", "utf-8")
        build_index(shelf, tmp_path / "index", encoder=words)
        found = client.get("/api/search", params={"query": "straw lake", "top_k": 1}).json()
        assert found["hits"][0]["story"] == {"id": "new", "title": "new"}
        assert client.get("/health").json()["stories"] == 3


def test_ask_gives_the_form_of_the_command_line(client: TestClient, answerer: Answerer) -> None:
    question = "Who owns the café?"
    posted = client.post("/api/ask", json={"question": question, "top_k": 3}).json()
    jsonschema.validate(posted, ANSWER)
    check_offsets(posted)
    assert posted == render.answer_json(answerer.answer(question, 3))
    assert client.get("/api/ask", params={"question": question, "top_k": 3}).json() == posted


def test_search_and_its_filter(client: TestClient) -> None:
    body = {"query": "snow", "top_k": 2, "stories": [KUZNETSOVA]}
    form = client.post("/api/search", json=body).json()
    for hit in form["hits"]:
        jsonschema.validate(hit, HIT)
        assert hit["story"]["id"] == KUZNETSOVA
    address = {"query": "snow", "top_k": 2, "story": KUZNETSOVA}
    assert client.get("/api/search", params=address).json() == form


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"question": " "}, 422, "QuestionError"),
        ({"question": "x" * 10_000}, 422, "QuestionError"),
        ({"question": "Who?", "top_k": 0}, 422, "QuestionError"),
        ({"question": "Who?", "stories": ["x"]}, 404, "UnknownStoryError"),
        ({"question": "Who?", "nonsense": 1}, 422, "InvalidRequest"),
        ({}, 422, "InvalidRequest"),
        ({"question": "x" * 100_000}, 413, "RequestTooLarge"),
    ],
)
def test_what_cannot_be_asked_is_a_typed_error(
    client: TestClient, body: dict[str, object], status: int, kind: str
) -> None:
    response = client.post("/api/ask", json=body)
    assert response.status_code == status
    assert response.json()["error"]["type"] == kind
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/health", "/api/ask?question=x", "/config", "/nothing"])
def test_every_response_carries_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "object-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_that_load_from_elsewhere_are_off(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=index/live",
        "/gradio_api/file%3D/etc/passwd",
        "/static/../../../etc/passwd",
    ],
)
def test_no_file_leaves_the_server(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code in (403, 404)
    assert "root:" not in response.text


def test_the_pages_events_are_not_an_interface(client: TestClient) -> None:
    assert client.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
