"""Write a large safetensors file part by part: put in order, written, hashed and sent to the disk at the same time.

1. The header as safetensors writes it (8 bytes of length, JSON of dtypes, shapes and places, spaces up to a multiple of 8; larger
   elements first, then by name), so that the file is the same to the bit.
2. Each tensor in parts of 8 MB: a part is gathered into a buffer that is used again, and written to the page cache.
3. One thread hashes the parts, another tells the disk to begin with them (fdatasync) while the next are gathered.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

PART = 2**23  # bytes that are gathered, written and hashed at once
BUFFERS = 4  # parts that may wait to be hashed
_NAMES = {
    torch.bool: "BOOL", torch.int8: "I8", torch.bfloat16: "BF16", torch.int32: "I32", torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip


class OrderedFiles:
    """Writes files of tensors whose rows are put into one order. Used around the writing of a run: on leaving, all is on the disk.

    `flush` says whether the disk is told to begin at once; without it only the page cache is written.
    """

    def __init__(self, order: Tensor, *, flush: bool = True) -> None:
        self.order, self._flush = order, flush
        self._hashing, self._disk = ThreadPoolExecutor(1, "diascope-hash"), ThreadPoolExecutor(1, "diascope-flush")
        self._hashes: dict[str, Future[str]] = {}
        self._flushing: list[Future[None]] = []
        self._buffers, self._turn = [torch.empty(PART, dtype=torch.uint8) for _ in range(BUFFERS)], 0
        self._waiting: deque[Future[None]] = deque()  # parts that are not known to be hashed

    def __enter__(self) -> OrderedFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._hashing.shutdown()
        self._disk.shutdown()

    def write(self, path: Path, tensors: Mapping[str, Tensor], ordered: tuple[str, ...]) -> None:
        """Write `tensors` to `path`: those named in `ordered` [rows, ...] row by row in the order, the others as they are."""
        digest = hashlib.sha256()
        names = sorted(tensors, key=lambda n: (-tensors[n].element_size(), n))
        file = path.open("wb", buffering=0)  # closed by the thread that flushes it, at the end
        try:
            for part in self._parts([(tensors[n], n in ordered) for n in names], _header({n: tensors[n] for n in names})):
                _write_all(file, part)
                self._waiting.append(self._hashing.submit(digest.update, part))
                if len(self._waiting) == BUFFERS - 1:  # the buffer that comes next has been hashed
                    self._waiting.popleft().result()
                self._begin(file)
            self._hashes[path.name] = self._hashing.submit(digest.hexdigest)
        finally:
            self._flushing.append(self._disk.submit(_close, file, self._flush))

    def hashes(self) -> dict[str, str]:
        """The SHA-256 by name of every file so far; they are then on the disk."""
        for done in self._flushing:
            done.result()
        return {name: found.result() for name, found in self._hashes.items()}

    def _begin(self, file: BinaryIO) -> None:
        """Have the disk begin with what is written, unless it is still at what was written before."""
        if self._flush and (not self._flushing or self._flushing[-1].done()):
            self._flushing.append(self._disk.submit(os.fdatasync, file.fileno()))

    def _parts(self, tensors: list[tuple[Tensor, bool]], header: bytes) -> Iterator[Any]:
        """The bytes of a file; each part is good until BUFFERS - 1 more were asked for."""
        yield header
        for tensor, ordered in tensors:
            whole = tensor.contiguous()
            rows = max(1, PART // max(1, whole[0].numel() * whole.element_size())) if len(whole) else 1
            for first in range(0, len(whole), rows):
                if not ordered:
                    yield _bytes(whole[first : first + rows])
                    continue
                which = self.order[first : first + rows]
                shape = (len(which), *whole.shape[1:])
                needed = which.numel() * whole[0].numel() * whole.element_size()
                if needed > PART:  # one row is larger than a buffer
                    yield _bytes(whole[which])
                    continue
                part = self._buffers[self._turn % BUFFERS][:needed].view(whole.dtype).view(shape)
                torch.index_select(whole, 0, which, out=part)
                self._turn += 1
                yield _bytes(part)


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    entries, place = {}, 0
    for name, tensor in tensors.items():
        end = place + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_all(file: BinaryIO, part: Any) -> None:
    """A raw file may take less than it is given."""
    left = memoryview(part)
    while left:
        left = left[file.write(left) :]


def _close(file: BinaryIO, flush: bool) -> None:
    with file:
        if flush:
            os.fsync(file.fileno())
