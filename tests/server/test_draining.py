"""Guards `server.draining`: clients of a stopping server are told, answered until they go, and leave one by one."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedOK

from server.admission import Refusal
from server.connection import Connection
from server.draining import GRACE_SECONDS, spread
from server.messages import Welcome
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import Clock, Device
from tests.server.raw import UNSEEN, Raw, dial, get


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are closed at the very moment at which they are to go."""
    monkeypatch.setattr("server.draining.GRACE_SECONDS", 0.0)


async def is_closed(client: Raw, reason: str = "the server is stopping") -> None:
    """The next thing that comes is the goodbye."""
    with pytest.raises(ConnectionClosedOK) as caught:
        await client.receive()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1001, reason)


async def test_clients_are_answered_until_they_go(start_held: ServerFactory, device: Device, clock: Clock) -> None:
    """Questions that were accepted, and those that come before the client has to go, are answered as ever."""
    async with start_held() as server, dial(server) as client, dial(server) as idle:
        url = server.url
        await client.ask("before", UNSEEN)
        first = await device.arrived.get()
        stopping = asyncio.create_task(server.stop())
        for one in (client, idle):
            assert (await one.receive())["type"] == "going_away"
        ready = await get(server, "/readyz")
        assert (ready.status, ready.facts["problem"]) == (503, "draining")
        await client.ask("after", f"{UNSEEN} again")
        second = await device.arrived.get()
        assert not stopping.done()
        for batch in (first, second):
            batch.finish()
        assert {(await client.receive())["id"] for _ in range(2)} == {"before", "after"}
        clock.now += GRACE_SECONDS + 1
        for one in (client, idle):
            await is_closed(one)
        assert await stopping
        with pytest.raises(ConnectionRefusedError):
            async with dial(url):
                pass


async def test_whoever_should_have_gone(start_held: ServerFactory, device: Device, impatient: None) -> None:
    """A client that stays beyond its moment gets the answers that it waits for, and may ask for no more."""
    async with start_held() as server, dial(server) as client:
        await client.ask("before", UNSEEN)
        batch = await device.arrived.get()
        stopping = asyncio.create_task(server.stop())
        assert (await client.receive())["type"] == "going_away"
        await client.flush()
        await client.ask("after", f"{UNSEEN} again")
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("after", "shutting_down", True)
        assert not stopping.done()
        batch.finish()
        assert (await client.receive())["id"] == "before"
        await is_closed(client)
        assert await stopping


async def test_stop_does_not_wait_for_ever(start_held: ServerFactory, device: Device) -> None:
    """What is not done when the time to stop is over is cancelled, and its client is told to go elsewhere."""
    async with start_held(drain_seconds=0) as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        await device.arrived.get()
        stopping = asyncio.create_task(server.stop())
        assert (await client.receive())["type"] == "going_away"
        await is_closed(client)
        device.let_go()
        await stopping


async def test_moments_are_spread(start_server: ServerFactory, impatient: None) -> None:
    """Every client is told once, and each of another moment; they go in that order."""
    gone: list[int] = []

    async def leaves(client: Raw) -> int:
        told = await client.receive()
        assert set(told) == {"type", "reconnect_after_ms"}
        assert told["type"] == "going_away"
        await is_closed(client)
        gone.append(told["reconnect_after_ms"])
        return gone[-1]

    async with start_server(closings_per_second=100) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dial(server)) for _ in range(20)]
        leaving = [asyncio.create_task(leaves(client)) for client in clients]
        assert await server.stop()
        assert sorted([await one for one in leaving]) == [10 * place for place in range(20)]


@given(st.integers(0, 2000), st.floats(0.01, 1e6), st.floats(0, 1e5))
def test_spread(count: int, per_second: float, most: float) -> None:
    """Moments come at the rate, or as fast as they must; none is before now, or too late, and each is another."""
    moments = sorted(spread(count, per_second, most))
    assert len(moments) == count
    assert all(0 <= moment <= most for moment in moments)
    if count > 1 and most > 0:
        apart = moments[1]
        assert apart == pytest.approx(min(1 / per_second, most / count))
        assert moments == pytest.approx([apart * place for place in range(count)])


async def test_going_away_while_greeted(start_held: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects in the moment in which the server begins to stop is greeted first, and then told, once."""
    greet = Connection._welcome
    stopping: list[asyncio.Task[bool]] = []

    def stop_then_greet(connection: Connection) -> Welcome:
        stopping.append(asyncio.create_task(server.stop()))
        return greet(connection)

    async with start_held() as server:
        monkeypatch.setattr(Connection, "_welcome", stop_then_greet)
        async with dial(server) as client:
            assert client.welcome["type"] == "welcome"
            assert (await client.receive())["type"] == "going_away"
            await is_closed(client)
        await stopping[0]


async def test_who_comes_too_late(start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose handshake was admitted just before is told to go elsewhere, in place of a welcome."""
    async with start_server() as server:
        refuse = server.reception.admission.refuse

        def begin_to_stop(client: str) -> Refusal | None:
            server.reception.close()
            return refuse(client)

        monkeypatch.setattr(server.reception.admission, "refuse", begin_to_stop)
        with pytest.raises(ConnectionClosedOK) as caught:
            async with dial(server):
                pass
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


async def test_client_that_does_not_answer_the_goodbye(
    start_server: ServerFactory, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopping server does not wait for ever for a client that says nothing more: it is cut off."""
    monkeypatch.setattr("server.app.CLOSE_SECONDS", 0.01)
    async with start_server(drain_seconds=0) as server, dial(server) as client:
        client.websocket.transport.pause_reading()
        assert await server.stop()
        client.websocket.transport.abort()
    told = [event["event"] for event in logs if event["log_level"] in {"warning", "error", "critical"}]
    assert told == ["clients that do not answer the goodbye are cut off"]


async def test_a_shared_port(start_server: ServerFactory, clock: Clock) -> None:
    """Where other processes have the port as well, a stopping one leaves it to them at once."""
    async with start_server() as server, dial(server) as client:
        url = server.url
        stopping = asyncio.create_task(server.stop(shared=True))
        assert (await client.receive())["type"] == "going_away"
        with pytest.raises(ConnectionRefusedError):
            async with dial(url):
                pass
        await client.flush()
        clock.now += GRACE_SECONDS + 1
        await is_closed(client)
        assert await stopping
