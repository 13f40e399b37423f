"""What HAProxy should hold for a snapshot, and the runtime commands that get it there. Pure: talking to HAProxy is `runtime`'s.

A *slot* is one of HAProxy's empty numbered backends. An endpoint with replicas has one and keeps it for as long as that
slot has servers, so that the assignment can be read back from HAProxy alone.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import re
from collections.abc import Iterable, Iterator, Mapping

from cluster import routes, snapshot
from gateway import access, blocks, config, members

log = logging.getLogger(__name__)

NO_SLOT = "-"
SAFE = re.compile(r"[A-Za-z0-9._:@/+=~-]*")
"""What a map's value or a server's name may be made of: nothing that HAProxy's command line or our fields give a meaning."""

SAFE_ENTRY = re.compile(r"[A-Za-z0-9._:@/+=~|*-]*")
"""The same for whole entries, whose fields are parted by `|`."""

Maps = Mapping[str, Mapping[str, str]]
Servers = Mapping[str, Mapping[str, "Server"]]
MAPS = ("keys", "endpoints", "adapters", "secrets", "nets", "endpoint_nets", "members", "grants", "shares", "blocks")
"""The maps that are programmed; `allow` is written once."""


class OutOfSlots(Exception):
    """More endpoints have replicas than there are slots."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        super().__init__(f"{needed} slots are needed")


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One engine server in a slot. `max_concurrency` None = not known (read back from HAProxy, which does not tell)."""

    address: str
    port: int
    weight: int = 100
    max_concurrency: int | None = 0
    draining: bool = False

    def line(self, name: str) -> str:
        """The words after `server`/`add server slot/`, the same at run time and in the file of a reload."""
        limit = f" maxconn {self.max_concurrency}" if self.max_concurrency else ""
        checks = "check inter 1s fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down"
        # Idle connections keep a server from being deleted; they go soon.
        return f"{name} {_host(self.address)}:{self.port} {checks} pool-purge-delay 2s{limit} weight {self.weight}"


@dataclasses.dataclass(frozen=True)
class Program:
    """What HAProxy holds or should hold: `maps` by name, `servers` by slot and name."""

    maps: Maps = dataclasses.field(default_factory=dict)
    servers: Servers = dataclasses.field(default_factory=dict)

    @property
    def assigned(self) -> dict[str, str]:
        """ns/name -> slot."""
        slots = ((path, value.split("|", 1)[0]) for path, value in self.maps.get("endpoints", {}).items())
        return {path: slot for path, slot in slots if slot != NO_SLOT}

    def keeping(self, existing: Servers) -> Program:
        """The same without the servers that `existing` does not have."""
        kept = {slot: {name: row for name, row in rows.items() if name in existing.get(slot, {})} for slot, rows in self.servers.items()}
        return Program(self.maps, kept)


KEY_FIELDS = 11

Known = dict[str, tuple[snapshot.Endpoint, str, str]]
"""ns/name -> an endpoint that was found sound, its slot and its entry: making a thousand of them anew takes longer than a change may."""


def program(
    now: snapshot.Snapshot,
    held: Program,
    pool: int,
    keys: Mapping[str, str] | None = None,
    known: Known | None = None,
    gateways: int = 1,
) -> Program:
    """The program for `now`, given what HAProxy holds and its number of slots. Raises OutOfSlots.

    `keys` is `key_map(now.keys, gateways)` where the caller has it: making it anew takes 150 ms with 100,000 keys. `known` is kept by
    the caller from one call to the next with the same `gateways`, and changed here. Of every limit this gateway enforces its part.
    """
    before = {} if known is None else known
    sound = {path: row for path, row in now.endpoints.items() if (path in before and before[path][0] is row) or _sound(row)}
    endpoints = members.slots(sound)
    slots = assign(endpoints.values(), held, pool)
    made = {path: _made(row, slots.get(path, NO_SLOT), before.get(path), gateways) for path, row in endpoints.items()}
    if known is not None:
        known.clear()
        known.update(made)
    servers = {slot: _servers(endpoints[path]) for path, slot in slots.items()}
    nets, endpoint_nets = _networks(sound.values())
    texts = {path: text for path, (_, _, text) in made.items()}
    maps = {
        "keys": key_map(now.keys, gateways) if keys is None else keys,
        "endpoints": {**texts, **{row.path: _choosing(row, texts) for row in sound.values() if row.members}},
        "grants": _safe(access.grants_map(now.grants)),
        "shares": _safe(access.shares_map(row for row in sound.values() if row.shared_with)),
        "blocks": _safe(blocks.entries(now.blocks)),
        "adapters": {f"{row.path}:{name}": "1" for row in sound.values() for name in row.adapters},
        "secrets": {slot: endpoints[path].engine_secret for path, slot in slots.items()},
        "nets": nets,
        "endpoint_nets": endpoint_nets,
        "members": members.asked(sound),
    }
    return Program(maps, servers)


def key_map(keys: Mapping[str, snapshot.Key], gateways: int = 1) -> dict[str, str]:
    """Digest -> `id|mark|namespace|endpoint|tenant|scope|expires|requests per minute|concurrency|` and both as they are in all.

    `mark` is `access.mark`, `expires` in Unix seconds or 0. A key with a text that the edge cannot hold is left out.
    """
    return {digest: entry for digest, row in keys.items() if (entry := _key(row, gateways)) is not None}


def change_keys(held: dict[str, str], now: Mapping[str, snapshot.Key], digests: Iterable[str], file: str, gateways: int = 1) -> list[str]:
    """Makes `held` (a `key_map`) agree with `now` for these digests; returns the runtime commands that do the same in HAProxy."""
    commands = []
    for digest in digests:
        row, before = now.get(digest), held.get(digest)
        value = None if row is None else _key(row, gateways)
        if value is None and before is not None:
            del held[digest]
            commands.append(f"del map {file} {digest}")
        elif value is not None and value != before:
            held[digest] = value
            commands.append(f"{'add' if before is None else 'set'} map {file} {digest} {value}")
    return sorted(commands, key=lambda command: not command.startswith("del"))


def _key(row: snapshot.Key, gateways: int) -> str | None:
    expires = max(1, int(row.expires_at)) if row.expires_at else 0
    who = f"{row.id}|{access.mark(row)}|{row.namespace}|{row.endpoint}|{row.tenant}|{row.scope}|{expires}"
    limits = f"{part(row.requests_per_minute, gateways)}|{part(row.concurrency, gateways)}"
    entry = f"{who}|{limits}|{row.requests_per_minute}|{row.concurrency}"
    if SAFE_ENTRY.fullmatch(entry) and entry.count("|") == KEY_FIELDS - 1:
        return entry
    log.error("key %s is left out: it has texts that the edge cannot hold", row.id)
    return None


def part(limit: int, gateways: int) -> int:
    """What one of so many gateways lets through of a limit, rounded up; 0 = no limit."""
    return -(-limit // max(1, gateways))


def _safe(entries: Mapping[str, str]) -> dict[str, str]:
    found = {key: value for key, value in entries.items() if SAFE_ENTRY.fullmatch(key) and SAFE_ENTRY.fullmatch(value)}
    if len(found) < len(entries):
        log.error("%d grants, shares or blocks are left out: they have texts that the edge cannot hold", len(entries) - len(found))
    return found


def assign(endpoints: Iterable[snapshot.Endpoint], held: Program, pool: int) -> dict[str, str]:
    """ns/name -> slot for the endpoints that need one: with replicas, or with servers still in their slot. Raises OutOfSlots."""
    occupied = {slot for slot, servers in held.servers.items() if servers}
    previous = held.assigned
    slots, wanting = {}, []
    for row in endpoints:
        if not row.replicas and not previous:
            continue
        slot = previous.get(row.path)
        if slot is not None and (row.replicas or slot in occupied):
            slots[row.path] = slot
        elif row.replicas:
            wanting.append(row.path)
    taken = occupied | set(slots.values())
    if len(taken) + len(wanting) > pool:
        raise OutOfSlots(len(taken) + len(wanting))
    free = (slot for slot in config.slot_names(pool) if slot not in taken)
    slots.update(zip(wanting, free, strict=False))
    return slots


def diff(held: Program, wanted: Program, file: Mapping[str, str]) -> list[str]:
    """Runtime commands from `held` to `wanted`; `file` says what HAProxy calls each map.

    Order matters: keys go first, a slot knows its secret before it has servers and has servers before an endpoint points
    at it. Servers that left are drained here; they are deleted when nothing runs on them (see `leftovers`).
    """
    commands = list(_map_changes(held, wanted, "keys", file))
    commands += _map_changes(held, wanted, "secrets", file)
    commands += _server_changes(held, wanted)
    for name in ("grants", "shares", "blocks", "endpoint_nets", "nets", "endpoints", "adapters", "members"):
        commands += _map_changes(held, wanted, name, file)
    return commands


def leftovers(held: Program, wanted: Program) -> list[tuple[str, str]]:
    """(slot, server) pairs that HAProxy holds and nobody wants any more."""
    return [(slot, name) for slot, servers in held.servers.items() for name in servers if name not in wanted.servers.get(slot, {})]


def reached(held: Program, wanted: Program) -> Program:
    """What HAProxy holds after the commands of `diff`: what is wanted, plus leftovers that drain."""
    servers = {slot: dict(rows) for slot, rows in wanted.servers.items()}
    for slot, name in leftovers(held, wanted):
        servers.setdefault(slot, {})[name] = dataclasses.replace(held.servers[slot][name], draining=True)
    return Program(wanted.maps, servers)


def static_lines(held: Program) -> dict[str, list[str]]:
    """`server` lines per slot for the file of a reload: a server that drains gets no weight there."""
    return {
        slot: ["server " + dataclasses.replace(row, weight=0 if row.draining else row.weight).line(name) for name, row in rows.items()]
        for slot, rows in held.servers.items()
    }


def server_name(replica_id: str) -> str:
    """A replica's name in HAProxy: its id, in the characters that a server's name may have."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", replica_id)


def _sound(row: snapshot.Endpoint) -> bool:
    """Whether every text of `row` can stand in a map. One endpoint that cannot must not stop the others."""
    own = (row.namespace, row.name, row.type, row.engine_secret, row.default_route)
    texts = (*own, *(replica.host for replica in row.replicas), *row.adapters, *(member.name for member in row.members))
    if all(SAFE.fullmatch(text) for text in texts) and all(map(_is_network, row.networks)):
        return True
    log.error("endpoint %s is left out: it has texts that the edge cannot hold", row.id)
    return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _made(
    row: snapshot.Endpoint, slot: str, before: tuple[snapshot.Endpoint, str, str] | None, gateways: int
) -> tuple[snapshot.Endpoint, str, str]:
    return before if before is not None and before[0] is row and before[1] == slot else (row, slot, _endpoint(row, slot, gateways))


def _endpoint(row: snapshot.Endpoint, slot: str, gateways: int) -> str:
    """`slot|type|mark|most at once|secret|default route`, then `1` for routes of its own, then its own limits where it has any.

    The usual way passes by all endpoints whose mark is not 0: 1 = bound to networks, `l` before it = with limits, `m` = with members.
    """
    limited = bool(row.requests_per_minute or row.concurrency)
    mark = f"{'l' if limited else ''}{int(row.type == snapshot.PRIVATE and bool(row.networks))}"
    route = row.default_route if row.own_routes else routes.ALLOWED.get(f"POST:{row.default_route}", "/v1/chat/completions")
    fields = [slot, row.type, mark, str(row.max_concurrency), row.engine_secret, route]
    if row.own_routes or limited:
        fields.append("1" if row.own_routes else "")
    if limited:
        here = (part(row.requests_per_minute, gateways), part(row.concurrency, gateways))
        fields += map(str, (*here, row.requests_per_minute, row.concurrency))
    return "|".join(fields)


def _choosing(row: snapshot.Endpoint, texts: Mapping[str, str]) -> str:
    """The entry of an endpoint with members: that of its primary one, marked so that HAProxy looks at what a request names."""
    primary = members.slot(row, row.members[0].name).path
    slot, kind, mark, most, secret, route, *rest = texts[primary].split("|")
    return "|".join((slot, kind, f"m{mark.removeprefix('l')}", most, secret, route, primary, *rest[1:]))


def _servers(row: snapshot.Endpoint) -> dict[str, Server]:
    return {
        server_name(replica.id): Server(
            replica.host, replica.port, max(0, min(256, replica.weight)), max(0, replica.max_concurrency), replica.draining
        )
        for replica in row.replicas
    }


def _networks(endpoints: Iterable[snapshot.Endpoint]) -> tuple[dict[str, str], dict[str, str]]:
    """CIDR -> network id, and `ns/name|network id` -> 1. HAProxy finds one network (the longest) for an address, so an
    endpoint gets an entry for every known network inside one of its own."""
    private = [row for row in endpoints if row.type == snapshot.PRIVATE and row.networks]
    own = {row.path: [ipaddress.ip_network(text, strict=False) for text in row.networks] for row in private}
    known = {network for networks in own.values() for network in networks}
    ids = {network: str(network).replace(":", "_") for network in known}
    allowed = {
        f"{path}|{ids[network]}": "1"
        for path, networks in own.items()
        for network in known
        if any(network.version == outer.version and network.subnet_of(outer) for outer in networks)  # type: ignore[arg-type]
    }
    return {str(network): ids[network] for network in known}, allowed


def _map_changes(held: Program, wanted: Program, name: str, file: Mapping[str, str]) -> Iterator[str]:
    old, new = held.maps.get(name, {}), wanted.maps.get(name, {})
    if old is new:
        return
    for key in old:
        if key not in new:
            yield f"del map {file[name]} {key}"
    for key, value in new.items():
        before = old.get(key)
        if before is None:
            yield f"add map {file[name]} {key} {value}"
        elif before != value:
            yield f"set map {file[name]} {key} {value}"


def _server_changes(held: Program, wanted: Program) -> Iterator[str]:
    for slot, rows in wanted.servers.items():
        for name, row in rows.items():
            yield from _server_change(f"{slot}/{name}", name, held.servers.get(slot, {}).get(name), row)
    for slot, name in leftovers(held, wanted):
        if not held.servers[slot][name].draining:
            yield f"set server {slot}/{name} state drain"


def _server_change(path: str, name: str, before: Server | None, row: Server) -> Iterator[str]:
    if before is None:
        yield f"add server {path.removesuffix(name)}{row.line(name)}"
        yield f"enable server {path}"
        yield f"enable health {path}"
        before = dataclasses.replace(row, draining=False)
    if (before.address, before.port) != (row.address, row.port):
        yield f"set server {path} addr {row.address} port {row.port}"
    if before.max_concurrency != row.max_concurrency:
        yield f"set maxconn server {path} {row.max_concurrency or 0}"
    if before.weight != row.weight:
        yield f"set server {path} weight {row.weight}"
    if before.draining != row.draining:
        yield f"set server {path} state {'drain' if row.draining else 'ready'}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
