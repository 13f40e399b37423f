"""Media come from public addresses alone."""

import socket

import pytest

from deployments.public_hosts import NotPublic, PublicConnector, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:1.1.1.1", True),
        ("2002:7f00:1::", False),
    ],
)
def test_an_address_is_public_or_not(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "169.254.169.254", "internal.example", "mixed.example"])
async def test_what_leads_inside_is_refused_whatever_it_is_called(host, monkeypatch):
    names = {"internal.example": ["10.0.0.7"], "mixed.example": ["1.1.1.1", "127.0.0.1"]}

    async def resolve(self, name, port=0, family=socket.AF_INET):
        return [{"hostname": name, "host": ip, "port": port, "family": family, "proto": 0, "flags": 0} for ip in names[name]]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    monkeypatch.setattr("aiohttp.resolver.AsyncResolver.resolve", resolve)
    async with PublicConnector() as connector:
        with pytest.raises(NotPublic, match="not public"):
            await connector._resolve_host(host, 80)


async def test_a_public_address_is_connected_to():
    async with PublicConnector() as connector:
        assert [entry["host"] for entry in await connector._resolve_host("1.1.1.1", 80)] == ["1.1.1.1"]
