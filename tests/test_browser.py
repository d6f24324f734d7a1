"""The reading room in a real browser, against a real server process.

Each flow fails on a console error, a request that leaves the host, or an axe violation.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from conftest import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = """Mallory ${alert(1)} `${document.title="evil"}` <img src=x onerror="alert(1)">.

<script>document.title='evil'</script> Mallory [a link](javascript:alert(1))
![x](http://evil.test/x.png) *kept* the {{7*7}} ledger in </article></div>
<form action="http://evil.test"><input> a drawer \\n $x$.
"""

pytestmark = pytest.mark.timeout(240)
expect.set_options(timeout=20_000)  # a machine with other work on it is slow, not wrong


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("BALLET_QA_REQUIRE_BROWSER"):
            pytest.fail("no chromium; CI never skips the browser flows")
        pytest.skip("no chromium on this machine; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def serving(index: Path) -> Iterator[str]:
    """``ballet-qa serve`` on a free port, up before it is handed out."""
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
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=1) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.1)
        yield address
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def address(seeds_index: Path) -> Iterator[str]:
    with serving(seeds_index) as address:
        yield address


@contextmanager
def visiting(browser: Browser, address: str, **options: object) -> Iterator[Page]:
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
            request.url.startswith((address, "data:", "blob:"))
            or wrong.append(f"left the host: {request.url}")
        ),
    )
    page.goto(address)
    expect(page.locator("#ask-box textarea")).to_be_visible()
    # Gradio fetches each kind of component when it is first shown; until then it says "Loading...".
    expect(page.locator("p.loading")).to_have_count(0)
    yield page
    assert wrong == []
    context.close()


def ask(page: Page, question: str) -> None:
    turns = page.locator("#conversation .bq-turn")
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

        finding.get_by_role("button").click()
        here = page.locator("#reader .bq-here")
        expect(here).to_be_in_viewport()
        expect(here.locator("mark")).to_contain_text("Colette")
        expect(page.locator("#reader .bq-story h2")).to_have_text("Amélie Kuznetsova")
        expect(page.locator("#reader .bq-story .bq-prose")).to_have_count(9)
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
        page.locator("#conversation .bq-finding").nth(1).get_by_role("button").click()
        expect(page.locator("#reader .bq-story h2")).to_have_text(cites.nth(1).inner_text())


def test_an_older_answers_citation_brings_its_passages_back(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        ask(page, "Who owns the café?")
        ask(page, "Where was Natasha Petrova born?")
        expect(page.locator("#conversation .bq-headline").last).to_contain_text("Natasha Petrova")
        expect(page.locator("#passages .bq-about")).to_contain_text("Natasha Petrova")
        page.locator("#conversation .bq-finding").first.get_by_role("button").click()
        expect(page.locator("#passages .bq-about")).to_contain_text("café")
        expect(page.locator("#reader .bq-here mark")).to_contain_text("Colette")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Undo").click()
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
def test_every_size_in_both_themes(browser: Browser, address: str, scheme: str, width: int) -> None:
    size = {"width": width, "height": 844 if width == 390 else 900}
    with visiting(browser, address, viewport=size, color_scheme=scheme) as page:
        folder = os.environ.get("BALLET_QA_SCREENSHOTS")

        def shoot(state: str) -> None:
            assert no_sideways_scroll(page), state
            assert axe_violations(page) == [], state
            if folder:
                page.screenshot(path=Path(folder, f"{state}-{scheme}-{width}.png"))

        shoot("empty")
        ask(page, "Where did Amélie grow up?")
        expect(page.locator("#passages .bq-card").first).to_be_visible()
        page.wait_for_timeout(300)
        shoot("ambiguous")
        ask(page, "How old is Valentina?")
        page.wait_for_timeout(300)
        shoot("not-found")
        ask(page, "Who owns the café?")
        page.wait_for_timeout(300)
        shoot("answered")
        page.locator("#conversation .bq-finding").last.get_by_role("button").click()
        expect(page.locator("#reader .bq-here")).to_be_in_viewport()
        page.wait_for_timeout(600)
        shoot("reader")
        box = page.locator("#reader .bq-story").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


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
        told = page.locator("#reader .bq-story .bq-prose").all_inner_texts()
        spoken = " ".join(" ".join(told).split())
        for payload in ("${alert(1)}", "<img src=x", "<script>", "{{7*7}}", "*kept*", "\\n $x$."):
            assert payload in spoken
        assert page.title() == title
        for part in ("#conversation", "#passages", "#reader"):
            inside = page.locator(f"{part} :is(img, script, form, input, iframe, a)")
            assert inside.count() == 0
