"""Guards `server.tls` over real sockets: TLS from files, and files that are renewed."""

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from websockets.exceptions import ConnectionClosed

from server.client import Client
from server.errors import SettingsError
from server.messages import Answer
from server.tls import Certificate
from tests.server.conftest import Ends, Events, ServerFactory
from tests.server.fakes import sample, until
from tests.server.raw import Raw, dial
from tests.server.test_handshakes import cut_off, silent
from tests.server.test_websocket import SYSTEM_BUFFER, shrink

AUTHORITY = trustme.CA()


class Site:
    """A certificate and its key in files.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "site.pem", folder / "site.key"
        self.issue()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that name them."""
        return {"tls_certificate": self.certificate, "tls_key": self.key}

    def issue(self, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> trustme.LeafCert:
        """Write new ones."""
        issued = AUTHORITY.issue_cert("127.0.0.1", "localhost", key_type=kind)
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        for file, content in ((self.certificate, chain), (self.key, issued.private_key_pem.bytes())):
            draft = file.with_suffix(".new")
            draft.write_bytes(content)
            draft.replace(file)  # another file, also where neither size nor time tells them apart
        return issued


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of the test's own."""
    return Site(tmp_path)


@pytest.fixture
def trusting() -> ssl.SSLContext:
    """What clients trust."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def serial(client: Raw) -> str:
    """The number of the certificate that the server showed."""
    return str(client.websocket.transport.get_extra_info("ssl_object").getpeercert()["serialNumber"])


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_tls(start_server: ServerFactory, site: Site, trusting: ssl.SSLContext, name: str) -> None:
    """A server with a certificate says so in its address; a client may name it in its greeting or not."""
    async with start_server(**site.settings) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        async with dial(server, ssl=trusting, server_hostname=name) as client:
            await client.ask("1", "Where is my order?")
            assert (await client.receive())["type"] == "answer"


async def test_strangers(start_server: ServerFactory, site: Site) -> None:
    """Whoever does not trust the certificate does not connect, and disturbs nobody."""
    async with start_server(**site.settings) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with dial(server, ssl=ssl.create_default_context()):
                pass


async def test_a_client_that_does_not_read(
    start_server: ServerFactory, site: Site, trusting: ssl.SSLContext, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind TLS, which has buffers of its own, it is given up like any other."""
    monkeypatch.setattr("server.websocket.GOODBYE_SECONDS", 0.05)
    async with start_server(send_seconds=0.05, **site.settings) as server:
        shrink(server)
        async with dial(server, ssl=trusting) as client:
            client.websocket.transport.pause_reading()
            own = client.websocket.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SYSTEM_BUFFER)
            asking = asyncio.create_task(ask_on(client))
            await ends.given_up.wait()
            await ends.closed(server, 0)
            client.websocket.transport.abort()
            with pytest.raises(ConnectionClosed):
                await asking


async def ask_on(client: Raw) -> None:
    """Ask, for as long as there is a connection."""
    while True:
        await client.ask("1", "Where is my order?")


async def test_renewal(
    start_server: ServerFactory, site: Site, trusting: ssl.SSLContext, logs: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files serve new connections, whatever kind of key they have; those that are open go on.

    Files that cannot be used are said, and the last ones serve on.
    """
    monkeypatch.setattr("server.tls.LOOK_SECONDS", 0.01)

    def told(what: str) -> list[Any]:
        return [event for event in logs if event["event"] == what]

    async with start_server(**site.settings) as server, dial(server, ssl=trusting) as old:
        site.issue(trustme.KeyType.RSA)
        await until(lambda: bool(told("certificate renewed")))
        async with dial(server, ssl=trusting) as new:
            renewed = serial(new)
            assert renewed != serial(old)
        await old.flush()
        refused = "certificate not renewed, the last one stays in use"
        before = len(told(refused))  # a pair may have been looked at half written
        site.key.write_text("-----BEGIN NONSENSE-----", encoding="utf-8")
        await until(lambda: len(told(refused)) > before)
        async with dial(server, ssl=trusting) as after:
            assert serial(after) == renewed
    assert len(told("certificate renewed")) == 1
    assert {event["log_level"] for event in told(refused)} == {"error"}
    assert str(site.key) in told(refused)[-1]["reason"]


async def test_the_python_client_over_tls(
    start_server: ServerFactory, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client trusts what the system trusts, here by its environment."""
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with start_server(**site.settings) as server, Client(server.url) as client:
        assert isinstance(await client.ask("Where is my order?"), Answer)


async def test_handshakes_under_way(start_server: ServerFactory, site: Site, trusting: ssl.SSLContext) -> None:
    """They are counted from the end of TLS's own, and cut off as without it."""
    async with start_server(max_handshakes=1, **site.settings) as server, AsyncExitStack() as stack:
        await stack.enter_async_context(silent(server, trusting))
        await until(lambda: len(server.reception.handshakes) == 1)
        assert await cut_off(await stack.enter_async_context(silent(server, trusting)))
        assert sample(server._metrics, "refusals_total", reason="handshakes") == 1


def test_renewal_of_what_has_not_changed(site: Site) -> None:
    """Files are read again only where they have changed."""
    certificate = Certificate(site.certificate, site.key)
    assert not certificate.renew()
    site.issue()
    assert certificate.renew()
    assert not certificate.renew()
    site.certificate.unlink()
    with pytest.raises(SettingsError):
        certificate.renew()
    assert not certificate.renew()


def test_files_that_cannot_be_used(site: Site, tmp_path: Path) -> None:
    """A file that is missing, a key of another certificate, an encrypted key: each is refused in a sentence."""

    def refusal(certificate: Path = site.certificate, key: Path = site.key) -> str:
        with pytest.raises(SettingsError) as caught:
            Certificate(certificate, key)
        return str(caught.value)

    assert "(No such file or directory)" in refusal(certificate=tmp_path / "none")
    private = load_pem_private_key(site.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert "the key not encrypted" in refusal(key=locked)
    other = tmp_path / "other.key"
    other.write_bytes(AUTHORITY.issue_cert("localhost").private_key_pem.bytes())
    assert "MISMATCH" in refusal(key=other)
