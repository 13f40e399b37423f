"""Models brought with named credentials, and the operator's own credentials kept from addresses that endpoints name."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.config import Config

from cluster import actor, credential_control, credential_lookup, credentials, lora, messages, spec, vault
from cluster.messages import Bootstrap, ReplicaIdentity
from cluster.store import MemoryStore
from deployments import engines, sources, survey
from deployments.manager_port import MemoryManager
from deployments.node import Node
from deployments.supervisor import Supervisor
from deployments.timing import Timing

PROGRAM = str(Path(__file__).parent.parent / "servers" / "program.py")
SECRET = "edge-secret-of-the-test"
ANN = actor.Actor("ann", "team", frozenset({"team"}))
TIMING = Timing(quiet=0.1, heartbeat=0.2, retry=0.1, farewell=1.0)
OPERATORS = {"HF_TOKEN": "hf_of-the-operator", "AWS_ACCESS_KEY_ID": "OPERATORSKEYID", "AWS_SECRET_ACCESS_KEY": "of-the-operator"}


class Listener:
    """Writes down every header that is sent to it. Answers 404, or a redirect to `location`."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.location = ""
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                listener.heard.append(f"{self.path} {self.headers}")
                self.send_response(302 if listener.location else 404)
                self.send_header("Content-Length", "0")
                if listener.location:
                    self.send_header("Location", listener.location)
                self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process as a node whose operator has credentials of their own."""
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path / "home"))
    for name, value in OPERATORS.items():
        monkeypatch.setenv(name, value)


def overheard(listener: Listener) -> str:
    assert listener.heard, "nothing was asked there"
    return "".join(listener.heard)


# The operator's credentials


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("where", ["env", "secrets"])
@pytest.mark.usefixtures("node")
def test_the_operators_keys_are_not_sent_to_a_store_that_an_endpoint_names(listener: Listener, name: str, where: str) -> None:
    given = {where: {name: listener.url}}
    facts = survey.survey({"repository": "s3://bucket/model", "env": given.get("env", {})}, given.get("secrets", {}))
    assert facts.problem and "OPERATORSKEYID" not in overheard(listener)


@pytest.mark.parametrize("where", ["env", "secrets"])
@pytest.mark.usefixtures("node")
def test_the_operators_token_is_not_sent_to_a_hub_that_an_endpoint_names(listener: Listener, where: str) -> None:
    given = {where: {"HF_ENDPOINT": listener.url}}
    facts = survey.survey({"repository": "org/model", "env": given.get("env", {})}, given.get("secrets", {}))
    assert facts.problem and "hf_of-the-operator" not in overheard(listener)
    survey.survey({"repository": "org/model"}, {"HF_ENDPOINT": listener.url, "HF_TOKEN": "hf_of-the-endpoint"})
    assert "hf_of-the-endpoint" in overheard(listener)


@pytest.mark.usefixtures("node")
def test_the_operators_token_is_sent_where_the_operator_says(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_HF_ENDPOINT", listener.url)
    survey.survey({"repository": "org/model"}, {})
    assert "hf_of-the-operator" in overheard(listener)


@pytest.mark.parametrize("address", ["http://169.254.169.254", "file:///etc", "http://user:pass@hub", "http://[fe80::1]"])
@pytest.mark.usefixtures("node")
def test_no_hub_lies_where_a_machines_own_metadata_do(address: str) -> None:
    assert survey.survey({"repository": "org/model"}, {"HF_ENDPOINT": address}).problem == "AccessDenied"


@pytest.mark.usefixtures("node")
def test_a_named_hub_does_not_lead_to_a_machines_metadata_by_a_redirect(listener: Listener) -> None:
    listener.location = "http://169.254.169.254/latest/meta-data/"
    facts = survey.survey({"repository": "org/model"}, {"HF_ENDPOINT": listener.url})
    assert facts.problem == "AccessDenied" and "HF_ENDPOINT" in facts.message


# Integrations


class Team:
    """A namespace with integrations, and replicas that the manager's own look-up gives their credentials to."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.store = MemoryStore()
        sealed = vault.Vault(b"0" * 32)
        self.kept = credential_control.CredentialControl(store=self.store, vault=sealed)
        self.lookup = credential_lookup.CredentialLookup(self.store, sealed)
        self.folder = folder
        self.node = Node.from_environment({**settings, "MOORAGE_HOME": str(folder), "PATH": "/usr/bin:/bin"})
        self.ending = contextlib.AsyncExitStack()

    def integrate(self, name: str, kind: Any, **values: str) -> None:
        self.kept.add_integration(ANN, "team", credential_control.NewIntegration(name=name, kind=kind, values=values))

    def rotate(self, name: str, **values: str | None) -> None:
        self.kept.edit_integration(ANN, "team", name, credential_control.EditedIntegration(values=values))

    async def start(self, **model: Any) -> Supervisor:
        """A replica whose program shows its variables. Registers as the manager answers now."""
        typed = spec.Model.model_validate({"image": {"command": {"healthRoute": "/ping"}}, "command": [sys.executable, PROGRAM], **model})
        fields = {"application": "team--own--r1", "namespace": "team", "endpoint": "own", "revision": 1, "engine": "command"}
        replica = spec.ReplicaSpec(**fields, model=typed.wire(), drain_timeout_s=5, load_timeout_s=60)
        named, integrations = self.lookup.of_replica("team", replica.model)
        self.manager = MemoryManager(Bootstrap(SECRET, named, credentials=integrations))
        made = Supervisor(
            replica,
            ReplicaIdentity(replica.application, f"replica-{len(typed.repository)}"),
            self.manager,
            self.node,
            engines.named("command"),
            on_crash=lambda: None,
            timing=TIMING,
        )
        self.ending.push_async_callback(made.stop)
        await made.start()
        return made

    async def told(self, replica: Supervisor) -> dict[str, Any]:
        assert replica.address is not None
        url = "http://{}:{}/told".format(*replica.address)
        async with aiohttp.ClientSession(headers={"X-Engine-Secret": SECRET}) as session, session.get(url) as answer:
            found: dict[str, Any] = (await answer.json())["environment"]
            return found


@pytest.fixture
async def team(tmp_path: Path) -> Any:
    made = Team(tmp_path / "home")
    yield made
    await made.ending.aclose()


async def test_a_model_is_brought_with_an_integration_and_a_rotated_token_is_used_by_the_next_start_alone(
    team: Team, hub_server: Any, model_files: Any
) -> None:
    hub_server.add("private/one", model_files(), private=True, tokens=("hf_first",))
    hub_server.add("private/other", model_files(seed=2), private=True, tokens=("hf_second",))
    team.integrate("hub", "huggingface", token="hf_first", endpoint=hub_server.url)
    running = await team.start(repository="private/one", integration="hub")
    assert (await team.told(running))["HF_TOKEN"] == "hf_first", "a program may bring more by itself"
    pid = running.process.pid if running.process else 0
    team.rotate("hub", token="hf_second", endpoint=hub_server.url)
    fresh = await team.start(repository="private/other", integration="hub")
    assert (await team.told(fresh))["HF_TOKEN"] == "hf_second"
    assert running.process is not None and running.process.pid == pid and not running.process.exited.is_set()
    assert (await team.told(running))["HF_TOKEN"] == "hf_first"
    assert {token for _, path, token in hub_server.seen if "private/other" in path and "cdn" not in path} == {"hf_second"}
    logged = str(team.manager.lines) + str(team.manager.phases)
    assert "hf_first" not in logged and "hf_second" not in logged


async def test_a_model_is_brought_from_the_store_of_an_integration(team: Team, s3_server: str) -> None:
    style = Config(s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_server, config=style, **keys)
    client.create_bucket(Bucket="integrated")
    client.put_object(Bucket="integrated", Key="model/weights.gguf", Body=b"GGUF")
    team.integrate("store", "s3", accessKeyId="testing", secretAccessKey="testing", region="us-east-1", endpointUrl=s3_server)
    replica = await team.start(repository="s3://integrated/model", integration=["store"])
    folder = Path((await team.told(replica))["MODEL_PATH"])
    assert (folder / "weights.gguf").read_bytes() == b"GGUF"


async def test_secrets_by_reference_are_variables_of_the_program(team: Team) -> None:
    team.kept.add_secret(ANN, "team", credential_control.NewSecret(name="greeting", value="hello-from-a-secret"))
    replica = await team.start(secretRefs={"GREETING": "greeting"})
    assert (await team.told(replica))["GREETING"] == "hello-from-a-secret"


async def test_an_adapter_is_brought_with_its_own_integration_as_it_is_when_it_is_brought(hub_server: Any, tmp_path: Path) -> None:
    adapter = {lora.CONFIG: b'{"peft_type": "LORA", "r": 8}', lora.WEIGHTS: (2).to_bytes(8, "little") + b"{}"}
    hub_server.add("private/style", adapter, private=True, tokens=("hf_right",))
    wanted = messages.Adapter("style", "private/style", integration=("hub",))
    models = {"huggingface": {"HF_TOKEN": "hf_models"}}
    manager = MemoryManager(Bootstrap(SECRET, adapters=messages.Adapters((wanted,)), credentials=models))
    manager.kept["hub"] = {"huggingface": {"HF_TOKEN": "hf_right"}}
    model = {"image": {"echo": {}}, "settings": {"llm": {"enableLora": True, "maxLoraRank": 32}}}
    fields = {"application": "team--chat--r1", "namespace": "team", "endpoint": "chat", "revision": 1, "engine": "echo"}
    replica = spec.ReplicaSpec(**fields, model=model, drain_timeout_s=5)
    node = Node.from_environment({"MOORAGE_HOME": str(tmp_path), "MOORAGE_HF_ENDPOINT": hub_server.url, "PATH": "/usr/bin:/bin"})
    made = Supervisor(
        replica, ReplicaIdentity("team--chat--r1", "r1"), manager, node, engines.named("echo"), on_crash=lambda: None, timing=TIMING
    )
    try:
        await made.start()
        states = manager.announcements[-1].adapters
        assert [(state.adapter.name, state.state) for state in states] == [("style", "ready")], states
    finally:
        await made.stop()
    assert {token for _, path, token in hub_server.seen if "private/style" in path and "cdn" not in path} == {"hf_right"}


async def test_a_named_hub_and_the_operators_keep_copies_apart(hub_server: Any, model_files: Any, tmp_path: Path) -> None:
    hub_server.add("tiny/llama", model_files())

    async def fetch(environment: dict[str, str], hub: str) -> Path:
        return await sources.fetch(
            {"repository": "tiny/llama"}, cache=tmp_path, allowed=(), environment=environment, hub_endpoint=hub, progress=lambda *_: None
        )

    named = await fetch({"HF_ENDPOINT": hub_server.url}, "http://127.0.0.1:9")
    operators = await fetch({}, hub_server.url.replace("127.0.0.1", "localhost"))
    assert named != operators and (named / "config.json").exists()


def test_what_an_integration_hides_is_every_secret_of_it() -> None:
    found = {kind: credentials.variables(kind, {name: f"value of {name}" for name in fields}) for kind, fields in credentials.KINDS.items()}
    hidden = credentials.hidden(found)
    assert {"value of token", "value of secretAccessKey", "value of sessionToken", "value of password"} <= set(hidden)
    assert "value of region" not in hidden
