"""What all tests share: the real default model, the sample shop's real index, and a real server on port 0.

The model is exported once and the index built once, into `.cache/tests`; both are redone when what they are made of
has changed, so a second run starts at once.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as settings_of_properties

from export.bundle import Bundle
from export.convert import export_model
from export.runtime.bi_encoder import BiEncoder
from export.runtime.session import CPU, Device
from intents.build import Options, Reporter, build_index, up_to_date
from intents.entries import Faq
from intents.formats import load_faq
from intents.index import FaqIndex, open_index
from intents.store import current_folder
from server.app import Server
from server.authentication import Authenticate
from server.engine import Engine, load_engine
from server.recorder import Recorder
from server.settings import Settings, read_settings

# Properties hold however long a machine takes to think of examples, and to show them.
settings_of_properties.register_profile("faqwire", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings_of_properties.load_profile("faqwire")

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "tests"
SAMPLES = ROOT / "intents" / "samples"

ServerFactory = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The default bi-encoder, exported in every variant."""
    return export_model(None, CACHE / "model").bundle


@pytest.fixture(scope="session")
def encoder(bundle: Bundle) -> BiEncoder:
    """The default bi-encoder in fp32 on the CPU."""
    return BiEncoder(bundle, "fp32", Device(CPU), threads=2)


@pytest.fixture(scope="session")
def shop() -> Faq:
    """The sample shop's FAQ."""
    return load_faq(SAMPLES / "shop.yaml").faq


@pytest.fixture(scope="session")
def shop_root(bundle: Bundle, encoder: BiEncoder, shop: Faq) -> Path:
    """The folder of the sample shop's index; tests only read it."""
    root = CACHE / "index"
    if up_to_date(root, shop, bundle.manifest.fingerprint, Options()) is None:
        build_index(shop, encoder, root, Options(), now=datetime.now(UTC), reporter=Reporter())
    return root


@pytest.fixture(scope="session")
def shop_index(bundle: Bundle, shop_root: Path) -> FaqIndex:
    """The sample shop's index, opened."""
    folder = current_folder(shop_root)
    fingerprint = bundle.manifest.fingerprint
    return open_index(folder, shop_root, model_fingerprint=fingerprint, model_folder=bundle.folder)


@pytest.fixture(scope="session")
def settings(bundle: Bundle, shop_root: Path) -> Settings:
    """Settings of a server of the sample shop on a free port, with a budget that a busy test machine can keep."""
    return read_settings(
        model=bundle.folder,
        index=shop_root,
        port=0,
        metrics_port="off",
        provider="cpu",
        budget_ms=10_000,
        sessions=2,
        cache_size=0,
        # Tests are one client that does much at once; those of the limits set their own.
        max_connections_per_address=10_000,
        connections_per_second=100_000,
        connection_burst=100_000,
        messages_per_second=1_000_000,
        message_burst=1_000_000,
        # What is slow is the test machine; a warning about it would be taken for the server's.
        slow_ms="off",
    )


@pytest.fixture(scope="session")
def engine(settings: Settings) -> Engine:
    """The loaded model and index."""
    return load_engine(settings)


@pytest.fixture
def start_server(engine: Engine, settings: Settings) -> ServerFactory:
    """Start a real server on a free port; keyword arguments are settings, and what else a `Server` takes."""

    @asynccontextmanager
    async def start(
        engine: Engine = engine,
        recorder: Recorder | None = None,
        authenticate: Authenticate | None = None,
        **changes: Any,
    ) -> AsyncIterator[Server]:
        changed = settings.model_copy(update=changes)
        server = Server(engine, changed, recorder=recorder, authenticate=authenticate)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()

    return start
