"""Training logs as they grow, are cut, or are damaged; cards; jobs. Without a model, and without torch."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from steer_workspace import TOKEN, Slow, served, write_index

from diascope.explorer import runs
from diascope.explorer.runs import cards, logs, stretch, working

HEADERS = {"authorization": f"Bearer {TOKEN}"}


def line(step, member="sae", **more):
    return json.dumps({"step": step, "rows": 100 * step, "member": member, "fvu": 1 / (step + 1), **more}) + "\n"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "training" / "log.jsonl"
    path.parent.mkdir()
    path.write_text(line(0) + line(0, "tc", dead=3) + line(1) + line(1, "tc", l0=5.0))
    return path


def test_lines_become_columns_with_holes_where_a_line_lacks_a_number(log):
    found = stretch(log)
    assert found["members"]["sae"] == {"step": [0, 1], "rows": [0, 100], "fvu": [1.0, 0.5]}
    assert found["members"]["tc"]["dead"] == [3, None] and found["members"]["tc"]["l0"] == [None, 5.0]
    assert found["next"] == log.stat().st_size and not found["more"] and not found["anew"] and found["damaged"] == 0


def test_a_log_that_grows_is_read_on_and_half_a_line_waits(log):
    first = stretch(log)
    with log.open("a") as file:
        file.write(line(2) + line(3)[:20])
    second = stretch(log, after=first["next"], of=first["file"])
    assert (
        second["members"] == {"sae": {"step": [2], "rows": [200], "fvu": [1 / 3]}} and not second["anew"] and not second["more"]
    )
    with log.open("a") as file:
        file.write(line(3)[20:])
    assert stretch(log, after=second["next"], of=second["file"])["members"]["sae"]["step"] == [3]


def test_stretches_of_any_length_together_are_the_whole(log, monkeypatch):
    log.write_text("".join(line(i, f"m{i % 3}") for i in range(200)))
    whole = stretch(log)["members"]
    monkeypatch.setattr(runs, "MOST", 300)
    joined, after, n = {}, 0, 0
    while True:
        part = stretch(log, after=after)
        for member, columns in part["members"].items():
            for key, values in columns.items():
                joined.setdefault(member, {}).setdefault(key, []).extend(values)
        after, n = part["next"], n + 1
        if not part["more"]:
            break
    assert joined == whole and n > 20


def test_a_log_that_was_written_anew_is_read_from_its_beginning(log):
    first = stretch(log)
    new = log.with_suffix(".new")
    new.write_text(line(0) * 50)  # longer than before: only the file tells
    os.replace(new, log)
    again = stretch(log, after=first["next"], of=first["file"])
    assert again["anew"] and again["members"]["sae"]["step"] == [0] * 50
    log.write_text(line(0))  # the same file, cut
    assert stretch(log, after=again["next"], of=again["file"])["anew"]


def test_damage_is_counted_and_warnings_are_told(log):
    log.write_text(
        "garbage\n" + line(1) + '{"step": "x", "member": "sae"}\n[1]\n\xff\n' + line(2, trouble=["dead latents"]),
        encoding="latin-1",
    )
    found = stretch(log)
    assert found["damaged"] == 4 and found["members"]["sae"]["step"] == [1, 2]
    assert found["trouble"] == [{"member": "sae", "step": 2, "text": "dead latents"}]


def test_who_is_at_work_is_a_process_that_lives(tmp_path):
    def held(**who):
        (tmp_path / ".holder.json").write_text(json.dumps({"host": socket.gethostname(), "command": "train", "since": "now", "pid": os.getpid()} | who))  # fmt: skip
        return working(tmp_path)

    assert working(tmp_path) is None
    assert held()["pid"] == os.getpid()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert held(pid=gone.pid) is None and held(host="another", pid=gone.pid)["host"] == "another"
    (tmp_path / ".holder.json").write_text("{")
    assert working(tmp_path) is None


def test_logs_are_found_by_folder_and_hidden_ones_are_not(log):
    workspace = log.parent.parent
    for place in ("small/training", ".half/training", "training/checkpoint"):
        (workspace / place).mkdir(parents=True)
        (workspace / place / "log.jsonl").write_text(line(0))
    assert list(logs(workspace)) == ["small/training", "training", "training/checkpoint"]


def test_cards_are_those_of_the_folder_then_those_of_the_index_and_a_damaged_one_is_named(tmp_path):
    for name, card in (("a", '{"metrics": {"dictionary": {"l0": 3}}, "facts": {"model": "m", "data": "d"}}'), ("b", "{")):
        (tmp_path / "dictionaries" / name).mkdir(parents=True)
        (tmp_path / "dictionaries" / name / "card.json").write_text(card)
        (tmp_path / "dictionaries" / name / "config.json").write_text(
            '{"dictionary": {"sites_out": ["L1.resid_post"], "d_sae": 7}}'
        )
    found = cards(
        tmp_path,
        {"a": {"card": {"metrics": {}}}, "c": {"card": {"metrics": {"dictionary": {"l0": float("nan")}}}, "config": {}}},
    )
    assert [c["name"] for c in found] == ["a", "b", "c"] and "problem" in found[1]
    assert found[0]["target"] == ["m", "L1.resid_post", "d"] and found[0]["metrics"]["dictionary"]["l0"] == 3
    assert found[2]["metrics"]["dictionary"]["l0"] is None


@pytest.fixture
def client(log, toy, make_dictionary):
    with served(write_index(log.parent.parent / "index", toy, make_dictionary()), None) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:  # fmt: skip
        yield client


def test_runs_over_http_are_looked_up_and_never_become_paths(client):
    [found] = client.get("/api/runs").json()
    assert found["run"] == "training" and found["step"] == 1 and found["working"] is None
    curves = client.get("/api/runs/training").json()
    assert curves["members"]["sae"]["fvu"] == [1.0, 0.5]
    assert client.get("/api/runs/training", params={"after": curves["next"], "file": curves["file"]}).json()["members"] == {}
    for name in ("..", "%2e%2e/training", "training%2F..", "%2Fetc", "nope"):
        assert client.get(f"/api/runs/{name}").status_code == 404
    assert client.get("/api/runs/training?after=-1").status_code == 400
    assert client.get("/api/evaluations").json()[0]["name"] == "sae" and client.get("/api/jobs").json() == {
        "state": "absent",
        "ahead": 0,
        "jobs": [],
    }


def test_jobs_are_listed_with_their_titles_and_states(tmp_path, toy, make_dictionary):
    slow = Slow(steps=1000, pause=0.01)
    ask = {"prompt": "abc", "pushes": [{"source": "sae", "latent": 3, "dose": 1}]}
    with served(write_index(tmp_path / "index", toy, make_dictionary()), slow) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:  # fmt: skip
        with client.stream("POST", "/api/steer", json=ask):
            slow.begun.wait(10)
            [job] = client.get("/api/jobs").json()["jobs"]
            assert job["title"] == "steering along 1 direction" and job["state"] == "running" and job["events"] >= 1
            assert client.post(f"/api/jobs/{job['job']}/cancel", json={}).status_code == 200
            for _ in range(200):
                if client.get("/api/jobs").json()["jobs"][0]["state"] == "cancelled":
                    break
                time.sleep(0.02)
        assert client.get("/api/jobs").json()["jobs"][0]["state"] == "cancelled"
