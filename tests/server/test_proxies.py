"""The files in `deploy/` for nginx and Caddy, as they are, in front of a real server: TLS, origins, addresses.

Each is skipped where its program is not installed.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.exceptions import InvalidStatus

from server.app import Server
from tests.server.conftest import ServerFactory
from tests.server.raw import UNSEEN, Raw, dial

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CADDY = shutil.which("caddy")

PAGE = "https://localhost"
# All of 127.0.0.0/8 is this machine on Linux: the proxy is at one of its addresses, the visitor at another.
PROXY, VISITOR, FORGED = "127.0.0.1", "127.0.0.2", "203.0.113.7"


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs.

    Attributes:
        port: where it listens, on `PROXY`.
        trusting: a context that trusts its certificate.
    """

    port: int
    trusting: ssl.SSLContext

    def dial(self, path: str = "/chat", origin: str = PAGE, **headers: str) -> AbstractAsyncContextManager[Raw]:
        """Connect as a visitor's browser does from a page with this origin."""
        return dial(
            f"wss://localhost:{self.port}{path}",
            host=PROXY,
            port=self.port,
            local_addr=(VISITOR, 0),
            ssl=self.trusting,
            origin=origin,
            additional_headers=headers,
        )


@asynccontextmanager
async def nginx(server: Server, folder: Path) -> AsyncIterator[Proxy]:
    """Nginx with the files of `deploy/nginx`; what differs is the upstream's port, its own port, and the certificate.

    It inherits a socket that listens already, so that whoever connects before it is ready waits and is not refused.
    """
    assert NGINX is not None
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "fullchain.pem")
    certificate.private_key_pem.write_to_path(folder / "privkey.pem")
    (folder / "snippets").mkdir()
    shutil.copy(DEPLOY / "nginx" / "faqwire.conf", folder / "snippets")
    with socket.create_server((PROXY, 0)) as listening:
        port = listening.getsockname()[1]
        site = (DEPLOY / "nginx" / "site.conf").read_text(encoding="utf-8")
        for given, here in {
            "server 127.0.0.1:8765;": f"server {server.url.removeprefix('ws://').rstrip('/')};",
            "listen 443 ssl;": f"listen {PROXY}:{port} ssl;",
            "listen [::]:443 ssl;": "",
            "/etc/letsencrypt/live/www.example.org": str(folder),
        }.items():
            assert given in site
            site = site.replace(given, here)
        (folder / "site.conf").write_text(site, encoding="utf-8")
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log stderr crit;\n"
            f"events {{ worker_connections 64; }}\nhttp {{ access_log off; include {folder}/site.conf;\n"
            + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi"))
            + f"scgi_temp_path {folder}/scgi; }}\n",
            encoding="utf-8",
        )
        process = await asyncio.create_subprocess_exec(
            *(NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")),
            env={"NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
            stderr=asyncio.subprocess.PIPE,
        )
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    try:
        yield Proxy(port, trusting)
    finally:
        process.terminate()
        _, said = await process.communicate()
    # That it has inherited a socket is a notice like any other to it.
    said = b"\n".join(line for line in said.splitlines() if b"[notice]" not in line)
    assert (process.returncode, said) == (0, b"")


@asynccontextmanager
async def caddy(server: Server, folder: Path) -> AsyncIterator[Proxy]:
    """Caddy with the file of `deploy/caddy`, and a certificate that it makes itself; it logs when it is ready."""
    assert CADDY is not None
    with socket.create_server((PROXY, 0)) as free:
        port = free.getsockname()[1]
    (folder / "Caddyfile").write_text(
        "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n"
        f"import {DEPLOY / 'caddy' / 'Caddyfile'}\n",
        encoding="utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        *(CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"),
        env={
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
            "CHAT_DOMAIN": f"https://localhost:{port}",
            "CHAT_UPSTREAM": server.url.removeprefix("ws://").rstrip("/"),
        },
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        # It listens first, and makes its certificate then.
        while not all(any(told in line for line in said) for told in ("serving initial", "certificate obtained")):
            line = await process.stderr.readline()
            assert line, "".join(said)
            said.append(line.decode())
        # It reads on, lest it waits for a reader.
        draining = asyncio.create_task(process.stderr.read())
        root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        yield Proxy(port, await asyncio.to_thread(ssl.create_default_context, cafile=root))
    finally:
        process.terminate()
        await process.wait()
    await draining
    errors = [line for line in said if json.loads(line).get("level") in {"error", "fatal"}]
    assert (process.returncode, errors) == (0, [])


@pytest.fixture(
    params=[
        pytest.param(nginx, marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
        pytest.param(caddy, marks=pytest.mark.skipif(CADDY is None, reason="caddy is not installed")),
    ],
    ids=["nginx", "caddy"],
)
def start_proxy(request: pytest.FixtureRequest) -> Any:
    """Starts one of the proxies before a server."""
    return request.param


@pytest.fixture
async def site(start_server: ServerFactory, start_proxy: Any, tmp_path: Path) -> AsyncIterator[tuple[Server, Proxy]]:
    """A server with the settings that docs/deploy.md asks for, and the proxy before it."""
    async with (
        start_server(trusted_proxies=(PROXY,), allowed_origins=(PAGE,)) as server,
        start_proxy(server, tmp_path) as proxy,
    ):
        yield server, proxy


def client_of(server: Server) -> str:
    """Whom the server takes its one client for."""
    (connection,) = server._connections
    return connection._websocket.client


async def test_a_page_asks_through_the_proxy(site: tuple[Server, Proxy]) -> None:
    """A page of a listed origin connects over TLS and gets its answer."""
    _, proxy = site
    async with proxy.dial() as client:
        assert client.websocket.subprotocol == "faqwire.v1"
        assert (await client.reply_to("1", UNSEEN))["entry"]["id"] == "track-order"


async def test_a_visitor_is_who_the_proxy_says(site: tuple[Server, Proxy]) -> None:
    """The server counts visitors by their own addresses, and nothing that they write makes them another."""
    server, proxy = site
    async with proxy.dial():
        assert client_of(server) == VISITOR
    for header in ("X-Forwarded-For", "x-forwarded-for", "Forwarded", "X-Real-IP"):
        value = f"for={FORGED}" if header == "Forwarded" else FORGED
        async with proxy.dial(**{header: value}) as client:
            await client.flush()
            assert VISITOR in {connection._websocket.client for connection in server._connections}
            assert FORGED not in {connection._websocket.client for connection in server._connections}


async def test_without_the_proxy_the_word_is_taken(site: tuple[Server, Proxy]) -> None:
    """What the test above forges would be believed of a proxy that passes it on."""
    server, _ = site
    async with dial(server, origin=PAGE, additional_headers={"X-Forwarded-For": FORGED}):
        assert client_of(server) == FORGED


async def test_strange_pages_are_refused(site: tuple[Server, Proxy]) -> None:
    """The origin of the page reaches the server: others than the listed ones get no websocket."""
    _, proxy = site
    with pytest.raises(InvalidStatus) as caught:
        async with proxy.dial(origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/", "/readyz", "/healthz", "/chat/", "/chat/readyz", "/chat/../readyz"])
async def test_nothing_else_is_reached(site: tuple[Server, Proxy], path: str) -> None:
    """Only the chat's own path leads to the server; its probes are not for visitors."""
    _, proxy = site
    with pytest.raises(InvalidStatus) as caught:
        async with proxy.dial(path):
            pass
    assert caught.value.response.status_code in {403, 404}  # nginx has a folder of pages at /, an empty one
    assert b"faqwire" not in (caught.value.response.body or b"")
