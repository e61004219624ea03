"""The files in `deploy/` for nginx and Caddy, as they are, in front of a real server: TLS, origins, addresses.

Each is skipped where its program is not installed, and both outside of Linux, where 127.0.0.2 is nobody.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import sys
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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is not this machine's")

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


def issue(folder: Path) -> trustme.CA:
    """Write a certificate as proxies read it, and give who has issued it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "fullchain.pem")
    certificate.private_key_pem.write_to_path(folder / "privkey.pem")
    return authority


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A context that trusts no other."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def nginx(server: Server, folder: Path) -> AsyncIterator[Proxy]:
    """Nginx with the files of `deploy/nginx`; what differs is the upstream's port, its own port, and the certificate.

    It inherits a socket that listens already, so that whoever connects before it is ready waits and is not refused.
    """
    assert NGINX is not None
    authority = issue(folder)
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
    try:
        context = trusting(authority)
        # Before it serves it would not know the signal that ends it.
        _, writer = await asyncio.open_connection(PROXY, port, ssl=context, server_hostname="localhost")
        writer.close()
        await writer.wait_closed()
        yield Proxy(port, context)
    finally:
        process.terminate()
        _, said = await process.communicate()
    # That it has inherited a socket is a notice like any other to it.
    said = b"\n".join(line for line in said.splitlines() if b"[notice]" not in line)
    assert (process.returncode, said) == (0, b"")


@asynccontextmanager
async def caddy(server: Server, folder: Path) -> AsyncIterator[Proxy]:
    """Caddy with what it reads in `deploy/caddy`; what differs is its port, and where the certificate comes from.

    Its port is held by a socket that does not listen, so that nobody else gets it meanwhile. It logs when it is ready.
    """
    assert CADDY is not None
    authority = issue(folder)
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    place = {"CHAT_UPSTREAM": server.url.removeprefix("ws://").rstrip("/")}
    reading = await asyncio.create_subprocess_exec(
        *(CADDY, "adapt", "--adapter", "caddyfile", "--config", str(DEPLOY / "caddy" / "Caddyfile")),
        env={**home, **place},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await reading.communicate()
    assert reading.returncode == 0, said
    settings = json.loads(out)
    (site,) = settings["apps"]["http"]["servers"].values()
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((PROXY, 0))
        port = held.getsockname()[1]
        assert site["listen"] == [":443"]
        site |= {"listen": [f"{PROXY}:{port}"], "tls_connection_policies": [{}], "automatic_https": {"disable": True}}
        files = {"certificate": f"{folder}/fullchain.pem", "key": f"{folder}/privkey.pem"}
        settings["apps"]["tls"] = {"certificates": {"load_files": [files]}}
        settings["admin"] = {"disabled": True}
        (folder / "caddy.json").write_text(json.dumps(settings), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(CADDY, "run", "--config", str(folder / "caddy.json")), env=home, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        lines = [await process.stderr.readline()]
        while b"serving initial configuration" not in lines[-1]:
            assert lines[-1], lines
            lines.append(await process.stderr.readline())
        reading_on = asyncio.create_task(process.stderr.read())  # lest it waits for a reader
        try:
            yield Proxy(port, trusting(authority))
        finally:
            process.terminate()
            await process.wait()
        assert (process.returncode, b'"level":"error"' in await reading_on) == (0, False)


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
    (connection,) = server.reception.connections
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
            assert VISITOR in {connection._websocket.client for connection in server.reception.connections}
            assert FORGED not in {connection._websocket.client for connection in server.reception.connections}


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
