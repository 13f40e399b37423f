"""Why a start failed, in words a user can act on: from an exit code and the last lines of a server's log.

`permanent` means that trying again with the same settings cannot help.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

SIGKILLED = 128 + 9
USAGE = 2
MESSAGE_LIMIT = 600


class StartFailed(Exception):
    """A replica could not be started."""

    def __init__(self, reason: str, message: str, *, permanent: bool) -> None:
        """`reason` is a CamelCase slug."""
        self.reason = reason
        self.message = message[:MESSAGE_LIMIT]
        self.permanent = permanent
        super().__init__(f"{reason}: {self.message}")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A line that tells the cause. `advice` follows what the engine said (its first group, else nothing)."""

    reason: str
    expression: re.Pattern[str]
    advice: str
    permanent: bool = True


def _pattern(reason: str, expression: str, advice: str = "", *, permanent: bool = True) -> Pattern:
    return Pattern(reason, re.compile(expression, re.IGNORECASE), advice, permanent)


PATTERNS = (
    _pattern("NoContainerRuntime", r"^moorage: (no podman or docker .*)", "Install one on every node.", permanent=False),
    _pattern("ImageNotFound", r"^moorage: (image not found: .*)", "Check model.image.custom.url."),
    _pattern("RegistryRefused", r"^moorage: (the registry refused .*)", "Check model.image.custom.credentials."),
    _pattern("RegistryUnreachable", r"^moorage: (the image could not be pulled: .*)", permanent=False),
    _pattern(
        "NoAccelerator",
        r"(unresolvable CDI devices.*|could not select device driver.*)",
        "Install NVIDIA's container toolkit on the node.",
    ),
    _pattern("ProgramNotFound", r"^moorage: (cannot start .*)", "Is it installed on every node, and allowed to be run?"),
    _pattern("PortTaken", r"address already in use", "The port chosen was taken meanwhile.", permanent=False),
    _pattern("DiskFull", r"no space left on device", "The node's disk is full: free space on it.", permanent=False),
    _pattern(
        "GpuMemoryTaken",
        r"(free memory on device .*? is less than desired GPU memory utilization)",
        "Something else uses the accelerator's memory.",
        permanent=False,
    ),
    _pattern(
        "OutOfGpuMemory",
        r"(?:cuda out of memory|torch\.outofmemoryerror|hip out of memory)",
        "The model does not fit the accelerator: choose a larger instance, a quantized model or a smaller max_model_len.",
    ),
    _pattern(
        "KvCacheTooSmall",
        r"((?:no available memory for the cache blocks|to serve at least one request with the model.s max seq len).*)",
        "Lower max_model_len, or give the cache more memory.",
    ),
    _pattern(
        "RemoteCodeRefused", r"(?:trust_remote_code=True|requires you to execute .* file in that repo)", "The model needs code of its own."
    ),
    _pattern(
        "UnsupportedModel",
        r"((?:model architectures? \[.*?\] .*not supported|.*does not recognize this architecture).*)",
        "The engine cannot serve this model.",
    ),
    _pattern("CorruptWeights", r"(SafetensorError.*|error while deserializing header.*)", "The weights are damaged.", permanent=False),
    _pattern("NoAccelerator", r"(failed to infer device type|no cuda gpus are available|libcuda\.so)", "The engine found no accelerator."),
    _pattern(
        "PackageMissing",
        r"(?:^|\[registry\.py:\d+\] )ModuleNotFoundError: (No module named '[^']+')",  # vLLM looked at the model's class
        "on this node: the model needs it on every one.",
    ),
    _pattern(
        "EndlessChatTemplate",
        r"(The chat template of this model did not end.*)",
        "Give the endpoint another one in model.settings.tokenizer.chatTemplate.",
    ),
    _pattern("InvalidSettings", r"value error, (.*)"),
    _pattern("InvalidSettings", r"^(?:\S+: )?error: ((?:argument|unrecognized arguments).*)"),
)

PROGRAM_ENDED = re.compile(r"^moorage: the program ended with code \d+")
"""Said by deployments.program_server; what a program wrote before it is all that is known of the reason."""
PROGRAM_LINES = 3
ERROR_LINE = re.compile(r"(?:^|\s)((?:[A-Za-z_.]+(?:Error|Exception)): .+)$")
PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*")
PYDANTIC_TAIL = re.compile(r"\s*\[type=.*$")


def diagnose(code: int, tail: Sequence[str]) -> StartFailed:
    """The likeliest cause of an exit with `code` after the log lines `tail` (oldest first, secrets struck out)."""
    lines = [PREFIX.sub("", line) for line in tail]
    for pattern in PATTERNS:
        match = next((found for line in lines if (found := pattern.expression.search(line))), None)
        if match is not None:
            said = PYDANTIC_TAIL.sub("", next((group for group in match.groups() if group), "")).strip()
            return StartFailed(pattern.reason, " ".join(part for part in (said, pattern.advice) if part), permanent=pattern.permanent)
    if (end := _program_end(lines)) is not None:
        said = " | ".join([line.strip() for line in lines[:end] if line.strip()][-PROGRAM_LINES:])
        return StartFailed("ProgramExited", f"The program ended with code {code}" + (f": {said}" if said else "."), permanent=False)
    if code == SIGKILLED:
        return StartFailed("Killed", "The server was killed, most likely because the node ran out of memory.", permanent=False)
    last = _last_error(lines)
    return StartFailed("EngineExited", f"The server ended with code {code}" + (f": {last}" if last else "."), permanent=code == USAGE)


def _program_end(lines: Sequence[str]) -> int | None:
    """Where it is said that a program of the user's ended."""
    return next((number for number, line in enumerate(lines) if PROGRAM_ENDED.match(line)), None)


def _last_error(lines: Sequence[str]) -> str:
    """The last exception line, else the last line that speaks of an error."""
    found = next((match.group(1) for line in reversed(lines) if (match := ERROR_LINE.search(line))), None)
    return found or next((line.strip() for line in reversed(lines) if "ERROR" in line or "error:" in line), "")
