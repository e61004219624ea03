"""A `faqwire serve` process to measure: started, ready, watched, and stopped."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# How long a server may take to load, and to stop.
PATIENCE = 60.0
# Where `make demo` has it.
CROSS_ENCODER = Path("var/cross-encoder")
_ADDRESS = re.compile(r"listening on (ws://\S+)")


def address_in(line: str) -> str | None:
    """The address that a server prints when it is ready; None where it is another line."""
    found = _ADDRESS.search(line)
    return None if found is None else found[1]


@dataclass(frozen=True)
class Served:
    """A server that is ready.

    Attributes:
        url: its address.
        process: its process.
        log: the file that its log goes to, JSON lines.
    """

    url: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def resident(self) -> int:
        """Bytes of memory that it has resident; on Linux."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process.returncode is None

    def events(self) -> list[dict[str, Any]]:
        """What it has logged; a line that is no event, such as one of a traceback, has the level "raw"."""
        return [_event(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line]


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"level": "raw", "event": line}


@asynccontextmanager
async def served(log: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[Served]:
    """Serve what is in var/, or what the environment names, on a free port of loopback.

    At the end the server is told to stop, and has to by itself.

    Args:
        log: where to write what the process logs.
        settings: environment variables beside this process's own.
    """
    own = {"FAQWIRE_PORT": "0", "FAQWIRE_METRICS_PORT": "off", "FAQWIRE_LOG_FORMAT": "json"}
    if await asyncio.to_thread(CROSS_ENCODER.is_dir):
        own["FAQWIRE_CROSS_ENCODER"] = str(CROSS_ENCODER)
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("faqwire")),
            "serve",
            env={**os.environ, **own, **(settings or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
        )
    try:
        yield Served(await asyncio.wait_for(_address(process, log), PATIENCE), process, log)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            status = await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            raise
        if status != 0:
            sys.exit(f"the server ended with status {status}: {_end_of(log)}")


async def _address(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None  # noqa: S101 for the type checker: it is a pipe
    while line := await process.stdout.readline():
        if (url := address_in(line.decode())) is not None:
            return url
    sys.exit(f"the server did not start: {_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
