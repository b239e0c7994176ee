"""A file of JSON lines that only grows: what was appended stays, whatever happens to the process that appends.

A line counts once its newline is on the disk. A process killed in the middle of one leaves a torn tail, which the next
writer cuts off and every reader passes over.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


class Lines:
    """JSON objects, one a line, in the order in which they came; appending is safe from several threads of one process."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock, self._torn = threading.Lock(), True  # whether the file may end in half a line

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; none where there is no file. ValueError that names the line which is no JSON object."""
        found = []
        for number, line in enumerate(self._whole().splitlines(), 1):
            try:
                data = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{self.path}, line {number} is damaged ({error}): take the line out") from error
            if not isinstance(data, dict):
                raise ValueError(f"{self.path}, line {number} is no JSON object: take the line out")
            found.append(data)
        return found

    def append(self, data: dict[str, Any]) -> None:
        """Add one line and wait until it is on the disk."""
        line = json.dumps(data, allow_nan=False).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if self._torn:
                    file.truncate(len(self._whole()))
                self._torn = True  # also where a full disk breaks the next line off
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                self._torn = False

    def _whole(self) -> bytes:
        if not self.path.exists():
            return b""
        data = self.path.read_bytes()
        return data[: data.rfind(b"\n") + 1]
