"""The four tools by a real MCP client: over stdio to a real process, and over HTTP."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from ballet_qa.answering import Answerer
from ballet_qa.render import answer_json
from conftest import KUZNETSOVA, ROOT, run_apart
from test_browser import serving

mcp = pytest.importorskip("mcp", reason="the MCP extra is not installed")

from mcp.client import Client  # noqa: E402
from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: E402

pytestmark = pytest.mark.timeout(240)


async def used(client: Any) -> dict[str, Any]:
    listed = await client.list_tools()
    asked = await client.call_tool("ask", {"question": "Who owns the café?", "top_k": 1})
    found = await client.call_tool("search", {"query": "snow", "top_k": 2})
    stories = await client.call_tool("list_stories", {})
    story = await client.call_tool("read_story", {"story": KUZNETSOVA})
    wrong = await client.call_tool("read_story", {"story": "nowhere"})
    return {
        "tools": [tool.name for tool in listed.tools],
        "asked": asked.structured_content,
        "found": found.structured_content,
        "stories": stories.structured_content,
        "story": story.structured_content,
        "wrong": (wrong.is_error, wrong.content[0].text),
    }


def check(told: dict[str, Any], answerer: Answerer) -> None:
    assert told["tools"] == ["ask", "search", "list_stories", "read_story"]
    expected = answer_json(answerer.answer("Who owns the café?", 1))
    # Another process may put its numbers elsewhere in memory, and add them up in another order.
    scores = [[hit.pop("score") for hit in form["hits"]] for form in (told["asked"], expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert told["asked"] == expected
    assert [hit["rank"] for hit in told["found"]["hits"]] == [1, 2]
    assert told["stories"]["total"] == 4
    text = told["story"]["text"]
    finding = told["asked"]["findings"][0]
    assert text[finding["start"] : finding["end"]] == finding["quote"]
    is_error, said = told["wrong"]
    assert is_error
    assert "no story 'nowhere'" in said


def test_over_stdio(seeds_index: Path, answerer: Answerer) -> None:
    command = ["-m", "ballet_qa", "mcp", "--index", str(seeds_index)]
    server = StdioServerParameters(command=sys.executable, args=command, cwd=ROOT)

    async def talk() -> dict[str, Any]:
        async with Client(stdio_client(server)) as client:
            return await used(client)

    check(run_apart(asyncio.wait_for(talk(), 120)), answerer)


def test_over_http(seeds_index: Path, answerer: Answerer) -> None:
    async def talk(address: str) -> dict[str, Any]:
        async with Client(f"{address}/mcp") as client:
            return await used(client)

    with serving(seeds_index, "--mcp") as address:
        check(run_apart(asyncio.wait_for(talk(address), 120)), answerer)
        for method in ("GET", "DELETE"):  # no stream, no session
            response = httpx.request(method, f"{address}/mcp", timeout=20)
            assert response.status_code == 405
