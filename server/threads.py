"""Long work beside the event loop, in threads that nothing waits for when the process ends."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

R = TypeVar("R")


async def in_thread(function: Callable[[], R], name: str) -> R:
    """Call a function in a thread of its own; raises what it raises.

    Other than `asyncio.to_thread` it does not keep a process from ending that has no use for the result any more. For
    the same reason the function has to leave everything in order wherever it is when the process ends.

    Args:
        function: what to call; it must not raise `StopIteration`.
        name: the thread's.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, problem: BaseException | None) -> None:
        if done.done():  # whoever waited has been cancelled
            return
        if problem is not None:
            done.set_exception(problem)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # it is None only where R has it

    def run() -> None:
        result, problem = None, None
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001 it is raised where it is waited for
            problem = exc
        with suppress(RuntimeError):  # the event loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
