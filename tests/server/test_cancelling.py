"""Guards `cancel` over real sockets: a question ends once, its work stops, and nothing else is touched."""

from typing import Any

from export.bundle import Bundle
from export.runtime.cross_encoder import CrossEncoder
from export.runtime.session import CPU
from export.runtime.session import Device as Hardware
from server.engine import Engine
from tests.intents.small import confirming
from tests.server.conftest import ServerFactory
from tests.server.fakes import Device, HeldEngine, until
from tests.server.raw import UNSEEN, Raw, dial
from tests.server.test_counting import scraped


async def refused(client: Raw, request_id: str) -> None:
    """Cancel what is not in flight; the error must not look like any question's end."""
    await client.send(type="cancel", id=request_id)
    error = await client.receive()
    assert (error["type"], error["id"], error["code"], error["retryable"]) == ("error", None, "not_in_flight", False)
    assert repr(request_id) in error["message"]


async def test_a_waiting_question(start_held: ServerFactory, device: Device) -> None:
    """What is cancelled while it waits ends in one `cancelled`, never reaches the model, and counts as cancelled."""
    async with start_held(metrics_port=0) as server, dial(server) as client:
        lanes = server._engine.encoder.sessions
        await client.occupy(device, lanes)
        await client.ask("1", UNSEEN)
        await client.send(type="cancel", id="1")
        assert await client.receive() == {"type": "cancelled", "id": "1"}
        assert server._running.pipeline._encode.waiting == 0
        device.let_go()
        assert {(await client.receive())["type"] for _ in range(lanes)} == {"answer"}
        await client.flush()
        assert len(device.seen) == lanes
        value = await scraped(server)
        assert value("message_seconds_count", type="cancelled") == 1
        assert value("dropped_total", model="bi-encoder", cause="cancelled") == 1


async def test_a_question_on_the_device(start_held: ServerFactory, device: Device) -> None:
    """What runs already ends at once all the same, and what comes of it is dropped."""
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        await client.send(type="cancel", id="1")
        assert await client.receive() == {"type": "cancelled", "id": "1"}
        batch.finish()
        await client.flush()


async def test_a_question_that_is_confirmed(start_server: ServerFactory, engine: Engine, cross_bundle: Bundle) -> None:
    """What is cancelled between the models never reaches the second one once its end has been written."""
    sessions = engine.encoder.sessions
    cross_encoder = CrossEncoder(cross_bundle, "fp32", Hardware(CPU), max_tokens=32, sessions=sessions)
    device = Device()
    held = HeldEngine(engine.encoder, confirming(engine.index), engine.search, cross_encoder, confirming=device)
    async with start_server(engine=held, max_batch=1) as server, dial(server) as client:
        score = server._running.pipeline._score
        assert score is not None
        await client.ask("patient", UNSEEN)
        first, *_ = [await device.arrived.get() for _ in range(sessions)]
        patient = len(device.seen) + score.waiting  # its candidates, one in a batch
        await client.ask("urgent", f"{UNSEEN} now", budget_ms=5000)
        await until(lambda: server._running.pipeline._encode.waiting == 1)
        first.finish([0.0])
        await until(lambda: len(device.seen) + score.waiting > patient + 1)
        await client.send(type="cancel", id="urgent")
        assert await client.receive() == {"type": "cancelled", "id": "urgent"}
        device.let_go()
        assert (await client.receive())["id"] == "patient"
        await client.flush()
        assert len(device.seen) <= patient + 1  # a lane may have begun with one of the urgent one's


async def test_an_id_is_free_again(start_held: ServerFactory, device: Device) -> None:
    """A cancelled question's id may be used at once, and its new question is answered once."""
    async with start_held() as server, dial(server) as client:
        await client.ask("1", UNSEEN)
        first = await device.arrived.get()
        await client.send(type="cancel", id="1")
        await client.ask("1", f"{UNSEEN} now")
        assert await client.receive() == {"type": "cancelled", "id": "1"}
        second = await device.arrived.get()
        first.finish()
        await client.flush()
        second.finish()
        assert (await client.receive())["type"] == "answer"
        await client.flush()


async def test_others_who_wait_for_the_same(start_held: ServerFactory, device: Device) -> None:
    """One client's cancelling of a computation that two share is not the other's."""
    async with start_held() as server, dial(server) as one, dial(server) as other:
        await one.ask("1", UNSEEN)
        batch = await device.arrived.get()
        await other.ask("1", UNSEEN)
        await other.flush()
        await one.send(type="cancel", id="1")
        assert (await one.receive())["type"] == "cancelled"
        batch.finish()
        assert (await other.receive())["type"] == "answer"


async def test_all_in_one_breath(start_held: ServerFactory, device: Device) -> None:
    """A question and its cancelling that come together end in `cancelled`; the second cancelling comes too late."""
    async with start_held() as server, dial(server) as client:
        for kind in ("ask", "cancel", "cancel"):
            await client.send(type=kind, id="1", text=f"{UNSEEN} now")
        assert (await client.receive())["type"] == "cancelled"
        assert (await client.receive())["code"] == "not_in_flight"
        await client.flush()


async def test_what_is_not_in_flight(start_held: ServerFactory, device: Device) -> None:
    """An id that was never asked, or is answered already, is refused without naming it; what is in flight goes on."""
    async with start_held() as server, dial(server) as client:
        await refused(client, "never")
        await client.ask("1", "Where is my order?")
        assert (await client.receive())["type"] == "answer"
        await refused(client, "1")
        await client.ask("2", UNSEEN)
        batch = await device.arrived.get()
        await refused(client, "1")
        batch.finish()
        assert (await client.receive())["id"] == "2"


async def test_other_connections_questions(start_held: ServerFactory, device: Device) -> None:
    """A client cannot cancel what another one has asked."""
    async with start_held() as server, dial(server) as client, dial(server) as other:
        await client.ask("1", UNSEEN)
        batch = await device.arrived.get()
        await refused(other, "1")
        batch.finish()
        assert (await client.receive())["type"] == "answer"


async def test_every_question_ends_once(start_server: ServerFactory) -> None:
    """Whatever a client cancels and when, each of its questions ends exactly once."""
    count = 50
    async with start_server(max_in_flight=count) as server, dial(server) as client:
        for number in range(count):
            await client.ask(f"{number}", f"{UNSEEN}, number {number}")
        for number in range(0, count, 2):
            await client.send(type="cancel", id=f"{number}")
        ended: list[int] = []
        cancels = 0
        while len(ended) < count or cancels < count / 2:
            reply: dict[str, Any] = await client.receive()
            cancels += reply["type"] != "answer"
            if reply["type"] == "error":
                assert (reply["id"], reply["code"]) == (None, "not_in_flight")
            else:
                ended.append(int(reply["id"]))
        await client.flush()
    assert sorted(ended) == list(range(count))
