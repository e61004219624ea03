"""How a client opens one connection: the handshake, the server's welcome, the client's hello."""

import asyncio

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from server.close_codes import may_reconnect
from server.errors import ClientError
from server.logs import SILENT
from server.messages import SUBPROTOCOL, Hello, Welcome, decode_server, encode


async def dial(url: str, hello: Hello | None, patience: float) -> tuple[ClientConnection, Welcome]:
    """Connect to a faqwire server; cancelling leaves nothing behind.

    Args:
        url: the server's address.
        hello: what to say first; None says nothing.
        patience: seconds to wait for the connection and its welcome.

    Raises:
        ClientError: nobody listens there, or it is not a faqwire server; it says whether trying again may help.
    """
    websocket: ClientConnection | None = None
    opened = False
    try:
        async with asyncio.timeout(patience):
            websocket = await connect(
                url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                open_timeout=None,
                proxy=None,
                logger=SILENT,
            )
            welcome = decode_server(await websocket.recv())
            if not isinstance(welcome, Welcome):
                raise ClientError(f"{url} did not begin with a welcome")
            if hello is not None:
                await websocket.send(encode(hello))
        opened = True
    except (OSError, TimeoutError) as exc:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        raise ClientError(
            f"cannot reach {url} ({reason}); is the server running? `faqwire serve` starts one", again=True
        ) from exc
    except (InvalidURI, InvalidHandshake, ConnectionClosed, msgspec.MsgspecError, ValueError, OverflowError) as exc:
        raise ClientError(f"{url} is not a faqwire server: {exc}", again=_is_passing(exc)) from exc
    finally:
        if websocket is not None and not opened:
            websocket.transport.abort()  # it may not understand a goodbye either
    return websocket, welcome


def _is_passing(problem: Exception) -> bool:
    """Whether a handshake that failed may succeed later: the server is full, restarts, or is missed by its proxy."""
    match problem:
        case InvalidStatus():
            status = problem.response.status_code
            return status == 429 or status >= 500
        case InvalidMessage():  # it was cut off in the middle
            return True
        case ConnectionClosed():
            return may_reconnect(None if problem.rcvd is None else problem.rcvd.code)
        case _:
            return False
