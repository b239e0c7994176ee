"""The one thread that owns the model: requests queue up to a bound, and are refused beyond it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

QUEUE = 8  # requests waiting or running


class Busy(Exception):
    """The queue is full: try again shortly."""


class ModelHost:
    """Opens a model and dictionaries in its own thread, at start-up but off the request path, then answers from there.

    The thread is a daemon: Ctrl-C while a model loads, or computes, ends the server at once.
    """

    def __init__(self, opener: Callable[[], Any] | None) -> None:
        self._opener = opener
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._opened: Any = None
        self.state = "absent" if opener is None else "loading"
        self.problem = ""
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def _work(self) -> None:
        if self._opener is not None:
            self._open(self._opener)
        while (job := self._jobs.get()) is not None:
            future, function = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # raised where the answer is awaited
                    future.set_exception(error)

    def _open(self, opener: Callable[[], Any]) -> None:
        try:
            self._opened = opener()
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
            future: Future[Any] = Future()
            self._jobs.put((future, lambda: function(self._opened)))
            return await asyncio.wrap_future(future)
        finally:
            with self._lock:
                self._waiting -= 1

    def close(self) -> None:
        """Let the thread go once its present work is done."""
        self._jobs.put(None)
