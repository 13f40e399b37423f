"""Writes constraints.txt: the versions that are installed now, which is the set that the tests ran with.

Names and versions only (no addresses, no hashes), and nothing that differs between the CPU and the GPU flavour.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAVOURED = re.compile(
    r"(moorage|torch.*|vllm.*|triton.*|nvidia-(?!ml-py$).*|cuda-.*|flashinfer.*|intel-.*|tcmlib|tbb|mkl|umf|apache-tvm-ffi|pip|setuptools)"
)
"""Ourselves, what comes in one flavour only or in different builds, and what a virtual environment brings along."""
HEADER = "# The versions that Moorage was tested with; written by `make lock`. The supported ranges are in pyproject.toml.\n"


def constraints(frozen: str) -> str:
    """The text of constraints.txt from what `uv pip freeze` prints."""
    pins = (re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][^+\s]*)", line.strip()) for line in frozen.splitlines())
    kept = [f"{pin[1].lower()}=={pin[2]}" for pin in pins if pin and not FLAVOURED.fullmatch(pin[1].lower())]
    return HEADER + "".join(f"{line}\n" for line in sorted(kept))


def main() -> int:
    """Exit code of `make lock`."""
    python = ROOT / ".venv" / "bin" / "python"
    command = [str(python.parent / "uv"), "pip", "freeze", "--python", str(python)]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (ROOT / "constraints.txt").write_text(constraints(frozen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
