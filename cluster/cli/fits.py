"""How a plan's fit is shown: the model, then the instance types by cost and by speed."""

from __future__ import annotations

from typing import Any

from cluster.cli import output

COLUMNS = ("type", "size", "fits", "model GB", "KV cache GB", "total GB", "quantization", "max_model_len", "batch size", "price per hour")
FIGURES = ("modelSizeGb", "kvCacheSizeGb", "totalGb", "quantization", "maxModelLen", "batchSize", "pricePerHour")
RANKS = ("cost", "performance")


def show(found: dict[str, Any], only: str | None = None) -> None:
    """The model, then the instance types that it fits, cheapest first, then the others. `only` = of this type."""
    fit = found.get("fit")
    if fit is None:
        output.say("Nothing is known of the model's size: its repository could not be read, or the engine needs no model.")
        return
    model = fit["model"]
    output.show_fields(
        {
            "model": model["repository"],
            "architecture": model["architecture"],
            "task": model["task"],
            "parameters": f"{model['parameters'] / 1e9:.2f} billion" if model["parameters"] else None,
            "weights": f"{model['modelSizeGb']} GB as {model['quantization']}" if model["modelSizeGb"] else None,
            "cache per token": output.size(model["kvCacheBytesPerToken"]) if model["kvCacheBytesPerToken"] else None,
            "context": model["maxModelLen"],
            "not known": ", ".join(model["unknown"]),
        }
    )
    rows = [row for row in fit["instances"] if only in (None, row["instanceType"])]
    output.show_table((*COLUMNS, *(f"rank by {name}" for name in RANKS), "verdict"), [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[object]:
    rank = row["ranking"] or {}
    fits = {True: "yes", False: "no", None: "unknown"}[row["fits"]]
    ways = f" What would fit: {', or '.join(row['remedies'])}." if row["remedies"] else ""
    figures = [row[name] for name in FIGURES]
    return [row["instanceType"], row["instanceSize"], fits, *figures, *(rank.get(name) for name in RANKS), row["verdict"] + ways]
