"""Guards `server.expiring` over real sockets: a connection does not outlive its client's token."""

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.app import Server
from server.close_codes import EXPIRED
from server.tokens import LEEWAY_SECONDS
from tests.server.conftest import ServerFactory
from tests.server.fakes import Device, sample
from tests.server.raw import UNSEEN, dial
from tests.server.test_hello import closed
from tests.server.test_tokens import SECRET, by_secret, signed

# Where a client may show its token: as arguments of `dial`, and as its first message.
PLACES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "header": ({"additional_headers": {"Authorization": "Bearer sesame"}}, {"type": "hello"}),
    "subprotocol": ({"subprotocols": ["faqwire.v1", "faqwire.token.sesame"]}, {"type": "hello"}),
    "hello": ({}, {"type": "hello", "token": "sesame"}),
}


async def for_an_hour(token: str) -> datetime:
    """An `Authenticate` to which every token is valid for an hour."""
    return datetime.now(UTC) + timedelta(hours=1)


async def for_good(token: str) -> bool:
    """One to which every token is valid, and may be outlived."""
    return True


def look(server: Server, now: float) -> None:
    """What the chore does at a time of day."""
    for connection in list(server.reception.connections):
        connection.dismiss_if_expired(now)


@pytest.mark.parametrize(("handshake", "first"), PLACES.values(), ids=PLACES)
async def test_expiry(start_server: ServerFactory, handshake: dict[str, Any], first: dict[str, Any]) -> None:
    """Wherever it was shown: the connection lasts as long as the token, and ends with a code of its own, once."""
    async with start_server(authenticate=for_an_hour) as server, dial(server, **handshake) as client:
        await client.send(**first)
        await client.flush()
        look(server, time.time() + 3500)
        await client.flush()
        look(server, time.time() + 3601)
        look(server, time.time() + 3602)
        assert sample(server._metrics, "closings_total", reason="expired") == 1
        assert await closed(client) == (EXPIRED, "the token has expired; connect again with another one")


async def test_what_is_under_way_does_not_prolong_it(start_held: ServerFactory, device: Device) -> None:
    """Whoever always has a question in flight is closed all the same, and the question is dropped."""
    async with start_held(authenticate=for_an_hour) as server, dial(server) as client:
        await client.send(type="hello", token="sesame")
        await client.ask("1", UNSEEN)
        await device.arrived.get()
        look(server, time.time() + 3601)
        assert (await closed(client))[0] == EXPIRED


@pytest.mark.parametrize("authenticate", [for_good, None])
async def test_without_an_end(start_server: ServerFactory, authenticate: Any) -> None:
    """Where a token may be outlived, or none is needed, no time of day ends a connection."""
    async with start_server(authenticate=authenticate) as server, dial(server) as client:
        await client.send(type="hello", token="sesame")
        await client.flush()
        look(server, 1e300)
        await client.flush()


async def test_who_has_not_shown_it_yet(start_server: ServerFactory) -> None:
    """A client whose `hello` is still to come has no token that could expire."""
    async with start_server(authenticate=for_an_hour) as server, dial(server) as client:
        [connection] = server.reception.connections
        assert connection._websocket.expires == math.inf
        look(server, 1e300)
        await client.send(type="hello", token="sesame")
        await client.flush()


async def test_the_chore_runs(start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running server ends them of itself."""

    async def expired(token: str) -> datetime:
        return datetime.now(UTC)

    monkeypatch.setattr("server.expiring.LOOK_SECONDS", 0.01)
    async with start_server(authenticate=expired) as server, dial(server) as client:
        await client.send(type="hello", token="sesame")
        assert (await closed(client))[0] == EXPIRED


async def test_tokens_say_until_when() -> None:
    """A JSON Web Token is valid until its `exp`, and for as long as clocks may differ; a date has an end."""
    exp = int(time.time()) + 100
    verdict = await by_secret(signed(seconds=100, exp=exp))
    assert verdict == datetime.fromtimestamp(exp + LEEWAY_SECONDS, UTC)
    for far in (10**12, 10**30):
        verdict = await by_secret(signed(SECRET, exp=far))
        assert isinstance(verdict, datetime)
        assert verdict.year == 9999
