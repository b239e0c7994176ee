"""Seals: `sha256.json` in an artefact's folder holds the hash of every file, so that one flipped byte is found and named.

A folder without a seal (another library's, or one put together by hand) is read as it is. Whoever changes a file on purpose
deletes the seal. Files are compared before anything is read (`check_seal`), or, where they are too large to keep a reader
waiting, beside what goes on (`LateCheck`): then whoever reads one of them waits for its hash.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from diascope.storage.files import read_json, sha256_file, write_json

SEAL = "sha256.json"


class Damaged(ValueError):
    """A file of a sealed folder is missing, or not what was written."""


def seal(folder: str | Path, known: Mapping[str, str] | None = None) -> None:
    """Write the hashes of all files in `folder` and below, inside `commit_folder`, which flushes them to the disk.

    Those that are `known`, because they were found in writing, are not read again.
    """
    folder = Path(folder)
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != SEAL}
    found = {name: (known or {}).get(name) or sha256_file(path) for name, path in files.items()}
    write_json(folder / SEAL, found, flush=False)


def check_seal(
    folder: str | Path, names: Iterable[str] | None = None, *, whole: bool = True, way_out: str = "write it again"
) -> bool:
    """Whether `folder` is sealed; Damaged, which names the first file (of `names`, or of all) that is not what was written.

    Without `whole`, files may be missing: whoever needs them will say so.
    """
    folder = Path(folder)
    if not (folder / SEAL).is_file():
        return False
    known = sealed_names(folder, way_out=way_out)
    for name in known if names is None else names:
        path = folder / name
        if not path.is_file():
            if not whole:
                continue
            raise Damaged(f"{path} is missing: {way_out}")
        if sha256_file(path) != known.get(name):
            raise Damaged(f"{path} is damaged, or was changed (its hash is not the one in {SEAL}): {way_out}")
    return True


def sealed_names(folder: str | Path, *, way_out: str = "write it again") -> dict[str, str]:
    """The hash of every file that the seal of `folder` knows; none where it has no seal. Damaged where the seal is."""
    path = Path(folder) / SEAL
    known = read_json(path) if path.is_file() else {}
    if not isinstance(known, dict):
        raise Damaged(f"{path} is damaged: {way_out}")
    return known


class LateCheck:
    """Files of a sealed folder that are hashed one after another in a thread of its own, begun at once.

    `wait` is for whoever is about to use the bytes of one. A process may end without it: the thread does not keep it.
    """

    def __init__(self, folder: str | Path, names: Iterable[str], *, way_out: str = "write it again") -> None:
        self._folder, self._way_out = Path(folder), way_out
        self._ends = {name: threading.Event() for name in names}
        self._problems: dict[str, str] = {}
        if self._ends:
            threading.Thread(target=self._compare, name=f"hashes of {folder}", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether all files were compared, so that nobody waits any more."""
        return all(end.is_set() for end in self._ends.values())

    def wait(self, name: str | None = None) -> None:
        """Return once file `name` (None: every file) was compared; Damaged, which names it, where it is not what was written.

        A file that it was not given is as it is.
        """
        for one in self._ends if name is None else self._ends.keys() & {name}:
            self._ends[one].wait()
            if one in self._problems:
                raise Damaged(self._problems[one])

    def _compare(self) -> None:
        for name, end in self._ends.items():
            try:
                check_seal(self._folder, [name], way_out=self._way_out)
            except Exception as error:  # told to whoever reads the file
                self._problems[name] = str(error)
            end.set()


@contextlib.contextmanager
def resealed(folder: str | Path, name: str) -> Iterator[Path]:
    """Around the writing of one more file into a sealed folder: killed in between, the file is there or not, and unsealed."""
    folder = Path(folder)
    sealed = (folder / SEAL).is_file()
    known = read_json(folder / SEAL) if sealed else {}
    if sealed and known.pop(name, None):
        write_json(folder / SEAL, known)
    yield folder / name
    if sealed:
        write_json(folder / SEAL, known | {name: sha256_file(folder / name)})
