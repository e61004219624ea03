"""TLS from files, which may be renewed while the server runs.

A pair of files is loaded into a context of its own, and put into the place of the last one at once and as a whole:
each handshake takes the context that is current when its greeting arrives. So a pair that does not fit, or is half
written, leaves the one before in use, and so do kinds of keys that the new pair no longer has.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

from server.errors import SettingsError
from server.settings import Settings

_log = structlog.get_logger(__name__)

# How often the files are looked at.
LOOK_SECONDS = 10.0

# Size, time and number on disk of each file, as far as it is there.
Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificate:
    """A certificate with its key, and the context that servers listen with.

    Args:
        certificate: PEM file of the certificate and those between it and its root.
        key: PEM file of its private key, not encrypted.

    Attributes:
        context: for servers; stays the same when the files are loaded anew.

    Raises:
        SettingsError: the files cannot be read, or do not fit each other.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._stamp = self._look()
        self._current = self._load()
        self.context = self._load()
        self.context.sni_callback = self._choose

    def renew(self) -> bool:
        """Load the files anew if they have changed since they were looked at last.

        Returns:
            Whether there are new ones in use.

        Raises:
            SettingsError: they have changed, and cannot be used; the last ones stay in use.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._current = self._load()
        return True

    def _choose(self, handshake: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in every handshake, also where the client names no server."""
        del name, context
        handshake.context = self._current

    def _look(self) -> Stamp:
        return tuple(_stamp_of(file) for file in self._files)

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            reason = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc
            raise SettingsError(
                f"tls_certificate {certificate} and tls_key {key} cannot be used ({reason}); "
                "they are a certificate and its own key, in PEM, the key not encrypted"
            ) from exc
        return context


def read_certificate(settings: Settings) -> Certificate | None:
    """The certificate that the settings name; None where TLS is not served.

    Raises:
        SettingsError: as `Certificate`.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)


async def keep_renewed(certificate: Certificate) -> None:
    """Load the files anew whenever they change, until this is cancelled; what cannot be used is logged."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if await asyncio.to_thread(certificate.renew):
                _log.info("certificate renewed")
        except SettingsError as exc:
            _log.error("certificate not renewed, the last one stays in use", reason=str(exc))


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
