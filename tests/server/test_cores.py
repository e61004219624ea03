"""Guards `server.cores`: what a container may use counts, not what its machine has."""

from pathlib import Path

import pytest

from server.cores import usable_cores

BOUND = usable_cores(Path("nowhere"))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, BOUND),
        ({"cpu.max": "max 100000\n"}, BOUND),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, min(2, BOUND)),
        ({"cpu.max": "100000000 100000\n"}, BOUND),
        ({"cpu.max": "nonsense\n"}, BOUND),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, BOUND),
        ({"cpu/cpu.cfs_quota_us": "90000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    """Parts of a core count as one; no limit, and none that can be read, is that of the cores it is bound to."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores
