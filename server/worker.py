"""One of several processes that serve a port together: `python -m server.worker`, started by `server.supervisor`.

    python -m server.worker NUMBER FD...

NUMBER is the worker's, for its logs; each FD is an inherited socket to listen on. Standard input has the settings, a
line of JSON, and stays open for as long as the supervisor lives: where it ends, the worker drains and stops. Standard
output says `ready` once it listens, and `alive` every few seconds while it works.
"""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

import click
import structlog

from export.errors import FaqwireError
from server.app import Server
from server.engine import load_engine
from server.logs import configure_logs
from server.process import ALIVE, READY, Hangups, settle
from server.settings import Settings

# How often a worker says that it works.
BEAT_SECONDS = 2.0


def main() -> None:
    """Serve until the supervisor wants no more, or SIGTERM; exit status 1 where that cannot be done."""
    number, *inherited = (int(argument) for argument in sys.argv[1:])
    hangups = Hangups()
    settings = Settings.model_validate_json(sys.stdin.buffer.readline())
    configure_logs(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(worker=number)
    os.set_blocking(sys.stdout.fileno(), False)  # nobody may be reading
    try:
        engine = load_engine(settings)
        settle()
        sockets = [socket.socket(fileno=descriptor) for descriptor in inherited]
        ended = asyncio.run(_serve(Server(engine, settings, sockets=sockets), hangups))
    except (FaqwireError, OSError) as exc:
        with suppress(OSError):
            click.echo(f"faqwire: {exc}", err=True)
        os._exit(1)  # not one more word, and no wait for threads
    if not ended:
        os._exit(1)  # a model run that hangs cannot be stopped, and Python would wait for its thread


async def _serve(server: Server, hangups: Hangups) -> bool:
    """Serve; returns what `Server.stop` does."""
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[bool] = loop.create_future()

    def stop(*, shared: bool) -> None:
        if not stopping.done():
            stopping.set_result(shared)

    def hear() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            stop(shared=False)

    await server.start()
    loop.add_reader(sys.stdin.fileno(), hear)
    # The others go on, and shall have all who connect from now on.
    loop.add_signal_handler(signal.SIGTERM, lambda: stop(shared=True))
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    if hangups.came:
        server.reload()
    _say(READY)
    beat = asyncio.create_task(_beat(server))
    try:
        return await server.stop(shared=await stopping)
    finally:
        beat.cancel()


async def _beat(server: Server) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        if server.problem is None:
            _say(ALIVE)


def _say(line: str) -> None:
    with suppress(OSError):  # the supervisor is gone, or does not listen
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    main()
