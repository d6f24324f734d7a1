"""The reading room in a real browser, against a real server process.

Each flow fails on a console error, a request that leaves the host, or an axe violation.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from ballet_qa.build import build_index
from ballet_qa.types import Encoder
from conftest import KUZNETSOVA, ROOT, SEEDS

PROCESSES: dict[str, int] = {}  # the servers', by host and port
EVIL = """Mallory ${alert(1)} `${document.title="evil"}` <img src=x onerror="alert(1)">.

<script>document.title='evil'</script> Mallory [a link](javascript:alert(1))
![x](http://evil.test/x.png) *kept* the {{7*7}} ledger in </article></div>
<form action="http://evil.test"><input> a drawer \\n $x$.
"""

pytestmark = pytest.mark.timeout(240)
expect.set_options(timeout=20_000)  # a machine with other work on it is slow, not wrong


@contextmanager
def serving(
    index: Path,
    *options: str,
    credentials: str = "",
    environment: dict[str, str] | None = None,
) -> Iterator[str]:
    """``ballet-qa serve`` on a free port, ready to answer."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "ballet_qa",
        "serve",
        "--index",
        str(index),
        "--port",
        str(port),
        *options,
    ]
    # A file, because nobody reads a pipe: once it is full the server would stand still.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | (environment or {}),
        ) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            PROCESSES[f"127.0.0.1:{port}"] = process.pid
            health = urllib.request.Request(f"{address}/health")
            coded = base64.b64encode(credentials.encode()).decode()
            health.add_header("authorization", f"Basic {coded}")
            for _ in range(600):
                assert process.poll() is None, errors.seek(0) or errors.read()
                try:
                    with urllib.request.urlopen(health, timeout=1) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    time.sleep(0.1)
            yield address
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def address(seeds_index: Path) -> Iterator[str]:
    with serving(seeds_index) as address:
        yield address


@contextmanager
def visiting(
    browser: Browser, address: str, *, home: str | None = None, **options: object
) -> Iterator[Page]:
    """A page that must stay without console errors and without a request to elsewhere."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith((home or address, "data:", "blob:"))
            or wrong.append(f"left the host: {request.url}")
        ),
    )
    try:
        page.goto(address)
        expect(page.locator("#ask-box textarea")).to_be_visible()
        # Gradio fetches each kind of component when it is first shown, and says so until then.
        expect(page.locator("p.loading")).to_have_count(0)
        yield page
        assert wrong == []
    finally:
        context.close()


def ask(page: Page, question: str) -> None:
    turns = page.locator("#conversation .bq-turn[data-turn]")
    before = turns.count()
    page.locator("#ask-box textarea").fill(question)
    page.locator("#ask-box textarea").press("Enter")
    expect(turns).to_have_count(before + 1)
    expect(turns.nth(before).locator(".bq-question")).to_have_text(question)


def axe_violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {[n['html'][:120] for n in v['nodes'][:3]]}" for v in found]


def no_sideways_scroll(page: Page) -> bool:
    return bool(
        page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
    )


def test_ask_cite_and_read(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        assert axe_violations(page) == []
        ask(page, "Who owns the café?")
        finding = page.locator("#conversation .bq-finding").first
        expect(finding.locator("blockquote")).to_contain_text("Colette")
        expect(finding.locator("cite")).to_have_text("Amélie Kuznetsova")
        card = page.locator("#passages .bq-card").first
        expect(card.locator("mark")).to_contain_text("Colette")
        assert axe_violations(page) == []

        finding.locator(".bq-cite").click()
        here = page.locator("#reader .bq-here")
        expect(here).to_be_in_viewport()
        expect(here.locator("mark")).to_contain_text("Colette")
        expect(page.locator("#reader .bq-story h2")).to_have_text("Amélie Kuznetsova")
        expect(page.locator("#reader .bq-para")).to_have_count(9)
        page.wait_for_timeout(500)  # the panel slides in
        assert axe_violations(page) == []
        assert no_sideways_scroll(page)
        page.keyboard.press("Escape")
        expect(page.locator("#reader-panel.open")).to_have_count(0)


def test_two_stories_have_an_amelie(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Where did Amélie grow up?")
        cites = page.locator("#conversation .bq-finding cite")
        expect(cites).to_have_count(2)
        assert set(cites.all_inner_texts()) == {"Amélie Ivanov", "Amélie Kuznetsova"}
        page.locator("#conversation .bq-finding").nth(1).locator(".bq-cite").click()
        expect(page.locator("#reader .bq-story h2")).to_have_text(cites.nth(1).inner_text())


def test_an_older_answers_citation_brings_its_passages_back(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        ask(page, "Where was Natasha Petrova born?")
        expect(page.locator("#conversation .bq-headline").last).to_contain_text("Natasha Petrova")
        expect(page.locator("#passages .bq-about:visible")).to_contain_text("Natasha Petrova")
        page.locator("#conversation .bq-finding").first.locator(".bq-cite").click()
        expect(page.locator("#passages .bq-about:visible")).to_contain_text("café")
        expect(page.locator("#reader .bq-here mark")).to_contain_text("Colette")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Undo", exact=True).click()
        expect(page.locator("#conversation .bq-turn")).to_have_count(1)
        expect(page.locator("#ask-box textarea")).to_have_value("Where was Natasha Petrova born?")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#conversation .bq-empty")).to_be_visible()


def test_only_the_chosen_stories_are_asked(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        page.locator("#stories input").click()
        page.get_by_role("option", name=re.compile("Camilla Roche")).click()
        page.keyboard.press("Escape")
        ask(page, "Who stood at the edge of the stage?")
        titles = page.locator("#passages .bq-card cite").all_inner_texts()
        assert set(titles) == {"Camilla Roche"}


def test_an_example_question_is_answered(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        example = page.locator("#examples button").first
        question = example.inner_text()
        example.click()
        expect(page.locator("#conversation .bq-question")).to_have_text(question)
        expect(page.locator("#conversation .bq-finding").first).to_be_visible()


def test_a_blank_question_is_said_to_be_blank(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        page.keyboard.press("Escape")
        page.locator("#title").click()
        page.keyboard.press("/")
        expect(page.locator("#ask-box textarea")).to_be_focused()
        page.keyboard.type("  ")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("the question is blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_state_in_both_themes(
    browser: Browser, address: str, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 844 if width == 390 else 900}
    with visiting(browser, address, viewport=size, color_scheme=scheme) as page:
        for state in states(page):
            assert no_sideways_scroll(page), state
            assert axe_violations(page) == [], state
            if state == "reader":
                box = page.locator("#reader .bq-story").bounding_box()
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width


def states(page: Page) -> Iterator[str]:
    """Bring the page into each of its states, one after the other."""
    turns = page.locator("#conversation .bq-turn[data-turn]")
    yield "empty"
    # The state lasts a second, too short to be looked at: so the server is held in it.
    server = PROCESSES[urlsplit(page.url).netloc]
    page.expose_function("holdServer", lambda: os.kill(server, signal.SIGSTOP))
    page.evaluate(
        """new MutationObserver((_, watch) => {
          if (document.querySelector('.bq-pending')) { watch.disconnect(); holdServer(); }
        }).observe(document.body, { childList: true, subtree: true })"""
    )
    page.locator("#ask-box textarea").fill("What does a submarine cost?")
    page.locator("#ask-box textarea").press("Enter")
    expect(page.locator("#conversation .bq-pending")).to_be_visible()
    expect(page.locator("#stop-button")).to_be_visible()
    yield "answering"
    os.kill(server, signal.SIGCONT)
    expect(turns).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    expect(turns).to_have_count(0)
    page.locator("#ask-box textarea").fill("Where did Amélie grow up?")
    page.locator("#ask-box textarea").press("Enter")
    expect(turns).to_have_count(1)
    expect(page.locator("#passages .bq-card").first).to_be_visible()
    page.wait_for_timeout(300)
    yield "several"
    page.get_by_role("button", name="Clear").click()
    expect(turns).to_have_count(0)
    ask(page, "Where was Natasha Petrova born?")
    page.wait_for_timeout(300)
    yield "not-found"
    ask(page, "Who owns the café?")
    page.wait_for_timeout(300)
    yield "answered"
    ask(page, "What is her smile like?")
    expect(page.locator("#conversation .bq-leaned")).to_contain_text("Colette’s smile")
    page.wait_for_timeout(300)
    yield "follow-up"
    page.locator("#ask-box textarea").fill("x" * 2000)
    page.locator("#stories input").click()
    page.keyboard.press("Escape")
    page.locator("#ask-box textarea").fill("   ")
    page.locator("#ask-box textarea").press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    page.wait_for_timeout(300)
    yield "error"
    page.locator("#conversation .bq-cite").nth(3).click()
    expect(page.locator("#reader .bq-here")).to_be_in_viewport()
    page.wait_for_timeout(600)
    yield "reader"
    page.keyboard.press("Escape")
    expect(page.locator("#reader-panel.open")).to_have_count(0)
    page.get_by_role("tab", name="Search").click()
    page.locator("#search-box textarea").fill('"the edge of the stage" light')
    page.locator("#search-box textarea").press("Enter")
    expect(page.locator("#found .bq-card")).to_have_count(3)
    page.wait_for_timeout(400)
    yield "search"
    page.get_by_role("tab", name="Stories").click()
    expect(page.locator("#books .bq-book")).to_have_count(4)
    page.wait_for_timeout(400)
    yield "library"


def test_a_question_leans_on_the_one_before_and_can_be_put_right(
    browser: Browser, address: str
) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        ask(page, "What is her smile like?")
        leaned = page.locator("#conversation .bq-leaned")
        expect(leaned).to_contain_text("“What is Colette’s smile like?”")
        page.get_by_role("button", name="Ask my words alone").click()
        expect(leaned).to_have_count(0)
        expect(page.locator("#conversation .bq-turn")).to_have_count(2)


def test_a_question_is_edited_and_asked_again(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        page.get_by_role("button", name="Edit").click()
        expect(page.locator("#ask-box textarea")).to_have_value("Who owns the café?")
        expect(page.locator("#ask-box textarea")).to_be_focused()
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator("#conversation .bq-turn[data-turn]")).to_have_count(1)
        expect(page.locator("#conversation blockquote")).to_contain_text("Colette")


def test_the_passages_are_those_of_the_answer_in_view(browser: Browser, address: str) -> None:
    with visiting(browser, address, viewport={"width": 1280, "height": 600}) as page:
        for question in ("Who owns the café?", "Who is Camilla Roche?", "Who is Valentina?"):
            ask(page, question)
        about = page.locator("#passages .bq-about:visible")
        expect(about).to_contain_text("Valentina")
        page.mouse.move(400, 300)
        page.mouse.wheel(0, -3000)
        expect(about).to_contain_text("café")
        page.mouse.wheel(0, 3000)
        expect(about).to_contain_text("Valentina")


def test_search_finds_passages_and_opens_them(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        page.get_by_role("tab", name="Search").click()
        box = page.locator("#search-box textarea")
        box.fill("story:camilla the weight of heartbreak")
        box.press("Enter")
        cards = page.locator("#found .bq-card")
        expect(cards.first.locator("mark")).to_contain_text("heartbreak")
        expect(cards.first.locator(".bq-also")).to_contain_text("Words in common: weight")
        assert set(page.locator("#found cite").all_inner_texts()) == {"Camilla Roche"}
        box.fill("story:nobody snow")
        box.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("nobody")
        box.fill('"the old French woman"')
        box.press("Enter")
        expect(page.locator("#found")).to_contain_text("No passage holds these words")
        box.fill("the smell of bread")
        page.get_by_role("button", name="Search", exact=True).click()
        cards.first.get_by_role("button").click()
        expect(page.locator("#reader .bq-here")).to_be_in_viewport()
        page.keyboard.press("Escape")
        expect(cards.first.get_by_role("button")).to_be_focused()


def test_the_library_is_narrowed_read_and_asked(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        page.get_by_role("tab", name="Stories").click()
        books = page.locator("#books .bq-book")
        expect(books).to_have_count(4)
        page.locator("#library-box textarea").fill("Mimi")
        expect(books).to_have_count(1)
        expect(books.locator("h2")).to_have_text("Amélie Kuznetsova")
        books.get_by_role("button", name="Read").click()
        expect(page.locator("#reader .bq-story h2")).to_have_text("Amélie Kuznetsova")
        page.keyboard.press("Escape")
        page.locator("#library-box textarea").fill("")
        expect(books).to_have_count(4)
        books.nth(1).get_by_role("button", name="Camilla Roche: ask").click()
        expect(page.locator("#conversation .bq-question")).to_have_text("Who is Camilla Roche?")
        expect(page.locator("#conversation .bq-finding cite").first).to_have_text("Camilla Roche")
        page.get_by_role("tab", name="Stories").click()
        books.nth(0).get_by_role("button", name="Ask this story").click()
        expect(page.locator("#ask-box textarea")).to_be_focused()
        ask(page, "Who stood at the edge of the stage?")
        titles = page.locator("#passages .bq-card:visible cite").all_inner_texts()
        assert set(titles) == {"Amélie Ivanov"}


def test_the_reader_steps_from_citation_to_citation(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        ask(page, "How old is Amélie Kuznetsova?")
        page.locator("#conversation .bq-cite").first.click()
        marks = page.locator("#reader mark")
        expect(marks).to_have_count(2)
        expect(page.locator("#reader mark.bq-now")).to_contain_text("Colette")
        expect(page.locator("#reader [data-where]")).to_contain_text("of 9")
        page.get_by_role("button", name="Next citation").click()
        expect(page.locator("#reader mark.bq-now")).to_contain_text("19 years old")
        expect(page.locator("#reader mark.bq-now")).to_be_in_viewport()
        page.keyboard.press("Escape")
        expect(page.locator("#conversation .bq-cite").first).to_be_focused()


def test_a_conversation_is_saved_copied_and_reopened(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save as JSON").click()
        told = json.loads(Path(saved.value.path()).read_text("utf-8"))
        finding = told["conversation"][0]["findings"][0]
        text = (SEEDS / f"{finding['story']['id']}.txt").read_text("utf-8")
        assert text[finding["start"] : finding["end"]] == finding["quote"]
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save as Markdown").click()
        document = Path(saved.value.path()).read_text("utf-8")
        assert "**Colette**" in document
        assert "Amélie Kuznetsova, paragraph 5" in document
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy quote").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        expect(page.get_by_role("button", name="Copied")).to_have_count(0)
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith(f"“{finding['quote']}” — Amélie Kuznetsova, paragraph 5")
        page.get_by_role("button", name="Copy link").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        link = page.evaluate("navigator.clipboard.readText()")
    with visiting(browser, link, home=address) as page:
        expect(page.locator("#conversation blockquote")).to_contain_text("Colette")


def test_by_keyboard_alone(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        page.keyboard.press("Tab")
        page.locator("#title").click()
        page.keyboard.press("/")
        page.keyboard.type("Who owns the café?")
        page.keyboard.press("Enter")
        expect(page.locator("#conversation .bq-finding")).to_be_visible()
        cite = page.locator("#conversation .bq-cite")
        for _ in range(12):
            page.keyboard.press("Shift+Tab")
            if cite.evaluate("element => element === document.activeElement"):
                break
        expect(cite).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#reader .bq-here")).to_be_in_viewport()
        expect(page.locator("#reader .bq-story h2")).to_be_focused()
        page.keyboard.press("Escape")
        expect(cite).to_be_focused()


def test_an_answer_is_read_aloud_once(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        voice = page.locator("body > [aria-live='polite'][role='status']")
        expect(voice).to_contain_text("Colette. The café's owner")
        expect(voice).to_contain_text("From Amélie Kuznetsova, paragraph 5.")
        assert page.locator("#conversation [aria-live]").count() == 0


def test_stories_are_added_from_the_page(
    browser: Browser, encoder: Encoder, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "one.txt").write_text("Berta kept bees behind the mill.", "utf-8")
    build_index(shelf, tmp_path / "index", encoder=encoder)
    (tmp_path / "two.txt").write_text("Otto the ferryman kept a goat named Prim.", "utf-8")
    (tmp_path / "bad.epub").write_bytes(b"not a book")
    with (
        serving(tmp_path / "index", "--allow-add") as address,
        visiting(browser, address) as page,
    ):
        page.get_by_role("tab", name="Stories").click()
        page.get_by_role("button", name="Add stories").click()
        files = [tmp_path / "two.txt", tmp_path / "bad.epub"]
        page.locator("#add-files input[type=file]").set_input_files(files)
        expect(page.locator("#add-files")).to_contain_text("bad")
        page.get_by_role("button", name="Add to the shelf").click()
        report = page.locator("#add-report")
        expect(report).to_contain_text("Added two.txt")
        expect(report).to_contain_text("Refused bad.epub: damaged")
        expect(page.locator("#books .bq-book")).to_have_count(2)
        assert axe_violations(page) == []
        page.get_by_role("tab", name="Ask").click()
        ask(page, "Who kept a goat named Prim?")
        expect(page.locator("#conversation blockquote")).to_contain_text("Otto")
        assert sorted(path.name for path in (shelf / "added").iterdir()) == ["two.txt"]


def test_gradios_own_client(address: str) -> None:
    from gradio_client import Client

    client = Client(address, verbose=False)
    told = client.predict("Who owns the café?", 1, [KUZNETSOVA], api_name="/ask")
    assert told["findings"][0]["answer"] == "Colette"
    found = client.predict("snow", 2, None, api_name="/search")
    assert [hit["rank"] for hit in found["hits"]] == [1, 2]
    with pytest.raises(Exception, match="the question is blank"):
        client.predict(" ", 1, None, api_name="/ask")
    client.close()


def test_without_the_password_there_is_nothing(browser: Browser, seeds_index: Path) -> None:
    with serving(seeds_index, "--auth", "ann:secret", credentials="ann:secret") as address:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address, timeout=10)
        known = {"username": "ann", "password": "secret"}
        with visiting(browser, address, http_credentials=known) as page:
            ask(page, "Who owns the café?")
            expect(page.locator("#conversation blockquote")).to_contain_text("Colette")


def test_behind_a_proxy_below_a_path(browser: Browser, seeds_index: Path) -> None:
    with (
        serving(seeds_index, "--root-path", "/shelf") as address,
        proxied(address, "/shelf") as shown,
        visiting(browser, f"{shown}/shelf/", home=shown) as page,
    ):
        ask(page, "Who owns the café?")
        expect(page.locator("#conversation blockquote")).to_contain_text("Colette")
        page.locator("#conversation .bq-cite").click()
        expect(page.locator("#reader .bq-here")).to_be_in_viewport()


@contextmanager
def proxied(address: str, prefix: str) -> Iterator[str]:
    """A real proxy that shows ``address`` below ``prefix`` and nothing else."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Proxy(BaseHTTPRequestHandler):
        def relay(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                # Browsers ask every host for its icon, wherever the page is.
                self.send_response(204 if self.path == "/favicon.ico" else 404)
                self.end_headers()
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
            request = urllib.request.Request(
                address + self.path.removeprefix(prefix), body, method=self.command
            )
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "content-length", "accept-encoding"):
                    request.add_header(name, value)
            try:
                answer = urllib.request.urlopen(request, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()
                while part := answer.read1(65536):
                    self.wfile.write(part)
                    self.wfile.flush()

        do_GET = do_POST = do_HEAD = relay  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_evil_story_is_only_words(browser: Browser, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "evil<b>.txt").write_text(EVIL, "utf-8")
    command = [sys.executable, "-m", "ballet_qa", "build"]
    where = ["--stories", str(shelf), "--index", str(tmp_path / "index")]
    subprocess.run([*command, *where], check=True, cwd=ROOT)
    with (
        serving(tmp_path / "index") as address,
        visiting(browser, address) as page,
    ):
        title = page.title()
        ask(page, "Where did Mallory keep the ledger? <img src=x onerror=alert(1)> ${alert(2)}")
        page.locator("#passages .bq-open").first.click()
        expect(page.locator("#reader .bq-here")).to_be_visible()
        told = page.locator("#reader .bq-para .bq-prose").all_inner_texts()
        spoken = " ".join(" ".join(told).split())
        for payload in ("${alert(1)}", "<img src=x", "<script>", "{{7*7}}", "*kept*", "\\n $x$."):
            assert payload in spoken
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Search").click()
        page.locator("#search-box textarea").fill("the ledger <img src=x onerror=alert(1)> ${1}")
        page.locator("#search-box textarea").press("Enter")
        expect(page.locator("#found")).to_contain_text("ledger in </article>")
        page.get_by_role("tab", name="Stories").click()
        expect(page.locator("#books .bq-book")).to_contain_text("Mallory")
        assert page.title() == title
        for part in ("#conversation", "#passages", "#reader", "#found", "#books"):
            inside = page.locator(f"{part} :is(img, script, form, input, iframe, a)")
            assert inside.count() == 0
