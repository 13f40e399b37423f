"""The management API behind a real socket, driven by the stock huggingface_hub client with one constant assigned.

States are scripted: what the client does with each of them is what is looked at. The whole platform's life with the same
client is in test_platform_clients.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import uvicorn
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    InferenceEndpointError,
    InferenceEndpointTimeoutError,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from support.management import Management

from cluster import state

FIELDS = {
    "repository": "none/needed",
    "framework": "pytorch",
    "task": "text-generation",
    "accelerator": "cpu",
    "instance_size": "x1",
    "instance_type": "local-cpu",
    "vendor": "local",
    "region": "local",
    "type": "authenticated",
    "namespace": "admin",
    "custom_image": {"echo": {}},
}


@contextlib.contextmanager
def served(management, listener):
    """`management` under /manage as the edge shows it, with healthy endpoints beside it."""
    health = Route("/endpoints/{namespace}/{name}/health", lambda request: PlainTextResponse("ok"))
    whole = Starlette(routes=[health, Mount("/manage", management.app)])
    server = uvicorn.Server(uvicorn.Config(whole, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def management(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Management(tmp_path, public_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        with served(made, listener):
            yield made


@pytest.fixture
def hub(management, monkeypatch):
    monkeypatch.setattr(constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{management.public_url}/manage/v2")
    # An endpoint that comes back from the client knows this token, or the one given with each call, not HfApi's.
    monkeypatch.setenv("HF_TOKEN", management.token)
    return HfApi(token=management.token)


def create(hub, name="stock-one", **fields):
    return hub.create_inference_endpoint(name, **{**FIELDS, **fields})


def test_a_whole_life(hub, management):
    endpoint = create(hub, min_replica=0, max_replica=2, scale_to_zero_timeout=15, tags=["a"], env={"A": "b"}, secrets={"HF_TOKEN": "x"})
    assert (endpoint.name, endpoint.namespace, endpoint.status, endpoint.repository) == ("stock-one", "admin", "running", "none/needed")
    assert endpoint.url == f"{management.public_url}/endpoints/admin/stock-one"
    assert endpoint.wait(timeout=5).status == "running"
    assert hub.get_inference_endpoint("stock-one", namespace="admin").raw == {
        name: value for name, value in endpoint.raw.items() if name not in ("apiKey", "warnings")
    }
    endpoint.update(min_replica=1, max_replica=3, scale_to_zero_timeout=20)
    assert endpoint.raw["compute"]["scaling"] == {"minReplica": 1, "maxReplica": 3, "scaleToZeroTimeout": 20.0}
    endpoint.update(repository="another/one", task="text-generation", revision="main")
    assert (endpoint.repository, endpoint.revision, endpoint.raw["status"]["targetRevision"]) == ("another/one", "main", 2)
    endpoint.pause()
    assert (endpoint.status, endpoint.url) == ("paused", None)
    assert endpoint.resume().status == "running"
    assert endpoint.resume(running_ok=True).status == "running"
    with pytest.raises(BadRequestError, match="already running"):
        endpoint.resume(running_ok=False)
    assert endpoint.scale_to_zero().status == "scaledToZero"
    assert endpoint.url
    assert [found.name for found in hub.list_inference_endpoints(namespace="admin")] == ["stock-one"]
    endpoint.delete()
    assert hub.list_inference_endpoints(namespace="admin") == []


def test_wait_follows_the_states_until_it_runs(hub, management):
    management.states["stock-one"] = [state.Status(word) for word in ("pending", "initializing", "initializing", "updating", "running")]
    endpoint = create(hub)
    assert endpoint.status == "pending"
    assert endpoint.wait(timeout=10, refresh_every=0.05).status == "running"


@pytest.mark.parametrize(("word", "said"), [("failed", "failed to deploy"), ("updateFailed", "failed to update")])
def test_wait_ends_with_the_failure(hub, management, word, said):
    management.states["stock-one"] = [state.Status("initializing"), state.Status(word, "DiskFull", "No room.")]
    with pytest.raises(InferenceEndpointError, match=said):
        create(hub).wait(timeout=10, refresh_every=0.05)


def test_wait_gives_up_on_an_endpoint_that_stays_paused(hub):
    endpoint = create(hub).pause()
    with pytest.raises(InferenceEndpointTimeoutError):
        endpoint.wait(timeout=0.3, refresh_every=0.1)


def test_parallel_sizes_are_set_through_the_image_that_is_shown(hub):
    vllm = {"vLLM": {"url": "vllm/vllm-openai", "port": 8000, "healthRoute": "/health"}}
    gpu = {"accelerator": "gpu", "instance_type": "nvidia-h200", "instance_size": "x2"}
    endpoint = create(hub, custom_image=vllm, **gpu)
    endpoint.update(tensor_parallel_size=2)
    assert endpoint.raw["model"]["image"]["vLLM"] == {**vllm["vLLM"], "tensorParallelSize": 2}


def test_refusals_arrive_with_their_sentence(hub):
    with pytest.raises(BadRequestError, match="There is no instance type 'nvidia-h9000'") as refusal:
        create(hub, accelerator="gpu", instance_type="nvidia-h9000")
    assert refusal.value.server_message
    assert refusal.value.request_id
    create(hub)
    with pytest.raises(HfHubHTTPError, match="already") as refusal:
        create(hub)
    assert refusal.value.response.status_code == 409
    with pytest.raises(HfHubHTTPError) as refusal:
        hub.get_inference_endpoint("nothing", namespace="admin")
    assert refusal.value.response.status_code == 404
    with pytest.raises(HfHubHTTPError) as refusal:
        HfApi(token="hf_wrong").list_inference_endpoints(namespace="admin")
    assert refusal.value.response.status_code == 401


def test_hardware_is_listed(hub):
    rows = {row.id: row for row in hub.list_inference_endpoints_hardware(namespace="admin")}
    assert (rows["local-cpu-x4"].vendor, rows["local-cpu-x4"].num_accelerators) == ("local", 4)
    assert (rows["nvidia-h200-x2"].status, rows["nvidia-h200-x2"].max_accelerators) == ("low_availability", 2)


def test_the_namespace_comes_from_whoami_when_it_is_left_out(management):
    """HF_ENDPOINT is read when huggingface_hub is imported, hence a process of its own."""
    management.store.add_namespace("team")
    code = """
import json, os, sys
from huggingface_hub import HfApi, constants
constants.INFERENCE_ENDPOINTS_ENDPOINT = os.environ["HF_ENDPOINT"] + "/v2"
api = HfApi()
fields = json.loads(sys.argv[1])
made = api.create_inference_endpoint("mine-here", **fields)
api.create_inference_endpoint("theirs-here", **fields, namespace="team")
print(json.dumps([made.namespace, sorted(found.name for found in api.list_inference_endpoints(namespace="*"))]))
"""
    environment = os.environ | {"HF_ENDPOINT": f"{management.public_url}/manage", "HF_TOKEN": management.token}
    fields = json.dumps({name: value for name, value in FIELDS.items() if name != "namespace"})
    done = subprocess.run([sys.executable, "-c", code, fields], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["admin", ["mine-here", "theirs-here"]]
