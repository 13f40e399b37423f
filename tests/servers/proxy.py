"""A TCP proxy on loopback that cuts or holds the answers of the server behind it."""

from __future__ import annotations

import contextlib
import socket
import threading


class FaultProxy:
    """Forwards to `port` on loopback. `sent` counts the bytes of answers.

    `cuts`: when so many bytes have been sent in all, the connection that brings them is closed; each number once.
    `hold_after`: answers stop after so many bytes in all until `release` is set; `held` says that this has happened.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.cuts: list[int] = []
        self.hold_after: int | None = None
        self.held, self.release = threading.Event(), threading.Event()
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.hold_after is not None and self.sent >= self.hold_after:
                    self.held.set()
                    self.release.wait()
                client.sendall(data)
                self.sent += len(data)
                if self.cuts and self.sent >= self.cuts[0]:
                    del self.cuts[0]
                    break
        for connection in (client, server):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
