"""Sums of use equal the engine's own counters, whatever is told twice, late or out of order, and whoever is killed meanwhile."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import messages, records
from cluster.store import Store, open_store
from cluster.usage_records import Asked
from deployments import echo_protocol

ROOT = Path(__file__).parents[2]
MANAGER = """
import json, sys
from cluster import instance_types, ledger, messages, meter, plan, reading
from cluster.store import open_store

store = open_store(sys.argv[1])
counts = ledger.Ledger(store)
rows = lambda: reading.Reading({row.id: plan.Wanted(row, {}) for row in store.endpoints()}, {"e": tuple(store.keys())}, {})
endpoint_of = lambda application: store.endpoint_by_id("e-" + application.split("--")[1])
types = instance_types.parse("instanceTypes: [{name: local-cpu, pricePerHour: 3600}]")
counter = meter.Meter(store=store, ledger=counts, endpoint_of=endpoint_of, types=lambda: types, news=lambda: None)
blocked = {}
def tell():
    blocked.update(counts.changes(rows()))
    print(json.dumps(sorted(name for name, block in blocked.items() if block)), flush=True)
tell()
for line in sys.stdin:
    replica, batch = json.loads(line)
    counter.add(messages.ReplicaIdentity(replica.rsplit("#")[0], replica), [messages.Usage(**one) for one in batch])
    tell()
"""
KEYS = ("key-a", "key-b", "")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "again", "and", "again"]


@dataclasses.dataclass
class Engine:
    """A replica with the echo engine: counts for itself what it did, and tells the manager until it is believed."""

    replica: str
    chance: random.Random
    counted: collections.Counter[tuple[str, str]]
    untold: list[messages.Usage] = dataclasses.field(default_factory=list)
    told: list[messages.Usage] = dataclasses.field(default_factory=list)

    def serve(self, number: int) -> None:
        """One request: a chat, a completion or a picture; it may break off."""
        words = self.chance.choices(WORDS, k=self.chance.randint(1, 9))
        body = {"messages": [{"role": "user", "content": " ".join(words)}], "max_tokens": self.chance.randint(1, 30)}
        made = echo_protocol.chat(body, "echo").usage_body
        outcome = self.chance.choice(("finished", "finished", "finished", "aborted", "failed"))
        tokens = made["completion_tokens"] if outcome == "finished" else made["completion_tokens"] // 2
        key, at = self.chance.choice(KEYS), 1_772_625_600.0 + number * 37.0
        share = round(self.chance.random(), 3)
        self.untold.append(
            messages.Usage(
                f"{self.replica}-{number}",
                key=key,
                model="demo",
                outcome=outcome,  # type: ignore[arg-type]
                started_at=at - 1,
                ended_at=at,
                prompt_tokens=made["prompt_tokens"],
                completion_tokens=tokens,
                share_s=share,
            )
        )
        for name, amount in (
            (outcome, 1),
            ("prompt_tokens", made["prompt_tokens"]),
            ("completion_tokens", tokens),
            ("share_ms", share * 1000),
        ):
            self.counted[key, name] += round(amount)

    def batch(self) -> list[messages.Usage]:
        """What it tells next: what is new, in any order, and now and then what it has told before."""
        again = self.chance.sample(self.told, min(len(self.told), self.chance.randint(0, 5)))
        found = [*self.untold, *again]
        self.chance.shuffle(found)
        return found

    def believed(self) -> None:
        """The manager has answered."""
        self.told, self.untold = [*self.told, *self.untold], []


class Manager:
    """A manager's process on the database; may be killed at any moment, and is then started anew."""

    def __init__(self, url: str) -> None:
        self.url, self.kills = url, 0
        self.blocked: list[str] = []
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-c", MANAGER, self.url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.blocked = json.loads(self.process.stdout.readline())
        return self.process

    def tell(self, engine: Engine, batch: list[messages.Usage], *, kill_after_s: float | None = None) -> bool:
        """Whether it answered."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([engine.replica, [dataclasses.asdict(one) for one in batch]]) + "\n")
        self.process.stdin.flush()
        if kill_after_s is not None:
            try:
                self.process.wait(kill_after_s)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            self.kills += 1
            return False
        self.blocked = json.loads(self.process.stdout.readline())
        return True

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def shared(database_url: str) -> Iterator[Store]:
    """The database of all managers, as the test sees it."""
    store = open_store(database_url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def manager(shared: Store, database_url: str) -> Iterator[Manager]:
    found = Manager(database_url)
    yield found
    found.end()


def test_totals_equal_the_engines_counters_after_kills_and_repetitions(shared: Store, manager: Manager) -> None:
    store = shared
    for name in ("chat-one", "chat-two"):
        spec = {"name": name, "limits": {"budget": 0.000001, "budgetPeriod": "total"} if name == "chat-two" else {}}
        store.create_endpoint(records.Endpoint(f"e-{name}", "acme", name, spec, 0), {"compute": {"instanceType": "local-cpu"}}, None, {})
    chance = random.Random(7)
    counted: collections.Counter[tuple[str, str]] = collections.Counter()
    engines = [Engine(f"acme--{name}--r1#{number}", chance, counted) for name in ("chat-one", "chat-two") for number in range(3)]
    numbers = itertools.count()
    for step in range(40):
        engine = chance.choice(engines)
        for _ in range(chance.randint(1, 12)):
            engine.serve(next(numbers))
        if step == 20:
            store.delete_endpoint("e-chat-one")
        # Now and then, the manager dies somewhere between reading the batch and answering.
        if manager.tell(engine, engine.batch(), kill_after_s=chance.random() * 0.03 if step % 13 == 12 else None):
            engine.believed()
        else:
            manager.start()
    for engine in engines:
        assert manager.tell(engine, engine.batch())
        assert manager.tell(engine, engine.told + engine.untold)
    assert manager.kills == 3
    assert manager.blocked == ["e:acme/chat-two"]

    rows = store.used(Asked("0000", "9999", ("key",)))
    found = collections.Counter(
        {
            (row.group["key"], name): round(amount)
            for row in rows
            for name, amount in (
                *(("finished", row.finished), ("aborted", row.aborted), ("failed", row.failed)),
                *(("prompt_tokens", row.prompt_tokens), ("completion_tokens", row.completion_tokens), ("share_ms", row.share_s * 1000)),
            )
        }
    )
    assert found == counted
    assert sum(row.cost for row in rows) <= sum(row.share_s for row in rows)
    manager.end()
    manager.start()
    assert manager.blocked == ["e:acme/chat-two"]
