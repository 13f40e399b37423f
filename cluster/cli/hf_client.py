"""Hugging Face's `hf` command with the addresses of its Inference Endpoints service pointed at HF_ENDPOINT's platform."""

from __future__ import annotations

import sys

from huggingface_hub import constants
from huggingface_hub.cli import hf


def main() -> None:
    """Both addresses are plain constants that the client reads at each call; there is no variable for them."""
    constants.INFERENCE_ENDPOINTS_ENDPOINT = f"{constants.ENDPOINT}/v2"
    constants.INFERENCE_CATALOG_ENDPOINT = f"{constants.ENDPOINT}/api/v1/catalog"
    sys.argv[0] = "hf"
    hf.main()  # type: ignore[no-untyped-call]  # it has no annotations


if __name__ == "__main__":
    main()
