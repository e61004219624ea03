"""Keeps several worker processes alive that serve one port: `faqwire serve --workers N`.

The supervisor binds the port, and every worker inherits it: whoever is free takes the next connection, and the port
stays open while one of them is replaced. The first worker starts alone, so that what cannot be loaded is said once and
ends the start. A worker that dies is started again, at first at once and then after growing delays; one that does not
begin to serve in time, or does not say for long that it works, is killed. Which of them is given up is logged as
critical; with the last one the supervisor ends, with exit status 1.

Workers stop when their standard input ends, and so also when the supervisor is killed.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from prometheus_client.multiprocess import mark_process_dead

from server.errors import SettingsError
from server.listening import address_of, bind
from server.metrics_folder import MetricsFolder
from server.metrics_page import MetricsPage
from server.process import READY, without_hangups
from server.restarts import Restarts
from server.settings import Settings
from server.telemetry import SHARED_FOLDER, VARIABLE, SupervisorMetrics, WorkerState

if TYPE_CHECKING:
    import socket

_log = structlog.get_logger(__name__)

# A worker that does not say for so many seconds that it works does not; it says so every two.
SILENT_SECONDS = 30.0
# How much longer than they should take workers are waited for when they stop.
MARGIN_SECONDS = 5.0


@dataclass(eq=False)
class Slot:
    """A place for a worker, and the one that has it.

    Attributes:
        number: 1 for the first.
        process: the worker; None between two.
        state: how the worker is.
        restarts: what is remembered of those before.
        forgiven: set when one that was given up is to be tried once more.
    """

    number: int
    process: Process | None = None
    state: WorkerState = "restarting"
    restarts: Restarts = field(default_factory=Restarts)
    forgiven: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Whether the worker has begun to serve."""
        return self.state == "running"


class Supervisor:
    """Starts workers, and keeps them alive; in the running event loop.

    Args:
        settings: those of the workers, and how many.

    Raises:
        SettingsError: a setting cannot be told to them.
    """

    # Where the workers keep their values, and what shows them; from `run` on.
    _folder: MetricsFolder
    _metrics: SupervisorMetrics

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = [Slot(number) for number in range(1, settings.workers + 1)]
        self._sockets: list[socket.socket] = []
        self._page: MetricsPage | None = None
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        self._failed = False
        self._told = _as_told(settings)

    async def run(self, announce: Callable[[str], None] = lambda _: None) -> int:
        """Serve until SIGINT or SIGTERM; SIGHUP makes all workers reload, those that are loading as soon as they serve.

        Args:
            announce: called with the address once a worker listens.

        Returns:
            The exit status: 0 where all workers have stopped as they should.

        Raises:
            ListenError: the port of the server or of the metrics cannot be had.
            SettingsError: the environment names a folder for metrics.
        """
        if SHARED_FOLDER is not None:
            raise SettingsError(f"environment: {VARIABLE} is set, but workers have a folder of their own; unset it")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._sockets = await asyncio.to_thread(bind, self._settings.host, self._settings.port)
        self._folder = await asyncio.to_thread(MetricsFolder.make)
        try:
            self._metrics = await asyncio.to_thread(SupervisorMetrics, self._folder.path)
            await self._serve_metrics()
            return await self._serve(announce)
        finally:
            if self._page is not None:
                await self._page.stop()
            for bound in self._sockets:
                bound.close()
            await asyncio.to_thread(self._folder.remove)

    async def _serve_metrics(self) -> None:
        if self._settings.metrics_port is None:
            return
        page = MetricsPage(self._metrics.registry, self._settings.metrics_host, self._settings.metrics_port)
        await page.start()
        self._page = page

    async def _serve(self, announce: Callable[[str], None]) -> int:
        keepers = [self._keeper(self._slots[0])]
        stopping = asyncio.create_task(self._stopping.wait())
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait({stopping, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._started.is_set():
            metrics = None if self._page is None else self._page.url
            url = address_of(self._sockets, self._settings)
            _log.info("supervising", workers=len(self._slots), url=url, metrics=metrics)
            announce(url)
            keepers += [self._keeper(slot) for slot in self._slots[1:]]
        await stopping
        return await self._end(keepers)

    def _keeper(self, slot: Slot) -> "asyncio.Task[None]":
        keeper = asyncio.create_task(self._keep(slot))
        keeper.add_done_callback(lambda _: self._stopping.set())  # before its time where nobody expected what it met
        return keeper

    async def _end(self, keepers: Sequence["asyncio.Task[None]"]) -> int:
        """Let all workers drain and stop; whoever does not is killed."""
        _log.info("stopping")
        for slot in self._slots:
            if slot.process is not None:
                _tell_to_stop(slot.process, ready=slot.ready)
        _, hanging = await asyncio.wait(keepers, timeout=self._settings.drain_seconds + MARGIN_SECONDS)
        if hanging:
            _log.critical("workers do not stop, and are killed", workers=len(hanging))
            self._failed = True
            self._kill()
            await asyncio.wait(hanging)
        for keeper in keepers:
            keeper.result()  # raises what nobody expected
        _log.info("stopped")
        return int(self._failed)

    def _stop(self) -> None:
        if self._stopping.is_set():  # whoever asks twice does not want to wait
            self._failed = True
            self._kill()
        self._stopping.set()

    def _kill(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                with suppress(ProcessLookupError):
                    slot.process.kill()

    def _reload(self) -> None:
        """Have all workers reload; those that were given up get another chance."""
        for slot in self._slots:
            slot.forgiven.set()
            if slot.process is not None:  # one that is loading reloads when it has
                with suppress(ProcessLookupError):
                    slot.process.send_signal(signal.SIGHUP)

    async def _keep(self, slot: Slot) -> None:
        """Have a worker in the slot until the server stops, or there is no more hope."""
        while not self._stopping.is_set():
            lived = await self._live(slot)
            if self._stopping.is_set():
                return
            delay = slot.restarts.died(lived)
            if delay is not None:
                self._metrics.restarts.inc()
                await self._pause(delay)
                continue
            self._show(slot, "given_up")
            _log.critical("worker given up", worker=slot.number)
            if all(other.state == "given_up" for other in self._slots):
                _log.critical("no worker is left")
                self._failed = True
                self._stopping.set()
                return
            slot.forgiven.clear()
            await self._pause(None, slot.forgiven)
            slot.restarts.forgive()

    async def _pause(self, seconds: float | None, *events: asyncio.Event) -> None:
        """Wait for so long, or for one of these events, or until the server stops."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._stopping, *events)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def _live(self, slot: Slot) -> float:
        """Run one worker to its end.

        Returns:
            For how many seconds it served.
        """
        self._show(slot, "restarting")
        try:
            process = slot.process = await self._spawn(slot)
        except OSError as exc:
            if not self._started.is_set():
                raise
            _log.error("worker cannot be started", worker=slot.number, reason=str(exc))
            return 0.0
        began = await self._attend(slot, process)
        status = await process.wait()
        lived = 0.0 if began is None else asyncio.get_running_loop().time() - began
        slot.process = None
        with suppress(OSError):  # somebody has tidied up
            await asyncio.to_thread(mark_process_dead, process.pid, str(self._folder.path))
        if self._stopping.is_set():
            fine = {0} if began is not None else {0, -signal.SIGTERM}  # see `_tell_to_stop`
            self._failed = self._failed or status not in fine
        elif not self._started.is_set():
            self._failed = True  # it has said why; the others would say the same
            self._stopping.set()
        else:
            self._show(slot, "restarting")
            _log.error("worker died", worker=slot.number, status=status, seconds=round(lived, 1))
        return lived

    async def _spawn(self, slot: Slot) -> Process:
        descriptors = [bound.fileno() for bound in self._sockets]
        # Whoever tidies up temporary files may have taken it; a worker without it would not start.
        in_use = await asyncio.to_thread(self._folder.hold)
        with without_hangups():
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a folder named `server` where the operator stands is not this package
                "-m",
                "server.worker",
                *map(str, [slot.number, *descriptors]),
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=[*descriptors, in_use],  # the last one is only held: see `server.metrics_folder`
                env={**os.environ, VARIABLE: str(self._folder.path)},
                start_new_session=True,  # Ctrl-C is for the supervisor
            )
        _log.info("worker started", worker=slot.number, pid=process.pid)
        if process.stdin is not None:
            # Not in its arguments or its environment, which others may see: there may be a password in it.
            process.stdin.write(self._told)
        if self._stopping.is_set():  # it was decided meanwhile
            _tell_to_stop(process, ready=False)
        return process

    async def _attend(self, slot: Slot, process: Process) -> float | None:
        """Listen to a worker until it says no more.

        Returns:
            When it began to serve, on the event loop's clock; None if it did not.
        """
        clock, began = asyncio.get_running_loop().time, None
        while process.stdout is not None:
            # Before it serves it says nothing, so that this is all the time that its start may take.
            most = self._settings.start_seconds if began is None else SILENT_SECONDS
            try:
                async with asyncio.timeout(None if self._stopping.is_set() else most):
                    line = await process.stdout.readline()
            except TimeoutError:
                if not self._stopping.is_set():
                    if began is None:
                        _log.critical("worker does not begin to serve, and is killed", worker=slot.number, seconds=most)
                    else:
                        _log.critical("worker hangs, and is killed", worker=slot.number, seconds=most)
                    with suppress(ProcessLookupError):
                        process.kill()
                continue
            if not line:
                break
            if line.decode().strip() == READY:
                began = clock()
                self._show(slot, "running")
                _log.info("worker ready", worker=slot.number)
                self._started.set()
        return began

    def _show(self, slot: Slot, state: WorkerState) -> None:
        slot.state = state
        self._metrics.show(Counter(other.state for other in self._slots))


def _tell_to_stop(worker: Process, *, ready: bool) -> None:
    """Have a worker drain and stop; one that is not ready yet has no clients, and may be loading for long."""
    if worker.stdin is not None:
        worker.stdin.close()
    if not ready:
        with suppress(ProcessLookupError):
            worker.terminate()


def _as_told(settings: Settings) -> bytes:
    # What was not set stays so: whether some settings were is checked.
    told = settings.model_copy(update={"metrics_port": None})
    try:
        return f"{told.model_dump_json(exclude_unset=True)}\n".encode()
    except ValueError as exc:  # a name of a file that is no text
        raise SettingsError(f"a setting cannot be told to workers ({exc}); rename what it names") from exc
