"""What the echo engine made, written down by itself: tests hold usage records against it, so it shares nothing with them.

Off unless the operator names a folder. Each event is one line, written at once: a kill takes none of those that were written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

FOLDER = "MOORAGE_ECHO_TALLY"
"""Variable of the node's environment that names the folder. Endpoints cannot set it."""


class Tally:
    """Of one server. Lines are `asked ID KEY`, `prompt ID TOKENS` and `completion ID TOKENS`; KEY is `-` for none."""

    def __init__(self, name: str, environment: Mapping[str, str] = os.environ) -> None:
        """`name` is the model's; the file is `NAME.PID`."""
        folder = environment.get(FOLDER, "")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(os.path.join(folder, f"{name}.{os.getpid()}"), flags, 0o600) if folder else -1

    def asked(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """A request has come: its id, for what follows."""
        if self._file < 0:
            return ""
        said = dict(headers)
        identity, key = (said.get(name, b"-").decode("latin-1") for name in (b"x-request-id", b"x-moorage-key-id"))
        self._write(f"asked {identity} {key or '-'}\n")
        return identity

    def made(self, what: str, identity: str, tokens: int) -> None:
        """`what` is `prompt` (read) or `completion` (made). Requests without an id are not others' to pay for."""
        if self._file >= 0 and identity:
            self._write(f"{what} {identity} {tokens}\n")

    def _write(self, line: str) -> None:
        os.write(self._file, line.encode())
