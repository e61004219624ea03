"""Who may use a connection."""

from typing import Protocol


class Authenticate(Protocol):
    """Checks what a client shows of itself."""

    async def __call__(self, token: str) -> bool:
        """Whether this token proves that its client may connect."""
        ...
