"""LoRA adapters as files, without torch: what `adapter_config.json` says and tensors of zeros in the shapes asked for."""

import json


def tensors(shapes):
    """A safetensors file with zeros."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(offset)


def lora_shapes(rank=8, hidden=16, layers=(0,), module="self_attn.q_proj"):
    return {
        f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight": shape
        for layer in layers
        for side, shape in (("A", (rank, hidden)), ("B", (hidden, rank)))
    }


def write_adapter(folder, *, rank=8, shapes=None, weights="adapter_model.safetensors", **config):
    """The files of an adapter in `folder`, which is returned. A None in `config` leaves that field out."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    if weights:
        (folder / weights).write_bytes(tensors(shapes or lora_shapes(rank)))
    return folder
