"""Lists of latents: small changes that cannot undo each other, in a file and in a team's database, and over HTTP."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from postgres_server import running
from starlette.applications import Starlette
from starlette.testclient import TestClient
from steer_workspace import TOKEN, served, write_index

from diascope.explorer.guard import Guard
from diascope.explorer.list_api import ListApi
from diascope.explorer.lists import NAME, Conflict, Entry, Lists
from diascope.explorer.team_store import LIMITS

HEADERS = {"authorization": f"Bearer {TOKEN}"}
STORES = ("sqlite", "postgresql")
PAUSE = 0.15  # seconds in which a second writer reaches the place where it waits


@pytest.fixture(scope="module")
def postgres():
    with running() as server:
        yield server


@pytest.fixture(params=STORES)
def where(request, tmp_path):
    """A place that holds no lists yet."""
    if request.param == "sqlite":
        return tmp_path / NAME
    server = request.getfixturevalue("postgres")
    return server.address(server.database())


@pytest.fixture
def lists(where):
    return Lists(where)


@pytest.fixture
def file(tmp_path):
    return Lists(tmp_path / NAME)


def keys(lists, id):
    return [(e["source"], e["latent"]) for e in lists.get(id)["latents"]]


def test_reading_makes_no_file(file):
    assert file.all() == [] and not file.store.path.exists()
    with pytest.raises(LookupError, match="no such list"):
        file.rename("x", "y")
    assert not file.store.path.exists()


def test_where_nothing_was_written_there_is_nothing(lists):
    assert lists.all() == []
    for work in (lambda: lists.get("x"), lambda: lists.rename("x", "y"), lambda: lists.move("x", ("sae", 1), None)):
        with pytest.raises(LookupError, match="no such list"):
            work()


def test_a_list_keeps_order_notes_and_each_latent_once(lists):
    id = lists.make("cities", [Entry("sae", 3, "first"), Entry("sae", 1), Entry("sae", 3, "again")])
    lists.add(id, Entry("tc", 3, "other source"))
    lists.add(id, Entry("sae", 1, "not written over"))
    assert [(e["source"], e["latent"], e["note"]) for e in lists.get(id)["latents"]] == [("sae", 3, "first"), ("sae", 1, ""), ("tc", 3, "other source")]  # fmt: skip
    lists.move(id, ("tc", 3), ("sae", 3))
    assert keys(lists, id) == [("tc", 3), ("sae", 3), ("sae", 1)]
    lists.move(id, ("tc", 3), None)
    lists.remove(id, ("sae", 3))
    lists.remove(id, ("sae", 3))  # as when two tabs do it
    assert keys(lists, id) == [("sae", 1), ("tc", 3)]
    assert [(f["name"], f["latents"], f["has"]) for f in lists.all(("sae", 1))] == [("cities", 2, True)]
    lists.delete(id)
    assert lists.all() == []
    with lists.store.read() as db:
        assert db.rows("SELECT count(*) AS n FROM latent") == [{"n": 0}]


def test_the_latest_list_comes_first_and_times_are_kept_to_the_millisecond(lists):
    a, b = lists.make("a"), lists.make("b")
    assert [f["name"] for f in lists.all()] == ["b", "a"]
    lists.rename(a, "c")
    assert [f["name"] for f in lists.all()] == ["c", "b"] and lists.all()[0]["changed"] > lists.get(b)["changed"]
    assert abs(lists.get(a)["changed"] - time.time()) < 60


def test_moving_is_what_python_does_to_a_list(lists):
    """Every move of five latents, whose places have gaps, against taking out and putting in."""
    id = lists.make("order", [Entry("sae", j) for j in range(7)])
    lists.remove(id, ("sae", 2))
    lists.remove(id, ("sae", 5))
    order = keys(lists, id)
    for key in list(order):
        for before in [*order, None]:
            if key != before:
                order.remove(key)
                order.insert(len(order) if before is None else order.index(before), key)
            lists.move(id, key, before)
            assert keys(lists, id) == order


def test_what_one_database_cannot_keep_none_takes(lists):
    with pytest.raises(ValueError, match="NUL"):
        lists.make("a\0b")
    with pytest.raises(ValueError, match="NUL"):
        lists.make("a", [Entry("sae", 1, "x\0")])
    assert lists.all() == []


def test_a_change_that_fails_half_way_leaves_nothing(lists):
    id = lists.make("a", [Entry("sae", 1)])
    before = lists.get(id)
    with pytest.raises(KeyError), lists.store.change() as db:
        db.run("UPDATE list SET name = ? WHERE id = ?", ("half", id))
        assert db.rows("SELECT name FROM list") == [{"name": "half"}]
        raise KeyError
    assert lists.get(id) == before


def test_one_state_is_read_though_another_writes_meanwhile(lists, where):
    id = lists.make("a", [Entry("sae", 1)])
    with lists.store.read() as db:
        assert db.rows("SELECT count(*) AS n FROM latent") == [{"n": 1}]
        Lists(where).add(id, Entry("sae", 2))
        assert db.rows("SELECT count(*) AS n FROM latent") == [{"n": 1}]
    assert len(keys(lists, id)) == 2


def test_a_note_is_not_written_over_one_that_its_writer_never_saw(lists):
    id = lists.make("a", [Entry("sae", 1, "old")])
    lists.write(id, ("sae", 1), "mine", was="old")
    with pytest.raises(Conflict) as conflict:
        lists.write(id, ("sae", 1), "theirs", was="old")
    assert conflict.value.note == "mine" and lists.get(id)["latents"][0]["note"] == "mine"
    lists.write(id, ("sae", 1), "mine", was="old")  # the same again, as after a lost answer
    lists.remove(id, ("sae", 1))
    with pytest.raises(LookupError, match="no longer"):
        lists.write(id, ("sae", 1), "x", was="mine")


def test_writers_that_change_one_list_at_once_lose_nothing(where, lists, monkeypatch):
    """Eight writers on a store that none of them has opened before: everything is there at the end, each latent once."""
    monkeypatch.setattr("diascope.explorer.list_store.PATIENCE", 60.0)  # a slow machine is no failure
    monkeypatch.setitem(LIMITS, "lock_timeout", 60.0)
    monkeypatch.setitem(LIMITS, "statement_timeout", 60.0)
    made: list[str] = []
    failed: list[BaseException] = []

    def work(t):
        try:
            own = Lists(where)
            made.append(own.make(f"list {t}"))
            for j in range(10):
                own.add(made[0], Entry(f"s{t}", j))
                own.move(made[0], (f"s{t}", j), None)
        except BaseException as error:  # shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert failed == [] and len(lists.all()) == 8
    assert sorted(keys(lists, made[0])) == [(f"s{t}", j) for t in range(8) for j in range(10)]


def first(db, id):
    """What every change of a list begins with."""
    assert db.run("UPDATE list SET changed = ? WHERE id = ?", (1.0, id)) == 1


def test_of_two_who_write_the_same_note_the_second_is_told(where, lists):
    id = lists.make("a", [Entry("sae", 1)])
    with ThreadPoolExecutor(1) as other:
        with lists.store.change() as db:
            first(db, id)
            db.run("UPDATE latent SET note = ?", ("ana",))
            late = other.submit(Lists(where).write, id, ("sae", 1), "ben", "")
            time.sleep(PAUSE)
        with pytest.raises(Conflict) as conflict:
            late.result(10)
    assert conflict.value.note == "ana" and lists.get(id)["latents"][0]["note"] == "ana"


def test_the_limit_of_lists_holds_when_two_make_the_last(where, lists, monkeypatch):
    monkeypatch.setattr("diascope.explorer.lists.MOST_LISTS", 1)
    lists.all()
    with ThreadPoolExecutor(1) as other:
        with lists.store.change(alone=True) as db:
            db.run("INSERT INTO list VALUES (?, ?, ?)", ("a", "a", 1.0))
            late = other.submit(Lists(where).make, "b")
            time.sleep(PAUSE)
        with pytest.raises(ValueError, match="1 lists already"):
            late.result(10)


def test_the_last_place_of_a_list_is_taken_once(where, lists, monkeypatch):
    monkeypatch.setattr("diascope.explorer.lists.MOST_LATENTS", 1)
    id = lists.make("x")
    with ThreadPoolExecutor(1) as other:
        with lists.store.change() as db:
            first(db, id)
            db.run("INSERT INTO latent VALUES (?, ?, ?, ?, ?)", (id, "sae", 1, "", 0))
            late = other.submit(Lists(where).add, id, Entry("sae", 2))
            time.sleep(PAUSE)
        with pytest.raises(ValueError, match="1 latents already"):
            late.result(10)
    assert keys(lists, id) == [("sae", 1)]


def test_one_of_two_first_writers_waits_for_the_other(file):
    """SQLite refuses the change to WAL mode at once, without its own waiting, while another connection writes."""
    with sqlite3.connect(file.store.path, isolation_level=None) as db, ThreadPoolExecutor(1) as other:
        db.execute("BEGIN IMMEDIATE")
        late = other.submit(file.make, "x")
        time.sleep(PAUSE)
        db.execute("COMMIT")
        late.result(10)
    assert [found["name"] for found in file.all()] == ["x"]


def test_a_file_is_in_wal_mode_and_of_a_later_version_not_touched(file):
    file.make("x")
    with sqlite3.connect(file.store.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(ValueError, match="later version"):
        file.make("x")


@pytest.fixture(scope="module", params=STORES)
def server(request, tmp_path_factory, toy, make_dictionary_once):
    """A client of an explorer whose lists are in its workspace's file, and one of the same handlers over a team's database.

    With the workspace; None where lists are not in it.
    """
    folder = tmp_path_factory.mktemp("lists")
    index = write_index(folder / "index", toy, make_dictionary_once)
    if request.param == "sqlite":
        with served(index, None) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
            yield client, folder
        return
    postgres = request.getfixturevalue("postgres")
    team = Lists(postgres.address(postgres.database()))
    app = Guard(Starlette(routes=ListApi(folder, index, team).routes()), token=TOKEN, port=80)
    with TestClient(app, base_url="http://127.0.0.1:80", headers=HEADERS | {"host": "127.0.0.1:80"}) as client:
        yield client, None


@pytest.fixture(scope="module")
def make_dictionary_once():
    import torch

    from diascope.dictionaries import Dictionary, DictionaryConfig

    tensors = {"W_enc": torch.ones(32, 64), "W_dec": torch.ones(64, 32), "b_enc": torch.zeros(64), "b_dec": torch.zeros(32), "threshold": torch.zeros(64)}  # fmt: skip
    return Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", 32, 32, 64), tensors)


def test_a_list_over_http_says_what_its_latents_are(server):
    client, folder = server
    id = client.post("/api/lists", json={"name": "  towns "}).json()["id"]
    assert client.post(f"/api/lists/{id}/add", json={"source": "sae", "latent": 3, "note": "n"}).status_code == 200
    found = client.get(f"/api/lists/{id}").json()
    assert found["name"] == "towns" and found["latents"][0]["row"]["description"] == "about rivers 3"
    assert folder is None or (folder / NAME).exists()
    assert client.get("/api/lists", params={"source": "sae", "latent": 3}).json()[0]["has"] is True
    assert "has" not in client.get("/api/lists").json()[0]


def test_an_export_comes_back_as_it_was(server):
    client, _ = server
    given = {"format": "diascope-list-1", "name": "from elsewhere", "model": "toy", "latents": [{"source": "other", "latent": 5, "note": "ö\n"}, {"source": "sae", "latent": 2, "note": ""}]}  # fmt: skip
    found = client.get(f"/api/lists/{client.post('/api/lists', json=given).json()['id']}").json()
    assert [{k: e[k] for k in ("source", "latent", "note")} for e in found["latents"]] == given["latents"]
    assert found["latents"][0]["row"] is None and found["latents"][1]["row"]["latent"] == 2


def test_two_writers_of_a_note_are_told(server):
    client, _ = server
    id = client.post("/api/lists", json={"name": "n", "latents": [{"source": "sae", "latent": 1}]}).json()["id"]
    note = {"source": "sae", "latent": 1, "note": "first", "was": ""}
    assert client.post(f"/api/lists/{id}/note", json=note).status_code == 200
    answer = client.post(f"/api/lists/{id}/note", json=note | {"note": "second"})
    assert answer.status_code == 409 and answer.json()["note"] == "first" and "elsewhere" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("", {}, 400, "name"),
        ("", {"name": "   "}, 400, "name"),
        ("", {"name": "x" * 201}, 400, "200"),
        ("", {"name": "x\0"}, 422, "NUL"),
        ("/no%00pe/rename", {"name": "x"}, 422, "NUL"),
        ("", {"name": "x", "format": "other-1"}, 422, "diascope-list-1"),
        ("", {"name": "x", "latents": [{"source": "sae", "latent": -1}]}, 400, ">= 0"),
        ("", {"name": "x", "latents": [{"source": "s", "latent": i} for i in range(5001)]}, 422, "limit is 5,000"),
        ("/nope/rename", {"name": "x"}, 404, "no such list"),
        ("/ID/explode", {}, 404, "not by 'explode'"),
        ("/ID/add", {"source": "sae", "latent": 64}, 404, "no latent 64"),
        ("/ID/add", {"source": "../etc", "latent": 1}, 404, "no latent"),
        ("/ID/add", {"source": "sae", "latent": 1, "evil": 1}, 400, "evil"),
        ("/ID/note", {"source": "sae", "latent": 1, "note": "x" * 10_001}, 400, "10000"),
        ("/ID/move", {"source": "sae", "latent": 1, "before": ["sae", 9]}, 404, "no longer"),
    ],
)
def test_wrong_changes_get_a_sentence_and_change_nothing(server, path, body, status, says):
    client, _ = server
    id = client.post("/api/lists", json={"name": "w", "latents": [{"source": "sae", "latent": 1}]}).json()["id"]
    before = len(client.get("/api/lists").json())
    answer = client.post("/api/lists" + path.replace("ID", id), json=body)
    assert answer.status_code == status and says in answer.json()["error"]
    assert len(client.get("/api/lists").json()) == before and len(client.get(f"/api/lists/{id}").json()["latents"]) == 1


def test_lists_are_guarded_as_other_writes_are(server):
    client, _ = server
    evil = {"origin": "http://evil.example"}
    assert client.post("/api/lists", json={"name": "x"}, headers=evil).status_code == 403
    assert client.post("/api/lists", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/api/lists", json={"name": "x"}, headers={"authorization": "no"}).status_code == 401


def test_a_damaged_file_is_a_sentence(tmp_path):
    (tmp_path / NAME).write_bytes(b"no database at all" * 100)
    app = Starlette(routes=ListApi(tmp_path, None).routes())  # type: ignore[arg-type]  # no latent is asked about
    answer = TestClient(app).get("/api/lists")
    assert answer.status_code == 503 and "cannot be read" in answer.json()["error"]
