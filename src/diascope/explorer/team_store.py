"""Lists in a team's PostgreSQL database, which several explorers and people share. Needs psycopg (extra `team`), no torch.

Team("postgresql://ana@db.example/lists?sslmode=verify-full") is a Store (list_store.py); everything that libpq reads holds here
too: sslmode and its certificates, PGPASSWORD, ~/.pgpass, service files, several hosts.

1. The tables lie in a schema of their own, `diascope`; `open` makes them where they are not there yet.
2. A transaction begins with one round trip: level, search path, limits of time, and the version of the tables.
3. A change then locks the row of its list (lists.py updates it first), so that changes of different lists go on side by side.
   What is `alone` takes an advisory lock.
4. A connection that ended well is kept for the next call. One that fails before it has done anything, since the server was
   started anew meanwhile, is replaced; after that nothing is tried twice.

What a person reads never holds a password: libpq's own words go to the terminal alone, and addresses that libpq would cut at
a wrong place, so that part of a password would become a name in those words, are refused.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from diascope.explorer.list_store import PATIENCE, TABLES, VERSION, Statements, Unavailable

SCHEMA = "diascope"
SCHEMES = ("postgresql://", "postgres://")
KEPT = 1  # connections of an explorer at rest: a database has a hundred for everybody
IDLE = 60.0  # seconds after which one is not used again: networks forget silent connections
DEFAULTS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "application_name": "diascope",
}  # s, ms; an address may say others
LIMITS = {"lock_timeout": PATIENCE, "statement_timeout": 10.0, "idle_in_transaction_session_timeout": 10.0}  # seconds
LOCK = 0x6469_6173  # "dias": the advisory lock of this schema
READ, CHANGE = "REPEATABLE READ, READ ONLY", "READ COMMITTED"
_BEGIN = "BEGIN ISOLATION LEVEL {kind}; SET LOCAL search_path TO {schema}, pg_temp; {limits}; SELECT version FROM about"
_ABOUT = (
    "CREATE TABLE IF NOT EXISTS about (version INTEGER NOT NULL)",
    f"INSERT INTO about SELECT {VERSION} WHERE NOT EXISTS (SELECT 1 FROM about)",
)


def is_address(text: str) -> bool:
    """Whether a text is the address of a PostgreSQL database, not a path."""
    return text.startswith(SCHEMES)


class Team:
    """The lists in the database at `address`. Nothing is connected before the first use.

    ValueError where the address is none or psycopg is not installed.
    """

    def __init__(self, address: str) -> None:
        self._psycopg = _driver()
        self._given = _parsed(self._psycopg, address)
        self.place = "{user}@{host}/{dbname}".format(**{"user": "", "host": "", "dbname": ""} | self._given).lstrip("@")
        self._kept: list[tuple[Any, float]] = []
        self._opened = False

    def open(self) -> None:
        """Make the tables where they are not there, and see that they are ours.

        Raises Unavailable, PermissionError (the database's rights), ValueError (tables of another version).
        """
        with self._told(), contextlib.closing(self._connect()) as db:
            if db.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.about",)).fetchone()[0] is None:
                self._make(db)
            self._started(db, READ)
        self._opened = True

    def begun(self) -> bool:
        """True: the tables are there from the start."""
        return True

    @contextlib.contextmanager
    def read(self) -> Iterator[Statements]:
        """Queries of one state of the database."""
        with self._transaction(READ) as db:
            yield Statements(db, "%s")

    @contextlib.contextmanager
    def change(self, *, alone: bool = False) -> Iterator[Statements]:
        """One transaction; changes of the same list wait for one another, as all do that are `alone`."""
        with self._transaction(CHANGE) as db:
            if alone:
                db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            yield Statements(db, "%s")

    def close(self) -> None:
        """Let the kept connection go."""
        while self._kept:
            self._kept.pop()[0].close()

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[Any]:
        if not self._opened:
            self.open()
        with self._told():
            db = self._begun(kind)
            try:
                yield db
                ended = db.execute("COMMIT").statusmessage
                assert ended == "COMMIT", ended  # ROLLBACK would be a statement's failure that the block has swallowed
            except BaseException:
                db.close()  # which undoes the transaction, in whatever state it is
                raise
            self._keep(db)

    def _begun(self, kind: str) -> Any:
        """A connection within a transaction that has done nothing yet."""
        while True:
            kept = self._taken()
            db = kept or self._connect()
            try:
                return self._started(db, kind)
            except BaseException as error:
                db.close()
                if not (kept and isinstance(error, self._psycopg.OperationalError)):
                    raise

    def _started(self, db: Any, kind: str) -> Any:
        """`db` within a transaction, its tables seen to be of our version."""
        limits = "; ".join(f"SET LOCAL {name} = {1000 * seconds:.0f}" for name, seconds in LIMITS.items())
        cursor = db.execute(_BEGIN.format(kind=kind, schema=SCHEMA, limits=limits))
        while cursor.nextset():
            pass
        if (version := cursor.fetchone()[0]) != VERSION:
            way = (
                "update diascope here"
                if version > VERSION
                else "carry them over as files, by Export in the diascope that wrote them"
            )
            raise ValueError(f"the team's lists are tables of version {version}, this diascope knows {VERSION}: {way}")
        return db

    def _make(self, db: Any) -> None:
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))  # two explorers may start at once
            if db.execute("SELECT to_regnamespace(%s)", (SCHEMA,)).fetchone()[0] is None:
                db.execute(f"CREATE SCHEMA {SCHEMA}")
            db.execute(f"SET LOCAL search_path TO {SCHEMA}, pg_temp")
            for statement in (*TABLES, *_ABOUT):
                db.execute(statement)

    def _connect(self) -> Any:
        try:  # prepared statements would not outlive a pooler between us and the database
            return self._psycopg.connect(**self._given, autocommit=True, prepare_threshold=None)
        except self._psycopg.Error as error:
            raise Unavailable(_UNREACHED, f"{self.place}: {_words(error)}") from error

    def _taken(self) -> Any:
        """A kept connection; None where there is none that is young enough."""
        while True:
            try:
                db, since = self._kept.pop()
            except IndexError:
                return None
            if time.monotonic() - since < IDLE:
                return db
            db.close()

    def _keep(self, db: Any) -> None:
        if len(self._kept) < KEPT:
            self._kept.append((db, time.monotonic()))
        else:
            db.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The driver's errors as ours, each with the way out."""
        errors = self._psycopg.errors
        try:
            yield
        except errors.InsufficientPrivilege as error:
            raise PermissionError(_FORBIDDEN.format(_words(error))) from error
        except (errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected) as error:
            raise Unavailable("somebody else is changing the team's lists: try again shortly", _words(error)) from error
        except errors.ReadOnlySqlTransaction as error:
            raise PermissionError(_STANDBY) from error
        except self._psycopg.DataError as error:
            raise ValueError(f"the team's database cannot keep this ({_words(error)})") from error
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedObject) as error:
            raise Unavailable(_GONE, _words(error)) from error
        except self._psycopg.Error as error:
            raise Unavailable(_LOST, f"{self.place}: {_words(error)}") from error


_UNREACHED = (
    "the team's database cannot be reached: try again shortly, or see to its server, address, user, password and sslmode"
)
_LOST = (
    "the team's database was lost in mid-work: try again shortly; a change that was under way is made as a whole or not at all"
)
_GONE = "the team's lists are not in its database any more: start the explorer anew"
_FORBIDDEN = (
    "the team's database does not allow its user to do this ({}): its owner makes the tables by starting an explorer once, "
    f"and grants USAGE on the schema {SCHEMA} and SELECT, INSERT, UPDATE, DELETE on its tables"
)
_STANDBY = (
    "the team's database is read-only here, as a copy is that follows another: give the other's address, or name both hosts "
    "and add target_session_attrs=read-write"
)
_ADDRESS = (
    "a team's database has an address like postgresql://user@host/database; a password is best left to PGPASSWORD or ~/.pgpass: "
    "in an address, its @ : / % are written %40 %3A %2F %25"
)


def _driver() -> ModuleType:
    try:
        import psycopg
    except ImportError as error:
        raise ValueError(f"a team's database needs psycopg ({error}): pip install 'diascope[team]'") from error
    return psycopg


def _parsed(psycopg: ModuleType, address: str) -> dict[str, Any]:
    """What libpq reads in an address, over our defaults. No error quotes the address: what cannot be read may be a password."""
    if not is_address(address):
        raise ValueError(_ADDRESS)
    try:
        given = psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.Error:
        raise ValueError(_ADDRESS) from None
    ports = str(given.get("port", "")).split(",")
    cut = any("@" in str(given.get(key, "")) for key in ("host", "dbname"))
    if cut or not all(port.isdigit() or not port for port in ports):
        raise ValueError(_ADDRESS)
    return DEFAULTS | given


def _words(error: Exception) -> str:
    """What the database says, in one line."""
    return " ".join(str(error).split())
