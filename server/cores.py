"""How many cores there are for this process."""

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """How many cores this process may use: those that it is bound to, and no more than its container's quota allows.

    A container on a large machine sees all of its cores, whatever it may use of them; threads for each would be held up
    by the quota in turns.

    Args:
        cgroups: where Linux says what the container may use.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _quota(cgroups)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Seconds of computing a second; None where they are not limited."""
    with suppress(OSError, ValueError):  # version 2
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):  # version 1, where -1 is no limit
        microseconds = int((cgroups / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        length = int((cgroups / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return microseconds / length if microseconds > 0 else None
    return None
