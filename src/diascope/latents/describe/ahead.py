"""Work that waits on somebody else, done ahead of whoever needs it, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`function(item)` of every item, in order, up to `threads` of them at once; with one, in the caller's own thread.

    What one raises is raised here, at its turn; the rest is then not begun. The threads are daemons: Ctrl-C does not wait for a
    slow server.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    futures: list[Future[R]] = [Future() for _ in items]
    waiting: queue.SimpleQueue[tuple[Future[R], T]] = queue.SimpleQueue()
    for pair in zip(futures, items, strict=True):
        waiting.put(pair)

    def work() -> None:
        while True:
            try:
                future, item = waiting.get_nowait()
            except queue.Empty:
                return
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(item))
                except BaseException as error:  # raised where the result is awaited
                    future.set_exception(error)

    for _ in range(min(threads, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
