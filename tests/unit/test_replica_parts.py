"""The supervisor's small parts: log, reporter, node, smoke requests."""

import asyncio
import os
import socket

import pytest

from cluster.messages import Bootstrap, ReplicaIdentity
from deployments import engines
from deployments.manager_port import MemoryManager
from deployments.node import Node, reserve_port
from deployments.reporter import Reporter, sentence
from deployments.server_log import PENDING_LINES, ServerLog
from deployments.start_phases import StartPhases

IDENTITY = ReplicaIdentity("a--b--r1", "r1")


class Shipped:
    def __init__(self):
        self.lines = []

    async def __call__(self, lines):
        self.lines.extend(lines)


async def test_secrets_are_struck_out_of_lines_and_tail():
    shipped = Shipped()
    log = ServerLog(shipped, ["hf_secret_value", "hf_secret_value_longer", "abc"])
    log.add(b"token=hf_secret_value_longer and hf_secret_value and abc\n")
    await log.flush()
    assert shipped.lines[0].text == "token=[secret] and [secret] and abc"
    assert log.tail() == ["token=[secret] and [secret] and abc"]


async def test_level_is_read_from_the_line_and_kept_for_its_continuation():
    shipped = Shipped()
    log = ServerLog(shipped, clock=lambda: 5.0)
    for line in (
        b"INFO 11-22 fine",
        b"(EngineCore pid=7) WARNING 11-22 hm",
        b"  more of it",
        b"Traceback (most recent call last):",
        b"plain",
    ):
        log.add(line)
    await log.flush()
    assert [line.level for line in shipped.lines] == ["info", "warning", "warning", "error", "info"]
    assert {line.at for line in shipped.lines} == {5.0}


async def test_lines_that_come_faster_than_they_are_shipped_are_dropped_and_counted():
    shipped = Shipped()
    log = ServerLog(shipped)
    for number in range(PENDING_LINES + 7):
        log.add(f"line {number}".encode())
    await log.flush()
    assert shipped.lines[0].text.startswith("[7 lines were dropped")
    assert shipped.lines[1].text == "line 7"
    assert len(shipped.lines) == PENDING_LINES + 1


async def test_phases_wait_for_the_manager_in_order_and_progress_is_coalesced(monkeypatch):
    monkeypatch.setattr("deployments.reporter.RETRY_S", 0.01)
    manager = MemoryManager(Bootstrap("secret"))
    manager.reachable = False
    reporter = Reporter(manager, IDENTITY, clock=lambda: 1.0)
    running = asyncio.create_task(reporter.run())
    for done in range(50):
        reporter.tell("downloading", data={"bytes": done})
        await asyncio.sleep(0)
    reporter.tell("loading")
    manager.reachable = True
    await reporter.flush(5)
    running.cancel()
    assert [phase.name for phase in manager.phases] == ["downloading", "downloading", "loading"]
    assert manager.phases[1].data == {"bytes": 49}


async def test_flush_gives_up_on_a_manager_that_stays_away():
    manager = MemoryManager(Bootstrap("secret"))
    manager.reachable = False
    reporter = Reporter(manager, IDENTITY)
    running = asyncio.create_task(reporter.run())
    reporter.tell("failed", reason="X")
    await reporter.flush(0.05)
    running.cancel()
    assert manager.phases == []


def test_node_is_read_from_the_environment(tmp_path):
    node = Node.from_environment(
        {"MOORAGE_HOME": str(tmp_path), "MOORAGE_MODEL_PATHS": "/a:/b", "MOORAGE_MODEL_STORE": "/store", "MOORAGE_NODE_ADDRESS": "10.0.0.7"}
    )
    assert (node.home, node.address) == (tmp_path, "10.0.0.7")
    assert [str(path) for path in node.model_paths] == ["/a", "/b", "/store"]


def test_server_inherits_what_programs_need_and_none_of_the_platforms_secrets():
    platform = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "MOORAGE_DATABASE_URL": "x"}
    inherited = Node.from_environment({**platform, "RAY_ADDRESS": "x", "MY_PASSWORD": "x", "PYTHONPATH": "/lib"}).server_environment()
    assert {"PATH", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTHONUNBUFFERED"} == set(inherited)
    assert inherited["PYTHONPATH"].endswith(os.pathsep + "/lib")


def test_only_source_credentials_of_the_operator_go_to_model_sources():
    node = Node.from_environment({"HF_TOKEN": "h", "AWS_REGION": "r", "MOORAGE_HOME": "/x", "PATH": "/bin"})
    assert node.source_environment({}) == {"HF_TOKEN": "h", "AWS_REGION": "r"}


def test_reserved_port_can_be_listened_on_by_a_server_but_is_given_to_nobody_else():
    with reserve_port("127.0.0.1") as held:
        address = held.getsockname()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            server.listen()
            socket.create_connection(address, timeout=5).close()


def test_folder_of_a_replica_is_private_and_the_ones_of_dead_replicas_are_swept(tmp_path):
    node = Node(tmp_path)
    (tmp_path / "replicas" / "dead").mkdir(parents=True)
    with node.replica_folder("one/../two") as folder:
        assert folder.parent == tmp_path / "replicas"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not (tmp_path / "replicas" / "dead").exists()
        with node.replica_folder("one/../two") as again:
            assert again != folder
            assert folder.exists()
    assert not folder.exists()


def test_a_start_is_divided_by_what_the_server_writes():
    told, now = [], [0.0]
    phases = StartPhases(engines.named("llm").milestones, told.append, clock=lambda: now[0])
    phases.begin("starting")
    for seconds, line in [
        (1.0, "banner"),
        (4.0, "INFO Starting to load model /m..."),
        (6.0, "INFO Loading weights took 1.9 seconds"),
        (6.5, "INFO Dynamo bytecode transform time: 3.0 s"),
        (9.0, "INFO torch.compile took 3.50 s in total"),
        (9.5, "INFO a line that nobody knows"),
    ]:
        now[0] = seconds
        phases.line(line)
    now[0] = 10.0
    phases.begin("smoke_test")
    now[0] = 10.25
    assert told == ["starting", "importing", "loading", "warming", "compiling", "warming", "smoke_test"]
    assert phases.seconds() == {"starting": 1, "importing": 3, "loading": 2, "warming": 1.5, "compiling": 2.5, "smoke_test": 0.25}


def test_the_ready_sentence_says_where_the_time_went():
    assert sentence("ready", {"seconds": 3.21, "importing": 2.0, "starting": 0.01, "smoke_test": 0.2}) == (
        "The replica is ready after 3.2 s: imports 2.0 s, first answer 0.2 s."
    )
    assert sentence("ready", {"seconds": 3.21}) == "The replica is ready after 3.2 s."


OPERATORS = {"HF_TOKEN": "h", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "http://mine", "AWS_REGION": "r"}


@pytest.mark.parametrize(
    ("own", "left"),
    [
        ({}, set(OPERATORS)),
        ({"GREETING": "x"}, set(OPERATORS)),
        ({"HF_TOKEN": "own"}, set(OPERATORS) - {"HF_TOKEN"}),
        ({"HF_ENDPOINT": "http://other"}, set(OPERATORS) - {"HF_TOKEN"}),
        ({"HF_ENDPOINT": ""}, set(OPERATORS) - {"HF_TOKEN"}),
        ({"AWS_ENDPOINT_URL": "http://other"}, {"HF_TOKEN"}),
        ({"AWS_ENDPOINT_URL": ""}, {"HF_TOKEN"}),
        ({"AWS_ENDPOINT_URL_S3": "http://other"}, {"HF_TOKEN"}),
        ({"AWS_ACCESS_KEY_ID": "own"}, {"HF_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"}),
    ],
)
def test_the_operators_credentials_go_only_where_the_operator_says(own, left):
    found = Node.from_environment({**OPERATORS, "PATH": "/bin"}).source_environment(own)
    assert found == {name: OPERATORS[name] for name in left} | own
