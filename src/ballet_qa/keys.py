"""Who is admitted: one ``user:password`` or a file of bcrypt hashes, and how often one may guess.

Credentials that an address was admitted with are remembered, so that a visitor is hashed once. A
new credential is an attempt: threads of their own check it, one attempt of an address at a time.
Failed attempts are limited for an address and in total.

The limits see addresses, not people. Who shares an address with somebody admitted (a proxy that
does not forward addresses) may compare guesses with what is remembered, as fast as the server
answers: any other rule would let a guesser lock out the people behind the same address.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import math
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import bcrypt

from ballet_qa.errors import ServeError
from ballet_qa.settings import SETTINGS, Settings

_log = logging.getLogger(__name__)

# The last characters of salt and digest have spare bits; bcrypt writes them as zeros.
_HASH = re.compile(
    r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
)
_BCRYPT = re.compile(r"\$2[a-z]?\$")
_LOWEST_COST = 4
_HIGHEST_COST = 16
_READ_BYTES = 72  # of a password, by bcrypt
_MINUTE = 60.0
_QUARTER = 900.0


class Status(Enum):
    """What becomes of a request."""

    ADMITTED = "admitted"
    REFUSED = "refused"  # no credential, or a wrong one: 401
    TOO_MANY = "too many"  # not looked at: 429


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a request; ``retry_after`` is in whole seconds, for TOO_MANY alone."""

    status: Status
    retry_after: int = 0


_ADMITTED = Admission(Status.ADMITTED)
_REFUSED = Admission(Status.REFUSED)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A new credential from one address; ``own`` is the named user's hash, if there is one."""

    digest: bytes
    address: str
    own: bytes | None
    password: bytes
    outcome: Future[Admission] = field(default_factory=Future)


class Keys:
    """Admits by HTTP's basic scheme (RFC 7617): give the page TLS by a proxy.

    A file holds what Apache's ``htpasswd -B`` writes. Usable from any thread and event loop.
    """

    def __init__(
        self,
        auth: str,
        *,
        settings: Settings = SETTINGS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` counts seconds.

        Raises ServeError when ``auth`` is neither a file nor a pair, when the file cannot be read
        or names no user, and for a line whose hash bcrypt cannot check in a reasonable time.
        """
        self._settings = settings
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        path = Path(auth)
        self._users = _Users(path, settings.max_htpasswd_bytes) if _is_file(path) else None
        self._pair = b"" if self._users else self._hmac(_pair(auth))
        self._lock = threading.Lock()  # over everything below
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._outcomes: dict[bytes, Future[Admission]] = {}  # of attempts that wait or are checked
        self._limits = _Limits(settings)
        self._turns = _Turns(settings)
        self._workers = ThreadPoolExecutor(settings.password_workers, "passwords")
        self._checking = 0

    async def admits(self, header: bytes | None, address: str) -> Admission:
        """What becomes of a request with this Authorization header from this IP address.

        A request without a readable header is no guess: REFUSED, and not counted.
        """
        credential = _credential(header)
        if credential is None:
            return _REFUSED
        outcome = self._looked_at(*credential, address_group(address))
        return outcome if isinstance(outcome, Admission) else await asyncio.wrap_future(outcome)

    def _looked_at(
        self, user: bytes, password: bytes, address: str
    ) -> Admission | Future[Admission]:
        """The answer where it costs nothing, or the outcome of an attempt."""
        if self._users:
            password = password[:_READ_BYTES]
        digest = self._hmac(address.encode() + b"\0" + user + b":" + password)
        with self._lock:
            if digest in self._remembered:
                self._remembered.move_to_end(digest)
                return _ADMITTED
            if digest in self._outcomes:  # a browser asks for many things at once
                return self._outcomes[digest]
            wait = self._limits.wait(address, self._clock())
            if wait:
                return Admission(Status.TOO_MANY, wait)
            if self._users:
                attempt = _Attempt(digest, address, self._users.hash_of(user), password)
                return self._queued(attempt)
            fits = hmac.compare_digest(self._hmac(user + b":" + password), self._pair)
            return self._counted(digest, address, fits=fits)

    def _queued(self, attempt: _Attempt) -> Admission | Future[Admission]:
        if not self._turns.add(attempt, self._limits.failures(attempt.address, self._clock())):
            return Admission(Status.TOO_MANY, 1)
        attempt.outcome.set_running_or_notify_cancel()  # who leaves does not cancel for others
        self._outcomes[attempt.digest] = attempt.outcome
        self._start()
        return attempt.outcome

    def _start(self) -> None:
        """Check what is next while a worker is free."""
        while self._checking < self._settings.password_workers:
            attempt = self._turns.next()
            if attempt is None:
                return
            wait = self._limits.wait(attempt.address, self._clock())
            if wait:  # the attempt before it was the last that the address had
                self._over(attempt)
                attempt.outcome.set_result(Admission(Status.TOO_MANY, wait))
                continue
            self._checking += 1
            self._workers.submit(self._check, attempt)

    def _check(self, attempt: _Attempt) -> None:
        """In a worker: hash, count, and start the next."""
        assert self._users is not None
        fits, error = False, None
        try:
            fits = self._users.fits(attempt.own, attempt.password)
        except Exception as raised:
            error = raised
        with self._lock:
            admission = self._counted(attempt.digest, attempt.address, fits=fits)
            self._checking -= 1
            self._over(attempt)
            self._start()
        if error is None:
            attempt.outcome.set_result(admission)
        else:
            attempt.outcome.set_exception(error)

    def _over(self, attempt: _Attempt) -> None:
        del self._outcomes[attempt.digest]
        failures = self._limits.failures(attempt.address, self._clock())
        self._turns.done(attempt.address, failures)

    def _counted(self, digest: bytes, address: str, *, fits: bool) -> Admission:
        if not fits:
            self._limits.failed(address, self._clock())
            return _REFUSED
        # Once for a credential: nobody gets tokens back by going in again between two guesses.
        self._limits.forget(address)
        self._remembered[digest] = None
        if len(self._remembered) > self._settings.remembered_credentials:
            self._remembered.popitem(last=False)
        return _ADMITTED

    def _hmac(self, message: bytes) -> bytes:
        return hmac.digest(self._secret, message, "sha256")


class _Users:
    """The users of a file. Every check costs the same, whoever is named."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises ServeError for a file or a line that cannot be used."""
        self._hashes = _read(path, max_bytes)
        costs = sorted({_cost(hashed) for hashed in self._hashes.values()})
        self._dummies = {cost: _dummy(cost) for cost in costs}

    def hash_of(self, user: bytes) -> bytes | None:
        """The user's hash, or None for an unknown user."""
        return self._hashes.get(user)

    def fits(self, own: bytes | None, password: bytes) -> bool:
        """Whether the password is that of the hash. Pays each cost in the file once."""
        fits = False
        for cost, dummy in self._dummies.items():
            named = own is not None and _cost(own) == cost
            same = bcrypt.checkpw(password, own if own is not None and named else dummy)
            fits |= same and named
        return fits


class _Bucket:
    """``most`` tokens; all of them come back within ``seconds``."""

    def __init__(self, most: int, seconds: float, now: float) -> None:
        self._most = most
        self._each = seconds / most
        self._tokens = float(most)
        self._at = now
        self._said = -math.inf

    def left(self, now: float) -> float:
        """Tokens at this time."""
        self._tokens = min(self._most, self._tokens + (now - self._at) / self._each)
        self._at = now
        return self._tokens

    def take(self, now: float) -> None:
        """One token less, where there is one."""
        self._tokens = max(0.0, self.left(now) - 1)

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 when there is one."""
        return max(0.0, (1 - self.left(now)) * self._each)

    def to_log(self, now: float) -> bool:
        """Whether it is empty and was not logged in the last 15 minutes; it counts as logged."""
        if self.left(now) >= 1 or now - self._said < _QUARTER:
            return False
        self._said = now
        return True


class _Limits:
    """How many attempts may fail: of one address, in total, and in total when that is spent.

    A total that is spent is spent by somebody else, as a rule: an address that has not failed
    ``reserve_failures`` times lately is looked at still, up to the total of ``most_failures``.
    Attempts are counted when they are over, so the totals may be passed by one a worker.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # An address that drops out has its tokens again, by then, if the table holds as many as
        # may fail in a quarter of an hour.
        self._addresses: OrderedDict[str, tuple[_Bucket, _Bucket]] = OrderedDict()
        self._total = _Bucket(settings.total_failures, _MINUTE, 0.0)
        self._most = _Bucket(settings.most_failures, _MINUTE, 0.0)

    def wait(self, address: str, now: float) -> int:
        """Whole seconds until an attempt is looked at; 0 when it is now."""
        waits = [self._most.wait(now)]
        if address in self._addresses:
            minute, reserve = self._addresses[address]
            waits += [minute.wait(now), min(self._total.wait(now), reserve.wait(now))]
        return math.ceil(max(waits))

    def failures(self, address: str, now: float) -> int:
        """How often the address failed in the last 15 minutes; at most ``reserve_failures``."""
        if address not in self._addresses:
            return 0
        return self._settings.reserve_failures - math.floor(self._addresses[address][1].left(now))

    def failed(self, address: str, now: float) -> None:
        """Count, and log the limits that are reached: each once in 15 minutes at most."""
        if address not in self._addresses:
            self._addresses[address] = (
                _Bucket(self._settings.address_failures, _MINUTE, now),
                _Bucket(self._settings.reserve_failures, _QUARTER, now),
            )
        minute, reserve = self._addresses[address]
        self._addresses.move_to_end(address)
        if len(self._addresses) > self._settings.remembered_addresses:
            self._addresses.popitem(last=False)
        for bucket in (minute, reserve, self._total, self._most):
            bucket.take(now)
        self._log_what_is_reached(address, minute, now)

    def forget(self, address: str) -> None:
        """Give the address all its tokens back."""
        self._addresses.pop(address, None)

    def _log_what_is_reached(self, address: str, minute: _Bucket, now: float) -> None:
        limits = self._settings
        if minute.to_log(now):
            _log.warning(
                "%d passwords from %s failed in a minute: it must wait",
                limits.address_failures,
                address,
            )
        if self._total.to_log(now):
            _log.warning(
                "%d passwords failed in a minute: addresses that failed lately must wait",
                limits.total_failures,
            )
        if self._most.to_log(now):
            _log.warning(
                "%d passwords failed in a minute: every address must wait", limits.most_failures
            )


class _Turns:
    """Attempts that wait: one of each address has a turn, the others of the address stand behind.

    The addresses that failed least often lately come first.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queues: list[deque[_Attempt]] = [
            deque() for _ in range(settings.reserve_failures + 1)
        ]  # by failures
        self._behind: dict[str, deque[_Attempt]] = {}  # of addresses that have a turn

    def add(self, attempt: _Attempt, failures: int) -> bool:
        """Whether there was room for it."""
        if attempt.address in self._behind:
            queue, most = self._behind[attempt.address], self._settings.attempts_waiting
        else:
            queue, most = self._queues[failures], self._settings.addresses_waiting
        if len(queue) >= most:
            return False
        queue.append(attempt)
        self._behind.setdefault(attempt.address, deque())
        return True

    def next(self) -> _Attempt | None:
        """The attempt whose turn it is. ``done`` must follow."""
        return next((queue.popleft() for queue in self._queues if queue), None)

    def done(self, address: str, failures: int) -> None:
        """The next attempt of the address goes to the end of its queue."""
        behind = self._behind[address]
        if behind:
            self._queues[failures].append(behind.popleft())
        else:
            del self._behind[address]


def address_group(address: str) -> str:
    """Whose attempts count together: an IPv4 address, a /64 of IPv6, or all that is neither."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "no IP address"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


def _credential(header: bytes | None) -> tuple[bytes, bytes] | None:
    """User and password, or None for what the basic scheme forbids."""
    scheme, _, coded = (header or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if colon and b"\0" not in user + password else None


def _pair(auth: str) -> bytes:
    user, _, password = auth.partition(":")
    if not user or not password:
        raise ServeError(
            "--auth is neither user:password nor a file that can be found; "
            "make a file: htpasswd -B -c FILE NAME"
        )
    return auth.encode("utf-8", "surrogateescape")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a password too long for a file name
        return False


def _read(path: Path, max_bytes: int) -> dict[bytes, bytes]:
    """Users and their hashes. Messages name the line and never show what is in it."""
    hashes: dict[bytes, bytes] = {}
    lines: dict[bytes, int] = {}
    for number, line in enumerate(_text(path, max_bytes).split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        fault = _fault(name, hashed)
        if fault:
            raise ServeError(
                f"{path}:{number}: {fault}; make the line again: htpasswd -B {path} NAME"
            )
        user = name.encode()
        if user in hashes:
            raise ServeError(
                f"{path}:{number}: the user of line {lines[user]} again; remove one of the two"
            )
        hashes[user], lines[user] = hashed.encode("ascii"), number
    if not hashes:
        raise ServeError(f"{path} names no user; add one: htpasswd -B {path} NAME")
    return hashes


def _text(path: Path, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ServeError(
            f"{path} cannot be read: {error.strerror}; let the server's user read it"
        ) from error
    if len(content) > max_bytes:
        raise ServeError(f"{path} is over {max_bytes:,} bytes; name a file of htpasswd -B")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        # The error itself holds the whole file.
        raise ServeError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from None


def _fault(user: str, hashed: str) -> str:
    """Why a line cannot be used, or nothing."""
    if not user:
        return "no user name before the colon"
    if not _BCRYPT.match(hashed):
        return "no bcrypt hash"
    form = _HASH.fullmatch(hashed)
    if form is None:
        return "a hash that bcrypt cannot read"
    cost = int(form["cost"])
    if cost < _LOWEST_COST:
        return f"a hash of cost {cost}, and bcrypt reads none below {_LOWEST_COST}"
    if cost > _HIGHEST_COST:
        return f"a hash of cost {cost}, and one over {_HIGHEST_COST} takes many seconds to check"
    try:
        # As the line, but for the cost: the lowest takes about a millisecond.
        bcrypt.checkpw(b"", f"{hashed[:4]}{_LOWEST_COST:02}{hashed[6:]}".encode("ascii"))
    except ValueError:
        return "a hash that bcrypt cannot read"
    return ""


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _dummy(cost: int) -> bytes:
    """A hash of this cost that no password is known for, made without paying the cost."""
    digest = bcrypt.hashpw(secrets.token_hex(16).encode(), bcrypt.gensalt(_LOWEST_COST))[29:]
    return bcrypt.gensalt(cost) + digest
