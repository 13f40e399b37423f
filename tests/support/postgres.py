"""A real PostgreSQL server for the length of a test session, on loopback, as an unprivileged user."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from support.ports import free_port

MIGHT_BE = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)


def served() -> Iterator[str]:
    """URL of a server's `postgres` database. Not found: skipped on a developer's machine, a failure where CI is set."""
    initdb = shutil.which("initdb", path=os.pathsep.join([*MIGHT_BE, os.environ.get("PATH", "")]))
    if initdb is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL's server is not installed (Debian package: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="moorage-pg-"))  # not below pytest's own folder, which its user may not enter
    try:
        yield from _served(Path(initdb).parent, folder)
    finally:
        shutil.rmtree(folder)


def _served(programs: Path, folder: Path) -> Iterator[str]:
    unprivileged: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "nobody")
        unprivileged = ["--reuid=nobody", "--clear-groups"]
    password, data = secrets.token_hex(16), folder / "data"
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)  # the folder is closed to others
    as_server = ["setpriv", *unprivileged, "--pdeathsig=INT"]
    # Not the C locale: the store has to sort by code point on any.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en-US"]
    login = ["--username=moorage", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256"]
    initialise = [*as_server, programs / "initdb", "-D", data, "--no-sync", *locale, *login]
    subprocess.run(initialise, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    port = free_port()
    settings = ["listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off"]
    command = [*as_server, programs / "postgres", "-D", data, *(word for setting in settings for word in ("-c", setting))]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stderr=log) as server:
        try:
            url = f"postgresql://moorage:{password}@127.0.0.1:{port}/postgres"
            _wait_until_ready(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.05)
