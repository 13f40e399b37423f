"""Connections to public addresses only: a name that a request chose may lead to an address inside the cluster's network.

Names are looked up once, and what is connected to is what was looked at, so that a name cannot change its mind in between.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import aiohttp


class NotPublic(ValueError):
    """The address is not public: media are fetched from the internet only, never from inside the network."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class PublicConnector(aiohttp.TCPConnector):
    """An aiohttp connector that raises NotPublic where any address of a host is a private, local or reserved one."""

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> Any:
        found = await super()._resolve_host(host, port, traces)
        if not all(is_public(entry["host"]) for entry in found):
            raise NotPublic
        return found


def is_public(address: str) -> bool:
    """Whether the internet has that address; also of IPv4 addresses in IPv6's clothes."""
    given = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(given, "ipv4_mapped", None) or getattr(given, "sixtofour", None)
    return (inner or given).is_global and not given.is_multicast
