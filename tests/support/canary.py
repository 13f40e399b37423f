"""A listener on loopback that nobody should ever connect to."""

from __future__ import annotations

import contextlib
import socket
import threading


class Canary:
    """`with Canary() as canary: ...; canary.connections`; answers nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self._listener = socket.socket(socket.AF_INET6)
        self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listener.bind(("::", 0))
        self._listener.listen(100)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Canary:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.close()
