"""What the page's events may carry: each layer by itself, without the one before it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.blocks import BlockFunction
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa.adding import Shelf
from ballet_qa.library import Library
from ballet_qa.page_inputs import KINDS, Events, fields_of, is_acceptable
from ballet_qa.page_routes import PageRoutes, remove_old_uploads
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Encoder
from ballet_qa.ui import build_page, events_of, mount_page
from ballet_qa.uploads import upload_folder
from conftest import routes_within, run_apart
from test_server import made_app

META = {"meta": {"_type": "gradio.FileData"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("path"), inner),
)


@pytest.fixture(scope="module")
def blocks(seeds_index: Path, encoder: Encoder) -> gr.Blocks:
    library = Library(seeds_index, encoder=encoder)

    async def made() -> gr.Blocks:
        return build_page(library, Shelf(library, upload_folder()))

    return run_apart(made())


def test_every_input_of_the_page_is_of_a_known_kind(blocks: gr.Blocks) -> None:
    kinds = {block.get_block_name() for fn in blocks.fns.values() for block in fn.inputs}
    assert {"textbox", "button", "dropdown", "state", "file", "uploadbutton", "api"} <= kinds
    assert kinds <= KINDS


def has_record(value: Any) -> bool:
    """Whether there is a JSON object in the value."""
    return isinstance(value, dict) or (isinstance(value, list) and any(map(has_record, value)))


@given(JSON)
def test_a_record_passes_in_no_input_unless_it_is_an_upload(value: Any) -> None:
    folder = upload_folder()
    for kind in KINDS:
        assert not (is_acceptable(kind, value, folder) and has_record(value))
    assert not is_acceptable("unheard", value, folder)


def test_an_upload_passes_in_an_upload_input_only(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("A swan.", "utf-8")
    record = META | {"path": str(file)}
    for kind in KINDS:
        assert is_acceptable(kind, [record], tmp_path) is (kind in ("file", "uploadbutton"))
    assert not is_acceptable("file", [record], tmp_path / "elsewhere")
    assert not is_acceptable("file", [record | {"is_stream": True}], tmp_path)
    assert not is_acceptable("file", [str(file)], tmp_path)
    assert not is_acceptable("file", [record, META | {"path": "/etc/passwd"}], tmp_path)
    assert not is_acceptable("file", META | {"path": str(tmp_path)}, tmp_path)  # a folder


def each_input(blocks: gr.Blocks) -> list[tuple[BlockFunction, int]]:
    """Every event with each place of its data."""
    return [(fn, place) for fn in blocks.fns.values() for place in range(len(fn.inputs))]


def test_gradio_is_handed_no_forged_file(blocks: gr.Blocks, tmp_path: Path) -> None:
    """The check before Gradio's own, without the one of the routes before it."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", "utf-8")
    before = set(upload_folder().rglob("*"))

    async def attempt() -> int:
        refused = 0
        for fn, place in each_input(blocks):
            for forged in (META | {"path": str(secret)}, [META | {"path": str(secret)}]):
                data = [None] * len(fn.inputs)
                data[place] = forged
                with pytest.raises(gr.Error, match="not what its field takes"):
                    await blocks.preprocess_data(fn, data, None)
                refused += 1
        return refused

    assert run_apart(attempt()) >= 60
    assert set(upload_folder().rglob("*")) == before


def test_gradios_own_check_is_on(seeds_index: Path, encoder: Encoder) -> None:
    """A mounted page counts as launched: Gradio takes no path that was not uploaded."""
    app = made_app(Library(seeds_index, encoder=encoder))
    routes = app.routes[-1].app  # type: ignore[attr-defined]
    assert isinstance(routes, PageRoutes)
    page: Any = routes._app
    assert page.get_blocks().has_launched is True
    assert mount_page.__module__ == "ballet_qa.ui"


def test_only_the_routes_in_use_are_open(seeds_index: Path, encoder: Encoder) -> None:
    """Every route of Gradio's own table; a new one is closed until it is named here."""
    app = made_app(Library(seeds_index, encoder=encoder))
    mounted: Any = app.routes[-1]
    opened = set()
    routes = list(routes_within(mounted.routes))
    assert len(routes) > 60
    for route in routes:
        path = getattr(route, "path", "").replace("{", "").replace("}", "").replace(":path", "")
        for method in getattr(route, "methods", None) or ["GET"]:
            if mounted.app.is_open(method, path):
                opened.add((method, path))
    writing = {path.rstrip("/") for method, path in opened if method == "POST"}
    assert writing == {
        "/gradio_api/api/api_name",
        "/gradio_api/call/api_name",
        "/gradio_api/call/v2/api_name",
        "/gradio_api/cancel",
        "/gradio_api/queue/join",
        "/gradio_api/reset",
        "/gradio_api/run/api_name",
    }
    reading = {path.rstrip("/") for method, path in opened if method == "GET"}
    assert reading == {
        "",
        "/assets/path",
        "/config",
        "/gradio_api/app_id",
        "/gradio_api/call/api_name/event_id",
        "/gradio_api/heartbeat/session_hash",
        "/gradio_api/info",
        "/gradio_api/queue/data",
        "/gradio_api/startup-events",
        "/gradio_api/theme.css",
        "/manifest.json",
        "/robots.txt",
        "/static/path",
        "/svelte/path",
        "/theme.css",
    }


def test_events_have_their_number_of_plain_values(blocks: gr.Blocks, tmp_path: Path) -> None:
    events = events_of(blocks)
    assert events.published == {
        "ask": {"question": True, "top_k": False, "stories": False},
        "search": {"query": True, "top_k": False, "stories": False},
    }
    call = {"data": ["Who?", 1, ["a", "b"]], "session_hash": "x"}
    assert events.accept_call("ask", call)
    for wrong in ([], ["Who?", 1], ["Who?", 1, None, 2], ["Who?", 1, {}], ["\ud800", 1, None]):
        assert not events.accept_call("ask", call | {"data": wrong})
    assert not events.accept_call("ask", call | {"fn_index": 0})
    assert events.accept_named_call("ask", {"question": "Who?"})
    for named in ({}, {"question": {}}, {"question": "Who?", "other": 1}, {"query": "Who?"}):
        assert not events.accept_named_call("ask", named)
    small = Events({0: 1}, {})
    clicked = {"event": "click", "turn": "0"}
    joined = {"data": ["x"], "fn_index": 0, "event_data": clicked, "trigger_id": 3}
    assert small.accept_joined(joined, None)
    for change in (
        {"fn_index": 1},
        {"fn_index": True},
        {"data": {}},
        {"data": [[["x"]]]},
        {"event_data": {"turn": {"path": "x"}}},
        {"event_data": [clicked]},
        {"trigger_id": float("nan")},
        {"session_hash": {}},
    ):
        assert not small.accept_joined(joined | change, None)


def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond `max_streams` there is 503, until a stream ends."""
    few = dataclasses.replace(SETTINGS, max_streams=2)
    monkeypatch.setattr("ballet_qa.page_routes.SETTINGS", few)

    async def attempt() -> list[int]:
        ending = asyncio.Event()
        statuses: list[int] = []

        async def stream(_scope: object, _receive: object, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await ending.wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Any:
            return {"type": "http.request"}

        routes = PageRoutes(stream, Events({}, {}), None)
        scope: Any = {
            "type": "http",
            "method": "GET",
            "path": "/gradio_api/heartbeat/a",
            "query_string": b"",
            "headers": [],
        }
        held = [asyncio.create_task(routes(scope, receive, send)) for _ in range(2)]
        await asyncio.sleep(0)
        await routes(scope, receive, send)
        ending.set()
        await asyncio.gather(*held)
        await routes(scope, receive, send)
        return statuses

    assert run_apart(attempt()) == [200, 200, 503, 200]


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_fields_or_nothing(body: bytes) -> None:
    fields = fields_of(body)
    assert fields is None or isinstance(fields, dict)


def test_old_uploads_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age in (("old", SETTINGS.pending_seconds + 60), ("new", 0.0)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "a.txt"
        file.write_text("words", "utf-8")
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age))
    assert remove_old_uploads(tmp_path) == (1, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
