"""What the command line's tests share: a site of each test's own."""

from pathlib import Path

import pytest

from export.bundle import Bundle
from tests.server.cli.site import Site, lay_out


@pytest.fixture
def site(tmp_path: Path, bundle: Bundle, shop_root: Path) -> Site:
    """The default model and the sample shop's index, where the command looks for them."""
    return lay_out(tmp_path / "site", bundle.folder, shop_root)
