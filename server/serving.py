"""An engine under way: its lanes, a micro-batcher for each encoder, the answer cache, and the pipeline over them."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TypeVar

import structlog

from export.runtime.encoder import Encoder, Measured
from export.runtime.tokens import Tokens
from server.batching import MicroBatcher
from server.budget import CostModel
from server.cache import AnswerCache
from server.choice import Bounds
from server.engine import Engine
from server.lanes import PATIENCE, Lanes
from server.pipeline import Pipeline
from server.settings import Settings
from server.telemetry import Metrics

_log = structlog.get_logger(__name__)

R = TypeVar("R")


def local_date() -> date:
    """The day where the server runs, by which entries are valid or not."""
    return datetime.now().astimezone().date()


class Serving:
    """Runs an engine in the running event loop, from its first message to its last.

    Args:
        engine: the loaded models and index.
        settings: limits of queues and batches, and the cache's size.
        metrics: told what happens.
        today: the day, for entries that are valid only at times.
        before: what this one takes the place of: where they share a model, it knows already what batches take.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        *,
        today: Callable[[], date] = local_date,
        before: "Serving | None" = None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        clock = asyncio.get_running_loop().time
        self.costs: dict[int, CostModel] = {}  # by the encoder's identity
        self.lanes = Lanes(engine.encoder.sessions, clock=clock)
        bounds = Bounds(settings.max_queue, settings.max_batch, settings.max_batch_tokens, settings.max_batch_ms / 1000)

        def batcher(
            run: Callable[[Sequence[Tokens], int], Sequence[R]], encoder: Encoder, took: Sequence[Measured]
        ) -> MicroBatcher[Tokens, R]:
            cost = None if before is None else before.costs.get(id(encoder))
            self.costs[id(encoder)] = cost = cost or _taught(took, clock())
            made = MicroBatcher[Tokens, R](
                run,
                self.lanes,
                cost,
                length=len,
                key=_key,
                shape=encoder.shape,
                metrics=metrics.models[encoder.kind],
                clock=clock,
                bounds=bounds,
            )
            self.lanes.attach(made)
            return made

        self._encode = batcher(engine.retrieve, engine.encoder, engine.encoder_took)
        self._score: MicroBatcher[Tokens, float] | None = None
        if engine.cross_encoder is not None:
            self._score = batcher(engine.score, engine.cross_encoder, engine.cross_encoder_took)
        self.pipeline = Pipeline(
            engine,
            self.lanes,
            self._encode,
            self._score,
            cache=AnswerCache(settings.cache_size, metrics) if settings.cache_size else None,
            metrics=metrics,
            candidates=settings.candidates,
            today=today,
            clock=clock,
        )
        self.lanes.start()

    def show(self) -> None:
        """Have the metrics say what runs, and the log what works worse than it was asked to."""
        encoder, metrics = self._engine.encoder, self._metrics
        metrics.index_in_use.switch(self._engine.index.manifest.version)
        for model in (encoder, self._engine.cross_encoder):
            if model is not None:
                metrics.models[model.kind].in_use.switch(model.device.provider, model.variant)
        if (unconfirmed := self._engine.unconfirmed) is not None:
            _log.warning("nothing is confirmed", reason=unconfirmed)
        metrics.degradations["unconfirmed"].set(unconfirmed is not None)
        if encoder.device.degraded:
            _log.warning("running on the CPU although there is a GPU", reason=encoder.device.degraded)
            metrics.degradations["gpu_unused"].set(1)

    async def close(self, patience: float = PATIENCE) -> bool:
        """Refuse what waits, let what runs end, and stop.

        Args:
            patience: how many seconds what runs may still take.

        Returns:
            False if a lane was still running by then: its thread cannot be ended.
        """
        self._encode.close()
        if self._score is not None:
            self._score.close()
        return await self.lanes.close(patience)


def _taught(measured: Sequence[Measured], now: float) -> CostModel:
    cost = CostModel()
    for one in measured:
        cost.learn(one.rows, one.tokens, one.seconds, now)
    return cost


def _key(tokens: Tokens) -> bytes:
    return tokens.ids.tobytes() + tokens.type_ids.tobytes()
