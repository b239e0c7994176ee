"""Where an artefact's folders stand: a folder here, or an S3-compatible store with a bounded copy here. One door for both.

Folders are committed whole. Here: written beside and renamed. In a store: every object is uploaded and looked at, then `sha256.json`
with a conditional create, which is the commit: a folder without it does not exist, and of two writers the first wins. What is fetched is
compared with its hash, and fetched again where it differs.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from diascope.storage.files import (
    cache_dir,
    commit_file,
    commit_folder,
    read_json,
    remove_folder,
    sha256_file,
    write_json,
)
from diascope.storage.lock import claimed
from diascope.storage.seals import SEAL

TRIES = 6  # of one request, with waits of 0.1, 0.2, ... s between them
T = TypeVar("T")


class Vault(Protocol):
    """Named folders of files that are written once."""

    local: bool

    def __str__(self) -> str: ...

    def names(self, inside: str) -> list[str]:
        """The committed folders below `inside`, by their names there."""
        ...

    def has(self, folder: str) -> bool:
        """Whether `folder` is committed."""
        ...

    def commit(self, folder: str) -> AbstractContextManager[Path]:
        """A place to write the files of `folder`; on a clean exit it is committed. FileExistsError where it was already."""
        ...

    def file(self, folder: str, name: str) -> Path:
        """Where one file of a folder lies here, fetched where it has to be; ValueError where there is none."""
        ...

    def cached_as(self, key: str, forget: Callable[[str], None]) -> None:
        """Keep what is fetched apart by what it belongs to, and say which folder leaves the cache."""
        ...

    def delete(self, folder: str) -> None:
        """Take a committed folder away, its commit first."""
        ...

    def claim(self, folder: str) -> AbstractContextManager[bool]:
        """Whether this process may work on `folder` now, against others; True where nobody can say."""
        ...

    def read(self, name: str) -> Any:
        """A JSON document beside the folders; None where there is none."""
        ...

    def write(self, name: str, data: Any) -> None:
        """Write one."""
        ...


def vault(place: str | Path, *, cache: Path | None = None, cache_bytes: float = 50e9) -> Vault:
    """The vault at `place`: a folder, or s3://BUCKET/PREFIX (credentials and endpoint as AWS's tools take them)."""
    if "://" in str(place):
        return Store(str(place), cache, cache_bytes)
    return Folder(Path(place))


class Folder:
    """A folder here."""

    local = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def names(self, inside: str) -> list[str]:
        # a killed writer leaves hidden folders, which may hold a seal too
        return sorted(p.parent.name for p in (self.path / inside).glob(f"[!.]*/{SEAL}"))

    def has(self, folder: str) -> bool:
        return (self.path / folder / SEAL).exists()

    def commit(self, folder: str) -> AbstractContextManager[Path]:
        return commit_folder(self.path / folder)

    def file(self, folder: str, name: str) -> Path:
        return self.path / folder / name

    def cached_as(self, key: str, forget: Callable[[str], None]) -> None:
        pass

    def delete(self, folder: str) -> None:
        remove_folder(self.path / folder)

    def claim(self, folder: str) -> AbstractContextManager[bool]:
        path = self.path / folder
        return claimed(path.parent, path.name)

    def read(self, name: str) -> Any:
        return read_json(self.path / name) if (self.path / name).exists() else None

    def write(self, name: str, data: Any) -> None:
        write_json(self.path / name, data)


class Store:
    """An S3-compatible store. Files that are read lie in `cache`, at most `cache_bytes` of them; the longest unused go first."""

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
        import obstore

        found = _tried(
            lambda: [o["path"] for page in obstore.list(self.store, f"{inside}/") for o in page], f"{self.url}/{inside}"
        )
        return sorted(p.split("/")[-2] for p in found if p.endswith(f"/{SEAL}"))

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
            for path in sorted(p for p in work.rglob("*") if p.is_file() and p.name != SEAL):
                self._put(f"{folder}/{path.relative_to(work).as_posix()}", path)
            self._put(f"{folder}/{SEAL}", work / SEAL, create=True)

    def file(self, folder: str, name: str) -> Path:
        place = self.cache / folder
        missing = [wanted for wanted in dict.fromkeys((SEAL, name)) if not (place / wanted).exists()]
        for wanted in missing:
            self._fetch(folder, wanted)
        if missing or folder not in self._held:
            self._held[folder] = sum(_size(p) for p in place.iterdir())
        self._held.move_to_end(folder)
        while missing and sum(self._held.values()) > self.cache_bytes and len(self._held) > 1:
            gone, _ = self._held.popitem(last=False)
            self._forget(gone)
            shutil.rmtree(self.cache / gone, ignore_errors=True)
        return place / name

    def cached_as(self, key: str, forget: Callable[[str], None]) -> None:
        self.cache, self._forget = self.cache / key[:16], forget

    def delete(self, folder: str) -> None:
        import obstore

        found = _tried(
            lambda: [o["path"] for page in obstore.list(self.store, f"{folder}/") for o in page], f"{self.url}/{folder}"
        )
        for path in sorted(found, key=lambda p: not p.endswith(f"/{SEAL}")):
            _tried(lambda path=path: obstore.delete(self.store, path), f"{self.url}/{path}")
        self._held.pop(folder, None)
        shutil.rmtree(self.cache / folder, ignore_errors=True)

    def claim(self, folder: str) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def read(self, name: str) -> Any:
        if self._size(name) is None:
            return None
        return json.loads(self._get(name))

    def write(self, name: str, data: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="diascope-") as place:
            write_json(Path(place) / "data", data)
            self._put(name, Path(place) / "data")

    # -- objects
    def _fetch(self, folder: str, name: str) -> None:
        """One object into the cache, compared with its hash."""
        place = self.cache / folder
        known = read_json(place / SEAL).get(name) if name != SEAL else None
        for _ in range(3):
            with commit_file(place / name) as work:
                work.write_bytes(self._get(f"{folder}/{name}"))
            if known is None or sha256_file(place / name) == known:
                return
            (place / name).unlink()
        raise ValueError(f"{self.url}/{folder}/{name} is damaged in the store: delete the folder there and write it again")

    def _get(self, path: str) -> bytes:
        import obstore

        return _tried(lambda: bytes(obstore.get(self.store, path).bytes()), f"{self.url}/{path}")

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
