"""Which requests are answered: the host they name, the page they come from, the proxy before us.

A web page elsewhere can make a visitor's browser send requests here. Three headers that no page can
forge tell them apart: ``Host`` (a name that an attacker points at this machine, DNS rebinding, is
not one of ours), ``Origin`` (RFC 6454) and ``Sec-Fetch-Site`` (W3C Fetch Metadata). What proxies
report in ``X-Forwarded-*`` anybody can write, so it is read only when it comes from a known proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ballet_qa.errors import ServeError

if TYPE_CHECKING:
    from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://([^/?#@\\]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FROM_HERE = ("same-origin", "none")
# Gradio builds addresses from the first two kinds; the others only inform.
_PROXY_HEADERS = (b"x-forwarded-", b"x-gradio-", b"forwarded", b"x-real-ip")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: an HTTP status, a type and a sentence for people."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which this server answers, and the proxies whose reports it believes.

    Loopback names are always served. ``names`` are lower-case host names or addresses without a
    port. Where ``any_address``, the server listens on all addresses of this machine, and the one
    that a connection reached is served as well.
    """

    names: frozenset[str]
    any_address: bool = False
    proxies: tuple[Network, ...] = ()

    def serves(self, name: str, reached: str | None) -> bool:
        """Whether ``name``, a host without a port, is one of ours.

        ``reached`` is the address of this machine that the connection came to.
        """
        if name == "localhost" or name in self.names:
            return True
        address = _address(name)
        if address is None:
            return False
        if address.is_loopback or str(address) in self.names:
            return True
        return self.any_address and reached is not None and address == _address(reached)

    def believes(self, peer: str | None) -> bool:
        """Whether the connection comes from a known proxy."""
        address = _address(peer or "")
        return address is not None and any(address in network for network in self.proxies)


def hosts_of(
    host: str, allowed: Iterable[str] = (), proxies: Iterable[str] = (), root_path: str = ""
) -> Hosts:
    """The hosts of a server that listens on ``host``.

    ``allowed`` are further names; ``proxies`` addresses or networks (``10.0.0.0/8``). With a
    ``root_path`` there is a proxy; if none is named it is taken to be on this machine. Raises
    ServeError on a name or an address that is none.
    """
    names = {_checked_name(name) for name in allowed}
    any_address = host in ("", "0.0.0.0", "::")  # noqa: S104
    if not any_address:
        names.add(_checked_name(host))
    networks = tuple(_checked_network(proxy) for proxy in proxies)
    if root_path and not networks:
        networks = LOOPBACK
    return Hosts(frozenset(names), any_address, networks)


def as_sent(scope: Scope, hosts: Hosts) -> Scope:
    """The request as the browser sent it to the proxy; without a known proxy, as it came.

    Host, scheme and client are taken from ``X-Forwarded-*``, and these headers are removed.
    """
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    rest = [(name, value) for name, value in headers if not name.startswith(_PROXY_HEADERS)]
    if not hosts.believes(_peer(scope)):
        return {**scope, "headers": rest}
    changed: dict[str, object] = {}
    host = _first(headers, b"x-forwarded-host")
    if host:
        rest = [(name, value) for name, value in rest if name != b"host"]
        rest.append((b"host", host.encode("latin-1")))
    scheme = _first(headers, b"x-forwarded-proto").lower()
    if scheme in _DEFAULT_PORTS:
        changed["scheme"] = scheme
    client = _nearest_stranger(headers, hosts)
    if client:
        changed["client"] = (client, 0)
    return {**scope, **changed, "headers": rest}


def names_another_host(scope: Scope, hosts: Hosts) -> Refusal | None:
    """Why a request is not answered under the names it gives, or None. ``scope`` is as it came.

    The host that a known proxy reports does not stand for that of the request: a page under a
    rebound name can send such a header itself, and a proxy may pass it on. All must be served.
    """
    named = _values(scope, b"host")
    if len(named) != 1:
        return _UNKNOWN_HOST
    if hosts.believes(_peer(scope)):
        named += [
            name for value in _values(scope, b"x-forwarded-host") for name in value.split(",")
        ]
    reached = scope["server"][0] if scope.get("server") else None
    split = [_split(name) for name in named]
    if any(name is None or not hosts.serves(name[0], reached) for name in split):
        return _UNKNOWN_HOST
    return None


def comes_from_elsewhere(scope: Scope) -> Refusal | None:
    """Why a request of another page is not answered, or None. ``scope`` is what `as_sent` gave."""
    host = _split(_values(scope, b"host")[0])
    origins = _values(scope, b"origin")
    if origins and (len(origins) > 1 or host is None or not _is_same_origin(origins[0], host)):
        return _ELSEWHERE
    if any(site.lower() not in _FROM_HERE for site in _values(scope, b"sec-fetch-site")):
        return _ELSEWHERE
    return None


_UNKNOWN_HOST = Refusal(
    421,
    "UnknownHost",
    "this server does not answer under that name; start it with --allowed-host NAME",
)
_ELSEWHERE = Refusal(403, "FromElsewhere", "a page of another site asked for this; ask from here")


def is_navigation(scope: Scope) -> bool:
    """Whether somebody followed a link: a whole page is wanted, in no frame."""
    return (
        scope["method"] == "GET"
        and _values(scope, b"sec-fetch-mode") == ["navigate"]
        and _values(scope, b"sec-fetch-dest") == ["document"]
    )


def _peer(scope: Scope) -> str | None:
    return scope["client"][0] if scope.get("client") else None


def _is_same_origin(origin: str, host: tuple[str, int | None]) -> bool:
    match = _ORIGIN.fullmatch(origin.strip())
    other = _split(match[2]) if match else None
    if match is None or other is None or other[0] != host[0]:
        return False
    default = _DEFAULT_PORTS[match[1].lower()]
    return (other[1] or default) == (host[1] or default)


def _split(host: str) -> tuple[str, int | None] | None:
    """The name, lower case and without brackets or a last dot, and the port."""
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return None
    name = match[1].lower().removesuffix(".").strip("[]")
    return (name, int(match[2]) if match[2] else None) if name else None


def _nearest_stranger(headers: list[tuple[bytes, bytes]], hosts: Hosts) -> str:
    """The client of the outermost known proxy; addresses further left anybody can write."""
    reported = ",".join(
        value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"
    )
    for text in reversed(reported.split(",")):
        address = _address(text.strip())
        if address is None:
            return ""
        if not hosts.believes(str(address)):
            return str(address)
    return ""


def _first(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    values = [value.decode("latin-1") for name, value in headers if name == wanted]
    return values[0].partition(",")[0].strip() if values else ""


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _checked_name(name: str) -> str:
    try:
        ascii_name = name if name.startswith("[") or ":" in name else name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    address = _address(ascii_name.strip("[]"))
    if address is not None:
        return str(address)
    split = _split(ascii_name)
    if split is None or split[1] is not None:
        raise ServeError(f"{name!r} is no host name; name a host without scheme, port and path")
    return split[0]


def _checked_network(proxy: str) -> Network:
    try:
        return ipaddress.ip_network(proxy, strict=False)
    except ValueError:
        raise ServeError(
            f"{proxy!r} is no address of a proxy; name an IP address or a network like 10.0.0.0/8"
        ) from None
