"""Who is admitted, what an attempt costs, how often one may guess: by an injected clock.

No test takes the time: what tells users apart is counted, as calls of bcrypt and their costs.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from ballet_qa.errors import ServeError
from ballet_qa.keys import Admission, Keys, Status, address_group
from ballet_qa.settings import SETTINGS, Settings
from conftest import run_apart

ADMITTED = Admission(Status.ADMITTED)
REFUSED = Admission(Status.REFUSED)
HOME = "192.0.2.1"
AWAY = "198.51.100.7"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Spy:
    """Counts the costs of real checks; holds them back while ``gate`` is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.costs: list[int] = []
        self.passwords: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self._real = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self._check)

    def _check(self, password: bytes, hashed: bytes) -> bool:
        self.costs.append(int(hashed[4:6]))
        self.passwords.append(password)
        assert self.gate.wait(30)
        return self._real(password, hashed)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Callable[..., Keys]:
    """Keys of a file of users with their costs; every password is ``secret``."""

    def made(settings: Settings = SETTINGS, **costs: int) -> Keys:
        path = tmp_path / "people"
        hashes = {
            name: bcrypt.hashpw(b"secret", bcrypt.gensalt(cost)) for name, cost in costs.items()
        }
        path.write_text("".join(f"{n}:{h.decode()}\n" for n, h in hashes.items()), "utf-8")
        return Keys(str(path), settings=settings, clock=clock)

    return made


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Keys]) -> Spy:
    return Spy(monkeypatch)


def basic(credential: bytes | str) -> bytes:
    raw = credential.encode() if isinstance(credential, str) else credential
    return b"Basic " + base64.b64encode(raw)


def ask(keys: Keys, credential: bytes | str, address: str = HOME) -> Admission:
    return run_apart(keys.admits(basic(credential), address))


def statuses(keys: Keys, credential: str, times: int, address: str = HOME) -> list[str]:
    return [ask(keys, credential, address).status.value for _ in range(times)]


def too_many(seconds: int) -> Admission:
    return Admission(Status.TOO_MANY, seconds)


# Who is admitted


def test_one_pair(clock: Clock) -> None:
    keys = Keys("ann:pä:ss", clock=clock)
    assert ask(keys, "ann:pä:ss") == ADMITTED
    for wrong in ("ann:x", ":", "ann:", ":pä:ss", "eve:pä:ss", "ann:pä:ss ", b"ann:p\xe4:ss"):
        assert ask(keys, wrong, AWAY) == REFUSED


def test_a_pair_that_is_not_utf8() -> None:
    """As a command line holds bytes that are no UTF-8."""
    assert ask(Keys("ann:p\udce4ss"), b"ann:p\xe4ss") == ADMITTED


def test_a_file_of_hashes(tmp_path: Path) -> None:
    path = tmp_path / "people"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    others = [hashed.replace("$2b$", kind) for kind in ("$2y$", "$2a$")]
    lines = ["\ufeff# people", f"ann:{hashed}", "", f"bób:{others[0]}\r", f" eve:{others[1]} "]
    path.write_text("\n".join(lines), "utf-8", newline="")
    keys = Keys(str(path))
    for _ in range(2):  # the second time from memory
        for user in ("ann", "bób", "eve"):
            assert ask(keys, f"{user}:secret") == ADMITTED
    for wrong in ("ann:Secret", "mallory:secret", "# people:secret"):
        assert ask(keys, wrong) == REFUSED


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Basic",
        b"Basic ",
        b"Basic !!!",
        b"Basic \xff",
        b"Bearer YW5uOnNlY3JldA==",
        basic("no colon"),
        basic("ann:sec\0ret"),
        basic("an\0n:secret"),
    ],
)
def test_what_is_no_credential_costs_nothing_and_is_not_counted(
    make: Callable[..., Keys], spy: Spy, header: bytes | None
) -> None:
    keys = make(ann=4)
    spy.costs.clear()
    for _ in range(SETTINGS.address_failures + 5):
        assert run_apart(keys.admits(header, HOME)) == REFUSED
    assert spy.costs == []
    assert ask(keys, "ann:secret") == ADMITTED


def test_bcrypt_reads_72_bytes(make: Callable[..., Keys], tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"ann:" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)))
    keys = Keys(str(path))
    assert ask(keys, "ann:" + "x" * 1000) == ADMITTED
    assert ask(keys, "ann:" + "x" * 71) == REFUSED


# Every attempt costs the same


@pytest.mark.parametrize("costs", [{"ann": 4}, {"ann": 5, "bob": 5}, {"ann": 4, "bob": 6}])
def test_every_attempt_pays_each_cost_once(
    make: Callable[..., Keys], spy: Spy, costs: dict[str, int]
) -> None:
    keys = make(**costs)
    distinct = sorted(set(costs.values()))
    attempts: list[bytes | str] = [f"{user}:wrong" for user in costs]
    attempts += ["mallory:wrong", "mallory:secret", ":", "ann:", ":secret", b"\xff:secret"]
    attempts += ["ann:" + "x" * 100, "mallory:" + "x" * 100, b"ann:\xff", "Ann:secret"]
    for number, attempt in enumerate(attempts):
        spy.costs.clear()
        assert ask(keys, attempt, f"192.0.2.{number}") == REFUSED
        assert spy.costs == distinct, attempt
    spy.costs.clear()
    assert ask(keys, "ann:secret") == ADMITTED
    assert spy.costs == distinct


def test_a_dummy_admits_nobody(make: Callable[..., Keys], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = make(ann=4, bob=5)
    monkeypatch.setattr(bcrypt, "checkpw", lambda _password, hashed: hashed[4:6] == b"04")
    assert ask(keys, "mallory:secret") == REFUSED
    assert ask(keys, "bob:secret") == REFUSED  # the dummy of the other cost fits
    assert ask(keys, "ann:secret") == ADMITTED


def test_whom_an_address_was_admitted_as_is_not_hashed_again(
    make: Callable[..., Keys], spy: Spy
) -> None:
    keys = make(ann=4)
    ask(keys, "ann:secret")
    spy.costs.clear()
    assert statuses(keys, "ann:secret", 100) == ["admitted"] * 100
    assert spy.costs == []
    assert ask(keys, "ann:secret", AWAY) == ADMITTED
    assert spy.costs == [4]  # another address, another attempt


def test_what_is_remembered_is_bounded(make: Callable[..., Keys], spy: Spy) -> None:
    keys = make(replace(SETTINGS, remembered_credentials=2), ann=4)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        ask(keys, "ann:secret", address)
    spy.costs.clear()
    ask(keys, "ann:secret", "192.0.2.1")  # asked for later than .2
    ask(keys, "ann:secret", "192.0.2.3")
    assert spy.costs == []
    ask(keys, "ann:secret", "192.0.2.2")
    assert spy.costs == [4]


# Limits of one address


def limited(keys: Keys, clock: Clock) -> None:
    """Ten fail at once; then one each six seconds."""
    assert statuses(keys, "ann:wrong", 10) == ["refused"] * 10
    assert ask(keys, "ann:wrong") == too_many(6)
    assert ask(keys, "ann:secret") == too_many(6)  # it is not looked at
    clock.now += 5
    assert ask(keys, "ann:wrong") == too_many(1)
    clock.now += 1
    assert ask(keys, "ann:wrong") == REFUSED
    assert ask(keys, "ann:wrong") == too_many(6)
    clock.now += 60
    assert statuses(keys, "mallory:wrong", 11) == ["refused"] * 10 + ["too many"]


def test_failures_of_an_address_are_limited(
    make: Callable[..., Keys], clock: Clock, spy: Spy
) -> None:
    keys = make(ann=4)
    spy.costs.clear()
    limited(keys, clock)
    assert len(spy.costs) == 21  # refused without hashing
    assert ask(keys, "ann:secret", AWAY) == ADMITTED


def test_failures_are_limited_with_a_pair(clock: Clock) -> None:
    keys = Keys("ann:secret", clock=clock)
    limited(keys, clock)
    assert ask(keys, "ann:secret", AWAY) == ADMITTED


def test_a_limit_holds_for_guesses_of_another_addresss_credential(
    make: Callable[..., Keys],
) -> None:
    """Else a remembered credential could be guessed as fast as the server answers."""
    keys = make(ann=4)
    assert ask(keys, "ann:secret") == ADMITTED
    statuses(keys, "ann:wrong", 10, AWAY)
    assert ask(keys, "ann:secret", AWAY) == too_many(6)
    assert ask(keys, "ann:secret") == ADMITTED


def test_a_limited_address_is_admitted_as_before(make: Callable[..., Keys]) -> None:
    keys = make(ann=4, bob=4)
    ask(keys, "ann:secret")
    statuses(keys, "bob:wrong", 10)
    assert ask(keys, "bob:secret").status is Status.TOO_MANY
    assert ask(keys, "ann:secret") == ADMITTED


def test_a_success_gives_the_address_its_tokens_back_once(make: Callable[..., Keys]) -> None:
    keys = make(ann=4, bob=4)
    statuses(keys, "bob:wrong", 9)
    assert ask(keys, "ann:secret") == ADMITTED
    assert statuses(keys, "bob:wrong", 9) == ["refused"] * 9
    assert ask(keys, "ann:secret") == ADMITTED  # from memory: no tokens for it
    assert statuses(keys, "bob:wrong", 2) == ["refused", "too many"]


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0\n", "fe80::/64"),
        ("", "no IP address"),
        ("testclient", "no IP address"),
        ("192.0.2.1\nforged", "no IP address"),
    ],
)
def test_whose_attempts_count_together(address: str, group: str) -> None:
    assert address_group(address) == group


def test_a_64_of_ipv6_counts_as_one_address(make: Callable[..., Keys]) -> None:
    keys = make(ann=4)
    for number in range(10):
        assert ask(keys, "ann:wrong", f"2001:db8::{number}") == REFUSED
    assert ask(keys, "ann:wrong", "2001:db8::ffff:1") == too_many(6)
    assert ask(keys, "ann:secret", "2001:db8:0:1::1") == ADMITTED


# Limits in total


def test_the_total_limits_those_who_failed_lately(clock: Clock) -> None:
    small = replace(SETTINGS, total_failures=6, most_failures=600)
    keys = Keys("ann:secret", settings=small, clock=clock)
    assert statuses(keys, "ann:x", 5, "203.0.113.1") == ["refused"] * 5
    assert ask(keys, "ann:x", HOME) == REFUSED  # the total is spent
    assert ask(keys, "ann:x", "203.0.113.1") == too_many(10)
    # One without failures is looked at, one who failed has a reserve: guessing locks nobody out.
    assert ask(keys, "ann:secret", AWAY) == ADMITTED
    assert statuses(keys, "ann:x", 3, HOME) == ["refused", "refused", "too many"]
    clock.now += 10  # a token of the total for whoever comes first
    assert ask(keys, "ann:x", "203.0.113.1") == REFUSED
    assert ask(keys, "ann:x", "203.0.113.1") == too_many(10)
    assert ask(keys, "ann:secret", HOME) == too_many(10)


def test_a_reserve_comes_back_in_15_minutes(clock: Clock) -> None:
    small = replace(SETTINGS, total_failures=1)
    keys = Keys("ann:secret", settings=small, clock=clock)
    assert statuses(keys, "ann:x", 4) == ["refused"] * 3 + ["too many"]
    clock.now += 300
    other = [f"203.0.113.{number}" for number in range(1, 3)]
    assert ask(keys, "ann:x", other[0]) == REFUSED  # the total is spent again
    assert statuses(keys, "ann:x", 2) == ["refused", "too many"]
    clock.now += 900
    assert ask(keys, "ann:x", other[1]) == REFUSED
    assert statuses(keys, "ann:x", 4) == ["refused"] * 3 + ["too many"]


def test_beyond_the_highest_total_nobody_is_looked_at(clock: Clock) -> None:
    keys = Keys("ann:secret", settings=replace(SETTINGS, most_failures=120), clock=clock)
    ask(keys, "ann:secret", HOME)
    for number in range(120):
        assert ask(keys, "ann:x", f"203.0.113.{number}") == REFUSED
    assert ask(keys, "ann:secret", AWAY) == too_many(1)
    assert ask(keys, "ann:secret", HOME) == ADMITTED  # but whom it was admitted as
    clock.now += 0.5
    assert ask(keys, "ann:secret", AWAY) == ADMITTED


def test_the_table_of_addresses_is_bounded(clock: Clock) -> None:
    keys = Keys("ann:secret", settings=replace(SETTINGS, remembered_addresses=2), clock=clock)
    statuses(keys, "ann:x", 9, "203.0.113.1")
    statuses(keys, "ann:x", 10, "203.0.113.2")
    assert ask(keys, "ann:x", "203.0.113.1") == REFUSED
    assert ask(keys, "ann:x", "203.0.113.3") == REFUSED
    assert ask(keys, "ann:x", "203.0.113.1") == too_many(6)
    assert ask(keys, "ann:x", "203.0.113.2") == REFUSED  # its last failure is the oldest


def test_the_table_holds_whoever_may_fail_before_a_reserve_is_back() -> None:
    assert SETTINGS.remembered_addresses >= 16 * SETTINGS.most_failures


# The log


def test_a_limit_is_logged_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys("ann:secret", settings=replace(SETTINGS, total_failures=25), clock=clock)
    with caplog.at_level(logging.WARNING, "ballet_qa.keys"):
        statuses(keys, "ann:wrong\n", 9)
        assert caplog.messages == []
        statuses(keys, "ann:wrong\n", 20)
        assert caplog.messages == ["10 passwords from 192.0.2.1 failed in a minute: it must wait"]
        for _ in range(20):  # it goes on guessing for two minutes
            clock.now += 6
            ask(keys, "ann:wrong\n")
        assert len(caplog.messages) == 1
        clock.now += 15 * 60
        statuses(keys, "ann:wrong\n", 10)
        assert caplog.messages[1:] == caplog.messages[:1]
        statuses(keys, "mallory:x", 10, "2001:db8::1")
        statuses(keys, "mallory:x", 10, AWAY)
    assert caplog.messages[2:] == [
        "10 passwords from 2001:db8::/64 failed in a minute: it must wait",
        "25 passwords failed in a minute: addresses that failed lately must wait",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_the_highest_total_is_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(SETTINGS, total_failures=500, most_failures=5)
    keys = Keys("ann:secret", settings=settings, clock=clock)
    for number in range(9):
        ask(keys, "ann:x", f"203.0.113.{number}\n" if number > 5 else f"203.0.113.{number}")
    assert caplog.messages == ["5 passwords failed in a minute: every address must wait"]


# Turns: bcrypt is held back, so that attempts pile up


def pile(spy: Spy, *asked: Any, until: int) -> list[Admission]:
    """Ask for all in this order, with the checks held back until so many are answered or wait."""

    async def all_of_them() -> list[Admission]:
        spy.gate.clear()
        tasks = []
        try:
            async with asyncio.timeout(20):
                for keys, credential, address in asked:
                    tasks.append(asyncio.ensure_future(keys.admits(basic(credential), address)))
                    await asyncio.sleep(0)
                while len(spy.costs) < until:
                    await asyncio.sleep(0.001)
                spy.gate.set()
                return list(await asyncio.gather(*tasks))
        finally:
            spy.gate.set()

    return run_apart(all_of_them())


ONE_WORKER = replace(SETTINGS, password_workers=1)


def test_a_flood_from_one_address_delays_another_by_one_check(
    make: Callable[..., Keys], spy: Spy
) -> None:
    keys = make(ONE_WORKER, ann=4)
    spy.costs.clear()
    spy.passwords.clear()
    flood = [(keys, f"ann:wrong{number}", AWAY) for number in range(20)]
    admissions = pile(spy, *flood, (keys, "ann:secret", HOME), until=1)
    assert admissions[-1] == ADMITTED
    assert spy.passwords[:3] == [b"wrong0", b"secret", b"wrong1"]
    # One is under way and eight wait; the others come back later.
    assert [a.status.value for a in admissions[:-1]] == ["refused"] * 9 + ["too many"] * 11
    assert admissions[-2] == too_many(1)


def test_one_attempt_of_an_address_at_a_time_and_so_many_in_all(
    make: Callable[..., Keys], spy: Spy
) -> None:
    keys = make(replace(SETTINGS, password_workers=2), ann=4)
    spy.costs.clear()
    spy.passwords.clear()
    flood = [(keys, f"ann:wrong{number}", AWAY) for number in range(3)]
    others = [(keys, f"ann:other{number}", f"203.0.113.{number}") for number in range(3)]
    pile(spy, *flood, *others, until=2)
    assert spy.passwords[:2] == [b"wrong0", b"other0"]
    assert len(spy.passwords) == 6


def test_who_failed_least_lately_comes_first(make: Callable[..., Keys], spy: Spy) -> None:
    keys = make(ONE_WORKER, ann=4)
    guessers = [f"203.0.113.{number}" for number in range(6)]
    for failures, address in enumerate(guessers):
        statuses(keys, "ann:wrong", failures, address)
    spy.costs.clear()
    spy.passwords.clear()
    flood = [(keys, f"ann:wrong{n}", guessers[n]) for n in (5, 4, 3, 2, 1, 0)]
    assert pile(spy, *flood, (keys, "ann:secret", HOME), until=1)[-1] == ADMITTED
    order = [b"wrong5", b"wrong0", b"secret", b"wrong1", b"wrong2", b"wrong4", b"wrong3"]
    assert spy.passwords == order


def test_who_fails_falls_back(make: Callable[..., Keys], spy: Spy) -> None:
    keys = make(ONE_WORKER, ann=4)
    for address in (AWAY, HOME):
        ask(keys, "ann:wrong", address)
    spy.costs.clear()
    spy.passwords.clear()
    pile(
        spy,
        (keys, "ann:wrong0", AWAY),
        (keys, "ann:wrong1", AWAY),
        (keys, "ann:home", HOME),
        (keys, "ann:new", "203.0.113.1"),
        until=1,
    )
    assert spy.passwords == [b"wrong0", b"new", b"home", b"wrong1"]


def test_attempts_that_wait_are_held_to_the_limit(make: Callable[..., Keys], spy: Spy) -> None:
    keys = make(ann=4)
    statuses(keys, "ann:wrong", 8)
    spy.costs.clear()
    asked = [(keys, f"ann:wrong{number}", HOME) for number in range(5)]
    assert pile(spy, *asked, until=1) == [REFUSED, REFUSED] + [too_many(6)] * 3
    assert len(spy.costs) == 2


def test_addresses_that_wait_are_bounded(make: Callable[..., Keys], spy: Spy) -> None:
    keys = make(replace(ONE_WORKER, addresses_waiting=3), ann=4)
    spy.costs.clear()
    ask(keys, "ann:wrong", HOME)
    spy.costs.clear()
    asked = [(keys, "ann:secret", f"203.0.113.{number}") for number in range(5)]
    asked.append((keys, "ann:secret", HOME))  # it failed before: a queue of its own
    assert pile(spy, *asked, until=1) == [ADMITTED] * 4 + [too_many(1), ADMITTED]


def test_the_same_attempt_is_checked_once(make: Callable[..., Keys], spy: Spy) -> None:
    """As a browser sends a new password with many requests at once."""
    keys = make(ann=4)
    spy.costs.clear()
    asked = [(keys, "ann:secret", HOME)] * 30 + [(keys, "ann:wrong", AWAY)] * 30
    assert pile(spy, *asked, until=2) == [ADMITTED] * 30 + [REFUSED] * 30
    assert spy.costs == [4, 4]
    assert statuses(keys, "ann:wrong", 10, AWAY) == ["refused"] * 9 + ["too many"]


def test_a_request_that_is_left_takes_nothing_from_others(
    make: Callable[..., Keys], spy: Spy
) -> None:
    keys = make(ann=4)

    async def left() -> Admission:
        spy.gate.clear()
        first = asyncio.ensure_future(keys.admits(basic("ann:secret"), HOME))
        second = asyncio.ensure_future(keys.admits(basic("ann:secret"), HOME))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        spy.gate.set()
        return await second

    assert run_apart(left()) == ADMITTED


def test_a_remembered_credential_waits_for_nothing(make: Callable[..., Keys], spy: Spy) -> None:
    keys = make(ann=4)
    ask(keys, "ann:secret")

    async def while_others_are_checked() -> Admission:
        spy.gate.clear()
        guesses = [
            asyncio.ensure_future(keys.admits(basic("ann:wrong"), f"203.0.113.{number}"))
            for number in range(20)
        ]
        await asyncio.sleep(0)
        admission = await keys.admits(basic("ann:secret"), HOME)
        assert not any(guess.done() for guess in guesses)
        spy.gate.set()
        await asyncio.gather(*guesses)
        return admission

    assert run_apart(while_others_are_checked()) == ADMITTED


def test_a_check_that_breaks_is_raised_and_the_next_is_looked_at(
    make: Callable[..., Keys], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = make(ann=4)

    def broken(password: bytes, hashed: bytes) -> bool:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(bcrypt, "checkpw", broken)
        for _ in range(3):
            with pytest.raises(MemoryError):
                ask(keys, "ann:secret")
    assert ask(keys, "ann:secret") == ADMITTED


def test_many_loops_and_threads_at_once(make: Callable[..., Keys]) -> None:
    most = replace(SETTINGS, address_failures=1000, total_failures=1000, attempts_waiting=100)
    keys = make(most, ann=4)

    def visit(number: int) -> list[Admission]:
        async def some() -> list[Admission]:
            credentials = ["ann:secret", f"ann:wrong{number}", "ann:secret"]
            asked = (keys.admits(basic(c), f"203.0.113.{number % 3}") for c in credentials)
            return list(await asyncio.gather(*asked))

        return asyncio.run(some())

    with ThreadPoolExecutor(8) as pool:
        visits = list(pool.map(visit, range(40)))
    assert visits == [[ADMITTED, REFUSED, ADMITTED]] * 40


# What cannot be used is refused when the server starts

GOOD = "$2b$04$abcdefghijklmnopqrstuuSRgSGKKgBvKtP3BLRQAFM7JSr5VZ7qa"
NO_HASH = "no bcrypt hash"
UNREADABLE = "a hash that bcrypt cannot read"


@pytest.mark.parametrize(
    ("hashed", "said"),
    [
        ("plain", NO_HASH),
        ("", NO_HASH),
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", NO_HASH),
        ("$apr1$abcdefgh$1XJkYm5tM3PzyKQWFqSgz/", NO_HASH),
        (GOOD[:-1], UNREADABLE),
        (GOOD + "a", UNREADABLE),
        (GOOD + ":comment", UNREADABLE),
        (GOOD.replace("$2b$", "$2x$"), UNREADABLE),
        (GOOD.replace("a", "ä"), UNREADABLE),
        (GOOD.replace("04", "٠٤"), UNREADABLE),
        (GOOD[:28] + "/" + GOOD[29:], UNREADABLE),  # spare bits of the salt
        (GOOD[:-1] + "b", UNREADABLE),  # spare bits of the digest: no password could fit
        (GOOD.replace("04", "03"), "bcrypt reads none below 4"),
        (GOOD.replace("04", "17"), "one over 16 takes many seconds"),
        (GOOD.replace("04", "31"), "one over 16 takes many seconds"),
    ],
)
def test_a_hash_that_cannot_be_used_is_refused(tmp_path: Path, hashed: str, said: str) -> None:
    path = tmp_path / "people"
    path.write_text(f"# people\nann:{GOOD}\nbob:{hashed}\n", "utf-8")
    with pytest.raises(ServeError) as refused:
        Keys(str(path))
    message = str(refused.value)
    assert message.startswith(f"{path}:3: ")
    assert said in message
    assert message.endswith(f"; make the line again: htpasswd -B {path} NAME")
    assert not hashed or hashed not in message


def test_what_bcrypt_itself_refuses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(password: bytes, hashed: bytes) -> bool:
        raise ValueError("Invalid salt")

    monkeypatch.setattr(bcrypt, "checkpw", refusing)
    path = tmp_path / "people"
    path.write_text(f"ann:{GOOD}", "utf-8")
    with pytest.raises(ServeError, match=":1: a hash that bcrypt cannot read; make"):
        Keys(str(path))


def test_a_start_pays_the_lowest_cost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people"
    path.write_text(f"ann:{GOOD.replace('04', '16')}\nbob:{GOOD}\n", "utf-8")
    spy = Spy(monkeypatch)
    Keys(str(path))
    assert spy.costs == [4, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f":{GOOD}\n", r":1: no user name before the colon; make"),
        (f"{GOOD}:ann\n", r":1: no bcrypt hash; make"),
        (f"ann:{GOOD}\n\nann:{GOOD}\n", r":3: the user of line 1 again; remove one"),
        ("\n# nobody\n", r" names no user; add one: htpasswd -B"),
        ("", r" names no user; add one: htpasswd -B"),
        (f"ann:{GOOD}\n\xff".encode("latin-1"), r":2: not UTF-8; save the file as UTF-8"),
        (b"#" * (SETTINGS.max_htpasswd_bytes + 1), r" is over 262,144 bytes; name a file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = tmp_path / "people"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ServeError, match=said) as refused:
        Keys(str(path))
    assert "$2b$" not in str(refused.value)
    assert refused.value.__cause__ is None  # it would hold the whole file


def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people"
    path.write_text(f"ann:{GOOD}", "utf-8")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ServeError, match="people cannot be read: Permission denied; let"):
        Keys(str(path))


def test_what_is_neither_file_nor_pair_is_refused(tmp_path: Path) -> None:
    for wrong in ("nothing", "", ":", "user:", ":secret", str(tmp_path), "x" * 5000):
        with pytest.raises(ServeError, match="neither user:password nor a file") as refused:
            Keys(wrong)
        assert "secret" not in str(refused.value)


def test_a_long_password_is_no_file_name() -> None:
    long = "ann:" + "x" * 5000
    assert ask(Keys(long), long) == ADMITTED
