"""Guards `server.files`: as many open files as the connections need."""

import resource
from collections.abc import Iterator

import pytest

from server.files import SPARE, allow_open_files


@pytest.fixture
def hard_limit() -> Iterator[int]:
    """The hard limit, with the soft one put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised(hard_limit: int) -> None:
    """A soft limit below what the connections need is raised to it, and no further."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard_limit))
    assert allow_open_files(300) == 300
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300 + SPARE, hard_limit)
    assert allow_open_files(300, 20) == 300
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (320 + SPARE, hard_limit)
    assert allow_open_files(10) == 10
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 320 + SPARE


def test_the_hard_limit_is_kept(hard_limit: int) -> None:
    """More connections than the hard limit allows are cut down to what there is room for."""
    if hard_limit == resource.RLIM_INFINITY:
        assert allow_open_files(1 << 20) == 1 << 20
    else:
        assert allow_open_files(hard_limit * 2) == hard_limit - SPARE
