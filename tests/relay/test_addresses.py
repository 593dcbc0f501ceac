"""An address as it is counted: without port and mapping, and of IPv6 the network, since one household has 2^64 of them."""

from __future__ import annotations

import pytest

from sidecar.relay.server import _network_of, _plain


@pytest.mark.parametrize(
    ("hop", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7:4711 ", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:443", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("unknown", ""),
        ("_hidden:1", ""),
        ("", ""),
    ],
)
def test_an_address_as_proxies_write_it(hop: str, address: str) -> None:
    assert _plain(hop) == address


def test_neighbours_of_one_network_are_one_stranger() -> None:
    assert _network_of("2001:db8:1:2::7") == _network_of("2001:db8:1:2:ffff::8") == "2001:db8:1:2::/64"
    assert _network_of("2001:db8:1:2::7") != _network_of("2001:db8:1:3::7")
    assert _network_of("192.0.2.7") == "192.0.2.7"
    assert _network_of("") == ""
