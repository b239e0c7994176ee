"""A real PostgreSQL server for a test: on a socket in a folder of its own, with nothing to flush, which can be killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

BINARIES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")  # where Debian and Red Hat have them, outside the PATH
SETTINGS = {"listen_addresses": "", "fsync": "off", "max_connections": "40", "shared_buffers": "8MB", "autovacuum": "off"}
NUMBER = itertools.count()


class Postgres:
    """A server in `folder`, whose owner it runs as (it refuses to be root)."""

    def __init__(self, folder: Path, owner: str | None, initdb: str) -> None:
        self.folder, self.data = folder, folder / "data"
        self._as: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL}
        if owner:
            entry = pwd.getpwnam(owner)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._as |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self._program = str(Path(initdb).resolve().with_name("postgres"))
        init = [
            initdb,
            "--pgdata",
            str(self.data),
            "--auth=trust",
            "--username=owner",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]
        done = subprocess.run(init, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stdout + done.stderr
        rules = (self.data / "pg_hba.conf").read_text()
        (self.data / "pg_hba.conf").write_text("local all guarded scram-sha-256\n" + rules)
        self._process: subprocess.Popen[Any] | None = None
        self.start()

    def start(self) -> None:
        """Start it, over what an earlier one left, and wait until it answers."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [self._program, "-D", str(self.data), "-k", str(self.folder), *settings]
        for _ in range(100):
            with (self.folder / "log").open("ab") as log:
                process = self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
            while process.poll() is None:
                with contextlib.suppress(Exception):
                    self.ask("SELECT 1")
                    return
                time.sleep(0.02)
            time.sleep(0.05)  # children of a killed one may still hold its memory
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """End it as a power cut does, with everything that it has started: nothing more is done or told."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)  # it starts no others
        for child in psutil.Process(self._process.pid).children():
            child.kill()
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it for good, whatever is connected."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def ask(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement of the owner gives."""
        import psycopg

        with contextlib.closing(psycopg.connect(self.address(database), autocommit=True)) as db:
            cursor = db.execute(sql)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def address(self, database: str, user: str = "owner") -> str:
        """A database as users give it."""
        return f"postgresql://{user}@{quote(str(self.folder), safe='')}/{database}"

    def database(self) -> str:
        """The name of a new, empty database."""
        name = f"team{next(NUMBER)}"
        self.ask(f"CREATE DATABASE {name}")
        return name


def find_initdb() -> str | None:
    """The program that makes a server's folder: in the PATH, or where packages put it."""
    places = [str(p) for pattern in BINARIES for p in sorted(Path("/").glob(pattern[1:]), reverse=True)]
    return shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server for the time of the block. Skips the test where this machine has no PostgreSQL; anything else that is missing fails."""
    initdb = find_initdb()
    if initdb is None:
        pytest.skip("no PostgreSQL server here (initdb): Debian's package is postgresql")
    with tempfile.TemporaryDirectory(
        prefix="pg", ignore_cleanup_errors=True
    ) as folder:  # short, for a socket's path; pytest's is closed to other users
        server = Postgres(Path(folder), "nobody" if os.geteuid() == 0 else None, initdb)
        try:
            yield server
        finally:
            server.stop()
