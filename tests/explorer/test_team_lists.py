"""A team's database: rights, versions, crashes and passwords, against a real PostgreSQL server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from postgres_server import running
from starlette.applications import Starlette
from starlette.testclient import TestClient
from steer_workspace import write_index

from diascope.explorer.list_api import ListApi
from diascope.explorer.list_store import Unavailable
from diascope.explorer.lists import Entry, Lists
from diascope.explorer.team_store import LIMITS, Team

SECRET = "tr0ub4dor"


@pytest.fixture(scope="module")
def postgres():
    with running() as server:
        yield server


@pytest.fixture
def database(postgres):
    return postgres.database()


@pytest.fixture
def address(postgres, database):
    return postgres.address(database)


def client_of(address, tmp_path):
    """An explorer's lists over HTTP, at a team's database; no request here asks about a latent of the index."""
    lists = Lists(address)
    return TestClient(Starlette(routes=ListApi(tmp_path, None, lists).routes())), lists  # type: ignore[arg-type]


def until(true):
    """Come back once `true()`; an error after five seconds."""
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.01)


def waiting(postgres):
    """Come back once somebody waits for another's lock."""
    until(lambda: postgres.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


def connected(postgres, database):
    """How many connections a database has."""
    return postgres.ask(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")[0][0]


def test_two_explorers_see_each_others_changes(postgres, address, tmp_path):
    (a, _), (b, _) = client_of(address, tmp_path), client_of(address, tmp_path)
    id = a.post("/api/lists", json={"name": "shared", "latents": [{"source": "sae", "latent": 1}]}).json()["id"]
    assert [f["name"] for f in b.get("/api/lists").json()] == ["shared"]
    note = {"source": "sae", "latent": 1, "note": "ana", "was": ""}
    assert a.post(f"/api/lists/{id}/note", json=note).status_code == 200
    answer = b.post(f"/api/lists/{id}/note", json=note | {"note": "ben"})
    assert (answer.status_code, answer.json()["note"]) == (409, "ana")
    assert b.post(f"/api/lists/{id}/delete", json={}).status_code == 200
    assert a.post(f"/api/lists/{id}/rename", json={"name": "x"}).status_code == 404


def test_a_deletion_that_another_waits_for_is_seen_by_it(postgres, address):
    one, two = Lists(address), Lists(address)
    id = one.make("x")
    with ThreadPoolExecutor(1) as other:
        with one.store.change() as db:
            db.run("DELETE FROM list WHERE id = ?", (id,))
            added = other.submit(two.add, id, Entry("sae", 1))
            waiting(postgres)
        with pytest.raises(LookupError, match="no such list"):
            added.result()


def test_changes_of_different_lists_do_not_wait_for_each_other(address):
    one, two = Lists(address), Lists(address)
    a, b = one.make("a"), one.make("b")
    with one.store.change() as db:
        db.run("UPDATE list SET name = ? WHERE id = ?", ("held", a))
        two.add(b, Entry("sae", 1))
        two.make("c")
    assert {f["name"] for f in two.all()} == {"held", "b", "c"}


def test_who_waits_too_long_is_told(address, tmp_path, monkeypatch):
    monkeypatch.setitem(LIMITS, "lock_timeout", 0.05)
    client, lists = client_of(address, tmp_path)
    id = lists.make("a")
    with Lists(address).store.change() as db:
        db.run("UPDATE list SET name = ? WHERE id = ?", ("held", id))
        answer = client.post(f"/api/lists/{id}/rename", json={"name": "b"})
    assert answer.status_code == 503 and answer.json()["error"].startswith("Somebody else is changing")
    assert client.post(f"/api/lists/{id}/rename", json={"name": "b"}).status_code == 200


def test_a_server_killed_while_a_change_waits_answers_503_and_goes_on_after_its_restart(postgres, address, tmp_path):
    client, lists = client_of(address, tmp_path)
    id = lists.make("kept", [Entry("sae", 1)])
    before, taken = lists.get(id), {"source": "sae", "latent": 1}
    with ThreadPoolExecutor(1) as other, pytest.raises(Unavailable):
        with Lists(address).store.change() as db:
            db.run("UPDATE list SET name = ? WHERE id = ?", ("held", id))
            pending = other.submit(client.post, f"/api/lists/{id}/remove", json=taken)
            waiting(postgres)
            postgres.kill()
            answer = pending.result()
    assert answer.status_code == 503 and answer.json()["error"] == (
        "The team's database was lost in mid-work: try again shortly; a change that was under way is made as a whole or not at all."
    )
    answer = client.get("/api/lists")
    assert answer.status_code == 503 and answer.json()["error"].startswith("The team's database cannot be reached: try again")
    postgres.start()
    assert client.get("/api/lists").json()[0]["name"] == "kept" and lists.get(id) == before
    assert client.post(f"/api/lists/{id}/remove", json=taken).status_code == 200 and lists.get(id)["latents"] == []


def test_a_server_killed_between_a_change_and_its_commit_has_nothing_of_it(postgres, address):
    lists = Lists(address)
    id = lists.make("x", [Entry("sae", 1)])
    with pytest.raises(Unavailable, match="lost in mid-work"), lists.store.change() as db:
        db.run("INSERT INTO latent VALUES (?, ?, ?, ?, ?)", (id, "sae", 2, "", 2))
        db.run("UPDATE list SET name = ? WHERE id = ?", ("half", id))
        postgres.kill()
    postgres.start()
    assert lists.get(id)["name"] == "x" and len(lists.get(id)["latents"]) == 1


def test_writers_go_on_through_a_crash_and_what_was_confirmed_is_there(postgres, address):
    """Four explorers add without pause while the server is killed and started: each latent whose addition returned is kept."""
    id = Lists(address).make("x")
    confirmed, unsure, done = set(), set(), threading.Event()

    def work(t):
        own = Lists(address)
        for j in range(100_000):
            if done.is_set():
                break
            try:
                own.add(id, Entry(f"s{t}", j))
                confirmed.add((f"s{t}", j))
            except Unavailable:
                unsure.add((f"s{t}", j))
                time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    [t.start() for t in threads]
    try:
        for _ in range(2):
            time.sleep(0.15)
            postgres.kill()
            postgres.start()
        reached = len(confirmed)
        while len(confirmed) == reached:
            time.sleep(0.01)
    finally:
        done.set()
        [t.join() for t in threads]
    kept = {(e["source"], e["latent"]) for e in Lists(address).get(id)["latents"]}
    assert unsure and confirmed <= kept <= confirmed | unsure


def test_a_kept_connection_that_broke_is_replaced_unseen(postgres, database, address):
    lists = Lists(address)
    id = lists.make("x")
    until(lambda: connected(postgres, database) == 1)  # that which opened the tables has ended
    postgres.ask(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'")
    assert connected(postgres, database) == 0
    lists.add(id, Entry("sae", 1))
    assert len(lists.get(id)["latents"]) == 1 and connected(postgres, database) == 1
    lists.store.close()  # type: ignore[attr-defined]
    until(lambda: connected(postgres, database) == 0)


def test_tables_of_another_version_are_not_touched(postgres, database, address):
    lists = Lists(address)
    lists.make("x")
    for version, way in ((9, "update diascope here"), (0, "carry them over as files")):
        postgres.ask(f"UPDATE diascope.about SET version = {version}", database)
        for own in (lists, Lists(address)):
            with pytest.raises(ValueError, match=f"version {version}, .*{way}"):
                own.all()
    postgres.ask("DROP SCHEMA diascope CASCADE", database)
    with pytest.raises(Unavailable, match="not in its database any more"):
        lists.make("y")


@pytest.fixture
def reader(postgres, database):
    """The address for somebody who may only look."""
    postgres.ask(f"CREATE ROLE reader_{database} LOGIN")
    return postgres.address(database, f"reader_{database}")


def test_who_may_not_make_the_tables_is_told_who_does(postgres, database, address, reader, tmp_path):
    with pytest.raises(PermissionError, match="owner makes the tables"):
        Team(reader).open()
    id = Lists(address).make("x")
    with pytest.raises(PermissionError, match="grants USAGE on the schema diascope"):
        Lists(reader).all()
    role = reader.partition("://")[2].partition("@")[0]
    postgres.ask(f"GRANT USAGE ON SCHEMA diascope TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA diascope TO {role}", database)
    client, _ = client_of(reader, tmp_path)
    assert [f["name"] for f in client.get("/api/lists").json()] == ["x"]
    answer = client.post(f"/api/lists/{id}/rename", json={"name": "y"})
    assert answer.status_code == 403 and "grants" in answer.json()["error"]
    postgres.ask(f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA diascope TO {role}", database)
    assert client.post(f"/api/lists/{id}/rename", json={"name": "y"}).status_code == 200
    assert client.post("/api/lists", json={"name": "z"}).status_code == 200


def test_a_database_that_takes_no_changes_is_told(postgres, database, address, tmp_path):
    """As one is that follows another: what it answers is the same error."""
    id = Lists(address).make("x")
    postgres.ask(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    client, lists = client_of(address, tmp_path)
    assert [f["name"] for f in lists.all()] == ["x"]
    answer = client.post(f"/api/lists/{id}/rename", json={"name": "y"})
    assert answer.status_code == 403 and "target_session_attrs" in answer.json()["error"]


def test_a_server_that_is_not_there_is_said_with_the_way_out(tmp_path):
    client, lists = client_of("postgresql://ana@127.0.0.1:1/lists", tmp_path)
    with pytest.raises(Unavailable, match=r"ana@127.0.0.1/lists: .*refused"):
        lists.all()
    answer = client.get("/api/lists")
    assert answer.status_code == 503 and "127.0.0.1" not in answer.text
    with pytest.raises(Unavailable):
        Team("postgresql://%2Fnowhere/lists").open()


def test_a_database_that_is_not_there_and_a_wrong_password_are_said(postgres, database, tmp_path):
    with pytest.raises(Unavailable, match='database "nope" does not exist'):
        Team(postgres.address("nope")).open()
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres.ask(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'")
    postgres.ask(f"GRANT CREATE ON DATABASE {database} TO guarded")
    right = postgres.address(database, f"guarded:{SECRET}")
    client, lists = client_of(right, tmp_path)
    assert client.post("/api/lists", json={"name": "x"}).status_code == 200 and SECRET not in lists.store.place  # type: ignore[attr-defined]
    wrong = SECRET[::-1]
    client, lists = client_of(postgres.address(database, f"guarded:{wrong}"), tmp_path)
    with pytest.raises(Unavailable, match="password authentication failed") as error:
        lists.all()
    answer = client.get("/api/lists")
    assert answer.status_code == 503 and wrong not in str(error.value) and wrong not in answer.text


def messages(error):
    """What an error says, and every one that a traceback would show before it."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(
    "between", ["@", "/", "%", "%zz", ":", "?", "#", "?a=", "/?", "@/", "/@", ":@", "://", "[", "]", " ", "'", '"', "\\"]
)
def test_no_error_tells_a_password_that_was_not_encoded(between):
    """Two words with a character between them that means something in an address: neither word comes out."""
    for password in (
        f"{SECRET}{between}secret",
        f"{between}{SECRET}",
        f"{SECRET}{between}",
        f"12{between}{SECRET}",
        f"a{between}b:{SECRET}",
    ):
        try:
            Team(f"postgresql://ana:{password}@127.0.0.1:1/lists").open()
        except (ValueError, Unavailable) as error:
            said = "\n".join(messages(error))
            assert SECRET not in said and "secret" not in said, said
        else:
            raise AssertionError("nobody listens there")


@pytest.mark.parametrize("address", ["lists", "mysql://ana:geheim@host/lists", "ana:geheim@host/lists", "postgresql:/host", ""])
def test_what_is_no_address_is_refused_without_being_repeated(address):
    with pytest.raises(ValueError, match="postgresql://user@host/database") as error:
        Team(address)
    assert "geheim" not in str(error.value)


def test_without_the_driver_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"pip install 'diascope\[team\]'"):
        Lists("postgresql://host/lists")


def test_lists_move_from_a_file_to_the_team(address, tmp_path):
    """The lines of docs/explorer.md."""
    here, there = Lists(tmp_path / "lists.sqlite"), Lists(address)
    here.make("ü", [Entry("sae", 2, "note"), Entry("sae", 1)])
    for found in here.all():
        there.make(found["name"], [Entry(**e) for e in here.get(found["id"])["latents"]])
    assert there.get(there.all()[0]["id"])["latents"] == here.get(here.all()[0]["id"])["latents"]


def test_the_command_says_what_is_wrong_with_a_teams_database(tmp_path, toy, make_dictionary):
    """Before anything is served: exit 2 and one sentence, without the password."""
    folder = write_index(tmp_path / "index", toy, make_dictionary()).folder
    lost = f"postgresql://ana:{SECRET}@127.0.0.1:1/lists"
    for address, says in ((lost, "cannot be reached"), ("mysql://x/y", "postgresql://user@host/database")):
        options = ["explore", str(folder), "--no-model", "--port", "0", "--team", address]
        done = subprocess.run([sys.executable, "-m", "diascope.cli", *options], capture_output=True, text=True, timeout=60)
        said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
        assert done.returncode == 2 and says in said, said
        assert "Traceback" not in said and SECRET not in said
