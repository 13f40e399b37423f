"""Which running streams are cut when what keys may call, or from where, is less than before."""

import pytest

from cluster import snapshot
from gateway import withdrawal

PRIVATE = snapshot.Endpoint("e1", "acme", "chat-one", "running", type=snapshot.PRIVATE, networks=("192.0.2.0/24", "2001:db8::/32"))
KEY = snapshot.Key("k1", "p", "acme", role="member")
NOW = snapshot.Snapshot(1, {PRIVATE.path: PRIVATE}, {"digest": KEY})


@pytest.mark.parametrize(
    ("peer", "goes_on"),
    [
        ("192.0.2.7:4711", True),
        ("::ffff:192.0.2.7:4711", True),
        ("2001:db8::7:4711", True),
        ("198.51.100.7:4711", False),
        ("::ffff:198.51.100.7:4711", False),
        ("2001:db9::7:4711", False),
    ],
)
def test_a_stream_to_a_private_endpoint_goes_on_from_its_networks_alone(peer, goes_on):
    """A socket for both protocols, as MOORAGE_HOST=:: makes it, writes a client's IPv4 address as one of IPv6."""
    assert withdrawal.doomed([withdrawal.Live("k1", PRIVATE.path, peer)], NOW, 0.0) == (set() if goes_on else {peer})
