"""What `make demo` does after its set-up, and what it tells people to try next, with a real model on real vLLM."""

import json
import time

import pytest


@pytest.fixture(scope="module")
def demo(vllm_platform, models):
    """The first demo's answer, and a way to run it again."""

    def run():
        return json.loads(vllm_platform.command("demo", "--model", models("llama"), "--json", timeout=550).stdout)

    run.first = run()
    yield run
    vllm_platform.delete("demo-chat")


def test_the_demo_ends_with_an_answer_of_the_model(demo, vllm_platform):
    assert demo.first["url"] == f"{vllm_platform.url}/endpoints/admin/demo-chat/v1"
    assert demo.first["answer"].strip()


def test_the_demo_is_fast_the_second_time(demo):
    began = time.monotonic()
    assert demo()["url"] == demo.first["url"]
    assert time.monotonic() - began < 60


def test_chat_shows_an_answer_as_it_comes(demo, vllm_platform):
    assert vllm_platform.command("chat", "demo-chat", "hello", "--max-tokens", "8").stdout.strip()


def test_chat_reads_a_pipe(demo, vllm_platform):
    assert vllm_platform.command("chat", "demo-chat", "--max-tokens", "8", input="hello").stdout.strip()


def test_logs_show_what_vllm_writes(demo, vllm_platform):
    assert "startup complete" in vllm_platform.command("endpoints", "logs", "demo-chat").stdout


def test_the_stock_hf_command_lists_and_describes_the_endpoint(demo, vllm_platform):
    listed = json.loads(vllm_platform.command("hf", "endpoints", "ls", "--format", "json").stdout)
    assert "demo-chat" in json.dumps(listed)
    described = json.loads(vllm_platform.command("hf", "endpoints", "describe", "demo-chat").stdout)
    assert described["status"]["state"] == "running"


def test_the_hf_command_says_what_is_not_about_a_platform(demo, vllm_platform):
    refused = vllm_platform.command("hf", "download", "org/model", check=False)
    assert refused.returncode == 1 and "run `hf` itself" in refused.stderr
