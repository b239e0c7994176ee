"""Lists of latents: small changes that cannot undo each other, over one file and over HTTP."""

import sqlite3
import threading

import httpx
import pytest
from steer_workspace import TOKEN, served, write_index

from diascope.explorer.lists import NAME, Conflict, Entry, Lists

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def lists(tmp_path):
    return Lists(tmp_path / NAME)


def keys(lists, id):
    return [(e["source"], e["latent"]) for e in lists.get(id)["latents"]]


def test_reading_makes_no_file(lists):
    assert lists.all() == [] and not lists.path.exists()
    with pytest.raises(LookupError, match="no such list"):
        lists.rename("x", "y")
    assert not lists.path.exists()


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
    with sqlite3.connect(lists.path) as db:
        assert db.execute("SELECT count(*) FROM latent").fetchone() == (0,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


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


def test_threads_that_change_one_list_at_once_lose_nothing(lists):
    """Eight writers on a file that none of them has opened before: everything is there at the end, in an order without gaps."""
    made: list[str] = []
    failed: list[BaseException] = []

    def work(t):
        try:
            own = Lists(lists.path)
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


def test_a_file_of_a_later_version_is_not_touched(lists):
    with sqlite3.connect(lists.path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(ValueError, match="later version"):
        lists.make("x")


@pytest.fixture(scope="module")
def server(tmp_path_factory, toy, make_dictionary_once):
    folder = tmp_path_factory.mktemp("lists")
    with served(write_index(folder / "index", toy, make_dictionary_once), None) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:  # fmt: skip
        yield client, folder


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
    assert (
        found["name"] == "towns" and found["latents"][0]["row"]["description"] == "about rivers 3" and (folder / NAME).exists()
    )
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


def test_a_damaged_file_is_a_sentence(server, tmp_path):
    client, folder = server
    kept = (folder / NAME).read_bytes() if (folder / NAME).exists() else None
    try:
        for extra in ("-wal", "-shm"):
            (folder / f"{NAME}{extra}").unlink(missing_ok=True)
        (folder / NAME).write_bytes(b"no database at all" * 100)
        answer = client.get("/api/lists")
        assert answer.status_code == 503 and "cannot be read" in answer.json()["error"]
    finally:
        (folder / NAME).unlink()
        if kept:
            (folder / NAME).write_bytes(kept)
