"""Which addresses a source may be asked at: private networks may hold a store, a machine's own metadata service never does.

What that service answers opens the node's role in its cloud; no tenant's setting may lead there, however it is written.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from deployments.sources.errors import SourceError

METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "192.0.0.192/32")
)


def check(url: str, what: str = "AWS_ENDPOINT_URL") -> None:
    """Raises SourceError AccessDenied for a URL that is not plain HTTP(S), or whose host is, or resolves to, such an address."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or 443
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    plain = parts.scheme in ("http", "https") and host and not parts.username and not parts.password and "\\" not in url
    if not plain or any(_is_metadata(address) for address in _addresses(host, port)):
        raise SourceError(f"{what} is not an address that models may come from: http(s)://host[:port]", "AccessDenied")


def _addresses(host: str, port: int) -> set[str]:
    """Those that the resolver gives, in whatever way the host is written; none when it gives none: nobody can be asked there."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def _is_metadata(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    return any(mapped in network for network in METADATA if network.version == mapped.version)
