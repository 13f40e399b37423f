"""uvicorn for the slow path: on a unix socket, in the gateway's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp


class SlowPathServer:
    """Serves `app` on the socket at `path`, which only this user can open."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._path = path
        settings = uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=75,
            backlog=4096,
        )
        logging.getLogger("uvicorn.error").addFilter(_ANSWERED)
        self._server = _Uvicorn(settings)
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listens when it returns."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)
        self._socket.listen(4096)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="slow path")

    async def stop(self) -> None:
        """Breaks off what is being relayed."""
        self._server.should_exit = self._server.force_exit = True
        if self._task is not None:
            await self._task
        for connection in list(self._server.server_state.connections):  # uvicorn forgets them open
            connection.transport.abort()
        await asyncio.sleep(0)  # the loop takes the connections down
        if self._socket is not None:
            self._socket.close()


class _Answered(logging.Filter):
    """uvicorn takes a handshake that was refused with an answer for one that was forgotten."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("ASGI callable returned without completing handshake")


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the process's owner."""
        yield


_ANSWERED = _Answered()
