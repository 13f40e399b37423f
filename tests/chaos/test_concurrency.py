"""Many clients change the same few endpoints at once while the manager is killed: some order of their commands explains all answers."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from support import histories
from support.api import Api
from support.edges import until as came_true
from support.platforms import ROOT, until
from support.ports import free_port

NAMES = [f"name-{number}" for number in range(5)]
KINDS = ["create"] * 4 + ["update"] * 5 + ["pause"] * 3 + ["resume"] * 3 + ["delete"] * 2 + ["get"] * 3
HERE = "/manage/v2/endpoint/admin"


class Clients:
    """`count` clients that give `operations` commands in all; what each was told is in `history` by name."""

    def __init__(self, url: str, token: str, count: int, operations: int, seed: int) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=count)
        self._http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=90, limits=limits)
        self._count = count
        self._left = operations
        self._random = random.Random(seed)
        self._generations: dict[str, int] = {}
        self.history: dict[str, list[histories.Operation]] = collections.defaultdict(list)
        self.broken: list[str] = []
        self.replays = 0

    @property
    def given(self) -> int:
        return sum(map(len, self.history.values()))

    async def run(self) -> None:
        """Until all commands have been given."""
        async with self._http:
            await self._back()
            await asyncio.gather(*(self._one() for _ in range(self._count)))

    async def _one(self) -> None:
        while self._left > 0:
            self._left -= 1
            name, kind = self._random.choice(NAMES), self._random.choice(KINDS)
            await (self._create(name) if kind == "create" else self._command(name, kind))

    async def _command(self, name: str, kind: str) -> None:
        expected = self._generations.get(name) if kind in ("update", "delete") and self._random.random() < 0.5 else None
        row = histories.Operation(kind, time.monotonic(), 0.0, "unknown", uuid.uuid4().hex if kind == "update" else "", expected)
        method, path, body = {
            "update": ("PUT", "", {"description": row.description}),
            "delete": ("DELETE", "", None),
            "get": ("GET", "", None),
        }.get(kind, ("POST", f"/{kind}", None))
        headers = {} if expected is None else {"if-match": f'"{expected}"'}
        answer = await self._send(method, f"/{name}{path}", body, headers)
        self._note(name, row, answer)
        if answer is None:
            await self._back()

    async def _create(self, name: str) -> None:
        """The same request again until there is an answer: it may have been carried out before."""
        row = histories.Operation("create", time.monotonic(), 0.0, "unknown", uuid.uuid4().hex)
        scaling = {"minReplica": 0, "startAtZero": self._random.random() < 0.8}
        body = {"name": name, "description": row.description, "model": {"image": {"echo": {}}}, "compute": {"scaling": scaling}}
        key = {"idempotency-key": row.description}
        while (answer := await self._send("POST", "", body, key)) is None:
            await self._back()
        self._note(name, row, answer)
        if answer.status_code == 200 and self._random.random() < 0.7:
            await self._again(answer, body, key)

    async def _again(self, first: httpx.Response, body: dict, key: dict) -> None:
        """The same key gives the same answer for the same body, and a conflict for another one."""
        replayed, other = await asyncio.gather(
            self._send("POST", "", body, key), self._send("POST", "", {**body, "description": "another"}, key)
        )
        if replayed is not None:
            self.replays += 1
            if (replayed.status_code, replayed.json()) != (200, first.json()):
                self.broken.append(f"replayed otherwise: {replayed.status_code}")
        if other is not None and (other.status_code, other.json()["error_type"]) != (409, "idempotency_mismatch"):
            self.broken.append(f"another body with the same key: {other.status_code}")

    async def _send(self, method: str, path: str, body: dict | None, headers: dict) -> httpx.Response | None:
        """None when nobody knows what became of it."""
        try:
            answer = await self._http.request(method, HERE + path, json=body, headers=headers)
        except httpx.TransportError:
            return None
        if answer.status_code >= 500:
            if answer.status_code != 503 and answer.headers.get("x-error-code") not in ("unavailable", None):
                self.broken.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer

    async def _back(self) -> None:
        async def healthy() -> bool:
            try:
                return (await self._http.get("/manage/health")).status_code == 200
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                return False

        await came_true(healthy, 90)

    def _note(self, name: str, row: histories.Operation, answer: httpx.Response | None) -> None:
        row = dataclasses.replace(row, returned=time.monotonic())
        if answer is not None and answer.status_code == 200:
            told = answer.json()
            if row.kind != "delete":
                self._generations[name] = told["generation"]
                seen = histories.State(told["generation"], told["status"]["state"] == "paused", told["description"])
                row = dataclasses.replace(row, seen=seen)
            row = dataclasses.replace(row, outcome="ok")
        elif answer is not None:
            row = dataclasses.replace(row, outcome=answer.json()["error_type"])
        self.history[name].append(row)


async def nemesis(clients: Clients, operations: int, kills: int, kill: Callable[[], Awaitable[None]]) -> None:
    """Kills when so and so many commands have been given."""
    for number in range(1, kills + 1):
        await came_true(lambda number=number: clients.given >= number * operations // (kills + 1), 300)
        await kill()


def judge(clients: Clients, record, row: str) -> None:
    told = collections.Counter(f"{each.kind} {each.outcome}" for rows in clients.history.values() for each in rows)
    inexplicable = [name for name, rows in clients.history.items() if not histories.explained(rows)]
    note = f"{clients.given} commands, {sum(count for kind, count in told.items() if 'unknown' in kind)} without an answer"
    record(f"{row} names whose history no order explains", len(inexplicable), 0, unit="names", note=note)
    record(
        f"{row} broken promises to retries", len(clients.broken), 0, unit="answers", note=f"{clients.replays} replays {clients.broken[:3]}"
    )
    assert {"create ok", "update ok", "pause ok", "delete ok", "update stale_generation", "create already_exists"} <= set(told), told


@asynccontextmanager
async def served_api(home: Path) -> AsyncIterator[tuple[str, str, Callable[[], Awaitable[None]]]]:
    """(URL, key, what kills the process and starts another) of the management API on a SQLite file."""
    port, processes = free_port(), []

    def start() -> str:
        words = [sys.executable, str(ROOT / "tests/servers/management.py"), str(home), str(port)]
        processes.append(subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return processes[-1].stdout.readline().strip()

    async def kill() -> None:
        end()
        await asyncio.to_thread(start)

    def end() -> None:
        process = processes.pop()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    token = start()
    try:
        yield f"http://127.0.0.1:{port}", token, kill
    finally:
        end()


@pytest.mark.parametrize(
    ("operations", "kills"), [(300, 2), pytest.param(2000, 20, marks=[pytest.mark.full, pytest.mark.timeout(1200)])], ids=["short", "long"]
)
async def test_commands_on_a_killed_api_process_have_an_order(tmp_path, record, operations, kills):
    """G1, F7: the real API and its database in a process of their own, killed in the middle of what it does."""
    async with served_api(tmp_path) as (url, token, kill):
        clients = Clients(url, token, 50, operations, seed=operations)
        await asyncio.gather(clients.run(), nemesis(clients, operations, kills, kill))
    judge(clients, record, f"G1 ({operations} commands, API process, {kills} kills)")


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_commands_on_a_platform_whose_manager_is_killed_have_an_order_and_leave_no_orphan(new_platform, record):
    """G1, on a whole platform: what was deleted leaves no Serve application behind, and what stays is as was last told."""
    with new_platform() as platform:

        async def kill() -> None:
            await asyncio.to_thread(platform.kill, "ray::", "Manager")

        clients = Clients(platform.url, platform.token, 50, 2000, seed=1)
        await asyncio.gather(clients.run(), nemesis(clients, 2000, 5, kill))
        for item in platform.manage("GET", "").json()["items"]:
            platform.manage("DELETE", f"/{item['name']}")
        ray = {"authorization": f"Bearer {(platform.home / 'ray-token').read_text().strip()}"}
        address = f"http://127.0.0.1:{platform.environment['MOORAGE_DASHBOARD_PORT']}/api/serve/applications/"

        def orphans() -> set[str]:
            return set(httpx.get(address, headers=ray, timeout=10).json()["applications"]) - {"manager", "gateway"}

        began = time.monotonic()
        until(lambda: not orphans() and not [line for line in platform.processes().values() if "ServeReplica:admin--" in line], 120)
        record("G1 time until nothing was left of deleted endpoints", time.monotonic() - began, 60, unit="s")
    judge(clients, record, "G1 (2,000 commands, platform, 5 kills)")


class Commands(RuleBasedStateMachine):
    """Programs of commands on three names, beside a model of what they must do. `api` is set by the test."""

    api: Api

    names = st.sampled_from(["alpha", "beta", "gamma"])

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, dict] = {}

    @initialize()
    def nothing_yet(self) -> None:
        for item in self.api.call("GET", "").json()["items"]:
            assert self.api.call("DELETE", f"/{item['name']}").status_code == 200

    def told(self, answer, name: str, status: int, code: str = "") -> None:
        """The answer is what the model says."""
        assert answer.status_code == status, (answer.status_code, answer.text, self.rows.get(name))
        if code:
            assert answer.json()["error_type"] == code
        elif name in self.rows:
            assert answer.json()["generation"] == self.rows[name]["generation"]

    @rule(name=names, at_zero=st.booleans())
    def create(self, name, at_zero):
        scaling = {"minReplica": 0, "maxReplica": 2, "startAtZero": at_zero}
        answer = self.api.call("POST", "", {"name": name, "model": {"image": {"echo": {}}}, "compute": {"scaling": scaling}})
        if name in self.rows:
            self.told(answer, name, 409, "already_exists")
            return
        self.rows[name] = {"generation": 1, "state": "scaledToZero" if at_zero else "running", "description": "", "keys": {}}
        self.told(answer, name, 200)
        # Numbers of revisions go on where an earlier endpoint of the name left off.
        self.rows[name]["revision"] = answer.json()["status"]["targetRevision"]

    @rule(name=names, description=st.sampled_from(["", "a", "b"]), expected=st.sampled_from([None, 0, 1]))
    def describe(self, name, description, expected):
        row = self.rows.get(name)
        headers = {} if expected is None or row is None else {"if-match": str(row["generation"] + expected)}
        answer = self.api.call("PUT", f"/{name}", {"description": description}, headers=headers)
        if row is None:
            self.told(answer, name, 404, "not_found")
        elif expected:
            self.told(answer, name, 409, "stale_generation")
        else:
            row["generation"] += row["description"] != description
            row["description"] = description
            self.told(answer, name, 200)

    @rule(name=names, tag=st.sampled_from(["", "a", "b"]))
    @precondition(lambda self: self.rows)
    def change_the_engine(self, name, tag):
        row = self.rows.get(name)
        answer = self.api.call("PUT", f"/{name}", {"model": {"image": {"echo": {"tag": tag}}}})
        if row is None:
            self.told(answer, name, 404, "not_found")
            return
        if row.get("tag", "") != tag:
            row |= {"tag": tag, "generation": row["generation"] + 1, "revision": row["revision"] + 1}
        self.told(answer, name, 200)
        assert answer.json()["status"]["targetRevision"] == row["revision"]

    @rule(name=names, command=st.sampled_from(["pause", "resume", "scale-to-zero", "restart"]))
    def command(self, name, command):
        row, answer = self.rows.get(name), self.api.call("POST", f"/{name}/{command}")
        if row is None:
            self.told(answer, name, 404, "not_found")
        elif command == "resume" and row["state"] == "running":
            self.told(answer, name, 400, "already_running")
        elif command in ("scale-to-zero", "restart") and row["state"] == "paused":
            self.told(answer, name, 409, "conflict")
        else:
            state = {"pause": "paused", "scale-to-zero": "scaledToZero"}.get(command, "running")
            row["generation"] += command == "restart" or row["state"] != state
            # A pause remembers whether it slept, and a resume wakes it.
            row["state"] = state
            self.told(answer, name, 200)

    @rule(name=names, description=st.text(max_size=5).filter(lambda text: "\0" not in text))
    def add_a_key(self, name, description):
        answer = self.api.call("POST", f"/{name}/keys", {"description": description})
        if name not in self.rows:
            self.told(answer, name, 404, "not_found")
            return
        assert answer.status_code == 200, answer.text
        self.rows[name]["keys"][answer.json()["id"]] = "active"

    @rule(name=names, data=st.data())
    @precondition(lambda self: any(row["keys"] for row in self.rows.values()))
    def revoke_a_key(self, name, data):
        keys = sorted(key for row in self.rows.values() for key in row["keys"])
        key = data.draw(st.sampled_from(keys))
        answer = self.api.call("DELETE", f"/{name}/keys/{key}")
        if key in self.rows.get(name, {"keys": {}})["keys"]:
            assert answer.status_code == 200, answer.text
            self.rows[name]["keys"][key] = "revoked"
        else:
            self.told(answer, name, 404, "not_found")

    @rule(name=names)
    def delete(self, name):
        answer = self.api.call("DELETE", f"/{name}")
        assert answer.status_code == (200 if self.rows.pop(name, None) else 404), answer.text

    @rule(name=names)
    def plan(self, name):
        """A dry run changes nothing, which the invariant sees."""
        self.api.call("PUT", f"/{name}?dryRun=true", {"description": "never", "model": {"image": {"echo": {"tag": "never"}}}})

    @invariant()
    def what_is_listed_is_what_was_told(self):
        items = {item["name"]: item for item in self.api.call("GET", "").json()["items"]}
        assert set(items) == set(self.rows)
        for name, row in self.rows.items():
            item = items[name]
            assert (item["generation"], item["status"]["state"], item["description"]) == (
                row["generation"],
                row["state"],
                row["description"],
            )
            listed = {key["id"]: key["status"] for key in self.api.call("GET", f"/{name}/keys").json()["items"] if not key["first"]}
            assert listed == row["keys"]


@pytest.mark.parametrize("programs", [25, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])], ids=["short", "long"])
def test_programs_of_commands_do_what_a_simple_model_does(tmp_path, record, programs):
    """G2."""
    Commands.api = Api(tmp_path)
    options = settings(max_examples=programs, stateful_step_count=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    broken = ""
    try:
        run_state_machine_as_test(Commands, settings=options)
    except AssertionError as exc:
        broken = str(exc)[:2000]
    record(f"G2 invariants broken in {programs:,} programs", bool(broken), 0, unit="programs", note=broken)
