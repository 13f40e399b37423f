"""HAProxy's runtime API over its unix sockets: commands, and what HAProxy holds read back.

Which commands is `program`'s; starting and reloading the process is `haproxy`'s.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from gateway import activity, program, withdrawal

BATCH = 50
"""Commands per connection: ten times as many a second as one by one."""
TIMEOUT = 10.0
LIVE_FIELDS = 3
_QUIET = ("New server registered.", "Server deleted.", "no need to change", "changed from", "no change")
_ADMIN_DOWN = 0x01 | 0x02 | 0x08 | 0x10
"""Bits of srv_admin_state that keep new requests away: maintenance and drain, forced and inherited."""


class RuntimeFailed(Exception):
    """HAProxy did not answer, or refused a command."""


class Runtime:
    """The worker's command socket, or an old worker's behind the master's socket (`worker` = its pid)."""

    def __init__(self, socket: Path, worker: int | None = None) -> None:
        self._socket = socket
        self._worker = worker

    async def ask(self, command: str) -> str:
        """The answer to one line of commands. Raises RuntimeFailed when there is none within the time limit."""
        if self._worker is not None:
            return await ask_master(self._socket, f"@!{self._worker} {command}")
        return await _exchange(self._socket, command)

    async def send(self, commands: Sequence[str]) -> list[str]:
        """Runs the commands in order; returns what HAProxy complained about."""
        complaints: list[str] = []
        for start in range(0, len(commands), BATCH):
            answer = await self.ask(";".join(commands[start : start + BATCH]))
            complaints += [line for line in answer.splitlines() if line.strip() and not any(word in line for word in _QUIET)]
        return complaints

    async def info(self) -> dict[str, str]:
        """`show info` as a mapping; `description` carries the fingerprint of the configuration."""
        rows = (line.partition(":") for line in (await self.ask("show info")).splitlines())
        return {name.strip(): value.strip() for name, _, value in rows}

    async def held(self, file: Mapping[str, str]) -> program.Program:
        """What HAProxy holds now: the programmed maps and the servers in its slots."""
        maps = {name: parse_map(await self.ask(f"show map {file[name]}")) for name in program.MAPS}
        return program.Program(maps, parse_servers(await self.ask("show servers state")))

    @property
    def name(self) -> str:
        """Tells the workers of one HAProxy apart."""
        return str(self._worker or "")

    async def counts(self, table: str) -> dict[str, activity.Count]:
        """The rows of a stick table."""
        return parse_table(await self.ask(f"show table {table}"))

    async def working(self) -> dict[str, dict[str, int]]:
        """Requests that each server is working on now, by slot and server."""
        return parse_stat(await self.ask("show stat -1 4 -1"))

    async def live(self) -> list[withdrawal.Live]:
        """The streams that run."""
        rows = (row.split("|") for row, count in (await self.counts("st_live")).items() if count.running)
        return [withdrawal.Live(*row) for row in rows if len(row) == LIVE_FIELDS]

    async def cut(self, peers: Collection[str]) -> int:
        """Cuts the streams of these clients; returns how many. HTTP/1.1: one connection carries one request."""
        if not peers:
            return 0
        sessions = parse_sessions(await self.ask("show sess"))
        doomed = [session for session, source in sessions if source in peers]
        await self.send([f"shutdown session {session}" for session in doomed])
        return len(doomed)


async def ask_master(socket: Path, command: str) -> str:
    """One command to the master process; it keeps the connection open after an answer unless told to quit."""
    return await _exchange(socket, f"{command};quit")


async def old_workers(socket: Path) -> list[int]:
    """Pids of the workers that finish their streams after a reload."""
    _, _, old = (await ask_master(socket, "show proc")).partition("# old workers")
    return [int(line.split()[0]) for line in old.splitlines() if "worker" in line and line.split()[0].isdigit()]


def parse_map(text: str) -> dict[str, str]:
    """`show map`: address, key, value."""
    rows = (line.split(" ", 2) for line in text.splitlines() if line.startswith("0x"))
    return {row[1]: row[2] if len(row) > 2 else "" for row in rows}


def parse_servers(text: str) -> dict[str, dict[str, program.Server]]:
    """`show servers state`: the servers of the slots, by slot and name."""
    lines = text.splitlines()
    header = next((line[2:].split() for line in lines if line.startswith("# ")), [])
    found: dict[str, dict[str, program.Server]] = {}
    for line in lines:
        row = dict(zip(header, line.split(), strict=False))
        if re.fullmatch(r"s\d{5}", row.get("be_name", "")):
            server = program.Server(
                address=row["srv_addr"],
                port=int(row["srv_port"]),
                weight=int(row["srv_uweight"]),
                max_concurrency=None,
                draining=bool(int(row["srv_admin_state"]) & _ADMIN_DOWN),
            )
            found.setdefault(row["be_name"], {})[row["srv_name"]] = server
    return found


def parse_table(text: str) -> dict[str, activity.Count]:
    """`show table`: the rows by key. HAProxy escapes keys with backslashes; a table may have no total."""
    rows = re.findall(r"key=(\S+) .*conn_cur=(\d+)(?: http_req_cnt=(\d+))?", text)
    return {key.replace("\\", ""): activity.Count(int(running), int(total or 0)) for key, running, total in rows}


def parse_stat(text: str) -> dict[str, dict[str, int]]:
    """`show stat` of servers: their current sessions, by slot and server; those of other backends are left out."""
    found: dict[str, dict[str, int]] = {}
    header, *lines = text.splitlines() or [""]
    place = header.split(",").index("scur") if "scur" in header else 0
    for line in lines:
        row = line.split(",", place + 1)  # of a hundred columns
        if len(row) > place and re.fullmatch(r"s\d{5}", row[0]):
            found.setdefault(row[0], {})[row[1]] = int(row[place] or 0)
    return found


def parse_sessions(text: str) -> list[tuple[str, str]]:
    """`show sess`: (session, source address:port) of the client side of each stream on the edge."""
    return re.findall(r"^(0x[0-9a-f]+): .*?src=(\S+) fe=edge", text, re.MULTILINE)


async def _exchange(socket: Path, command: str) -> str:
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(command.encode() + b"\n")
                await writer.drain()
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError) as problem:
        raise RuntimeFailed(f"HAProxy does not answer on {socket.name}: {problem!r}") from problem
