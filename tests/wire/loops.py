"""Run a test on asyncio's own loop and on uvloop, each in a thread of its own, and see that it leaves no task behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
SECONDS = 20.0
"""No test takes so long, unless it hangs."""

Test = Callable[[], Coroutine[None, None, None]]


def on_each_loop(test: Test) -> Callable[[str], None]:
    """Makes an ordinary, parametrised test of a coroutine function without arguments."""

    def run(loop: str) -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_run, LOOPS[loop], test).result()

    run.__name__ = run.__qualname__ = test.__name__
    run.__module__, run.__doc__ = test.__module__, test.__doc__
    return pytest.mark.parametrize("loop", sorted(LOOPS))(run)


def _run(new_loop: Callable[[], asyncio.AbstractEventLoop], test: Test) -> None:
    async def checked() -> None:
        unhandled: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(str(context)))
        async with asyncio.timeout(SECONDS):
            await test()
        for _ in range(200):  # a socket that was just closed is told so in the next turns
            if len(asyncio.all_tasks()) == 1:
                break
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert unhandled == []

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(checked())
