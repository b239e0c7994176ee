"""The one thread that owns the model: requests queue up to a bound, and are refused beyond it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

QUEUE = 8  # requests waiting or running


class Busy(Exception):
    """The queue is full: try again shortly."""


class ModelHost:
    """Opens a model and dictionaries in its own thread, at start-up but off the request path, then answers from there."""

    def __init__(self, opener: Callable[[], Any] | None) -> None:
        self._opener = opener
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._waiting = 0
        self._lock = threading.Lock()
        self._opened: Any = None
        self.state = "absent" if opener is None else "loading"
        self.problem = ""
        if opener is not None:
            self._thread.submit(self._open)

    def _open(self) -> None:
        assert self._opener is not None
        try:
            self._opened = self._opener()
            self.state = "ready"
        except Exception as error:  # shown to the user by /api/status; browsing goes on without a model
            self.state, self.problem = "failed", str(error)

    async def call(self, function: Callable[[Any], Any]) -> Any:
        """Run `function(opened)` in the model's thread. Raises Busy when QUEUE requests are waiting already."""
        with self._lock:
            if self._waiting >= QUEUE:
                raise Busy
            self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(self._opened))
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)
