"""Puts a new index into the place of the one that answers, while messages come and go.

The new one is loaded, verified and warmed up in a thread beside all that is served; nothing changes if it cannot be
used. Models are loaded anew only where their bundles have changed.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import structlog

from export.errors import FaqwireError
from intents.errors import FaqIndexError
from intents.store import current_folder
from server.engine import Engine, load_engine
from server.settings import Settings
from server.telemetry import Metrics
from server.threads import in_thread

_log = structlog.get_logger(__name__)

Loader = Callable[[Settings, Engine], Engine]


class Reloader:
    """Reloads when it is asked to, and when another version of the index has become the current one.

    Args:
        settings: what to load, and how often to look.
        current: gives what is in use.
        swap: puts what was loaded into the place of what is in use; on the event loop.
        metrics: told what came of it.
        load: how an engine is loaded after another.

    Attributes:
        problem: why the index that should be in use is not, for an operator; None while all is well.
    """

    def __init__(
        self,
        settings: Settings,
        current: Callable[[], Engine],
        swap: Callable[[Engine], None],
        metrics: Metrics,
        *,
        load: Loader = load_engine,
    ) -> None:
        self.problem: str | None = None
        self._settings = settings
        self._current = current
        self._swap = swap
        self._metrics = metrics
        self._load = load
        self._asked = asyncio.Event()
        self._seen: str | None = current().index.manifest.version

    def ask(self) -> None:
        """Reload soon, whether or not anything seems to have changed."""
        self._asked.set()

    async def watch(self) -> None:
        """Reload whenever that is due, one after the other, until this is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.index_poll_seconds):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            current = await asyncio.to_thread(_current_version, self._settings.index)
            # What was refused is not tried again and again: another version has to come, or somebody who asks.
            if asked or current != self._seen:
                self._seen = current
                await self._reload()

    async def _reload(self) -> None:
        _log.info("reloading", index=self._seen)
        before = self._current()
        try:
            engine = await in_thread(lambda: self._load(self._settings, before), "reload")
        except (FaqwireError, OSError) as exc:
            self._refuse(str(exc))
            return
        except Exception:  # noqa: BLE001 whatever is wrong with the new one, the last one serves on
            _log.exception("reload failed")
            self._refuse("the log has the reason")
            return
        self._seen = engine.index.manifest.version  # it may have become another meanwhile
        result: Literal["swapped", "unchanged"] = "swapped"
        if _same(engine, before):
            result = "unchanged"
            _log.info("nothing has changed", index=self._seen)
        else:
            self._swap(engine)
        self._metrics.reloads[result].inc()
        self._tell(None)

    def _refuse(self, reason: str) -> None:
        _log.error("reload refused, the last index serves on", reason=reason)
        self._metrics.reloads["refused"].inc()
        self._tell(f"an index or a model was refused: {reason}")

    def _tell(self, problem: str | None) -> None:
        self.problem = problem
        self._metrics.degradations["stale_index"].set(problem is not None)


def _current_version(root: Path) -> str | None:
    """The name of the version that is current, or None where there is none."""
    try:
        return current_folder(root).name
    except (FaqIndexError, OSError):
        return None


def _same(one: Engine, other: Engine) -> bool:
    """Whether both answer alike."""
    return (
        one.index.manifest.seal == other.index.manifest.seal
        and one.encoder is other.encoder
        and one.cross_encoder is other.cross_encoder
    )
