"""The text-to-image server without a pipeline: batches, dialects, refusals; and how the engine is launched and admitted."""

import asyncio
import base64
import contextlib
import io
import json
import threading

import httpx
import pytest
from PIL import Image

from cluster import admission, engine_kinds, errors, images, observation, publisher, spec
from cluster.settings import Settings
from deployments import engine, engines, text_to_image_server
from deployments.engine_stats import EngineStats
from deployments.image_batches import Batches, Picture, TooLarge
from deployments.image_requests import Invalid, Shape
from deployments.sources import listing

SMALL, LARGE = Shape(64, 64, 2), Shape(128, 64, 2)


class Painter:
    """Paints squares of the seed's grey; stops at a gate when it is closed."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure = None
        self.most = 100
        self.abandoned = None

    def check(self, shape, negative):
        if shape.scheduler:
            raise Invalid("`scheduler` must be one of those that this model can have: none", "scheduler")

    def paint(self, shape, pictures, abandoned):
        self.batches.append((shape, [picture.prompt for picture in pictures]))
        assert self.gate.wait(10)
        self.abandoned = abandoned()
        if len(pictures) > self.most:
            raise TooLarge
        if self.failure:
            raise self.failure
        return [Image.new("RGB", (shape.width or 64, shape.height or 64), (picture.seed % 256,) * 3) for picture in pictures]


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
async def batches(painter):
    made = Batches(painter, 3)
    running = asyncio.create_task(made.run())
    yield made
    painter.gate.set()
    running.cancel()


def ask(batches, *prompts, shape=SMALL):
    return asyncio.create_task(batches.make(shape, [Picture(prompt, None, 1) for prompt in prompts]))


async def started(painter, count):
    async with asyncio.timeout(5):
        while True:
            if len(painter.batches) >= count:
                return
            await asyncio.sleep(0.005)


async def test_what_waits_together_is_made_together_where_the_shape_is_the_same(batches, painter):
    painter.gate.clear()
    first = ask(batches, "first")
    await started(painter, 1)
    rest = [ask(batches, "a"), ask(batches, "big", shape=LARGE), ask(batches, "b", "c", "d"), ask(batches, "e")]
    await asyncio.sleep(0)
    assert batches.waiting() == 6
    painter.gate.set()
    await asyncio.gather(first, *rest)
    assert painter.batches == [(SMALL, ["first"]), (SMALL, ["a", "b", "c"]), (LARGE, ["big"]), (SMALL, ["d", "e"])]
    assert batches.waiting() == 0


async def test_a_request_whose_client_left_is_dropped_before_its_turn(batches, painter):
    painter.gate.clear()
    first = ask(batches, "first")
    await started(painter, 1)
    gone, stays = ask(batches, "gone"), ask(batches, "stays")
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()
    await asyncio.gather(gone, first, return_exceptions=True)
    painter.gate.set()
    await stays
    assert painter.batches == [(SMALL, ["first"]), (SMALL, ["stays"])]


async def test_what_nobody_waits_for_any_more_may_stop_early(batches, painter):
    painter.gate.clear()
    only = ask(batches, "only")
    await started(painter, 1)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    painter.gate.set()
    await ask(batches, "next")
    assert len(painter.batches) == 2 and painter.abandoned is False


async def test_a_batch_that_does_not_fit_is_made_one_by_one_and_a_failure_is_its_requests_own(batches, painter):
    painter.most = 1
    assert len(await ask(batches, "a", "b")) == 2
    assert [len(prompts) for _, prompts in painter.batches] == [2, 1, 1]
    painter.most = 0
    with pytest.raises(TooLarge):
        await ask(batches, "c")
    painter.most, painter.failure = 9, RuntimeError("inner words")
    with pytest.raises(RuntimeError):
        await ask(batches, "d")
    painter.failure = None
    assert len(await ask(batches, "e")) == 1


@contextlib.asynccontextmanager
async def serving(painter, stats=None, **settings):
    server = text_to_image_server.Server("pictures", images.DiffusersImage(**settings), stats or EngineStats())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app()), base_url="http://test") as client:
        assert (await client.get("/health")).status_code == 503
        assert (await client.post("/v1/images/generations", json={"prompt": "x"})).status_code == 503
        running = asyncio.create_task(server.paint(painter))
        await asyncio.sleep(0)
        assert (await client.get("/health")).status_code == 200
        yield client
        running.cancel()


def opened(content):
    return Image.open(io.BytesIO(content))


async def test_both_dialects_answer_with_the_image(painter):
    async with serving(painter) as client:
        answer = await client.post("/", json={"inputs": "a cat", "parameters": {"seed": 7, "width": 72}})
        assert answer.headers["content-type"] == "image/png"
        assert (opened(answer.content).format, opened(answer.content).size, opened(answer.content).getpixel((0, 0))[0]) == (
            "PNG",
            (72, 64),
            7,
        )
        answer = await client.post("/", json={"inputs": "a cat"}, headers={"accept": "image/webp"})
        assert answer.headers["content-type"] == "image/webp" and opened(answer.content).format == "WEBP"
        body = {"prompt": "a cat", "n": 2, "seed": 9, "size": "64x64", "output_format": "jpeg", "model": "any"}
        answer = await client.post("/v1/images/generations", json=body)
        images = [opened(base64.b64decode(item["b64_json"])) for item in answer.json()["data"]]
        assert [image.getpixel((0, 0))[0] for image in images] == [9, 10] and images[0].format == "JPEG"
        assert answer.json()["created"] > 0
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "pictures"
        assert (await client.get("/info")).json()["model_pipeline_tag"] == "text-to-image"


async def test_errors_are_told_in_the_dialect_of_the_route(painter):
    async with serving(painter, max_images=2) as client:
        for body, status, param in (({"prompt": "x", "n": 3}, 400, "n"), ({"prompt": "x", "scheduler": "Odd"}, 400, "scheduler")):
            answer = await client.post("/v1/images/generations", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"], error["code"]) == (status, param, "invalid_request")
        answer = await client.post("/", json={"inputs": "x", "parameters": {"width": 3}})
        assert (answer.status_code, answer.json()["error_type"]) == (422, "validation") and "width" in answer.json()["error"]
        painter.most = 0
        assert (await client.post("/v1/images/generations", json={"prompt": "x"})).status_code == 413
        assert (await client.post("/", json={"inputs": "x"})).json()["error_type"] == "validation"
        painter.most, painter.failure = 9, RuntimeError("inner words")
        answer = await client.post("/", json={"inputs": "x"})
        assert (answer.status_code, answer.json()["error_type"]) == (500, "generation") and "inner words" not in answer.text
        answer = await client.post("/v1/chat/completions", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_the_stats_tell_what_runs_and_what_waits(painter):
    stats = EngineStats()
    async with serving(painter, stats, max_batch=1, max_concurrency=5) as client:
        painter.gate.clear()
        asking = [asyncio.create_task(client.post("/", json={"inputs": "x"})) for _ in range(3)]
        await started(painter, 1)
        async with asyncio.timeout(5):
            while (stats.unfinished(), stats.waiting()) != (3, 2):  # noqa: ASYNC110 - three independent requests
                await asyncio.sleep(0.005)
        assert (stats.connected, stats.tasks, stats.max_concurrency) == (True, ("image",), 5)
        painter.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3
        assert stats.unfinished() == 0


def model(**fields):
    return spec.Model.model_validate({"repository": "org/model", **fields})


def test_the_task_or_the_variant_chooses_the_engine():
    assert engine_kinds.of(model(task="text-to-image")) == engine_kinds.of(model(image={"diffusers": {}})) == "text_to_image"
    assert engine_kinds.task(model(image={"diffusers": {}})) == "text-to-image"
    assert publisher.default_route("text-to-image") == "/v1/images/generations"
    for fields in ({"task": "text-to-video"}, {"image": {"diffusers": {}}, "task": "text-generation"}):
        with pytest.raises(errors.InvalidRequest) as refusal:
            engine_kinds.of(model(**fields))
        assert refusal.value.param == "model.task"


def test_several_gpus_for_one_replica_are_refused(tmp_path):
    cluster = observation.Cluster({}, (observation.Node("n", "127.0.0.1", 8.0, 8.0, 4, 4.0, "H200", 1 << 34),))
    compute = {"instanceType": "nvidia-h200", "instanceSize": "x2", "accelerator": "gpu"}
    wire = {"name": "mine", "model": {"repository": "org/model", "image": {"diffusers": {}}}, "compute": compute}
    with pytest.raises(errors.InvalidRequest, match="one GPU"):
        admission.admit(admission.read(wire), cluster, Settings(home=tmp_path))


def test_the_launch_has_the_settings_as_json(tmp_path):
    fields = {"repository": "org/model", "image": {"diffusers": {"maxBatch": 2}}}
    replica = spec.ReplicaSpec(application="a--b--r1", namespace="a", endpoint="b", revision=1, engine="text_to_image", model=fields)
    launch = engines.named("text_to_image").launch(replica, engine.Site("127.0.0.1", 4000, tmp_path, tmp_path, tmp_path))
    assert json.loads(launch.command[launch.command.index("--settings") + 1])["max_batch"] == 2
    assert launch.environment["HF_HUB_OFFLINE"] == launch.environment["OMP_NUM_THREADS"] == "1"
    flags = replica.model_copy(update={"model": {**fields, "args": ["--fast"]}})
    with pytest.raises(errors.InvalidRequest, match="no flags"):
        engines.named("text_to_image").launch(flags, engine.Site("127.0.0.1", 4000, tmp_path, tmp_path, tmp_path))


def test_of_a_pipeline_its_parts_are_brought_in_one_precision():
    names = ["model_index.json", "v1-5-pruned.safetensors", "scheduler/scheduler_config.json", "vae/config.json"]
    names += ["vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"]
    names += ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin"]
    chosen = {file.path for file in listing.choose([listing.File(name, 1) for name in names], listing.Rules())}
    assert chosen == {names[0], *names[2:5], names[6]}
