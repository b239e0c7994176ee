"""Seals: `sha256.json` in an artefact's folder holds the hash of every file, so that one flipped byte is found and named.

A folder without a seal (another library's, or one put together by hand) is read as it is. Whoever changes a file on purpose
deletes the seal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from diascope.storage.files import read_json, sha256_file, write_json

SEAL = "sha256.json"


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
    """Whether `folder` is sealed; ValueError that names the first file (of `names`, or of all) that is not what was written.

    Without `whole`, files may be missing: whoever needs them will say so.
    """
    folder = Path(folder)
    if not (folder / SEAL).is_file():
        return False
    known = read_json(folder / SEAL)
    if not isinstance(known, dict):
        raise ValueError(f"{folder / SEAL} is damaged: {way_out}")
    for name in known if names is None else names:
        path = folder / name
        if not path.is_file():
            if not whole:
                continue
            raise ValueError(f"{path} is missing: {way_out}")
        if sha256_file(path) != known.get(name):
            raise ValueError(f"{path} is damaged, or was changed (its hash is not the one in {SEAL}): {way_out}")
    return True


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
