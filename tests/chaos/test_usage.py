"""Usage is what the engines made, exactly once, whoever is killed meanwhile: a whole platform, held against the engines' own tally.

Echo engines write down what they read and make as they do it (`deployments.echo_tally`), apart from the usage records. The one thing
that may be missing from the records is what a server was writing down in the instant in which it was killed: one line of its tally.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.mixed_load import MixedLoad, Seen
from support.nemesis import kill_gateway, kill_haproxy, kill_manager
from support.platforms import Platform, until

from deployments import echo_tally

Sums = collections.Counter[tuple[str, str]]
"""(name, what) -> tokens."""
LOG_LOST_S = 2.0
"""Lines of the request log that were on their way into a gateway that is killed are lost."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What the engines of some endpoints wrote down."""

    of: Mapping[str, Sums]
    """Request id -> prompt and completion tokens, by endpoint."""
    asked: collections.Counter[str]
    """Request id -> how many engines had it: the edge may try it again elsewhere."""
    key_of: Mapping[str, str]
    last: Mapping[str, Sums]
    """Of each request that a dead server wrote down last: those tokens."""

    @classmethod
    def read(cls, folder: Path, endpoints: set[str], living: set[int]) -> Tally:
        of: dict[str, Sums] = collections.defaultdict(collections.Counter)
        last: dict[str, Sums] = collections.defaultdict(collections.Counter)
        key_of: dict[str, str] = {}
        asked: collections.Counter[str] = collections.Counter()
        for file in folder.iterdir():
            endpoint, _, pid = file.name.rpartition(".")
            if endpoint not in endpoints:
                continue
            what = identity = ""
            for line in file.read_text().splitlines():
                what, identity, value = line.split(" ")
                if what == "asked":
                    key_of[identity] = value
                    asked[identity] += 1
                else:
                    of[identity][endpoint, what] += int(value)
            if int(pid) not in living and what not in ("", "asked"):
                last[identity][endpoint, what] += int(value)
        return cls(of, asked, key_of, last)

    def without_instants(self, rows: list[Row]) -> Mapping[str, Sums]:
        """What usage has to be: less the last line of a dead server where the records do not have it."""
        found = {identity: Sums(sums) for identity, sums in self.of.items()}
        told = _by_request(rows)
        for identity, sums in self.last.items():
            for one, tokens in sums.items():
                if told[identity][one] == found[identity][one] - tokens:
                    found[identity][one] -= tokens
        return found


@dataclasses.dataclass(frozen=True)
class Row:
    """One record in the database."""

    id: str
    endpoint: str
    key: str
    outcome: str
    prompt: int
    completion: int
    share_s: float

    @property
    def cut(self) -> bool:
        """It ran when its server was killed: nobody knows its share of the replica's time then."""
        return self.outcome == "failed" and self.prompt > 0 and self.share_s == 0

    @property
    def request(self) -> str:
        """The edge's id, without what tells attempts apart."""
        return self.id.partition("~")[0]


def rows_of(platform: Platform, endpoints: set[str]) -> list[Row]:
    """The usage records of some endpoints, as the database has them."""
    columns = "id, endpoint, key, outcome, prompt_tokens, completion_tokens, share_s"
    with contextlib.closing(sqlite3.connect(f"file:{platform.home}/moorage.db?mode=ro", uri=True)) as database:
        return [Row(*found) for found in database.execute(f"SELECT {columns} FROM usage") if found[1] in endpoints]


def _by_request(rows: list[Row]) -> dict[str, Sums]:
    found: dict[str, Sums] = collections.defaultdict(collections.Counter)
    for row in rows:
        found[row.request][row.endpoint, "prompt"] += row.prompt
        found[row.request][row.endpoint, "completion"] += row.completion
    return found


def differences(platform: Platform, folder: Path, endpoints: set[str]) -> list[str]:
    """Where usage is not what the engines made: tokens, or requests that have no record."""
    rows = rows_of(platform, endpoints)
    tally = Tally.read(folder, endpoints, set(servers(platform)))
    made, told = tally.without_instants(rows), _by_request(rows)
    nothing, records = Sums(), collections.Counter(row.request for row in rows)
    found = [f"{name}: {made.get(name)}, {told.get(name)}" for name in {*made, *told} if made.get(name, nothing) != told.get(name, nothing)]
    return found + [f"{name}: {times} at engines, {records[name]} records" for name, times in tally.asked.items() if records[name] < times]


def sums(platform: Platform, endpoint: str, by: str) -> Sums:
    """What `GET .../usage` says, by `key`, `endpoint` or `day`."""
    told = platform.manage("GET", f"/{endpoint}/usage?by={by}").json()
    found = Sums()
    for item in told["items"]:
        found[item[by], "prompt"] += item["promptTokens"]
        found[item[by], "completion"] += item["completionTokens"]
        found[item[by], "requests"] += item["requests"]
    return found


def logged(platform: Platform, endpoint: str) -> dict[str, list[dict[str, Any]]]:
    """The request log by request id."""
    found: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    cursor = ""
    while True:
        page = platform.manage("GET", f"/{endpoint}/requests?limit=1000{cursor and '&cursor='}{cursor}").json()
        for item in page["items"]:
            found[item["id"]].append(item)
        if page["cursor"] is None:
            return found
        cursor = page["cursor"]


def servers(platform: Platform, endpoint: str = "") -> dict[int, str]:
    """The engines' server processes, without the lifeline processes above them."""
    found = platform.processes().items()
    return {
        pid: line for pid, line in found if "deployments.echo_server" in line and "lifeline" not in line and f"--model {endpoint}" in line
    }


OF_THE_PLATFORM: Mapping[str, Callable[[Platform], None]] = {"manager": kill_manager, "gateway": kill_gateway, "haproxy": kill_haproxy}


class Nemesis:
    """Kills one after another, each once the one before has been got over."""

    def __init__(self, platform: Platform, pair: str) -> None:
        """`pair` has two replicas."""
        self._platform, self._pair = platform, pair
        self.kills: list[tuple[str, float]] = []
        """What was killed, and when (Unix seconds)."""

    def kill(self, victim: str) -> None:
        """SIGKILL, and wait until it has been replaced."""
        self.kills.append((victim, time.time()))
        own = {"replica": self._replica, "server": self._server}
        own[victim]() if victim in own else OF_THE_PLATFORM[victim](self._platform)

    def _replica(self) -> None:
        before = set(servers(self._platform, self._pair))
        self._platform.kill(f"ServeReplica:admin--{self._pair}--r1", most=1)
        self._replaced(before)

    def _server(self) -> None:
        before = set(servers(self._platform, self._pair))
        os.kill(min(before), signal.SIGKILL)
        self._replaced(before)

    def _replaced(self, before: set[int]) -> None:
        def whole() -> bool:
            now = set(servers(self._platform, self._pair))
            return len(now) == 2 and now != before and self._platform.status(self._pair)["readyReplica"] == 2

        until(whole, 90, what="the replica is replaced")


@dataclasses.dataclass(frozen=True)
class Served:
    """Endpoints, their keys by name, and who has which id."""

    platform: Platform
    endpoints: tuple[str, str]
    keys: Mapping[tuple[str, str], str]
    limited: Mapping[tuple[str, str], str]


@pytest.fixture
def served(platform: Platform, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Two replicas of one endpoint, one of another; three keys for each, and one that is soon used up."""
    pair, single = endpoints = (f"{request.node.callspec.id}-pair", f"{request.node.callspec.id}-single")
    platform.create(pair, echo={"tokensPerSecond": 100}, scaling={"minReplica": 2, "maxReplica": 2})
    platform.create(single, echo={"tokensPerSecond": 200}, scaling={"maxQueue": 100})
    until(lambda: platform.status(pair)["readyReplica"] == 2, what="two replicas")

    def key(endpoint: str, name: str, **limits: int) -> str:
        made = platform.manage("POST", f"/{endpoint}/keys", {"description": name, **limits})
        assert made.status_code in (200, 201), made.text
        value = str(made.json()["key"])
        until(lambda: platform.chat(endpoint, key=value, max_tokens=1).status_code == 200, 10, what="the key works")
        return value

    keys = {(endpoint, name): key(endpoint, name) for endpoint in endpoints for name in ("one", "two")}
    keys |= {(endpoint, "platform"): platform.token for endpoint in endpoints}
    limited = {
        (pair, "tokens"): key(pair, "tokens", tokensPerMinute=60),
        (single, "requests"): key(single, "requests", requestsPerMinute=5),
    }
    yield Served(platform, endpoints, keys, limited)
    for endpoint in endpoints:
        platform.delete(endpoint)


ROUND = ("manager", "server", "gateway", "replica", "manager", "haproxy")


@pytest.mark.parametrize(
    ("count", "rate", "victims"),
    [
        (1000, 50, ("manager", "server", "gateway")),
        pytest.param(10_000, 50, ROUND * 2, marks=[pytest.mark.full, pytest.mark.timeout(1500)]),
    ],
    ids=["short", "long"],
)
def test_usage_equals_what_the_engines_made_whoever_is_killed(
    served: Served, record: Callable[..., None], count: int, rate: float, victims: tuple[str, ...]
) -> None:
    """M1"""
    platform, endpoints = served.platform, set(served.endpoints)
    folder = Path(platform.environment[echo_tally.FOLDER])
    load = MixedLoad(platform.url, served.keys, served.limited, seed=count)
    nemesis = Nemesis(platform, served.endpoints[0])

    def kill_all() -> None:
        for number, victim in enumerate(victims, 1):
            until(lambda number=number: load.begun >= number * count / (len(victims) + 1), 600, what="requests flow")
            nemesis.kill(victim)

    async def all_of_it() -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(load.run(count, rate))
            both.create_task(asyncio.to_thread(kill_all))

    asyncio.run(all_of_it())
    began = time.monotonic()
    until(lambda: not differences(platform, folder, endpoints), 120, every=1, what="usage is what the engines made")
    told = f"{len(load.tries)} tries of {count} requests, {len(nemesis.kills)} kills"
    record(f"M1 time until usage is complete ({count})", time.monotonic() - began, 90, unit="s", note=told)
    judge_sums(served, folder, record, count)
    judge_answers(served, load.tries, nemesis.kills, record, count)


def judge_sums(served: Served, folder: Path, record: Callable[..., None], count: int) -> None:
    """The database and the API, against the tally."""
    platform, endpoints = served.platform, set(served.endpoints)
    rows = rows_of(platform, endpoints)
    tally = Tally.read(folder, endpoints, set(servers(platform)))
    made = tally.without_instants(rows)
    engines, told = sum(map(collections.Counter.total, tally.of.values())), sum(row.prompt + row.completion for row in rows)
    deaths = sum(sums.total() for sums in tally.last.values())
    note = f"{engines} tokens of {len(tally.asked)} requests; {len(tally.last)} dead servers could have had {deaths} more"
    record(f"M1 tokens that the engines counted and usage has not ({count})", engines - told, deaths, unit="tokens", note=note)
    record(f"M1 tokens that usage has and no engine counted ({count})", max(0, told - engines), 0, unit="tokens")
    record(f"M1 records told twice ({count})", len(rows) - len({row.id for row in rows}), 0, unit="records", note=f"of {len(rows)}")
    cut = [row for row in rows if row.cut]
    note = f"with {sum(row.prompt + row.completion for row in cut)} tokens"
    record(f"M1 requests that ran in a server that was killed ({count})", len(cut), 1, at_most=False, unit="records", note=note)
    for endpoint in endpoints:
        by_key, whole = Sums(), Sums()
        for identity, one in made.items():
            for (of, what), tokens in one.items():
                if of == endpoint:
                    by_key[tally.key_of[identity], what] += tokens
                    whole[endpoint, what] += tokens
        requests = [row for row in rows if row.endpoint == endpoint]
        for row in requests:
            by_key[row.key, "requests"] += 1
            whole[endpoint, "requests"] += 1
        assert sums(platform, endpoint, "key") == by_key
        assert sums(platform, endpoint, "endpoint") == whole
        days = sums(platform, endpoint, "day")
        for what in ("prompt", "completion", "requests"):
            assert sum(amount for (_, kind), amount in days.items() if kind == what) == whole[endpoint, what]


def judge_answers(served: Served, tries: list[Seen], kills: list[tuple[str, float]], record: Callable[..., None], count: int) -> None:
    """What clients saw, against the database and the request log."""
    platform, endpoints = served.platform, set(served.endpoints)
    rows: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows_of(platform, endpoints):
        rows[row.request].append(row)
    answered = [seen for seen in tries if seen.tokens is not None]
    kinds = collections.Counter((seen.kind, seen.status) for seen in tries)
    wrong = [seen for seen in answered if [(row.prompt, row.completion) for row in rows[seen.id] if row.id == seen.id] != [seen.tokens]]
    record(f"M1 answers 200 without their one record with their tokens ({count})", len(wrong), 0, note=f"of {len(answered)}; {wrong[:3]}")
    refused = [seen for seen in tries if seen.status in (401, 429) and rows[seen.id]]
    record(f"M1 refused requests that used something ({count})", len(refused), 0, note=f"{dict(kinds)}; {refused[:3]}")
    assert {("leaves", 200), ("bad", 400), ("fails", 500), ("stranger", 401), ("limited", 429), ("several answers", 200)} <= set(kinds)
    outcomes = collections.Counter(row.outcome for found in rows.values() for row in found)
    assert min(outcomes["finished"], outcomes["aborted"], outcomes["failed"]) > 0, outcomes

    newest = max(answered, key=lambda seen: seen.ended)
    until(lambda: newest.id in logged(platform, newest.endpoint), 60, every=1, what="the request log has the last answer")
    log = {endpoint: logged(platform, endpoint) for endpoint in endpoints}
    missing = [seen for seen in answered if not _is_logged(log[seen.endpoint].get(seen.id, []), seen)]
    lost_at = [at for victim, at in kills if victim in ("gateway", "haproxy")]
    never = [seen for seen in missing if not any(abs(seen.ended - at) < LOG_LOST_S for at in lost_at)]
    note = f"of {len(answered)}; {[(seen, log[seen.endpoint].get(seen.id)) for seen in never[:3]]}"
    record(f"M1 answers 200 without their one line in the request log ({count})", len(never), 0, note=note)
    note = f"within {LOG_LOST_S:g} s of {len(lost_at)} kills of the gateway or HAProxy"
    record(f"M1 lines of the request log lost on their way ({count})", len(missing), 20 * len(lost_at), unit="lines", note=note)


def _is_logged(lines: list[dict[str, Any]], seen: Seen) -> bool:
    """Once, with the right tokens."""
    return [(line["status"], line["tokens"]["prompt"], line["tokens"]["completion"]) for line in lines if line["tokens"]] == [
        (seen.status, *(seen.tokens or ()))
    ] and len(lines) == 1
