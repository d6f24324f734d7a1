"""Which hosts are served, which pages may ask, which proxies are believed: plain functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ballet_qa.errors import ServeError
from ballet_qa.origins import (
    Hosts,
    Refusal,
    as_sent,
    comes_from_elsewhere,
    hosts_of,
    is_navigation,
    names_another_host,
)


def scope(*headers: tuple[str, str], **others: Any) -> dict[str, Any]:
    """A request of HTTP to 127.0.0.1:7860 from 127.0.0.1."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    whole = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "headers": encoded,
        "server": ("127.0.0.1", 7860),
        "client": ("127.0.0.1", 50000),
    }
    return whole | others


def refusal(asked: dict[str, Any], hosts: Hosts) -> Refusal | None:
    """As the guard asks."""
    return names_another_host(asked, hosts) or comes_from_elsewhere(as_sent(asked, hosts))


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "localhost.:80", "127.0.0.1:7860", "127.9.9.9", "[::1]:7"]
)
def test_loopback_names_are_served(host: str) -> None:
    assert refusal(scope(("host", host)), hosts_of("127.0.0.1")) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:7860",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "evillocalhost",
        "192.168.1.5",
        "0.0.0.0",
        "[::]",
        "::1",
        "2130706433",
        "",
        "localhost:x",
        "localhost:1:2",
        "user@localhost",
        "localhost/evil.test",
        "localhost\\evil.test",
        "local host",
        "localhost,evil.test",
        "ev\xefl.test",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    refused = refusal(scope(("host", host)), hosts_of("127.0.0.1"))
    assert refused is not None
    assert (refused.status, refused.kind) == (421, "UnknownHost")


def test_no_host_and_two_hosts_are_refused() -> None:
    for headers in ((), (("host", "localhost"), ("Host", "evil.test"))):
        refused = refusal(scope(*headers), hosts_of("127.0.0.1"))
        assert refused is not None
        assert refused.status == 421


def test_the_bound_address_and_named_hosts_are_served() -> None:
    hosts = hosts_of("192.168.1.5", ["Stories.Example", "bücher.example", "fe80::1"])
    for host in ("192.168.1.5:7860", "stories.example", "xn--bcher-kva.example:443", "[fe80::1]"):
        assert refusal(scope(("host", host)), hosts) is None
    assert refusal(scope(("host", "192.168.1.6")), hosts) is not None


def test_on_all_addresses_the_one_that_was_reached_is_served() -> None:
    hosts = hosts_of("0.0.0.0")
    reached = {"server": ("192.168.1.5", 7860)}
    assert refusal(scope(("host", "192.168.1.5:7860"), **reached), hosts) is None
    assert refusal(scope(("host", "localhost"), **reached), hosts) is None
    for host in ("192.168.1.6", "mybox", "mybox.local", "evil.test"):
        assert refusal(scope(("host", host), **reached), hosts) is not None
    mapped = {"server": ("::ffff:192.168.1.5", 7860)}
    assert refusal(scope(("host", "192.168.1.5"), **mapped), hosts_of("::")) is None


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:7860", "localhost:7860"),
        ("http://LOCALHOST:7860", "localhost:7860"),
        ("http://localhost", "localhost"),
        ("http://localhost", "localhost:80"),
        ("https://localhost", "localhost"),
        ("https://localhost:443", "localhost"),
        ("http://[::1]:7860", "[::1]:7860"),
    ],
)
def test_the_pages_own_origin_may_ask(origin: str, host: str) -> None:
    assert refusal(scope(("host", host), ("origin", origin)), hosts_of("127.0.0.1")) is None


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.test",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:7860",
        "http://localhost:7860.evil.test",
        "http://localhost:7860@evil.test",
        "http://localhost:7860/x",
        "http://evil.test:7860",
        "file://",
        "chrome-extension://localhost:7860",
        "http://localhost:7860 http://evil.test",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_other_origins_are_refused(origin: str, method: str) -> None:
    asked = scope(("host", "localhost:7860"), ("origin", origin), method=method)
    refused = refusal(asked, hosts_of("127.0.0.1"))
    assert refused is not None
    assert (refused.status, refused.kind) == (403, "FromElsewhere")


def test_two_origins_are_refused() -> None:
    own = ("origin", "http://localhost")
    assert refusal(scope(("host", "localhost"), own, own), hosts_of("")) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense", ""])
def test_other_sites_are_refused(site: str) -> None:
    asked = scope(("host", "localhost"), ("sec-fetch-site", site))
    assert refusal(asked, hosts_of("127.0.0.1")) is not None


@pytest.mark.parametrize("site", ["same-origin", "none", "Same-Origin"])
def test_the_page_itself_and_its_visitor_may_ask(site: str) -> None:
    asked = scope(("host", "localhost"), ("sec-fetch-site", site))
    assert refusal(asked, hosts_of("127.0.0.1")) is None


def test_a_link_that_is_followed_is_a_navigation() -> None:
    followed = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
    assert is_navigation(scope(*followed))
    assert not is_navigation(scope(*followed, method="POST"))
    assert not is_navigation(scope(followed[0], ("sec-fetch-dest", "iframe")))
    assert not is_navigation(scope(("sec-fetch-mode", "no-cors"), followed[1]))


REPORTED = (
    ("host", "127.0.0.1:7860"),
    ("x-forwarded-host", "stories.example, localhost"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.0.0.2"),
    ("x-gradio-server", "http://evil.test"),
    ("forwarded", "host=evil.test"),
)


def test_what_a_proxy_reports_is_believed_of_a_known_one_only() -> None:
    assert as_sent(scope(*REPORTED), hosts_of("127.0.0.1"))["headers"] == [
        (b"host", b"127.0.0.1:7860")
    ]
    hosts = hosts_of("127.0.0.1", ["stories.example"], ["127.0.0.1", "10.0.0.0/8"])
    sent = as_sent(scope(*REPORTED), hosts)
    assert sent["headers"] == [(b"host", b"stories.example")]
    assert (sent["scheme"], sent["client"]) == ("https", ("9.9.9.9", 0))
    assert refusal(scope(*REPORTED), hosts) is None
    stranger = as_sent(scope(*REPORTED, client=("8.8.8.8", 1)), hosts)
    assert (stranger["scheme"], stranger["client"]) == ("http", ("8.8.8.8", 1))


def test_with_a_root_path_the_proxy_is_on_this_machine() -> None:
    hosts = hosts_of("127.0.0.1", ["stories.example"], root_path="/stories")
    assert as_sent(scope(*REPORTED), hosts)["scheme"] == "https"
    assert as_sent(scope(*REPORTED, client=("10.0.0.2", 1)), hosts)["scheme"] == "http"


@pytest.mark.parametrize(
    ("host", "reported"),
    [
        ("127.0.0.1", "evil.test"),
        ("127.0.0.1", "stories.example, evil.test"),
        ("127.0.0.1", ""),
        ("rebound.test", "stories.example"),
        ("rebound.test:7860", "localhost"),
    ],
)
def test_every_name_that_a_known_proxy_passes_on_must_be_served(host: str, reported: str) -> None:
    """A page under a rebound name can send X-Forwarded-Host itself."""
    hosts = hosts_of("127.0.0.1", ["stories.example"], ["127.0.0.1"])
    refused = refusal(scope(("host", host), ("x-forwarded-host", reported)), hosts)
    assert refused is not None
    assert refused.status == 421


@pytest.mark.parametrize("name", ["", "http://x", "x:80", "x/y", "a b", "*", "x" * 300])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ServeError, match="is no host name"):
        hosts_of("127.0.0.1", [name])


def test_a_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(ServeError, match="no address of a proxy"):
        hosts_of("127.0.0.1", proxies=["proxy.example"])


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_words_are_refused_or_served_and_nothing_else(host: str, origin: str) -> None:
    """Only loopback names pass, whatever stands in the headers."""
    headers = [(b"host", host.encode("utf-8")), (b"origin", origin.encode("utf-8"))]
    asked = scope() | {"headers": headers}
    if refusal(asked, hosts_of("127.0.0.1")) is None:
        name = host.strip().lower().rpartition(":")[0] or host.strip().lower()
        assert name.rstrip(".") in ("localhost", "[::1]") or name.startswith("127.")
