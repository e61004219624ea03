"""A load client: asks a running server at a fixed rate or with a fixed number in flight, and reports how it fared.

    python -m bench.load ws://127.0.0.1:8765/ --messages banking77/test.csv --rate 500 --seconds 60
    python -m bench.load ws://127.0.0.1:8765/ --messages banking77/test.csv --in-flight 64 --seconds 10

At a rate the loop is open: messages are sent when they are due, whatever the server does, and times count from the
intended send, so that a server that stalls is charged for those it kept from being sent (Gil Tene's "coordinated
omission"). Intervals are exponential, seeded. With a number in flight the loop is closed: each reply sends the next.

The server takes only so many messages a second of one connection, and connections of one address: for a load, serve
with FAQWIRE_MESSAGES_PER_SECOND and FAQWIRE_MESSAGE_BURST at 1000000, and FAQWIRE_MAX_CONNECTIONS_PER_ADDRESS and
FAQWIRE_CONNECTION_BURST above `--connections`. What is refused otherwise shows as `rate_limited` in `errors`.

Prints one JSON object. `lost` is what had no end within the budget and `--patience`.
"""

import argparse
import asyncio
import csv
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from server.messages import SUBPROTOCOL

# Messages of one connection a second, and at once, for a server that is measured.
UNLIMITED = 1_000_000


class Reply(msgspec.Struct):
    """As much of a reply as is counted."""

    type: str
    id: str | None = None
    code: str | None = None
    decision: str | None = None
    confirmation: str | None = None
    timing_ms: dict[str, float] = {}


@dataclass
class Seen:
    """What came back; times in milliseconds."""

    sent: int = 0
    seconds: float = 0.0
    answered: list[float] = field(default_factory=list)
    at_server: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    confirmations: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    lost: int = 0


@dataclass
class Load:
    """One run.

    Args:
        connections: how many share the messages.
        budget_ms: each message's budget, or None for the server's.
        patience: seconds to wait for what is unanswered at the end.
    """

    connections: int
    budget_ms: int | None
    patience: float
    seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Reply)
        self._due: dict[str, float] = {}
        self._ended: set[str] = set()
        self._next = 0
        self._quiet = asyncio.Event()

    async def open_loop(self, url: str, texts: Iterator[str], rate: float, seconds: float, seed: int) -> Seen:
        """Send at a rate for some seconds; wait for what is unanswered."""
        intervals = random.Random(seed)  # noqa: S311 no secret
        sockets = await self._connect(url)
        readers = [asyncio.create_task(self._read(socket)) for socket in sockets]
        started = due = time.perf_counter()
        turn = cycle(sockets)
        while due - started < seconds:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            elif self._next % 32 == 0:
                await asyncio.sleep(0)  # behind time: replies must be read all the same
            await self._ask(next(turn), next(texts), due)
            due += intervals.expovariate(rate)
        self.seen.seconds = time.perf_counter() - started
        await self._finish(readers)
        return self.seen

    async def closed_loop(self, url: str, texts: Iterator[str], in_flight: int, count: int) -> Seen:
        """Send `count` messages, so many at a time."""
        sockets = await self._connect(url)
        limited = (text for _, text in zip(range(count), texts, strict=False))
        started = time.perf_counter()
        readers = [asyncio.create_task(self._read(socket, limited)) for socket in sockets]
        turn = cycle(sockets)
        for _, text in zip(range(in_flight), limited, strict=False):
            await self._ask(next(turn), text, time.perf_counter())
        await self._finish(readers)
        self.seen.seconds = time.perf_counter() - started
        return self.seen

    async def _connect(self, url: str) -> list[ClientConnection]:
        sockets = [
            await connect(url, subprotocols=[SUBPROTOCOL], compression=None, ping_interval=None)  # type: ignore[list-item]
            for _ in range(self.connections)
        ]
        for socket in sockets:
            await socket.recv()  # the welcome
        return sockets

    async def _ask(self, socket: ClientConnection, text: str, due: float) -> None:
        key = str(self._next)
        self._next += 1
        self._due[key] = due
        self.seen.sent += 1
        ask = {"type": "ask", "id": key, "text": text}
        if self.budget_ms is not None:
            ask["budget_ms"] = self.budget_ms  # type: ignore[assignment]
        await socket.send(json.dumps(ask))

    async def _read(self, socket: ClientConnection, texts: Iterator[str] | None = None) -> None:
        async for frame in socket:
            now = time.perf_counter()
            self._take(self._decoder.decode(frame), now)
            if texts is not None and (text := next(texts, None)) is not None:
                await self._ask(socket, text, now)
            if not self._due:
                self._quiet.set()

    def _take(self, reply: Reply, now: float) -> None:
        if reply.type == "going_away":
            return
        seen, key = self.seen, reply.id or ""
        due = self._due.pop(key, None)
        if due is None:
            seen.doubled += 1
            return
        milliseconds = 1000 * (now - due)
        if reply.type == "answer":
            seen.answered.append(milliseconds)
            seen.at_server.append(reply.timing_ms["total"])
            seen.decisions[reply.decision or ""] += 1
            seen.confirmations[reply.confirmation or ""] += 1
        else:
            seen.errors[reply.code or ""] += 1
            if reply.code == "overloaded":
                seen.refused.append(milliseconds)

    async def _finish(self, readers: list["asyncio.Task[None]"]) -> None:
        if self._due:
            self._quiet.clear()
            try:
                await asyncio.wait_for(self._quiet.wait(), self.patience)
            except TimeoutError:
                self.seen.lost = len(self._due)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def quantile(values: list[float], share: float) -> float | None:
    """The value that this share of them does not pass, or None where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def summary(seen: Seen, budget_ms: float) -> dict[str, object]:
    """A run's figures; shares are of what was sent."""
    inside = sum(milliseconds <= budget_ms for milliseconds in seen.answered)
    ends = len(seen.answered) + sum(seen.errors.values())
    return {
        "sent": seen.sent,
        "seconds": round(seen.seconds, 3),
        "rate": round(seen.sent / seen.seconds, 1),
        "inside_budget": inside / seen.sent,
        "of_answers_inside_budget": inside / len(seen.answered) if seen.answered else None,
        "goodput": round(inside / seen.seconds, 1),
        "ms": {f"p{100 * share:g}": quantile(seen.answered, share) for share in (0.5, 0.99, 0.999)},
        "server_ms": {f"p{100 * share:g}": quantile(seen.at_server, share) for share in (0.5, 0.99, 0.999)},
        "refused_ms": {"p50": quantile(seen.refused, 0.5), "p99": quantile(seen.refused, 0.99)},
        "errors": dict(seen.errors),
        "decisions": dict(seen.decisions),
        "confirmations": dict(seen.confirmations),
        "ended": ends,
        "doubled": seen.doubled,
        "lost": seen.lost,
    }


def main() -> None:
    """Run the load that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the server")
    parser.add_argument("--messages", type=Path, required=True, help="CSV with a column `text`")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--rate", type=float, help="messages a second, open loop")
    how.add_argument("--in-flight", type=int, help="messages at a time, closed loop")
    parser.add_argument("--seconds", type=float, default=10, help="how long, open loop")
    parser.add_argument("--count", type=int, help="how many messages, closed loop; default: each once")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--budget-ms", type=int, help="budget of each message; default: the server's, taken to be 100")
    parser.add_argument("--patience", type=float, default=5, help="seconds to wait for what is unanswered at the end")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with options.messages.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    if not texts:
        sys.exit(f"{options.messages} holds no messages")

    async def run() -> Seen:
        load = Load(options.connections, options.budget_ms, options.patience)
        if options.rate:
            return await load.open_loop(options.url, cycle(texts), options.rate, options.seconds, options.seed)
        return await load.closed_loop(options.url, cycle(texts), options.in_flight, options.count or len(texts))

    print(json.dumps(summary(asyncio.run(run()), options.budget_ms or 100)))


if __name__ == "__main__":
    main()
