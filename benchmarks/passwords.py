"""Does the time of a refusal tell user names apart, and does guessing delay the right user?

    make bench-passwords        about a minute on two cores

Times a known user with a wrong password and an unknown user, in turn, for a file of cost 5 and for
one of costs 5 and 10. Then eight guessers from eight addresses hammer with passwords of cost 10,
and a user from a ninth address comes in with the right one: under the limits as they are, and with
limits so high that the guessers are never refused. Writes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bcrypt
import numpy as np

from ballet_qa.keys import Keys, Status
from ballet_qa.settings import SETTINGS

GUESSERS = 8
VISITS = 8
GUESSING = 3.0  # seconds before the right user comes
ENDLESS = 10**9
NO_LIMITS = replace(
    SETTINGS,
    address_failures=ENDLESS,
    total_failures=ENDLESS,
    most_failures=ENDLESS,
)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def file_of(folder: Path, costs: dict[str, int]) -> str:
    path = folder / "-".join(costs)
    lines = [
        f"{user}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(cost)).decode()}\n"
        for user, cost in costs.items()
    ]
    path.write_text("".join(lines), "utf-8")
    return str(path)


async def milliseconds(keys: Keys, user: str, password: str, address: str, fits: bool) -> float:
    start = time.perf_counter()
    admission = await keys.admits(basic(user, password), address)
    took = (time.perf_counter() - start) * 1000
    assert admission.status is (Status.ADMITTED if fits else Status.REFUSED), admission
    return took


async def by_name(auth: str, known: list[str], rounds: int) -> None:
    """Known and unknown users take turns, so that what else the machine does falls on all."""
    keys = Keys(auth, settings=NO_LIMITS)
    took: dict[str, list[float]] = {user: [] for user in [*known, "nobody"]}
    for number in range(rounds):
        for user in random.sample([*took], len(took)):
            took[user].append(await milliseconds(keys, user, f"x{number}", "192.0.2.1", False))
    for user in known:
        for share, name in ((0.5, "median"), (0.1, "quickest tenth")):
            one, other = (float(np.quantile(took[who], share)) for who in (user, "nobody"))
            print(
                f"  {user}, wrong password: {one:.2f} ms; unknown user: {other:.2f} ms; "
                f"ratio {one / other:.3f} ({name})"
            )


async def under_guessing(make: Callable[[], Keys], guessers: int) -> None:
    """Each visit is a first one, by a server that has just started and is being guessed at."""
    waits, again, before = [], [], []
    for _ in range(VISITS):
        keys, checked = make(), [0]
        guesses = [asyncio.ensure_future(guess(keys, n, checked)) for n in range(guessers)]
        await asyncio.sleep(GUESSING)
        so_far = checked[0]
        waits.append(await milliseconds(keys, "slow", "secret", "192.0.2.1", True))
        before.append(checked[0] - so_far)
        again.append(await milliseconds(keys, "slow", "secret", "192.0.2.1", True))
        for task in guesses:
            task.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
    print(
        f"  {guessers} guessers: the right user waits {statistics.median(waits):.0f} ms (most "
        f"{max(waits):.0f}), while {statistics.median(before):.0f} guesses are checked (most "
        f"{max(before, default=0)}); remembered, {statistics.median(again):.2f} ms"
    )


async def guess(keys: Keys, number: int, checked: list[int]) -> None:
    for password in itertools.count():
        header = basic("slow", f"{number}-{password}")
        admission = await keys.admits(header, f"203.0.113.{number}")
        checked[0] += admission.status is Status.REFUSED
        await asyncio.sleep(0.001)  # the network's part


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = file_of(Path(folder), {"quick": 5})
        print("a file of cost 5")
        asyncio.run(by_name(one, ["quick"], 2000))
        mixed = file_of(Path(folder), {"quick": 5, "slow": 10})
        print("a file of costs 5 and 10")
        asyncio.run(by_name(mixed, ["quick", "slow"], 60))
        print("a right user while others guess, costs 5 and 10")
        asyncio.run(under_guessing(lambda: Keys(mixed), 0))
        asyncio.run(under_guessing(lambda: Keys(mixed), GUESSERS))
        print("the same, with no limits")
        asyncio.run(under_guessing(lambda: Keys(mixed, settings=NO_LIMITS), GUESSERS))


if __name__ == "__main__":
    main()
