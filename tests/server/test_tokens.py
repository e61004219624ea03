"""Guards `server.tokens` and `server.authentication`: which tokens are valid, where they are shown, who sees them."""

import base64
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from server.close_codes import UNAUTHENTICATED
from server.errors import SettingsError
from server.settings import Settings
from server.tokens import LEEWAY_SECONDS, Tokens, read_tokens
from tests.server.conftest import Events, ServerFactory
from tests.server.raw import UPGRADE, dial, get
from tests.server.test_counting import scraped
from tests.server.test_hello import closed

SECRET = "correct horse battery staple, and then some"  # noqa: S105 a test's
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

by_secret = Tokens("HS256", SECRET.encode(), None)
by_key_pair = Tokens("RS256", PRIVATE.public_key(), None)
for_the_chat = Tokens("HS256", SECRET.encode(), "chat")


def signed(key: Any = SECRET, algorithm: str = "HS256", seconds: float = 3600, **claims: Any) -> str:
    """A token that expires in so many seconds."""
    return jwt.encode({"exp": time.time() + seconds, **claims}, key, algorithm)


def forged(header: dict[str, Any], claims: bytes, secret: bytes | None) -> str:
    """A token put together by hand, signed by SHA-256 with these bytes or not at all."""

    def part(content: bytes) -> bytes:
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    text = part(json.dumps(header).encode()) + b"." + part(claims)
    signature = b"" if secret is None else hmac.digest(secret, text, hashlib.sha256)
    return (text + b"." + part(signature)).decode()


LONG_FROM_NOW = json.dumps({"exp": time.time() + 3600}).encode()

VALID: dict[str, tuple[Tokens, str]] = {
    "secret": (by_secret, signed()),
    "key pair": (by_key_pair, signed(PRIVATE, "RS256")),
    "for an audience that does not matter": (by_secret, signed(aud="shop")),
    "for the audience": (for_the_chat, signed(aud="chat")),
    "for several audiences": (for_the_chat, signed(aud=["shop", "chat"])),
}

NOT_VALID: dict[str, tuple[Tokens, str]] = {
    "empty": (by_secret, ""),
    "no token": (by_secret, "sesame"),
    "other secret": (by_secret, signed(SECRET + "!")),
    "other key pair": (by_key_pair, signed(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256")),
    "expired": (by_secret, signed(seconds=-LEEWAY_SECONDS - 1)),
    "never expires": (by_secret, jwt.encode({"sub": "me"}, SECRET)),
    "expires at no number": (by_secret, forged({"alg": "HS256"}, b'{"exp": "soon"}', SECRET.encode())),
    "expires beyond numbers": (by_secret, forged({"alg": "HS256"}, b'{"exp": 1e999}', SECRET.encode())),
    "not valid yet": (by_secret, signed(nbf=time.time() + 3600)),
    "for no audience": (for_the_chat, signed()),
    "for another audience": (for_the_chat, signed(aud="shop")),
    "for no text": (for_the_chat, signed(aud=["chat", 1])),
    "alg none": (by_secret, forged({"alg": "none"}, LONG_FROM_NOW, None)),
    "alg None": (by_secret, forged({"alg": "None", "typ": "JWT"}, LONG_FROM_NOW, None)),
    "alg none for a key pair": (by_key_pair, forged({"alg": "none"}, LONG_FROM_NOW, None)),
    "no alg": (by_secret, forged({}, LONG_FROM_NOW, SECRET.encode())),
    "signed with the public key": (by_key_pair, forged({"alg": "HS256"}, LONG_FROM_NOW, PUBLIC)),
    "signed with the public key, as if by the private": (
        by_key_pair,
        forged({"alg": "RS256"}, LONG_FROM_NOW, PUBLIC),
    ),
    "other algorithm, right secret": (by_secret, signed(SECRET * 2, "HS512")),
    "brings a key of its own": (
        by_key_pair,
        signed(PRIVATE, "RS256").partition(".")[0] + signed("x" * 32)[signed("x" * 32).index(".") :],
    ),
    "nested deeply": (by_secret, forged({"alg": "HS256"}, b"[" * 5000, SECRET.encode())),
    "lone surrogate": (by_secret, "\ud800.a.b"),
}


@pytest.mark.parametrize(("tokens", "token"), VALID.values(), ids=VALID)
async def test_valid(tokens: Tokens, token: str) -> None:
    """What is signed by the key, meant for the audience where there is one, and not expired by more than a little."""
    assert await tokens(token)


@pytest.mark.parametrize(("tokens", "token"), NOT_VALID.values(), ids=NOT_VALID)
async def test_not_valid(tokens: Tokens, token: str) -> None:
    """Anything else, however clever; no exception comes of it."""
    assert not await tokens(token)


async def test_clocks_may_differ() -> None:
    """A token that has just expired is valid a little longer."""
    assert LEEWAY_SECONDS <= 60
    assert await by_secret(signed(seconds=-1))


def test_a_key_is_not_shown() -> None:
    """What a log would show of it."""
    assert SECRET not in repr(by_secret)


def settings_of(file: Path, content: bytes, algorithm: str) -> Settings:
    """Settings with a key in a file."""
    file.write_bytes(content)
    return Settings.model_validate({"token_key": file, "token_algorithm": algorithm})


def test_keys_are_read(tmp_path: Path) -> None:
    """A secret without the line break at its end, a public key as it is; and no key is no tokens."""
    file = tmp_path / "key"
    assert read_tokens(settings_of(file, f"{SECRET}\n".encode(), "HS256")) == by_secret
    assert read_tokens(settings_of(file, PUBLIC, "RS256")) is not None
    assert read_tokens(Settings()) is None


SHORT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 what is refused
CURVE = ec.generate_private_key(ec.SECP256R1())

# What the file has, the algorithm, and the sentence.
BAD_KEYS: dict[str, tuple[bytes, str, str]] = {
    "short secret": (b"x" * 31 + b"\n", "HS256", "has 31 bytes; HS256 needs 32 or more"),
    "empty": (b"", "HS256", "has 0 bytes"),
    "public key for HS256": (PUBLIC, "HS256", 'set token_algorithm to "RS256"'),
    "secret for RS256": (SECRET.encode(), "RS256", "is not an RSA public key in PEM"),
    "private key": (
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "RS256",
        "is not an RSA public key in PEM",
    ),
    "another kind of key": (
        CURVE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "RS256",
        "is not an RSA public key in PEM",
    ),
    "short key": (
        SHORT_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "RS256",
        "has 1024 bits; RS256 needs 2048 or more",
    ),
}


@pytest.mark.parametrize(("content", "algorithm", "says"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_bad_keys(tmp_path: Path, content: bytes, algorithm: str, says: str) -> None:
    """A key that would not protect anything is refused before anybody relies on it, without showing it."""
    with pytest.raises(SettingsError) as caught:
        read_tokens(settings_of(tmp_path / "key", content, algorithm))
    assert says in str(caught.value)
    assert str(tmp_path / "key") in str(caught.value)
    assert SECRET not in str(caught.value)


def test_no_key_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    settings = Settings.model_validate({"token_key": tmp_path / "none"})
    with pytest.raises(SettingsError, match="cannot be read \\(No such file or directory\\)"):
        read_tokens(settings)


def test_without_the_package(tmp_path: Path) -> None:
    """Without PyJWT a server with a key does not start; it says what to install."""
    file = tmp_path / "key"
    file.write_text(SECRET, encoding="utf-8")
    code = f"""
import sys
sys.modules["jwt"] = None
from server.errors import SettingsError
from server.settings import Settings
from server.tokens import read_tokens
try:
    read_tokens(Settings(token_key={str(file)!r}))
except SettingsError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "PyJWT is not installed; install it with `pip install -c constraints.txt '.[tokens]'`" in done.stdout


@pytest.fixture
def locked(tmp_path: Path) -> dict[str, Any]:
    """Settings of a server that asks for tokens."""
    file = tmp_path / "secret"
    file.write_text(SECRET, encoding="utf-8")
    return {"token_key": file, "metrics_port": 0}


async def test_a_token_in_each_place(start_server: ServerFactory, locked: dict[str, Any]) -> None:
    """In the header, among the subprotocols, or in the `hello`: it is taken, and never sent back."""
    token = signed()
    async with start_server(**locked) as server:
        async with dial(server, additional_headers={"Authorization": f"bearer  {token}"}) as client:
            await client.flush()
        for offered in (["faqwire.v1", f"faqwire.token.{token}"], [f"faqwire.token.{token}", "faqwire.v1"]):
            async with dial(server, subprotocols=offered) as client:
                assert client.websocket.subprotocol == "faqwire.v1"
                assert client.websocket.response is not None
                assert token not in str(client.websocket.response.headers)
                await client.send(type="hello", client="widget/1")
                await client.flush()
        async with dial(server) as client:
            await client.send(type="hello", token=token)
            await client.flush()


# The headers of a handshake whose token is not valid.
BAD_HANDSHAKES: dict[str, list[str]] = {
    "wrong": [f"Authorization: Bearer {signed(SECRET + '!')}"],
    "expired": [f"Authorization: Bearer {signed(seconds=-100)}"],
    "alg none": [f"Authorization: Bearer {forged({'alg': 'none'}, LONG_FROM_NOW, None)}"],
    "empty": ["Authorization: Bearer"],
    "as a subprotocol": ["Sec-WebSocket-Protocol: faqwire.v1, faqwire.token.guess"],
    "two": [f"Authorization: Bearer {signed()}", f"Sec-WebSocket-Protocol: faqwire.v1, faqwire.token.{signed()}"],
}


@pytest.mark.parametrize("headers", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
async def test_bad_handshakes(start_server: ServerFactory, locked: dict[str, Any], headers: list[str]) -> None:
    """A handshake with a token that is not valid gets 401, and is counted; it does not wait for a better one."""
    async with start_server(**locked) as server:
        reply = await get(server, "/", *UPGRADE, *headers)
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == 'Bearer realm="faqwire", error="invalid_token"'
        assert (await scraped(server))("refusals_total", reason="token") == 1


async def test_a_key_pair(start_server: ServerFactory, tmp_path: Path) -> None:
    """A server with a public key and an audience takes what the private half signed for it, and nothing else.

    It matters neither what a token says of its own algorithm, nor where it is shown.
    """
    file = tmp_path / "public.pem"
    file.write_bytes(PUBLIC)
    meant = json.dumps({"exp": time.time() + 3600, "aud": "chat"}).encode()
    bad = [
        forged({"alg": "HS256"}, meant, PUBLIC),
        forged({"alg": "RS256"}, meant, PUBLIC),
        forged({"alg": "none"}, meant, None),
        signed(PRIVATE, "RS256", aud="shop"),
        signed(PRIVATE, "RS256"),
        signed(PRIVATE, "RS256", seconds=-100, aud="chat"),
        signed(PRIVATE, "PS256", aud="chat"),
    ]
    async with start_server(token_key=file, token_algorithm="RS256", token_audience="chat") as server:
        for token in bad:
            assert (await get(server, "/", *UPGRADE, f"Authorization: Bearer {token}")).status == 401
            async with dial(server) as client:
                await client.send(type="hello", token=token)
                assert (await closed(client))[0] == UNAUTHENTICATED
        good = signed(PRIVATE, "RS256", aud="chat")
        async with dial(server, additional_headers={"Authorization": f"Bearer {good}"}) as client:
            await client.ask("1", "Where is my order?")
            assert (await client.receive())["type"] == "answer"


async def test_what_is_no_token(start_server: ServerFactory, locked: dict[str, Any]) -> None:
    """Credentials of another scheme are a proxy's, and no token; the client still has to show one."""
    async with (
        start_server(**locked) as server,
        dial(server, additional_headers={"Authorization": "Basic YTpi"}) as client,
    ):
        await client.ask("1", "Where is my order?")
        assert (await closed(client))[0] == UNAUTHENTICATED


async def test_tokens_that_nobody_asks_for(start_server: ServerFactory) -> None:
    """A server that needs no token does not look at any."""
    async with (
        start_server() as server,
        dial(
            server,
            subprotocols=["faqwire.v1", "faqwire.token.guess"],
            additional_headers={"Authorization": "Bearer guess"},
        ) as client,
    ):
        await client.flush()


async def test_what_checks_tokens_fails(start_server: ServerFactory, logs: Events) -> None:
    """Where a token cannot be checked nobody comes in; the operator reads why, and the client when to come back."""

    async def broken(token: str) -> bool:
        raise OSError("no database")

    async with start_server(authenticate=broken) as server:
        reply = await get(server, "/", *UPGRADE, "Authorization: Bearer x")
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert "a token could not be checked" in [event["event"] for event in logs]


async def test_no_secret_in_a_log(
    start_server: ServerFactory, locked: dict[str, Any], logs: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is shown, wherever, and even where every log is turned on: neither token nor key is written."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "websockets.server")
    caplog.set_level(logging.WARNING, "asyncio")  # it writes on the event loop, and knows addresses at most
    good, bad = signed(), signed(SECRET + "!")
    async with start_server(**locked) as server:
        for token in (good, bad):
            await get(server, "/", *UPGRADE, f"Authorization: Bearer {token}")
            await get(server, "/", *UPGRADE, f"Sec-WebSocket-Protocol: faqwire.v1, faqwire.token.{token}")
            await get(server, "/", *UPGRADE, f"Sec-WebSocket-Protocol: faqwire.token.{token}")
            async with dial(server) as client:
                await client.send(type="hello", token=token)
                await client.websocket.wait_closed() if token == bad else await client.flush()
    written = str(logs) + "".join(
        record.getMessage()
        for record in caplog.records
        if record.name != "websockets.client"  # the test's own side
    )
    assert "hello" in written
    for secret in (good, bad, good.rpartition(".")[2], SECRET):
        assert secret not in written
