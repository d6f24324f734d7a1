"""The web server: the routes, the Gradio page at ``/``, MCP at ``/mcp``, a guard before all."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response

from ballet_qa import __version__
from ballet_qa.adding import Shelf
from ballet_qa.api import add_routes
from ballet_qa.errors import ServeError
from ballet_qa.guard import Guard
from ballet_qa.keys import Keys
from ballet_qa.library import Library
from ballet_qa.origins import hosts_of
from ballet_qa.settings import SETTINGS
from ballet_qa.terminal import one_line, say
from ballet_qa.uploads import upload_folder

if TYPE_CHECKING:
    from starlette.types import Lifespan


@dataclass(frozen=True, slots=True)
class Serving:
    """How the page is served.

    ``auth`` is ``user:password`` or a file of bcrypt hashes; ``root_path`` is where a proxy shows
    the page; ``allow_add`` lets who visits it add stories; ``mcp`` adds ``/mcp``. It is served
    under ``host``, loopback names and ``allowed_hosts``; of ``proxies`` (addresses or networks)
    ``X-Forwarded-*`` is believed.
    """

    host: str = SETTINGS.host
    port: int = SETTINGS.port
    auth: str | None = None
    root_path: str = ""
    allow_add: bool = False
    mcp: bool = False
    allowed_hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()


def create_app(library: Library, serving: Serving | None = None) -> FastAPI:
    """The whole application: page, routes and guards. Raises ServeError on a bad ``serving``."""
    serving = serving or Serving()
    if serving.mcp:
        from ballet_qa.mcp_server import create_server, http_app

        agents = create_server(library)
        agents_app = http_app(agents)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not serving.mcp:
            yield
            return
        async with agents.session_manager.run():
            yield

    app = _described(lifespan)

    @app.get("/health")
    def health() -> dict[str, Any]:
        manifest = library.answerer().index.manifest
        return {"status": "ok", "stories": manifest.stories, "built": manifest.built}

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        drawn = resources.files("ballet_qa").joinpath("static", "icon.svg").read_bytes()
        return Response(drawn, media_type="image/svg+xml")

    add_routes(app, library)
    if serving.mcp:
        app.router.routes += agents_app.routes

    from ballet_qa.ui import mount_page

    mount_page(app, library, Shelf(library, upload_folder()) if serving.allow_add else None)
    _guard(app, serving)
    return app


def create_routes(library: Library, serving: Serving | None = None) -> FastAPI:
    """The routes for programs alone, with the same guards; nothing in it remembers who asked."""
    app = _described()
    add_routes(app, library)
    _guard(app, serving or Serving())
    return app


def _described(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    return FastAPI(
        title="ballet_qa",
        version=__version__,
        description="Ask a library of stories: quotes, word for word, with their place.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )


def _guard(app: FastAPI, serving: Serving) -> None:
    hosts = hosts_of(serving.host, serving.allowed_hosts, serving.proxies, serving.root_path)
    app.add_middleware(
        Guard,
        keys=None if serving.auth is None else Keys(serving.auth),
        root_path=serving.root_path,
        hosts=hosts,
        uploads=serving.allow_add,
    )


def run(
    index_dir: str | Path, serving: Serving | None = None, reader: str | Path | None = None
) -> None:
    """Serve until interrupted. Raises what `Library` raises, and ServeError."""
    import uvicorn

    from ballet_qa.connections import BoundedConnection

    serving = serving or Serving()
    check_port_is_free(serving.host, serving.port)
    # What the start makes stays: looking through it for garbage again and again takes a tenth.
    gc.disable()
    app = create_app(Library(index_dir, reader), serving)
    gc.freeze()
    gc.enable()
    say(opening_words(serving), flush=True)
    # As Ctrl-C: uvicorn raises the signal again when it is done, and the default ends the process
    # before it removes its uploads.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    uvicorn.run(
        app,
        log_config=None,  # records go to the root's handler, which neutralises them (terminal.py)
        host=serving.host,
        port=serving.port,
        http=BoundedConnection,
        ws="none",
        h11_max_incomplete_event_size=SETTINGS.max_header_bytes,
        log_level="error",  # what a stranger sends is not worth a line each
        proxy_headers=False,
        timeout_graceful_shutdown=3,  # an open page holds a stream that never ends by itself
    )


def opening_words(serving: Serving) -> str:
    """Where the page is."""
    shown = "127.0.0.1" if serving.host in ("0.0.0.0", "::") else serving.host  # noqa: S104
    address = f"http://{shown}:{serving.port}{serving.root_path.rstrip('/')}"
    return f"The reading room is open at {one_line(address)} (Ctrl-C closes it)"


def check_port_is_free(host: str, port: int) -> None:
    """Raise ServeError, naming the remedy, when the port cannot be listened on."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: the host is no name
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"cannot listen on {host}:{port} ({reason}); choose another --port"
        ) from error
