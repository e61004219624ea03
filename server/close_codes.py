"""Why websockets are closed, and after which close codes a client connects again; `docs/protocol.md` lists them.

Codes of our own are 4400 to 4499. Those below 4450 mean that another connection may fare better, those from 4450 on
that it would not, unless the client changes something first.
"""

GOING_AWAY = 1001
INTERNAL = 1011
TRY_AGAIN_LATER = 1013
IDLE = 4400
TOO_FAST = 4401
TOO_SLOW = 4402
UNAUTHENTICATED = 4450
EXPIRED = 4451

# Of the registry's codes: 1001 going away, 1005 no code given, 1006 cut off, 1011 internal error, 1012 service restart,
# 1013 try again later, 1014 bad gateway.
_RECONNECT = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1014})


def may_reconnect(code: int | None) -> bool:
    """Whether a client connects again, after a while, when its connection ended with this code; None is none."""
    return code is None or code in _RECONNECT or 4400 <= code < 4450
