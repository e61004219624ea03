"""Guards `feedback` over real sockets: it is accepted once it is recorded, and not before."""

import asyncio
from dataclasses import dataclass, field

import pytest

from server.app import Server
from server.errors import NotStored
from server.messages import MAX_COMMENT
from server.recorder import Asked, Feedback
from tests.server.conftest import Events, ServerFactory
from tests.server.fakes import until
from tests.server.raw import Raw, dial
from tests.server.test_counting import scraped


@dataclass
class Book:
    """A sink that records when the test says so.

    Attributes:
        open: lets records through.
        problem: what recording fails with, or None.
        begun, kept: what feedback reached it, and what was recorded.
        asks: what was asked.
    """

    open: asyncio.Event = field(default_factory=asyncio.Event)
    problem: Exception | None = None
    begun: list[Feedback] = field(default_factory=list)
    kept: list[Feedback] = field(default_factory=list)
    asks: list[Asked] = field(default_factory=list)

    def asked(self, record: Asked) -> None:
        """See `Recorder.asked`."""
        self.asks.append(record)

    async def feedback(self, record: Feedback) -> None:
        """See `Recorder.feedback`."""
        self.begun.append(record)
        await self.open.wait()
        if self.problem is not None:
            raise self.problem
        self.kept.append(record)


@pytest.fixture
async def book() -> Book:
    """A sink that holds what comes."""
    return Book()


async def send(client: Raw, request_id: str = "f", ref: str = "R", *, helpful: bool = True, **more: object) -> None:
    """Send a feedback."""
    await client.send(type="feedback", id=request_id, ref=ref, helpful=helpful, **more)


async def test_accepted_once_recorded(start_server: ServerFactory, book: Book) -> None:
    """`accepted` comes when the feedback has been recorded, with all that is known of it; it is counted then."""
    async with start_server(recorder=book, metrics_port=0) as server, dial(server) as client:
        await client.send(type="hello", client="widget/1.2", locale="de-CH", visitor="v7")
        await client.ask("1", "Where is my order?")
        ref = (await client.receive())["ref"]
        await send(client, ref=ref, helpful=False, comment="It is late.")
        await until(lambda: bool(book.begun))
        await client.flush()
        assert (await scraped(server))("feedback_total", opinion="unhelpful") == 0
        book.open.set()
        assert await client.receive() == {"type": "accepted", "id": "f"}
        (asked,), (said,) = book.asks, book.kept
        assert said == Feedback(ref, asked.connection, "v7", helpful=False, comment="It is late.")
        await client.flush()
        assert (await scraped(server))("feedback_total", opinion="unhelpful") == 1


async def test_answers_are_recorded(start_server: ServerFactory, book: Book) -> None:
    """Each as it was given, those of one connection under one id; what ends as an error is not."""
    async with start_server(recorder=book) as server, dial(server) as client:
        first = await client.reply_to("1", "Where is my order?")
        second = await client.reply_to("2", "zzz qqq")
        await client.reply_to("3", " ")
    assert [(asked.ref, asked.text, asked.decision, asked.visitor) for asked in book.asks] == [
        (first["ref"], "Where is my order?", first["decision"], None),
        (second["ref"], "zzz qqq", second["decision"], None),
    ]
    one, other = book.asks
    assert one.connection == other.connection
    assert one.entry == first["entry"]["id"]
    assert (one.confidence, one.confirmation) == (first["confidence"], first["confirmation"])
    assert (one.total_ms, one.index_version) == (first["timing_ms"]["total"], first["index"])


async def test_least_feedback(start_server: ServerFactory, book: Book) -> None:
    """A comment and a visitor may be absent."""
    book.open.set()
    async with start_server(recorder=book) as server, dial(server) as client:
        await send(client)
        assert (await client.receive())["type"] == "accepted"
    (said,) = book.kept
    assert (said.ref, said.visitor, said.helpful, said.comment) == ("R", None, True, None)


async def test_nothing_is_recorded_here(server: Server) -> None:
    """Without a recorder feedback is refused in words that say so, and never accepted."""
    async with dial(server) as client:
        await send(client)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("f", "not_recorded", False)
        await client.flush()


async def test_failed_recording(start_server: ServerFactory, book: Book, logs: Events) -> None:
    """What cannot be recorded is not accepted; the log says why, the client only that."""
    book.open.set()
    book.problem = OSError("the disk is full")
    async with start_server(recorder=book, metrics_port=0) as server, dial(server) as client:
        await send(client)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("f", "internal", True)
        assert "disk" not in error["message"]
        await client.flush()
        value = await scraped(server)
        assert value("feedback_total", opinion="helpful") == 0
        assert value("errors_total", code="internal") == 1
        book.problem = None
        await send(client)
        assert (await client.receive())["type"] == "accepted"
    assert [(event["event"], event["id"]) for event in logs if event["log_level"] == "error"] == [
        ("message failed", "f")
    ]


async def test_what_is_not_stored_may_be_sent_again(start_server: ServerFactory, book: Book, logs: Events) -> None:
    """The recorder's own reason, which may name files, stays in the log."""
    book.open.set()
    book.problem = NotStored("/var/journal.db: the disk is full")
    async with start_server(recorder=book) as server, dial(server) as client:
        await send(client)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("f", "recording_failed", True)
        assert "/var" not in error["message"]
        book.problem = None
        await send(client)
        assert (await client.receive())["type"] == "accepted"
    assert [event["event"] for event in logs if event["log_level"] == "warning"] == ["feedback is not recorded"]


async def test_ids_are_those_of_questions(start_server: ServerFactory, book: Book) -> None:
    """Feedback in flight holds its id and a place, and cannot be cancelled; afterwards both are free."""
    async with start_server(recorder=book, max_in_flight=1) as server, dial(server) as client:
        await send(client, "1")
        await client.ask("1", "Where is my order?")
        error = await client.receive()
        assert (error["id"], error["code"]) == (None, "duplicate_id")
        await send(client, "2")
        error = await client.receive()
        assert (error["id"], error["code"]) == ("2", "too_many_in_flight")
        await client.send(type="cancel", id="1")
        error = await client.receive()
        assert (error["id"], error["code"]) == (None, "not_in_flight")
        book.open.set()
        assert await client.receive() == {"type": "accepted", "id": "1"}
        await send(client, "1")
        assert (await client.receive())["type"] == "accepted"
    assert len(book.kept) == 2


async def test_long_comments(start_server: ServerFactory, book: Book) -> None:
    """The longest comment is recorded whole; a longer one is refused whole."""
    book.open.set()
    async with start_server(recorder=book) as server, dial(server) as client:
        await send(client, comment="é" * MAX_COMMENT)
        assert (await client.receive())["type"] == "accepted"
        await send(client, comment="x" * (MAX_COMMENT + 1))
        error = await client.receive()
        assert (error["id"], error["code"]) == ("f", "invalid_message")
    assert [len(said.comment or "") for said in book.kept] == [MAX_COMMENT]


async def test_a_stopping_server_records_what_it_has_taken(
    start_server: ServerFactory, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has taken is recorded and accepted; what comes too late is refused, to be given to another server."""
    monkeypatch.setattr("server.draining.GRACE_SECONDS", 0.0)
    async with start_server(recorder=book) as server, dial(server) as client:
        await send(client, "before")
        await until(lambda: bool(book.begun))
        stopping = asyncio.create_task(server.stop())
        assert (await client.receive())["type"] == "going_away"
        await client.flush()
        await send(client, "after")
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("after", "shutting_down", True)
        book.open.set()
        assert await client.receive() == {"type": "accepted", "id": "before"}
        await stopping
    assert len(book.kept) == 1
