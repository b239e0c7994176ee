"""Jobs of the model's thread, and their events over HTTP: numbered, resumable, bounded, cancelled when nobody is there."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import httpx
import pytest
from steer_workspace import TOKEN, Slow, events, served, write_index

from diascope.explorer.events import written
from diascope.explorer.host import KEPT, QUEUE, Busy, ModelHost
from diascope.explorer.jobs import Job

BODY = {"prompt": "abc", "pushes": []}
HEADERS = {"authorization": f"Bearer {TOKEN}"}


def ready(grace=5.0):
    host = ModelHost(lambda: "opened", grace=grace)
    while host.state == "loading":
        time.sleep(0.005)
    return host


def wait(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def all_of(job, after=0):
    async def go():
        return [e async for e in job.follow(after)]

    return asyncio.run(go())


def test_events_are_numbered_and_the_last_says_how_it_ended():
    def work(opened, emit):
        emit("step", opened)
        return 7

    host = ready()
    job = host.start(work)
    assert all_of(job) == [(1, "job", {"job": job.id, "ahead": 0}), (2, "step", "opened"), (3, "done", 7)]
    assert all_of(job, after=2) == [(3, "done", 7)] and all_of(job, after=3) == []

    def fail(opened, emit):
        raise ValueError("no such latent")

    assert all_of(host.start(fail))[-1] == (2, "failed", {"error": "no such latent", "kind": "ValueError"})
    assert host.ahead == 0 and all_of(host.start(work))[-1][1] == "done"  # the thread lives on


def test_many_followers_see_everything_while_it_runs():
    def work(opened, emit):
        for i in range(200):
            emit("step", i)
        return None

    async def go():
        job = ready().start(work)

        async def one(after):
            return [n async for n, _, _ in job.follow(after)]

        return await asyncio.gather(*(one(i) for i in (0, 0, 57, 150)))

    for found, after in zip(asyncio.run(go()), (0, 0, 57, 150)):
        assert found == list(range(after + 1, 203))


def test_a_quiet_job_beats():
    gate = threading.Event()
    job = ready().start(lambda opened, emit: gate.wait(5))

    async def go():
        found = []
        async for event in job.follow(beat=0.02):
            found.append(event and event[1])
            if len(found) == 4:
                gate.set()
        return found

    found = asyncio.run(go())
    assert found[:4] == ["job", None, None, None] and found[-1] == "done"
    assert written(None).startswith(b":")  # a comment, which readers of events pass over


def test_a_waiting_job_that_is_cancelled_never_starts_and_frees_its_place():
    gate, ran = threading.Event(), []
    host = ready()
    first = host.start(lambda opened, emit: gate.wait(5))
    rest = [host.start(lambda opened, emit, i=i: ran.append(i)) for i in range(QUEUE - 1)]
    with pytest.raises(Busy):
        host.start(lambda opened, emit: None)
    with pytest.raises(Busy):
        asyncio.run(host.call(lambda opened: None))
    rest[2].cancel()
    assert rest[2].state == "cancelled" and host.ahead == QUEUE - 1
    last = host.start(lambda opened, emit: ran.append("last"))
    gate.set()
    assert all_of(last)[-1][1] == "done" and first.state == "done"
    assert ran == [0, 1, 3, 4, 5, 6, "last"]
    last.cancel()
    assert last.state == "done"  # what is over stays as it was


def test_a_running_job_stops_at_its_next_event():
    slow, host = Slow(steps=10_000, pause=0.001), ready()
    job = host.start(lambda opened, emit: slow.steer(None, None, emit))
    wait(lambda: slow.told > 3)
    job.cancel()
    assert slow.stopped.wait(5)
    assert all_of(job)[-1][1:] == ("cancelled", {}) and job.state == "cancelled"


def test_what_nobody_follows_is_cancelled_after_the_grace_period():
    slow, host = Slow(steps=10_000, pause=0.001), ready(grace=1.0)  # long enough for a busy machine to begin and to follow
    host.start(lambda opened, emit: slow.steer(None, None, emit))
    assert slow.begun.wait(5) and slow.stopped.wait(5)
    slow = Slow(steps=150, pause=0.01)  # longer than the grace period, but followed
    assert all_of(host.start(lambda opened, emit: slow.steer(None, None, emit)))[-1][1] == "done"


def test_old_jobs_are_forgotten():
    host = ready()
    jobs = []
    for _ in range(KEPT + 5):
        jobs.append(host.start(lambda opened, emit: None))
        all_of(jobs[-1])
    assert host.job(jobs[0].id) is None and host.job(jobs[-1].id) is jobs[-1]
    assert sum(host.job(j.id) is not None for j in jobs) == KEPT


def test_ids_cannot_be_guessed():
    assert len({Job(lambda *_: None).id for _ in range(100)}) == 100 and len(Job(lambda *_: None).id) >= 12


@pytest.fixture(scope="module")
def index(tmp_path_factory, toy):
    import torch

    from diascope.dictionaries import Dictionary, DictionaryConfig

    g = torch.Generator().manual_seed(0)
    tensors = {"W_enc": torch.randn(32, 64, generator=g), "W_dec": torch.randn(64, 32, generator=g), "b_enc": torch.zeros(64), "b_dec": torch.zeros(32), "threshold": torch.zeros(64)}  # fmt: skip
    d = Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", 32, 32, 64), tensors)
    return write_index(tmp_path_factory.mktemp("steered") / "index", toy, d)


def test_a_stream_is_resumed_after_the_last_event_that_was_seen(index):
    slow = Slow(steps=40, pause=0.01)
    with served(index, slow) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
        seen = []
        with client.stream("POST", "/api/steer", json=BODY) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for event in events(answer.iter_lines()):
                seen.append(event)
                if len(seen) == 7:
                    break  # the connection breaks
        job, last = seen[0][2]["job"], seen[-1][0]
        with client.stream("GET", f"/api/jobs/{job}", headers={"last-event-id": str(last)}) as answer:
            seen += events(answer.iter_lines())
        assert [n for n, _, _ in seen] == list(range(1, 43)) and seen[-1][1] == "done"
        assert client.get(f"/api/jobs/{job}").text.count("event: step") == 40  # the whole of it, afterwards
        assert client.get(f"/api/jobs/{job}", headers={"last-event-id": "-1"}).status_code == 400
        assert client.get(f"/api/jobs/{job}", headers={"last-event-id": "9" * 400}).status_code == 400
        assert client.get("/api/jobs/nope").status_code == 404
        assert client.get("/api/jobs/..%2F..%2Fetc%2Fpasswd").status_code == 404


def test_a_job_is_cancelled_by_request(index):
    slow = Slow(steps=100_000, pause=0.002)
    with served(index, slow) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
        with client.stream("POST", "/api/steer", json=BODY) as answer:
            lines = events(answer.iter_lines())
            _, _, first = next(lines)
            assert next(lines)[1] == "step"  # it runs: one that still waits is cancelled without having begun
            assert client.post(f"/api/jobs/{first['job']}/cancel", json={}).status_code == 200
            assert list(lines)[-1][1] == "cancelled"
        assert slow.stopped.wait(5)
        assert client.post("/api/jobs/nope/cancel", json={}).status_code == 404


def test_other_pages_can_neither_start_nor_cancel_nor_follow(index):
    slow = Slow(steps=3)
    with served(index, slow) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
        evil = {"origin": "http://evil.example"}
        assert client.post("/api/steer", json=BODY, headers=evil).status_code == 403
        assert client.post("/api/steer", content="{}", headers={"content-type": "text/plain"}).status_code == 415
        job = next(events(iter(client.post("/api/steer", json=BODY).text.split("\n"))))[2]["job"]
        assert client.post(f"/api/jobs/{job}/cancel", json={}, headers=evil).status_code == 403
        assert client.post(f"/api/jobs/{job}/cancel", content="").status_code == 415
        assert client.get(f"/api/jobs/{job}", headers={"authorization": ""}).status_code == 401
        assert client.get(f"/api/jobs/{job}", headers={"host": "evil.example"}).status_code == 421
        answer = client.get(f"/api/jobs/{job}")
        assert (
            "default-src 'none'" in answer.headers["content-security-policy"] and answer.headers["cache-control"] == "no-store"
        )
        assert "access-control-allow-origin" not in answer.headers


def test_a_killed_client_cancels_its_job(index):
    slow = Slow(steps=100_000, pause=0.002)
    with served(index, slow, grace=0.3) as (address, host):
        code = f"""
            import httpx
            with httpx.stream("POST", "{address}/api/steer", json={BODY!r}, headers={HEADERS!r}, timeout=60) as answer:
                for line in answer.iter_lines():
                    print(line, flush=True)
        """
        client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None and client.stdout.readline().startswith("id: 1")
        assert slow.begun.wait(10)  # a job that still waits is cancelled without having begun
        client.send_signal(signal.SIGKILL)
        client.wait(10)
        client.stdout.close()
        assert slow.stopped.wait(10)
        wait(lambda: host.ahead == 0)


def test_a_full_queue_answers_429_and_a_missing_model_503(index):
    slow = Slow(steps=100_000, pause=0.002)
    with served(index, slow) as (address, host), httpx.Client(base_url=address, headers=HEADERS) as client:
        for _ in range(QUEUE):
            host.start(lambda opened, emit: slow.steer(None, None, emit))
        answer = client.post("/api/steer", json=BODY)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "2" and "busy" in answer.json()["error"]
        assert client.get("/api/sources").status_code == 200  # browsing goes on
    with served(index, None) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
        answer = client.post("/api/steer", json=BODY)
        assert answer.status_code == 503 and "browsing only" in answer.json()["error"]
        assert client.get("/api/steer").json()["state"] == "absent"


def test_closing_the_host_ends_what_runs():
    slow, host = Slow(steps=100_000, pause=0.002), ready()
    host.start(lambda opened, emit: slow.steer(None, None, emit))
    assert slow.begun.wait(5)
    host.close()
    assert slow.stopped.wait(5)


def test_small_answers_are_sent_at_once(index):
    with served(index, None) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
        times = []
        for _ in range(15):
            began = time.perf_counter()
            client.get("/api/status").raise_for_status()
            times.append(time.perf_counter() - began)
    assert sorted(times)[7] < 0.03  # where Nagle's algorithm is on, each waits 40 ms for an acknowledgement


def test_an_interrupt_ends_streams_and_server_at_once(index):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from steer_workspace import Slow
        from diascope.explorer.server import serve
        from diascope.latents.store import Index
        try:
            serve(Index({str(index.folder)!r}), port=0, opener=lambda: Slow(100_000), encode=None, announce=lambda url: print(url, flush=True))
        except KeyboardInterrupt:
            pass  # as the command does
    """
    server = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    address, _, token = server.stdout.readline().strip().partition("/?token=")
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}) as client:
        with client.stream("POST", "/api/steer", json=BODY) as answer:
            lines = events(answer.iter_lines())
            assert [next(lines)[1] for _ in range(3)] == ["job", "step", "step"]
            server.send_signal(signal.SIGINT)
            assert list(lines)[-1][1] == "cancelled"
    assert server.communicate(timeout=10) == ("", "")


def test_a_follower_that_is_stopped_as_an_event_comes_leaves_all_the_same():
    slow, host = Slow(steps=100_000, pause=0.0005), ready()
    job = host.start(lambda opened, emit: slow.steer(None, None, emit))

    async def one(i):
        async def read():
            async for _ in job.follow(len(job.events)):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.001 + 0.00001 * i)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.5)
        return bool(done)

    async def go():
        return [await one(i) for i in range(300)]

    left = asyncio.run(go())
    job.cancel()
    assert all(left), f"{left.count(False)} of {len(left)} went on"
