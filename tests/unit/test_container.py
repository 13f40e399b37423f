"""The engine `container`: command lines, credentials, refusals. Nothing is run."""

import argparse
import json
import os
from pathlib import Path

import pytest

from cluster import admission, engine_kinds, errors, observation, publisher, spec
from cluster.control import split_secrets
from cluster.settings import Settings
from deployments import container_runtime, container_server, diagnosis, engine, engines, server_environment
from deployments.container_runtime import Container, Runtime
from deployments.node import Node

PODMAN, DOCKER = Runtime(("podman",)), Runtime(("/usr/bin/docker",))
CREDENTIALS = {"username": "reader", "password": "hush-hush"}


def wire(**custom):
    return {"name": "mine", "model": {"repository": "", "image": {"custom": {"url": "ghcr.io/org/image:1", **custom}}}}


def read(**custom):
    return admission.read(wire(**custom))


def replica(gpus=0, **custom):
    model = read(**custom).model.wire()
    placement = spec.Placement(gpus=gpus)
    return spec.ReplicaSpec(
        application="a--b--r1", namespace="a", endpoint="b", revision=1, engine="container", model=model, placement=placement
    )


def container(tmp_path, **fields):
    return Container("moorage-r", "ghcr.io/org/image:1", tmp_path / "replicas" / "r", 4000, 80, **fields)


def after(words, flag):
    return [words[position + 1] for position, word in enumerate(words) if word == flag]


def test_credentials_become_secrets_that_are_never_shown():
    made = read(credentials=CREDENTIALS)
    assert made.model.secrets == {"REGISTRY_USERNAME": "reader", "REGISTRY_PASSWORD": "hush-hush"}
    stored, hidden = split_secrets(made)
    assert "hush-hush" not in json.dumps(stored) and "credentials" not in json.dumps(stored)
    assert hidden["REGISTRY_PASSWORD"] == "hush-hush"
    assert admission.read(stored).model.secrets == {"REGISTRY_USERNAME": "", "REGISTRY_PASSWORD": ""}


@pytest.mark.parametrize("given", [{"username": ""}, {"username": 7}, {"name": "x"}, "reader:hush-hush", {**CREDENTIALS, "more": 1}])
def test_credentials_that_are_none_are_refused_without_repeating_them(given):
    with pytest.raises(errors.InvalidRequest, match="username") as refusal:
        read(credentials=given)
    assert "hush" not in refusal.value.message


@pytest.mark.parametrize("url", ["", "https://ghcr.io/x", "-v/:/host", "image name", "a/b@sha256:12", "$(x)"])
def test_an_image_is_named_as_for_docker_pull(url):
    with pytest.raises(errors.InvalidRequest, match="url"):
        read(url=url)


def test_the_spelling_of_older_examples_is_understood():
    assert read(health_route="/ready").model.image.custom.health_route == "/ready"


def test_a_container_needs_no_model_and_has_routes_of_its_own(tmp_path):
    cluster = observation.Cluster({}, (observation.Node("n", "127.0.0.1", 8.0, 8.0, 0, 0.0, "", 1 << 34),))
    assert admission.admit(read(), cluster, Settings(home=tmp_path)).placement.cpus == 1
    assert "custom" in engine_kinds.PROGRAM_VARIANTS and publisher.engine_kinds is engine_kinds
    with pytest.raises(errors.InvalidRequest, match="MOORAGE_ALLOW_CONTAINERS=1"):
        admission.admit(read(), cluster, Settings(home=tmp_path, allow_containers=False))
    with pytest.raises(errors.InvalidRequest, match="PORT"):
        admission.admit(read(env={"PORT": "1"}), cluster, Settings(home=tmp_path))


def test_the_launch_tells_the_image_and_leaves_secrets_in_the_environment(tmp_path):
    made = replica(1, port=8080, command=["/run", "fast"], args=["--x"], env={"A": "1"}, maxConcurrency=3)
    launch = engines.named("container").launch(made, engine.Site("127.0.0.1", 4000, Path("/models/m"), tmp_path, tmp_path))
    words = list(launch.command)
    assert after(words, "--image") == ["ghcr.io/org/image:1"] and after(words, "--container-port") == ["8080"]
    assert "--gpus" in words and "--entrypoint=/run" in words and words[words.index("--") + 1 :] == ["fast", "--x"]
    node = Node(home=tmp_path, environment={"MOORAGE_CONTAINER_RUNTIME": "podman --root /x", "MOORAGE_HOME": "/h"})
    environment = server_environment.made(node, made, launch, {"REGISTRY_PASSWORD": "hush-hush"})
    assert environment["MOORAGE_PROGRAM_A"] == "1" and environment["MOORAGE_CONTAINER_RUNTIME"] == "podman --root /x"
    given = argparse.Namespace(gpus=True, image="i", container_port=80, model="", entrypoint="", words=[])
    program = container_server.Container(given, {**environment, "CUDA_VISIBLE_DEVICES": "2,3"}, tmp_path)
    inside = program._container("i", 5000)
    assert inside.environment == {"A": "1"} and inside.devices == ("2", "3")


def test_a_container_is_published_on_loopback_named_and_labelled(tmp_path):
    words, variables = container_runtime.run(
        PODMAN, container(tmp_path, environment={"TOKEN": "s3cret-value"}, entrypoint="/run", words=("a",))
    )
    assert words[:2] == ("podman", "run") and after(words, "--name") == ["moorage-r"]
    assert after(words, "--publish") == ["127.0.0.1:4000:80"]
    assert f"moorage.replicas={tmp_path}/replicas" in after(words, "--label")
    assert after(words, "--env") == ["PORT", "TOKEN"] and variables == {"TOKEN": "s3cret-value", "PORT": "80"}
    assert "s3cret-value" not in " ".join(words)
    assert words[-4:] == ("--entrypoint", "/run", "ghcr.io/org/image:1", "a")


@pytest.mark.parametrize("arguments", [("--network=host",), ("--network", "host"), ("-x", "--net=host")])
def test_on_the_nodes_network_the_container_is_told_its_port(tmp_path, arguments):
    words, variables = container_runtime.run(Runtime(("podman",), arguments), container(tmp_path))
    assert "--publish" not in words and variables["PORT"] == "4000"
    assert not Runtime(("podman",), ("--network=hostile",)).on_host_network


def test_gpus_and_the_model_are_handed_over(tmp_path):
    found = container(tmp_path, devices=("0", "GPU-1"), model="/models/m")
    words, variables = container_runtime.run(PODMAN, found)
    assert after(words, "--device") == ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1"]
    assert after(words, "--volume") == ["/models/m:/repository:ro"]
    assert variables["MODEL_PATH"] == variables["HF_MODEL_DIR"] == "/repository"
    words, _ = container_runtime.run(DOCKER, found)
    assert after(words, "--gpus") == ['"device=0,GPU-1"']


def test_variables_that_the_runtime_itself_would_read_go_by_a_file_of_mode_0600(tmp_path):
    (tmp_path / "replicas" / "r").mkdir(parents=True)
    given = {"PATH": "/own", "HTTPS_PROXY": "http://p", "LINES2": "a\nb"}
    words, variables = container_runtime.run(PODMAN, container(tmp_path, environment=given))
    (file,) = after(words, "--env-file")
    assert Path(file).read_text() == "PATH=/own\nHTTPS_PROXY=http://p\n" and os.stat(file).st_mode & 0o777 == 0o600
    assert variables == {"LINES2": "a\nb", "PORT": "80"}
    with pytest.raises(ValueError, match="PATH"):
        container_runtime.run(PODMAN, container(tmp_path, environment={"PATH": "a\nb"}))


def test_short_names_mean_dockers_hub():
    names = {"busybox": "docker.io/library/busybox", "org/image:1": "docker.io/org/image:1", "ghcr.io/a/b": "ghcr.io/a/b"}
    names |= {"localhost/x": "localhost/x", "host:5000/x:2": "host:5000/x:2"}
    assert {name: container_runtime.full_name(name) for name in names} == names


def test_a_copy_on_the_node_serves_where_the_name_is_fixed():
    fixed = ["a/b:1.2", "host:5000/x:2", "a/b@sha256:" + "0" * 64, "localhost/x:1"]
    assert all(map(container_runtime.is_fixed, fixed))
    assert not any(map(container_runtime.is_fixed, ["a/b", "a/b:latest", "host:5000/x"]))


def test_credentials_lie_in_a_file_that_only_the_platform_reads(tmp_path):
    folder = container_runtime.write_authority(tmp_path, "docker.io/org/image", "reader", "hush-hush")
    file = folder / "config.json"
    assert file.stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700
    assert set(json.loads(file.read_text())["auths"]) == {"docker.io", "https://index.docker.io/v1/"}
    assert "hush" not in " ".join(container_runtime.pull(PODMAN, "x", folder))
    assert container_runtime.pull(PODMAN, "x", folder) == ("podman", "pull", "--authfile", str(file), "x")
    assert container_runtime.pull(DOCKER, "x", folder) == ("/usr/bin/docker", "--config", str(folder), "pull", "x")
    assert container_runtime.pull(DOCKER, "x", None) == ("/usr/bin/docker", "pull", "x")


@pytest.mark.parametrize(
    ("said", "reason", "permanent"),
    [
        ("Error: initializing source docker://ghcr.io/x: reading manifest 1 in ghcr.io/x: manifest unknown", "ImageNotFound", True),
        (
            "Error response from daemon: pull access denied for x, repository does not exist or may require 'docker login'",
            "RegistryRefused",
            True,
        ),
        ("Error: unable to retrieve auth token: invalid username/password: unauthorized", "RegistryRefused", True),
        ("Error: pinging container registry h: Get: dial tcp 10.0.0.1:443: connect: connection refused", "RegistryUnreachable", False),
    ],
)
def test_a_pull_that_fails_says_why(said, reason, permanent):
    line = "moorage: " + container_runtime.why_not_pulled("ghcr.io/x", ["Trying to pull", said])
    failure = diagnosis.diagnose(127, [said, line, "moorage: the program ended with code 127"])
    assert (failure.reason, failure.permanent) == (reason, permanent)


def test_a_node_without_a_runtime_is_told():
    failure = diagnosis.diagnose(127, ["moorage: no podman or docker works on this node (tried podman or docker)"])
    assert (failure.reason, failure.permanent) == ("NoContainerRuntime", False)


def test_the_operators_words_choose_the_runtime():
    found = container_runtime.candidates({"MOORAGE_CONTAINER_RUNTIME": "docker -H 'unix:///x y'", "MOORAGE_CONTAINER_ARGS": "--cpus 2"})
    assert found == [Runtime(("docker", "-H", "unix:///x y"), ("--cpus", "2"))] and found[0].is_docker
    assert [runtime.words for runtime in container_runtime.candidates({})] == [("podman",), ("docker",)]


def test_a_container_whose_folder_is_held_is_no_orphan(tmp_path):
    node = Node(home=tmp_path)
    with node.replica_folder("r") as folder:
        assert not container_runtime.is_orphan(folder)
    assert container_runtime.is_orphan(folder)


@pytest.mark.parametrize(
    ("image", "server", "same"),
    [
        ("ghcr.io/org/image:1", "ghcr.io", True),
        ("ghcr.io/org/image:1", "https://ghcr.io/v2/", True),
        ("ghcr.io/org/image:1", "GHCR.io", True),
        ("ghcr.io/org/image:1", "", True),
        ("evil.example/ghcr.io/image:1", "ghcr.io", False),
        ("ghcr.io.evil.example/image:1", "ghcr.io", False),
        ("docker.io/library/nginx", "https://index.docker.io/v1/", True),
        ("localhost:5000/image", "localhost:5000", True),
        ("localhost:5000/image", "localhost", False),
    ],
)
def test_credentials_of_a_registry_are_for_its_images_alone(image, server, same):
    assert container_runtime.is_registry_of(image, server) is same
