"""Real vLLM on a real GPU: skipped where there is none."""

import shutil
import subprocess

import pytest
from support.platforms import running_platform, until

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu_platform(models):
    if shutil.which("nvidia-smi") is None or subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode:
        pytest.skip("this machine has no NVIDIA GPU")
    with running_platform(model_paths=models("llama").parent.parent) as platform:
        yield platform


def test_an_endpoint_on_one_gpu_answers_and_claims_exactly_it(gpu_platform, models):
    rows = gpu_platform.fetch("/manage/v2/provider/admin").json()["vendors"][0]["regions"][0]["computes"]
    row = next(row for row in rows if row["accelerator"] == "gpu" and row["instanceSize"] == "x1")
    compute = {"accelerator": "gpu", "instanceType": row["instanceType"], "instanceSize": "x1"}
    model = {"repository": str(models("llama")), "image": {"vLLM": {}}, "task": "text-generation"}
    gpu_platform.create("on-gpu", model=model, compute=compute, wait=False)
    gpu_platform.wait("on-gpu", timeout=600)
    assert gpu_platform.chat("on-gpu", max_tokens=4).json()["usage"]["completion_tokens"] > 0
    after = gpu_platform.fetch("/manage/v2/provider/admin").json()["vendors"][0]["regions"][0]["computes"]
    assert next(found for found in after if found["id"] == row["id"])["free"] == row["free"] - 1
    gpu_platform.delete("on-gpu")


def test_an_idle_engine_on_a_gpu_sleeps_and_answers_as_before(gpu_platform, models):
    rows = gpu_platform.fetch("/manage/v2/provider/admin").json()["vendors"][0]["regions"][0]["computes"]
    row = next(row for row in rows if row["accelerator"] == "gpu" and row["instanceSize"] == "x1")
    compute = {"accelerator": "gpu", "instanceType": row["instanceType"], "instanceSize": "x1"}
    model = {"repository": str(models("llama")), "image": {"vLLM": {}}, "settings": {"system": {"sleepTimeout": 0.1}}}
    gpu_platform.create("sleeper", model=model, compute=compute, wait=False)
    gpu_platform.wait("sleeper", timeout=600)
    before = gpu_platform.chat("sleeper", max_tokens=4, temperature=0).json()["choices"][0]["message"]["content"]
    until(lambda: gpu_platform.status("sleeper")["reason"] == "Sleeping", what="asleep")
    after = gpu_platform.chat("sleeper", max_tokens=4, temperature=0).json()["choices"][0]["message"]["content"]
    assert after == before
    gpu_platform.delete("sleeper")
