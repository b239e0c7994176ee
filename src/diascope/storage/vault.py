"""Where an artefact's folders stand: a folder here, or an S3-compatible store (store.py). One door for both.

Folders are committed whole, and are written once; of two writers the first wins.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from diascope.storage.files import commit_folder, read_json, remove_folder, sweep, write_json
from diascope.storage.lock import claimed
from diascope.storage.seals import SEAL
from diascope.storage.store import Store


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

    def keep_fetched(self, folders: Set[str]) -> None:
        """Of what was fetched, also in earlier lives, only these folders are read again."""
        ...

    def delete(self, folder: str) -> None:
        """Take a committed folder away, its commit first."""
        ...

    def sweep(self, inside: str) -> None:
        """Take away what killed writers left below `inside` long ago."""
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

    def keep_fetched(self, folders: Set[str]) -> None:
        pass

    def delete(self, folder: str) -> None:
        remove_folder(self.path / folder)

    def sweep(self, inside: str) -> None:
        sweep(self.path / inside)

    def claim(self, folder: str) -> AbstractContextManager[bool]:
        path = self.path / folder
        return claimed(path.parent, path.name)

    def read(self, name: str) -> Any:
        return read_json(self.path / name) if (self.path / name).exists() else None

    def write(self, name: str, data: Any) -> None:
        write_json(self.path / name, data)
