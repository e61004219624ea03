"""Who may use a connection: whoever shows a token that is valid.

A token is shown at the handshake, in the `Authorization` header or, for browsers, which cannot set headers, among the
offered subprotocols; or in the first message, `hello`.
"""

import math
from datetime import datetime
from typing import Protocol

from websockets.datastructures import Headers

# What stands before a token that is offered as a subprotocol; it is never chosen, and so never sent back.
TOKEN_SUBPROTOCOL = "faqwire.token."  # noqa: S105 not one itself


class Authenticate(Protocol):
    """Checks what a client shows of itself."""

    async def __call__(self, token: str) -> bool | datetime:
        """Whether this token proves that its client may connect.

        Returns:
            False where it does not; until when it does, with a time zone; True where a connection may outlive it.
        """
        ...


def expiry_of(verdict: bool | datetime) -> float:  # noqa: FBT001 what an `Authenticate` says
    """Until when a token that was found valid is, in seconds since 1970; infinite where it may be outlived."""
    return verdict.timestamp() if isinstance(verdict, datetime) else math.inf


def tokens_of(headers: Headers) -> list[str]:
    """The tokens that a handshake shows.

    Other schemes of `Authorization` than Bearer are a proxy's affair.
    """
    credentials = [value.partition(" ") for value in headers.get_all("Authorization")]
    offered = [name.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for name in value.split(",")]
    return [
        *(token.strip() for scheme, _, token in credentials if scheme.lower() == "bearer"),
        *(name.removeprefix(TOKEN_SUBPROTOCOL) for name in offered if name.startswith(TOKEN_SUBPROTOCOL)),
    ]
