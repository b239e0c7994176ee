"""Nothing half-written ever stands under a final name: write beside, flush, rename."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
import struct
import tempfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError

FLUSHES = 8  # files that are flushed at once
STALE = 3600.0  # seconds after which what a killed process left beside a final name is swept away
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, RuntimeError, SafetensorError, TypeError,
    msgspec.DecodeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def cache_dir() -> Path:
    """Where converted models and downloaded packages live: $DIASCOPE_HOME, else diascope/ in the user's cache folder."""
    if home := os.environ.get("DIASCOPE_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diascope"


@contextlib.contextmanager
def commit_folder(final: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `final`; on a clean exit it becomes `final`, on an error it is removed.

    With `overwrite`, an existing `final` is replaced by renaming it away first, so no reader sees a mixture.
    Raises FileExistsError when `final` exists and `overwrite` is false.
    """
    final = Path(os.path.abspath(final))  # a/../b is b, also while a does not exist
    try:
        os.fspath(final).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{final!r} is no UTF-8 name: choose another folder") from error
    if final.exists() and not overwrite:
        raise FileExistsError(f"{final} exists already: choose another folder, or delete it")
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
    try:
        with _writing(final):
            yield work
        work.chmod(0o755)
        for path in work.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors writes for its owner alone
        with ThreadPoolExecutor(FLUSHES) as disk:  # which then writes its journal once for several of them
            list(disk.map(_flush, (p for p in work.rglob("*") if p.is_file())))
        if final.exists() and not overwrite:  # it came while we wrote
            raise FileExistsError(f"{final} exists already: choose another folder, or delete it")
        _swap(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove_folder(folder: str | Path) -> None:
    """Take a folder away; no reader sees half of it."""
    folder = Path(os.path.abspath(folder))
    if folder.exists():
        gone = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        os.rename(folder, gone / "old")
        shutil.rmtree(gone, ignore_errors=True)


def recover_folder(final: str | Path) -> None:
    """Put back what a process killed between `commit_folder`'s two renames left aside."""
    final = Path(final)
    for aside in final.parent.glob(f".{glob.escape(final.name)}.*.old/old"):
        if not final.exists():
            os.rename(aside, final)
        shutil.rmtree(aside.parent, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Take away what killed processes left in `folder` long ago, whatever it was to be."""
    for left in folder.glob(".*.partial"):
        _sweep(folder / left.name[1:].split(".")[0])


def _sweep(final: Path) -> None:
    """Take away what killed processes left beside `final` long ago; a process that still writes is younger."""
    for left in final.parent.glob(f".{glob.escape(final.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _swap(work: Path, final: Path) -> None:
    if not final.exists():
        os.rename(work, final)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent)) / "old"
    os.rename(final, old)
    os.rename(work, final)
    shutil.rmtree(old.parent, ignore_errors=True)


@contextlib.contextmanager
def commit_file(final: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `final`; on a clean exit it is flushed to disk and renamed to `final`.

    Without `flush` the caller flushes it: a file inside `commit_folder` is flushed with the others.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent)
    os.close(handle)
    work = Path(name)
    try:
        with _writing(final):
            yield work
        if flush:
            _flush(work)
        work.chmod(0o644)
        os.replace(work, final)
    finally:
        work.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(final: Path) -> Iterator[None]:
    """Around code that writes what will be `final`: a full disk is an OSError, whichever library met it."""
    try:
        yield
    except SafetensorError as error:
        if "os error" in str(error):
            raise OSError(f"{final} cannot be written: {error}") from error
        raise


@contextlib.contextmanager
def reading(path: str | Path, way_out: str = "fetch it or write it again") -> Iterator[None]:
    """Around code that reads `path`: whatever damaged content makes it raise becomes one ValueError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename or path} is missing or cannot be opened: {way_out}") from error
    except FileExistsError:  # of what is written inside, not of what is read
        raise
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read ({error.strerror or error}): {way_out}") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is damaged or of another version ({type(error).__name__}: {reason}): {way_out}") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def finite(value: Any) -> Any:
    """JSON has no NaN: a number that does not exist (the interval of one document) is null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_target(path: str | Path) -> None:
    """ValueError where nothing can be written at `path`: said before the work, not after it."""
    path = Path(os.path.abspath(path))
    there = next(p for p in (path.parent, *path.parent.parents) if p.exists())
    if not there.is_dir():
        raise ValueError(f"cannot write {path}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        raise ValueError(f"cannot write {path}: {there} {'is on a read-only disk' if read_only else 'may not be written to'}")


def write_json(path: str | Path, data: Any, *, flush: bool = True) -> None:
    """Write `data` as indented JSON, atomically; `flush` as in commit_file."""
    with commit_file(path, flush=flush) as work:
        work.write_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read JSON, with a ValueError that names the file when it is broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): the file is damaged, write it again") from error


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
