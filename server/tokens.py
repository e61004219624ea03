"""JSON Web Tokens: an `Authenticate` that checks signature, expiry and audience.

Exactly one algorithm is accepted, whatever a token's own header says: `none` never is, and a public key never serves as
a shared secret.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from server.errors import SettingsError
from server.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

# By how many seconds the clocks of whoever signs and of this machine may differ.
LEEWAY_SECONDS = 10
# The last moment that has a date; tokens may be meant to be valid for longer.
_LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
# A shared secret is no shorter than what it is hashed to (RFC 7518, 3.2); an RSA key has no fewer bits (3.3).
LEAST_SECRET_BYTES = 32
LEAST_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Tokens:
    """Accepts tokens that are signed with one key, and not expired.

    Attributes:
        algorithm: the one that a token has to be signed by.
        key: the shared secret of HS256, or the public key of RS256.
        audience: what a token has to be meant for; None where that does not matter.
    """

    algorithm: Literal["HS256", "RS256"]
    key: "bytes | RSAPublicKey" = field(repr=False)
    audience: str | None

    async def __call__(self, token: str) -> bool | datetime:
        """See `Authenticate`; whatever cannot be read is not valid, and what is, is valid until its `exp`."""
        import jwt

        try:
            claims = jwt.decode(
                token,
                self.key,
                algorithms=[self.algorithm],
                audience=self.audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp"], "verify_aud": self.audience is not None},
            )
            return datetime.fromtimestamp(min(int(claims["exp"]) + LEEWAY_SECONDS, _LAST_SECOND), UTC)
        except Exception:  # noqa: BLE001 a stranger wrote it: numbers, nesting and text may be anything
            return False


def read_tokens(settings: Settings) -> Tokens | None:
    """What checks tokens, with its key read from the file; None where no token is needed.

    Raises:
        SettingsError: the key cannot be read or is too weak, or PyJWT is not installed.
    """
    file = settings.token_key
    if file is None:
        return None
    try:
        import jwt  # noqa: F401  it is needed with the first token; here it is looked for
        from cryptography.hazmat.primitives import serialization  # noqa: F401  likewise
    except ImportError:
        raise SettingsError(
            "token_key is set, and PyJWT is not installed; install it with "
            "`pip install -c constraints.txt '.[tokens]'`, or leave token_key out"
        ) from None
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise SettingsError(f"token_key: {file} cannot be read ({exc.strerror})") from exc
    match settings.token_algorithm:
        case "HS256":
            return Tokens("HS256", _read_secret(file, content), settings.token_audience)
        case "RS256":
            return Tokens("RS256", _read_public_key(file, content), settings.token_audience)


def _read_secret(file: Path, content: bytes) -> bytes:
    secret = content.strip()  # editors end files with a line break
    if b"-----BEGIN " in secret:
        raise SettingsError(
            f"token_key: {file} has a key pair's part, which is no secret for HS256; "
            'set token_algorithm to "RS256", or name a file with the shared secret'
        )
    if len(secret) < LEAST_SECRET_BYTES:
        raise SettingsError(
            f"token_key: {file} has {len(secret)} bytes; HS256 needs {LEAST_SECRET_BYTES} or more, "
            "for example those of `openssl rand -hex 32`"
        )
    return secret


def _read_public_key(file: Path, content: bytes) -> "RSAPublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise SettingsError(
            f"token_key: {file} is not an RSA public key in PEM; `openssl rsa -in KEY -pubout` writes one"
        )
    if key.key_size < LEAST_RSA_BITS:
        raise SettingsError(f"token_key: {file} has {key.key_size} bits; RS256 needs {LEAST_RSA_BITS} or more")
    return key
