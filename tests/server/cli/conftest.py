"""What the command line's tests share: a site of each test's own."""

from pathlib import Path

import pytest

from export.bundle import Bundle
from export.convert import export_model
from tests.server.cli.site import Site, lay_out


@pytest.fixture
def site(tmp_path: Path, bundle: Bundle, shop_root: Path) -> Site:
    """The default model and the sample shop's index, where the command looks for them."""
    return lay_out(tmp_path / "site", bundle.folder, shop_root)


@pytest.fixture
def cross_encoder(site: Site) -> Path:
    """The bundle of a small random cross-encoder, where the command is told to look for it."""
    from tests.export.models import make_model  # brings torch

    model = make_model(site.folder / "tiny-cross", labels=1)
    return export_model(str(model), site.folder / "var" / "cross", variants=("int8",)).bundle.folder
