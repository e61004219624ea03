"""Guards the journal as a server keeps it: over real sockets, in a real file."""

import sqlite3
from pathlib import Path

import pytest

from server.errors import JournalError
from tests.server.conftest import Events, ServerFactory
from tests.server.journal.records import query
from tests.server.raw import dial, get


async def test_what_is_asked_and_said_is_in_the_journal(start_server: ServerFactory, tmp_path: Path) -> None:
    """Once the server has stopped all of it is there, without addresses and numbers, and under one ref."""
    path = tmp_path / "journal.db"
    async with start_server(journal=str(path)) as server, dial(server) as client:
        await client.send(type="hello", visitor="v7")
        answer = await client.reply_to("1", "Where is my order? write to anna@example.org")
        await client.send(type="feedback", id="f", ref=answer["ref"], helpful=False, comment="call 0171 2345678")
        assert await client.receive() == {"type": "accepted", "id": "f"}
    asks = query(path, "select ref, visitor, text, decision, entry from asks")
    entry = None if answer["entry"] is None else answer["entry"]["id"]
    assert asks == [(answer["ref"], "v7", "Where is my order? write to [email]", answer["decision"], entry)]
    said = query(path, "select ref, visitor, helpful, comment from feedback")
    assert said == [(answer["ref"], "v7", False, "call [phone]")]


async def test_a_damaged_journal_refuses_the_start(start_server: ServerFactory, tmp_path: Path) -> None:
    """Before anybody can connect; what is there is left as it is."""
    path = tmp_path / "journal.db"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(JournalError, match=r"journal\.db"):
        async with start_server(journal=str(path), metrics_port=0):
            pass
    assert path.read_bytes() == b"no database " * 1000


async def test_a_journal_that_cannot_be_written_is_told_of(
    start_server: ServerFactory, tmp_path: Path, logs: Events
) -> None:
    """A server without its journal answers, says that it is degraded, and accepts no feedback."""
    del logs
    path = tmp_path / "journal.db"
    async with start_server(journal=str(path)) as server, dial(server) as client:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        await client.send(type="feedback", id="f", ref="R", helpful=True)
        error = await client.receive()
        assert (error["id"], error["code"], error["retryable"]) == ("f", "recording_failed", True)
        assert (await client.reply_to("1", "Where is my order?"))["type"] == "answer"
        ready = await get(server, "/readyz")
        assert ready.facts["degraded"]
        assert ready.facts["problem"] is None
        holder.close()
