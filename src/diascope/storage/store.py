"""An S3-compatible store of folders, with a bounded copy here of what is read.

1. Commit: every object is uploaded and looked at, then all of them once more, then `sha256.json` with a conditional create, which
   is the commit: a folder without it does not exist, and of two writers the first wins.
2. Reading: an object is fetched when it is first asked for, compared with its hash, and fetched again where it differs.
3. Cache: what was fetched stays until it is more than `cache_bytes`; the folders that were unused for longest go first.
4. A request that fails is made again with growing waits.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from diascope.storage.files import STALE, cache_dir, commit_file, read_json, sha256_file, write_json
from diascope.storage.seals import SEAL

TRIES = 6  # of one request, with waits of 0.1, 0.2, ... s between them
PART = 2**23  # bytes of an object that are in memory while it is fetched
T = TypeVar("T")


class Store:
    """The store at `url`. Files that are read lie in `cache`, at most `cache_bytes` of them; the longest unused go first."""

    local = False

    def __init__(self, url: str, cache: Path | None, cache_bytes: float) -> None:
        self.url, self.store = url.rstrip("/"), _opened(url.rstrip("/"))
        self.cache = cache or cache_dir() / "stores" / url.replace("://", "-").replace("/", "-")
        self.cache_bytes = cache_bytes
        self._held: OrderedDict[str, int] = OrderedDict()  # bytes by folder, the longest unused first
        self._forget: Callable[[str], None] = lambda folder: None

    def __str__(self) -> str:
        return self.url

    def names(self, inside: str) -> list[str]:
        return sorted(p.split("/")[-2] for p in self._objects(inside) if p.endswith(f"/{SEAL}"))

    def has(self, folder: str) -> bool:
        return self._size(f"{folder}/{SEAL}") is not None

    @contextmanager
    def commit(self, folder: str) -> Iterator[Path]:
        if self.has(folder):
            raise FileExistsError(f"{self.url}/{folder} exists already")
        with tempfile.TemporaryDirectory(prefix="diascope-") as place:
            work = Path(place)
            yield work
            if self.has(folder):  # it came while we wrote
                raise FileExistsError(f"{self.url}/{folder} exists already")
            files = {f"{folder}/{p.relative_to(work).as_posix()}": p for p in sorted(work.rglob("*")) if p.is_file()}
            last = files.pop(f"{folder}/{SEAL}")
            for name, path in files.items():
                self._put(name, path)
            if gone := files.keys() - self._objects(folder).keys():  # somebody took the folder away while we wrote
                raise OSError(f"{self.url}/{min(gone)} was uploaded, and is not there any more")
            self._put(f"{folder}/{SEAL}", last, create=True)

    def file(self, folder: str, name: str) -> Path:
        place = self.cache / folder
        missing = [wanted for wanted in dict.fromkeys((SEAL, name)) if not (place / wanted).exists()]
        for wanted in missing:
            self._fetch(folder, wanted)
        if missing or folder not in self._held:
            self._held[folder] = sum(_size(p) for p in place.iterdir())
        self._held.move_to_end(folder)
        while missing and sum(self._held.values()) > self.cache_bytes and len(self._held) > 1:
            self._let_go(next(iter(self._held)))
        return place / name

    def _let_go(self, folder: str) -> None:
        """Take a folder out of the cache."""
        self._held.pop(folder, None)
        self._forget(folder)
        shutil.rmtree(self.cache / folder, ignore_errors=True)

    def cached_as(self, key: str, forget: Callable[[str], None]) -> None:
        self.cache, self._forget = self.cache / key[:16], forget
        # what an earlier life fetched counts too; folders lie one below another name ("runs/000000")
        left = sorted((p.parent for p in self.cache.glob(f"*/*/{SEAL}")), key=lambda p: p.stat().st_mtime)
        self._held = OrderedDict((p.relative_to(self.cache).as_posix(), sum(map(_size, p.iterdir()))) for p in left)

    def keep_fetched(self, folders: Set[str]) -> None:
        for folder in self._held.keys() - folders:
            self._let_go(folder)

    def delete(self, folder: str) -> None:
        import obstore

        for path in sorted(self._objects(folder), key=lambda p: not p.endswith(f"/{SEAL}")):
            _tried(lambda path=path: obstore.delete(self.store, path), f"{self.url}/{path}")
        self._let_go(folder)

    def sweep(self, inside: str) -> None:
        found = self._objects(inside)
        folders = {path.rsplit("/", 1)[0] for path in found}
        for folder in folders:
            times = [when for path, when in found.items() if path.startswith(f"{folder}/")]
            if f"{folder}/{SEAL}" not in found and time.time() - max(times) > STALE:
                self.delete(folder)

    def claim(self, folder: str) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def read(self, name: str) -> Any:
        if self._size(name) is None:
            return None
        with tempfile.TemporaryDirectory(prefix="diascope-") as place:
            self._get(name, Path(place) / "data")
            return read_json(Path(place) / "data")

    def write(self, name: str, data: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="diascope-") as place:
            write_json(Path(place) / "data", data)
            self._put(name, Path(place) / "data")

    # -- objects
    def _objects(self, inside: str) -> dict[str, float]:
        """All objects below `inside`, and when each was written, in seconds since 1970."""
        import obstore

        return _tried(
            lambda: {
                o["path"]: o["last_modified"].timestamp() for page in obstore.list(self.store, f"{inside}/") for o in page
            },
            f"{self.url}/{inside}",
        )

    def _fetch(self, folder: str, name: str) -> None:
        """One object into the cache, compared with its hash."""
        place = self.cache / folder
        known = read_json(place / SEAL).get(name) if name != SEAL else None
        for _ in range(3):
            with commit_file(place / name) as work:
                try:
                    self._get(f"{folder}/{name}", work)
                except FileNotFoundError as error:
                    raise ValueError(
                        f"{self.url}/{folder}/{name} is missing: delete the folder there and write it again"
                    ) from error
            if known is None or sha256_file(place / name) == known:
                return
            (place / name).unlink()
        raise ValueError(f"{self.url}/{folder}/{name} is damaged in the store: delete the folder there and write it again")

    def _get(self, path: str, to: Path) -> None:
        """Write an object to a file, a part at a time."""
        import obstore

        def fetch() -> None:
            with to.open("wb") as file:
                for part in obstore.get(self.store, path).stream(min_chunk_size=PART):
                    file.write(part)

        _tried(fetch, f"{self.url}/{path}")

    def _size(self, path: str) -> int | None:
        import obstore

        def look() -> int | None:
            try:
                return int(obstore.head(self.store, path)["size"])
            except FileNotFoundError:
                return None

        return _tried(look, f"{self.url}/{path}")

    def _put(self, path: str, file: Path, *, create: bool = False) -> None:
        """Upload, and look whether it is there: a store may say so and not mean it."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        size = file.stat().st_size

        def upload() -> None:
            try:
                obstore.put(self.store, path, file, **({"mode": "create", "use_multipart": False} if create else {}))
            except AlreadyExistsError as error:
                if self._size(path) is not None:
                    raise FileExistsError(f"{self.url}/{path} exists already") from error
            if self._size(path) != size:
                raise OSError("the store took it, and does not have it")

        _tried(upload, f"{self.url}/{path}")


def _size(path: Path) -> int:
    """Bytes of a file; 0 where another process, which shares the cache, has renamed it meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _opened(url: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise ValueError(f"{url} needs obstore: pip install 'diascope[s3]'") from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    given = {"endpoint": endpoint, "client_options": {"allow_http": endpoint.startswith("http://")}} if endpoint else {}
    try:
        return from_url(url, retry_config={"max_retries": 4}, **given)
    except Exception as error:
        raise ValueError(f"{url} cannot be opened: {str(error).splitlines()[0]}") from error


def _tried(work: Callable[[], T], what: str) -> T:
    """`work`, again after a while where the store fails; OSError with its last word."""
    for attempt in range(TRIES):
        try:
            return work()
        except (FileExistsError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:
            if attempt == TRIES - 1:
                said = " ".join(str(error).split())[:200]
                raise OSError(f"{what}: the store failed {TRIES} times, at last with: {said}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError
