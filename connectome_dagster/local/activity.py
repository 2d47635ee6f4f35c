"""What the server is doing: requests that run, and what is still to be applied after an answer.

Knows neither HTTP nor storage. Counted for any thread; waiting and postponing are the event loop's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Activity:
    """Counts what runs or is due, so that one can wait until nothing is."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Something runs while this lasts."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing runs and nothing is due; False if that takes longer.

        For other threads than the event loop's.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, seconds)

    async def pause(self, seconds: float) -> bool:
        """Let seconds pass; False if the server ends before they do."""
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except asyncio.TimeoutError:
            return True
        return False

    def postpone(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        """Act after seconds, unless the server ends before they pass."""
        # Counted from now on, not from the task's first step: nobody may see nothing in between.
        self._add(1)
        task = asyncio.get_running_loop().create_task(self._later(seconds, act))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        try:
            if await self.pause(seconds):
                await act()
        finally:
            self._add(-1)

    async def end(self) -> None:
        """End every pause: what is due later is dropped, and what acts already is waited for."""
        self._over.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, number: int) -> None:
        with self._changed:
            self._count += number
            if not self._count:
                self._changed.notify_all()
