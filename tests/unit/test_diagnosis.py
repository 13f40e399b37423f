"""Exit codes and log lines -> a reason."""

import pytest

from deployments.diagnosis import StartFailed, diagnose

API = "(APIServer pid=12) ERROR 11-22 04:36:29 [core.py:133] "


@pytest.mark.parametrize(
    ("code", "lines", "reason", "permanent", "said"),
    [
        (
            2,
            ["usage: entry.py [-h]", "entry.py: error: argument --max-num-seqs: invalid int value: 'abc'"],
            "InvalidSettings",
            True,
            "--max-num-seqs",
        ),
        (
            1,
            ["vllm.exceptions.VLLMValidationError: The chat template of this model did not end within its time: it loops."],
            "EndlessChatTemplate",
            True,
            "model.settings.tokenizer.chatTemplate",
        ),
        (
            1,
            ["(APIServer pid=9)   Value error, max_model_len (9) is greater than the derived [type=value_error, input_value=x]"],
            "InvalidSettings",
            True,
            "max_model_len (9) is greater than the derived",
        ),
        (1, [API + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"], "OutOfGpuMemory", True, "larger instance"),
        (1, [API + "OSError: [Errno 98] Address already in use"], "PortTaken", False, "port"),
        (1, [API + "OSError: [Errno 28] No space left on device"], "DiskFull", False, "disk"),
        (
            1,
            ["ValueError: To serve at least one request with the model's max seq len (40960), (4.38 GiB KV cache is needed"],
            "KvCacheTooSmall",
            True,
            "40960",
        ),
        (1, ["ValueError: Model architectures ['FooForCausalLM'] are not supported for now."], "UnsupportedModel", True, "FooForCausalLM"),
        (
            1,
            ["ValueError: Free memory on device cuda:0 (1/79 GiB) on startup is less than desired GPU memory utilization (0.9)"],
            "GpuMemoryTaken",
            False,
            "cuda:0",
        ),
        (1, ["RuntimeError: Failed to infer device type, please set the environment"], "NoAccelerator", True, "no accelerator"),
        (
            1,
            ["safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"],
            "CorruptWeights",
            False,
            "damaged",
        ),
        (
            1,
            [
                "(APIServer pid=9) ERROR 11-30 22:05:44 [registry.py:1120] ModuleNotFoundError: No module named 'torchvision'",
                "  Value error, Model architectures ['Qwen3ASRRealtimeGeneration'] failed to be inspected. [type=value_error]",
            ],
            "PackageMissing",
            True,
            "No module named 'torchvision' on this node",
        ),
        (137, ["INFO loading"], "Killed", False, "memory"),
        (1, ["INFO loading", "KeyError: 'no_such_thing'"], "EngineExited", False, "KeyError: 'no_such_thing'"),
        (0, [], "EngineExited", False, "code 0"),
    ],
)
def test_cause_is_found_in_code_and_log(code, lines, reason, permanent, said):
    found = diagnose(code, lines)
    assert (found.reason, found.permanent) == (reason, permanent)
    assert said in found.message
    assert "[type=" not in found.message


def test_message_is_bounded():
    assert len(StartFailed("X", "y" * 10_000, permanent=False).message) <= 600
