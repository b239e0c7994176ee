"""Shared subjects: a tiny random Gemma 3, and one small real run on Gemma 3 270M for the tests marked `real`."""

import itertools
import logging
import os
import shutil
import sys
import urllib.request
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes at once: one thread each, or their threads wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
from hypothesis import settings

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.models.toy import toy_model
from toy_rows import write_rows

NUMBER = itertools.count()
settings.register_profile("untimed", deadline=None)  # a slow machine is no failure
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items):
    """Of several processes, one has all tests of the real Gemma, which share a long run and therefore come first; a file stays together."""
    real = {item for item in items if item.get_closest_marker("real") or "real_workspace" in item.fixturenames}
    items.sort(key=lambda item: item not in real)
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("real" if item in real else str(item.path)))


@pytest.fixture(scope="module")
def browser():
    """Chromium without a network of its own; of one module, since the thread has Playwright's event loop as long as it runs."""
    if shutil.which("chromium") is None:
        pytest.skip("needs Debian's chromium; CI installs it")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # as the page's own waits have it
    with sync_playwright() as p:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """The rows that the tests of training share."""
    return write_rows(tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """An S3-compatible server of this machine: its address; a bucket is one PUT."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch):
    """A place in an empty bucket, as users give it; credentials, endpoint and cache are set for the test."""
    name = f"bucket-{next(NUMBER)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3}/{name}", method="PUT"))
    for key, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1", "ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    monkeypatch.setenv("DIASCOPE_HOME", str(tmp_path / "home"))
    return f"s3://{name}/spools/one"


@pytest.fixture(scope="session")
def toy():
    return toy_model()


@pytest.fixture
def make_dictionary():
    def make(d=32, S=64, kind="sae", skip=False, theta=0.3, seed=0, **config):
        g = torch.Generator().manual_seed(seed)
        site_in, site_out = ("L2.resid_post",) * 2 if kind == "sae" else ("L2.mlp_in", "L2.mlp_out")
        tensors = {
            "W_enc": torch.randn(d, S, generator=g) / d**0.5,
            "W_dec": torch.nn.functional.normalize(torch.randn(S, d, generator=g), dim=1),
            "b_enc": torch.randn(S, generator=g) * 0.1,
            "b_dec": torch.randn(d, generator=g),
            "threshold": torch.rand(S, generator=g) * theta,
        }
        if skip:
            tensors["W_skip"] = torch.randn(d, d, generator=g) / d**0.5
        return Dictionary(
            DictionaryConfig.single("toy", site_in, site_out, d, d, S, skip=skip, l0_target=8.0, **config), tensors
        )

    return make


@pytest.fixture(scope="session")
def real_workspace(tmp_path_factory):
    """The demo's whole line on the real model at a small budget, run as a user would run it."""
    import subprocess
    import sys

    workspace = tmp_path_factory.mktemp("real") / "workspace"
    small = ["--tokens", "8192", "--epochs", "1", "--eval-tokens", "2048", "--ce-tokens", "512", "--no-serve"]
    command = [sys.executable, "-m", "diascope.cli", "demo", *small, "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return workspace
