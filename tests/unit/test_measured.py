"""vLLM's own figures of a load: read from its log, kept with the model, used by the next plan."""

import pytest

from cluster import engine_settings, fit, measuring, model_lookup, records, surveyor
from cluster import spec as specs
from cluster.store import MemoryStore
from deployments.measured import Measured

MODEL = {"repository": "org/model", "secrets": [], "settings": {"llm": {"maxModelLen": 4096}}}
COMPUTE = {"accelerator": "gpu", "instanceType": "nvidia-h200", "instanceSize": "x1"}


def said(*lines):
    measured = Measured()
    for line in lines:
        measured.line(line)
    return measured.found


def test_the_lines_of_vllm_are_understood():
    assert said(
        "INFO 11-22 10:00:00 [gpu_model_runner.py:5150] Model loading took 14.99 GiB memory and 3.2 seconds",
        "(Worker) Model loading took 15.01 GiB memory and 3.3 seconds",
        "INFO [kv_cache_utils.py:2328] GPU KV cache size: 459,184 tokens, Maximum concurrency for 8,192 tokens per request: 56.05x",
    ) == {"weightsBytes": pytest.approx(15.01 * 2**30), "cacheTokens": 459184, "maxModelLen": 8192, "concurrency": 56.05}
    assert said("CPU KV cache size: 2,048 tokens", "GET /health") == {"cacheTokens": 2048}


def test_what_was_measured_is_found_by_the_same_model_instance_and_settings_alone():
    revision = records.Revision("e", 1, {"model": MODEL, "compute": COMPUTE})
    row = measuring.measurement(revision, {"cacheTokens": 40960, "weightsBytes": 10**9, "odd": 1, "concurrency": "x"}, 5.0)
    assert (row.repository, row.instance_type, row.instance_size, row.at) == ("org/model", "nvidia-h200", "x1", 5.0)
    assert row.data == {"cacheTokens": 40960, "weightsBytes": 10**9}
    store = MemoryStore()
    store.put_measurement(row)
    lookup = model_lookup.ModelLookup(store, surveyor.Surveyor(surveyor.nowhere))
    same = specs.Model.model_validate({**MODEL, "secrets": {}})
    assert lookup.measured(same) == {("nvidia-h200", "x1"): fit.Measured(weights_bytes=10**9, cache_tokens=40960)}
    assert lookup.measured(same.model_copy(update={"settings": engine_settings.ModelSettings()})) == {}
    assert lookup.measured(same.model_copy(update={"revision": "v2"})) == {}


def test_a_registered_model_is_measured_as_the_repository_that_it_stands_for():
    fields = {
        "model": {**MODEL, "repository": "model://chat@2"},
        "source": {"repository": "org/model", "revision": "c0"},
        "compute": COMPUTE,
    }
    row = measuring.measurement(records.Revision("e", 1, fields), {"cacheTokens": 1}, 0.0)
    assert (row.repository, row.revision) == ("org/model", "c0")


@pytest.mark.parametrize("model", [{**MODEL, "repository": ""}, {**MODEL, "args": ["--no-such-flag"]}])
def test_what_cannot_be_understood_is_not_kept(model):
    assert measuring.measurement(records.Revision("e", 1, {"model": model, "compute": {}}), {"cacheTokens": 1}, 0.0) is None
