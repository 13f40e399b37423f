"""A server of the user's own as a replica: a real process or container behind the real guard, the manager's in-memory twin."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import aiohttp
import pytest
from support import registry
from support.containers import IMAGE

from cluster import engine_kinds, spec
from cluster.messages import Bootstrap, ReplicaIdentity
from deployments import engines
from deployments.diagnosis import StartFailed
from deployments.manager_port import MemoryManager
from deployments.node import Node
from deployments.server_process import session_members
from deployments.supervisor import Supervisor
from deployments.timing import Timing

PROGRAM = str(Path(__file__).parent.parent / "servers" / "program.py")
SECRET, TOKEN = "edge-secret-of-the-test", "hush-this-is-secret"
REGISTRY = {"REGISTRY_USERNAME": registry.USER, "REGISTRY_PASSWORD": registry.PASSWORD}
TIMING = Timing(quiet=0.3, heartbeat=0.2, retry=0.1, farewell=1.0)


class Replicas:
    """Makes replicas of commands and containers, and ends them."""

    def __init__(self, home, models, **settings):
        self.manager = MemoryManager(Bootstrap(SECRET, {"TOKEN": TOKEN, **REGISTRY}))
        self.crashed = asyncio.Event()
        given = {"HOME": home, "MODEL_PATHS": models, **{name.upper(): value for name, value in settings.items()}}
        self.home = home
        self._node = Node.from_environment({**os.environ, **{f"MOORAGE_{name}": str(value) for name, value in given.items()}})
        self._ending = contextlib.AsyncExitStack()

    async def start(self, command=(sys.executable, PROGRAM), **model):
        fields = {"image": {"command": {"healthRoute": "/ping", "maxConcurrency": 5}}, "command": command, **model}
        typed = spec.Model.model_validate(fields)
        kind = engine_kinds.of(typed)
        replica = spec.ReplicaSpec(
            application="team--own--r1",
            namespace="team",
            endpoint="own",
            revision=1,
            engine=kind,
            model=typed.wire(),
            drain_timeout_s=10,
            load_timeout_s=60,
        )
        identity = ReplicaIdentity(replica.application, "replica-1")
        made = Supervisor(replica, identity, self.manager, self._node, engines.named(kind), on_crash=self.crashed.set, timing=TIMING)
        self._ending.push_async_callback(made.stop)
        await made.start()
        return made

    async def client(self, replica, **headers):
        headers = {"X-Engine-Secret": SECRET} | headers
        session = aiohttp.ClientSession("http://{}:{}".format(*replica.address), headers=headers)
        return await self._ending.enter_async_context(session)

    def log(self):
        return "\n".join(line.text for line in self.manager.lines)

    async def end(self):
        await self._ending.aclose()


@pytest.fixture
async def replicas(tmp_path):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "weights.gguf").write_bytes(b"GGUF")
    made = Replicas(tmp_path / "home", tmp_path / "models")
    yield made
    await made.end()


async def until(condition, within=10.0):
    async with asyncio.timeout(within):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


async def test_a_program_is_told_where_to_listen_and_finds_its_variables_and_its_model(replicas, tmp_path):
    words = (sys.executable, PROGRAM, "--port={port}", "{model}/weights.gguf")
    model = tmp_path / "models" / "mine"
    replica = await replicas.start(words, args=["last"], env={"GREETING": "hello"}, repository=str(model))
    assert replica.last.max_concurrency == 5 and replicas.manager.announcements[0].max_concurrency == 5
    client = await replicas.client(replica)
    async with client.get("/told") as answer:
        told = await answer.json()
    environment = told["environment"]
    assert told["words"] == [f"--port={environment['PORT']}", f"{model}/weights.gguf", "last"]
    assert (environment["GREETING"], environment["TOKEN"], environment["MODEL_PATH"]) == ("hello", TOKEN, str(model))
    assert environment["MOORAGE_ENGINE_SECRET"] is None
    for pid in session_members(replica.process.pid):
        assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
    await replica.stop()
    assert "program: started" in replicas.log() and TOKEN not in replicas.log()


async def test_only_the_edge_gets_in_and_everything_passes_as_it_is(replicas):
    replica = await replicas.start()
    stranger = await replicas.client(replica, **{"X-Engine-Secret": "wrong"})
    async with stranger.get("/told") as answer:
        assert answer.status == 403
    client = await replicas.client(replica)
    async with client.put("/own/route?a=1&b=%26", data=b"body", headers={"X-Moorage-Endpoint": "team/own", "X-Mine": "1"}) as answer:
        seen = await answer.json()
        assert answer.headers["x-own"] == "kept" and answer.headers.getall("server", []) == ["uvicorn"]
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("PUT", "/own/route", "a=1&b=%26", "body")
    assert seen["headers"]["x-forwarded-prefix"] == "/endpoints/team/own" and seen["headers"]["x-mine"] == "1"
    assert "x-engine-secret" not in seen["headers"]
    async with client.post("/", json={"inputs": "not ours to read"}) as answer:  # no dialect of ours in front of it
        assert "not ours to read" in (await answer.json())["body"]
    async with client.get("/nothing") as answer:
        assert (answer.status, await answer.text()) == (404, "Not Found")


async def test_every_request_to_a_program_is_recorded_reading_ones_too(replicas):
    client = await replicas.client(await replicas.start(), **{"X-Moorage-Tenant": "team"})
    for method in ("GET", "POST"):
        async with client.request(method, "/own/route?q=1", headers={"X-Request-Id": method}) as answer:
            await answer.read()
    async with client.get("/missing", headers={"X-Request-Id": "missing"}) as answer:
        await answer.read()
    async with asyncio.timeout(10):
        while len(replicas.manager.used) < 3:  # noqa: ASYNC110 - told by another process
            await asyncio.sleep(0.01)
    found = {record.id: record for _, record in replicas.manager.used}
    assert {name: (record.outcome, record.route) for name, record in found.items()} == {
        "GET": ("finished", "/own/route"),
        "POST": ("finished", "/own/route"),
        "missing": ("failed", "/missing"),
    }
    assert all(record.tenant == "team" and 0 < record.share_s <= record.total_s for record in found.values())


async def test_bodies_and_answers_stream_and_a_broken_answer_is_seen_to_be_broken(replicas):
    replica = await replicas.start()
    client = await replicas.client(replica)
    more = asyncio.Event()

    async def parts():
        yield b"x" * 10
        await more.wait()
        yield b"x" * 20

    async with client.post("/count", data=parts()) as answer:
        assert await answer.content.readline() == b"10\n"  # while the second part has not been sent
        more.set()
        assert await answer.content.readline() == b"20\n"
    async with client.get("/stream?n=3") as answer:
        assert answer.content_type == "text/event-stream"
        assert (await answer.read()).count(b"data:") == 3
    async with client.get("/stream?n=2&broken=1") as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    async with client.get("/stream?n=1000") as answer:
        await answer.content.readany()
        assert await replica.load() == 1

    async def is_cut():
        async with client.post("/settings", json={}) as answer:
            return (await answer.json())["cut"] == 1

    await until(is_cut)
    async with client.ws_connect("/talk") as socket:
        assert await socket.receive_str() == "/talk"
        await socket.send_str("hello")
        assert await socket.receive_str() == "HELLO"


async def test_health_follows_the_program_and_its_end_is_a_crash(replicas):
    replica = await replicas.start()
    client = await replicas.client(replica)

    async def health(wanted):
        async with client.get("/health") as answer:
            return answer.status == wanted

    assert await health(200)
    async with client.post("/settings", json={"healthy": False}):
        pass
    assert await health(503)
    members = session_members(replica.process.pid)
    assert len(members) >= 3  # lifeline, guard, program
    async with client.post("/settings", json={"exit": 0}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (502, "unavailable")
    await asyncio.wait_for(replicas.crashed.wait(), 10)
    assert replica.process.code == 1 and not session_members(replica.process.pid)
    failure = next(phase for phase in replicas.manager.phases if phase.name == "failed")
    assert failure.reason == "EngineCrashed" and "told to exit, says the program" in failure.message


async def test_stopping_lets_requests_finish_and_ends_the_program(replicas):
    replica = await replicas.start()
    client = await replicas.client(replica)
    async with client.get("/stream?n=20") as answer:
        await answer.content.readany()
        stopping = asyncio.create_task(replica.stop())
        assert (await answer.read()).endswith(b"data: 19\n\n")
    await stopping
    assert not session_members(replica.process.pid)


@pytest.mark.parametrize(
    ("command", "reason", "said"),
    [
        (("no-such-program",), "ProgramNotFound", "cannot start no-such-program"),
        ((sys.executable, "-c", "print('no settings here'); raise SystemExit(4)"), "ProgramExited", "code 4: .*no settings here"),
    ],
)
async def test_a_program_that_does_not_start_is_explained(replicas, command, reason, said):
    with pytest.raises(StartFailed, match=said) as failure:
        await replicas.start(command)
    assert failure.value.reason == reason


@pytest.fixture
async def containers(tmp_path, podman):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "weights.gguf").write_bytes(b"GGUF")
    made = Replicas(tmp_path / "home", tmp_path / "models", **podman.settings)
    yield made
    await made.end()


def custom(**fields):
    return {"command": (), "image": {"custom": {"url": IMAGE, "healthRoute": "/ready", **fields}}}


async def test_a_container_serves_with_its_variables_and_its_model_and_goes_with_its_replica(containers, podman, tmp_path):
    model = tmp_path / "models" / "mine"
    image = custom(env={"GREETING": "hello", "PATH": "/bin:/own"})
    replica = await containers.start(**image, args=["one", "two words"], repository=str(model))
    assert [phase.name for phase in containers.manager.phases][:4] == ["downloading", "starting", "loading", "smoke_test"]
    (name,) = podman.names()
    assert name.startswith("moorage-replica-1-")
    client = await containers.client(replica)
    async with client.post("/cgi-bin/told", data=b"the body") as answer:
        told = await answer.text()
    assert f"GREETING=hello TOKEN={TOKEN} PORT=" in told and "MODEL_PATH=/repository PATH=/bin:/own REGISTRY=\n" in told
    assert "weights.gguf\nread-only\nthe body" in told
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert TOKEN.encode() not in line.read_bytes()
    await replica.stop()
    assert podman.names() == [] and podman.commands() == []
    assert "with one two words, token" in containers.log() and TOKEN not in containers.log()


async def test_a_container_does_not_outlive_a_replica_that_is_killed_and_the_next_one_clears_what_is_left(containers, podman):
    replica = await containers.start(**custom())
    assert podman.commands()
    await replica.process.kill()  # what becomes of it when its supervisor dies
    assert podman.commands() == []
    await replica.stop()
    again = await containers.start(**custom())
    assert len(podman.names()) == 1 and podman.commands()
    await again.stop()


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [
        ({"args": ["fail"]}, "ProgramExited", "code 9: .*no settings in this container"),
        ({"url": "127.0.0.1:1/none:1"}, "RegistryUnreachable", "could not be pulled"),
        ({"url": "localhost/absent:1"}, "ImageNotFound", "localhost/absent:1"),
    ],
)
async def test_a_container_that_does_not_start_is_explained(containers, podman, fields, reason, said):
    with pytest.raises(StartFailed, match=said) as failure:
        await containers.start(**custom(**fields))
    assert failure.value.reason == reason
    assert podman.names() == []


@pytest.fixture
def private(podman, tmp_path, monkeypatch):
    """A private registry that replicas which are made later can reach."""
    with registry.private(tmp_path, podman) as made:
        for name, value in made.variables.items():
            monkeypatch.setenv(name, value)
        yield made


async def test_an_image_of_a_private_registry_is_pulled_with_the_endpoints_credentials_alone(private, containers):
    lines = set()

    async def look():
        while True:
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    lines.add(line.read_bytes())
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    replica = await containers.start(**custom(url=private.image))
    looking.cancel()
    assert any(b"pull" in line and private.image.encode() in line for line in lines)
    assert not any(registry.PASSWORD.encode() in line for line in lines)
    client = await containers.client(replica)
    async with client.get("/cgi-bin/told") as answer:
        assert "REGISTRY=\n" in await answer.text()
    assert registry.PASSWORD not in containers.log()
    await replica.stop()
    containers.manager.bootstrap = Bootstrap(SECRET, {**REGISTRY, "REGISTRY_PASSWORD": "another"})
    with pytest.raises(StartFailed) as failure:
        await containers.start(**custom(url=private.image.replace(":1", ":2")))
    assert failure.value.reason == "RegistryRefused"
    assert not list(containers.home.rglob("config.json"))  # the credentials go with the pull
