"""Servers of users' own and a diffusers pipeline as endpoints of a running platform, asked by stock clients through the edge."""

import base64
import concurrent.futures
import io
import sys
from pathlib import Path

import aiohttp
import httpx
import openai
import pytest
from huggingface_hub import HfApi, InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image, ImageChops
from support.containers import IMAGE
from support.platforms import running_platform, until

PROGRAM = str(Path(__file__).parent.parent / "servers" / "program.py")
OWN = {"image": {"command": {"healthRoute": "/ping", "maxConcurrency": 4}}, "command": [sys.executable, PROGRAM, "--port={port}"]}


@pytest.fixture(scope="module")
def engines(request, models):
    """A platform that allows commands, with the tiny pipeline among its models, and containers where this machine can run any."""
    try:
        settings = request.getfixturevalue("podman").settings
    except pytest.skip.Exception:
        settings = {}
    folder = models("diffusion").parent
    with running_platform(allow_commands=True, model_paths=folder, **settings) as platform:
        yield platform


@pytest.fixture(scope="module")
def pictures(engines, models):
    """A running endpoint of the tiny pipeline: its URL."""
    model = {"repository": str(models("diffusion")), "task": "text-to-image", "image": {"diffusers": {"maxBatch": 4}}}
    engines.create("tiny-pictures", model=model, wait=False)
    engines.wait("tiny-pictures", timeout=240)
    return f"{engines.url}/endpoints/admin/tiny-pictures"


def test_a_command_is_an_endpoint_with_routes_of_its_own_updates_and_zero(engines):
    engines.create("own-server", model=OWN | {"secrets": {"TOKEN": "hush-hush-hush"}}, scaling={"minReplica": 0, "maxReplica": 1})
    url = f"{engines.url}/endpoints/admin/own-server"
    with engines.client() as client:
        seen = client.put(f"{url}/own/route?a=1", content=b"hello").json()
        assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("PUT", "/own/route", "a=1", "hello")
        assert seen["headers"]["x-forwarded-prefix"] == "/endpoints/admin/own-server"
        assert "authorization" not in seen["headers"]
        assert client.post(f"{url}/predict", json={"x": 21}).json() == {"predicted": 42}
        assert client.get(f"{url}/health").status_code == 200
        assert client.get(f"{url}/told").json()["environment"]["TOKEN"] == "hush-hush-hush"
        assert client.get(f"{url}/stream?n=2").text == "data: 0\n\ndata: 1\n\n"
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"{url}/stream?n=2&broken=1")
    assert httpx.get(f"{url}/told").status_code == 401
    assert "hush-hush-hush" not in str(engines.get("own-server"))
    assert "program: started" in engines.command("endpoints", "logs", "own-server").stdout
    engines.manage("POST", "/own-server/scale-to-zero")
    engines.wait("own-server", "scaledToZero")
    with engines.client() as client:
        assert client.post(f"{url}/own/route", content=b"x" * 100_000).json()["method"] == "POST"  # held, and large
    bad = engines.manage("PUT", "/own-server", {"model": {"command": [sys.executable, "-c", "raise SystemExit('no such option')"]}})
    assert bad.status_code == 200
    status = engines.wait("own-server", "updateFailed")
    assert status["reason"] == "ProgramExited" and "no such option" in status["message"]
    with engines.client() as client:
        assert client.get(f"{url}/told").status_code == 200  # the revision before serves on
    engines.delete("own-server")


async def test_websockets_pass_through_the_edge(engines):
    engines.create("own-socket", model=OWN, scaling={"minReplica": 0, "maxReplica": 1})
    headers, url = {"authorization": f"Bearer {engines.token}"}, f"{engines.url}/endpoints/admin/own-socket"

    async def talk():
        async with aiohttp.ClientSession(headers=headers) as client, client.ws_connect(f"{url}/talk") as socket:
            await socket.send_str("hello")
            return [await socket.receive_str(), await socket.receive_str()]

    assert await talk() == ["/talk", "HELLO"]
    async with aiohttp.ClientSession(headers=headers) as client:
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
        async with client.get(f"{url}/moved", headers=handshake, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["location"]) == (307, "/talk")  # the client's to follow, or not
    engines.manage("POST", "/own-socket/scale-to-zero")
    engines.wait("own-socket", "scaledToZero")
    assert await talk() == ["/talk", "HELLO"]  # held, as any request is
    engines.delete("own-socket")


def test_a_container_is_made_by_hugging_faces_own_client_and_goes_with_its_endpoint(engines, podman, monkeypatch):
    monkeypatch.setattr(constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{engines.url}/manage/v2")
    api = HfApi(token=engines.token)
    made = api.create_inference_endpoint(
        "own-container",
        repository="",
        framework="custom",
        accelerator="cpu",
        instance_size="x1",
        instance_type="local-cpu",
        vendor="local",
        region="local",
        namespace="admin",
        env={"GREETING": "hello"},
        custom_image={"url": IMAGE, "port": 8080, "healthRoute": "/ready"},
        container_registry_username="reader",
        container_registry_password="hush-hush-hush",
        token=engines.token,
    )
    made.wait(timeout=120)
    assert "hush-hush-hush" not in str(made.fetch().raw) and "credentials" not in str(made.raw)
    told = httpx.get(f"{made.url}/cgi-bin/told", headers={"authorization": f"Bearer {engines.token}"}, timeout=60)
    assert "GREETING=hello" in told.text and "REGISTRY=\n" in told.text
    assert "loading" in str(engines.manage("GET", "/own-container/events").json())
    made.delete()
    until(lambda: not podman.names(), 60, what="the container gone")


def test_images_by_the_openai_client(engines, pictures):
    client = openai.OpenAI(base_url=f"{pictures}/v1", api_key=engines.token, max_retries=0, timeout=120)
    options = {"num_inference_steps": 2, "seed": 7}
    answer = client.images.generate(model="any", prompt="a cat", n=2, size="64x64", response_format="b64_json", extra_body=options)
    first, second = (Image.open(io.BytesIO(base64.b64decode(item.b64_json))) for item in answer.data)
    assert (first.format, first.size) == ("PNG", (64, 64)) and distance(first, second) > 8
    shared = openai.OpenAI(base_url=f"{engines.url}/v1", api_key=engines.token, max_retries=0, timeout=120)
    again = shared.images.generate(model="tiny-pictures", prompt="a cat", size="64x64", extra_body={"num_inference_steps": 2, "seed": 8})
    assert distance(second, Image.open(io.BytesIO(base64.b64decode(again.data[0].b64_json)))) <= 2  # alone as in a batch
    with pytest.raises(openai.BadRequestError, match="b64_json"):
        client.images.generate(model="any", prompt="a cat", response_format="url")
    with pytest.raises(openai.NotFoundError, match="no route"):
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "hello"}])
    assert "tiny-pictures" in {model.id for model in client.models.list()}


def test_images_by_hugging_faces_client(engines, pictures):
    client = InferenceClient(model=pictures, token=engines.token, timeout=120)
    image = client.text_to_image("a cat", height=64, width=72, num_inference_steps=2, guidance_scale=3.0, seed=7, negative_prompt="dogs")
    assert image.size == (72, 64)
    with pytest.raises(HfHubHTTPError, match="multiple of 8"):
        client.text_to_image("a cat", width=65)
    answer = engines.fetch(
        "/endpoints/admin/tiny-pictures/predict",
        "POST",
        {"prompt": "a cat", "size": "64x64", "num_inference_steps": 1, "scheduler": "EulerDiscreteScheduler"},
    )
    assert answer.json()["data"][0]["b64_json"]
    headers = {"authorization": f"Bearer {engines.token}", "accept": "image/jpeg"}
    answer = httpx.post(
        f"{pictures}/",
        json={"inputs": "a cat", "parameters": {"width": 64, "height": 64, "num_inference_steps": 1}},
        headers=headers,
        timeout=60,
    )
    assert answer.headers["content-type"] == "image/jpeg" and Image.open(io.BytesIO(answer.content)).format == "JPEG"


def test_many_requests_at_once_are_all_answered(engines, pictures):
    def one(number):
        body = {"prompt": f"cat {number}", "size": "64x64", "num_inference_steps": 2, "seed": number}
        return engines.fetch("/endpoints/admin/tiny-pictures/v1/images/generations", "POST", body).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(12))) == {200}


def test_commands_are_off_where_nobody_allowed_them(platform):
    answer = platform.manage("POST", "", {"name": "own-server", "model": OWN})
    assert answer.status_code == 400 and "MOORAGE_ALLOW_COMMANDS=1" in answer.json()["error"]


def distance(one, other):
    """The largest difference of a pixel."""
    return max(high for _, high in ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema())
