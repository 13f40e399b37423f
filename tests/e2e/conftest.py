"""Real vLLM on the CPU, with models of random weights made on the spot: the chat model comes from a Hub, the embedder from a bucket."""

import contextlib

import boto3
import pytest
from moto.server import ThreadedMotoServer
from servers.hub import HubServer
from support.adapters import lora_shapes, write_adapter
from support.platforms import running_platform
from support.vllm import CHAT_ARGS, LORA_SETTINGS, create

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def files(folder):
    """path -> content of everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def vllm_platform(models):
    """A platform whose Hub is a local one that has `tiny/llama` and an adapter of it, `tiny/style`. Models may lie where the Llama does."""
    folder = models("llama").parent
    with HubServer() as hub, running_platform(hf_endpoint=hub.url, model_paths=str(folder), media_hosts="localhost") as platform:
        hub.add("tiny/llama", files(models("llama")))
        hub.add("tiny/style", files(write_adapter(folder / "style", shapes=lora_shapes(hidden=128, layers=(0, 1)), seed=1)))
        yield platform


@pytest.fixture(scope="session")
def chat_endpoint(vllm_platform):
    """A running text-generation endpoint on real vLLM that takes adapters, from the Hub: (platform, name)."""
    create(vllm_platform, "tiny-chat", repository="tiny/llama", task="text-generation", args=CHAT_ARGS, llm=LORA_SETTINGS)
    return vllm_platform, "tiny-chat"


@pytest.fixture(scope="session")
def served(vllm_platform, models):
    """`with served(kind, task) as (platform, name)`: an endpoint of that tiny model for a while."""

    @contextlib.contextmanager
    def serve(kind, task, **model):
        name = f"tiny-{kind}"
        create(vllm_platform, name, repository=str(models(kind)), task=task, **model)
        yield vllm_platform, name
        vllm_platform.delete(name)

    return serve


@pytest.fixture(scope="module")
def embedder(vllm_platform, models):
    """A running embedding endpoint on real vLLM, from an object store: (platform, name)."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    store = boto3.client("s3", endpoint_url=address, aws_access_key_id="id", aws_secret_access_key="secret", region_name="us-east-1")
    store.create_bucket(Bucket="models")
    for path, content in files(models("embedder")).items():
        store.put_object(Bucket="models", Key=f"tiny/embedder/{path}", Body=content)
    repository, secrets = "s3://models/tiny/embedder", KEYS | {"AWS_ENDPOINT_URL": address}
    create(vllm_platform, "tiny-embed", repository=repository, secrets=secrets, task="feature-extraction")
    yield vllm_platform, "tiny-embed"
    vllm_platform.delete("tiny-embed")
    server.stop()
