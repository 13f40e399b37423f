"""Ports for servers of tests."""

from __future__ import annotations

import contextlib
import os
import random
import socket

ROOM = 5000
FIRST = 20_000 + ROOM * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Below what the kernel gives to those that ask for any port; each of two pytest workers has a range of its own."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, nor will be given by chance before it is used."""
    while True:
        port = FIRST + random.randrange(ROOM)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
