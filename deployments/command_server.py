"""The server process of a command: `python -m deployments.command_server OPTIONS -- PROGRAM WORD...`.

`{port}` and `{model}` in the words become the port to listen on (127.0.0.1) and the model's folder; the program also finds
them as PORT and MODEL_PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys

from deployments import program_server

STOP_S = 3.0
"""From SIGTERM to the end by force; the supervisor's own patience is a little longer."""


class Command:
    """program_server.Program of a process in this one's session."""

    def __init__(self, words: tuple[str, ...], model: str) -> None:
        self._words = words
        self._model = model
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, port: int) -> int:
        """Starts it and waits for its end."""
        words = tuple(word.replace("{port}", str(port)).replace("{model}", self._model) for word in self._words)
        told = {"PORT": str(port), **({"MODEL_PATH": self._model} if self._model else {})}
        environment = {**program_server.inherited(os.environ), **program_server.program_environment(os.environ), **told}
        self._process = await program_server.start(words, environment)
        return program_server.CANNOT_START if self._process is None else await program_server.ended(self._process)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to what does not end. Processes that it leaves behind end with the session."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOP_S)
            return
        self._process.kill()


def main() -> int:
    """Exit code: the program's."""
    parser = argparse.ArgumentParser(description="Serves a command behind the guard")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--health-route", required=True)
    parser.add_argument("--max-concurrency", required=True, type=int)
    parser.add_argument("--model", default="")
    parser.add_argument("words", nargs="+")
    given = parser.parse_args()
    program = Command(tuple(given.words), given.model)
    serving = program_server.serve(program, given.host, given.port, health_route=given.health_route, max_concurrency=given.max_concurrency)
    return asyncio.run(serving)


if __name__ == "__main__":
    sys.exit(main())
