"""A client's address: a client cannot choose it, and a trusted proxy can tell it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.address import UNKNOWN, Proxies, group_of, parse_networks

PROXIES = Proxies(parse_networks(["10.0.0.0/8", "::1"]))
OUTSIDE = st.ip_addresses().map(str).filter(lambda text: not text.startswith("10.") and text != "::1")


def plain(address: str) -> str:
    """As it is written after it was read."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


@given(peer=OUTSIDE, forwarded=st.lists(st.text() | OUTSIDE, max_size=4))
def test_a_stranger_is_who_it_is(peer: str, forwarded: list[str]) -> None:
    """Whatever headers it sends."""
    assert PROXIES.client_of(peer, forwarded) == plain(peer)


@given(
    client=OUTSIDE,
    forged=st.lists(OUTSIDE | st.text(alphabet="abc.:", max_size=9), max_size=3),
    proxies=st.lists(st.sampled_from(["10.1.2.3", "10.9.9.9", "::1"]), max_size=3),
    apart=st.booleans(),
)
def test_trusted_proxies_tell_the_client(client: str, forged: list[str], proxies: list[str], apart: bool) -> None:  # noqa: FBT001
    """Through any number of them, in one header or several; what the client wrote before that is not read."""
    hops = [*forged, client, *proxies]
    forwarded = hops if apart else [", ".join(hops)]
    assert PROXIES.client_of("10.0.0.1", forwarded) == plain(client)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ['"[2001:db8::5]:4711"'], "2001:db8::5"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, "], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        (None, ["203.0.113.7"], UNKNOWN),
        ("", ["203.0.113.7"], UNKNOWN),
    ],
)
def test_addresses(peer: str | None, forwarded: list[str], expected: str) -> None:
    """With ports, zones and mapped addresses; a proxy that does not know stands for its client."""
    assert PROXIES.client_of(peer, forwarded) == expected


def test_a_network_of_ipv6_is_one_client() -> None:
    """For whoever has one address has a whole network; an IPv4 address is its own."""
    assert group_of("2001:db8:1:2:3:4:5:6") == group_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert group_of("2001:db8:1:3::9") != group_of("2001:db8:1:2::9")
    assert group_of("203.0.113.7") == "203.0.113.7"
    assert group_of(UNKNOWN) == UNKNOWN


@pytest.mark.parametrize("text", ["10.0.0.1/8", "nonsense", ""])
def test_what_is_no_network_is_refused(text: str) -> None:
    """A network with bits of an address in it is a mistake."""
    with pytest.raises(ValueError):  # noqa: PT011 the library's own sentences
        parse_networks([text])
