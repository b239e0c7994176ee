"""Copies of a run's checkpoints in another place, mostly a store, for machines whose disks do not outlive them.

    run.json             what run they are of
    steps/000000240/     one checkpoint with its log: all its files, or without sha256.json none (vault.commit)

1. A checkpoint that stands here is put there whole; of one step the first copy stays. The two newest are kept.
2. A run begins by asking for the newest that is further than its own, and takes it whole, every file compared with its hash.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from diascope.storage.files import commit_file, commit_folder, read_json, sha256_file, write_json
from diascope.storage.seals import SEAL, check_seal
from diascope.storage.vault import vault

KEPT = 2  # copies: the newest, and one to go back to where that is damaged in the store


class Mirror:
    """The copies at `place` (s3://BUCKET/PREFIX, or a folder) of the run that `identity` names; ValueError where they are another's."""

    def __init__(self, place: str | Path, identity: str) -> None:
        self.place, self.vault = place, vault(place)
        known = self.vault.read("run.json")
        if known is not None and known != {"identity": identity}:
            raise ValueError(f"{place} holds checkpoints of another run: choose another place, or delete it")
        if known is None:
            self.vault.write("run.json", {"identity": identity})

    def put(self, step: int, checkpoint: Path, log: Path) -> None:
        """Copy the sealed folder `checkpoint` of `step`, and the log beside it, whose name must not be one of its files."""
        folder, known = f"steps/{step:012d}", read_json(checkpoint / SEAL)
        copy = shutil.copyfile if self.vault.local else os.symlink  # what is uploaded need not be copied first
        if self.vault.has(folder):
            return
        with self.vault.commit(folder) as work:
            for name in known:
                copy(checkpoint.resolve() / name, work / name)
            shutil.copyfile(log, work / log.name)
            write_json(work / SEAL, known | {log.name: sha256_file(work / log.name)})
        for name in self.vault.names("steps")[:-KEPT]:
            self.vault.delete(f"steps/{name}")
        self.vault.sweep("steps")

    def take(self, checkpoint: Path, log: Path, *, further_than: int) -> bool:
        """Make the newest copy, where it is of a later step than `further_than`, the folder `checkpoint` and the log; whether there was one.

        Raises ValueError that names the file which is not what was written.
        """
        newest = max(self.vault.names("steps"), default="-1")
        if int(newest) <= further_than:
            return False
        folder, way_out = f"steps/{newest}", f"delete {self.vault}/steps/{newest}: the one before it counts then"
        with tempfile.TemporaryDirectory(prefix=f".{checkpoint.name}.", suffix=".partial", dir=checkpoint.parent) as place:
            source = vault(self.place, cache=Path(place), cache_bytes=float("inf"))
            known = read_json(source.file(folder, SEAL))
            found = {name: source.file(folder, name) for name in known}
            check_seal(found[log.name].parent, way_out=way_out)
            with commit_file(log) as work:
                shutil.copyfile(found.pop(log.name), work)
            with commit_folder(checkpoint, overwrite=True) as work:
                for name, path in found.items():
                    shutil.copyfile(path, work / name)
                write_json(work / SEAL, {name: known[name] for name in found})
        return True
