"""The store that models come from fails, while endpoints run and while they start."""

import contextlib
import time

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer
from servers.proxy import FaultProxy
from support.load import Load, bad
from support.platforms import until

SECRETS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


@pytest.fixture
def store(models):
    """The port of an object store that holds a tiny model at s3://models/llama."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="models")
    for path in models("llama").rglob("*"):
        if path.is_file():
            client.put_object(Bucket="models", Key=f"llama/{path.name}", Body=path.read_bytes(), ChecksumAlgorithm="SHA256")
    client.close()
    yield port
    server.stop()


@contextlib.contextmanager
def bystander(platform):
    """Requests to an endpoint that has nothing to do with the store."""
    platform.create("bystander", echo={"tokensPerSecond": 100})
    body = {"model": "bystander", "messages": [{"role": "user", "content": "one"}], "max_tokens": 5}
    try:
        with Load(f"{platform.url}/endpoints/admin/bystander/v1/chat/completions", platform.token, rate=5, body=body) as load:
            yield load
    finally:
        platform.delete("bystander")


def create(platform, name, url, repository="s3://models/llama"):
    model = {"repository": repository, "task": "text-generation", "image": {"vLLM": {}}, "secrets": {**SECRETS, "AWS_ENDPOINT_URL": url}}
    platform.create(name, model={**model, "settings": {"llm": {"maxModelLen": 512, "maxNumSeqs": 8}}}, wait=False)


@pytest.mark.full
def test_a_store_that_fails_fails_the_endpoints_that_need_it_alone(platform, store, record):
    """F13"""
    with FaultProxy(store) as down:
        pass
    with FaultProxy(store) as cutting, bystander(platform) as load:
        cutting.cuts = [20_000, 60_000]
        create(platform, "from-s3", cutting.url)
        create(platform, "no-store", down.url)
        create(platform, "no-prefix", cutting.url, "s3://models/nothing-here")
        reasons = {name: platform.wait(name, "failed", 180)["reason"] for name in ("no-store", "no-prefix")}
        platform.wait("from-s3", timeout=240)
        assert platform.chat("from-s3", max_tokens=1).status_code == 200
        cutting.__exit__(None, None, None)  # the store is away: what is in the cache has to do
        platform.kill("ServeReplica:admin--from-s3")
        killed = time.monotonic()
        until(lambda: platform.status("from-s3")["readyReplica"] == 0, 30, what="the loss is seen")  # its server may answer once more
        until(lambda: platform.chat("from-s3", max_tokens=1, timeout=240).status_code == 200, 240, what="an answer from the cache")
        recovered = time.monotonic() - killed
    for name in ("from-s3", "no-store", "no-prefix"):
        platform.delete(name)
    assert not cutting.cuts, "the downloads were cut"
    assert all(reasons.values()), reasons
    record(
        "F13 failed requests of other endpoints while a store fails", len(bad(load.answers)), 0, note=f"of {len(load.answers)}; {reasons}"
    )
    record("F13 time until a killed replica answers again, its store away", recovered, 180, unit="s")
