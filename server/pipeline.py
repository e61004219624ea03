"""One message from its text to an outcome: asynchronous, bounded by its deadline, and without sockets."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from export.runtime.tokens import Tokens
from intents.cascade import NeedRetrieved, Outcome, resolve
from intents.search import Retrieved
from server.batching import MicroBatcher
from server.engine import Engine, Searched
from server.errors import DeadlineExceeded


@dataclass
class Timing:
    """Where a message's time went, in seconds."""

    tokenize: float = 0.0
    queue: float = 0.0
    encode: float = 0.0
    search: float = 0.0


@dataclass(frozen=True)
class Resolved:
    """How a message ended, on which day (entries may be valid only at times), and where its time went."""

    outcome: Outcome
    day: date
    timing: Timing


class Pipeline:
    """Drives messages through the cascade.

    Args:
        engine: the loaded model and index.
        batcher: runs the engine's encoder.
        today: the day, for entries that are valid only at times.
    """

    def __init__(self, engine: Engine, batcher: MicroBatcher[Tokens, Searched], today: Callable[[], date]) -> None:
        self.engine = engine
        self._batcher = batcher
        self._today = today

    async def resolve(self, text: str, deadline: float) -> Resolved:
        """Resolve one message; cancelling is safe.

        Args:
            text: what the visitor typed.
            deadline: on the event loop's clock, in seconds.

        Raises:
            RequestError: it could not be encoded in time, or at all.
        """
        timing, day = Timing(), self._today()
        cascade = resolve(text, self.engine.index, day)
        try:
            need = next(cascade)
            while True:
                need = cascade.send(await self._retrieve(need, deadline, timing))
        except StopIteration as stop:
            return Resolved(stop.value, day, timing)

    async def _retrieve(self, need: NeedRetrieved, deadline: float, timing: Timing) -> Retrieved:
        clock = asyncio.get_running_loop().time
        arrived = clock()
        if arrived >= deadline:
            raise DeadlineExceeded("the budget was spent before the message was looked at")
        tokens = self.engine.encoder.tokenize(need.text)
        submitted = clock()
        searched, started = await self._batcher.submit(tokens, deadline)
        timing.tokenize += submitted - arrived
        timing.queue += started - submitted
        timing.encode += clock() - started - searched.seconds
        timing.search += searched.seconds
        return searched.found
