"""How usage records reach the manager: at once, again and again while it is away, and those of the dead too."""

import asyncio
import contextlib
import json
import os

import pytest

from cluster import errors
from cluster.messages import Bootstrap, ReplicaIdentity
from deployments import usage, usage_open, usage_shipping, usage_spool
from deployments.manager_port import MemoryManager
from deployments.usage_shipping import Shipping

IDENTITY = ReplicaIdentity("team--echo--r1", "replica-1")
DEAD = ReplicaIdentity("team--other--r2", "replica-0")


def line(name, key="k"):
    return b'{"id":"%s","key":"%s"}' % (name.encode(), key.encode())


async def until(condition, within=5.0):
    async with asyncio.timeout(within):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


class Manager(MemoryManager):
    """The twin, which can also refuse, or be slow."""

    def __init__(self):
        super().__init__(Bootstrap("secret"))
        self.refusal = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.sends = []

    async def usage(self, identity, records):
        await self.go_on.wait()
        if self.refusal is not None:
            raise self.refusal
        unlimited = await super().usage(identity, records)
        self.sends.append([record.id for record in records])
        return unlimited

    def told(self, identity=IDENTITY):
        return [record.id for who, record in self.used if who == identity]


@pytest.fixture
def manager():
    return Manager()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "usage"


@pytest.fixture
async def shipping(manager, home):
    said = []
    made = Shipping(manager, IDENTITY, home, said.append, retry_s=0.01, adopt_s=0.02)
    made.said = said
    tasks = []
    made.spawn = lambda *coroutines: tasks.extend(map(asyncio.ensure_future, coroutines))
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    made.close()


@pytest.fixture
async def writer(shipping):
    made = usage_spool.Writer(shipping.open())
    shipping.spawn(shipping.run())
    yield made
    with contextlib.suppress(OSError):
        made.close()


async def test_a_record_is_told_within_a_tenth_of_a_second(manager, writer):
    await asyncio.sleep(0)
    writer.add(line("a"), "k")
    await until(lambda: manager.told() == ["a"], within=0.5)


async def test_what_comes_during_a_send_goes_with_the_next(manager, writer):
    manager.go_on.clear()
    writer.add(line("a"), "k")
    await until(lambda: not manager.told() and manager.go_on._waiters)
    for name in "bcd":
        writer.add(line(name), "k")
    manager.go_on.set()
    await until(lambda: manager.sends == [["a"], ["b", "c", "d"]])


async def gathering(manager, home, shipping, seconds):
    """A writer whose records go to `shipping`'s like, which gathers so long those of `k`, and has told one."""
    manager.unlimited = {"k"}
    shipping._gather_s = seconds
    writer = usage_spool.Writer(shipping.open())
    shipping.spawn(shipping.run())
    writer.add(line("a"), "k")
    await until(lambda: shipping._unlimited == {"k"})
    return writer


async def test_records_that_count_against_no_limit_are_gathered(manager, home, shipping):
    writer = await gathering(manager, home, shipping, 0.05)
    for name in "bcd":
        writer.add(line(name), "k")
    await until(lambda: manager.sends == [["a"], ["b", "c", "d"]], within=0.5)


async def test_one_that_may_count_is_told_at_once_with_those_that_were_gathered(manager, home, shipping, monkeypatch):
    monkeypatch.setattr(usage_shipping, "LOOK_S", 3600)
    writer = await gathering(manager, home, shipping, 3600)
    writer.add(line("b"), "k")
    await until(lambda: shipping._gathered)
    assert manager.told() == ["a"]
    writer.add(line("c", "other"), "other")
    await until(lambda: manager.sends == [["a"], ["b", "c"]])
    writer.add(line("d", "other"), "other")
    await until(lambda: manager.sends == [["a"], ["b", "c"], ["d"]])
    manager.unlimited.clear()  # a limit is set
    writer.add(line("e"), "k")
    writer.add(line("f", "other"), "other")
    await until(lambda: manager.told()[4:] == ["e", "f"])
    await until(lambda: not shipping._unlimited)
    writer.add(line("g"), "k")
    await until(lambda: manager.told()[6:] == ["g"])


async def test_what_is_gathered_is_told_before_the_replica_ends(manager, home, shipping):
    writer = await gathering(manager, home, shipping, 3600)
    writer.add(line("b"), "k")
    await until(lambda: shipping._gathered)
    await shipping.flush(1.0)
    assert manager.told() == ["a", "b"]
    writer.close()


async def test_a_bell_that_was_not_heard_for_long_is_answered_at_once(manager, home, shipping, monkeypatch):
    monkeypatch.setattr(usage_shipping, "LOOK_S", 3600)
    writer = await gathering(manager, home, shipping, 3600)
    for _ in range(usage_spool.RING_BYTES // 2):  # until nothing more fits
        with contextlib.suppress(BlockingIOError):
            os.write(shipping._bell, b"k\n")
    writer.add(line("b", "other"), "other")
    await until(lambda: manager.told() == ["a", "b"])
    writer.close()


async def test_records_wait_for_a_manager_that_is_away_and_are_told_once_when_it_is_back(manager, writer):
    manager.reachable = False
    for name in "abc":
        writer.add(line(name), "k")
    await asyncio.sleep(0.05)
    manager.reachable = True
    await until(lambda: manager.told() == ["a", "b", "c"])


async def test_records_that_the_manager_cannot_store_now_are_told_again(manager, writer):
    manager.refusal = errors.Unavailable()
    writer.add(line("a"), "k")
    await asyncio.sleep(0.03)
    manager.refusal = None
    await until(lambda: manager.told() == ["a"])


async def test_records_that_the_manager_will_never_take_do_not_hold_up_others(manager, shipping, writer):
    manager.refusal = errors.NotFound()
    writer.add(line("a"), "k")
    await until(lambda: shipping.said)
    manager.refusal = None
    writer.add(line("b"), "k")
    await until(lambda: manager.told() == ["b"])
    assert "refuses 1 usage records" in shipping.said[0]


async def test_what_a_dead_replica_left_is_told_in_its_name_and_deleted(manager, home, shipping):
    left = usage_spool.create(home, DEAD)
    writer = usage_spool.Writer(left.folder)
    for name in "ab":
        writer.add(line(name), "k")
    left.acknowledge(left.next())  # these are told already
    writer.add(line("c"), "k")
    writer.add(b'{"id":"half', "k")
    (next(left.folder.glob("*.jsonl"))).write_bytes(next(left.folder.glob("*.jsonl")).read_bytes()[:-1])
    shipping.spawn(shipping.adopt())
    await asyncio.sleep(0.05)
    assert manager.told(DEAD) == [], "its server and supervisor still live"
    left.close()
    writer.close()
    await until(lambda: not left.folder.exists())
    assert manager.told(DEAD) == ["c"]


def opened(folder, name):
    """An account that is open in a server whose spool that is."""
    account = usage.Meter(usage_spool.Nowhere(), table=usage_open.Table(folder)).open("/", [(b"x-request-id", name.encode())])
    account.status, account.prompt_tokens = 200, 7
    return account


async def test_what_a_dead_server_had_open_is_told_too(manager, home, shipping):
    left = usage_spool.create(home, DEAD)
    opened(left.folder, "a")
    left.close()
    shipping.spawn(shipping.adopt())
    await until(lambda: not left.folder.exists())
    assert [(record.id, record.outcome, record.prompt_tokens) for _, record in manager.used] == [("a", "failed", 7)]


async def test_flush_tells_what_the_server_that_ended_had_open(manager, home, shipping):
    folder = shipping.open()
    opened(folder, "a")
    manager.reachable = False
    await shipping.flush(0.01)
    manager.reachable = True
    await shipping.flush(1.0)
    shipping.close()
    assert manager.told() == ["a"]
    assert list(home.iterdir()) == []


async def test_what_cannot_be_salvaged_now_is_tried_again(manager, home, shipping, monkeypatch):
    left = usage_spool.create(home, DEAD)
    opened(left.folder, "a")
    left.close()
    full = [True]
    salvage = usage_spool.Reader.salvage

    def on_a_full_disk(reader):
        if full:
            raise OSError("full")
        salvage(reader)

    monkeypatch.setattr(usage_spool.Reader, "salvage", on_a_full_disk)
    shipping.spawn(shipping.adopt())
    await until(lambda: shipping.said)
    full.clear()
    await until(lambda: not left.folder.exists())
    assert manager.told(DEAD) == ["a"]


async def test_a_folder_without_a_name_is_removed(home, shipping):
    (home / "half-made").mkdir(parents=True)
    shipping.spawn(shipping.adopt())
    await until(lambda: not (home / "half-made").exists())


async def test_what_cannot_be_read_stays_and_holds_up_no_others(manager, home, shipping):
    dead = [usage_spool.create(home, ReplicaIdentity("team--other--r2", name)) for name in ("a", "b")]
    for left in dead:
        writer = usage_spool.Writer(left.folder)
        writer.add(line("x"), "k")
        writer.close()
        left.close()
    segment = dead[0].folder / "00000000.jsonl"
    kept = segment.rename(home.parent / "kept")
    segment.mkdir()
    shipping.spawn(shipping.adopt())
    await until(lambda: not dead[1].folder.exists())
    await until(lambda: shipping.said)
    assert "cannot be read" in shipping.said[0]
    segment.rmdir()
    kept.rename(segment)
    await until(lambda: not dead[0].folder.exists())
    assert [who.id for who, _ in manager.used] == ["b", "a"]


async def test_a_replica_ends_though_its_own_records_cannot_be_read(home, shipping):
    folder = shipping.open()
    (folder / "00000000.jsonl").mkdir()
    await shipping.flush(1.0)
    shipping.close()
    assert folder.exists()


async def test_what_a_replica_of_a_newer_version_left_is_told_too(manager, home, shipping):
    left = usage_spool.create(home, DEAD)
    writer = usage_spool.Writer(left.folder)
    writer.add(line("a"), "k")
    writer.close()
    file = left.folder / "replica.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "news": 1}))
    left.close()
    shipping.spawn(shipping.adopt())
    await until(lambda: not left.folder.exists())
    assert manager.told(DEAD) == ["a"]


async def test_flush_delivers_what_is_there_and_close_deletes_it(manager, home, shipping):
    writer = usage_spool.Writer(shipping.open())
    writer.add(line("a"), "k")
    await shipping.flush(1.0)
    assert manager.told() == ["a"]
    writer.close()
    shipping.close()
    assert list(home.iterdir()) == []


async def test_flush_ends_at_its_limit_and_what_is_left_is_adopted_by_another(manager, home, shipping):
    writer = usage_spool.Writer(shipping.open())
    writer.add(line("a"), "k")
    writer.close()
    manager.reachable = False
    await shipping.flush(0.05)
    shipping.close()
    manager.reachable = True
    other = Shipping(manager, ReplicaIdentity("other", "replica-2"), home, lambda _: None, adopt_s=0.02)
    adopting = asyncio.ensure_future(other.adopt())
    await until(lambda: list(home.iterdir()) == [])
    assert manager.told() == ["a"]
    adopting.cancel()


async def test_a_replica_without_a_place_for_its_records_says_so_and_serves(manager, tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    shipping = Shipping(manager, IDENTITY, tmp_path / "file" / "usage", said.append)
    assert shipping.open() is None
    assert "usage is not recorded" in said[0]
    await shipping.flush(1.0)
    shipping.close()
