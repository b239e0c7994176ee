"""One writer a folder: a second process is told who is at work there."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from diascope.storage.files import read_json, write_json

HOLDER = ".holder.json"  # beside the lock, for the message only: what holds is the lock, which dies with its process


@contextlib.contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Hold `folder` against other processes while the block runs; the same process may hold it again within.

    Raises ValueError that names the holder. The system lets go of what a killed process held.
    """
    folder = Path(os.path.abspath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder} is in use{_holder(folder)}: wait until it is done, or choose another folder") from None
    try:
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
        }
        write_json(folder / HOLDER, who | {"since": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        if lock.lock_counter == 1:
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def claimed(folder: str | Path, name: str) -> Iterator[bool]:
    """Whether this process now holds the piece of work `name` in `folder`, against others that share the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        who = read_json(folder / HOLDER)
        return f" by process {who['pid']} on {who['host']} since {who['since']} ({who['command']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun, or is ending
        return ""
