"""A process that keeps a journal: `python -m tests.server.journal.worker FILE NAME`.

It stores one feedback after the other and prints the ref of each once it has been accepted, until it is killed.
"""

import asyncio
import sys
from itertools import count

from prometheus_client import CollectorRegistry

from server.journal import Journal
from server.telemetry import Metrics
from tests.server.journal.records import asked, said, settings_for


async def keep(file: str, name: str) -> None:
    """Ask and say for good."""
    journal = await Journal.open(settings_for(file), Metrics(CollectorRegistry()).journal)
    for number in count():
        ref = f"{name}-{number}"
        journal.asked(asked(ref))
        await journal.feedback(said(ref))
        print(ref, flush=True)  # noqa: T201 the parent reads it


if __name__ == "__main__":
    asyncio.run(keep(sys.argv[1], sys.argv[2]))
