"""The cross-encoder that a build calibrates with."""

from export.bundle import Bundle, open_bundle
from export.runtime.cross_encoder import CrossEncoder, cut_to
from export.runtime.session import CPU, Device
from server.settings import Settings


def find_cross_encoder(settings: Settings) -> Bundle | None:
    """The cross-encoder's bundle, cut to the length of pairs; None where none is set.

    Raises:
        BundleError: it is missing, damaged, or no cross-encoder.
    """
    if settings.cross_encoder is None:
        return None
    return cut_to(open_bundle(settings.cross_encoder, kind="cross-encoder"), settings.pair_tokens)


def open_cross_encoder(bundle: Bundle | None, *, threads: int) -> CrossEncoder | None:
    """The cross-encoder in fp32 on the CPU: what indexes are calibrated with."""
    return None if bundle is None else CrossEncoder(bundle, "fp32", Device(CPU), threads=threads)
