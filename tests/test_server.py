"""Our own routes, by FastAPI's test client, over the real index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ballet_qa import render
from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.library import Library
from ballet_qa.server import Serving, create_app, create_routes
from ballet_qa.types import Encoder
from conftest import BASE, KUZNETSOVA, ROCHE, SEEDS, WordEncoder, run_apart
from test_cli import ANSWER, HIT, check_offsets


def made_app(library: Library, serving: Serving | None = None) -> FastAPI:
    async def made() -> FastAPI:
        return create_app(library, serving)

    # Outside a running event loop Gradio makes loops of its own and never closes them.
    return run_apart(made())


@pytest.fixture(scope="module")
def client(seeds_index: Path, encoder: Encoder) -> Iterator[TestClient]:
    with TestClient(made_app(Library(seeds_index, encoder=encoder)), base_url=BASE) as client:
        yield client


def test_health(client: TestClient) -> None:
    response = client.get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["stories"] == 4


def test_the_routes_alone_served_below_a_prefix(seeds_index: Path, encoder: Encoder) -> None:
    """Ray Serve calls the prefix under which it serves them the root."""
    library = Library(seeds_index, encoder=encoder)
    serving = Serving(auth="ann:secret", root_path="/shelf")
    for root, path in (("/api", "/api/search"), ("/api", "/shelf/api/search"), ("", "/api/search")):
        with TestClient(create_routes(library, serving), base_url=BASE, root_path=root) as client:
            assert client.get(path, params={"query": "café"}).status_code == 401
            client.auth = ("ann", "secret")
            assert client.get(path, params={"query": "café"}).json()["hits"]
            assert client.get("/shelf/").status_code == 404


def test_a_served_page_moves_to_the_new_generation(
    shelf: Path, tmp_path: Path, words: WordEncoder
) -> None:
    build_index(shelf, tmp_path / "index", encoder=words)
    with TestClient(made_app(Library(tmp_path / "index", encoder=words)), base_url=BASE) as client:
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


def test_the_pages_own_events_are_not_an_interface(client: TestClient) -> None:
    told = client.get("/gradio_api/info").json()
    assert set(told["named_endpoints"]) == {"/ask", "/search"}
    assert told["unnamed_endpoints"] == {}


def test_a_question_may_lean_on_a_history(client: TestClient) -> None:
    before = {"question": "Who owns the café?", "answer": "Colette", "story": KUZNETSOVA}
    body = {"question": "What is her smile like?", "history": [before], "top_k": 1}
    told = client.post("/api/ask", json=body).json()
    jsonschema.validate(told, ANSWER)
    assert told["asked"] == "What is Colette’s smile like?"
    alone = client.post("/api/ask", json={"question": body["question"], "top_k": 1}).json()
    assert "asked" not in alone


def test_the_stories_can_be_listed_and_read(client: TestClient) -> None:
    told = client.get("/api/stories", params={"offset": 1, "limit": 2}).json()
    assert told["total"] == 4
    assert [story["id"] for story in told["stories"]] == [ROCHE, KUZNETSOVA]
    assert set(told["stories"][0]) == {"id", "title", "length", "opening"}
    story = client.get(f"/api/stories/{KUZNETSOVA}").json()
    assert story["text"] == (SEEDS / f"{KUZNETSOVA}.txt").read_text("utf-8")
    assert len(story["text"]) == told["stories"][1]["length"]
    assert story["passages"][0]["id"] == f"{KUZNETSOVA}#1"
    missing = client.get("/api/stories/no/such")
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "UnknownStoryError"


def test_the_routes_describe_themselves(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    paths = {path for path in described["paths"] if path.startswith("/api/")}
    assert paths == {"/api/ask", "/api/search", "/api/stories", "/api/stories/{story_id}"}
    answers = described["paths"]["/api/ask"]["post"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("AnswerForm")
    assert answers["404"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorForm")
