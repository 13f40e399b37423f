"""Looking at models where they lie, without bringing them: a Hub on loopback, moto's S3, a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from support.model_configs import LLAMA_3_8B

from cluster import model_tasks
from cluster.model_facts import Facts
from deployments import survey

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def safetensors(header_padding: int = 0, **tensors: tuple[str, list[int], int]) -> bytes:
    """A safetensors file: name -> (type, shape, bytes of one number)."""
    header: dict[str, Any] = {"__metadata__": {"note": "x" * header_padding}}
    size = 0
    for name, (kind, shape, width) in tensors.items():
        count = width
        for side in shape:
            count *= side
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [size, size + count]}
        size += count
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


WEIGHTS = safetensors(a=("BF16", [1000, 500], 2), b=("F32", [7], 4))
FILES = {
    "config.json": json.dumps(LLAMA_3_8B).encode(),
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": safetensors(300_000, c=("BF16", [1000, 500], 2)),
    "model.bin": b"not brought where there are safetensors",
    "tokenizer.json": b"{}",
    "config/deployment_config.json": b'{"shape": ["local-cpu"]}',
}
TENSORS = {"BF16": 1_000_000, "F32": 7}


def check(facts: Facts) -> None:
    assert (facts.config["hidden_size"], facts.tensors, facts.problem) == (4096, TENSORS, "")
    assert facts.weight_bytes == sum(len(content) for name, content in FILES.items() if name.endswith(".safetensors"))
    assert facts.deployment_config == {"shape": ["local-cpu"]}
    assert model_tasks.infer(facts) == "text-generation"


def test_a_repository_of_the_hub_is_looked_at_without_its_weights(hub_server: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.setenv("MOORAGE_HF_ENDPOINT", hub_server.url)
    big = FILES | {"model-00001-of-00002.safetensors": WEIGHTS + bytes(0)}
    repository = hub_server.add("meta/llama", big, task="text-generation")
    facts = survey.survey({"repository": "meta/llama"}, {})
    check(facts)
    assert (facts.version, facts.task) == (repository.refs["main"], "text-generation")
    assert sum(hub_server.sent.values()) < 900_000, "headers and small files alone, of 2 MB"
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_an_embedding_model_and_a_pickled_one_are_told(hub_server: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.setenv("MOORAGE_HF_ENDPOINT", hub_server.url)
    hub_server.add("org/embedder", FILES | {"modules.json": b"[]", "1_Pooling/config.json": b"{}"})
    assert model_tasks.infer(survey.survey({"repository": "org/embedder"}, {})) == "feature-extraction"
    hub_server.add("org/pickled", {"config.json": b'{"architectures": ["BertModel"]}', "pytorch_model.bin": b"x" * 100})
    facts = survey.survey({"repository": "org/pickled"}, {})
    assert (facts.problem, facts.weight_bytes, facts.tensors) == ("PickleRefused", 100, {})


@pytest.mark.parametrize(
    ("model", "secrets", "problem"),
    [
        ({"repository": "org/none"}, {}, "RepositoryNotFound"),
        ({"repository": "org/gated"}, {}, "GatedRepository"),
        ({"repository": "org/gated"}, {"HF_TOKEN": "hf_right"}, ""),
        ({"repository": "org/gated", "revision": "v9"}, {"HF_TOKEN": "hf_right"}, "RevisionNotFound"),
        ({"repository": "/etc"}, {}, "PathNotAllowed"),
    ],
)
def test_what_cannot_be_read_is_told_and_no_error(
    hub_server: Any, monkeypatch: Any, tmp_path: Path, model: Any, secrets: Any, problem: str
) -> None:
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.setenv("MOORAGE_HF_ENDPOINT", hub_server.url)
    hub_server.add("org/gated", FILES, gated=True, tokens=("hf_right",))
    facts = survey.survey(model, secrets)
    assert (facts.problem, bool(facts.config)) == (problem, not problem)
    assert str(tmp_path) not in facts.message


def test_objects_of_a_bucket_are_looked_at_without_the_weights(s3_server: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="surveyed")
    for name, content in FILES.items():
        client.put_object(Bucket="surveyed", Key=f"llama/{name}", Body=content)
    check(survey.survey({"repository": "s3://surveyed/llama", "env": {"AWS_ENDPOINT_URL": s3_server}}, KEYS))


def test_a_folder_is_looked_at_in_place(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOORAGE_MODEL_PATHS", str(tmp_path / "models"))
    for name, content in FILES.items():
        path = tmp_path / "models" / "llama" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    check(survey.survey({"repository": str(tmp_path / "models" / "llama")}, {}))
