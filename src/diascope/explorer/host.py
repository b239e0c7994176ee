"""The one thread that owns the model: work queues up to a bound, and is refused beyond it.

`call` is for answers that come in one piece; `start` for jobs, which tell of their progress and can be cancelled (jobs.py).
Both wait in the same queue. A place in it is free again once its work has ended, or was cancelled while it waited.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from diascope.explorer.jobs import GRACE, Job, Work

QUEUE = 8  # requests waiting or running
KEPT = 32  # jobs that are over and can still be followed


class Busy(Exception):
    """The queue is full: try again shortly."""


class ModelHost:
    """Opens a model and dictionaries in its own thread, at start-up but off the request path, then answers from there.

    The thread is a daemon: Ctrl-C while a model loads, or computes, ends the server at once.
    """

    def __init__(self, opener: Callable[[], Any] | None, *, grace: float = GRACE) -> None:
        self._opener, self._grace = opener, grace
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = 0  # calls
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self.opened: Any = None
        self.state = "absent" if opener is None else "loading"
        self.problem = ""
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def _work(self) -> None:
        if self._opener is not None:
            self._open(self._opener)
        while (run := self._todo.get()) is not None:
            run()

    def _open(self, opener: Callable[[], Any]) -> None:
        try:
            self.opened = opener()
            self.state = "ready"
        except Exception as error:  # shown to the user by /api/status; browsing goes on without a model
            self.state, self.problem = "failed", str(error)

    @property
    def ahead(self) -> int:
        """How many calls and jobs are waiting or running."""
        return self._waiting + sum(not job.over for job in list(self._jobs.values()))

    async def call(self, function: Callable[[Any], Any]) -> Any:
        """Run `function(opened)` in the model's thread. Raises Busy when QUEUE requests are waiting already."""
        with self._lock:
            if self.ahead >= QUEUE:
                raise Busy
            self._waiting += 1
        try:
            future: Future[Any] = Future()
            self._todo.put(lambda: _fulfil(future, lambda: function(self.opened)))
            return await asyncio.wrap_future(future)
        finally:
            with self._lock:
                self._waiting -= 1

    def start(self, work: Work, *, title: str = "") -> Job:
        """Queue `work(opened, emit)` as a job, called `title`. Raises Busy when QUEUE requests are waiting already."""
        with self._lock:
            if self.ahead >= QUEUE:
                raise Busy
            over = [key for key, job in self._jobs.items() if job.over]
            for key in over[: max(0, len(over) - KEPT + 1)]:  # the oldest
                del self._jobs[key]
            job = Job(work, ahead=self.ahead, grace=self._grace, title=title)
            self._jobs[job.id] = job
        self._todo.put(lambda: job.run(self.opened))
        return job

    def job(self, id: str) -> Job | None:
        """A job by its id, over or not; None where there is none (any more)."""
        return self._jobs.get(id)

    def jobs(self) -> list[Job]:
        """Jobs that wait, run, or ended lately, in the order in which they came."""
        return list(self._jobs.values())

    def close(self) -> None:
        """Let the thread go once its present work is done, which is cancelled if it is a job."""
        for job in list(self._jobs.values()):
            job.cancel()
        self._todo.put(None)


def _fulfil(future: Future[Any], function: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:  # raised where the answer is awaited
            future.set_exception(error)
