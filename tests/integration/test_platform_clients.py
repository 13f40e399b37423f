"""An endpoint's life through stock clients and commands: huggingface_hub, `hf`, the `moorage` command, a Serve file."""

import json
import subprocess
import sys

import httpx
import huggingface_hub
import openai
import pytest
import yaml
from huggingface_hub import HfApi, InferenceClient
from support.platforms import ROOT, until


@pytest.fixture
def hub(platform, monkeypatch):
    """The stock client, with one constant assigned."""
    monkeypatch.setattr(huggingface_hub.constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{platform.url}/manage/v2")
    return HfApi(token=platform.token)


def test_the_stock_hugging_face_client_drives_a_whole_life(platform, hub):
    endpoint = hub.create_inference_endpoint(
        "stock-client",
        repository="none/needed",
        framework="pytorch",
        task="text-generation",
        accelerator="cpu",
        instance_size="x1",
        instance_type="local-cpu",
        vendor="local",
        region="local",
        min_replica=0,
        max_replica=2,
        scale_to_zero_timeout=15,
        type="authenticated",
        namespace="admin",
        custom_image={"echo": {}},
        # Without it (or HF_TOKEN) the endpoint object that comes back forgets the token that HfApi was made with.
        token=platform.token,
    )
    try:
        assert endpoint.status in {"pending", "initializing"}
        endpoint.wait(timeout=90, refresh_every=1)
        assert endpoint.status == "running"
        answer = endpoint.client.chat_completion(messages=[{"role": "user", "content": "hello there"}])
        assert answer.choices[0].message.content == "hello there"
        assert endpoint.client.text_generation("say this back", max_new_tokens=3)
        endpoint.update(min_replica=1, max_replica=1)
        assert endpoint.fetch().raw["compute"]["scaling"].items() >= {"minReplica": 1, "maxReplica": 1, "scaleToZeroTimeout": 15.0}.items()
        endpoint.pause()
        assert endpoint.status == "paused"
        assert endpoint.url is None
        endpoint.resume()
        endpoint.wait(timeout=90, refresh_every=1)
        assert endpoint.resume(running_ok=True).status == "running"
        endpoint.scale_to_zero()
        assert endpoint.status == "scaledToZero"
        assert endpoint.client.chat_completion(messages=[{"role": "user", "content": "wake up"}]).choices
        assert "stock-client" in {found.name for found in hub.list_inference_endpoints(namespace="admin")}
    finally:
        endpoint.delete()
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as refusal:
        hub.get_inference_endpoint("stock-client", namespace="admin")
    assert refusal.value.response.status_code == 404


def test_stock_openai_client_on_the_shared_and_on_the_endpoints_own_path(platform):
    platform.create("stock-openai")
    try:
        for base, model in [("/v1", "stock-openai"), ("/v1", "admin/stock-openai"), ("/endpoints/admin/stock-openai/v1", "anything")]:
            client = openai.OpenAI(base_url=platform.url + base, api_key=platform.token, max_retries=0)
            answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "one two three"}])
            assert answer.choices[0].message.content == "one two three"
            chunks = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "one two"}], stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
            assert client.completions.create(model=model, prompt="say it", max_tokens=2).choices[0].text
        client = openai.OpenAI(base_url=f"{platform.url}/v1", api_key=platform.token)
        assert "stock-openai" in {model.id for model in client.models.list()}
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nothing", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{platform.url}/v1", api_key="sk-nonsense").models.list()
    finally:
        platform.delete("stock-openai")


def test_the_moorage_command_does_all_of_it(platform, tmp_path):
    run = platform.command
    created = json.loads(run("endpoints", "create", "by-command", "--engine", "echo", "--wait", "--json").stdout)
    try:
        assert created["status"]["state"] == "running"
        assert "by-command" in run("endpoints", "ls").stdout
        assert json.loads(run("endpoints", "describe", "by-command", "--json").stdout)["name"] == "by-command"
        assert "hello" in run("chat", "by-command", "hello").stdout
        run("endpoints", "update", "by-command", "--max-replica", "2", "--wait")
        assert platform.get("by-command")["compute"]["scaling"]["maxReplica"] == 2
        key = json.loads(run("keys", "create", "by-command", "--description", "mine", "--json").stdout)
        assert platform.chat("by-command", key=key["key"]).status_code == 200
        assert "First Key" in run("keys", "ls", "by-command").stdout
        run("keys", "revoke", "by-command", key["id"])
        until(lambda: platform.chat("by-command", key=key["key"]).status_code == 401, 2, what="revoked")
        run("endpoints", "pause", "by-command")
        run("endpoints", "resume", "by-command")
        run("endpoints", "wait", "by-command")
        assert "live" in run("endpoints", "events", "by-command").stdout
        until(lambda: run("endpoints", "logs", "by-command").stdout.strip(), 10, what="logs")
        assert "local-cpu" in run("hardware").stdout
        refused = run("endpoints", "describe", "not-there", check=False)
        assert refused.returncode != 0
        assert "not-there" in refused.stderr
        assert refused.stdout == ""
    finally:
        run("endpoints", "delete", "by-command", "--yes", check=False)


def test_a_file_is_applied_and_applied_again_without_a_change(platform, tmp_path):
    file = tmp_path / "endpoints.yaml"
    wanted = {"name": "from-file", "model": {"image": {"echo": {"tag": "one"}}}, "description": "declared"}
    file.write_text(yaml.safe_dump(wanted))
    try:
        assert "from-file" in platform.command("apply", "-f", file, "--dry-run").stdout
        assert platform.manage("GET", "/from-file").status_code == 404
        platform.command("apply", "-f", file, "--yes")
        platform.wait("from-file")
        generation = platform.get("from-file")["generation"]
        platform.command("apply", "-f", file, "--yes")
        assert platform.get("from-file")["generation"] == generation
        file.write_text(yaml.safe_dump(wanted | {"model": {"image": {"echo": {"tag": "two"}}}}))
        platform.command("apply", "-f", file, "--yes")
        platform.wait("from-file")
        assert platform.chat("from-file").json()["system_fingerprint"] == "two"
    finally:
        platform.delete("from-file")


def test_the_stock_hf_command_works_through_the_wrapper(platform):
    platform.create("for-hf")
    try:
        listed = platform.command("hf", "endpoints", "ls", "--namespace", "admin")
        assert "for-hf" in listed.stdout
        assert "for-hf" in platform.command("hf", "endpoints", "describe", "for-hf", "--namespace", "admin").stdout
        platform.command("hf", "endpoints", "pause", "for-hf", "--namespace", "admin")
        assert platform.status("for-hf")["state"] == "paused"
    finally:
        platform.delete("for-hf")


def test_an_endpoint_declared_with_serve_deploy_is_discovered_routed_and_read_only(platform, tmp_path):
    config = yaml.safe_load((ROOT / "serve_configs" / "echo.yaml").read_text())
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    arguments = config["applications"][0]["args"]
    name = arguments["name"]
    serve_deploy(platform, file)
    until(lambda: platform.manage("GET", f"/{name}").status_code == 200, 60, what="discovered")
    platform.wait(name)
    assert platform.chat(name, "declared by hand").json()["choices"][0]["message"]["content"] == "declared by hand"
    for method, path in [("PUT", ""), ("POST", "/pause"), ("DELETE", ""), ("POST", "/scale-to-zero")]:
        refused = platform.manage(method, f"/{name}{path}", {"description": "x"} if method == "PUT" else None)
        assert (refused.status_code, refused.json()["error_type"]) == (409, "read_only")
    # A Serve file that no longer names it takes it away; endpoints made over the API are not touched by that.
    platform.create("by-the-api")
    file.write_text(yaml.safe_dump(config | {"applications": []}))
    serve_deploy(platform, file)
    until(lambda: platform.manage("GET", f"/{name}").status_code == 404, 90, what="the declared endpoint is gone")
    assert platform.chat("by-the-api").status_code == 200
    platform.delete("by-the-api")


def serve_deploy(platform, file):
    words = [
        sys.executable,
        "-m",
        "ray.serve.scripts",
        "deploy",
        str(file),
        "-a",
        f"http://127.0.0.1:{platform.environment['MOORAGE_DASHBOARD_PORT']}",
    ]
    environment = platform.environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(platform.home / "ray-token")}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_inference_client_works_on_the_bare_url(platform):
    platform.create("bare-url")
    try:
        client = InferenceClient(base_url=f"{platform.url}/endpoints/admin/bare-url", api_key=platform.token)
        assert client.chat_completion([{"role": "user", "content": "hi"}]).choices[0].message.content == "hi"
        client = InferenceClient(model=f"{platform.url}/endpoints/admin/bare-url", token=platform.token)
        pieces = list(client.text_generation("one two three", stream=True, max_new_tokens=3))
        assert "".join(pieces).split() == ["one", "two", "three"]
        answer = httpx.post(
            f"{platform.url}/endpoints/admin/bare-url", json={"inputs": "hey"}, headers={"authorization": f"Bearer {platform.token}"}
        )
        assert "generated_text" in answer.json()[0]
    finally:
        platform.delete("bare-url")
