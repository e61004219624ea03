"""Who a client is, by its address: its own word is never taken for it, a trusted proxy's is.

Each proxy appends to `X-Forwarded-For` the address that it was reached from. So the list is read from its end, as far
as those who wrote it are trusted: the first address that no trusted proxy has is the client's, and what stands before
it was written by the client.
"""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"
# A household or a server has a whole network of so many bits to choose its IPv6 addresses from.
IPV6_NETWORK = 64


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks, as "10.0.0.0/8" or "::1".

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ipaddress.ip_network(text) for text in texts)


class Proxies:
    """The proxies whose word on a client's address is taken.

    Args:
        trusted: their addresses.
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def have(self, peer: str) -> bool:
        """Whether the address at the other end of a connection is that of such a proxy."""
        address = _parse(peer)
        return address is not None and self._trusts(address)

    def client_of(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """The client's address.

        Args:
            peer: the address at the other end of the connection, None where it has none.
            forwarded: the values of the `X-Forwarded-For` headers, in order.

        Returns:
            The address, or `UNKNOWN`.
        """
        address = _parse(peer or "")
        if address is None:
            return UNKNOWN
        hops = [hop for value in forwarded for hop in value.split(",")]
        while hops and self._trusts(address):
            named = _parse(hops.pop())
            if named is None:  # a proxy that does not know: nobody else may tell
                break
            address = named
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


def group_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the network that an IPv6 address is in."""
    parsed = _parse(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address
    return str(ipaddress.ip_network((int(parsed), IPV6_NETWORK), strict=False))


def _parse(text: str) -> Address | None:
    """An address, perhaps with a port as some proxies write it."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
