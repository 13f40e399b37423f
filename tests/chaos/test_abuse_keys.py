"""Keys at the management API under abuse: malformed ones by the thousand, every route with a wrong one, and the time a check takes."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
import statistics
import time

import pytest
from starlette.requests import Request
from support.api import Api
from support.management import UnderManage

from cluster import errors, keys, records
from cluster.api import auth, trail
from cluster.store import MemoryStore, open_store

HERE = "/manage/v2/endpoint/admin"
SQL = ["' OR '1'='1", "'; DROP TABLE keys; --", '" UNION SELECT digest FROM keys --', "1) OR (SELECT 1)=1", "%27%20OR%201=1", "\\'; --"]
FEW, ALL = 1_000, 10_000
TRIES, FULL_TRIES, RUNS, BAR = 4_000, 20_000, 3, 4.5


class Counting:
    """A store that counts what it is asked."""

    def __init__(self, store):
        self._store, self.asked = store, 0

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def counted(*given, **named):
            self.asked += 1
            return found(*given, **named)

        return counted


def wrong_checksum(key, dice):
    """The key with one character changed, so that its checksum is another one's."""
    place = dice.randrange(len("moor_p_"), len(key))
    other = dice.choice([character for character in keys.ALPHABET if character != key[place]])
    return key[:place] + other + key[place + 1 :]


def malformed(number, key, seed=1):
    """So many lists of headers, none of which holds a key: a dozen kinds in turn, different each time."""
    dice = random.Random(seed)
    text = lambda size: "".join(dice.choice(keys.ALPHABET) for _ in range(size))  # noqa: E731
    kinds = [
        lambda: [b"Bearer " + dice.choice(SQL).encode() + text(dice.randrange(40)).encode()],
        lambda: [f"Bearer moor_p_{text(12)}_{dice.choice(SQL)}".encode()],
        lambda: [b"Bearer " + key[: dice.randrange(len(key))].encode() + b"\0" + text(8).encode()],
        lambda: [b"Bearer " + text(dice.randrange(60_000, 65_536)).encode()],
        lambda: [f"Bearer {text(5)}{dice.choice('éß漢字🔑')}{text(5)}".encode()],
        lambda: [bytes(dice.randrange(256) for _ in range(dice.randrange(80)))],
        lambda: [f"Bearer {key}".encode(), f"Bearer {key}".encode()],
        lambda: [f"Basic {text(dice.randrange(60))}".encode()],
        lambda: [f"bearer {wrong_checksum(key, dice)}".encode()],
        lambda: [f"Bearer {wrong_checksum(key, dice)}".encode()],
        lambda: [f"{dice.choice(['Bearer', 'BEARER', 'Token', 'Digest', ''])}{key}".encode()],
        lambda: [f"Bearer {key} {text(3)}".encode()],
        lambda: [f"Bearer {key.upper()}".encode()],
        lambda: [b"Bearer " + b" " * dice.randrange(50)],
    ]
    for index in range(number):
        yield [(b"authorization", value) for value in kinds[index % len(kinds)]()]


async def statuses(app, requests, path=HERE):
    """What each request (a list of headers) is answered; nothing is between it and the application."""
    found = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            found.append(message["status"])

    for headers in requests:
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "scheme": "http", "server": ("x", 80), "client": ("192.0.2.1", 1), "asgi": {"version": "3.0"}}
        await UnderManage(app)(scope, receive, send)
    return found


def malformed_answers(folder, number):
    """(statuses, questions to the store) of so many malformed keys."""
    store = Counting(MemoryStore())
    api = Api(folder, store=store)
    store.asked = 0
    found = asyncio.run(statuses(api.app, malformed(number, api.token)))
    asked = store.asked
    assert asyncio.run(statuses(api.app, [[(b"authorization", f"Bearer {api.token}".encode())]])) == [200]
    assert store.asked > asked  # so it would have been counted
    return found, asked


def test_a_thousand_malformed_keys_are_401_without_a_question_to_the_store(tmp_path, record):
    """K5, in short."""
    found, asked = malformed_answers(tmp_path, FEW)
    record("K5 malformed keys answered otherwise than 401 (short)", sum(status != 401 for status in found), 0, unit="of 1,000")
    record("K5 questions to the store (short)", asked, 0)


@pytest.mark.full
def test_ten_thousand_malformed_keys_are_401_without_a_question_to_the_store(tmp_path, record):
    """K5."""
    found, asked = malformed_answers(tmp_path, ALL)
    record("K5 malformed keys answered otherwise than 401", sum(status != 401 for status in found), 0, unit="of 10,000")
    record("K5 questions to the store", asked, 0)


def test_every_route_with_a_wrong_key_is_401(tmp_path, record):
    """H5: unknown, revoked, altered; without one: tests/unit/test_api_authentication.py."""
    api = Api(tmp_path)
    revoked = keys.mint(keys.PLATFORM)
    api.store.add_key(records.Key(revoked.id, revoked.digest, keys.PLATFORM, "admin", owner="admin", status="revoked"))
    wrong = {"unknown": keys.mint(keys.PLATFORM).key, "revoked": revoked.key, "altered": wrong_checksum(api.token, random.Random(1))}
    routes = [(method, url) for method, path, url in api.routes() if path != "/health"]
    answered = [
        f"{method} {url} with a key that is {kind}: {answer.status_code}"
        for method, url in routes
        for kind, key in wrong.items()
        if (answer := api.call(method, url, {} if method in ("POST", "PUT", "PATCH") else None, key=key)).status_code != 401
    ]
    record("H5 routes that answer a wrong key otherwise than 401", len(answered), 0, note=f"{len(routes)} routes; {answered[:3]}")


@dataclasses.dataclass
class Check:
    """The key check of the management API on a database with fifty keys."""

    who: trail.Witness
    known: str
    """The id of one of them."""

    def seconds(self, request):
        """How long the check of a wrong key takes."""
        began = time.perf_counter_ns()
        try:
            self.who(request)
        except errors.InvalidApiKey:
            return (time.perf_counter_ns() - began) / 1e9
        raise AssertionError("a made-up key was accepted")


@pytest.fixture
def check(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'moorage.db'}")
    store.migrate()
    made = [keys.mint(keys.PLATFORM) for _ in range(50)]
    for one in made:
        store.add_key(records.Key(one.id, one.digest, keys.PLATFORM, "admin", owner="admin"))
    yield Check(trail.Witness(auth.Authenticator(store), store), made[25].id)
    store.close()


def request_with(identity):
    """A request with a well-formed key of that id, and a secret that is nobody's."""
    made = keys.mint(keys.PLATFORM).key
    body = f"moor_p_{identity or keys.key_id(made)}_{made.split('_')[3][:32]}"
    key = body + keys._checksum(body)
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [(b"authorization", f"Bearer {key}".encode())]})


def welch_t(one, other):
    """Of two samples without their slowest twentieth, in which other programs' turns are."""
    bound = sorted([*one, *other])[int(0.95 * (len(one) + len(other)))]
    one, other = ([value for value in sample if value <= bound] for sample in (one, other))
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / spread**0.5


def difference(check, tries):
    """Welch's t of the time for keys with a known id against that for random ones, in mixed order."""
    asked = [(known, request_with(check.known if known else None)) for known in [True, False] * (tries // 2)]
    random.shuffle(asked)
    for _, request in asked[:200]:  # caches are warm, connections open
        check.seconds(request)
    times = {True: [], False: []}
    gc.collect()
    gc.disable()
    try:
        for known, request in asked:
            times[known].append(check.seconds(request))
    finally:
        gc.enable()
    return welch_t(times[True], times[False])


def telling(check, tries):
    """Of up to three runs, the |t| that all of them reach in one direction; what one run alone shows is noise."""
    least = 0.0
    for run in range(RUNS):
        found = difference(check, tries)
        if run and found * least <= 0:
            return 0.0
        least = found if not run or abs(found) < abs(least) else least
        if abs(least) < BAR:
            break
    return abs(least)


def test_the_time_of_a_check_does_not_tell_whether_a_keys_id_exists(check, record):
    """K4, in short."""
    record("K4 |t| of a key check, known id against random (short)", telling(check, TRIES), BAR, note=f"{TRIES} tries")


@pytest.mark.full
def test_the_time_of_twenty_thousand_checks_does_not_tell_whether_a_keys_id_exists(check, record):
    """K4."""
    record("K4 |t| of a key check, known id against random", telling(check, FULL_TRIES), BAR, note=f"{FULL_TRIES} tries")


def test_a_check_that_is_slower_for_a_known_id_would_be_noticed(check):
    exact = check.who._authenticate

    def leaky(request):
        if check.known in request.headers["authorization"]:
            hash(tuple(range(20_000)))
        return exact(request)

    check.who._authenticate = leaky
    assert telling(check, 1_000) > BAR
