"""One message from its text to an outcome: asynchronous, bounded by its deadline, and without sockets.

A message's time goes to the queue, the encoder, the search, and, where it may change the outcome and there is time,
the queue and the cross-encoder again. The server's own work after the device's (resuming, deciding, writing) is
estimated too: what is left of the budget is what is left before that.
"""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from export.runtime.tokens import Tokens
from intents.cascade import Given, Need, NeedRetrieved, NeedScores, Outcome, Unconfirmed, resolve
from intents.entries import Entry
from intents.search import Floats
from server.batching import MicroBatcher
from server.budget import Estimate, fit_candidates
from server.cache import AnswerCache
from server.engine import Engine, Searched
from server.errors import DeadlineExceeded, Internal, Overloaded, ShuttingDown
from server.lanes import Lanes
from server.telemetry import Metrics, Stage
from server.work import Request

# A reply that is this many seconds from its deadline is written with what is known.
LEAST_OVERHEAD = 0.001
# The greatest share of the time left that is kept for the server's own work.
MOST_OVERHEAD = 0.2
# Characters that a token has at most, on average: a quick guess of a pair's length errs on the short side.
CHARACTERS_A_TOKEN = 6
# What was computed without asking all that could be asked is not worth keeping.
DEGRADED = frozenset({"skipped_budget", "skipped_load", "timed_out", "failed"})

Cascade = Generator[Need, Given, Outcome]


@dataclass(slots=True)
class Resolved:
    """How a message ended.

    Attributes:
        outcome: what the cascade came to.
        day: on which day; entries may be valid only at times.
        stages: seconds that each stage took; those that it did not go through are absent.
    """

    outcome: Outcome
    day: date
    stages: dict[Stage, float] = field(default_factory=dict)


@dataclass(slots=True)
class Running:
    """A message that has been accepted; `Pipeline.finish` waits for its end, `Pipeline.abandon` drops it.

    Attributes:
        stages: seconds of those that it has gone through.
        ahead: how many computations waited for the bi-encoder when it came.
        confirming: what the cross-encoder was asked; None while, and where, it is not.
        decided: when it was, on the clock; None until then.
    """

    text: str
    deadline: float
    day: date
    cascade: Cascade
    request: Request[Tokens, Searched]
    stages: dict[Stage, float]
    ahead: int
    confirming: Request[Tokens, float] | None = None
    decided: float | None = None


class Pipeline:
    """Drives messages through the cascade.

    Args:
        engine: the loaded models and index.
        lanes: what runs the models.
        encode: encodes messages and searches for them.
        score: reads messages together with candidates; None where there is no cross-encoder for this index.
        cache: answers that are known already; None where they are not kept.
        metrics: told where the time went, and how messages ended.
        candidates: how many candidates the cross-encoder reads at most.
        today: the day, for entries that are valid only at times.
        clock: seconds, monotonic; the event loop's.
    """

    def __init__(
        self,
        engine: Engine,
        lanes: Lanes,
        encode: MicroBatcher[Tokens, Searched],
        score: MicroBatcher[Tokens, float] | None,
        *,
        cache: AnswerCache | None,
        metrics: Metrics,
        candidates: int,
        today: Callable[[], date],
        clock: Callable[[], float],
    ) -> None:
        self.engine = engine
        self._lanes = lanes
        self._encode = encode
        self._score = score
        self._cache = cache
        self._metrics = metrics
        self._candidates = candidates
        self._today = today
        self._clock = clock
        self._overhead = Estimate()

    def begin(self, text: str, deadline: float) -> Resolved | Running:
        """Accept a message; what needs no model is resolved at once.

        Args:
            text: what the visitor typed.
            deadline: on the event loop's clock, in seconds.

        Raises:
            RequestError: it cannot be answered in time, or not at all.
        """
        day, index, confirm = self._today(), self.engine.index, self._score is not None
        if self._cache is not None:
            known = self._cache.get(text, index.manifest.version, day, confirm=confirm)
            if known is not None:
                return self._resolved(known, day, {})
        cascade = resolve(text, index, day, confirm=confirm)
        try:
            need = next(cascade)
        except StopIteration as stop:
            return self._resolved(stop.value, day, {})
        if not isinstance(need, NeedRetrieved):
            raise TypeError("the cascade begins with what a message retrieves")
        began = self._clock()
        if began >= deadline:
            raise DeadlineExceeded("the budget was spent before the message was looked at")
        tokens = self.engine.encoder.tokenize(need.text)
        ahead = self._encode.waiting
        request = self._encode.enqueue([tokens], self._due(deadline))
        return Running(text, deadline, day, cascade, request, {"tokenize": request.arrived - began}, ahead)

    async def finish(self, running: Running) -> Resolved:
        """Wait for a message's outcome; cancelling is safe.

        Raises:
            RequestError: it could not be encoded in time, or at all.
        """
        done = await self._encode.wait(running.request)
        searched, stages = done.results[0], running.stages
        stages["queue"] = done.queued
        stages["encode"] = max(0.0, done.ran - searched.seconds)
        stages["search"] = searched.seconds
        # Who came to share a computation that had ended did not wait for it.
        device_ended, began = max(running.request.ended, running.request.arrived), self._clock()
        complete = True
        step: Given = searched.found
        while True:
            try:
                need = running.cascade.send(step)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                break
            if not isinstance(need, NeedScores):
                raise TypeError("a message is retrieved once")
            logits, device_ended = await self._confirm(need, running, device_ended)
            complete = not isinstance(logits, str) and len(logits) == len(need.candidates[: self._candidates])
            step = logits
            began = self._clock()
        running.decided = ended = self._clock()
        stages["decide"] = ended - began
        self._overhead.learn(ended - device_ended, ended)
        if self._cache is not None and complete and outcome.confirmation not in DEGRADED:
            version, confirm = self.engine.index.manifest.version, self._score is not None
            self._cache.put(running.text, version, running.day, outcome, confirm=confirm)
        return self._resolved(outcome, running.day, stages)

    def abandon(self, running: Running) -> None:
        """Drop a message that nobody waits for; does nothing where it has ended."""
        self._encode.withdraw(running.request)

    def suggest(self, text: str) -> list[Entry]:
        """Entries to offer for what a visitor is still typing; needs no model, and no time to speak of."""
        return self.engine.index.suggest(text, self._today())

    async def resolve(self, text: str, deadline: float) -> Resolved:
        """Resolve one message; cancelling is safe.

        Args:
            text: what the visitor typed.
            deadline: on the event loop's clock, in seconds.

        Raises:
            RequestError: it cannot be answered in time, or not at all.
        """
        begun = self.begin(text, deadline)
        return begun if isinstance(begun, Resolved) else await self.finish(begun)

    def _resolved(self, outcome: Outcome, day: date, stages: dict[Stage, float]) -> Resolved:
        # Counted once the reply is on its way.
        asyncio.get_running_loop().call_soon(self._count, outcome, stages)
        return Resolved(outcome, day, stages)

    def _count(self, outcome: Outcome, stages: dict[Stage, float]) -> None:
        metrics = self._metrics
        metrics.decisions[outcome.decision.kind].inc()
        metrics.confirmations[outcome.confirmation].inc()
        if outcome.scored and stages:
            metrics.candidates_confirmed.observe(outcome.scored)
            if (outcome.decision.kind, outcome.decision.entry) != (outcome.unconfirmed.kind, outcome.unconfirmed.entry):
                metrics.decisions_changed.inc()
        for stage, seconds in stages.items():
            metrics.stages[stage].observe(seconds)

    def _due(self, deadline: float) -> float:
        """When the device has to be done, so that there is time for what comes after it: resuming, deciding, writing.

        That is never thought to take more than a share of the time left: who is refused for it could not teach better.
        """
        now = self._clock()
        after = max(LEAST_OVERHEAD, self._overhead.high_at(now))
        return deadline - min(after, MOST_OVERHEAD * max(0.0, deadline - now))

    async def _confirm(self, need: NeedScores, running: Running, ended: float) -> tuple[Floats | Unconfirmed, float]:
        """Logits of as many candidates as the time left allows, or why there are none.

        Returns:
            Them, and since when the server's own work goes on, on the clock: the end of the device's.
        """
        score, cross_encoder = self._score, self.engine.cross_encoder
        if score is None or cross_encoder is None:
            raise TypeError("confirmation is disabled")
        due = self._due(running.deadline)

        def fit(most: int, tokens: int) -> tuple[int, bool]:
            lanes = self._lanes.count  # candidates are split among them
            found = fit_candidates(
                most,
                due - self._clock(),
                self._lanes.wait,
                lambda count: score.cost.high(-(-count // lanes), tokens, self._clock()),
            )
            return found.candidates, found.crowded

        wanted = need.candidates[: self._candidates]
        shortest = min(len(need.message) + len(candidate) for candidate in wanted)
        count, crowded = fit(
            len(wanted), min(3 + shortest // CHARACTERS_A_TOKEN, cross_encoder.bundle.manifest.max_tokens)
        )
        if count:
            pairs = [cross_encoder.tokenize(need.message, candidate) for candidate in wanted[:count]]
            count, crowded = fit(count, max(map(len, pairs)))
        if not count:
            return "skipped_load" if crowded else "skipped_budget", ended
        try:
            running.confirming = request = score.enqueue(pairs[:count], due)
            done = await score.wait(request)
        except DeadlineExceeded:
            return "timed_out", self._clock()
        except Overloaded:
            return "skipped_load", self._clock()
        except (Internal, ShuttingDown):
            return "failed", self._clock()
        running.stages["confirm_queue"] = done.queued
        running.stages["confirm"] = done.ran
        logits: Floats = np.array(done.results, dtype=np.float32)
        return logits, request.ended
