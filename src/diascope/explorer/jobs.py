"""A job: work in the model's thread that tells of its progress, can be followed again after a break, and can be cancelled.

1. The model's thread calls `emit`; events are numbered from 1 and kept, so that a follower who lost its connection goes on
   after the last number that it saw.
2. `follow` hands events to any number of followers; each reads the one list at its own pace, so none holds up the work.
3. A job that nobody has followed for `GRACE` seconds is cancelled: its page was closed, or its client killed.
4. Cancelling makes the next `emit` raise Cancelled, which ends the work between two steps; a waiting job never starts.

The first event, "job", tells the id and how many are before it. States: waiting -> running -> done | failed | cancelled. The last event of a job has its final state's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

GRACE = 5.0  # seconds without a follower
FINAL = ("done", "failed", "cancelled")
Event = tuple[int, str, Any]  # number, kind, data
Work = Callable[[Any, Callable[[str, Any], None]], Any]  # work(opened, emit) -> data of the event "done"


class Cancelled(Exception):
    """The job was cancelled: raised by `emit` inside the work."""


class Job:
    """One piece of work and what it told so far. Everything here may be called from any thread."""

    def __init__(self, work: Work, *, ahead: int = 0, grace: float = GRACE, title: str = "") -> None:
        self.id = secrets.token_urlsafe(9)
        self.title = title
        self.state = "waiting"
        self.events: list[Event] = [(1, "job", {"job": self.id, "ahead": ahead})]
        self._work, self._grace = work, grace
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], None]] = set()  # one a follower
        self._timer: threading.Timer | None = None
        self._wanted = True
        self._attend(0)

    # -- in the model's thread -----------------------------------------------------------------------------------
    def run(self, opened: Any) -> None:
        """Do the work, unless the job was cancelled while it waited."""
        if not self._start():
            return
        try:
            self._end("done", self._work(opened, self.emit))
        except Cancelled:
            self._end("cancelled", {})
        except Exception as error:  # told to whoever follows; the thread goes on with the next job
            self._end("failed", {"error": str(error) or type(error).__name__, "kind": type(error).__name__})

    def emit(self, kind: str, data: Any) -> None:
        """Tell followers; raises Cancelled once nobody wants to know."""
        if not self._wanted:
            raise Cancelled
        self._tell(kind, data)

    def _start(self) -> bool:
        with self._lock:
            if self.state != "waiting":
                return False
            self.state = "running"
            return True

    # -- from anywhere -------------------------------------------------------------------------------------------
    @property
    def over(self) -> bool:
        """Whether there is nothing more to come."""
        return self.state in FINAL

    def told(self) -> dict[str, Any]:
        """The job in a list of jobs: what it is, its state, how many events it told, and the last one's kind."""
        with self._lock:
            return {
                "job": self.id,
                "title": self.title,
                "state": self.state,
                "events": len(self.events),
                "last": self.events[-1][1],
            }

    def cancel(self) -> None:
        """End it: at once while it waits, before its next event while it runs. Nothing happens to one that is over."""
        self._wanted = False
        with self._lock:
            waiting = self.state == "waiting"
        if waiting:
            self._end("cancelled", {}, only="waiting")

    async def follow(self, after: int = 0, *, beat: float = 10.0) -> AsyncIterator[Event | None]:
        """Events after number `after` as they come, to the last one; None every `beat` seconds in which none came."""
        woken, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the follower's loop has ended with its server
                loop.call_soon_threadsafe(woken.set)

        self._attend(1, wake)
        try:
            while True:
                woken.clear()
                last = self.over  # asked first: what ends a job is told before it is over
                news = self.events[after:]
                for event in news:
                    yield event
                after += len(news)
                if last:
                    return
                if not news:
                    try:
                        async with asyncio.timeout(beat):  # wait_for of Python 3.11 may swallow a cancellation
                            await woken.wait()
                    except TimeoutError:
                        yield None
        finally:
            self._attend(-1, wake)

    def _tell(self, kind: str, data: Any) -> None:
        with self._lock:
            self.events.append((len(self.events) + 1, kind, data))
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def _end(self, state: str, data: Any, *, only: str = "") -> None:
        with self._lock:
            if self.over or (only and self.state != only):
                return
            self.events.append((len(self.events) + 1, state, data))
            self.state = state  # after its event: who sees an ended job has all of it
            wakers = list(self._wakers)
            if self._timer is not None:
                self._timer.cancel()
        for wake in wakers:
            wake()

    def _attend(self, change: int, waker: Callable[[], None] | None = None) -> None:
        """A follower came (1) or went (-1): the grace period runs while there is none."""
        with self._lock:
            if waker is not None:
                (self._wakers.add if change > 0 else self._wakers.discard)(waker)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._wakers and not self.over:
                self._timer = threading.Timer(self._grace, self.cancel)
                self._timer.daemon = True
                self._timer.start()
