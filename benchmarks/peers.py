"""Other gateways in an environment of their own, from the package index: made once, under benchmarks/out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("vllm-router>=0.1.17", "litellm[proxy]>=1.90")
WHOLE = ".complete"


def environment(folder: Path) -> Path:
    """Its Python. Raises CalledProcessError when something cannot be installed; the message is the installer's."""
    python = folder / "bin" / "python"
    if (folder / WHOLE).exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES], check=True)
    (folder / WHOLE).touch()
    return python
