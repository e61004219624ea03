"""One websocket as the server has it: it knows who its client is, and a client that does not read cannot fill it.

What is written to a client that does not read stays in memory. websockets bounds most of that by itself: whoever sends
beyond its high mark waits. But a reply is written before its sender waits, so every request in flight adds one; and
websocket pings are answered whether or not anybody reads the pongs. So there are two bounds here: how long the buffer
may stay above its mark, and how large it may become. Whoever passes one is told so with a close code, and cut off
shortly after, for the code waits behind all that the client has not read.

Most connections are idle most of the time, and there are many: what one keeps is what it needs. What was said at the
handshake is forgotten once it is over, and pings are not sent by a task for each (`server.keepalive`).

What a client sends is bounded where it comes in. Messages that come too fast are refused one by one, elsewhere; but
pings, pongs and parts of messages never get there, and all frames of one read are parsed before anybody else has a
turn. So a read is taken in pieces, its frames are counted, and whoever sends too many is not listened to any more.
"""

import asyncio
import math
import os
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event, State

from server.address import UNKNOWN
from server.close_codes import INTERNAL, TOO_FAST, TOO_SLOW
from server.handshakes import Handshakes
from server.pace import Pace

# How long a client that was told goodbye has for it; then it is cut off.
GOODBYE_SECONDS = 2.0
# How many bytes are parsed before their frames are counted: some hundred of the smallest ones.
PIECE = 4096


class Websocket(ServerConnection):
    """A websocket with a bounded buffer.

    Args:
        handshakes: counts it until its handshake is over.
        rate, burst: how fast messages may come (`Pace`).
        max_outgoing: most bytes that may wait to be read by the client.
        send_seconds: how long so many may wait that senders do.
        on_too_slow: told once where a bound of what waits was passed.
        on_too_fast: told once where too many frames came.
        args, options: see `ServerConnection`.

    Attributes:
        client: what counts as one client (`server.address.group_of`); set at the handshake.
        authenticated: whether the handshake had a valid token; likewise.
        expires: when its client's token does, in seconds since 1970; infinite where there is none, or it does not.
        pace: how fast its messages may come, and its frames.
    """

    # The last rows are attributes of `ServerConnection`: without a place here they are in a dict, a kilobyte and a half
    # larger for every connection where several are opened before the first one has all of them.
    __slots__ = (
        *(
            "_counted_as",
            "_deaf",
            "_handshakes",
            "_leaving",
            "_max_outgoing",
            "_on_too_fast",
            "_on_too_slow",
            "_ping",
            "_send_seconds",
            "_timer",
            "_too_slow",
        ),
        *("authenticated", "client", "expires", "pace"),
        *("protocol", "ping_interval", "ping_timeout", "close_timeout", "max_queue_high", "max_queue_low"),
        *("write_limit_high", "write_limit_low", "id", "logger", "debug", "request", "response", "loop"),
        *("recv_messages", "close_deadline", "send_in_progress", "pending_pings", "latency", "keepalive_task"),
        *("connection_exc", "connection_lost_waiter", "paused", "drain_waiters", "server", "request_rcvd", "transport"),
    )

    def __init__(
        self,
        *args: Any,
        handshakes: Handshakes,
        rate: float,
        burst: int,
        max_outgoing: int,
        send_seconds: float,
        on_too_slow: Callable[[], None],
        on_too_fast: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.client = UNKNOWN
        self.authenticated = False
        self.expires = math.inf
        self._handshakes = handshakes
        self._counted_as: str | None = None
        self.pace = Pace(rate, burst, self.loop.time())
        self._max_outgoing = max_outgoing
        self._send_seconds = send_seconds
        self._on_too_slow = on_too_slow
        self._on_too_fast = on_too_fast
        self._deaf = False
        self._leaving = False
        self._too_slow = False
        self._timer: asyncio.TimerHandle | None = None  # until the client is too slow, or its goodbye is over
        self._ping: bytes | None = None  # that the client has not answered

    def dismiss(self, code: int, reason: str) -> bool:
        """Begin to close, and cut the connection off if that takes long.

        Other than `close` it waits for nothing, not even for room in the buffer.

        Returns:
            False where it is closing already.
        """
        if self._leaving or self.protocol.state is not State.OPEN:
            return False
        self._leaving = True
        self.protocol.send_close(code, reason)
        super().send_data()
        self._start(GOODBYE_SECONDS, self.transport.abort)
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the handshake, unless too many are under way."""
        place = transport.get_extra_info("peername")
        self._counted_as = self._handshakes.begin(place[0] if isinstance(place, tuple) else None)
        if self._counted_as is None:
            transport.set_protocol(asyncio.Protocol())  # nothing has begun that would have to be ended
            cast("asyncio.Transport", transport).abort()
            return
        super().connection_made(transport)

    def end_handshake(self) -> None:
        """Count it no more, and let go of its headers, and of the token in them.

        `ServerConnection` keeps the request for as long as it lives, and so does its parser; both keep it empty.
        """
        self._stop_counting()
        for message in (self.request, self.response):
            if message is not None:
                message.headers.clear()

    def probe(self) -> bool:
        """Send a websocket ping, or begin to close where the one before has not been answered.

        Who closes is not asked, nor is who has so much to read that its time runs anyway.

        Returns:
            False where the connection is given up.
        """
        if self._leaving or self.protocol.state is not State.OPEN:
            return True
        if self._ping is not None:
            self.dismiss(INTERNAL, "keepalive ping timeout")
            return False
        if self._timer is None:
            self._ping = os.urandom(4)  # nobody can answer it who has not read it
            self.protocol.send_ping(self._ping)
            self.send_data()
        return True

    def send_data(self) -> None:
        """Write what is to be sent, as `ServerConnection`, and see whether it is too much."""
        super().send_data()
        if self.transport.get_write_buffer_size() > self._max_outgoing:
            self._give_up()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, unless it was given up: it would go on to cause replies."""
        for start in range(0, len(data), PIECE):
            if self._deaf:
                return
            if self.request is not None and self.response is None:
                # A client waits for the response (RFC 6455, 4.1); frames before it would get to one not yet admitted.
                self._deaf = True
                self.transport.abort()
                return
            super().data_received(data[start : start + PIECE])

    def process_event(self, event: Event) -> None:
        """Take a request or a frame, and see whether it is one too many, or the pong that is waited for."""
        super().process_event(event)
        if not isinstance(event, Frame) or event.opcode is Opcode.CLOSE:
            return
        if self._ping is not None and event.opcode is Opcode.PONG and event.data == self._ping:
            self._ping = None
        control = event.opcode not in DATA_OPCODES
        if not self.pace.takes_frame(self.loop.time(), control=control):
            self._deaf = True
            if self.dismiss(TOO_FAST, "frames come too fast"):
                self._on_too_fast()

    def pause_writing(self) -> None:
        """From here on senders wait, and the client's time runs."""
        super().pause_writing()
        if not self._leaving:
            self._start(self._send_seconds, self._give_up)

    def resume_writing(self) -> None:
        """The client has read most of it."""
        super().resume_writing()
        if not self._leaving:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_counting()
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_counting(self) -> None:
        if self._counted_as is not None:
            self._handshakes.end(self._counted_as)
            self._counted_as = None

    def _give_up(self) -> None:
        if self._too_slow:
            return
        self._too_slow = self._deaf = True
        self.transport.resume_reading()  # what comes is dropped, but that the client has left has to be noticed
        if self.protocol.state is State.OPEN:
            self._on_too_slow()
            self.dismiss(TOO_SLOW, "what is sent to you is not read fast enough")
        else:  # it is in the middle of a handshake or of closing, and does not end it
            self._leaving = True
            self._start(GOODBYE_SECONDS, self.transport.abort)

    def _start(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
