"""What breaks a platform on purpose: processes that stop or die, links that are slow, disks that are full.

Any process is killed by `Platform.kill`; the functions here kill a part of the platform and wait until it is back.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest
from support.platforms import until


def kill_manager(platform):
    """SIGKILL, until it answers again."""
    platform.kill("ray::", "Manager")
    until(lambda: answers(platform, "/manage/health"), 60, what="the manager is back")


def kill_gateway(platform):
    """SIGKILL of the gateway's process, HAProxy apart."""
    platform.kill("ray::", "Gateway")
    until(lambda: not answers(platform, "/v1/models"), 10, every=0.01, what="the slow path is gone")
    until(lambda: answers(platform, "/v1/models"), 60, what="the gateway is back")


def kill_haproxy(platform):
    """SIGKILL of HAProxy."""
    platform.kill("haproxy", "edge")
    until(lambda: answers(platform, "/health"), 30, what="HAProxy is back")


def answers(platform, path):
    """Whether it is 200."""
    with contextlib.suppress(httpx.HTTPError):
        return platform.fetch(path).status_code == 200
    return False


@contextlib.contextmanager
def frozen(pids):
    """Stop these processes (SIGSTOP) and all their threads; those still there go on at the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of that size at `folder`; yields `resize(megabytes)`. What the folder held before comes back at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")

    def resize(megabytes):
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", folder], check=True, capture_output=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


class SlowLink:
    """A TCP proxy on loopback before `port`: every piece arrives `delay` seconds later, in both directions.

    `lost` is the share of new connections that are closed at once, as where packets are lost for good.
    """

    def __init__(self, port, *, delay=0.0, lost=0.0, seed=1):
        self._target, self.delay, self.lost = port, delay, lost
        self._random = random.Random(seed)
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self):
        """Break every connection there is."""
        while self._sockets:
            one = self._sockets.pop()
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self._random.random() < self.lost:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source, target):
        """One piece at a time, so that a burst is also paced by the delay, as on a link with a small window."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay)
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
