"""LoRA adapters as files, without the seconds that torch takes: what `adapter_config.json` says, and tensors of zeros or noise."""

import json
import math

import numpy as np


def tensors(shapes, seed=None):
    """A safetensors file with zeros, or with the noise that `seed` makes."""
    header, count = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [4 * count, 4 * (count + math.prod(shape))]}
        count += math.prod(shape)
    values = np.zeros(count) if seed is None else np.random.default_rng(seed).standard_normal(count)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values.astype("<f4").tobytes()


def lora_shapes(rank=8, hidden=16, layers=(0,), module="self_attn.q_proj"):
    return {
        f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight": shape
        for layer in layers
        for side, shape in (("A", (rank, hidden)), ("B", (hidden, rank)))
    }


def write_adapter(folder, *, rank=8, shapes=None, seed=None, weights="adapter_model.safetensors", **config):
    """The files of an adapter in `folder`, which is returned. A None in `config` leaves that field out."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    if weights:
        (folder / weights).write_bytes(tensors(shapes or lora_shapes(rank), seed))
    return folder
