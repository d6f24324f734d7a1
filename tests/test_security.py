"""No file leaves the server and none is added to the shelf, whatever an event carries."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from attacks import (
    ADDRESSES,
    BODIES,
    FROM_A_PAGE,
    PATHS,
    SECRET,
    Event,
    events_of,
    forged_files,
    harmless,
    queued,
    relayed,
    with_each_place_forged,
)
from ballet_qa.build import build_index
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Encoder
from conftest import TRIES, run_apart
from test_browser import PROCESSES, serving

pytestmark = pytest.mark.timeout(280)
_FILE = re.compile(r"(?:/gradio_api/file=|/[\w./-]*ballet_qa-uploads-)[^\"\\ ]*")


@dataclass(frozen=True)
class Served:
    """A server process, the folder of its stories, and a file beside it that is no story."""

    client: httpx.Client
    address: str
    shelf: Path
    secret: Path

    def files(self) -> set[str]:
        """The stories there are."""
        return {str(path) for path in self.shelf.rglob("*")}

    def uploads(self) -> list[Path]:
        """What lies in the server's upload folder."""
        process = PROCESSES[self.address.removeprefix("http://")]
        environment = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
        (folder,) = (
            path
            for line in environment
            if line.startswith("TMPDIR=")
            for path in Path(line.removeprefix("TMPDIR=")).glob("ballet_qa-uploads-*")
        )
        return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module", params=["default", "allow-add"])
def served(
    request: pytest.FixtureRequest, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    (home / "tmp").mkdir()
    shelf = home / "shelf"
    shelf.mkdir()
    (shelf / "one.txt").write_text("Berta kept bees behind the mill.", "utf-8")
    secret = home / "secret.txt"
    secret.write_text(f"{SECRET} is the password.", "utf-8")
    os.mkfifo(home / "pipe")
    (home / "link").symlink_to(secret)
    build_index(shelf, home / "index", encoder=encoder)
    options = ["--allow-add", "--allowed-host", "mybox.test"]
    options = options if request.param == "allow-add" else []
    with (
        serving(home / "index", *options, environment={"TMPDIR": str(home / "tmp")}) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        yield Served(client, address, shelf, secret)
    assert list((home / "tmp").glob("ballet_qa-uploads-*")) == []  # they go with the server


def test_no_event_reads_a_file(served: Served) -> None:
    """Every event, every place of its data, every way to name a file."""
    before = served.files()
    events = events_of(served.client)
    assert len(events) > 25
    for event in events:
        for forged in forged_files(served.secret, served.address):
            for data in with_each_place_forged(event, forged):
                check(served, event, queued(served.client, event.number, data))
    assert served.files() == before
    assert served.uploads() == []
    assert served.client.get("/health").json()["stories"] == 1


def test_no_event_reads_a_file_from_a_nested_value(served: Served) -> None:
    (forged, *_) = forged_files(served.secret, served.address)
    shapes: list[Any] = [
        [forged],
        [[forged]],
        {"value": forged},
        {"a": {"b": [forged]}},
        ["x", forged],
        {"files": [forged], "text": "x"},
        [forged | {"path": [str(served.secret)]}],
    ]
    for event in events_of(served.client):
        for shape in shapes:
            for data in with_each_place_forged(event, shape):
                check(served, event, queued(served.client, event.number, data))
        data = [harmless(kind) for kind in event.inputs]
        for clicked in (forged, [forged], {"turn": forged, "passage": forged, "story": forged}):
            check(served, event, queued(served.client, event.number, data, clicked))
    assert served.uploads() == []


@pytest.mark.parametrize("route", ["run", "api", "call", "call/v2"])
def test_no_published_endpoint_reads_a_file(served: Served, route: str) -> None:
    for event in events_of(served.client):
        for forged in forged_files(served.secret, served.address):
            for data in with_each_place_forged(event, forged):
                body: dict[str, Any] = {"data": data, "question": forged, "query": forged}
                response = served.client.post(f"/gradio_api/{route}/{event.name}", json=body)
                text = response.text
                if response.status_code == 200 and "event_id" in response.json():
                    number = response.json()["event_id"]
                    text += served.client.get(f"/gradio_api/call/{event.name}/{number}").text
                elif not event.is_public or route in ("run", "api"):
                    assert response.status_code >= 400 or event.inputs == ()
                    assert response.status_code < 500
                check(served, event, text)
    assert served.uploads() == []


def test_no_route_of_gradios_serves_a_file(served: Served) -> None:
    for path in (str(served.secret), "pyproject.toml", "/etc/passwd", f"{served.address}/health"):
        for start in ("file=", "file/", "proxy=", "stream/", "custom_component/"):
            TRIES["a file of the server's named in the address of a route"] += 1
            response = served.client.get(f"/gradio_api/{start}{path}")
            assert response.status_code == 404
            assert response.json()["error"]["type"] == "NotFound"


def check(served: Served, event: Event, text: str) -> None:
    """What came back names no copy of a file, and what it names cannot be had."""
    TRIES["a file of the server's named in a value of an event or an endpoint"] += 1
    assert SECRET not in text, event
    assert "build-backend" not in text, event
    for link in _FILE.findall(text):
        path = link if link.startswith("/gradio_api") else f"/gradio_api/file={link}"
        assert served.client.get(path).status_code == 404, (event, link)


def test_nothing_hangs_the_server(served: Served) -> None:
    """A device without an end and a pipe without a writer, then an ordinary question."""
    record = {"meta": {"_type": "gradio.FileData"}}
    begun = time.monotonic()
    for event in events_of(served.client):
        for path in ("/dev/zero", str(served.secret.parent / "pipe")):
            for data in with_each_place_forged(event, [record | {"path": path}]):
                TRIES["a device or a pipe that would hang the server"] += 1
                queued(served.client, event.number, data)
    asked = served.client.get("/api/ask", params={"question": "Who kept bees?"})
    assert asked.json()["findings"][0]["answer"] == "Berta"
    assert time.monotonic() - begun < 60  # a hang is minutes, not the speed of the machine


def test_uploads_need_permission_and_do_not_stay(served: Served) -> None:
    """Closed without --allow-add; with it a file is added, and its upload removed."""
    content = {"files": ("two.txt", b"Otto kept a goat.")}
    response = served.client.post("/gradio_api/upload", files=content)
    add = [event for event in events_of(served.client) if "file" in event.inputs]
    if not add:
        assert response.status_code == 404
        assert served.uploads() == []
        return
    (path,) = response.json()
    record = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert len(served.uploads()) == 1
    report = queued(served.client, add[0].number, [[record], ""])
    assert json.loads(report.splitlines()[-1][5:])["success"] is True
    assert served.uploads() == []
    assert [path.name for path in (served.shelf / "added").iterdir()] == ["two.txt"]
    again = served.client.post(
        "/gradio_api/queue/join",
        json={"data": [[record], ""], "fn_index": add[0].number, "session_hash": "again"},
    )
    assert again.status_code == 422


def check_form(response: httpx.Response) -> None:
    """An error has the one form and names nothing of the server's; none is a bare 500."""
    TRIES["a request that is no request, or has odd values: the form of the error"] += 1
    assert response.status_code < 500 or response.status_code == 503, response.request
    if response.status_code < 400 or response.request.method == "HEAD":
        return
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert set(error) == {"type", "message"}
    assert re.fullmatch(r"[A-Z]\w+", error["type"])
    assert not re.search(r"/(tmp|work|home|root|usr)/|site-packages|Traceback", error["message"])
    assert str(PROCESSES[f"127.0.0.1:{response.request.url.port}"]) not in error["message"]


def test_every_error_of_every_route_has_the_one_form(served: Served) -> None:
    """404, 405, 400, 413, 422: whatever is sent, by whatever method, to whatever path."""
    for path in PATHS:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            for body in BODIES if method == "POST" else BODIES[:2]:
                json_type = {"content-type": "application/json"}
                check_form(served.client.request(method, path, content=body, headers=json_type))
        if path != "/gradio_api/queue/data":  # a stream
            check_form(served.client.get(path))
    for address in ADDRESSES:
        check_form(served.client.get(address))
    assert served.client.get("/nothing").status_code == 404
    assert served.client.delete("/api/ask").status_code == 405
    too_large = served.client.post("/api/ask", content=b"x" * 70_000)
    assert too_large.status_code == 413
    check_form(too_large)


def exchanged(served: Served, sent: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes; the status, and the form of the error if it is one."""
    port = int(served.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
    return response.status, json.loads(body) if response.status >= 400 else {}


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (b"nonsense\r\n\r\n", 400, "BadRequest"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "BadRequest"),  # no host
        (b"GET / HTTP/1.0\r\n\r\n", 421, "UnknownHost"),
        (b"GET http://evil.test/ HTTP/1.1\r\nhost: evil.test\r\n\r\n", 421, "UnknownHost"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "BadRequest"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 20_000 + b"\r\n\r\n", 431, "HeadersTooLarge"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 431, "HeadersTooLarge"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 90_000, 431, "HeadersTooLarge"),
        (
            b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 100 + b"\r\n",
            431,
            "HeadersTooLarge",
        ),
    ],
)
def test_what_is_no_request_is_refused_in_the_one_form(
    served: Served, sent: bytes, status: int, kind: str
) -> None:
    TRIES["bytes that are no HTTP, headers too many or too large"] += 1
    answered, form = exchanged(served, sent)
    assert (answered, form["error"]["type"]) == (status, kind)


def test_a_flood_of_a_published_route_leaves_room_for_others(served: Served) -> None:
    """300 questions in one moment by Gradio's route: a few wait, the others may come back."""
    body = {"data": ["Who kept bees?", 1, None]}
    statuses: list[int] = []

    async def flood() -> httpx.Response:
        async with httpx.AsyncClient(
            base_url=served.address, timeout=60, limits=httpx.Limits(max_connections=400)
        ) as client:

            async def ask() -> None:
                response = await client.post("/gradio_api/run/ask", json=body)
                check_form(response)
                statuses.append(response.status_code)
                TRIES["a question of a flood of 300 by a published route of Gradio's"] += 1

            await asyncio.gather(*(ask() for _ in range(300)))
            return await client.get("/api/ask", params={"question": "Who kept bees?"})

    assert run_apart(flood()).status_code == 200
    assert set(statuses) == {200, 503}
    assert statuses.count(503) >= 300 - 2 * (SETTINGS.at_once + SETTINGS.max_waiting)


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
def test_many_files_are_added_at_once(served: Served) -> None:
    """A folder of files; the page names each with some 400 bytes."""
    files = [
        ("files", (f"{'long name ' * 12}{number}.txt", f"Goat {number} ate hay.".encode()))
        for number in range(200)
    ]
    paths = served.client.post("/gradio_api/upload", files=files).json()
    assert len(served.uploads()) == 200
    records = [
        {
            "path": path,
            "url": f"{served.address}/gradio_api/file={path}",
            "orig_name": Path(path).name,
            "size": 17,
            "mime_type": "text/plain",
            "meta": {"_type": "gradio.FileData"},
        }
        for path in paths
    ]
    (add, *_) = (event for event in events_of(served.client) if "file" in event.inputs)
    report = queued(served.client, add.number, [records, ""])
    assert json.loads(report.splitlines()[-1][5:])["success"] is True
    assert served.client.get("/api/stories").json()["total"] >= 200
    assert served.uploads() == []


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
def test_an_upload_is_files_and_nothing_else(served: Served) -> None:
    """No fields, which would be kept in memory; no codec of the request's choice; no paths."""
    start = b'--B\r\nContent-Disposition: form-data; name="files"'
    file = start + b'; filename="a.txt"\r\n\r\nwords\r\n--B--\r\n'
    plain = "multipart/form-data; boundary=B"
    for content_type, body, status in (
        (plain, file, 200),
        (f"{plain}; charset=punycode", file, 400),
        ("multipart/form-data", file, 400),
        ("application/json", b"{}", 400),
        (plain, start + b"\r\n\r\nwords\r\n--B--\r\n", 400),
        (plain, start + b"\r\n\r\n" + b"x" * 3_000_000 + b"\r\n--B--\r\n", 400),
        (plain, b"nonsense", 400),
        (plain, file.replace(b"--B--\r\n", b"") * 2100 + b"--B--\r\n", 413),
    ):
        TRIES["an upload that is more, or else, than files"] += 1
        response = served.client.post(
            "/gradio_api/upload", content=body, headers={"content-type": content_type}
        )
        assert response.status_code == status
        check_form(response)
    names = [
        "../../x.txt",
        "/etc/x.txt",
        "C:\\x.txt",
        ".txt",
        "..",
        "x" * 300 + ".txt",
        "a\x00b.txt",
    ]
    paths = [
        Path(served.client.post("/gradio_api/upload", files={"files": (name, b"w")}).json()[0])
        for name in names
    ]
    homes = {path.parent.parent for path in paths}
    assert len(homes) == 1  # the upload folder
    assert len({path.parent for path in paths}) == len(names)  # one folder each
    assert not any(path.name.startswith(".") for path in paths)
    for path in paths:
        path.unlink()
        path.parent.rmdir()
    for path in served.uploads():
        path.unlink()


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
def test_a_list_of_files_is_short_and_names_each_once(served: Served) -> None:
    upload = {"files": ("twice.txt", b"Otto.")}
    (path,) = served.client.post("/gradio_api/upload", files=upload).json()
    (other,) = served.client.post("/gradio_api/upload", files=upload).json()
    assert path != other  # two visitors with one file
    (add, *_) = (event for event in events_of(served.client) if "file" in event.inputs)
    record = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for records in (
        [record, record],
        [record] * 9000,
        [{"path": path}],
        [record | {"meta": {}}],
        [record, {"path": other, "meta": {"_type": "gradio.FileData", "x": 1}}],
    ):
        body = {"data": [records, ""], "fn_index": add.number, "session_hash": "a"}
        assert served.client.post("/gradio_api/queue/join", json=body).status_code == 422
    for kept in served.uploads():
        kept.unlink()
        kept.parent.rmdir()


def test_results_that_nobody_collects_are_bounded(served: Served) -> None:
    (stop,) = (event for event in events_of(served.client) if event.name == "stop")
    statuses = []
    for number in range(SETTINGS.max_unread_of_session + 50):
        body = {"data": [None, str(number)], "fn_index": stop.number, "session_hash": "unread"}
        response = served.client.post("/gradio_api/queue/join", json=body)
        check_form(response)
        statuses.append(response.status_code)
    assert statuses[0] == 200
    assert statuses[-1] == 503
    too_long = {"data": [None, "x" * 60_000], "fn_index": stop.number, "session_hash": "long"}
    assert served.client.post("/gradio_api/queue/join", json=too_long).status_code == 422
    assert "process_completed" in queued(served.client, stop.number, [None, "x"])


@contextmanager
def another_site() -> Iterator[int]:
    """A web server with an empty page on another port."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title><body>")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
@pytest.mark.parametrize(
    ("site", "target"),
    [
        ("evil.test", "localhost"),
        ("evil.test", "127.0.0.1"),
        ("evil.test", "mybox.test"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("mybox.test", "mybox.test"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_a_page_of_another_origin_changes_and_reads_nothing(
    browser: Browser, served: Served, site: str, target: str
) -> None:
    """Another site, a name of the local network over plain http, another port of this machine."""
    port = int(served.address.rpartition(":")[2])
    before = served.files()
    context = browser.new_context()
    try:
        with another_site() as other, relayed(port) as relay:
            page = context.new_page()
            page.goto(f"http://{site}:{other}/")
            readable = page.evaluate(FROM_A_PAGE, [f"http://{target}:{relay.port}", 0])
            page.wait_for_timeout(300)
    finally:
        context.close()
    TRIES["a request by a page of another origin, in Chromium"] += len(relay.exchanges())
    assert readable == []
    written = [status for method, _, status in relay.exchanges() if method != "GET"]
    assert len(written) >= 12
    assert min(written) >= 400
    assert served.uploads() == []
    assert served.files() == before


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
def test_a_page_under_a_rebound_name_reads_nothing(browser: Browser, served: Served) -> None:
    """A name of the attacker's that now leads to this machine: the page is of that name."""
    port = served.address.rpartition(":")[2]
    context = browser.new_context()
    try:
        page = context.new_page()
        for path in ("/", "/health", "/api/stories", "/config", "/gradio_api/info"):
            response = page.goto(f"http://rebound.test:{port}{path}")
            assert response is not None
            TRIES["a page under a rebound name, in Chromium"] += 1
            assert response.status == 421
            assert response.json()["error"]["type"] == "UnknownHost"
        status = page.evaluate(
            "async () => (await fetch('/api/ask', {method: 'POST', body: '{}'})).status"
        )
        assert status == 421
    finally:
        context.close()


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
def test_the_page_itself_may_do_what_others_may_not(browser: Browser, served: Served) -> None:
    """The control: the same requests from the page's own origin are answered."""
    port = served.address.rpartition(":")[2]
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://localhost:{port}/")
        readable = page.evaluate(FROM_A_PAGE, [f"http://localhost:{port}", 0])
        assert {"json", "text", "upload readable", "get", "config", "xhr"} <= set(readable)
        assert "websocket" not in readable
    finally:
        context.close()


@pytest.mark.parametrize("served", ["allow-add"], indirect=True)
def test_a_link_on_another_page_leads_in_when_it_is_followed_again(
    browser: Browser, served: Served
) -> None:
    port = served.address.rpartition(":")[2]
    context = browser.new_context()
    try:
        with another_site() as other:
            page = context.new_page()
            page.goto(f"http://evil.test:{other}/")
            link = f"http://localhost:{port}/?q=Who+kept+bees%3F&x=%22%3E%3Cscript%3E"
            page.evaluate("link => { location = link; }", link)
            page.get_by_role("link", name="Open the reading room").click()
            expect(page.locator("#conversation blockquote")).to_contain_text("Berta")
    finally:
        context.close()
