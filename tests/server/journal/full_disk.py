"""A process whose disk is full: `python -m tests.server.journal.full_disk FILE`.

It may make no file larger than some 100 KB. It prints, as JSON, what a journal of 1,000 long asks and feedbacks comes
to; what frees space again is that the limit is lifted.
"""

import asyncio
import json
import resource
import sys
from contextlib import suppress

from prometheus_client import CollectorRegistry

from server.errors import NotStored
from server.journal import Journal
from server.telemetry import Metrics
from tests.server.journal.records import asked, said, settings_for

LIMIT = 100_000


async def fill(file: str) -> dict[str, object]:
    """Fill the disk, make room again, and tell what happened."""
    metrics = Metrics(CollectorRegistry()).journal
    journal = await Journal.open(settings_for(file), metrics)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    accepted, reason, degraded = [], "", None
    for number in range(1000):
        journal.asked(asked(f"{number}", text="x" * 1000))
        try:
            await journal.feedback(said(f"{number}", comment="y" * 1000))
        except NotStored as exc:
            reason, degraded = str(exc), journal.degraded
            break
        accepted.append(f"{number}")
    journal.asked(asked("while it is full"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    with suppress(NotStored):
        await journal.feedback(said("afterwards"))
        accepted.append("afterwards")
    closed = await journal.close(30)
    return {"accepted": accepted, "reason": reason, "degraded": degraded, "closed": closed, "then": journal.degraded}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(fill(sys.argv[1]))))  # noqa: T201 the parent reads it
