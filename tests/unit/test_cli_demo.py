"""The decisions of `make demo`: which model, which hardware, what to do with an endpoint that exists."""

import json
import subprocess

import httpx
import pytest

from cluster import doctor
from cluster.cli import client, demo, follow
from cluster.settings import Settings

CPU = {"accelerator": "cpu", "instanceType": "local-cpu", "instanceSize": "x1", "numAccelerators": 0, "status": "available"}
GPU = {"accelerator": "gpu", "instanceType": "nvidia-h200", "instanceSize": "x1", "numAccelerators": 1, "status": "available"}


class Server:
    """Answers for one endpoint and remembers what was asked to change."""

    def __init__(self, model=None, state="running"):
        self.endpoint = {"name": demo.NAME, "model": {"repository": model}, "status": {"state": state}} if model else None
        self.changes = []

    def __call__(self, request):
        route = (request.method, request.url.path.removeprefix("/manage/v2/endpoint/admin"))
        if request.url.path == "/manage/v2/provider/admin":
            return httpx.Response(200, json={"vendors": [{"regions": [{"computes": [CPU]}]}]})
        if request.method == "GET":
            return httpx.Response(200, json=self.endpoint) if self.endpoint else httpx.Response(404, json={"error": "No such endpoint."})
        self.changes.append((*route, json.loads(request.content) if request.content else None))
        self.endpoint = {"name": demo.NAME, "model": {"repository": "?"}, "status": {"state": "running"}}
        return httpx.Response(200, json=self.endpoint)


def ensure(server, repository="org/model"):
    with client.Client("http://x", "key", "admin", httpx.MockTransport(server)) as api:
        return demo.ensure_endpoint(api, repository)


def test_a_reachable_hub_gives_the_small_model(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "look_at_hub", lambda settings: httpx.Response(200))
    assert demo.choose_model(Settings(home=tmp_path)) == demo.SMALL_MODEL


def test_an_unreachable_hub_is_said_in_one_line_and_a_tiny_model_made_once(monkeypatch, tmp_path, capsys):
    made = []

    def build(command, **_):
        made.append(command[2:])
        folder = tmp_path / "models" / "demo-tiny"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(doctor, "look_at_hub", lambda settings: None)
    monkeypatch.setattr(demo.subprocess, "run", build)
    settings = Settings(home=tmp_path)
    assert demo.choose_model(settings) == demo.choose_model(settings) == str(tmp_path / "models" / "demo-tiny")
    assert made == [["deployments.tiny_models", "llama", str(tmp_path / "models" / "demo-tiny")]]
    assert "Hub is not reachable" in capsys.readouterr().err.splitlines()[0]


def test_a_tiny_model_that_cannot_be_made_ends_the_demo(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "look_at_hub", lambda settings: None)
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no disk left\n"))
    with pytest.raises(demo.DemoFailed, match="no disk left"):
        demo.choose_model(Settings(home=tmp_path))


def test_a_new_endpoint_is_created_with_the_model():
    server = Server()
    assert ensure(server)["status"]["state"] == "running"
    [(method, path, body)] = server.changes
    assert (method, path) == ("POST", "") and body["name"] == demo.NAME and body["model"]["repository"] == "org/model"


def test_a_running_endpoint_with_the_model_is_left_as_it_is():
    server = Server("org/model")
    ensure(server)
    assert server.changes == []


def test_another_model_is_an_update():
    server = Server("org/other")
    ensure(server)
    assert server.changes == [("PUT", f"/{demo.NAME}", {"model": {"repository": "org/model"}})]


@pytest.mark.parametrize("state", ["paused", "failed", "updateFailed", "scaledToZero"])
def test_an_endpoint_at_rest_is_resumed(state):
    server = Server("org/model", state)
    ensure(server)
    assert server.changes == [("POST", f"/{demo.NAME}/resume", None)]


def test_a_failing_endpoint_ends_the_demo(monkeypatch):
    class Broken(Server):
        def __call__(self, request):
            answer = super().__call__(request)
            if self.changes:
                self.endpoint["status"] = {"state": "failed", "message": "no such model"}
            return answer

    with pytest.raises(follow.EndpointFailed, match="no such model"):
        ensure(Broken())


def test_a_free_gpu_is_preferred_and_a_full_one_is_not():
    assert demo.compute_of([CPU, GPU])["instanceType"] == "nvidia-h200"
    assert "instanceType" not in demo.compute_of([CPU, GPU | {"status": "not_available"}])
    assert "instanceType" not in demo.compute_of([CPU, GPU | {"numAccelerators": 2, "instanceSize": "x2"}])
