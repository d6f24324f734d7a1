"""Requests of an attacker against a server process: every event and every published endpoint."""

from __future__ import annotations

import json
import re
import secrets
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

SECRET = "secret-7f3a91"  # what stands in the files that must not leave the server


@dataclass(frozen=True)
class Event:
    """An event of the page, as ``/config`` lists it: its number and the kinds of its inputs."""

    number: int
    inputs: tuple[str, ...]
    name: str
    is_public: bool


def events_of(client: httpx.Client) -> list[Event]:
    """Every event of the page's own configuration."""
    config = client.get("/config").json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    return [
        Event(
            one["id"],
            tuple(kinds[number] for number in one["inputs"]),
            str(one["api_name"]),
            one["api_visibility"] == "public",
        )
        for one in config["dependencies"]
    ]


def harmless(kind: str) -> Any:
    """A value that an input of this kind takes, and that costs nothing."""
    return {"textbox": "", "button": "", "dropdown": []}.get(kind)


def with_each_place_forged(event: Event, forged: Any) -> Iterator[list[Any]]:
    """The event's data with the forged value in each place; in the only one if there is none."""
    data = [harmless(kind) for kind in event.inputs]
    for place in range(len(data)):
        yield [*data[:place], forged, *data[place + 1 :]]
    if not data:
        yield [forged]


def queued(client: httpx.Client, event: int, data: Any, event_data: Any = None) -> str:
    """Join the queue and wait for the end of the event: all that the server sent of it."""
    session = secrets.token_hex(6)
    body = {"data": data, "fn_index": event, "session_hash": session, "event_data": event_data}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.text
    heard = []
    address = {"session_hash": session}
    with client.stream("GET", "/gradio_api/queue/data", params=address) as stream:
        for line in stream.iter_lines():
            heard.append(line)
            if line.startswith("data:") and json.loads(line[5:])["msg"] in (
                "process_completed",
                "close_stream",
                "unexpected_error",
            ):
                break
    return "\n".join(heard)


def forged_files(secret: Path, address: str) -> list[dict[str, Any]]:
    """File records that name a file which nobody uploaded, in all the ways there are."""
    record = {"meta": {"_type": "gradio.FileData"}}
    up = "../" * 12
    paths = [
        str(secret),
        f"{up}{str(secret).lstrip('/')}",
        str(secret.parent / "nowhere" / ".." / secret.name),
        "pyproject.toml",
        "./pyproject.toml",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        str(secret.parent / "pipe"),
        str(secret.parent / "link"),
        f"file://{secret}",
        f"{address}/health",
        "\x00",
        "",
    ]
    forged = [record | {"path": path} for path in paths]
    forged += [record | {"path": str(secret), "is_stream": True}]
    forged += [record | {"path": str(secret), "url": f"/gradio_api/file={secret}"}]
    forged += [record | {"path": "x", "url": f"{address}/health", "orig_name": "../../x.txt"}]
    return forged


# Bodies that are no request, or one of odd values.
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b"[" * 60_000,
    b"{}",
    b'{"question": "\\ud800"}',
    b'{"query": "\\ud800"}',
    b'{"query": "\\"\\ud800\\""}',
    b'{"question": "\\u0000", "query": "\\u0000"}',
    b'{"question": "x", "query": "x", "stories": ["\\ud800"]}',
    b'{"question": "x", "stories": ["\\ud800"]}',
    b'{"query": "x", "stories": ["nowhere"]}',
    b'{"question": "x", "top_k": 1e400}',
    b'{"query": "x", "top_k": NaN}',
    b'{"question": "x", "top_k": ' + b"9" * 5000 + b"}",
    b'{"question": {}}',
    b'{"question": "x", "history": [{"question": "\\ud800", "story": "\\ud800"}]}',
    b'{"data": ["\\ud800", 1, null], "fn_index": 0, "session_hash": "a"}',
    b'{"data": ["x", 1, null], "fn_index": 99999, "session_hash": "a"}',
    b'{"data": ["x", 1, null], "fn_index": -1, "session_hash": "a"}',
    b'{"data": ["x", 1, null], "fn_index": "0"}',
    b'{"data": [], "fn_index": 0}',
    b'{"data": ["x", 1, null], "fn_index": 0}',
    b'{"data": ["x", 2.5, null]}',
    b'{"data": ["x", true, null]}',
    b'{"data": ["x", "y", "z"]}',
    b'{"data": [null, null, null]}',
    b'{"data": ["x", 1, ["nowhere"]]}',
    b'{"data": ["x", 1, [1, 2]]}',
    b'{"data": [" ", 1, null]}',
    b'{"data": "x"}',
    b'{"data": ["x", 1, null], "batched": true}',
    b'{"data": ["x", 1, null], "trigger_id": "\\ud800", "session_hash": "\\ud800"}',
    b'{"fn_index": null, "data": [], "session_hash": "a", "event_data": 7}',
    b'{"session_hash": "a", "fn_index": 1, "event_id": "x"}',
    b'{"nothing": 1}',
)
PATHS = (
    "/",
    "/nothing",
    "/health",
    "/openapi.json",
    "/favicon.ico",
    "/config",
    "/api/ask",
    "/api/search",
    "/api/stories",
    "/api/stories/nothing",
    "/api/nothing",
    "/assets/nothing.js",
    "/static/js/nothing",
    "/theme.css",
    "/manifest.json",
    "/gradio_api/info",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/run/ask",
    "/gradio_api/run/search",
    "/gradio_api/run/nothing",
    "/gradio_api/api/ask",
    "/gradio_api/call/ask",
    "/gradio_api/call/nothing",
    "/gradio_api/call/ask/nothing",
    "/gradio_api/call/v2/ask",
    "/gradio_api/call/v2/nothing",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/upload",
    "/gradio_api/file=/etc/passwd",
)
ADDRESSES = (
    "/api/stories/%00",
    "/api/stories/%ff",
    "/api/stories/%ED%A0%80",
    "/api/stories/" + "x" * 5000,
    "/api/ask?question=%ff",
    "/api/ask?question=%ED%A0%80",
    "/api/ask?question=x&story=%00",
    "/api/ask?top_k=x&question=y",
    "/api/search?query=%00",
    "/api/stories?offset=-1",
    "/api/stories?limit=99999999999999999999999",
    "/%00",
    "/%ff%fe",
    "//evil.test/",
    "/api/../etc",
    "/?page=nothing",
    "/config?page=nothing",
    "/assets/" + "x" * 300,
    "/static/js/" + "x" * 300,
    "/api/ask?question=x&top_k=" + "9" * 4000,
    "/gradio_api/queue/data?session_hash=%00",
)

_REQUEST = re.compile(rb"(GET|POST|HEAD|OPTIONS|PUT|DELETE) (\S+) HTTP/1\.1\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Relay:
    """A port that passes every byte on to a server, and keeps what was asked and answered."""

    port: int
    connections: list[tuple[bytearray, bytearray]] = field(default_factory=list)

    def exchanges(self) -> list[tuple[str, str, int]]:
        """Method, path and status of every request that was answered."""
        found = []
        for asked, answered in self.connections:
            statuses = [int(status) for status in _STATUS.findall(bytes(answered))]
            requests = _REQUEST.findall(bytes(asked))
            pairs = zip(requests, statuses, strict=False)
            found += [(method.decode(), path.decode(), status) for (method, path), status in pairs]
        return found


@contextmanager
def relayed(port: int) -> Iterator[Relay]:
    """A relay to a port of this machine: a browser hides what it was refused."""
    relay = Relay(0)

    class Copier(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            kept = (bytearray(), bytearray())
            relay.connections.append(kept)
            with socket.create_connection(("127.0.0.1", port)) as server:
                asking = threading.Thread(target=_copy, args=(self.request, server, kept[0]))
                asking.start()
                _copy(server, self.request, kept[1])
                with suppress(OSError):
                    self.request.shutdown(socket.SHUT_RDWR)
                asking.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Copier) as listener:
        listener.daemon_threads = True
        listener.block_on_close = False
        relay.port = listener.server_address[1]
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield relay
        finally:
            listener.shutdown()


def _copy(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            kept += part
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# Run by a page of another origin: every way a page has to make the browser send a request. It
# returns the names of those whose response it could read.
FROM_A_PAGE = """async ([target, event]) => {
  const readable = [];
  const join = `${target}/gradio_api/queue/join`, upload = `${target}/gradio_api/upload`;
  const body = JSON.stringify({data: [], fn_index: event, session_hash: 'evil'});
  const file = new File(['Mallory was here.'], 'evil.txt', {type: 'text/plain'});
  const form = () => { const data = new FormData(); data.append('files', file); return data; };
  const attempt = async (name, make) => {
    try { if ((await (await make()).text()).length) readable.push(name); } catch (error) {}
  };
  const json = {'content-type': 'application/json'}, text = {'content-type': 'text/plain'};
  const plain = {method: 'POST', mode: 'no-cors', headers: text, body};
  await attempt('json', () => fetch(join, {method: 'POST', headers: json, body}));
  await attempt('text', () => fetch(join, {method: 'POST', headers: text, body}));
  await attempt('no-cors', () => fetch(join, plain));
  await attempt('keepalive', () => fetch(join, {...plain, keepalive: true}));
  await attempt('credentials', () => fetch(join, {...plain, credentials: 'include'}));
  await attempt('upload', () => fetch(upload, {method: 'POST', mode: 'no-cors', body: form()}));
  await attempt('upload readable', () => fetch(upload, {method: 'POST', body: form()}));
  await attempt('get', () => fetch(`${target}/api/stories`));
  await attempt('get no-cors', () => fetch(`${target}/api/stories`, {mode: 'no-cors'}));
  await attempt('config', () => fetch(`${target}/config`));
  await new Promise(done => {
    const request = new XMLHttpRequest();
    request.onloadend = () => { if (request.responseText) readable.push('xhr'); done(); };
    request.open('POST', upload); request.send(form());
  });
  navigator.sendBeacon(join, new Blob([body], {type: 'text/plain'}));
  navigator.sendBeacon(upload, form());
  const frame = document.body.appendChild(document.createElement('iframe'));
  frame.name = 'sink';
  const kinds = ['text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded'];
  for (const enctype of kinds) {
    for (const action of [join, upload]) {
      const made = document.body.appendChild(document.createElement('form'));
      Object.assign(made, {method: 'POST', action, enctype, target: 'sink'});
      const input = made.appendChild(document.createElement('input'));
      if (enctype === 'multipart/form-data') {
        Object.assign(input, {type: 'file', name: 'files'});
        const chosen = new DataTransfer(); chosen.items.add(file); input.files = chosen.files;
      } else { input.name = body.slice(0, -1) + ',"x":"'; input.value = '"}'; }
      made.submit();
      await new Promise(done => setTimeout(done, 150));
    }
  }
  await new Promise(done => {
    const image = new Image(); image.onload = image.onerror = done;
    image.src = `${target}/favicon.ico`;
  });
  await new Promise(done => {
    const script = document.createElement('script'); script.onload = script.onerror = done;
    script.src = `${target}/api/stories`; document.body.append(script);
  });
  await new Promise(done => {
    const stream = new EventSource(`${target}/gradio_api/queue/data?session_hash=evil`);
    stream.onmessage = () => { readable.push('event source'); stream.close(); done(); };
    stream.onerror = () => { stream.close(); done(); };
  });
  await new Promise(done => {
    const socket = new WebSocket(`${target.replace('http', 'ws')}/gradio_api/queue/data`);
    socket.onopen = () => { readable.push('websocket'); socket.close(); done(); };
    socket.onerror = done;
  });
  return readable;
}"""
