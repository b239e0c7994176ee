"""Stores that fail, lie, lose bytes or fill up a cache: what was committed is what is read, or the object is named."""

import http.server
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from diascope.activations import RowReader, Rows, RowWriter
from diascope.harvest import Harvest, harvest
from diascope.models.toy import toy_model
from diascope.sites import Site
from diascope.storage import store as module
from diascope.storage.seals import seal
from diascope.storage.vault import vault
from diascope.tokens import pack
from diascope.tokens.corpora import Document

SITE = Site(0, "resid_post")
MANIFEST = {"format": "diascope-spool-2", "sites": [str(SITE)], "widths": [4], "codec": "float32"}


def rows(run, n=10):
    ids = torch.arange(n) + 100 * run
    return Rows({SITE: torch.randn(n, 4, generator=torch.Generator().manual_seed(run))}, ids, ids, ids, ids)


class Between(http.server.BaseHTTPRequestHandler):
    """A proxy in front of the store, which `meddle(handler, number of the request)` may answer instead."""

    def answer(self):
        type(self).count += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if (mine := self.meddle(type(self).count)) is not None:
            self.reply(*mine)
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
        headers.setdefault("Content-Type", "application/octet-stream")  # urllib would call it a form
        request = urllib.request.Request(self.behind + self.path, data=body or None, headers=headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as found:
                self.reply(found.status, found.read(), found.headers)
        except urllib.error.HTTPError as error:
            self.reply(error.code, error.read(), error.headers)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def reply(self, status, body=b"", headers=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            if key.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                self.send_header(key, value)
        length = (headers or {}).get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def meddling(s3, bucket, monkeypatch):
    """`meddling(function)` puts it between us and the store."""
    servers = []

    def between(meddle):
        handler = type("Handler", (Between,), {"count": 0, "behind": s3, "meddle": lambda self, n: meddle(self, n)})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        return handler

    yield between
    for server in servers:
        server.shutdown()


def test_a_store_that_fails_every_third_request_is_asked_again(meddling, bucket):
    handler = meddling(lambda self, n: (503, b"") if n % 3 == 0 else None)
    writer = RowWriter(bucket, MANIFEST)
    for run in range(3):
        writer.write(run, rows(run))
    reader = RowReader(bucket)
    assert torch.equal(reader.read(SITE, np.arange(30)), torch.cat([rows(r).vectors[SITE] for r in range(3)]))
    assert handler.count > 30


def test_a_store_that_lies_about_success_is_found_out(meddling, bucket, monkeypatch):
    """It says 200 to every upload of rows and keeps none of them."""
    monkeypatch.setattr(module, "TRIES", 2)
    meddling(lambda self, n: (200, b"", {"ETag": '"x"'}) if self.command == "PUT" and "resid_post" in self.path else None)
    with pytest.raises(OSError, match=r"resid_post.*took it, and does not have it"):
        RowWriter(bucket, MANIFEST).write(0, rows(0))
    assert not RowWriter(bucket, MANIFEST).has(0)  # no commit without the rows


def test_a_store_that_is_gone_is_said_after_some_tries(bucket, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"s3://.*manifest\.json: the store failed 2 times"):
        RowReader(bucket)


def test_a_byte_that_changed_in_the_store_is_named(meddling, bucket):
    writer = RowWriter(bucket, MANIFEST)
    writer.write(0, rows(0))
    meddling(lambda self, n: (200, b"other bytes", {"ETag": '"x"', "Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"})
             if self.command == "GET" and "resid_post" in self.path else None)  # fmt: skip
    with pytest.raises(ValueError, match=r"L0\.resid_post\.safetensors is damaged in the store"):
        RowReader(bucket).read(SITE, np.arange(3))


def test_the_cache_is_bounded_and_what_it_lost_is_fetched_again(bucket, tmp_path):
    writer = RowWriter(bucket, MANIFEST)
    for run in range(6):
        writer.write(run, rows(run, 1000))
    size = sum(p.stat().st_size for p in _fetched(bucket, tmp_path / "one", 0))
    reader = RowReader(bucket, cache=tmp_path / "cache", cache_bytes=2.5 * size)
    assert reader.window < 1500  # two of its windows fit the cache
    for _ in range(2):
        for run in range(6):
            index = np.arange(1000) + 1000 * run
            assert torch.equal(reader.read(SITE, index), rows(run, 1000).vectors[SITE])
            held = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*") if p.is_file())
            assert held <= 3 * size


def _fetched(bucket, cache, run):
    reader = RowReader(bucket, cache=cache)
    reader.read(SITE, np.arange(1000) + 1000 * run)
    return list(next(cache.glob(f"*/runs/{run:06d}")).iterdir())


def test_of_two_writers_of_a_folder_one_commits(bucket):
    one, two = vault(bucket), vault(bucket)
    with pytest.raises(FileExistsError), one.commit("a") as work:
        (work / "x").write_text("first")
        seal(work)
        assert not two.has("a")
        with two.commit("a") as other:
            (other / "x").write_text("first")
            seal(other)
        assert two.has("a")
    with pytest.raises(FileExistsError), one.commit("a"):
        raise AssertionError("it was there already")


def test_a_harvest_into_a_store_trains_like_one_into_a_folder(bucket, tmp_path):
    model = toy_model()
    draw = np.random.default_rng(0)
    documents = [Document(f"d{i}", " ".join(draw.choice(["the", "cat", "sat", "on"], 20))) for i in range(20)]
    sequences = pack(model, documents, context=64, max_tokens=1024)
    plan = Harvest(("L1.resid_post",), run_sequences=4)
    here, there = harvest(model, sequences, plan, tmp_path / "s"), harvest(model, sequences, plan, bucket)
    index = np.random.default_rng(0).permutation(len(here))
    assert torch.equal(here.read(here.sites[0], index), there.read(there.sites[0], index))
    assert there.manifest == here.manifest


def test_bad_places_are_one_sentence(monkeypatch):
    with pytest.raises(ValueError, match="cannot be opened"):
        vault("nothing://x/y")


def test_a_deleted_folder_is_gone_and_may_come_again(bucket, tmp_path):
    for place in (bucket, tmp_path / "folder"):
        for _ in range(2):
            writer = RowWriter(place, MANIFEST)
            writer.write(0, rows(0))
            writer.write(1, rows(1))
            door = vault(place)
            door.delete("runs/000000")
            assert door.names("runs") == ["000001"] and not door.has("runs/000000") and door.has("runs/000001")
            door.delete("runs/000000")  # of two that delete, the second finds nothing
            door.delete("runs/000001")
